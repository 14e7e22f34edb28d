"""Processes that are started for a run, and end with it; the dask cluster among them has a group of its own.

Scheduler and workers of dask are children of one process, the keeper. Ctrl-C in a terminal does not reach it; it ends,
with all of its own, when it is told to, or when the process that started it has ended in whatever way.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

SECONDS = 5.0
"""A cluster that is told to end has so long for it."""

_SEMAPHORES = "ignore:resource_tracker:UserWarning"
"""multiprocessing's tracker cleans up after processes that were killed; it need not say so."""


@contextlib.contextmanager
def local_cluster(workers: int) -> Iterator[str]:
    """A scheduler and `workers` processes with one thread each.

    Returns:
        The scheduler's address.

    Raises:
        OSError: if it does not start.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    keeper = context.Process(target=_keep, args=(workers, theirs), name="scoreplug-dask")
    with deaf():
        keeper.start()
    theirs.close()
    try:
        address = ours.recv()  # interrupted by Ctrl-C, as it should be
    except EOFError as error:
        raise OSError("the dask cluster did not start; its own words are above") from error
    except BaseException:
        _kill(keeper)
        raise
    try:
        yield address
    except BaseException:
        _kill(keeper)
        raise
    ours.close()
    keeper.join(SECONDS)
    _kill(keeper)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Processes that are started meanwhile do not hear Ctrl-C, and die in silence; this one hears it afterwards."""
    masks = hasattr(signal, "pthread_sigmask")  # not on Windows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masks else set()
    sys.warnoptions.append(_SEMAPHORES)
    try:
        yield
    finally:
        sys.warnoptions.remove(_SEMAPHORES)
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_worker() -> None:
    """Let this process end at once when the one that started it has ended, also when it was killed.

    It stands here, where torch is not imported, so that it holds while a worker imports torch.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for Windows, where `deaf` does nothing for it
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_and_exit, args=(parent.sentinel,), daemon=True).start()


def _wait_and_exit(sentinel: Any) -> None:
    wait([sentinel])
    os._exit(1)


def _kill(keeper: Any) -> None:
    if keeper.is_alive():
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it may not have its own group yet
                os.killpg(keeper.pid, signal.SIGKILL)
        keeper.kill()
    keeper.join(SECONDS)


def _keep(workers: int, pipe: Connection) -> None:
    """The keeper: make the cluster, send its address, and wait for the other end to go away."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    distributed: Any = importlib.import_module("distributed")

    logging.getLogger("distributed.nanny").setLevel(logging.ERROR)  # that it restarts a worker is no news
    parent: Any = multiprocessing.parent_process()
    try:
        with distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as cluster:
            pipe.send(cluster.scheduler_address)
            wait([pipe, parent.sentinel])
            if wait([parent.sentinel], timeout=0):
                _end_group()
    except (EOFError, OSError):  # nobody listens any more
        _end_group()


def _end_group() -> None:
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
