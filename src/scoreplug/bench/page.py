"""The page of a benchmark: one HTML file with everything in it, for any browser, without a network."""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Sequence
from typing import Any

from scoreplug.bench.cell import Row, canonical
from scoreplug.bench.pareto import plot
from scoreplug.bench.store import to_csv
from scoreplug.bench.table import Summary, best, by_problem, relative, summaries, table
from scoreplug.run._page import render

WORST = 100.0
"""Times the floor at which the heat map's colour ends."""


def page(rows: Sequence[Row], *, title: str) -> str:
    """The page as HTML.

    Args:
        rows: of the benchmark, in the order of its tables.
        title: of the page.
    """
    found = summaries(rows)
    header, lines = table(found)
    groups = by_problem(found)
    problems = list(groups)
    kept = [i for i in range(len(header)) if any(line[i] for line in lines)]
    plots = [(problem, plot(of_problem)) for problem, of_problem in groups.items()]
    return render(
        "scoreplug.bench",
        "page.html",
        title=title,
        cells=len(rows),
        problems=problems,
        best=[(problem, budget, s.method, str(s.error), s.evaluations) for problem, budget, s in best(found)],
        colours=max((len(picture["conditioners"]) for _, picture in plots if picture is not None), default=0),
        data={"jsonl": _packed("".join(f"{canonical(row.table)}\n" for row in rows)), "csv": _packed(to_csv(rows))},
        heat=_heat(found, problems),
        plots=[(problem, picture) for problem, picture in plots if picture is not None],
        header=[header[i] for i in kept],
        lines=[[(line[i], _sort_key(line[i])) for i in kept] for line in lines],
        troubles=[(s.problem, s.method, s.state, reason) for s in found for reason in s.reasons],
        warnings=list(dict.fromkeys(text for row in rows for text in row.warnings)),
        versions=sorted({f"{name} {text}" for row in rows for name, text in row.cell.versions.items()}),
        worst=f"{WORST:g}",
    )


def _packed(text: str) -> str:
    """A file for the page's script: gzip in base64. Without a time, so that the same rows give the same page."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _heat(found: Sequence[Summary], problems: Sequence[str]) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """A line for each method and budget, a field for each problem; 0 is the floor's colour, 100 the worst one's."""
    values = relative(found)
    lines: dict[str, dict[str, dict[str, Any]]] = {}
    for i, s in enumerate(found):
        name = s.method + (f", {s.budget} evaluations" if s.budget is not None else "")
        if i in values:
            share = math.log(max(values[i], 1.0)) / math.log(WORST)
            field = {"text": f"{values[i]:.3g}", "heat": round(100 * min(share, 1.0), 1), "title": str(s.error)}
            lines.setdefault(name, {})[s.problem] = field
    return [(name, [line.get(problem) for problem in problems]) for name, line in lines.items()]


def _sort_key(text: str) -> str:
    """The number that a cell begins with, for the page's sorting; empty if there is none."""
    head = text.split(" ")[0]
    try:
        return repr(float(head))
    except ValueError:
        return ""
