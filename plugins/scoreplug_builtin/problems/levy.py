r"""Levy processes: signals with independent increments, whose posterior a Gibbs sampler draws from exactly.

    u_i = x_i - x_{i-1}, x_0 = 0,    u_i independent, of one law:
        gaussian   N(0, s^2)                                  Brownian motion
        laplace    exp(-|u| / s) / (2 s)                      total-variation-like signals
        student    Student's t with k degrees of freedom, times s     rare, large jumps
    y = A x + sigma_y n,    A the identity, a circular blur, a random mask or random frequencies

These are the laws in which a normal distribution's variance is itself random, u | v ~ N(0, v):

    laplace    v ~ Exp(mean 2 s^2),           1/v | u ~ InverseGaussian(mean 1 / (s |u|), shape 1 / s^2)
    student    v ~ k s^2 / chi^2_k,             v | u ~ (k s^2 + u^2) / chi^2_{k+1}

A sweep of the Gibbs sampler draws v given u, then u given v and y, which is normal. Both draws are exact. With H the
operator on increments, H = A D^{-1}, and G = H diag(v) H^T + sigma_y^2 I, the latter is (Hoffman and Ribak 1991)

    u = u* + diag(v) H^T G^{-1} (y - H u* - sigma_y n*),    u* ~ N(0, diag(v)), n* ~ N(0, I)

by a Cholesky decomposition of G, which never divides by a variance that is close to 0.

Every sample is the end of a chain of its own, started from the prior: samples are independent, the effective sample
size is their number, and what is left is the chain's memory of its start, which decays geometrically. At the default
size and noise the autocorrelation time of a pixel is 1.2 to 1.8 sweeps in the mean over the signal, for each law and
task, and 12 at the worst pixel (Student's law); mean and spread over 1000 chains are at their limits after 10. More
unknowns or less noise may need more than the default of 50: `burn_in` is theirs to raise. A thousand samples take two
to ten seconds.

The score of p_t has no closed form either. The prior's x0 = E[x_0 | x_t] is the mean of the same sampler's chain for
the denoising of x_t, in which the increments given v enter by their conditional mean rather than by a draw. It is a
function of x_t: the chain's noise is the same at every call, for every sample and level. Its Monte Carlo error falls
as 1/sqrt(sweeps) and is shared by the samples of a run; with 200 sweeps its root mean square is at most .03 of the
noise level, and .03 (laplace) or .045 (student) of the error |x0 - x_0| itself. That makes it an expensive prior, a
second for 10 samples, to judge conditioners with. For Gaussian increments no chain is needed and all is exact.

References:
    Unser, Tafti: An Introduction to Sparse Stochastic Processes. Cambridge University Press 2014.
    Bohra, del Aguila Pla, Giovannelli, Unser: A Statistical Framework to Investigate the Optimality of
    Signal-Reconstruction Methods. IEEE Trans. Signal Process. 71, 2023, arXiv:2203.09920 (the Gibbs samplers).
    A Statistical Benchmark for Diffusion Posterior Sampling Algorithms. ICLR 2026, arXiv:2509.12821 (the tasks, and the
    Gibbs sampler as a denoiser).
    Park, Casella: The Bayesian Lasso. JASA 103, 2008, doi:10.1198/016214508000000337 (the variances given u).
    Michael, Schucany, Haas: Generating Random Variates Using Transformations with Multiple Roots. Am. Stat. 30, 1976,
    doi:10.1080/00031305.1976.10479147.
    Hoffman, Ribak: Constrained realizations of Gaussian fields. ApJ 380, 1991, doi:10.1086/186160.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Literal

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.model import BaseModel
from scoreplug.noise import Noise
from scoreplug.operator import SpectralOperator, matrix_of
from scoreplug.protocols import SDE
from scoreplug_builtin.models._normals import Normals
from scoreplug_builtin.operators.blur import Blur
from scoreplug_builtin.operators.fourier import Fourier
from scoreplug_builtin.operators.identity import Identity
from scoreplug_builtin.operators.inpainting import Inpainting

BLUR = ((0.1, 0.2, 0.4, 0.2, 0.1),)  # its transfer function is between 0.1 and 1
KEPT = 0.5  # of the pixels or frequencies of a random mask
CHAINS = 64  # that run at once


@attrs.frozen(kw_only=True, eq=False)
class LevyProblem:
    """A Levy process on a line, measured linearly, with posterior samples of a Gibbs sampler, in float64."""

    size: int = param(64, ge=1, unit="pixel", doc="number of samples of the process, n")
    increments: Literal["gaussian", "laplace", "student"] = param("laplace", doc="law of the increments")
    scale: float = param(0.5, gt=0.0, unit="data", doc="s of that law")
    degrees: int = param(3, ge=3, doc="degrees of freedom k of Student's law; with fewer there is no variance")
    task: Literal["denoising", "deconvolution", "masking", "fourier"] = param(
        "deconvolution", doc="what y is: x, a blur over five pixels, half of the pixels or half of the frequencies"
    )
    noise_std: float = param(0.3, gt=0.0, doc="standard deviation of the noise in y")
    burn_in: int = param(50, ge=1, doc="sweeps of a chain before its end is a posterior sample")
    sweeps: int = param(200, ge=1, doc="sweeps of a chain that the prior's denoised estimate is the mean of")
    seed: int = param(0, ge=0, doc="which mask")
    draw: int = param(0, ge=0, doc="which pair of x and y under it")
    sde: SDE = param("vp", component="sde", doc="the forward process that the prior is asked under")

    @functools.cached_property
    def prior(self) -> LevyPrior:
        """The process under the SDE."""
        return LevyPrior(law=self.law, size=self.size, sweeps=self.sweeps, sde=self.sde)

    @functools.cached_property
    def measurement(self) -> Measurement:
        """y."""
        n = self._noise("n").normal(tuple(self._operator.output_shape))
        return Measurement(self._operator, (self._operator(self.truth[None]) + self.noise_std * n)[0], self.noise_std)

    @functools.cached_property
    def truth(self) -> Tensor:
        """x ~ p(x)."""
        noise = self._noise("x")
        u = self.law.variances(self.size, noise.at("v")).sqrt() * noise.at("u").normal((self.size,))
        return u.cumsum(1)[0].reshape(self._shape)

    def exact_samples(self, n: int, *, seed: int = 0) -> Tensor:
        """n independent chains' ends, (n, *shape); draw i of a seed is the same whatever n is."""
        samples = []
        for first in range(0, n, CHAINS):
            noise = Noise(
                seed, range(first, min(first + CHAINS, n)), dtype=torch.float64, device=torch.device("cpu")
            ).at("levy problem", self.size, "exact", self.seed, self.draw)
            *_, (u, _) = self._gibbs.chain(self.burn_in, noise)
            samples.append(u.cumsum(1))
        return torch.cat(samples).reshape(n, *self._shape)

    def log_posterior(self, x: Tensor) -> Tensor:
        """log p(x) + log p(y | x), (B,), in nats: log p(x | y) up to log p(y)."""
        flat = x.double().flatten(1)
        log_prior = self.law.log_density(flat.diff(dim=1, prepend=torch.zeros_like(flat[:, :1]))).sum(1)
        r = self.measurement.residual(x.double()).flatten(1) / self.noise_std
        return log_prior - 0.5 * (r**2 + math.log(2 * math.pi * self.noise_std**2)).sum(1)

    @property
    def law(self) -> Increments:
        """The law of the increments."""
        return Increments(name=self.increments, scale=self.scale, degrees=self.degrees)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return (1, 1, self.size)

    @functools.cached_property
    def _operator(self) -> SpectralOperator:
        if self.task == "denoising":
            return Identity(image_shape=self._shape)
        if self.task == "deconvolution":
            return Blur(image_shape=self._shape, kernel=BLUR)
        if self.task == "masking":
            return Inpainting(image_shape=self._shape, mask="random", fraction=KEPT, seed=self.seed)
        return Fourier(image_shape=self._shape, acceleration=1 / KEPT, seed=self.seed)

    @functools.cached_property
    def _gibbs(self) -> Gibbs:
        # The sum over increments up to i is x_i: A D^{-1} is the cumulative sum of A's columns from the right.
        H = matrix_of(self._operator).flip(1).cumsum(1).flip(1)
        return Gibbs(law=self.law, H=H, y=self.measurement.data.flatten()[None], noise_std=self.noise_std)

    def _noise(self, what: str) -> Noise:
        noise = Noise(self.seed, (self.draw,), dtype=torch.float64, device=torch.device("cpu"))
        return noise.at("levy problem", self.size, what)


