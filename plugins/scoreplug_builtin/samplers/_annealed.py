"""Annealed Markov chains: at every noise level, moves that leave p_t invariant."""

from __future__ import annotations

import attrs
from torch import Tensor

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
    return state.x * (model.sde.alpha(state.s) / model.sde.alpha(state.t))
