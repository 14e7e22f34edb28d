r"""Moment matching posterior sampling (MMPS): Bayes' rule with the first two moments of x_0 given x_t.

    x0' = x0 + C_t A^T (sigma_y^2 I + A C_t A^T)^{-1} (y - A x0),    x0 = E[x_0 | x_t]
    C_t = Cov[x_0 | x_t] = (sigma_t^2 / alpha_t) d x0 / d x        (Tweedie's formula of second order)

That is the posterior mean of x_0 under N(x0, C_t), and a gradient step on log N(y; A x0, sigma_y^2 I + A C_t A^T) whose
covariance is held fixed. Exact for every Gaussian prior and linear A, at every level, process and number of steps: the
score is that of p_t(x | y). Elsewhere p(x_0 | x_t) is not normal, and the method is biased where it has several modes.

For few measured values (up to `dense`) the matrix A C_t A^T is computed row by row, one vjp each, made symmetric, and
its negative eigenvalues, which the Jacobian of a network may have, are set to 0; the system is then solved exactly. For
more of them it is solved by conjugate gradients, one vjp per step, from the start (sigma_y^2 I + r_t^2 A A^T)^{-1} (y -
A x0) if the prior states its error r_t. The default tolerance is accurate; the authors' one to three steps are a method
of their own, which `max_steps` gives. A sample whose Jacobian proves not to be positive definite keeps the solution
that it has got to.

The density is also the twist of choice for sequential Monte Carlo (sampler `smc`), which removes the bias.

References:
    Rozet, Andry, Lanusse, Louppe: Learning Diffusion Priors from Observations by Expectation Maximization. NeurIPS
    2024, arXiv:2405.13712.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.model import broadcast, last_vjp
from scoreplug.operator import conjugate_gradient
from scoreplug.protocols import HasSpread, LinearOperator, ScoreModel, Twist
from scoreplug_builtin.conditioners._likelihood import GaussianLikelihood, require_density
from scoreplug_builtin.conditioners._twist import log_normal


@attrs.frozen(kw_only=True)
class MMPS:
    """Moment matching; one evaluation, and one vjp for every measured value or conjugate-gradient step."""

    dense: int = param(16, ge=0, doc="largest number of measured values for which A C_t A^T is computed as a matrix")
    tolerance: float = param(
        1e-3, gt=0.0, lt=1.0, doc="conjugate gradients stop at this residual, relative to y - A x0"
    )
    max_steps: int = param(200, ge=1, doc="most conjugate-gradient steps per evaluation")

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        require_density("mmps", measurement)
        return MatchedMoments(prior=prior, measurement=measurement, method=self)


@attrs.frozen(kw_only=True, eq=False)
class MatchedMoments(GaussianLikelihood):
    """The posterior mean of x_0 under N(x0, C_t)."""

    method: MMPS

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        if self.is_dense:
            twist = self.twist(x, t)
            return twist.x0 + broadcast(self.sde.sigma(t) ** 2 / self.sde.alpha(t), x) * twist.gradient
        x0, vjp = self.prior.denoise_with_vjp(x, t)
        solved = self.solve(self.covariance(vjp, x, t), self.measurement.residual(x0), t)
        C = self.covariance(functools.partial(last_vjp, vjp), x, t)
        return x0 + C(self.operator.adjoint(solved))

    def twist(self, x: Tensor, t: Tensor) -> Twist:
        """log N(y; A x0, sigma_y^2 I + A C_t A^T) and its gradient with that covariance held fixed.

        Raises:
            TypeError: for more measured values than the method's `dense`.
        """
        if not self.is_dense:
            raise TypeError(
                f"the twist of conditioner 'mmps' takes one vjp for each of the {self.measured} measured values, more "
                f"than dense={self.method.dense}: raise dense, or measure less"
            )
        x0, vjp = self.prior.denoise_with_vjp(x, t)
        r = self.measurement.residual(x0).flatten(1)
        C, A = self.covariance(vjp, x, t), self.rows.to(x)
        columns = torch.stack([C(row.expand_as(x)) for row in A], dim=1)  # of C A^T, (B, m, *shape)
        M = torch.einsum("in,bjn->bij", A.flatten(1), columns.flatten(2)).double()  # small, and ill-conditioned
        noise = self.measurement.noise_std**2 * torch.eye(len(A), dtype=M.dtype, device=x.device)
        log, solved = log_normal(r.double(), noise + _psd(M))
        gradient = torch.einsum("bm,bm...->b...", solved.to(x), columns)
        scale = broadcast(self.sde.alpha(t) / self.sde.sigma(t) ** 2, x)
        return Twist(x0=x0, log=log.to(x), gradient=scale * gradient, vjp=vjp)

    def covariance(self, vjp: Callable[[Tensor], Tensor], x: Tensor, t: Tensor) -> Callable[[Tensor], Tensor]:
        """v -> C_t v; the Jacobian of E[x_0 | x_t] is symmetric."""
        scale = broadcast(self.sde.sigma(t) ** 2 / self.sde.alpha(t), x)
        return lambda v: scale * vjp(v)

    def solve(self, C: Callable[[Tensor], Tensor], r: Tensor, t: Tensor) -> Tensor:
        """(sigma_y^2 I + A C A^T)^{-1} r, (B, *output_shape), by conjugate gradients."""
        variance, operator, apply = self.measurement.noise_std**2, self.operator, self.measurement.operator

        def M(v: Tensor) -> Tensor:
            return variance * v + apply(C(operator.adjoint(v)))

        start = None
        if isinstance(self.prior, HasSpread):
            start = operator.solve(r, a=broadcast(self.prior.spread(t) ** 2, r), b=variance)
        steps, tolerance = self.method.max_steps, self.method.tolerance
        return conjugate_gradient(M, r, start=start, tolerance=tolerance, max_steps=steps, strict=False)

    @property
    def is_dense(self) -> bool:
        """A C A^T is computed as a matrix."""
        return self.measured <= self.method.dense

    @property
    def measured(self) -> int:
        """The number of measured values."""
        return math.prod(self.measurement.operator.output_shape)

    @property
    def operator(self) -> LinearOperator:
        """The measurement's operator, which `MMPS.condition` has seen to be linear."""
        operator: LinearOperator = self.measurement.operator  # type: ignore[assignment]
        return operator

    @functools.cached_property
    def rows(self) -> Tensor:
        """The rows of A, (m, *shape)."""
        shape = tuple(self.measurement.operator.output_shape)
        units = torch.eye(math.prod(shape), dtype=self.dtype, device=self.device).reshape(-1, *shape)
        return self.operator.adjoint(units)


def _psd(M: Tensor) -> Tensor:
    """The nearest symmetric positive semidefinite matrices, (B, m, m).

    Where x0 is not finite, so is what the matrix is multiplied with; LAPACK would stop the whole batch.
    """
    M = torch.nan_to_num(M, nan=0.0, posinf=0.0, neginf=0.0)
    values, vectors = torch.linalg.eigh((M + M.mT) / 2)
    return (vectors * values.clamp_min(0)[:, None]) @ vectors.mT
