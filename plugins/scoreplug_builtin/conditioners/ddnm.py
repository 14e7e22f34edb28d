r"""Denoising diffusion null-space models (DDNM): the denoised estimate is made to agree with the data.

    x0' = x0 + A^+ (y - A x0),    x0 = E[x_0 | x_t],    x_s <- x_s + alpha_s (x0' - x0)

What the network found in the null space of A is kept, the rest is replaced. The noise of x_s is left as the sampler
made it, from the network's eps: x0 moves by a whole step at every level, whatever the step size. At the end the
estimate itself is replaced, so that exact data are met, A x = y, up to rounding; where y is not in the range of A, A x
is its projection onto it. With the sampler `ancestral`, noise="fresh" and eta = .85 this is the paper's method;
`time-travel` around it is the paper's repair of images whose parts do not fit together.

form = "plain" takes y as exact: the samples reproduce its noise, as A^+ amplifies it.

form = "plus" is DDNM+ in the basis of A = U diag(s) V^T, with xbar = x / alpha, m = V^T x0, ybar = U^T y / s, level l =
sigma_s / alpha_s and q = (1 - eta^2)^{1/2}:

    0 < s_i l < sigma_y:  m + lam (ybar - m) + eta l z,    lam = q s l / sigma_y
    s_i l >= sigma_y:     ybar + (l^2 - sigma_y^2 / s^2)^{1/2} z

That is DDRM with eta_b = 1, coordinate by coordinate and with the same draws, but for the first state, which DDNM
leaves as it is. Noise is drawn anew in these coordinates, where the plain form keeps a share of eps: with sigma_y = 0
the two forms are different methods unless eta = 1.

Bias. The law is that of no posterior. For two unit normal variables of correlation .5, x_1 = y measured without noise,
and 20 / 100 / 1000 levels of the rho grid under ve, x_2 has the mean .307 y / .437 y / .492 y and the variance .512 /
.560 / .571, in place of .5 y and .75. Few steps leave the start in the mean; fresh noise costs variance however many
there are. For noisy data see `ddrm`: with many steps nothing but y counts.

References:
    Wang, Yu, Zhang: Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model. ICLR 2023,
    arXiv:2212.00490. The simplified branch of the authors' code, with alpha^2 in the place of alpha and (1 -
    alpha^4)^{1/2} in that of sigma, makes no valid marginal and is left out.
"""

from __future__ import annotations

from typing import Any, Literal

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.model import PriorDensity, ProjectedModel
from scoreplug.protocols import HasLogDensity, ScoreModel, Step
from scoreplug_builtin.conditioners._projection import require_pinv
from scoreplug_builtin.conditioners._spectral import require_svd, restored


@attrs.frozen(kw_only=True)
class DDNM:
    """Null-space projection of the denoised estimate: no vjp of the network; one A and one A^+ per update."""

    form: Literal["plain", "plus"] = param("plain", doc="y is exact, or as noisy as it is (DDNM+; needs an SVD)")
    eta: float = param(
        0.85, ge=0.0, le=1.0, doc="share of new noise in the coordinates that are cleaner than the data (plus)"
    )

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        if self.form == "plus":
            svd = require_svd("ddnm", measurement.operator)
            return restored(prior, measurement=measurement, method=self, svd=svd, eta=self.eta, start="noise")
        require_pinv("ddnm", measurement.operator)
        kind = CompletedDensity if isinstance(prior, HasLogDensity) else Completed
        return kind(prior=prior, measurement=measurement, method=self)


@attrs.frozen(kw_only=True, eq=False)
class Completed(ProjectedModel):
    """The prior's score; its estimate of x_0 is left alone in the null space of A alone."""

    def project(self, x: Tensor, step: Step) -> Tensor:
        x = self.prior.project(x, step)
        if step.phase == "finish":
            return x + self._gap(x)
        if step.x0 is None:
            return x
        return x + self.sde.alpha(step.s) * self._gap(step.x0)

    def _gap(self, x0: Tensor) -> Tensor:
        """A^+ (y - A x0), (B, *shape)."""
        A: Any = self.measurement.operator
        return A.pinv(self.measurement.residual(x0))


class CompletedDensity(PriorDensity, Completed):
    """The same, of a prior whose log density is known."""
