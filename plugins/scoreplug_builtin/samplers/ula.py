r"""The unadjusted Langevin algorithm at every noise level.

    x <- x + e score(x, t) + sqrt(2 e) z,    e = step_size sigma_t^2

`langevin` with rule="level" is the same chain with e = 2 (snr sigma_t)^2, and has the schedules of the literature; this
one is the plain counterpart of `mala`, with the same parameter, and knows neither metric nor schedule. No step is
rejected: a mode of variance P comes out, exactly, with the variance P / (1 - e / (2 P)). P is at least sigma_t^2, so
that the excess is at most 1 / (1 - step_size / 2), 1.05 with the default.

References:
    Roberts, Tweedie: Exponential convergence of Langevin distributions and their discrete approximations. Bernoulli 2
    (1996), doi:10.2307/3318418. Du, Durkan, Strudel, Tenenbaum, Dieleman, Fergus, Sohl-Dickstein, Doucet, Grathwohl:
    Reduce, Reuse, Recycle: Compositional Generation with Energy-Based Diffusion Models and MCMC. ICML 2023,
    arXiv:2302.11552.
"""

from __future__ import annotations

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.model import tweedie
from scoreplug.noise import Noise
from scoreplug.protocols import ScoreModel, Step
from scoreplug_builtin.samplers._annealed import AnnealedChain


@attrs.frozen(kw_only=True)
class ULA(AnnealedChain):
    """Unadjusted Langevin moves; `moves` evaluations per level."""

    step_size: float = param(
        0.1, gt=0.0, lt=2.0, on_divergence="lower", doc="e in units of sigma_t^2; the bias is step_size / 2 at most"
    )
    moves: int = param(5, ge=1, doc="moves at each level")

    def correct(self, model: ScoreModel, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        e = self.step_size * model.sde.sigma(t) ** 2
        for k in range(self.moves):
            here, score = noise.at("move", k), model.score(x, t)
            x0 = tweedie(model, x, t, score)
            x = x + e * score + (2 * e).sqrt() * here.at("z").normal(model.shape)
            x = model.project(x, Step(t=t, s=t, x0=x0, gain=e, phase="correct", noise=here.at("project")))
        return x
