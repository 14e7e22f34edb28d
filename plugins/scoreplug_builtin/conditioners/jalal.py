r"""Annealed likelihood at the noisy image, for Langevin dynamics (CSGM-MRI).

    form = "paper":       score(x, t) + J^T r / (alpha (sigma_y^2 + gamma_t^2)),    r = y - A(x / alpha)
    form = "implicit":    score(x, t) + ratio |score(x, t)| J^T r / |J^T r|

J is the Jacobian of A at x/alpha, so that J^T = A^T for a linear A, and gamma_t = gamma |A| sigma_t / alpha_t. The
likelihood is taken at x itself, as if the noise in x/alpha were measurement noise of variance gamma_t^2: no derivative
of the network is needed. With gamma = 1 a mode at the operator's norm |A| gets the variance that the noise in x really
adds to its measurement; a nonlinear operator has no norm, and |A| = 1 there.

The paper leaves the schedule of gamma_t open. Its code takes the implicit one, sigma_y^2 + gamma_t^2 = |J^T r| /
(ratio |alpha score|), which makes the data term `ratio` times as large as the prior term, whatever the data say; the
norms are taken over the whole batch there, and for each sample here. It is no potential's gradient, so that the
posterior has no log density, and at its end it does not know sigma_y.

On a Gaussian prior N(mu, S) the paper's chain at level t samples exactly, up to its step size, N(Lambda^{-1} b,
Lambda^{-1}) with, in VE coordinates, Lambda = (S + sigma^2)^{-1} + A^T A / (sigma_y^2 + gamma_t^2) and b = (S +
sigma^2)^{-1} mu + A^T y / (sigma_y^2 + gamma_t^2). This is not p_t(x | y) at any sigma > 0; it tends to the posterior
as sigma_t and gamma_t go to zero, which is why the method belongs with many Langevin moves and a small last level. In
the scalar problem S = 1.7, A = 0.8, sigma_y = 0.6, y = 1.3, at the level 0.5 with gamma = 1, the law has mean 1.147 and
variance 0.574, where p_t(x | y) has 1.221 and 0.673.

References:
    Jalal, Arvinte, Daras, Price, Dimakis, Tamir: Robust Compressed Sensing MRI with Deep Generative Priors. NeurIPS
    2021, arXiv:2108.01368.
    Song, Shen, Xing, Ermon: Solving Inverse Problems in Medical Imaging with Score-Based Generative Models. ICLR 2022,
    arXiv:2111.08005 (gamma_t proportional to sigma_t).
"""

from __future__ import annotations

from typing import Literal

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.model import ConditionedModel, broadcast, score_and_log_density
from scoreplug.protocols import HasLogDensity, LinearOperator, ScoreModel


@attrs.frozen(kw_only=True)
class Jalal:
    """Langevin guidance at x: any operator, no vjp of the network."""

    form: Literal["paper", "implicit"] = param(
        "paper", doc="gamma_t proportional to the noise level, or the authors' code, a data term of fixed relative size"
    )
    gamma: float = param(
        1.0,
        ge=0.0,
        on_divergence="raise",
        where={"form": ("paper",)},
        doc="gamma_t in units of |A| sigma_t / alpha_t (paper); 0 takes the likelihood at its own noise from the start",
    )
    ratio: float = param(
        5.0,
        ge=0.0,
        on_divergence="lower",
        where={"form": ("implicit",)},
        doc="norm of the data term over that of the prior's score (implicit); the authors' `mse`",
    )

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        if self.form == "implicit":
            return ImplicitJalalScore(prior=prior, measurement=measurement, method=self)
        if self.gamma == 0 and measurement.noise_std == 0:
            raise ValueError(
                "conditioner 'jalal' divides by sigma_y^2 + gamma_t^2: gamma and noise_std cannot both be 0"
            )
        kind = JalalDensity if isinstance(prior, HasLogDensity) else JalalScore
        return kind(prior=prior, measurement=measurement, method=self)


@attrs.frozen(kw_only=True, eq=False)
class JalalScore(ConditionedModel):
    """The prior's score plus the annealed likelihood's at x."""

    method: Jalal

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        return self.prior.score(x, t) + self.guidance(x, t)[0]

    def guidance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient, (B, *shape), and value, (B,), of the log likelihood at x/alpha with the variance sigma_y^2 +
        gamma_t^2."""
        A, sigma_y = self.measurement.operator, self.measurement.noise_std
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        gamma_t = self.method.gamma * (A.norm if isinstance(A, LinearOperator) else 1.0) * sigma / alpha
        variance = sigma_y**2 + gamma_t**2

        Ax, adjoint = A.linearize(x / broadcast(alpha, x))
        r = self.measurement.data.to(x) - Ax
        gradient = adjoint(r) / broadcast(alpha * variance, x)
        return gradient, -r.flatten(1).square().sum(1) / (2 * variance.to(x))


@attrs.frozen(kw_only=True, eq=False)
class JalalDensity(JalalScore):
    """The same, of a prior whose log density is known."""

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x) - |y - A(x/alpha)|^2 / (2 (sigma_y^2 + gamma_t^2)), (B,)."""
        prior: HasLogDensity = self.prior  # type: ignore[assignment]
        return prior.log_density(x, t) + self.guidance(x, t)[1]

    def score_and_log_density(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        score, log_density = score_and_log_density(self.prior, x, t)
        gradient, log_likelihood = self.guidance(x, t)
        return score + gradient, log_density + log_likelihood


@attrs.frozen(kw_only=True, eq=False)
class ImplicitJalalScore(ConditionedModel):
    """The prior's score plus a data term of the same size times `ratio`."""

    method: Jalal

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        score = self.prior.score(x, t)
        Ax, adjoint = self.measurement.operator.linearize(x / broadcast(self.sde.alpha(t), x))
        pull = adjoint(self.measurement.data.to(x) - Ax)
        length = _norm(pull).clamp_min(torch.finfo(x.dtype).tiny)  # an exact fit pulls nowhere
        return score + self.method.ratio * _norm(score) * pull / length


def _norm(x: Tensor) -> Tensor:
    """Norm of each sample, (B, 1, ...)."""
    return x.flatten(1).norm(dim=1).reshape(-1, *(1 for _ in x.shape[1:]))
