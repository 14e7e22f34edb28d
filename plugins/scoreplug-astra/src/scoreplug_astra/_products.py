"""y = A x as a product with a sparse matrix, or as a call of the toolbox; both differentiable to any order."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

BYTES_PER_ENTRY = 24
"""A weight in double precision and its 32-bit index, in the matrix and in its transpose."""


class SparsePair:
    """A sparse matrix and its transpose, entry by entry, in double precision.

    They are converted once for each type and device that they meet, and held.
    """

    def __init__(self, matrix: Any) -> None:
        self._found: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {
            (torch.float64, torch.device("cpu")): (_compressed_rows(matrix.tocsr()), _compressed_rows(matrix.T.tocsr()))
        }

    def forward(self, x: Tensor) -> Tensor:
        """Rows x, (n, pixels), to rows y, (n, values)."""
        A, At = self._like(x)
        return _product(x, A, At)

    def transpose(self, y: Tensor) -> Tensor:
        """Rows y to rows x."""
        A, At = self._like(y)
        return _product(y, At, A)

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        key = (x.dtype, x.device)
        if key not in self._found:
            A, At = self._found[torch.float64, torch.device("cpu")]
            self._found[key] = (A.to(dtype=x.dtype, device=x.device), At.to(dtype=x.dtype, device=x.device))
        return self._found[key]


def called(
    x: Tensor, function: Callable[[np.ndarray], np.ndarray], adjoint: Callable[[np.ndarray], np.ndarray]
) -> Tensor:
    """A linear function of numpy arrays, applied to x; its gradient is `adjoint`, differentiable in turn.

    The toolbox computes in single precision, whatever x's type is.
    """
    y: Tensor = _Call.apply(x, function, adjoint)  # type: ignore[no-untyped-call]
    return y


def _product(x: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
    y: Tensor = _SparseProduct.apply(x, matrix, transposed)  # type: ignore[no-untyped-call]
    return y


class _SparseProduct(torch.autograd.Function):
    """x -> x M^T for rows x; the gradient is the product with the stored transpose."""

    @staticmethod
    def forward(x: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        del transposed
        return (matrix @ x.T).T.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        _, ctx.matrix, ctx.transposed = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _SparseProduct.apply(gradients[0], ctx.transposed, ctx.matrix), None, None  # type: ignore[no-untyped-call]


class _Call(torch.autograd.Function):
    """x -> function(x) through numpy; the gradient is the adjoint."""

    @staticmethod
    def forward(x: Tensor, function: Any, adjoint: Any) -> Tensor:
        del adjoint
        return torch.from_numpy(function(x.detach().float().cpu().numpy())).to(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        _, ctx.function, ctx.adjoint = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Call.apply(gradients[0], ctx.adjoint, ctx.function), None, None  # type: ignore[no-untyped-call]


def _compressed_rows(matrix: Any) -> Tensor:
    matrix.sort_indices()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int32)),
            torch.from_numpy(matrix.indices.astype(np.int32)),
            torch.from_numpy(matrix.data.astype(np.float64)),
            size=matrix.shape,
            dtype=torch.float64,
            device="cpu",
            check_invariants=True,
        )
