"""What a run will cost, without its network: one sample of the same loop, with a Gaussian in the network's place."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from scoreplug.model import BaseModel, broadcast
from scoreplug.protocols import SDE, ScoreModel
from scoreplug.run.cost import Cost
from scoreplug.run.plan import draw
from scoreplug.run.setup import Setup


@attrs.frozen(kw_only=True, eq=False)
class _StandardNormal(BaseModel):
    """The prior N(0, I) under the process and in the shape of another model."""

    instead_of: ScoreModel

    @property
    def sde(self) -> SDE:
        return self.instead_of.sde

    @property
    def shape(self) -> tuple[int, ...]:
        return self.instead_of.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.instead_of.dtype

    @property
    def device(self) -> torch.device:
        return self.instead_of.device

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        return -x / broadcast(self.sde.alpha(t) ** 2 + self.sde.sigma(t) ** 2, x)

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x) up to a constant, (B,), in nats."""
        variance = (self.sde.alpha(t) ** 2 + self.sde.sigma(t) ** 2).to(x)
        return -x.flatten(1).square().sum(1) / (2 * variance)


def rehearse(setup: Setup) -> Cost:
    """The calls that one sample takes. Exact unless the sampler adapts its steps to the prior.

    Raises:
        DivergenceError: if the loop diverges even then.
    """
    stand_in = attrs.evolve(setup, prior=_StandardNormal(instead_of=setup.prior), cost=Cost())
    draw(stand_in, 0, range(1))
    return stand_in.cost
