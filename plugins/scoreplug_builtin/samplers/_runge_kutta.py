r"""Explicit Runge-Kutta methods as tables, for a batch in which every sample may have a step of its own.

    k_i = f(x + h sum_j a_ij k_j, level + c_i h),    x' = x + h sum_i b_i k_i,    error = h sum_i e_i k_i

Steps of the grid take the same h for all. `integrate` chooses it sample by sample, by the rule that the error of a
step is at most the tolerance,

    ratio = |error / (atol + rtol max(|x|, |x'|))|_rms <= 1,    h <- h min(10, max(.2, .9 ratio^(-1/5)))

with the root mean square taken over one sample: its steps do not depend on its batch mates.

References:
    Dormand, Prince: A family of embedded Runge-Kutta formulae. J. Comp. Appl. Math. 6 (1980),
    doi:10.1016/0771-050X(80)90013-3. Hairer, Norsett, Wanner: Solving Ordinary Differential Equations I. Springer 1993,
    sections II.1 (the classical methods) and II.4 (control of the step).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from scoreplug.model import broadcast

Slope = Callable[[Tensor, Tensor], Tensor]  # f(x, level), (B, *shape), at a level () or (B,)

SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0
SMALLEST = 1e-10  # step, relative to the interval, at which the equation counts as too stiff


class Tableau(NamedTuple):
    """c, a, b of a method, and e = b - b* with b* its embedded method of lower order."""

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    e: tuple[float, ...] = ()


EULER = Tableau(c=(0,), a=((),), b=(1,))
HEUN = Tableau(c=(0, 1), a=((), (1,)), b=(1 / 2, 1 / 2))
RK4 = Tableau(c=(0, 1 / 2, 1 / 2, 1), a=((), (1 / 2,), (0, 1 / 2), (0, 0, 1)), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6))
DORMAND_PRINCE = Tableau(
    c=(0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=(35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
    e=(71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)


def stages(f: Slope, tableau: Tableau, x: Tensor, level: Tensor, h: Tensor, first: Tensor) -> list[Tensor]:
    """The slopes k_i of a step h from `level`, each (B, *shape); the first is known."""
    k = [first]
    for c, a in zip(tableau.c[1:], tableau.a[1:], strict=True):
        k.append(f(weighted(x, h, a, k), level + c * h))
    return k


def weighted(x: Tensor, h: Tensor, weights: tuple[float, ...], k: list[Tensor]) -> Tensor:
    """x + h sum_i weight_i k_i, (B, *shape)."""
    total = sum(weight * slope for weight, slope in zip(weights, k, strict=True) if weight)
    return x + broadcast(h, x) * total


def integrate(
    f: Slope, x: Tensor, start: Tensor, stop: Tensor, *, first: Tensor, rtol: float, atol: float
) -> tuple[Tensor, Tensor]:
    """From `start` down to `stop`, with Dormand and Prince's pair, in steps of each sample's own.

    Only samples that are on their way are evaluated. The last stage of a step is the first of the next. A sample for
    which no step is short enough for a finite result comes out as NaN.

    Args:
        f: the slope; sample i of it must depend on sample i alone.
        x: (B, *shape) at `start`.
        start, stop: (), start > stop.
        first: f(x, start).
        rtol, atol: tolerated error of a step.

    Returns:
        x and f(x, stop), each (B, *shape).

    Raises:
        ArithmeticError: if the tolerance asks for steps below 1e-10 of the interval.
    """
    x, slope = x.clone(), first.clone()
    # levels and steps, h < 0, stay where the grid is, on the CPU
    level, h = start.expand(len(x)).clone(), (stop - start).expand(len(x)).clone()
    way = torch.arange(len(x), device=start.device)
    while len(way):
        to_stop = stop - level[way]
        h_way = torch.maximum(h[way], to_stop)
        k = stages(f, DORMAND_PRINCE, x[way], level[way], h_way, slope[way])
        x_new = weighted(x[way], h_way, DORMAND_PRINCE.b, k)
        error = weighted(torch.zeros_like(x_new), h_way, DORMAND_PRINCE.e, k)
        ratio = _rms(error / (atol + rtol * torch.maximum(x[way].abs(), x_new.abs()))).to(start)

        accepted = ratio <= 1
        took = way[accepted]
        x[took], slope[took], level[took] = x_new[accepted], k[-1][accepted], level[took] + h_way[accepted]
        h[way] = h_way * (SAFETY * ratio.clamp_min(1e-10) ** (-1 / 5)).clamp(SHRINK, GROW)

        stuck = ~accepted & (h[way].abs() < SMALLEST * (start - stop))
        lost = stuck & ratio.isinf()
        if bool((stuck & ~lost).any()):
            worst = float(level[way[stuck]].min())
            raise ArithmeticError(
                f"rk45 needs steps below {SMALLEST:g} of the interval, at noise level {worst:.3g}, to keep to "
                f"rtol={rtol:g}, atol={atol:g}; allow a larger error, or take a method with fixed steps"
            )
        x[way[lost]] = torch.nan
        way = way[~lost & ~(accepted & (h_way <= to_stop))]
    return x, slope


def _rms(error: Tensor) -> Tensor:
    """Root mean square over each sample, (B,); infinite for one that is not finite."""
    return error.flatten(1).square().mean(1).sqrt().nan_to_num(nan=torch.inf, posinf=torch.inf)
