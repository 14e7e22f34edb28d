r"""The Gaussian-mixture problem: 25 well separated modes, one to four linear measurements, everything in closed form.

    p(x) = sum_k w_k N(m_k, I),    m_(i,j) = (-8 i, -8 j, -8 i, -8 j, ...),    i, j in {-2, .., 2},    w ~ chi^2_1
    y = A x + sigma_y n,    A = U diag(s) V^T random with s ~ U(0, 1),    sigma_y ~ U(0, 1) max(s)

The posterior is the mixture of N(mu_k, Gamma) with the weights w'_k,

    S = A A^T + sigma_y^2 I,    G = A^T S^{-1},    mu_k = m_k + G (y - A m_k),    Gamma = I - G A
    w'_k = w_k N(y; A m_k, S) / p(y),    p(y) = sum_k w_k N(y; A m_k, S)

and its score under the process is that of the model `gaussian-mixture`. It has between one and a dozen modes far apart:
whether a method finds their weights is the question that it asks.

References:
    Cardoso, Janati El Idrissi, Le Corff, Moulines: Monte Carlo guided Diffusion for Bayesian linear inverse problems.
    ICLR 2024, arXiv:2308.07983, section 4.
"""

from __future__ import annotations

import functools
import math

import attrs
import numpy as np
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.noise import Noise
from scoreplug.protocols import SDE
from scoreplug_builtin.models.gaussian_mixture import GaussianMixture
from scoreplug_builtin.operators.matrix import Matrix
from scoreplug_builtin.problems._linear import generator, random_matrix
from scoreplug_builtin.sdes.edm import EDM


