"""From cells to rows: what is stored is taken, the rest goes to an executor, and every row is written as it comes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor

from scoreplug.bench.cell import Cell, Row
from scoreplug.bench.execute import execute
from scoreplug.bench.store import RowStore
from scoreplug.run.executors import completed

Watch = Callable[[Row], None]
"""Is shown every row, those that were there already included."""

TOLERANCE = 1e-6
"""Relative difference of a metric that a repetition may have: rounding, which threads and processors order anew."""


class BenchStoppedError(RuntimeError):
    """A benchmark ended early; the message says why, and what is kept. `interrupted`: it was the user."""

    def __init__(self, message: str, *, interrupted: bool) -> None:
        super().__init__(message)
        self.interrupted = interrupted


def compute(
    cells: Sequence[Cell],
    store: RowStore,
    executor: Executor,
    *,
    width: int = 1,
    retry: bool = False,
    watch: Watch | None = None,
) -> list[Row]:
    """The row of every cell, in their order.

    Args:
        cells: what is asked.
        store: opened; rows that it has are not computed again.
        executor: where cells are computed.
        width: cells that are handed over at a time; with a serial executor one, so that each row is written at once.
        retry: compute failed and diverged cells again.
        watch: called with every row.

    Raises:
        BenchStoppedError: after Ctrl-C, or if a worker process died; finished rows are kept.
    """
    stored = store.load(cells)
    rows = {key: row for key, row in stored.items() if not (retry and row.status in ("failed", "diverged"))}
    for row in rows.values():
        _tell(watch, row)
    todo = {cell.key: cell for cell in cells if cell.key not in rows}
    try:
        for _, row in completed(executor, execute, list(todo.values()), width=width):
            store.save(row)
            rows[row.key] = row
            _tell(watch, row)
    except (KeyboardInterrupt, BrokenExecutor) as error:
        by_user = isinstance(error, KeyboardInterrupt)
        why = "interrupted" if by_user else "a worker process died, which happens when memory runs out"
        raise BenchStoppedError(
            f"{why}: {len(rows)} of {len(cells)} rows are kept; "
            f"the same command with --out {str(store.folder)!r} goes on from there",
            interrupted=by_user,
        ) from error
    return [rows[cell.key] for cell in cells]


def _tell(watch: Watch | None, row: Row) -> None:
    if watch is not None:
        watch(row)


def differences(before: Row, after: Row, tolerance: float = TOLERANCE) -> list[tuple[str, str, str]]:
    """Where a repetition differs: what, before, after. Times and memory are not compared, nor what a later version
    measures beside what it did before.

    Args:
        before, after: rows of the same cell.
        tolerance: relative difference that is allowed in metrics and reports.
    """
    found: list[tuple[str, str, str]] = []
    if before.status != after.status:
        found.append(("status", before.status, after.status))
    one, other = _numbers(before), _numbers(after)
    for name, a in one.items():
        b = other.get(name)
        if not _close(a, b, tolerance):
            found.append((name, _text(a), _text(b)))
    return found


def _numbers(row: Row) -> dict[str, float | None]:
    """What a repetition has to give again."""
    counts = {name: value for name, value in row.cost.items() if not name.endswith(("seconds", "bytes"))}
    return {**row.metrics, **row.report, **row.ranks, **counts}


def _close(a: float | None, b: float | None, tolerance: float) -> bool:
    if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
        return _finite(a) is _finite(b) is None
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-12)


def _finite(value: float | None) -> float | None:
    """A stored row has None where a new one has NaN or infinity."""
    return value if value is not None and math.isfinite(value) else None


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.9g}"
