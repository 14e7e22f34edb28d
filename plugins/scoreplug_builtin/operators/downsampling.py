"""Downsampling by means over blocks: super-resolution."""

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
class Downsampling(OnImage, SpectralOperator):
    """A x = mean of x over blocks of f x f pixels, (B, C, H, W) -> (B, C, H / f, W / f).

    A A^T = I / f^2, so the norm is 1 / f and A^+ = f^2 A^T repeats each pixel. The right singular vectors are the
    DCT-II of each block, whose first atom is constant and the only one that is seen; spectral coordinates are (C, H /
    f, W / f, f, f).

    Raises:
        ValueError: if f does not divide the height and width.
    """

    factor: int = param(4, ge=1, unit="pixel", doc="f, the side of a block")

    def __attrs_post_init__(self) -> None:
        _, height, width = self.image_shape
        if height % self.factor or width % self.factor:
            raise ValueError(f"factor must divide the image's height and width {(height, width)} (got {self.factor!r})")

    @property
    def output_shape(self) -> tuple[int, ...]:
        channels, height, width = self.image_shape
        return channels, height // self.factor, width // self.factor

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x, self.factor)

    def transpose(self, y: Tensor) -> Tensor:
        return self._image((y / self.factor**2)[..., None, None].expand(*y.shape, self.factor, self.factor))

    @functools.cached_property
    def svd(self) -> SVD:
        f, dct = self.factor, Constant(_dct(self.factor))
        singular_values = torch.zeros(*self.output_shape, f, f, dtype=torch.float64, device="cpu")
        singular_values[..., 0, 0] = 1 / f
        return SVD(
            singular_values=singular_values,
            V=lambda c: self._image(dct.like(c).T @ c @ dct.like(c)),
            Vt=lambda x: dct.like(x) @ self._blocks(x) @ dct.like(x).T,
            U=lambda c: c[..., 0, 0],
            Ut=lambda y: torch.nn.functional.pad(y[..., None, None], (0, f - 1, 0, f - 1)),
        )

    def _blocks(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / f, W / f, f, f)."""
        channels, rows, columns = self.output_shape
        return x.reshape(-1, channels, rows, self.factor, columns, self.factor).movedim(3, 4)

    def _image(self, blocks: Tensor) -> Tensor:
        """The inverse of `_blocks`."""
        return blocks.movedim(4, 3).flatten(4, 5).flatten(2, 3)


def _dct(f: int) -> Tensor:
    """The orthonormal DCT-II, (f, f): D[k, n] = c_k cos(pi k (2 n + 1) / (2 f)), c_0^2 = 1 / f, else c_k^2 = 2 / f."""
    k = torch.arange(f, dtype=torch.float64, device="cpu")
    D = torch.cos(math.pi * k[:, None] * (2 * k + 1) / (2 * f)) * math.sqrt(2 / f)
    D[0] = math.sqrt(1 / f)
    return D
