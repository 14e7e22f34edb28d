r"""Plug-and-play restoration by diffusion (DiffPIR): the posterior mean of x_0 around the denoised estimate.

    x0' = argmin_v |y - A v|^2 / (2 sigma_y^2) + |v - x0|^2 / (2 r^2),    x0 = E[x_0 | x_t],    r^2 = level^2 / lam
        = x0 + r^2 A^T (sigma_y^2 I + r^2 A A^T)^{-1} (y - A x0)                            for a linear A

x0' takes the place of x0 in the sampler, eps = (x_t - alpha x0') / sigma with it, so that the score is changed
consistently; no gradient goes through the network. With the sampler `ancestral`, noise="fresh" and eta = zeta^{1/2}
this is the paper's method (zeta .1 to 1, 20 to 100 steps); with its posterior noise, or any other sampler, it is
guidance whose limit does not depend on the sampler. The authors give the data no say in the last step; here they have
theirs.

Linear operators are solved exactly. With sigma_y = 0 the solution is the projection x0 + A^+ (y - A x0). A nonlinear A
takes `gradient_steps` steps down the same function from x0,

    v <- v - e [(v - x0) / r^2 - J^T (y - A v) / sigma_y^2],    e = 1 / (1 / r^2 + curvature / sigma_y^2)

J being the Jacobian of A at v. curvature = 0 with one step is the authors' v = x0 + (r / sigma_y)^2 J^T (y - A x0),
which goes astray where r |J| > sigma_y, that is at all high levels; with curvature = |J|^2 a step cannot overshoot.

lam = 1 is Bayes' rule for p(x_0 | x_t) = N(x0, level^2 I). The authors' lam is 4 times this one, since they solve in
the range [0, 1] with levels of the range [-1, 1].

Bias. level^2 is too much for the spread of x_0 given x_t unless the level is small. In the scalar problem N(0, 1.7), y
= .8 x + .6 n = 1.3, whose posterior has mean 1.221 and variance .423, many steps with fresh noise give the mean 1.221
for every zeta, and (1 + (1 - zeta)^{1/2}) / 2 times the variance: .412 / .323 / .211 for zeta = .1 / .7225 / 1.

The same spread makes a step of the sampler `decoupled`: `refine` draws from p(y | v) N(v; x0, r^2 I). For a linear A
that is exact, a solution for perturbed data and estimate:

    v = u + r^2 A^T (sigma_y^2 I + r^2 A A^T)^{-1} (y + sigma_y n - A u),    u = x0 + r z

For a nonlinear A it is `moves` Langevin moves with steps of `step_size` e. The DAPS authors move 100 times with steps
of 1e-5 to 1e-4, sigma_y^2 / 250 to sigma_y^2 / 25, and leave out the 1/2 of the data term, which is here. From start =
"estimate", theirs, the moves do not get far where the data say nothing; start = "draw" begins at x0 + r z, which has
the law of those directions at once, and needs data that pull an image with so much noise.

References:
    Zhu, Zhang, Liang, Cao, Wen, Timofte, Van Gool: Denoising Diffusion Models for Plug-and-Play Image Restoration. CVPR
    Workshops 2023, arXiv:2305.08995, algorithm 1. Zhang, Chu, Berner, Meng, Anandkumar, Song: Improving Diffusion
    Inverse Problem Solving with Decoupled Noise Annealing. CVPR 2025, arXiv:2407.01521 (Langevin moves). Papandreou,
    Yuille: Gaussian sampling by local perturbations. NeurIPS 2010 (draws by perturbation).
"""

from __future__ import annotations

from typing import Literal

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.model import broadcast
from scoreplug.noise import Noise
from scoreplug.protocols import LinearOperator, ScoreModel
from scoreplug_builtin.conditioners._likelihood import GaussianLikelihood
from scoreplug_builtin.conditioners._predictive import likelihood_pull, require_solvable


