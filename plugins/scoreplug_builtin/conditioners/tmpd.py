r"""Tweedie moment projected diffusions (TMPD): Bayes' rule with A C_t A^T replaced by the diagonal of its row sums.

    x0' = x0 + C_t A^T D^{-1} (y - A x0),    D = sigma_y^2 I + diag(A C_t A^T 1),    x0 = E[x_0 | x_t]
    C_t = Cov[x_0 | x_t] = (sigma_t^2 / alpha_t) d x0 / d x        (Tweedie's formula of second order)

That is `mmps` without its solve: two vjps from one evaluation, one for the row sums and one for the guidance, at any
number of measured values. There is nothing to tune.

Exact for a Gaussian prior if A C_t A^T is diagonal at all levels: pixels (or averages of disjoint pixels) that are
independent under the prior, so for every A with orthogonal rows and the prior N(mu, tau^2 I), and for a single measured
value. Otherwise biased. For two unit normal pixels of correlation rho, both measured with noise of variance sigma_y^2,
D - sigma_y^2 is the variance of the normalised sum given x_t, for the difference as well: exact for the sum, wrong for
the difference, whose variance is overestimated for rho > 0 and underestimated for rho < 0. For sigma_y = .6 the reverse
SDE gives the difference d, of which y says d_y,

    rho     mean (posterior)         variance (posterior)
     .8     .299 d_y (.357 d_y)      .133 (.129)
    -.8     .969 d_y (.833 d_y)      .224 (.300)

Row sums are variances only where the measured values do not anticorrelate: in masks, blurs, averages and sinograms.
They change with the sign in which a value is stated, which says nothing about x. Negative ones occur, for priors with
negative correlations, and for networks, whose Jacobian is only nearly symmetric and positive. They would weaken
sigma_y^2, or turn the pull around, and are taken as 0, the least that a variance can be: that value then pulls as in
dps's likelihood form, stiffly if sigma_y is small. With the prior `ellipses-64` they are up to 4 % of the masked,
blurred or averaged pixels at the levels .2 and .7; half of them at the largest ones, where level^2 multiplies the error
of the Jacobian; and a third to a half at all levels of Fourier samples, whose real and imaginary parts have either
sign: there the samples diverge. Use mmps instead.

The paper's code takes the row sums with A 1, an image of ones measured, in the place of the ones in y: the same for a
mask and for averages.

References:
    Boys, Girolami, Pidstrigach, Reich, Mosca, Akyildiz: Tweedie Moment Projected Diffusions for Inverse Problems. TMLR
    2024, arXiv:2310.06721.
"""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from scoreplug.measurement import Measurement
from scoreplug.model import broadcast
from scoreplug.protocols import LinearOperator, ScoreModel, Twist
from scoreplug_builtin.conditioners._likelihood import GaussianLikelihood


@attrs.frozen(kw_only=True)
class TMPD:
    """Tweedie moment projection: two vjps of the network per evaluation, one forward pass."""

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        if not isinstance(measurement.operator, LinearOperator):
            raise TypeError(
                f"conditioner 'tmpd' needs a linear operator (got {type(measurement.operator).__name__}), since it "
                "carries a covariance through A; use dps with form='norm' or 'likelihood', which take any operator"
            )
        if measurement.noise_std == 0:
            raise ValueError(
                "conditioner 'tmpd' divides by sigma_y^2 plus row sums, which may be 0: noise_std must be > 0; "
                "use pigdm or dmps for exact data"
            )
        return TMPDScore(prior=prior, measurement=measurement, method=self)


@attrs.frozen(kw_only=True, eq=False)
class TMPDScore(GaussianLikelihood):
    """The prior's score plus the guidance, by way of the denoised estimate."""

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        twist = self.twist(x, t)
        return twist.x0 + broadcast(self.sde.sigma(t) ** 2 / self.sde.alpha(t), x) * twist.gradient

    def twist(self, x: Tensor, t: Tensor) -> Twist:
        """log N(y; A x0, diag) and its gradient with the diagonal held fixed."""
        operator: LinearOperator = self.measurement.operator  # type: ignore[assignment]
        x0, vjp = self.prior.denoise_with_vjp(x, t)
        r = self.measurement.residual(x0)
        scale = broadcast(self.sde.sigma(t) ** 2 / self.sde.alpha(t), x)

        # the Jacobian of E[x_0 | x_t] is symmetric
        row_sums = self.measurement.operator(scale * vjp(operator.adjoint(torch.ones_like(r)))).clamp_min(0)
        variance = self.measurement.noise_std**2 + row_sums
        log = -0.5 * (r**2 / variance + (2 * math.pi * variance).log()).flatten(1).sum(1)
        return Twist(x0=x0, log=log, gradient=vjp(operator.adjoint(r / variance)), vjp=vjp)
