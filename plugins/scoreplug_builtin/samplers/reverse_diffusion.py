r"""Reverse diffusion: the forward transition x_s -> x_t, discretised backwards.

    forward:    x_t = (1 + f) x_s + G z,         1 + f = alpha_t / alpha_s,    G^2 = sigma_t^2 - (1 + f)^2 sigma_s^2
    reverse:    x_s = x_t - f x_t + G^2 score(x_t, t) + G z

f and G are those of the process's own transition between the two levels: of the VP SDE (2 - sqrt(1 - b)) x + b score +
sqrt(b) z with 1 - b = (alpha_t / alpha_s)^2, of the VE SDE x + (sigma_t^2 - sigma_s^2) score + (sigma_t^2 -
sigma_s^2)^(1/2) z, on any grid. On the grid of DDPM's or NCSN's chain this is score_sde's predictor. Where the process
runs backwards in variance, G^2 would be negative; no process with a growing noise level does.

References:
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through Stochastic Differential
    Equations. ICLR 2021, arXiv:2011.13456, appendix E, eq. 46.
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
class ReverseDiffusion(KernelSampler):
    """First order in the step; one evaluation per step."""

    steps: int = param(1000, ge=1, doc="number of steps from t = 1 to t_min")

    def transition(self, model: ScoreModel, x: Tensor, t: Tensor, s: Tensor, noise: Noise) -> Transition:
        scale = model.sde.alpha(t) / model.sde.alpha(s)
        f, G2 = scale - 1, model.sde.sigma(t) ** 2 - (scale * model.sde.sigma(s)) ** 2
        score = model.score(x, t)
        x_s = x - f * x + G2 * score + G2.sqrt() * noise.at("z").normal(model.shape)
        return Transition(x=x_s, x0=tweedie(model, x, t, score), gain=G2)
