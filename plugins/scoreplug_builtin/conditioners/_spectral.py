"""What the methods in the basis of the operator's SVD share."""

from __future__ import annotations

from scoreplug.operator import SVD
from scoreplug.protocols import HasSVD, Operator


def require_svd(name: str, operator: Operator) -> SVD:
    """The operator's decomposition.

    Raises:
        TypeError: if it has none; it names what would do.
    """
    if not isinstance(operator, HasSVD):
        raise TypeError(
            f"conditioner {name!r} needs an operator with a singular value decomposition (got "
            f"{type(operator).__name__}); use scoreplug.operator.with_dense_svd if it is linear and small, or a "
            "conditioner without that need (dps, jalal)"
        )
    return operator.svd
