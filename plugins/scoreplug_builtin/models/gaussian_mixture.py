r"""A Gaussian mixture prior, whose score is known under every SDE.

    p(x) = sum_k w_k N(m_k, S_k),    p_t(x) = sum_k w_k N(alpha m_k, alpha^2 S_k + sigma^2 I)
    score(x, t) = sum_k r_k(x) score_k(x, t),    r_k = softmax_k(log w_k + log N(x; alpha m_k, P_k))

With a linear operator its posterior is a mixture as well, with known weights: whether a method finds the right share
of each mode can be measured.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.model import BasePrior
from scoreplug_builtin.models._normals import Normals, Perturbed
from scoreplug_builtin.models._shared import MixtureAt, SharedMixture


@attrs.frozen(kw_only=True, eq=False)
class GaussianMixture(BasePrior):
    """A mixture of K normal distributions over images."""

    image_shape: tuple[int, ...] = param(doc="shape of one image", ge=1, unit="pixel")
    means: tuple[tuple[float, ...], ...] | Tensor = param(unit="data", doc="m_k, (K, pixels)")
    weights: tuple[float, ...] | Tensor | None = param(
        None, doc="w_k > 0, (K,), normalised to sum 1; None for equal weights"
    )
    covariances: (
        float | tuple[float, ...] | tuple[tuple[float, ...], ...] | tuple[tuple[tuple[float, ...], ...], ...] | Tensor
    ) = param(
        1.0,
        doc="one variance, or one per component (K,); one matrix (pixels, pixels), or one per component (K, pixels, "
        "pixels); data units squared",
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
        if covariances.shape not in ((), (K,), (n, n), (K, n, n)):
            raise ValueError(
                f"covariances must have the shape (), ({K},), ({n}, {n}) or ({K}, {n}, {n}) "
                f"(got {tuple(covariances.shape)})"
            )
        return Normals.of(means, covariances[None] if covariances.ndim in (0, 2) else covariances)

    @functools.cached_property
    def shared(self) -> SharedMixture | None:
        """The faster form, if the components share one covariance."""
        if len(self.normals.eigenvalues) > 1:
            return None
        return SharedMixture(normals=self.normals, log_weights=self.log_weights)

    @functools.cached_property
    def log_weights(self) -> Tensor:
        """log w_k, (K,)."""
        K = len(self.normals.mean)
        values = (1.0,) * K if self.weights is None else self.weights
        weights = torch.as_tensor(values, dtype=self.dtype, device=self.device)
        if weights.shape != (K,) or not bool((weights > 0).all()):
            raise ValueError(f"weights must be {K} positive numbers (got {self.weights!r})")
        return (weights / weights.sum()).log()

    @functools.cached_property
    def radius(self) -> float:
        """The largest distance of a mode from 0, and its standard deviation."""
        variances = self.normals.eigenvalues.expand(len(self.normals.eigenvalues), self.normals.mean.shape[1]).sum(1)
        return float((self.normals.mean.norm(dim=1) + variances.sqrt()).max())

    def spread(self, t: Tensor) -> Tensor:
        """The error of the best linear denoiser, an upper bound of the mixture's own, which has no closed form."""
        return self.moments.denoising_error(self.sde.alpha(t), self.sde.sigma(t))[..., 0]

    @functools.cached_property
    def moments(self) -> Normals:
        """The normal distribution with the mixture's mean and covariance."""
        w, means = self.log_weights.exp(), self.normals.mean
        mean = w @ means
        covariances = self.normals.covariance()
        within = torch.einsum("k,kij->ij", w, covariances) if len(covariances) == len(w) else covariances[0]
        between = torch.einsum("k,ki,kj->ij", w, means - mean, means - mean)
        covariance = within + between
        return Normals.of(mean[None], (covariance + covariance.mT)[None] / 2)  # symmetric in every precision

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        if self.shared is not None:
            return self._shared_at(self.shared, x, t).score().reshape(x.shape)
        components = self._at(x, t)
        return self._average(components, components.score()).reshape(x.shape)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        if self.shared is not None:
            return self._shared_at(self.shared, x, t).denoise().reshape(x.shape)
        components = self._at(x, t)
        return self._average(components, components.denoise()).reshape(x.shape)

    def denoise_with_vjp(self, x: Tensor, t: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        if self.shared is None:
            return super().denoise_with_vjp(x, t)
        with torch.no_grad():
            here = self._shared_at(self.shared, x, t)
            x0 = here.denoise().reshape(x.shape)
        return x0, lambda v: here.vjp(v.flatten(1)).reshape(v.shape)

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x), (B,), in nats."""
        if self.shared is not None:
            return self._shared_at(self.shared, x, t).log_density()
        return (self.log_weights + self._at(x, t).log_density()).logsumexp(1)

    def score_and_log_density(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if self.shared is not None:
            here = self._shared_at(self.shared, x, t)
            return here.score().reshape(x.shape), here.log_density()
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

    def _shared_at(self, shared: SharedMixture, x: Tensor, t: Tensor) -> MixtureAt:
        return shared.at(x.flatten(1), self.sde.alpha(t), self.sde.sigma(t))
