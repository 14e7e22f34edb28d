"""A dask cluster that is there already, and one that goes away."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from scoreplug.run.executors import executor_of
from scoreplug.run.resolve import resolve
from scoreplug.run.runner import RunError, run

pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("default")  # distributed and what it imports warn of things of their own

TABLE = {
    "samples": 6,
    "batch": 1,
    "model": {"name": "gaussian", "image_shape": [1, 8, 8], "covariance": 0.1},
    "operator": "inpainting",
    "conditioner": "dps",
    "sampler": {"name": "pc", "steps": 100},
    "input": {"source": "ellipses", "relative_noise": 0.1},
}


class Cluster:
    """A scheduler and a worker without a nanny, as processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.processes, self.folder = {}, folder
        file = folder / "scheduler.json"
        self.start("scheduler", "--port", "0", "--no-dashboard", "--no-show", "--scheduler-file", str(file))
        while not file.exists():
            assert self.processes["scheduler"].poll() is None
            time.sleep(0.02)
        self.address = json.loads(file.read_text())["address"]

    def start(self, kind, *options):
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
        self.processes[kind] = subprocess.Popen(command, cwd=self.folder, stderr=subprocess.DEVNULL)

    def work(self):
        self.start("worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard")

    def kill(self, *kinds):
        for kind in kinds or tuple(self.processes):
            self.processes[kind].send_signal(signal.SIGKILL)
            self.processes[kind].wait()


@pytest.fixture
def cluster(tmp_path):
    found = Cluster(tmp_path)
    yield found
    found.kill()


def test_a_cluster_by_its_address_gives_the_same_arrays_and_its_end_loses_nothing(cluster, tmp_path):
    cluster.work()
    config = resolve(TABLE)
    alone = run(config, tmp_path / "alone").arrays
    with executor_of(f"dask:{cluster.address}") as (executor, width):
        found = run(config, tmp_path / "whole", executor=executor, width=width).arrays
    for key, array in found.items():
        np.testing.assert_array_equal(array, alone[key], err_msg=key)

    def after_the_first_chunk(fraction):
        if fraction > 0:
            cluster.kill("scheduler")

    began = time.monotonic()
    with (
        pytest.raises(RunError, match=r"the scheduler died.*Finished chunks \(\d\) are kept"),
        executor_of(f"dask:{cluster.address}") as (executor, width),
    ):
        run(config, tmp_path / "run", executor=executor, width=1, progress=after_the_first_chunk)
    assert time.monotonic() - began < 60
    finished = len(list((tmp_path / "run.partial" / "chunks").glob("*.json")))

    resumed = run(config, tmp_path / "run")

    assert resumed.cost["chunks_reused"] == finished > 0
    np.testing.assert_array_equal(resumed.samples, alone["samples"])


def test_a_wrong_address_is_refused_in_seconds():
    began = time.monotonic()
    with (
        pytest.raises(OSError, match=r"no dask scheduler answers at 'tcp://127.0.0.1:9' .*`dask scheduler` starts one"),
        executor_of("dask:tcp://127.0.0.1:9"),
    ):
        pass

    assert time.monotonic() - began < 20  # 5 s, and the import of distributed on a busy machine


def test_what_is_no_address_is_refused():
    with (
        pytest.raises(OSError, match="no dask scheduler answers at 'nowhere at all'"),
        executor_of("dask:nowhere at all"),
    ):
        pass


def test_a_scheduler_without_workers_is_refused(cluster, monkeypatch):
    monkeypatch.setattr("scoreplug.run.executors.WORKER_SECONDS", 0.5)

    with (
        pytest.raises(OSError, match=r"has no workers; `dask worker tcp://.*` starts one"),
        executor_of(f"dask:{cluster.address}"),
    ):
        pass