@attrs.frozen(kw_only=True, eq=False)
class GaussianMixtureProblem:
    """A Gaussian mixture with a random linear measurement, in float64."""

    dimension: int = param(8, ge=2, doc="number of pixels d, even; published with 8, 80 and 800")
    measured: int = param(1, ge=1, doc="number of measured values; published with 1, 2 and 4")
    seed: int = param(0, ge=0, doc="which weights, operator and noise level")
    draw: int = param(0, ge=0, doc="which pair of x and y under them")
    sde: SDE | None = param(
        None,
        component="sde",
        doc="the forward process; none is `edm` from .003 to twice the radius of the data, which the starting noise "
        "has to cover",
    )

    def __attrs_post_init__(self) -> None:
        if self.dimension % 2 or self.measured > self.dimension:
            raise ValueError(
                f"dimension must be even and at least measured (got {self.dimension!r} and {self.measured!r})"
            )

    @functools.cached_property
    def prior(self) -> GaussianMixture:
        """The mixture under the process."""
        return self._mixture(self._means, self._weights.log(), torch.ones((), dtype=torch.float64))

    @functools.cached_property
    def measurement(self) -> Measurement:
        """y."""
        y = (
            self._operator(self.truth[None])[0]
            + self._sigma_y * self._noise("n", self.draw).normal((self.measured,))[0]
        )
        return Measurement(self._operator, y, self._sigma_y)

    @functools.cached_property
    def truth(self) -> Tensor:
        """x ~ p(x)."""
        noise = self._noise("x", self.draw)
        k = torch.searchsorted(self._weights.cumsum(0), noise.at("mode").uniform()).clamp(max=24)
        return (self._means[k] + noise.at("z").normal((self.dimension,)))[0].reshape(self._shape)

    def exact_samples(self, n: int, *, seed: int = 0) -> Tensor:
        """n draws of p(x | y), (n, *shape)."""
        noise = Noise(seed, range(n), dtype=torch.float64, device=torch.device("cpu")).at("exact", self.seed, self.draw)
        k = torch.searchsorted(self.mode_weights.cumsum(0), noise.at("mode").uniform()).clamp(max=24)
        values, vectors = torch.linalg.eigh(self._covariance)
        root = vectors * values.clamp_min(0).sqrt()
        return (self._posterior_means[k] + noise.at("z").normal((self.dimension,)) @ root.T).reshape(n, *self._shape)

    @property
    def log_evidence(self) -> float:
        """log p(y), in nats."""
        return float(self._joint.logsumexp(0))

    @functools.cached_property
    def oracle(self) -> GaussianMixture:
        """The posterior under the process."""
        return self._mixture(self._posterior_means, self.mode_weights.log(), self._covariance)

    @property
    def mode_weights(self) -> Tensor:
        """w'_k, (25,)."""
        return self._joint.softmax(0)

    def modes(self, x: Tensor) -> Tensor:
        """The mode with the largest responsibility under the posterior, (B,)."""
        whitened = torch.linalg.inv(self._covariance)
        score = x.flatten(1).double() @ whitened @ self._posterior_means.T
        far = ((self._posterior_means @ whitened) * self._posterior_means).sum(1)
        return (self.mode_weights.log() + score - far / 2).argmax(1)

    @functools.cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """E[x | y] and Cov[x | y]."""
        w, mu = self.mode_weights, self._posterior_means
        mean = w @ mu
        return mean, self._covariance + torch.einsum("k,ki,kj->ij", w, mu - mean, mu - mean)

    def log_posterior(self, x: Tensor) -> Tensor:
        """log p(x | y), (B,), in nats."""
        flat, mu = x.flatten(1).double(), self._posterior_means
        L = torch.linalg.cholesky(self._covariance)
        whitened = torch.linalg.solve_triangular(L, torch.cat([flat, mu]).T, upper=False).T
        squares = torch.cdist(whitened[: len(flat)], whitened[len(flat) :]) ** 2
        log_det = 2 * L.diagonal().log().sum()
        log_normal = -0.5 * (squares + self.dimension * math.log(2 * math.pi) + log_det)
        return (self.mode_weights.log() + log_normal).logsumexp(1)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return (1, 1, self.dimension)

    @functools.cached_property
    def _means(self) -> Tensor:
        """m_k, (25, d)."""
        grid = torch.arange(-2.0, 3.0, dtype=torch.float64)
        pairs = -8 * torch.cartesian_prod(grid, grid)
        return pairs.repeat(1, self.dimension // 2)

    @functools.cached_property
    def _weights(self) -> Tensor:
        """w_k, (25,)."""
        w = torch.from_numpy(self._rng("weights").standard_normal(25)) ** 2
        return w / w.sum()

    @functools.cached_property
    def _matrix(self) -> Tensor:
        """A, (measured, d)."""
        matrix, _ = random_matrix(self._rng("operator"), self.measured, self.dimension)
        return matrix

    @functools.cached_property
    def _operator(self) -> Matrix:
        return Matrix(image_shape=self._shape, matrix=self._matrix)

    @functools.cached_property
    def _sigma_y(self) -> float:
        _, s = random_matrix(self._rng("operator"), self.measured, self.dimension)
        return float(self._rng("noise level").random() * s.max())

    def _mixture(self, means: Tensor, log_weights: Tensor, covariance: Tensor) -> GaussianMixture:
        """Components whose weight is below float64's range at any distance would be log 0."""
        kept = log_weights > log_weights.max() - 600
        return GaussianMixture(
            image_shape=self._shape,
            means=means[kept],
            weights=log_weights[kept].exp(),
            covariances=covariance,
            sde=self._process,
        )

    @functools.cached_property
    def _process(self) -> SDE:
        if self.sde is not None:
            return self.sde
        radius = float(self._means.norm(dim=1).max()) + math.sqrt(self.dimension)
        return EDM(sigma_min=0.003, sigma_max=2 * radius)

    @functools.cached_property
    def _gain(self) -> Tensor:
        """G, (d, measured)."""
        A = self._matrix
        return torch.linalg.solve(A @ A.T + self._sigma_y**2 * torch.eye(self.measured).to(A), A).T

    @functools.cached_property
    def _posterior_means(self) -> Tensor:
        """mu_k, (25, d)."""
        A = self._matrix
        return self._means + (self.measurement.data - self._means @ A.T) @ self._gain.T

    @functools.cached_property
    def _covariance(self) -> Tensor:
        """Gamma, (d, d)."""
        gamma = torch.eye(self.dimension, dtype=torch.float64) - self._gain @ self._matrix
        return (gamma + gamma.T) / 2

    @functools.cached_property
    def _joint(self) -> Tensor:
        """log w_k + log N(y; A m_k, S), (25,)."""
        A = self._matrix
        S = A @ A.T + self._sigma_y**2 * torch.eye(self.measured).to(A)
        r = self.measurement.data - self._means @ A.T
        squares = (r * torch.linalg.solve(S, r.T).T).sum(1)
        return self._weights.log() - 0.5 * (squares + torch.logdet(2 * math.pi * S))

    def _rng(self, what: str) -> np.random.Generator:
        return generator("gaussian-mixture", self.dimension, self.measured, self.seed, what)

    def _noise(self, what: str, draw: int) -> Noise:
        path = ("gaussian-mixture", self.dimension, self.measured, what)
        return Noise(self.seed, (draw,), dtype=torch.float64, device=torch.device("cpu")).at(*path)