@attrs.frozen(kw_only=True)
class Increments:
    """A law of the increments, as a normal distribution of random variance."""

    name: str
    scale: float
    degrees: int

    @property
    def variance(self) -> float:
        """Of one increment."""
        return self.scale**2 * {"gaussian": 1, "laplace": 2, "student": self.degrees / (self.degrees - 2)}[self.name]

    def log_density(self, u: Tensor) -> Tensor:
        """log p(u), of u's shape, in nats."""
        s, k = self.scale, self.degrees
        if self.name == "gaussian":
            return -0.5 * (u / s) ** 2 - math.log(s * math.sqrt(2 * math.pi))
        if self.name == "laplace":
            return -u.abs() / s - math.log(2 * s)
        constant = math.lgamma((k + 1) / 2) - math.lgamma(k / 2) - math.log(s * math.sqrt(k * math.pi))
        return constant - (k + 1) / 2 * torch.log1p((u / s) ** 2 / k)

    def variances(self, n: int, noise: Noise) -> Tensor:
        """v ~ p(v), (B, n)."""
        if self.name == "gaussian":
            return torch.full((len(noise.samples), n), self.scale**2, dtype=noise.dtype)
        if self.name == "laplace":
            return -2 * self.scale**2 * torch.log1p(-noise.uniform((n,)))
        return self.degrees * self.scale**2 / noise.normal((self.degrees, n)).square().sum(1)

    @property
    def normals(self) -> int:
        """How many standard normal numbers `variances_given` takes for each increment."""
        return {"gaussian": 0, "laplace": 1, "student": self.degrees + 1}[self.name]

    def variances_given(self, u: Tensor, normal: Tensor, uniform: Tensor) -> Tensor:
        """v ~ p(v | u), of u's shape.

        Args:
            u: (B, n).
            normal: standard normal numbers, (B or 1, normals, n).
            uniform: (B or 1, n).
        """
        if self.name == "gaussian":
            return torch.full_like(u, self.scale**2)
        if self.name == "student":
            return (self.degrees * self.scale**2 + u**2) / normal.square().sum(1)
        # Michael, Schucany and Haas for 1/v, written for v: no term cancels, and u = 0 needs no care.
        m, h = self.scale * u.abs(), (self.scale * normal[:, 0]) ** 2 / 2
        v = m + h + (h * (h + 2 * m)).sqrt()
        return torch.where(uniform * (v + m) <= v, v, m**2 / v)


