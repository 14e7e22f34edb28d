"""A reconstruction without a prior, to compare with."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scoreplug.measurement import Measurement
from scoreplug.protocols import HasPinv, LinearOperator

STEPS = 20


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
            return Baseline(least_squares(measurement, STEPS)[0], f"least squares, {STEPS} steps")
    return None


def least_squares(measurement: Measurement, steps: int) -> Tensor:
    """CGLS from x = 0, stopped early (Hestenes and Stiefel 1952; Bjoerck 1996, algorithm 7.4.1), (1, *input_shape)."""
    A = measurement.operator
    assert isinstance(A, LinearOperator)  # the caller's choice, not the user's
    r = measurement.data[None]
    s = A.adjoint(r)
    x, p, gamma = torch.zeros_like(s), s, s.square().sum()
    for _ in range(steps):
        if not bool(gamma > 0):  # y is fitted exactly
            break
        q = A(p)
        step = gamma / q.square().sum()
        x, r = x + step * p, r - step * q
        s = A.adjoint(r)
        gamma, previous = s.square().sum(), gamma
        p = s + gamma / previous * p
    return x
