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
from scoreplug.model import combination, rates, tweedie
from scoreplug.noise import Noise
from scoreplug.protocols import ScoreModel
from scoreplug.sampler import KernelSampler, Transition


@attrs.frozen(kw_only=True)
class EulerMaruyama(KernelSampler):
    """First order in the step; one evaluation per step."""

    steps: int = param(1000, ge=1, doc="number of steps from t = 1 to t_min")

    def transition(self, model: ScoreModel, x: Tensor, t: Tensor, s: Tensor, noise: Noise) -> Transition:
        (f, g), dt = rates(model.sde, t), float(t) - float(s)
        score, z = model.score(x, t), noise.at("z").normal(model.shape)
        x_s = combination((1 - f * dt, x), (g**2 * dt, score), (g * dt**0.5, z))
        return Transition(x=x_s, x0=lambda: tweedie(model, x, t, score), gain=g**2 * dt)
