"""The same arrays wherever chunks are computed, and clear words where that is not possible."""

import pickle
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import torch

from scoreplug import registry
from scoreplug.run.executors import carry_out, completed, executor_of
from scoreplug.run.plan import SerialExecutor
from scoreplug.run.resolve import resolve
from scoreplug.run.runner import RunError, run
from scoreplug.sampler import DivergenceError

TABLE = {
    "samples": 5,
    "batch": 2,
    "model": {"name": "digits-32"},
    "operator": {"name": "downsampling", "factor": 4},
    "conditioner": {"name": "jalal"},
    "sampler": {"name": "pc", "steps": 3},
    "input": {"source": "ellipses", "noise_std": 0.1},
}


def config(**changes):
    return resolve({**TABLE, **changes})


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The arrays of a run in this process."""
    return run(config(), tmp_path_factory.mktemp("serial") / "run").arrays


# distributed and what it imports warn of things of their own
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["process:2", "dask-local:2", "tests_of_executors:pool"])
def test_the_arrays_are_the_same_to_the_bit(name, alone, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tests_of_executors.py").write_text(
        "from concurrent.futures import ThreadPoolExecutor\ndef pool(): return ThreadPoolExecutor(1)\n"
    )

    with executor_of(name) as (executor, width):
        result = run(config(), tmp_path / "run", executor=executor, width=width)

    assert result.cost["chunks"] == 3
    assert result.cost["evaluations"] == 5 * (2 * 3 + 1)
    assert set(result.arrays) == set(alone)
    for key, array in result.arrays.items():
        np.testing.assert_array_equal(array, alone[key], err_msg=key)
    assert result.trajectory.frames.shape[0] == 4


class Dying(Executor):
    """Its worker dies with the second task."""

    def __init__(self):
        self.left = 1

    def submit(self, fn, /, *args, **kwargs):
        if self.left == 0:
            raise BrokenProcessPool("a process was terminated abruptly")
        self.left -= 1
        return SerialExecutor().submit(fn, *args, **kwargs)


def test_a_worker_that_dies_loses_nothing_that_was_finished(alone, tmp_path):
    with pytest.raises(RunError, match=r"a worker process died.*Finished chunks \(1\) are kept"):
        run(config(), tmp_path / "run", executor=Dying(), width=1)

    result = run(config(), tmp_path / "run")

    assert result.cost["chunks_reused"] == 1
    np.testing.assert_array_equal(result.arrays["samples"], alone["samples"])


def test_a_divergence_comes_back_from_a_worker_as_it_is():
    error = DivergenceError([3], 7, 0.5, [1.25])

    found = pickle.loads(pickle.dumps(error))

    assert str(found) == str(error)
    assert (found.samples, found.step, found.level, found.last_norms) == ([3], 7, 0.5, [1.25])


def test_at_most_width_tasks_are_under_way():
    class Counting(ThreadPoolExecutor):
        asked = 0

        def submit(self, fn, /, *args, **kwargs):
            Counting.asked += 1
            return super().submit(fn, *args, **kwargs)

    with Counting(1) as pool:
        results = completed(pool, abs, [-1, -2, -3, -4], width=2)
        first = next(results)
        under_way = Counting.asked - 1
        rest = list(results)

    assert first == (-1, 1)
    assert under_way <= 2
    assert sorted(rest) == [(-4, 4), (-3, 3), (-2, 2)]


def test_whoever_carries_a_task_out_has_the_plugins_of_whoever_asks():
    before = registry.default()
    selection = registry.Selection(autoload=False)
    try:
        assert carry_out(lambda _: registry.default().selection, None, selection, torch.get_num_threads()) == selection
    finally:
        registry.use(before)


@pytest.mark.parametrize(
    "name", ["proces:2", "process:0", "process:two", "serial:2", "dask", "dask:", "dask-local:-1", ""]
)
def test_other_names_are_refused_with_what_there_is(name):
    with pytest.raises(ValueError, match="--executor takes serial, process:N"), executor_of(name):
        pass


@pytest.mark.parametrize(
    ("name", "words"),
    [("no_such_module:pool", "No module named"), ("math:pool", "no attribute 'pool'"), ("math:gcd", "must return")],
)
def test_a_factory_that_gives_no_executor_is_named(name, words):
    with pytest.raises(ValueError, match=f"{name}.*{words}"), executor_of(name):
        pass