@attrs.frozen(kw_only=True, eq=False)
class Gibbs:
    """The Gibbs sampler for the increments u given y = H u + noise_std n.

    Args:
        law: of the increments.
        H: (m, n).
        y: (B, m), or (1, m) for all chains.
        noise_std: (B, 1, 1), or a number for all.
    """

    law: Increments
    H: Tensor
    y: Tensor
    noise_std: float | Tensor

    def chain(self, sweeps: int, noise: Noise) -> Iterator[tuple[Tensor, Tensor]]:
        """u, (B, n), and the Cholesky factor of G, (B, m, m), after each of the sweeps.

        Args:
            sweeps: how many.
            noise: one stream for each chain, or one for all.
        """
        m, n = self.H.shape
        # All of a chain's noise at once: opening a stream takes longer than drawing from it.
        normal = noise.at("u").normal((sweeps, m + n))
        given = noise.at("v").normal((sweeps, self.law.normals, n))
        choice = noise.at("choice").uniform((sweeps, n))

        v = self.law.variances(n, noise.at("start"))
        for k in range(sweeps):
            u, factor = self.increments(v, normal[:, k])
            yield u, factor
            v = self.law.variances_given(u, given[:, k], choice[:, k])

    def increments(self, v: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """u ~ p(u | v, y), (B, n), and the Cholesky factor of G, from m + n standard normal numbers."""
        m, n = self.H.shape
        G = (self.H * v[:, None]) @ self.H.T + self.noise_std**2 * torch.eye(m, dtype=v.dtype)
        factor = torch.linalg.cholesky(G)
        imagined, errors = v.sqrt() * normal[:, :n], (self.noise_std * normal[:, n:, None])[..., 0]
        residual = self.y - imagined @ self.H.T - errors
        return imagined + v * (solve(factor, residual) @ self.H), factor


@attrs.frozen(kw_only=True, eq=False)
class LevyPrior(BaseModel):
    """The score model of p(x), by the Gibbs sampler for y = x_t / alpha_t = x_0 + l n, l = sigma_t / alpha_t.

    Given the variances v of the increments, x_0 is normal with the covariance S = D^{-1} diag(v) D^{-T}. With
    g = (S + l^2 I)^{-1} y, the means being over v given x_t,

        score = -E[g] / alpha_t,    x0 = y - l^2 E[g],
        alpha_t d x0 / dx = Cov[x_0 | x_t] / l^2 = I - l^2 E[(S + l^2 I)^{-1}] + l^2 Cov[g].
    """

    law: Increments
    size: int
    sweeps: int
    sde: SDE

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, 1, self.size)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def spread(self, t: Tensor) -> Tensor:
        """The error of the best linear denoiser, an upper bound, and what it is for Gaussian increments."""
        return self._normal.denoising_error(self.sde.alpha(t), self.sde.sigma(t))[..., 0]

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        _, _, alpha = self._kernel(x, t)
        return -(self._mean_g(x, t) / alpha).reshape(x.shape).to(x)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        y, level, _ = self._kernel(x, t)
        return (y - level**2 * self._mean_g(x, t)).reshape(x.shape).to(x)

    def denoise_with_vjp(self, x: Tensor, t: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        with torch.no_grad():
            y, level, alpha = self._kernel(x, t)
            gs, inverse, count = [], torch.zeros((), dtype=torch.float64), 0
            for factor in self._factors(y, level):
                gs.append(solve(factor, y))
                inverse = inverse + torch.cholesky_inverse(factor)
                count += 1
            g = torch.stack(gs)
            mean, inverse = g.mean(0), inverse / count
            deviation = g - mean

        def vjp(v: Tensor) -> Tensor:
            w = v.flatten(1).double()
            between = torch.einsum("sbi,sbj,bj->bi", deviation, deviation, w) / count
            within = torch.einsum("bij,bj->bi", inverse, w)
            return ((w + level**2 * (between - within)) / alpha).reshape(v.shape).to(v)

        return (y - level**2 * mean).reshape(x.shape).to(x), vjp

    def _mean_g(self, x: Tensor, t: Tensor) -> Tensor:
        """E[g], (B, n)."""
        with torch.no_grad():
            y, level, _ = self._kernel(x, t)
            total, count = torch.zeros_like(y), 0
            for factor in self._factors(y, level):
                total, count = total + solve(factor, y), count + 1
            return total / count

    def _factors(self, y: Tensor, level: Tensor) -> Iterator[Tensor]:
        """Cholesky factors of S + l^2 I, one for each kept sweep, (B, n, n)."""
        H = torch.ones(self.size, self.size, dtype=torch.float64).tril()
        gibbs = Gibbs(law=self.law, H=H, y=y, noise_std=level[:, :, None])
        discarded, kept = (0, 1) if self.law.name == "gaussian" else (math.ceil(self.sweeps / 4), self.sweeps)
        noise = Noise(0, (0,), dtype=torch.float64, device=torch.device("cpu")).at("levy prior")
        for k, (_, factor) in enumerate(gibbs.chain(discarded + kept, noise)):
            if k >= discarded:
                yield factor

    def _kernel(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x / alpha, (B, n), sigma / alpha and alpha, (B, 1)."""
        alpha, sigma = (c.double().expand(len(x)).reshape(-1, 1) for c in (self.sde.alpha(t), self.sde.sigma(t)))
        return x.flatten(1).double() / alpha, sigma / alpha, alpha

    @functools.cached_property
    def _normal(self) -> Normals:
        """The normal distribution of the same covariance."""
        i = torch.arange(1, self.size + 1, dtype=torch.float64)
        covariance = self.law.variance * torch.minimum(i[:, None], i)
        return Normals.of(torch.zeros(1, self.size, dtype=torch.float64), covariance[None])


def solve(factor: Tensor, y: Tensor) -> Tensor:
    """G^{-1} y, (B, m), from the Cholesky factor of G, (B or 1, m, m)."""
    return torch.cholesky_solve(y[..., None], factor)[..., 0]
