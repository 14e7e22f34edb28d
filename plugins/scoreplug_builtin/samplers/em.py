r"""Euler-Maruyama on the reverse SDE, dx = [f(t) x - g(t)^2 score(x, t)] dt + g(t) dw.

    x_s = x_t - [f x_t - g^2 score(x_t, t)] dt + g sqrt(dt) z,    dt = t - s

Song et al.'s code takes dt = 1/N on a grid of spacing (1 - t_min)/(N - 1), and so ends below t_min; here dt is the
grid's own spacing.

References:
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through Stochastic Differential
    Equations. ICLR 2021, arXiv:2011.13456, section 4.1.
"""

from __future__ import annotations

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.model import tweedie
from scoreplug.noise import Noise
from scoreplug.protocols import ScoreModel
from scoreplug.sampler import KernelSampler, Transition


@attrs.frozen(kw_only=True)
class EulerMaruyama(KernelSampler):
    """First order in the step; one evaluation per step."""

    steps: int = param(1000, ge=1, doc="number of steps from t = 1 to t_min")

    def transition(self, model: ScoreModel, x: Tensor, t: Tensor, s: Tensor, noise: Noise) -> Transition:
        dt, f, g = t - s, model.sde.drift(t), model.sde.diffusion(t)
        score = model.score(x, t)
        x_s = x - (f * x - g**2 * score) * dt + g * dt.sqrt() * noise.at("z").normal(model.shape)
        return Transition(x=x_s, x0=tweedie(model, x, t, score), gain=g**2 * dt)
