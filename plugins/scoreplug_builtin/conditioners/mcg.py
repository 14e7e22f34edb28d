r"""Manifold constrained gradients (MCG): DPS's gradient on the unmeasured part, the noised measurement on the other.

    x0' = x0 + (sigma_t^2 / alpha_t) (I - A^+ A) g,    g = -scale rate(t) grad_x |W (y - A x0)| / |W A|
    x_s <- x_s + A^+ (y_s - A x_s),    y_s = alpha_s y + sigma_s A z    after every update

with x0 = E[x_0 | x_t] and z ~ N(0, I), an image. It is replacement (`song` with weight 1) around a prior that the norm
form of `dps` guides, with one difference: the gradient is kept from the measured part. In the authors' step,

    x_s = (I - A^+ A) (x'_s - w grad_x |W (y - A x0)|) + A^+ y_s,    x'_s a DDPM step from x_t,

the projection takes the gradient's measured part away; here it is taken from the score, so that the guidance is one
for every sampler. As in `dps`, rate(t) = 1 / kappa(t) is one over the gain of a step of the 1000-step DDPM chain at the
same noise level, so that `scale` is the authors' w in that setting (1 for inpainting, .1 for colorization and CT) and
means the same under every SDE, sampler and number of steps. |W A|, the largest singular value, makes it independent of
the unit of y. weighting = "pinv" is the authors' W = A^+ for CT; then the gradient is -J^T A^+ r / |A^+ r| with r = y -
A x0 and J = d x0 / d x, and |W A| = 1. Their CT code ends each step with a relaxed SIRT update in the place of A^+, and
there lets the measurement have no noise; that is another method.

A x_s = y_s after every update, and A x = y at the end, up to rounding, where A has full row rank; otherwise A x is the
least-squares fit. y is taken as exact: with noise in y the samples reproduce it, as A^+ amplifies it.

Bias. With scale 0 it is replacement, whose law is known: for two unit normal variables of correlation rho, x_1 = y
measured without noise, many steps of the reverse SDE give x_2 the mean (y / rho) (1 - (1 - rho^2)^{1/2}) and the
variance (1 - rho^2) artanh(rho) / rho in place of rho y and 1 - rho^2. With a gradient the score is not affine, since a
norm's gradient has the same length however small the residual is, and there is no closed form. The gradient moves x_2
until the prior's guess of x_1 from the state is y, towards y / rho: too far. Mean and variance of x_2, measured with
1000 DDPM steps at y = 1 (4000 samples, standard errors .01 and 2 %; scale 0 by the exact recursion):

    rho    posterior    scale 0      scale .1      scale 1
    .5     .50, .75     .27, .82     1.75, .38     2.00, .26
    .8     .80, .36     .50, .49     1.24, .12     1.25, .12

Fewer steps are larger ones: 100 steps at scale 1 overshoot, and for rho = .5 the variance becomes 1.7.

compat = "authors" is their inpainting code: the state at level s gets a measurement of the level t it came from, and
the estimate of x_0 one of the last level, alpha y + sigma A z, so that A x = y holds up to that noise only (a standard
deviation of .01 in their chain).

References:
    Chung, Sim, Ryu, Ye: Improving Diffusion Models for Inverse Problems using Manifold Constraints. NeurIPS 2022,
    arXiv:2206.00941. The authors' code takes one norm over the whole batch; here each sample has its own.
"""

from __future__ import annotations

from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.model import ConditionedModel, broadcast, coefficients, last_vjp, noise_level
from scoreplug.protocols import ScoreModel
from scoreplug_builtin.conditioners._ddpm import ddpm_gain
from scoreplug_builtin.conditioners._projection import projected, require_pinv


@attrs.frozen(kw_only=True)
class MCG:
    """Manifold constrained gradients: one vjp of the network per evaluation, a projection after every update."""

    scale: float = param(
        1.0, ge=0.0, on_divergence="lower", doc="the authors' w, strength of the gradient; 0 is replacement"
    )
    weighting: Literal["identity", "pinv"] = param(
        "identity", doc="W, the weight of the residual: none, or A^+ as in the authors' CT"
    )
    compat: Literal["fixed", "authors"] = param(
        "fixed", doc="level of the noised measurement: that of the state, or the one it came from, as in the code"
    )

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        require_pinv("mcg", measurement.operator)
        guided = MCGScore(prior=prior, measurement=measurement, method=self) if self.scale > 0 else prior
        if self.compat == "authors":
            return projected(guided, measurement=measurement, method=self, weight=1.0, finish="noised", data_level="t")
        return projected(guided, measurement=measurement, method=self, weight=1.0)


@attrs.frozen(kw_only=True, eq=False)
class MCGScore(ConditionedModel):
    """The prior's score plus the part of the guidance that the measurement does not see."""

    method: MCG

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        A: Any = self.measurement.operator
        x0, vjp = self.prior.denoise_with_vjp(x, t)
        alpha, sigma = coefficients(self.sde, t, x)
        kappa = broadcast(ddpm_gain(noise_level(self.sde, t)), x)

        guidance = last_vjp(vjp, self.method.scale / kappa * self.pull(self.measurement.residual(x0)))
        unseen = guidance - A.pinv(A(guidance))
        return x0 + sigma**2 / alpha * unseen

    def pull(self, r: Tensor) -> Tensor:
        """(W A)^T W r / (|W r| |W A|), (B, *shape): minus the gradient of |W r| in x0, per unit of |W A|."""
        A: Any = self.measurement.operator
        if self.method.weighting == "identity":
            return A.adjoint(r) / _norm(r, like=self.shape) / A.norm
        w = A.pinv(r)  # (A^+ A)^T A^+ = A^+, and |A^+ A| = 1
        return w / _norm(w, like=self.shape)


def _norm(r: Tensor, *, like: tuple[int, ...]) -> Tensor:
    """Norm of each sample, to divide (B, *like), never 0: an exact fit pulls nowhere."""
    length = r.flatten(1).norm(dim=1).clamp_min(torch.finfo(r.dtype).tiny)
    return length.reshape(-1, *(1 for _ in like))
