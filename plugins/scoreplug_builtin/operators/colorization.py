"""Colorization: a grey image of a colour image."""

from __future__ import annotations

import functools
import math

import attrs
import torch
from torch import Tensor

from scoreplug.operator import SVD, SpectralOperator
from scoreplug.param import param
from scoreplug_builtin.operators._image import Constant, OnImage


@attrs.frozen(kw_only=True, eq=False)
class Colorization(OnImage, SpectralOperator):
    """A x = sum_c w_c x_c, pixel by pixel, (B, C, H, W) -> (B, 1, H, W).

    With equal weights w_c = 1/C it is the mean over the channels, DDRM's. V rotates the channels so that the first is
    along w, the only one that is seen: s = |w| there, else 0. For C equal weights |A| = 1/sqrt(C), and for one channel
    A is the identity.

    Raises:
        ValueError: if there is not one finite weight for each channel, or all are 0.

    References:
        Kawar, Elad, Ermon, Song: Denoising Diffusion Restoration Models. NeurIPS 2022, arXiv:2201.11793.
    """

    weights: tuple[float, ...] | None = param(
        None, doc="w, one for each channel, such as (.299, .587, .114) for luma; none is 1/C for each"
    )

    def __attrs_post_init__(self) -> None:
        channels = self.image_shape[0]
        if self.weights is None:
            return
        if len(self.weights) != channels or not any(self.weights) or not all(map(math.isfinite, self.weights)):
            raise ValueError(
                f"weights must be {channels} finite numbers, one for each channel, and not all 0 (got {self.weights!r})"
            )

    @functools.cached_property
    def _w(self) -> Constant:
        channels = self.image_shape[0]
        values = (1 / channels,) * channels if self.weights is None else self.weights
        return Constant(torch.tensor(values, dtype=torch.float64, device="cpu"))

    @property
    def output_shape(self) -> tuple[int, ...]:
        return 1, *self.image_shape[1:]

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("c,bchw->bhw", self._w.like(x), x)[:, None]

    def transpose(self, y: Tensor) -> Tensor:
        return self._w.like(y)[:, None, None] * y

    @functools.cached_property
    def svd(self) -> SVD:
        w = self._w.value
        rotation = Constant(_rotation_onto(w / w.norm()))
        singular_values = torch.zeros(self.image_shape, dtype=torch.float64, device="cpu")
        singular_values[0] = w.norm()
        return SVD(
            singular_values=singular_values,
            V=lambda c: torch.einsum("ij,bjhw->bihw", rotation.like(c), c),
            Vt=lambda x: torch.einsum("ij,bihw->bjhw", rotation.like(x), x),
            U=lambda c: c[:, :1],
            Ut=lambda y: torch.nn.functional.pad(y, (0, 0, 0, 0, 0, self.image_shape[0] - 1)),
        )


def _rotation_onto(unit: Tensor) -> Tensor:
    """An orthogonal matrix whose first column is a unit vector: plus or minus Householder's reflection, of the two the
    one that subtracts nothing from its first entry."""
    sign = 1 if unit[0] >= 0 else -1
    v = unit.clone()
    v[0] += sign
    return sign * (2 * torch.outer(v, v) / v.dot(v) - torch.eye(len(v), dtype=v.dtype, device=v.device))
