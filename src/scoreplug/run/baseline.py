"""A reconstruction without a prior, to compare with."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from scoreplug.measurement import Measurement
from scoreplug.operator import least_squares
from scoreplug.protocols import HasPinv, LinearOperator

TOLERANCE = 1e-2
"""Where least squares stop: a coarse end regularises, as small singular values come last."""


class Baseline(NamedTuple):
    """A reconstruction, of the model's shape, and what it is."""

    x: Tensor
    name: str


def baseline(measurement: Measurement) -> Baseline | None:
    """The operator's own `baseline(y)` if it has one, else A^+ y, else least squares; None if A is not linear.

    An operator's `baseline` takes and returns a batch; its `baseline_name` says what it is.
    """
    operator, y = measurement.operator, measurement.data[None]
    with torch.no_grad():
        own = getattr(operator, "baseline", None)
        if own is not None:
            return Baseline(own(y)[0], getattr(operator, "baseline_name", "baseline"))
        if isinstance(operator, HasPinv):
            return Baseline(operator.pinv(y)[0], "pseudoinverse")
        if isinstance(operator, LinearOperator):
            linear: Any = operator  # an operator and linear: two protocols that no type joins
            return Baseline(least_squares(linear, y, tolerance=TOLERANCE)[0], "least squares")
    return None
