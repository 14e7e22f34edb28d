"""Error against network evaluations: which methods no other one beats in both, and the picture of it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from scoreplug.bench.table import Summary

_INK = "#010203"
"""Stands for the text's colour, which the page decides."""

_FACTS = ("Creator", "Date", "Format", "Type")
"""What matplotlib would write about the picture, with addresses of the web."""

_MARKERS = "osD^vP*X<>hp"


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The positions of the points that no other one is better than in one respect and as good in the other, by cost."""
    order = sorted(range(len(points)), key=lambda i: points[i])
    kept: list[int] = []
    for i in order:
        if not kept or points[i][1] < points[kept[-1]][1]:
            kept.append(i)
    return kept


def plot(found: Sequence[Summary]) -> str:
    """One problem's methods as SVG: colours are conditioners, markers samplers, the line is the front.

    Args:
        found: summaries of one problem.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [s for s in found if s.error is not None and s.evaluations and s.error.mean > 0]
    if not shown:
        return ""
    families = list(dict.fromkeys(_family(s)[0] for s in shown))
    samplers = list(dict.fromkeys(_family(s)[1] for s in shown))
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": shown[0].problem, "font.size": 9.0}
    style |= dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK)
    with rc_context(style):
        figure = Figure(figsize=(7.6, 3.9), layout="constrained")
        axes = figure.subplots()
        for s in shown:
            family, sampler = _family(s)
            colour, marker = f"C{families.index(family) % 10}", _MARKERS[samplers.index(sampler) % len(_MARKERS)]
            half = (s.error.half if s.error else None) or 0.0
            low = min(half, 0.9 * s.error.mean) if s.error else 0.0  # a bar to below 0 has no end on a log scale
            axes.errorbar(s.evaluations or 0, _mean(s), [[low], [half]], fmt=marker, color=colour, markersize=5, lw=0.8)
        for method in dict.fromkeys(s.method for s in shown):
            path = sorted((s.evaluations or 0, _mean(s)) for s in shown if s.method == method)
            family = method.partition(" / ")[0]
            axes.plot(*zip(*path, strict=True), color=f"C{families.index(family) % 10}", lw=0.6, alpha=0.6, zorder=0)
        real = [s for s in shown if s.comparable]
        line = [real[i] for i in front([(s.evaluations or 0, _mean(s)) for s in real])]
        axes.plot([s.evaluations or 0 for s in line], [_mean(s) for s in line], color=_INK, lw=0.9, zorder=0)
        floors = [s.estimates["sliced_wasserstein_floor"].mean for s in shown if s.ratio is not None]
        if floors:
            axes.axhline(floors[0], color=_INK, ls=":", lw=0.9)
            axes.annotate("exact samples", (0.01, floors[0]), xycoords=("axes fraction", "data"), va="bottom")
        axes.set(xscale="log", yscale="log", xlabel="network evaluations per sample", ylabel=_words(shown[0].criterion))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.patch.set_alpha(0)
        handles = [axes.plot([], [], "s", color=f"C{i % 10}", label=name)[0] for i, name in enumerate(families)]
        handles += [
            axes.plot([], [], _MARKERS[i % len(_MARKERS)], color=_INK, mfc="none", label=name)[0]
            for i, name in enumerate(samplers)
        ]
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(_FACTS))
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")


def _family(s: Summary) -> tuple[str, str]:
    """Conditioner and the rest of a label."""
    conditioner, slash, sampler = s.method.partition(" / ")
    return conditioner, sampler if slash else "given by its label"


def _mean(s: Summary) -> float:
    return math.nan if s.error is None else s.error.mean


def _words(name: str) -> str:
    return {"crps": "CRPS"}.get(name, name.replace("_", " "))
