r"""Decomposed diffusion sampling (DDS): a few conjugate-gradient steps from the denoised estimate towards the data.

    x0' = CG_k[(I + gamma A^T A) x = x0 + gamma A^T y] from x0 = E[x_0 | x_t],    x_s <- x_s + alpha_s (x0' - x0)

k steps stay in the Krylov space of A^T (y - A x0) and A^T A, which holds the directions in which the data speak
clearly; converged, x0' is the minimum of gamma |y - A x|^2 + |x - x0|^2. The noise of x_s is left as the sampler made
it, from the network's eps. At the end the same steps are taken from the sampler's estimate of x_0. With the sampler
`ancestral` and eta = .2 this is the paper's method; it needs no decomposition and is cheap where A and A^T are.

gamma counts in units of 1 / |A|^2, with |A| the largest singular value, so that it means the same whatever the units of
y are; it is the authors' where |A| = 1, as in MRI.

Bias. gamma is one number for all levels, and sigma_y does not occur: x0' moves by the same share of the residual at
every step, so that what the data determine collapses onto them. In the scalar problem N(0, 1.7), y = .8 x + .6 n = 1.3,
whose posterior has mean 1.221 and variance .423, the defaults with eta = .2 give the mean 1.625 = y/a and variances
below 1e-7 from 20 steps on. Use it for data with little noise, or a smaller gamma.

References:
    Chung, Lee, Ye: Decomposed Diffusion Sampler for Accelerating Large-Scale Inverse Problems. ICLR 2024,
    arXiv:2303.05754, algorithm 1. Defaults as in Barbano, Denker, Chung, Roh, Arridge, Maass, Jin, Ye: Steerable
    Conditional Diffusion for Out-of-Distribution Adaptation. IEEE TMI 2025, arXiv:2308.14409, whose code returns the
    estimate before the last conjugate gradients; here they are taken.
"""

from __future__ import annotations

import functools

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.model import PriorDensity, ProjectedModel
from scoreplug.operator import conjugate_gradient
from scoreplug.protocols import HasLogDensity, LinearOperator, ScoreModel, Step


@attrs.frozen(kw_only=True)
class DDS:
    """Conjugate gradients on the denoised estimate: no vjp of the network; k + 1 A and A^T per update."""

    gamma: float = param(
        10.0, ge=0.0, on_divergence="lower", doc="weight of the data, in units of 1 / |A|^2; 0 is the prior"
    )
    cg_steps: int = param(3, ge=1, doc="k, conjugate-gradient steps per update; fewer where a sample has converged")

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        if not isinstance(measurement.operator, LinearOperator):
            raise TypeError(
                f"conditioner 'dds' needs a linear operator (got {type(measurement.operator).__name__}); "
                "use dps or diffpir, which take any operator"
            )
        if self.gamma == 0:
            return prior
        kind = DecomposedDensity if isinstance(prior, HasLogDensity) else Decomposed
        return kind(prior=prior, measurement=measurement, method=self)


@attrs.frozen(kw_only=True, eq=False)
class Decomposed(ProjectedModel):
    """The prior's score; its estimate of x_0 is moved towards the data in a Krylov space."""

    method: DDS

    def project(self, x: Tensor, step: Step) -> Tensor:
        x = self.prior.project(x, step)
        if step.phase == "finish":
            return x + self._change(x)
        if step.x0 is None:
            return x
        return x + self.sde.alpha(step.s) * self._change(step.x0)

    def _change(self, x0: Tensor) -> Tensor:
        """x0' - x0, (B, *shape): the conjugate gradients from 0 on (I + gamma A^T A) d = gamma A^T (y - A x0), whose
        iterates are those of the paper's system from x0, less x0."""
        A, gamma = self.operator, self.gamma
        b = gamma * A.adjoint(self.measurement.residual(x0))
        return conjugate_gradient(
            lambda d: d + gamma * A.adjoint(self.measurement.operator(d)),
            b,
            max_steps=self.method.cg_steps,
            strict=False,
        )

    @functools.cached_property
    def gamma(self) -> float:
        """gamma / |A|^2; for A = 0 any number does."""
        return self.method.gamma / (self.operator.norm**2 or 1.0)

    @property
    def operator(self) -> LinearOperator:
        """The measurement's operator, which `DDS.condition` has seen to be linear."""
        operator: LinearOperator = self.measurement.operator  # type: ignore[assignment]
        return operator


class DecomposedDensity(PriorDensity, Decomposed):
    """The same, of a prior whose log density is known."""
