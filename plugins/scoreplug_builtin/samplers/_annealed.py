"""Annealed Markov chains: at every noise level, moves that leave p_t invariant."""

from __future__ import annotations

import attrs
from torch import Tensor

from scoreplug.model import kernel
from scoreplug.noise import Noise
from scoreplug.protocols import ScoreModel
from scoreplug.sampler import BaseSampler, State


@attrs.frozen(kw_only=True)
class AnnealedChain(BaseSampler):
    """A corrector as a sampler of its own: from level to level x/alpha is kept, and the chain runs at the new level."""

    def correct(self, model: ScoreModel, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """x after the chain's moves at level t, (B, *shape)."""
        raise NotImplementedError

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        return state.next(self.correct(model, rescaled(model, state), state.s, noise.at("corrector")))


def rescaled(model: ScoreModel, state: State) -> Tensor:
    """x at the next level with the same x/alpha, (B, *shape)."""
    (alpha_t, _), (alpha_s, _) = kernel(model.sde, state.t), kernel(model.sde, state.s)
    return state.x * (alpha_s / alpha_t)
