"""Error against network evaluations: which methods no other one beats in both, and the picture of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from scoreplug.bench.table import Summary

WIDTH, HEIGHT = 720.0, 360.0
"""Of a picture, in its own units."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 72.0, 12.0, 12.0, 44.0

MARKERS = ("circle", "square", "diamond", "up", "down", "cross", "plus")
"""Samplers by their shape; more samplers than shapes begin anew."""


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The positions of the points that no other one is better than in one respect and as good in the other, by cost."""
    order = sorted(range(len(points)), key=lambda i: points[i])
    kept: list[int] = []
    for i in order:
        if not kept or points[i][1] < points[kept[-1]][1]:
            kept.append(i)
    return kept


def plot(found: Sequence[Summary]) -> dict[str, Any] | None:
    """One problem's methods as a picture: colours are conditioners, shapes samplers, the line is the front.

    Args:
        found: summaries of one problem.

    Returns:
        What the page's template draws; None if there is nothing to draw.
    """
    shown = [s for s in found if s.error is not None and s.evaluations and s.error.mean > 0]
    if not shown:
        return None
    floor = next((s.estimates["sliced_wasserstein_floor"].mean for s in shown if s.ratio is not None), None)
    costs, errors = [_cost(s) for s in shown], [_mean(s) for s in shown]
    ends = [*errors, *([floor] if floor else []), *(end for s in shown for end in _span(s))]
    x = _axis(min(costs), max(costs), _LEFT, WIDTH - _RIGHT)
    y = _axis(min(ends), max(ends), HEIGHT - _BOTTOM, _TOP)
    conditioners = _places(_family(s)[0] for s in shown)
    samplers = _places(_family(s)[1] for s in shown)
    real = [s for s in shown if s.comparable]
    best = [real[i] for i in front([(_cost(s), _mean(s)) for s in real])]
    on_front = set(map(id, best))
    paths: dict[str, list[tuple[float, float]]] = {}
    for s in shown:
        paths.setdefault(s.method, []).append((_cost(s), _mean(s)))
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "box": (_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM),
        "label": shown[0].criterion.replace("_", " ").replace("crps", "CRPS"),
        "x_ticks": [(round(x(value), 1), f"{value:g}") for value in _ticks(min(costs), max(costs))],
        "y_ticks": [(round(y(value), 1), f"{value:g}") for value in _ticks(min(ends), max(ends))],
        "floor": None if floor is None else round(y(floor), 1),
        "front": _line([(_cost(s), _mean(s)) for s in best], x, y),
        "paths": [
            (conditioners[method.partition(" / ")[0]], _line(sorted(path), x, y))
            for method, path in paths.items()
            if len(path) > 1
        ],
        "points": [
            {
                "x": round(x(_cost(s)), 1),
                "y": round(y(_mean(s)), 1),
                "bar": [round(y(end) - y(_mean(s)), 1) for end in _span(s)],
                "colour": conditioners[_family(s)[0]],
                "marker": MARKERS[samplers[_family(s)[1]] % len(MARKERS)],
                "best": id(s) in on_front,
                "words": f"{s.method}: {s.error} at {_cost(s):g} evaluations",
            }
            for s in shown
        ],
        "conditioners": list(conditioners),
        "samplers": [(name, MARKERS[i % len(MARKERS)]) for name, i in samplers.items()],
    }


def _places(names: Iterable[str]) -> dict[str, int]:
    """The place of each name among the others, in the order in which they come."""
    return {name: i for i, name in enumerate(dict.fromkeys(names))}


def _axis(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """A logarithmic axis from `start` to `end`, with a margin on both sides."""
    low, high = (low / 1.5, high * 1.5) if high / low < 1.5 else (low, high)
    a, b = math.log(low), math.log(high)
    margin = 0.04 * (b - a)
    return lambda value: start + (end - start) * (math.log(value) - a + margin) / (b - a + 2 * margin)


def _ticks(low: float, high: float) -> list[float]:
    """Round values within the ends, the fewer the more powers of ten they span."""
    low, high = (low / 1.5, high * 1.5) if high / low < 1.5 else (low, high)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    heads = (1, 1.5, 2, 3, 5, 7) if high / low < 20 else (1, 2, 5) if high / low < 1e3 else (1,)
    return [v for power in powers for head in heads if low * 0.999 <= (v := head * 10.0**power) <= high * 1.001]


def _line(points: Sequence[tuple[float, float]], x: Callable[[float], float], y: Callable[[float], float]) -> str:
    return " ".join(f"{x(cost):.1f},{y(error):.1f}" for cost, error in points)


def _span(s: Summary) -> tuple[float, float] | tuple[()]:
    """The ends of the uncertainty; one below 0 has no place on a logarithmic scale, and the bar stops at a tenth."""
    half = None if s.error is None else s.error.half
    return (_mean(s) - min(half, 0.9 * _mean(s)), _mean(s) + half) if half else ()


def _family(s: Summary) -> tuple[str, str]:
    """Conditioner and the rest of a label."""
    conditioner, slash, sampler = s.method.partition(" / ")
    return conditioner, sampler if slash else "given by its label"


def _cost(s: Summary) -> float:
    return s.evaluations or 0.0


def _mean(s: Summary) -> float:
    return math.nan if s.error is None else s.error.mean
