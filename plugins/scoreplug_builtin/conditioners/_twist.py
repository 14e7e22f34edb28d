"""Normal densities of y, which twist the particles of sequential Monte Carlo."""

from __future__ import annotations

import functools
import math

import attrs
import torch
from torch import Tensor

from scoreplug.measurement import Measurement
from scoreplug.operator import BaseLinearOperator, matrix_of
from scoreplug.protocols import HasSVD

DENSE = 256
"""The most measured values for which a covariance of y is held as a matrix, one per sample."""


def log_normal(r: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """log N(r; 0, M), (B,), in nats, and M^{-1} r, (B, m), by Cholesky's decomposition.

    Args:
        r: (B, m).
        covariance: M, (B or 1, m, m), symmetric and positive definite.
    """
    L = torch.linalg.cholesky(covariance)
    whitened = torch.linalg.solve_triangular(L, r[..., None], upper=False)
    solved = torch.linalg.solve_triangular(L.mT, whitened, upper=True)[..., 0].expand_as(r)
    log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (r.shape[1] * math.log(2 * math.pi) + log_det + whitened[..., 0].square().sum(1)), solved


@attrs.frozen(kw_only=True, eq=False)
class GramTwist:
    """log N(y; mean, a A A^T + b I), for a that depends on the noise level alone.

    The eigenvalues of A A^T are those of the decomposition, or of the matrix where there are few measured values.
    """

    measurement: Measurement

    def log_density(self, r: Tensor, solved: Tensor, *, a: float, b: float) -> Tensor:
        """log N(r; 0, M) with M = a A A^T + b I, (B,), in nats.

        Args:
            r: (B, *output_shape).
            solved: M^{-1} r, as the operator's `solve` gives it.
            a: >= 0.
            b: > 0.
        """
        m, eigenvalues = r[0].numel(), self.eigenvalues
        log_det = float((a * eigenvalues + b).log().sum()) + (m - len(eigenvalues)) * math.log(b)
        return -0.5 * (m * math.log(2 * math.pi) + log_det + (r * solved).flatten(1).sum(1))

    @functools.cached_property
    def eigenvalues(self) -> Tensor:
        """Of A A^T, float64, without the zeros.

        Raises:
            TypeError: if A has neither a decomposition nor few rows.
        """
        operator = self.measurement.operator
        m = math.prod(operator.output_shape)
        if isinstance(operator, HasSVD):
            squares = operator.svd.singular_values.double().flatten() ** 2
            return squares[squares > 0]
        if m > DENSE or not isinstance(operator, BaseLinearOperator):
            raise TypeError(
                f"a twist needs the determinant of A A^T, and {type(operator).__name__} has no singular value "
                f"decomposition and more than {DENSE} measured values ({m}); use operator.with_dense_svd, or a "
                "conditioner without a twist"
            )
        matrix = matrix_of(operator)
        return torch.linalg.eigvalsh(matrix @ matrix.T).clamp_min(0)
