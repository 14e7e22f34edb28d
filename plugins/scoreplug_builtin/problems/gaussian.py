r"""The Gaussian problem: a smooth random line or image, measured linearly, with everything known in closed form.

    p(x) = N(m, S),    y = A x + sigma_y n
    p(x | y) = N(m_y, S_y),    S_y = (S^{-1} + A^T A / sigma_y^2)^{-1},    m_y = m + S_y A^T (y - A m) / sigma_y^2
    p(y) = N(y; A m, A S A^T + sigma_y^2 I)

and the score of p_t(x | y) is that of the model `gaussian` with m_y and S_y. A method whose steps are affine maps one
normal distribution to another here, so that its bias can be computed instead of estimated
(`scoreplug.testing.affine_moments`).

What it does not ask: there is one mode, and the covariance of x_0 given x_t does not depend on x_t. Methods that are
exact here can be arbitrarily wrong elsewhere.

S_y is computed as R (I + B^T B)^{-1} R with R = S^{1/2} and B = A R / sigma_y, which keeps it symmetric and positive
for the smallest noise.

References:
    Kaipio, Somersalo: Statistical and Computational Inverse Problems. Springer 2005, theorem 3.7.
    Cardoso, Janati El Idrissi, Le Corff, Moulines: Monte Carlo guided Diffusion for Bayesian linear inverse problems.
    ICLR 2024, arXiv:2308.07983, section 4 (the random operator).
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
from scoreplug.noise import Noise
from scoreplug.operator import SpectralOperator
from scoreplug.protocols import SDE
from scoreplug_builtin.models._normals import Normals
from scoreplug_builtin.models.gaussian import Gaussian
from scoreplug_builtin.operators.identity import Identity
from scoreplug_builtin.operators.matrix import Matrix
from scoreplug_builtin.problems._linear import generator, random_matrix


@attrs.frozen(kw_only=True, eq=False)
class GaussianProblem:
    """A correlated Gaussian with a random linear measurement, or denoising, in float64.

    The covariance of the pixels i and j at the distance r is std^2 ((1 - nugget) c(r) + nugget [i = j]), with

        "squared-exponential": c(r) = exp(-r^2 / (2 l^2)), l the correlation length,
        "power-law": periodic, with the spectrum c(k) ~ 1 / (1 + (2 pi l |k|)^2), k in cycles per pixel: 1/k^2 beyond
        the correlation length, as in natural images.

    The nugget, a share of white noise, keeps the smooth covariance positive definite in float64.

    Raises:
        ValueError: if more values are measured than there are pixels.
    """

    domain: Literal["line", "image"] = param("line", doc="what x is: size pixels in a row, or size x size pixels")
    size: int = param(16, ge=1, unit="pixel", doc="length of the line, or side of the image")
    covariance: Literal["squared-exponential", "power-law"] = param(
        "squared-exponential", doc="how the correlation falls with the distance"
    )
    correlation: float = param(2.0, gt=0.0, unit="pixel", doc="correlation length l")
    nugget: float = param(1e-3, gt=0.0, le=1.0, doc="share of the variance that is independent from pixel to pixel")
    mean: float = param(0.5, unit="data", doc="mean of every pixel")
    std: float = param(1.0, gt=0.0, unit="data", doc="standard deviation of every pixel")
    measured: int | None = param(
        4, ge=1, doc="rows of a random operator with singular values U(0, 1); none measures every pixel: denoising"
    )
    noise_std: float = param(0.1, gt=0.0, doc="standard deviation of the noise in y")
    seed: int = param(0, ge=0, doc="which operator")
    draw: int = param(0, ge=0, doc="which pair of x and y under it")
    sde: SDE = param("vp", component="sde", doc="the forward process that prior and oracle are asked under")

    def __attrs_post_init__(self) -> None:
        if self.measured is not None and self.measured > self._pixels:
            raise ValueError(f"measured must be at most the {self._pixels} pixels of x (got {self.measured!r})")

    @functools.cached_property
    def prior(self) -> Gaussian:
        """N(m, S) under the process."""
        m = torch.full((self._pixels,), float(self.mean), dtype=torch.float64)
        return Gaussian(image_shape=self._shape, mean=m, covariance=self._covariance, sde=self.sde)

    @functools.cached_property
    def measurement(self) -> Measurement:
        """y."""
        n = self._noise("n").normal(tuple(self._operator.output_shape))
        return Measurement(self._operator, (self._operator(self.truth[None]) + self.noise_std * n)[0], self.noise_std)

    @functools.cached_property
    def truth(self) -> Tensor:
        """x ~ p(x)."""
        z = self._noise("x").normal((self._pixels,))
        return (self.prior.normals.mean + z @ self._root)[0].reshape(self._shape)

    def exact_samples(self, n: int, *, seed: int = 0) -> Tensor:
        """n independent draws of p(x | y), (n, *shape); draw i of a seed is the same whatever n is."""
        noise = Noise(seed, range(n), dtype=torch.float64, device=torch.device("cpu"))
        z = noise.at(*self._address, "exact", self.seed, self.draw).normal((self._pixels,))
        mean, covariance = self.moments
        values, vectors = torch.linalg.eigh(covariance)
        return (mean + (z * values.sqrt()) @ vectors.T).reshape(n, *self._shape)

    @functools.cached_property
    def log_evidence(self) -> float:
        """log p(y), in nats."""
        A = self._matrix
        covariance = A @ self._covariance @ A.T + self.noise_std**2 * torch.eye(len(A), dtype=A.dtype)
        y = Normals.of((self.prior.normals.mean @ A.T), ((covariance + covariance.T) / 2)[None])
        return float(_log_density(y, self.measurement.data.flatten()[None])[0])

    @functools.cached_property
    def oracle(self) -> Gaussian:
        """N(m_y, S_y) under the process."""
        mean, covariance = self.moments
        return Gaussian(image_shape=self._shape, mean=mean, covariance=covariance, sde=self.sde)

    @functools.cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """m_y, (n,), and S_y, (n, n)."""
        B = self._matrix @ self._root / self.noise_std
        # (I + B^T B)^{-1} from the singular values of B: no small eigenvalue is the difference of large ones.
        _, s, Vt = torch.linalg.svd(B, full_matrices=True)
        shrink = torch.ones(len(Vt), dtype=s.dtype)
        shrink[: len(s)] = 1 / (1 + s**2)
        half = self._root @ Vt.T * shrink.sqrt()
        covariance = half @ half.T
        m = self.prior.normals.mean[0]
        residual = self.measurement.data.flatten() - self._matrix @ m
        mean = m + covariance @ (self._matrix.T @ residual) / self.noise_std**2
        return mean, (covariance + covariance.T) / 2

    def log_posterior(self, x: Tensor) -> Tensor:
        """log p(x | y) = log p(y | x) + log p(x) - log p(y), (B,), in nats."""
        r = self.measurement.residual(x.double()).flatten(1)
        log_likelihood = -0.5 * ((r / self.noise_std) ** 2 + math.log(2 * math.pi * self.noise_std**2)).sum(1)
        return log_likelihood + _log_density(self.prior.normals, x.double().flatten(1)) - self.log_evidence

    @property
    def _shape(self) -> tuple[int, int, int]:
        return (1, 1, self.size) if self.domain == "line" else (1, self.size, self.size)

    @property
    def _pixels(self) -> int:
        return math.prod(self._shape)

    @functools.cached_property
    def _covariance(self) -> Tensor:
        """S, (n, n)."""
        if self.covariance == "squared-exponential":
            rows, columns = (torch.arange(side, dtype=torch.float64) for side in self._shape[1:])
            position = torch.cartesian_prod(rows, columns)
            r2 = (position[:, None] - position).square().sum(2)
            correlation = torch.exp(-r2 / (2 * self.correlation**2))
        else:
            correlation = self._power_law()
        identity = torch.eye(self._pixels, dtype=torch.float64)
        return self.std**2 * ((1 - self.nugget) * correlation + self.nugget * identity)

    def _power_law(self) -> Tensor:
        """The circulant correlation of the spectrum 1 / (1 + (2 pi l |k|)^2), (n, n)."""
        _, height, width = self._shape
        rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width))
        spectrum = 1 / (1 + (2 * math.pi * self.correlation) ** 2 * (rows[:, None] ** 2 + columns**2))
        at_distance = torch.fft.ifft2(spectrum).real
        at_distance = at_distance / at_distance[0, 0]
        i, j = torch.arange(height), torch.arange(width)
        matrix = at_distance[(i[:, None] - i)[:, None, :, None] % height, (j[:, None] - j)[None, :, None, :] % width]
        matrix = matrix.reshape(self._pixels, self._pixels)
        return (matrix + matrix.T) / 2  # symmetric to the last bit

    @functools.cached_property
    def _root(self) -> Tensor:
        """S^{1/2}, symmetric."""
        values, vectors = torch.linalg.eigh(self._covariance)
        return (vectors * values.sqrt()) @ vectors.T

    @functools.cached_property
    def _operator(self) -> SpectralOperator:
        if self.measured is None:
            return Identity(image_shape=self._shape)
        return Matrix(image_shape=self._shape, matrix=self._matrix)

    @functools.cached_property
    def _matrix(self) -> Tensor:
        """A on the flattened image, (m, n)."""
        if self.measured is None:
            return torch.eye(self._pixels, dtype=torch.float64)
        A, _ = random_matrix(generator(*self._address, self.seed, "operator"), self.measured, self._pixels)
        return A

    @property
    def _address(self) -> tuple[str | int, ...]:
        return ("gaussian problem", self._pixels, self.measured or 0)

    def _noise(self, what: str) -> Noise:
        noise = Noise(self.seed, (self.draw,), dtype=torch.float64, device=torch.device("cpu"))
        return noise.at(*self._address, what)


def _log_density(normals: Normals, x: Tensor) -> Tensor:
    """log N(x; mean, covariance), (B,)."""
    one = torch.ones((), dtype=x.dtype)
    return normals.at(x, one, 0 * one).log_density()[:, 0]
