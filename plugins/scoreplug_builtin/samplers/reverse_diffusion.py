r"""Reverse diffusion: the forward transition x_s -> x_t, discretised backwards.

    forward:    x_t = (1 + f) x_s + G z,         1 + f = alpha_t / alpha_s,    G^2 = sigma_t^2 - (1 + f)^2 sigma_s^2
    reverse:    x_s = x_t - f x_t + G^2 score(x_t, t) + G z

f and G are those of the process's own transition between the two levels: of the VP SDE (2 - sqrt(1 - b)) x + b score +
sqrt(b) z with 1 - b = (alpha_t / alpha_s)^2, of the VE SDE x + (sigma_t^2 - sigma_s^2) score + (sigma_t^2 -
sigma_s^2)^(1/2) z, on any grid. On the grid of DDPM's chain (`ddpm`, 999 steps) or NCSN's (`ve`) it is score_sde's
predictor; for processes without a chain that one is `em`. The chain's last step, to clean data, is `final` here: the
same for VE, and up to b^2 for VP.

Exact as the steps become small; the bias is of first order in them. G is the noise of the forward step, more than the
posterior q(x_s | x_t, x_0) has (`ancestral`), so that the variance comes out too large: N(0, 1.7) as 1.7026 after 1000
uniform steps under vp, 1.714 under ve. In the scalar problem N(0, 1.7), y = .8 x + .6 n = 1.3, whose posterior has mean
1.2210 and variance .4227, and with that posterior's score, the 1000 steps give 1.2200 and .4245 under vp, 1.2208 and
.4262 under ve.

No coefficient depends on the clock, but they do depend on alpha: xbar = x / alpha is taken to (1 - f^2) xbar + ..., so
that the same levels give the same samples under vp, cosine and ddpm, and under ve and edm, but not across.

References:
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through Stochastic Differential
    Equations. ICLR 2021, arXiv:2011.13456, appendix E, eq. 46.
"""

from __future__ import annotations

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.model import combination, kernel, tweedie
from scoreplug.noise import Noise
from scoreplug.protocols import ScoreModel
from scoreplug.sampler import KernelSampler, Transition


@attrs.frozen(kw_only=True)
class ReverseDiffusion(KernelSampler):
    """First order in the step; one evaluation per step."""

    steps: int = param(1000, ge=1, doc="number of steps from t = 1 to t_min")

    def transition(self, model: ScoreModel, x: Tensor, t: Tensor, s: Tensor, noise: Noise) -> Transition:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = kernel(model.sde, t), kernel(model.sde, s)
        f = alpha_t / alpha_s - 1
        G2 = sigma_t**2 - ((1 + f) * sigma_s) ** 2
        score, z = model.score(x, t), noise.at("z").normal(model.shape)
        x_s = combination((1 - f, x), (G2, score), (G2**0.5, z))
        return Transition(x=x_s, x0=lambda: tweedie(model, x, t, score), gain=G2)
