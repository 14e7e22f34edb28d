r"""Annealed Langevin dynamics: at every noise level, moves that leave p_t invariant up to their step size.

    x <- x + e M_t score(x, t) + sqrt(2 e) M_t^{1/2} z,    M_t = I unless the model has a metric

    rule = "level":    e = 2 (snr sigma_t)^2
    rule = "norm":     e = 2 (snr |z| / |score(x, t)|)^2, for each sample

The two agree for large images, where |z| is close to sigma_t |score|. The norm rule lets e depend on z: the chain is
then not quite the Langevin chain, and in few dimensions its variance is too large whatever snr is; Song et al.
moreover take the means of the norms over the batch, which couples the samples, and a factor alpha_i of the discrete VP
chain. Between levels x/alpha is kept.

At stationarity a mode of variance P comes out with the variance P / (1 - e / (2 P)), since no step is rejected: with P
= sigma_t^2 that is 1 / (1 - snr^2) times too much. Jalal et al. use snr = 0.76 (their e = 1.148 sigma^2), 2.35 times
too much in a flat mode.

References:
    Song, Ermon: Generative Modeling by Estimating Gradients of the Data Distribution. NeurIPS 2019, arXiv:1907.05600,
    algorithm 1. Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through Stochastic
    Differential Equations. ICLR 2021, arXiv:2011.13456, appendix G, algorithms 4 and 5.
"""

from __future__ import annotations

from typing import Literal

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.model import precondition, tweedie
from scoreplug.noise import Noise
from scoreplug.protocols import ScoreModel, Step
from scoreplug.sampler import BaseSampler, State


@attrs.frozen(kw_only=True)
class Langevin(BaseSampler):
    """Annealed Langevin dynamics, and the Langevin corrector of `pc`; `moves` evaluations per level."""

    snr: float = param(0.16, gt=0.0, lt=1.0, doc="signal-to-noise ratio r that sets the step size")
    moves: int = param(1, ge=1, doc="Langevin moves at each level")
    rule: Literal["level", "norm"] = param(
        "level", doc="step size from the noise level, or from the norms of noise and score"
    )

    def correct(self, model: ScoreModel, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """x after the moves at level t, (B, *shape)."""
        for k in range(self.moves):
            x = self.move(model, x, t, noise.at("move", k))
        return x

    def move(self, model: ScoreModel, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """One Langevin move and the model's projection after it."""
        z, score = noise.at("z").normal(model.shape), model.score(x, t)
        e = 2 * (self.snr * model.sde.sigma(t)) ** 2
        if self.rule == "norm":
            e = 2 * (self.snr * _norm(z) / _norm(score)) ** 2
        x_new = x + e * precondition(model, score, t, "one") + (2 * e).sqrt() * precondition(model, z, t, "half")
        x0 = tweedie(model, x, t, score)
        return model.project(x_new, Step(t=t, s=t, x0=x0, gain=e, phase="correct", noise=noise.at("project")))

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        x = state.x * (model.sde.alpha(state.s) / model.sde.alpha(state.t))
        return state.next(self.correct(model, x, state.s, noise.at("corrector")))


def _norm(x: Tensor) -> Tensor:
    """Norm of each sample, (B, 1, ...)."""
    return x.flatten(1).norm(dim=1).reshape(-1, *(1 for _ in x.shape[1:]))
