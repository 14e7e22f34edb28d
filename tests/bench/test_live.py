"""What is seen while a benchmark runs."""

import sys

import pytest

from scoreplug.bench import live
from scoreplug.bench.cell import Row


@pytest.fixture
def rows(cells_of):
    cells = cells_of({"conditioner": "dps", "sampler": "em"}, seeds=400)
    return [Row(cell=cell, metrics={"crps": 0.5}) for cell in cells]


@pytest.fixture
def tables(monkeypatch):
    """How many rows each table that was made summed up, at a millisecond for a row; every look at the clock takes 5."""
    made, clock = [], {"now": 0.0}
    original = live._table

    def table(rows):
        made.append(len(rows))
        clock["now"] += 1e-3 * len(rows)
        return original(rows)

    def now():
        clock["now"] += 5e-3
        return clock["now"]

    monkeypatch.setattr(live, "_table", table)
    monkeypatch.setattr(live.time, "perf_counter", now)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    return made


def test_the_growing_table_takes_a_small_share_of_the_time(rows, tables):
    """The second one waits 50 times as long as the first one took, and the third 50 times as long as the second."""
    with live.display(len(rows)) as show:
        for row in rows:
            show(row)

    assert tables[0] == 1
    assert 2 <= len(tables) < 10


def test_elsewhere_every_row_is_a_line(rows, capsys):
    with live.display(2) as show:
        for row in rows[:2]:
            show(row)

    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"[{i}/2] {row.key[:8]} tiny(size=2, measured=1), seed {i - 1}: dps / em: ok 0.5"
        for i, row in enumerate(rows[:2], start=1)
    ]
