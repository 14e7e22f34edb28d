"""What is seen while a benchmark runs: a table that grows on a terminal, a line per cell elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from scoreplug.bench.cell import Row
from scoreplug.bench.table import Summary, summaries

if TYPE_CHECKING:
    from rich.table import Table

SHARE = 50
"""The table waits this many times as long as it took the last time: it takes 2 % of the time, however many rows."""

LINES = 20
"""Methods that the growing table shows, those that changed last."""


@contextlib.contextmanager
def display(total: int) -> Iterator[Callable[[Row], None]]:
    """Show rows as they come, on standard error."""
    rows: list[Row] = []
    if not sys.stderr.isatty():

        def say(row: Row) -> None:
            rows.append(row)
            sys.stderr.write(f"[{len(rows)}/{total}] {row.key[:8]} {line(row)}\n")

        yield say
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    progress = Progress(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    task = progress.add_task("", total=total)
    shown, took = -math.inf, 0.0
    with Live(progress, console=Console(stderr=True), refresh_per_second=4, transient=True) as live:

        def show(row: Row) -> None:
            rows.append(row)
            progress.update(task, completed=len(rows))
            nonlocal shown, took
            began = time.perf_counter()
            if began - shown >= SHARE * took:
                live.update(Group(_table(rows), progress))
                shown = time.perf_counter()
                took = shown - began

        yield show


def line(row: Row) -> str:
    """A row in one line."""
    cell = row.cell
    where = f"{cell.problem_label}, seed {cell.seed}: {cell.method_label}"
    budget = "" if cell.budget is None else f", {cell.budget} evaluations"
    error = summaries([row])[0].error
    what = f" {row.reason}" if row.reason else f" {error}" if error is not None else ""
    return f"{where}{budget}: {row.status}{what}"


def _table(rows: list[Row]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    last = {(row.cell.problem_label, row.cell.method_label, row.cell.budget): i for i, row in enumerate(rows)}
    found = sorted(summaries(rows), key=lambda s: last[s.problem, s.method, s.budget])[-LINES:]
    table = Table("problem", "method", "budget", "cells", "error", "/ floor", box=box.SIMPLE_HEAD, pad_edge=False)
    for s in found:
        table.add_row(*(Text(text) for text in _fields(s)))
    return table


def _fields(s: Summary) -> tuple[str, ...]:
    error = "" if s.error is None else f"{s.criterion} {s.error}"
    ratio = "" if s.ratio is None else f"{s.ratio:.3g}"
    return s.problem, s.method, "" if s.budget is None else str(s.budget), s.state, error, ratio
