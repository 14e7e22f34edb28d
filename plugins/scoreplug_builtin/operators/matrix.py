"""A dense matrix."""

from __future__ import annotations

import functools
import math

import attrs
import torch
from torch import Tensor

from scoreplug.operator import SVD, SpectralOperator, dense_svd
from scoreplug.param import param
from scoreplug_builtin.operators._image import Constant, OnImage, read_array


@attrs.frozen(kw_only=True, eq=False)
class Matrix(OnImage, SpectralOperator):
    """A x = M vec(x), (B, C, H, W) -> (B, m), where vec lists the image row by row, channel after channel.

    The norm is the largest singular value of M. The decomposition is made at its first use, by LAPACK; it takes
    O(n^3) operations.

    Raises:
        ValueError: if M cannot be read, or has not one column per entry of x.
    """

    matrix: str | Tensor | tuple[tuple[float, ...], ...] = param(
        doc="M, (m, n) with n = C H W: a .npy or .npz file, a tensor or rows"
    )

    def __attrs_post_init__(self) -> None:
        shape, n = tuple(self._matrix.value.shape), math.prod(self.image_shape)
        if len(shape) != 2 or shape[0] == 0 or shape[1] != n:
            raise ValueError(f"matrix must be (m, {n}) for images of shape {self.image_shape} (got {shape})")

    @functools.cached_property
    def _matrix(self) -> Constant:
        return Constant(read_array(self.matrix, "matrix"))

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self._matrix.value.shape[0],)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self._matrix.like(x).T

    def transpose(self, y: Tensor) -> Tensor:
        return (y @ self._matrix.like(y)).reshape(-1, *self.image_shape)

    @functools.cached_property
    def norm(self) -> float:
        return float(torch.linalg.matrix_norm(self._matrix.value, ord=2))  # without the singular vectors

    @functools.cached_property
    def svd(self) -> SVD:
        return dense_svd(self._matrix.value, self.input_shape, self.output_shape)
