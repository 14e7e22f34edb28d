r"""A Gaussian likelihood of one variance around the denoised estimate.

    score(x, t) + scale J^T A^T (y - A x0) / (sigma_y^2 + |A|^2 r_t^2),    r_t^2 = s^2 level^2 / (s^2 + level^2)

with x0 = E[x_0 | x_t = x], J its derivative in x, and level = sigma_t / alpha_t. The likelihood p(y | x_t) is taken as
normal around A x0, with one variance: that of the noise in y, and that of x_0 around x0 as a white image would have it.

Exact for the prior N(m, s^2 I) and an operator with A A^T = |A|^2 I. Biased elsewhere: where A is weaker than its norm
|A| the data count for too little, and no network's prior is white.

(Your equation here, with what it is exact for and what it is biased in.)

References:
    (Your paper here.)
"""

from __future__ import annotations

import attrs
from scoreplug import ConditionedModel, Measurement, ScoreModel, param
from scoreplug.model import broadcast
from scoreplug.protocols import LinearOperator
from torch import Tensor


@attrs.frozen(kw_only=True)
class Example:
    """Guidance by one evaluation and one vjp of the network per step, for any operator."""

    # Your parameters here: type, bounds and text stand once, and `--set`, `show` and errors follow from them.
    scale: float = param(1.0, ge=0.0, doc="weight of the log likelihood; 1 is Bayes' rule, 0 is the prior")
    data_std: float = param(1.0, gt=0.0, unit="data", doc="s, the standard deviation of one pixel under the prior")

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        if self.scale == 0:
            return prior
        return ExampleScore(prior=prior, measurement=measurement, method=self)


@attrs.frozen(kw_only=True, eq=False)
class ExampleScore(ConditionedModel):
    """The prior's score plus the gradient of the likelihood; `denoise` follows from it by Tweedie's formula."""

    method: Example

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        A, sigma_y, s = self.measurement.operator, self.measurement.noise_std, self.method.data_std
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        level = sigma / alpha
        norm = A.norm if isinstance(A, LinearOperator) else 1.0
        variance = sigma_y**2 + norm**2 * s**2 * level**2 / (s**2 + level**2)

        x0, vjp = self.prior.denoise_with_vjp(x, t)  # the only evaluation of the network
        Ax0, adjoint = A.linearize(x0)
        gradient = vjp(adjoint(self.measurement.data.to(x) - Ax0)) / broadcast(variance, x)

        prior_score = (broadcast(alpha, x) * x0 - x) / broadcast(sigma, x) ** 2  # Tweedie's formula
        return prior_score + self.method.scale * gradient
