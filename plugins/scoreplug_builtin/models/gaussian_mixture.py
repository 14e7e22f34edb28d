r"""A Gaussian mixture prior, whose score is known under every SDE.

    p(x) = sum_k w_k N(m_k, S_k),    p_t(x) = sum_k w_k N(alpha m_k, alpha^2 S_k + sigma^2 I)
    score(x, t) = sum_k r_k(x) score_k(x, t),    r_k = softmax_k(log w_k + log N(x; alpha m_k, P_k))

With a linear operator its posterior is a mixture as well, with known weights: whether a method finds the right share
of each mode can be measured.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.model import BasePrior
from scoreplug_builtin.models._normals import Normals, Perturbed


@attrs.frozen(kw_only=True, eq=False)
class GaussianMixture(BasePrior):
    """A mixture of K normal distributions over images."""

    image_shape: tuple[int, ...] = param(doc="shape of one image", ge=1, unit="pixel")
    means: tuple[tuple[float, ...], ...] | Tensor = param(unit="data", doc="m_k, (K, pixels)")
    weights: tuple[float, ...] | Tensor | None = param(
        None, doc="w_k > 0, (K,), normalised to sum 1; None for equal weights"
    )
    covariances: float | tuple[float, ...] | tuple[tuple[tuple[float, ...], ...], ...] | Tensor = param(
        1.0,
        doc="one variance, one per component (K,), or a matrix per component (K, pixels, pixels); data units squared",
    )
    precision: Literal["float32", "float64"] = param("float64", doc="floating-point type of samples")

    def __attrs_post_init__(self) -> None:
        _ = self.normals, self.log_weights  # bad shapes are found now, not at the first step

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image_shape

    @functools.cached_property
    def normals(self) -> Normals:
        """The components."""
        n = math.prod(self.image_shape)
        means = torch.as_tensor(self.means, dtype=self.dtype, device=self.device)
        if means.ndim != 2 or means.shape[1] != n:
            raise ValueError(
                f"means must have the shape (K, {n}) for an image of {n} pixels (got {tuple(means.shape)})"
            )
        K = len(means)
        covariances = torch.as_tensor(self.covariances, dtype=self.dtype, device=self.device)
        if covariances.shape not in ((), (K,), (K, n, n)):
            raise ValueError(
                f"covariances must have the shape (), ({K},) or ({K}, {n}, {n}) (got {tuple(covariances.shape)})"
            )
        return Normals.of(means, covariances.expand(K) if covariances.ndim == 0 else covariances)

    @functools.cached_property
    def log_weights(self) -> Tensor:
        """log w_k, (K,)."""
        K = len(self.normals.mean)
        values = (1.0,) * K if self.weights is None else self.weights
        weights = torch.as_tensor(values, dtype=self.dtype, device=self.device)
        if weights.shape != (K,) or not bool((weights > 0).all()):
            raise ValueError(f"weights must be {K} positive numbers (got {self.weights!r})")
        return (weights / weights.sum()).log()

    def spread(self, t: Tensor) -> Tensor:
        """The error of the best linear denoiser, an upper bound of the mixture's own, which has no closed form."""
        return self.moments.denoising_error(self.sde.alpha(t), self.sde.sigma(t))[..., 0]

    @functools.cached_property
    def moments(self) -> Normals:
        """The normal distribution with the mixture's mean and covariance."""
        w, means = self.log_weights.exp(), self.normals.mean
        mean = w @ means
        within = torch.einsum("k,kij->ij", w, self.normals.covariance())
        between = torch.einsum("k,ki,kj->ij", w, means - mean, means - mean)
        covariance = within + between
        return Normals.of(mean[None], (covariance + covariance.mT)[None] / 2)  # symmetric in every precision

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        components = self._at(x, t)
        return self._average(components, components.score()).reshape(x.shape)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        components = self._at(x, t)
        return self._average(components, components.denoise()).reshape(x.shape)

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x), (B,), in nats."""
        return (self.log_weights + self._at(x, t).log_density()).logsumexp(1)

    def score_and_log_density(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        components = self._at(x, t)
        joint = self.log_weights + components.log_density()
        score = torch.einsum("bk,bkn->bn", joint.softmax(1), components.score())
        return score.reshape(x.shape), joint.logsumexp(1)

    def _average(self, components: Perturbed, of: Tensor) -> Tensor:
        """sum_k r_k(x) of_k, (B, n)."""
        responsibility = (self.log_weights + components.log_density()).softmax(1)
        return torch.einsum("bk,bkn->bn", responsibility, of)

    def _at(self, x: Tensor, t: Tensor) -> Perturbed:
        return self.normals.at(x.flatten(1), self.sde.alpha(t), self.sde.sigma(t))
