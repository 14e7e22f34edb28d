"""What a run will cost, without its network: one sample of the same loop, with a Gaussian in the network's place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
from torch import Tensor

from scoreplug.model import BaseModel, broadcast
from scoreplug.protocols import ScoreModel
from scoreplug.run.cost import Cost, recast
from scoreplug.run.plan import draw
from scoreplug.run.setup import Setup


def stand_in(model: ScoreModel) -> ScoreModel:
    """The same model, with all it can do, but for the network: it evaluates the prior N(0, I) instead."""
    kind: Any = type(model)

    class StandIn(kind):  # type: ignore[misc]
        __slots__ = ()

        @property
        def radius(self) -> float:
            return math.inf  # only calls are counted: no value is too large, and no process starts too low

        def score(self, x: Tensor, t: Tensor) -> Tensor:
            return -x / broadcast(self.sde.alpha(t) ** 2 + self.sde.sigma(t) ** 2, x)

        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            alpha = self.sde.alpha(t)
            return x * broadcast(alpha / (alpha**2 + self.sde.sigma(t) ** 2), x)

        def denoise_with_vjp(self, x: Tensor, t: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            return BaseModel.denoise_with_vjp(self, x, t)

    if not hasattr(kind, "log_density"):
        return recast(model, StandIn)

    class DenseStandIn(StandIn):
        __slots__ = ()

        def log_density(self, x: Tensor, t: Tensor) -> Tensor:
            variance = broadcast(self.sde.alpha(t) ** 2 + self.sde.sigma(t) ** 2, x)
            return -(x**2 / variance).flatten(1).sum(1) / 2

        def score_and_log_density(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return self.score(x, t), self.log_density(x, t)

    return recast(model, DenseStandIn)


def rehearse(setup: Setup) -> Cost:
    """The calls that one sample takes. Exact unless a sampler adapts its steps, or a solver its iterations, to values.

    Raises:
        DivergenceError: if the loop diverges even then.
    """
    rehearsal = attrs.evolve(setup, prior=stand_in(setup.prior), cost=Cost())
    draw(rehearsal, 0, range(1))
    return rehearsal.cost
