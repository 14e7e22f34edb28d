"""Where tasks are carried out: any executor of `concurrent.futures`, by name.

    serial              here, one after the other
    process, process:N  N processes of this machine
    dask:ADDRESS        a cluster whose scheduler listens there (the package distributed)
    dask-local:N        a scheduler and N workers, started for the occasion
    module:factory      what the function `factory` of `module` returns

A task is a module's function and small arguments, never a tensor. Whoever carries it out does so with the plugins and
the number of torch threads of the process that asked: the same task gives the same arrays, to the bit, on one machine.
With OMP_NUM_THREADS=1 processes do not share their cores.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from typing import Any, TypeVar

import torch

from scoreplug import registry
from scoreplug.run.plan import SerialExecutor

A = TypeVar("A")
R = TypeVar("R")


@contextlib.contextmanager
def executor_of(name: str) -> Iterator[tuple[Executor, int]]:
    """An executor by name, and the number of tasks to hand it at a time.

    Raises:
        ValueError: for another name, or what `module:factory` does not give.
        OSError: if there is no scheduler at the address.
    """
    kind, colon, rest = name.partition(":")
    if name == "serial":
        yield SerialExecutor(), 1
    elif kind == "process" and _is_count(rest, colon):
        workers = int(rest) if rest else os.cpu_count() or 1
        # spawned, not forked: a fork after torch has started threads may hang
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_quietly)
        try:
            yield pool, 2 * workers
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    elif kind == "dask-local" and _is_count(rest, colon):
        with _dask(workers=int(rest) if rest else os.cpu_count() or 1) as found:
            yield found
    elif kind == "dask" and rest:
        with _dask(address=rest) as found:
            yield found
    elif colon and rest.isidentifier() and kind not in ("serial", "process", "dask", "dask-local"):
        with _made(kind, rest) as executor:
            yield executor, 2 * (os.cpu_count() or 1)
    else:
        raise ValueError(
            "--executor takes serial, process:N or dask-local:N with N the number of processes, dask:ADDRESS of a "
            f"scheduler, or module:factory, a function that returns an executor (got {name!r})"
        )


def completed(
    executor: Executor, function: Callable[[A], R], arguments: Sequence[A], *, width: int
) -> Iterator[tuple[A, R]]:
    """Arguments and results as they are finished, in the order of the arguments to begin with, `width` at a time.

    Raises:
        whatever `function` raises; what is under way then is cancelled, where that is possible.
    """
    waiting, pending = list(reversed(arguments)), dict[Future[R], A]()
    selection, threads = registry.default().selection, torch.get_num_threads()
    try:
        while waiting or pending:
            while waiting and len(pending) < width:
                argument = waiting.pop()
                pending[executor.submit(carry_out, function, argument, selection, threads)] = argument
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield pending.pop(future), future.result()
    finally:
        for future in pending:
            future.cancel()


def carry_out(function: Callable[[A], R], argument: A, selection: registry.Selection, threads: int) -> R:
    """The function's value, with the plugins and threads of whoever asks."""
    if registry.default().selection != selection:
        registry.use(registry.Registry(selection))
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return function(argument)


@contextlib.contextmanager
def _dask(*, address: str | None = None, workers: int | None = None) -> Iterator[tuple[Executor, int]]:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise ValueError("dask needs the package distributed: pip install 'scoreplug[dask]'") from error
    with contextlib.ExitStack() as stack:
        if address is None:
            cluster = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
            )
            address = stack.enter_context(cluster).scheduler_address
        client = stack.enter_context(distributed.Client(address))
        # tasks with equal arguments are equal here, but dask must not merge what is asked twice
        yield client.get_executor(pure=False), 2 * max(1, sum(client.ncores().values()))


def _made(module: str, factory: str) -> Executor:
    try:
        executor = getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--executor {module}:{factory}: {error}") from error
    if not isinstance(executor, Executor):
        raise ValueError(
            f"--executor {module}:{factory} must return a concurrent.futures.Executor (got {type(executor).__name__})"
        )
    return executor


def _is_count(text: str, colon: str) -> bool:
    return (not colon and not text) or (text.isdigit() and int(text) >= 1)


def _leave_quietly() -> None:
    """Let Ctrl-C end a worker without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
