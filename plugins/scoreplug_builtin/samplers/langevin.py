r"""Annealed Langevin dynamics: at every noise level, moves that leave p_t invariant up to their step size.

    x <- x + e M_t score(x, t) + sqrt(2 e) M_t^{1/2} z,    M_t = I unless the model has a metric

    rule = "level":    e = 2 (snr sigma_t)^2
    rule = "norm":     e = 2 (snr |z| / |score(x, t)|)^2, for each sample
    rule = "ncsn":     e = step_size (alpha_t level_t / level_min)^2, level = sigma/alpha, level_min that of t_min

The first two agree for large images, where |z| is close to sigma_t |score|. The norm rule lets e depend on z: the chain
is then not quite the Langevin chain, and in few dimensions its variance is too large whatever snr is; Song et al.
moreover take the means of the norms over the batch, which couples the samples, and a factor alpha_i of the discrete VP
chain. The third is the schedule of NCSN, with the step size at the last level as the parameter: it is the first one
with 2 snr^2 = step_size / level_min^2. Jalal et al. take step_size 5e-5 at level_min .0066, hence e = 1.148 sigma^2, or
snr = .76; SNIPS takes 3.3e-6 at .01, snr = .13. Between levels x/alpha is kept.

At stationarity a mode of variance P comes out with the variance P / (1 - e / (2 P)), since no step is rejected: with P
= sigma_t^2 that is 1 / (1 - snr^2) times too much, 1.026 with the default and 2.35 with Jalal's. With e >= 2 P it grows
without bound.

References:
    Song, Ermon: Generative Modeling by Estimating Gradients of the Data Distribution. NeurIPS 2019, arXiv:1907.05600,
    algorithm 1. Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through Stochastic
    Differential Equations. ICLR 2021, arXiv:2011.13456, appendix G, algorithms 4 and 5. Jalal, Arvinte, Daras, Price,
    Dimakis, Tamir: Robust Compressed Sensing MRI with Deep Generative Priors. NeurIPS 2021, arXiv:2108.01368.
"""

from __future__ import annotations

from typing import Literal

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.model import Coefficient, combination, kernel, precondition, tweedie
from scoreplug.noise import Noise
from scoreplug.protocols import ScoreModel, Step
from scoreplug_builtin.samplers._annealed import AnnealedChain


@attrs.frozen(kw_only=True)
class Langevin(AnnealedChain):
    """Annealed Langevin dynamics, and the Langevin corrector of `pc`; `moves` evaluations per level."""

    snr: float = param(
        0.16,
        gt=0.0,
        lt=1.0,
        on_divergence="lower",
        where={"rule": ("level", "norm")},
        doc="signal-to-noise ratio r that sets the step size (level, norm)",
    )
    moves: int = param(1, ge=1, doc="Langevin moves at each level")
    rule: Literal["level", "norm", "ncsn"] = param(
        "level", doc="step size from the noise level, from the norms of noise and score, or growing from the last level"
    )
    step_size: float = param(
        3.3e-6,
        gt=0.0,
        unit="data squared",
        on_divergence="lower",
        where={"rule": ("ncsn",)},
        doc="e at the last level (ncsn); SNIPS's for the last level .01",
    )

    def correct(self, model: ScoreModel, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        for k in range(self.moves):
            x = self.move(model, x, t, noise.at("move", k))
        return x

    def move(self, model: ScoreModel, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """One Langevin move and the model's projection after it."""
        z, score = noise.at("z").normal(model.shape), model.score(x, t)
        e = self.step_of(model, t, z, score)
        drift, diffusion = precondition(model, score, t, "one"), precondition(model, z, t, "half")
        x_new = combination((1, x), (e, drift), ((2 * e) ** 0.5, diffusion))
        step = Step(
            t=t, s=t, x0=lambda: tweedie(model, x, t, score), gain=e, phase="correct", noise=noise.at("project")
        )
        return model.project(x_new, step)

    def step_of(self, model: ScoreModel, t: Tensor, z: Tensor, score: Tensor) -> Coefficient:
        """e, a number or (B, 1, ...)."""
        if self.rule == "norm":
            return 2 * (self.snr * _norm(z) / _norm(score)) ** 2
        sde, (_, sigma_t) = model.sde, kernel(model.sde, t)
        if self.rule == "level":
            return 2 * (self.snr * sigma_t) ** 2
        alpha_last, sigma_last = kernel(sde, torch.tensor(sde.t_min, dtype=torch.float64, device="cpu"))
        return self.step_size * (sigma_t * alpha_last / sigma_last) ** 2


def _norm(x: Tensor) -> Tensor:
    """Norm of each sample, (B, 1, ...)."""
    return x.flatten(1).norm(dim=1).reshape(-1, *(1 for _ in x.shape[1:]))