@attrs.frozen(kw_only=True)
class DiffPIR:
    """The posterior mean around x0: no vjp of the network; one solve, or a few gradients of A, per evaluation."""

    weight: float = param(
        1.0, gt=0.0, on_divergence="raise", doc="lam, trust in the denoised estimate: r^2 = level^2 / lam; 1 is Bayes"
    )
    gradient_steps: int = param(1, ge=1, doc="gradient steps per evaluation (nonlinear operators)")
    curvature: float = param(
        1.0, ge=0.0, doc="square of the Jacobian's norm, which limits the gradient steps (nonlinear); 0 does not"
    )
    moves: int = param(100, ge=1, doc="Langevin moves of a refinement (nonlinear operators)")
    step_size: float = param(
        0.1, gt=0.0, le=2.0, doc="step of a Langevin move, relative to a gradient step (nonlinear)"
    )
    start: Literal["estimate", "draw"] = param(
        "estimate", doc="where the Langevin moves begin: x0, or a draw of N(x0, r^2 I) (nonlinear operators)"
    )

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        if isinstance(measurement.operator, LinearOperator):
            require_solvable("diffpir", measurement)
            return Proximal(prior=prior, measurement=measurement, method=self)
        if measurement.noise_std == 0:
            raise ValueError(
                "conditioner 'diffpir' divides by sigma_y^2 for a nonlinear operator: noise_std must be > 0"
            )
        return ProximalByGradient(prior=prior, measurement=measurement, method=self)


@attrs.frozen(kw_only=True, eq=False)
class Proximal(GaussianLikelihood):
    """x0' for a linear operator, by its `solve`."""

    method: DiffPIR

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        return self.proximal(self.prior.denoise(x, t), self.variance(t))

    def variance(self, t: Tensor) -> Tensor:
        """r^2, of t's shape."""
        return (self.sde.sigma(t) / self.sde.alpha(t)) ** 2 / self.method.weight

    def proximal(self, x0: Tensor, r2: Tensor) -> Tensor:
        """x0', (B, *shape)."""
        return self.solved(x0, self.measurement.residual(x0), r2)

    def refine(self, x0: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """A draw from p(y | v) N(v; x0, r^2 I), (B, *shape)."""
        r2 = self.variance(t)
        u = x0 + broadcast(r2.sqrt(), x0) * noise.at("z").normal(self.shape)
        n = noise.at("n").normal(tuple(self.measurement.operator.output_shape))
        return self.solved(u, self.measurement.residual(u) + self.measurement.noise_std * n, r2)

    def solved(self, u: Tensor, residual: Tensor, r2: Tensor) -> Tensor:
        """u + r^2 A^T (sigma_y^2 I + r^2 A A^T)^{-1} residual, (B, *shape)."""
        pull, _ = likelihood_pull(self.measurement, residual, variance=r2)
        return u + broadcast(r2, u) * pull


@attrs.frozen(kw_only=True, eq=False)
class ProximalByGradient(Proximal):
    """x0' for any differentiable operator, by gradient steps."""

    def proximal(self, x0: Tensor, r2: Tensor) -> Tensor:
        v, e = x0, broadcast(self.step(r2), x0)
        for _ in range(self.method.gradient_steps):
            v = v - e * self.gradient(v, x0, r2)
        return v

    def refine(self, x0: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """x0 after Langevin moves that leave p(y | v) N(v; x0, r^2 I) invariant up to their step size, (B, *shape)."""
        r2 = self.variance(t)
        e = broadcast(self.method.step_size * self.step(r2), x0)
        v = x0
        if self.method.start == "draw":
            v = x0 + broadcast(r2.sqrt(), x0) * noise.at("z").normal(self.shape)
        for k in range(self.method.moves):
            z = noise.at("move", k).normal(self.shape)
            v = v - e * self.gradient(v, x0, r2) + (2 * e) ** 0.5 * z
        return v

    def gradient(self, v: Tensor, x0: Tensor, r2: Tensor) -> Tensor:
        """Of |y - A v|^2 / (2 sigma_y^2) + |v - x0|^2 / (2 r^2) in v, (B, *shape)."""
        Av, adjoint = self.measurement.operator.linearize(v)
        pull = adjoint(self.measurement.data.to(v) - Av) / self.measurement.noise_std**2
        return (v - x0) / broadcast(r2, v) - pull

    def step(self, r2: Tensor) -> Tensor:
        """e, of r2's shape."""
        return 1 / (1 / r2 + self.method.curvature / self.measurement.noise_std**2)
