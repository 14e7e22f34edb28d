r"""Guidance by a potential of the denoised estimate, and that of Bayes' rule with the spread of x_0 taken as r_t^2 I.

score(x, t) + J^T grad phi(x0),    x0 = E[x_0 | x_t],    J = d x0 / d x

phi(x0) = log N(y; A x0, M) + const,    grad phi = A^T M^{-1} r,    M = r_t^2 A A^T + sigma_y^2 I,    r = y - A x0
"""

from __future__ import annotations

from typing import Any, Protocol

import attrs
import torch
from torch import Tensor

from scoreplug.measurement import Measurement
from scoreplug.model import broadcast, coefficients, last_vjp, score_and_log_density, tweedie
from scoreplug.operator import SVD, BaseLinearOperator
from scoreplug.protocols import HasLogDensity, HasPinv, HasSpread, LinearOperator, ScoreModel, Twist
from scoreplug_builtin.conditioners._likelihood import GaussianLikelihood


@attrs.frozen(kw_only=True, eq=False)
class GuidedModel(GaussianLikelihood):
    """The prior's score plus the gradient of a potential of x0, through the network: one vjp per evaluation.

    The potential is the log of a twist, too.
    """

    def potential(self, x0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of phi in x0, (B, *shape), and phi, (B,)."""
        raise NotImplementedError

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        x0, vjp = self.prior.denoise_with_vjp(x, t)
        alpha, sigma = coefficients(self.sde, t, x)
        pull, _ = self.potential(x0, t)
        return x0 + sigma**2 / alpha * last_vjp(vjp, pull)

    def twist(self, x: Tensor, t: Tensor) -> Twist:
        """log psi_t = phi(x0) and its gradient."""
        x0, vjp = self.prior.denoise_with_vjp(x, t)
        pull, phi = self.potential(x0, t)
        return Twist(x0=x0, log=phi, gradient=vjp(pull), vjp=vjp)


class GuidedDensity(GuidedModel):
    """Mixin for a guided model of a prior whose log density is known."""

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x) plus the potential, (B,)."""
        prior: HasLogDensity = self.prior  # type: ignore[assignment]
        _, phi = self.potential(self.prior.denoise(x, t), t)
        return prior.log_density(x, t) + phi

    def score_and_log_density(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():  # one evaluation gives the density, the score, and through it x0 with its derivative
            x = x.detach().requires_grad_()
            score, log_density = score_and_log_density(self.prior, x, t)
            x0 = tweedie(self.prior, x, t, score)
        pull, phi = self.potential(x0.detach(), t)
        (guidance,) = torch.autograd.grad(x0, x, pull)
        return score.detach() + guidance, log_density.detach() + phi


def require_spread(who: str, prior: ScoreModel, *, instead: str) -> None:
    """Refuse a prior that does not state its error.

    Args:
        who: what needs it.
        prior: the score model of p(x).
        instead: what to do.

    Raises:
        TypeError: if the prior has no spread.
    """
    if not isinstance(prior, HasSpread):
        raise TypeError(f"{who} needs the prior's spread, which {type(prior).__name__} does not state; {instead}")


def spread_of(prior: ScoreModel, t: Tensor, prior_std: float | None) -> Tensor:
    """r_t, of t's shape: the prior's own, or that of a white prior, level tau / (level^2 + tau^2)^(1/2)."""
    if prior_std is None:
        honest: HasSpread = prior  # type: ignore[assignment]
        return honest.spread(t)
    level = prior.sde.sigma(t) / prior.sde.alpha(t)
    return level * prior_std / (level**2 + prior_std**2).sqrt()


def require_solvable(name: str, measurement: Measurement) -> None:
    """Refuse a measurement whose variance a A A^T + sigma_y^2 I cannot be solved with (see `likelihood_pull`).

    Raises:
        TypeError: if the operator is not linear, or the data are exact and it has no pseudoinverse.
    """
    operator, kind = measurement.operator, type(measurement.operator).__name__
    if not isinstance(operator, LinearOperator):
        raise TypeError(
            f"conditioner {name!r} needs a linear operator (got {kind}), since it solves with A A^T; "
            "use dps with form='norm' or 'likelihood', which take any operator"
        )
    if measurement.noise_std == 0 and not isinstance(operator, HasPinv):
        raise TypeError(
            f"conditioner {name!r} with noise_std = 0 needs an operator with a pseudoinverse, pinv(y), which {kind} "
            "does not have; give noise_std > 0, or use scoreplug.operator.with_dense_svd if the operator is small"
        )


def _is_ill_conditioned(measurement: Measurement, variance: Tensor) -> bool:
    """Conjugate gradients on M would not come to their tolerance, and there is a decomposition to turn to."""
    operator: Any = measurement.operator
    by_iteration = getattr(type(operator), "solve", None) is BaseLinearOperator.solve
    if not by_iteration or not hasattr(type(operator), "svd"):
        return False
    condition = float(torch.as_tensor(variance).max()) * operator.norm**2 / measurement.noise_std**2
    # rounding limits their residual to about the condition times eps; at 1e-2 sinograms did not converge
    return condition > 1e-4 / torch.finfo(measurement.data.dtype).eps


def _spectral_pull(svd: SVD, r: Tensor, *, a: Tensor, b: float) -> tuple[Tensor, Tensor]:
    """A^T M^{-1} r and r^T M^{-1} r, M = a A A^T + b I, in spectral coordinates, where no step amplifies rounding."""
    c = svd.Ut(r)
    s = svd.singular_values.to(c)
    a = a if a.ndim == 0 else a.reshape(-1, *(1 for _ in c.shape[1:]))
    solved = c / (a * s**2 + b)
    rest = r.flatten(1).square().sum(1) - c.flatten(1).square().sum(1)
    return svd.V(s * solved), (c * solved).flatten(1).sum(1) + rest.clamp_min(0) / b


class Solve(Protocol):
    """(a A A^T + b I)^{-1} r, (B, *output_shape)."""

    def __call__(self, r: Tensor, *, a: Tensor, b: float) -> Tensor: ...


def likelihood_pull(
    measurement: Measurement, r: Tensor, *, variance: Tensor, solve: Solve | None = None
) -> tuple[Tensor, Tensor]:
    """A^T M^{-1} r, (B, *shape), and r^T M^{-1} r, (B,), for M = variance A A^T + sigma_y^2 I.

    For exact data M^{-1} is the pseudoinverse, (A A^T)^+ / variance: what A cannot reach does not pull. Where M is too
    ill-conditioned for conjugate gradients in the data's type, the operator's decomposition solves with it, at the rank
    that the operator states.

    Args:
        measurement: one that `require_solvable` let pass.
        r: y - A x, (B, *output_shape).
        variance: >= 0, () or (B,); > 0 for exact data.
        solve: by default the operator's own.
    """
    operator: Any = measurement.operator
    if measurement.noise_std > 0 and solve is None and _is_ill_conditioned(measurement, variance):
        return _spectral_pull(operator.svd, r, a=broadcast(variance, r), b=measurement.noise_std**2)
    if measurement.noise_std > 0:
        v = (solve or operator.solve)(r, a=broadcast(variance, r), b=measurement.noise_std**2)
        return operator.adjoint(v), (r * v).flatten(1).sum(1)
    w = operator.pinv(r)
    return w / broadcast(variance, w), w.flatten(1).square().sum(1) / variance.to(w)
