"""The identity: denoising."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from scoreplug.operator import SVD, SpectralOperator
from scoreplug_builtin.operators._image import OnImage


@attrs.frozen(kw_only=True, eq=False)
class Identity(OnImage, SpectralOperator):
    """A x = x, (B, C, H, W) -> (B, C, H, W). Its norm is 1."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.image_shape

    def forward(self, x: Tensor) -> Tensor:
        return x

    def transpose(self, y: Tensor) -> Tensor:
        return y

    @property
    def svd(self) -> SVD:
        ones = torch.ones(self.image_shape, dtype=torch.float64, device="cpu")
        return SVD(singular_values=ones, V=self.forward, Vt=self.transpose, U=self.forward, Ut=self.transpose)
