"""The rank of a value among draws under the hypothesis."""

from __future__ import annotations

import numpy as np


def rank_p_value(value: float, null: np.ndarray) -> float:
    """(1 + #{null >= value}) / (B + 1), in (0, 1].

    If the value is exchangeable with the B draws, this is at most u with probability at most u.
    """
    return float(1 + np.count_nonzero(null >= value)) / (null.size + 1)
