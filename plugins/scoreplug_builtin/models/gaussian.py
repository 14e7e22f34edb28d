r"""A Gaussian prior, whose score is known under every SDE.

    p(x) = N(mean, S),    p_t(x) = N(alpha mean, P_t),    P_t = alpha^2 S + sigma^2 I
    score(x, t) = -P_t^{-1} (x - alpha mean)

With a linear operator everything about the posterior is known too, which makes this the reference problem of the
library's tests.
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
class Gaussian(BasePrior):
    """The normal distribution N(mean, covariance) over images."""

    image_shape: tuple[int, ...] = param(doc="shape of one image", ge=1, unit="pixel")
    mean: float | tuple[float, ...] | Tensor = param(
        0.0, unit="data", doc="mean, one number or one per pixel (flattened)"
    )
    covariance: float | tuple[tuple[float, ...], ...] | Tensor = param(
        1.0, doc="variance of every pixel, or the covariance matrix of the flattened image; data units squared"
    )
    precision: Literal["float32", "float64"] = param("float64", doc="floating-point type of samples")

    def __attrs_post_init__(self) -> None:
        _ = self.normals  # bad shapes are found now, not at the first step

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image_shape

    @functools.cached_property
    def normals(self) -> Normals:
        """The distribution as a batch of one."""
        n = math.prod(self.image_shape)
        mean = torch.as_tensor(self.mean, dtype=self.dtype, device=self.device).reshape(1, -1)
        covariance = torch.as_tensor(self.covariance, dtype=self.dtype, device=self.device)[None]
        if mean.shape[1] not in (1, n) or covariance.shape[1:] not in ((), (n, n)):
            raise ValueError(
                f"an image of {n} pixels takes 1 or {n} means and a variance or a {n} x {n} covariance "
                f"(got {mean.shape[1]} means and covariance {tuple(covariance.shape[1:])})"
            )
        return Normals.of(mean.expand(1, n), covariance)

    def spread(self, t: Tensor) -> Tensor:
        """r_t = sqrt(tr C_t / n) with C_t = sigma^2 S P_t^{-1} the covariance of x_0 given x_t, of t's shape."""
        return self.normals.denoising_error(self.sde.alpha(t), self.sde.sigma(t))[..., 0]

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        return self._at(x, t).score().reshape(x.shape)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        return self._at(x, t).denoise().reshape(x.shape)

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x), (B,), in nats."""
        return self._at(x, t).log_density()[:, 0]

    def score_and_log_density(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        here = self._at(x, t)
        return here.score().reshape(x.shape), here.log_density()[:, 0]

    def _at(self, x: Tensor, t: Tensor) -> Perturbed:
        return self.normals.at(x.flatten(1), self.sde.alpha(t), self.sde.sigma(t))
