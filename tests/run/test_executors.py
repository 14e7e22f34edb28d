"""The same arrays wherever chunks are computed, and clear words where that is not possible."""

import itertools
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch

from scoreplug import registry
from scoreplug.run.executors import carry_out, completed, executor_of
from scoreplug.run.plan import SerialExecutor, execute, plan
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


WIDE = {
    "samples": 16,
    "model": {"name": "gaussian", "image_shape": [1, 8, 8], "covariance": 0.1},
    "operator": {"name": "inpainting"},
    "conditioner": {"name": "dps"},
    "sampler": {"name": "pc", "steps": 4},
    "input": {"source": "ellipses", "noise_std": 0.1},
}
BATCHES = (1, 4, 16)


def drawn(batch, executor, width):
    tasks = plan(resolve({**WIDE, "batch": batch}), {})
    chunks = dict((task.start, chunk) for task, chunk in completed(executor, execute, tasks, width=width))
    return np.concatenate([chunks[start].samples for start in sorted(chunks)])


@pytest.fixture(scope="module")
def by_batch():
    return {batch: drawn(batch, SerialExecutor(), 1) for batch in BATCHES}


def test_the_batch_does_not_matter_but_for_rounding(by_batch):
    """float64, and the conditioner's norms are per sample; what is left is the order of sums."""
    for batch in BATCHES[1:]:
        np.testing.assert_allclose(by_batch[batch], by_batch[1], rtol=0, atol=1e-5 * np.abs(by_batch[1]).max())


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["process:2", "dask-local:2"])
def test_for_each_batch_the_samples_are_the_same_to_the_bit(name, by_batch):
    with executor_of(name) as (executor, width):
        for batch in BATCHES:
            np.testing.assert_array_equal(drawn(batch, executor, width), by_batch[batch], err_msg=f"batch {batch}")


def test_two_chunks_in_two_threads_of_one_process_do_not_disturb_each_other(tmp_path):
    """Each thread has its own model, its own counters, and its own ear while the samples are followed."""
    chosen = resolve({**WIDE, "samples": 8, "batch": 1, "sampler": {"name": "pc", "steps": 20}})
    alone = run(chosen, tmp_path / "alone")
    with ThreadPoolExecutor(2) as pool:
        together = run(chosen, tmp_path / "together", executor=pool, width=4)

    for key, array in together.arrays.items():
        np.testing.assert_array_equal(array, alone.arrays[key], err_msg=key)
    np.testing.assert_array_equal(together.trajectory.frames, alone.trajectory.frames)
    for key in ("evaluations", "evaluation_calls", "vjps", "forwards"):
        assert together.cost[key] == alone.cost[key], key


def test_what_is_finished_comes_before_what_failed():
    """Both are done when they are looked at; the result must not go with the error."""

    class Both(Executor):
        def submit(self, fn, /, *args, **kwargs):
            return SerialExecutor().submit(fn, *args, **kwargs)

    results = completed(Both(), lambda x: 1 / x, [0, 1, 2], width=3)

    assert sorted(result for _, result in itertools.islice(results, 2)) == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_task_that_somebody_cancelled_is_a_broken_executor():
    class Lost(Executor):
        def submit(self, fn, /, *args, **kwargs):
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    with pytest.raises(BrokenExecutor, match="cancelled"):
        list(completed(Lost(), abs, [1], width=1))


def test_an_error_ends_the_workers_in_the_middle_of_what_they_do():
    def interrupted():
        with executor_of("process:1") as (executor, _):
            assert executor.submit(abs, -1).result() == 1
            executor.submit(time.sleep, 60)
            began.append(time.monotonic())
            raise KeyboardInterrupt

    began = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert time.monotonic() - began[0] < 10  # a signal and a join; the sleep is 60


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks")
def test_workers_do_not_hear_ctrl_c_and_their_parent_does():
    with executor_of("process:1") as (executor, _):
        blocked = executor.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result()

    assert signal.SIGINT in blocked
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


ORPHAN = """
import os, time
from scoreplug.run.executors import executor_of
if __name__ == "__main__":
    with executor_of("process:1") as (executor, _):
        print(executor.submit(os.getpid).result(), flush=True)
        executor.submit(time.sleep, 60)
        time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_a_worker_whose_parent_is_killed_ends_in_the_middle_of_its_task(tmp_path):
    (tmp_path / "orphan.py").write_text(ORPHAN)
    command = [sys.executable, str(tmp_path / "orphan.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        parent.kill()

    until = time.monotonic() + 20  # it takes milliseconds, unless the machine is busy
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(worker)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


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
    with pytest.raises(RunError, match=r"a worker .*died.*Finished chunks \(1\) are kept"):
        run(config(), tmp_path / "run", executor=Dying(), width=1)

    result = run(config(), tmp_path / "run")

    assert result.cost["chunks_reused"] == 1
    np.testing.assert_array_equal(result.arrays["samples"], alone["samples"])


def test_a_divergence_comes_back_from_a_worker_as_it_is():
    error = DivergenceError(
        "gone",
        step=7,
        steps=9,
        level=0.5,
        samples=(3,),
        survivors=(2, 4),
        x=torch.ones(2, 1),
        norms={"x": ((1,), (2,))},
    )

    found = pickle.loads(pickle.dumps(error))

    assert str(found) == str(error)
    assert (found.step, found.steps, found.level, found.norms) == (7, 9, 0.5, {"x": ((1,), (2,))})
    assert (found.samples, found.survivors) == ((3,), (2, 4))
    assert torch.equal(found.x, error.x)


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
