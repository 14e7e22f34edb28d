"""A budget of network evaluations, as a number of steps.

Evaluations per sample are affine in the steps of nearly every sampler, a + b steps: b for the stages and corrector
moves of a step, a for the start and the last estimate. Two rehearsals give a and b.
"""

from __future__ import annotations

import math
from collections.abc import Callable

REHEARSED = (4, 8)
"""Steps of the rehearsals; a multistep method has left its start behind in the first one."""


class Refusal(ValueError):
    """The parts of a cell do not fit together; the message says why."""


def steps_within(budget: int, evaluations: Callable[[int], float]) -> int:
    """The largest number of steps whose evaluations per sample are at most `budget`.

    Args:
        budget: >= 1.
        evaluations: per sample, of a number of steps.

    Raises:
        Refusal: if one step costs more, or steps cost nothing.
    """
    few, more = REHEARSED
    first, second = evaluations(few), evaluations(more)
    per_step = (second - first) / (more - few)
    at_least = first - (few - 1) * per_step
    if per_step <= 0:
        raise Refusal(
            f"its network evaluations do not grow with its steps ({first:g} for {few}, {second:g} for {more}), "
            "so that no number of steps meets a budget; leave the budget out"
        )
    if at_least > budget:
        raise Refusal(f"one step costs {at_least:g} network evaluations per sample, more than the budget of {budget}")
    return 1 + math.floor((budget - at_least) / per_step + 1e-9)  # the counts are exact up to rounding
