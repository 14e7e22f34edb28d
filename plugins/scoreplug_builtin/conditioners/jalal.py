r"""Annealed likelihood at the noisy image, for Langevin dynamics (CSGM-MRI).

    score(x, t) + A^T (y - A x / alpha) / (alpha (sigma_y^2 + gamma_t^2)),    gamma_t = gamma |A| sigma_t / alpha_t

The likelihood is taken at x itself, as if the noise in x/alpha were measurement noise of variance gamma_t^2: no
derivative of the network is needed. With gamma = 1 a mode at the operator's norm |A| gets the variance that the noise
in x really adds to its measurement. The paper leaves the schedule of gamma_t open; its code takes the one that makes
the data term a fixed multiple of the prior term.

On a Gaussian prior N(mu, S) the chain at level t samples exactly, up to its step size, N(Lambda^{-1} b, Lambda^{-1})
with, in VE coordinates, Lambda = (S + sigma^2)^{-1} + A^T A / (sigma_y^2 + gamma_t^2). This is not p_t(x | y) at any
sigma > 0; it tends to the posterior as sigma_t and gamma_t go to zero, which is why the method belongs with many
Langevin moves and a small last level.

References:
    Jalal, Arvinte, Daras, Price, Dimakis, Tamir: Robust Compressed Sensing MRI with Deep Generative Priors. NeurIPS
    2021, arXiv:2108.01368.
    Song, Shen, Xing, Ermon: Solving Inverse Problems in Medical Imaging with Score-Based Generative Models. ICLR 2022,
    arXiv:2111.08005 (gamma_t proportional to sigma_t).
"""

from __future__ import annotations

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.model import ConditionedModel, broadcast
from scoreplug.protocols import LinearOperator, ScoreModel


@attrs.frozen(kw_only=True)
class Jalal:
    """Langevin guidance at x. Needs a linear operator; no vjp of the network."""

    gamma: float = param(
        1.0,
        ge=0.0,
        doc="gamma_t in units of |A| sigma_t / alpha_t; 0 takes the likelihood at its own noise from the start",
    )

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        if not isinstance(measurement.operator, LinearOperator):
            raise TypeError(
                f"conditioner 'jalal' needs a linear operator (got {type(measurement.operator).__name__}); use dps"
            )
        if self.gamma == 0 and measurement.noise_std == 0:
            raise ValueError(
                "conditioner 'jalal' divides by sigma_y^2 + gamma_t^2: gamma and noise_std cannot both be 0"
            )
        return JalalScore(prior=prior, measurement=measurement, method=self)


@attrs.frozen(kw_only=True, eq=False)
class JalalScore(ConditionedModel):
    """The prior's score plus the annealed likelihood's at x."""

    method: Jalal

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        A: LinearOperator = self.measurement.operator  # type: ignore[assignment]
        alpha, sigma = broadcast(self.sde.alpha(t), x), broadcast(self.sde.sigma(t), x)
        gamma_t = self.method.gamma * A.norm * sigma / alpha
        variance = self.measurement.noise_std**2 + gamma_t**2
        guidance = A.adjoint(self.measurement.residual(x / alpha))
        return self.prior.score(x, t) + guidance / (alpha * variance)
