"""The loop over cells: each once, written at once, taken up again; and what a repetition has to give."""

from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import attrs
import pytest

from scoreplug.bench import engine
from scoreplug.bench.cell import Row
from scoreplug.bench.engine import BenchStoppedError, compute, differences
from scoreplug.bench.execute import execute
from scoreplug.bench.store import RowStore
from scoreplug.run.executors import executor_of
from scoreplug.run.plan import SerialExecutor

EM = {"name": "em", "steps": 2}
FOUR = {"conditioner": ["dps", "song"], "sampler": EM}


@pytest.fixture
def store(tmp_path):
    store = RowStore(tmp_path / "out")
    store.open()
    return store


@pytest.fixture
def executed(monkeypatch):
    """The cells that were executed, by a stand-in that takes no time."""
    asked = []

    def stand_in(cell):
        asked.append(cell)
        return Row(cell=cell, status="failed" if cell.seed == 1 else "ok", metrics={"crps": float(len(asked))})

    monkeypatch.setattr(engine, "execute", stand_in)
    return asked


def test_rows_come_in_the_order_of_the_cells_and_are_all_shown(cells_of, store, executed):
    cells, seen = cells_of(FOUR, seeds=2), []

    rows = compute(cells, store, SerialExecutor(), watch=seen.append)

    assert [row.key for row in rows] == [cell.key for cell in cells] == [cell.key for cell in executed]
    assert seen == rows


def test_what_is_finished_is_not_computed_again(cells_of, store, executed):
    cells = cells_of(FOUR, seeds=2)
    first = compute(cells[:3], store, SerialExecutor())
    seen = []

    rows = compute(cells, store, SerialExecutor(), watch=seen.append)

    assert len(executed) == 4
    assert rows[:3] == first
    assert len(seen) == 4


def test_what_failed_is_computed_again_on_request_alone(cells_of, store, executed):
    cells = cells_of(FOUR, seeds=2)
    compute(cells, store, SerialExecutor())

    compute(cells, store, SerialExecutor())
    assert len(executed) == 4
    compute(cells, store, SerialExecutor(), retry=True)
    assert [cell.seed for cell in executed[4:]] == [1, 1]


def test_equal_cells_are_computed_once(cells_of, store, executed):
    cells = cells_of(FOUR)

    rows = compute([*cells, *cells], store, SerialExecutor())

    assert len(executed) == 2
    assert rows[:2] == rows[2:]


def test_each_row_is_on_disk_when_it_is_shown(cells_of, store, executed):
    cells, counts = cells_of(FOUR, seeds=2), []

    compute(cells, store, SerialExecutor(), watch=lambda row: counts.append(len(store.load(cells))))

    assert counts == [1, 2, 3, 4]


def test_no_more_cells_are_under_way_than_was_asked(cells_of, store, executed):
    """An executor that finishes nothing by itself: what it was handed stays its whole load."""
    loads = []

    class Lazy(SerialExecutor):
        waiting: list = []  # noqa: RUF012  of this test alone

        def submit(self, fn, /, *args, **kwargs):
            future = Future()
            self.waiting.append((future, fn, args))
            loads.append(len(self.waiting))
            if len(self.waiting) == 2:
                for f, call, given in self.waiting:
                    f.set_result(call(*given))
                self.waiting.clear()
            return future

    compute(cells_of(FOUR, seeds=2), store, Lazy(), width=2)

    assert max(loads) == 2


def test_any_executor_of_the_standard_interface_will_do(cells_of, store, executed):
    cells = cells_of(FOUR, seeds=3)
    with ThreadPoolExecutor(3) as pool:
        rows = compute(cells, store, pool, width=3)

    assert [row.key for row in rows] == [cell.key for cell in cells]


@pytest.mark.parametrize(
    ("error", "by_user", "why"),
    [(KeyboardInterrupt(), True, "interrupted"), (BrokenProcessPool(), False, "a worker process died")],
    ids=["ctrl-c", "killed worker"],
)
def test_a_benchmark_that_is_stopped_keeps_its_rows_says_so_and_goes_on_from_there(
    cells_of, store, executed, error, by_user, why
):
    cells = cells_of(FOUR, seeds=2)

    class Stopping(SerialExecutor):
        def submit(self, fn, /, *args, **kwargs):
            if len(executed) == 3:
                raise error
            return super().submit(fn, *args, **kwargs)

    with pytest.raises(
        BenchStoppedError, match=f"{why}.*: 3 of 4 rows are kept; the same command with --out"
    ) as caught:
        compute(cells, store, Stopping())
    compute(cells, store, SerialExecutor())

    assert caught.value.interrupted is by_user
    assert len(executed) == 4


def test_processes_give_the_same_rows_and_have_the_plugins(cells_of, tmp_path):
    cells, rows = cells_of({"conditioner": ["dps", "song"], "sampler": EM}), []
    for name in ("serial", "process:1"):
        store = RowStore(tmp_path / name.replace(":", "-"))
        store.open()
        with executor_of(name) as (pool, width):
            rows.append(compute(cells, store, pool, width=width))

    for one, other in zip(*rows, strict=True):
        assert one.status == other.status == "ok"
        # the same code on the same machine with one thread: not a bit differs
        assert differences(one, other, tolerance=0) == []


def test_a_repetition_of_a_cell_differs_in_nothing_but_time(cells_of):
    (cell,) = cells_of({"conditioner": "dps", "sampler": EM})

    assert differences(execute(cell), execute(cell), tolerance=0) == []


def test_a_number_that_differs_is_named_with_both_values(cells_of):
    (cell,) = cells_of({"conditioner": "dps", "sampler": EM})
    before = Row(cell=cell, metrics={"a": 1.0, "b": 2.0, "gone": 1.0}, ranks={"r": 3}, cost={"evaluations": 3.0})
    after = Row(
        cell=cell,
        metrics={"a": 1.0 + 1e-7, "b": 2.1, "new": float("inf")},
        ranks={"r": 4},
        cost={"evaluations": 4.0, "seconds": 9.0},
    )

    found = differences(before, after, tolerance=1e-6)

    assert found == [("b", "2", "2.1"), ("gone", "1", "-"), ("r", "3", "4"), ("evaluations", "3", "4")]
    assert differences(before, after, tolerance=1e-8)[0] == ("a", "1", "1.0000001")
    assert differences(before, attrs.evolve(before, status="failed"))[0] == ("status", "ok", "failed")
