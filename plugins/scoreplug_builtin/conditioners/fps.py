r"""Filtering: a twist of x_t itself, whose product with a transition is drawn from exactly; no gradient of the network.

In xbar = x / alpha with level l = sigma / alpha the twist is normal in x,

    psi_t(x) = N(y_t; A xbar, M_t),    M_t = kappa l^2 A A^T + sigma_y^2 I

    path = "mean":     y_t = y                      (MCGdiff's potentials)
    path = "drawn":    y_t = y + l A w,    w ~ N(0, I) once for all levels      (FPS's diffused measurement)

so that for a transition N(x_s; m, c^2 I) the product and its mass are known:

    x_s ~ N(x_s; m, c^2 I) psi_s(x_s) / Z:    x_s = u + (c^2 / alpha) A^T S^{-1} (y_s + M_s^{1/2} n - A u / alpha),
                                              u = m + c z,    S = (kappa l^2 + c^2 / alpha^2) A A^T + sigma_y^2 I
    log Z = log N(y_s; A m / alpha, S)

It is made for the sampler `smc`, which draws from the product and weighs by Z: exact as the particles become many, from
evaluations of the network alone. kappa = 1 is p(y | x_t) for a flat prior (the twist of `dmps`); a smaller one trusts
x_t more. Under any other sampler it is guidance by the gradient of log psi, with the bias that comes with it: exact for
a flat prior at kappa = 1 and path = "mean".

References:
    Dou, Song: Diffusion Posterior Sampling for Linear Inverse Problem Solving: A Filtering Perspective. ICLR 2024.
    Cardoso, Janati El Idrissi, Le Corff, Moulines: Monte Carlo guided Diffusion for Bayesian linear inverse problems.
    ICLR 2024, arXiv:2308.07983.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.model import broadcast
from scoreplug.noise import Noise
from scoreplug.protocols import LinearOperator, ScoreModel, Twist
from scoreplug_builtin.conditioners._likelihood import GaussianLikelihood, require_density
from scoreplug_builtin.conditioners._twist import GramTwist


@attrs.frozen(kw_only=True)
class FPS:
    """A normal twist of x_t: no vjp of the network; one solve with A A^T per evaluation."""

    kappa: float = param(
        1.0, ge=0.0, le=1.0, on_divergence="raise", doc="share of the noise in A x_t that the twist allows for"
    )
    path: Literal["mean", "drawn"] = param("mean", doc="y at every level, or y with the noise of the level, drawn once")
    seed: int = param(0, ge=0, doc="of the drawn path")

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        require_density("fps", measurement)
        return Filtered(prior=prior, measurement=measurement, method=self)


@attrs.frozen(kw_only=True, eq=False)
class Filtered(GaussianLikelihood):
    """The prior's score plus the gradient of the twist."""

    method: FPS

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        solved = self.solve(x / broadcast(self.sde.alpha(t), x), t, 0.0)[1]
        pull = self.operator.adjoint(solved)
        return self.prior.denoise(x, t) + broadcast((self.sde.sigma(t) / self.sde.alpha(t)) ** 2, x) * pull

    def twist(self, x: Tensor, t: Tensor) -> Twist:
        """log psi_t and its gradient."""
        alpha = broadcast(self.sde.alpha(t), x)
        log, solved = self.log_normal(x / alpha, t, 0.0)
        return Twist(x0=self.prior.denoise(x, t), log=log, gradient=self.operator.adjoint(solved) / alpha)

    def propose(self, mean: Tensor, std: Tensor, s: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """A draw of the transition's product with the twist, and log Z."""
        alpha, level = self.sde.alpha(s), self.sde.sigma(s) / self.sde.alpha(s)
        u = mean + std * noise.at("z").normal(self.shape)
        n = self.measurement.noise_std * noise.at("n").normal(tuple(self.measurement.operator.output_shape))
        spread = math.sqrt(self.method.kappa) * level * noise.at("w").normal(self.shape)
        variance = float(std / alpha) ** 2
        _, pull = self.solve((u + alpha * spread) / alpha, s, variance, plus=n)
        x = u + std**2 / alpha * self.operator.adjoint(pull)
        return x, self.log_normal(mean / alpha, s, variance)[0]

    def log_normal(self, xbar: Tensor, t: Tensor, variance: float) -> tuple[Tensor, Tensor]:
        """log N(y_t; A xbar, M_t + variance A A^T), (B,), and the solution with that covariance."""
        r, solved = self.solve(xbar, t, variance)
        a, b = self.scale(t) + variance, self.measurement.noise_std**2
        return self.gram.log_density(r, solved, a=a, b=b), solved

    def solve(self, xbar: Tensor, t: Tensor, variance: float, plus: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """r = y_t + plus - A xbar and (M_t + variance A A^T)^{-1} r, (B, *output_shape)."""
        r = self.measurement.residual(xbar) + (0 if plus is None else plus)
        if self.method.path == "drawn":
            r = r + self.sde.sigma(t) / self.sde.alpha(t) * self.drawn.to(r)
        return r, self.operator.solve(r, a=self.scale(t) + variance, b=self.measurement.noise_std**2)

    def scale(self, t: Tensor) -> float:
        """kappa l^2."""
        return self.method.kappa * float(self.sde.sigma(t) / self.sde.alpha(t)) ** 2

    @functools.cached_property
    def drawn(self) -> Tensor:
        """A w, (1, *output_shape)."""
        w = Noise(self.method.seed, (0,), dtype=self.dtype, device=self.device).at("fps").normal(self.shape)
        with torch.no_grad():
            return self.measurement.operator(w)

    @functools.cached_property
    def gram(self) -> GramTwist:
        return GramTwist(measurement=self.measurement)

    @property
    def operator(self) -> LinearOperator:
        """The measurement's operator, which `FPS.condition` has seen to be linear."""
        operator: LinearOperator = self.measurement.operator  # type: ignore[assignment]
        return operator
