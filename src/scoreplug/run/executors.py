"""Where tasks are carried out: any executor of `concurrent.futures`, by name.

    serial              here, one after the other
    process, process:N  N processes of this machine
    dask:ADDRESS        a cluster whose scheduler listens there (the package distributed)
    dask-local:N        a scheduler and N workers, started for the occasion
    module:factory      what the function `factory` of `module` returns

A task is a module's function and small arguments, never a tensor. Whoever carries it out does so with the plugins and
the number of torch threads of the process that asked: the same task gives the same arrays, to the bit, on one machine.
With OMP_NUM_THREADS=1 processes do not share their cores.

An error or Ctrl-C ends the processes that were started here at once, in the middle of what they do. They end by
themselves when the process that started them is killed.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from typing import Any, ParamSpec, TypeVar

import torch

from scoreplug import registry
from scoreplug.run.cluster import begin_worker, deaf, local_cluster
from scoreplug.run.plan import SerialExecutor

A = TypeVar("A")
R = TypeVar("R")
P = ParamSpec("P")

ANSWER_SECONDS = 5.0
"""A scheduler has so long to answer."""

WORKER_SECONDS = 15.0
"""And so long to have a worker."""


@contextlib.contextmanager
def executor_of(name: str) -> Iterator[tuple[Executor, int]]:
    """An executor by name, and the number of tasks to hand it at a time.

    Raises:
        ValueError: for another name, or what `module:factory` does not give.
        OSError: if there is no scheduler at the address, or it has no workers.
    """
    kind, colon, rest = name.partition(":")
    if name == "serial":
        yield SerialExecutor(), 1
    elif kind == "process" and _is_count(rest, colon):
        workers = int(rest) if rest else os.cpu_count() or 1
        with _processes(workers) as pool:
            yield pool, 2 * workers
    elif kind == "dask-local" and _is_count(rest, colon):
        _distributed()
        with local_cluster(int(rest) if rest else os.cpu_count() or 1) as address, _dask(address) as found:
            yield found
    elif kind == "dask" and rest:
        with _dask(rest) as found:
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
        BrokenExecutor: if whoever was to carry a task out is gone.
        whatever `function` raises; what is finished by then has been yielded, and what is under way is cancelled, where
        that is possible.
    """
    waiting, pending = list(reversed(arguments)), dict[Future[R], A]()
    selection, threads = registry.default().selection, torch.get_num_threads()
    try:
        while waiting or pending:
            while waiting and len(pending) < width:
                argument = waiting.pop()
                pending[executor.submit(carry_out, function, argument, selection, threads)] = argument
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=_failed):
                try:
                    result = future.result()
                except CancelledError as error:  # not by us: the scheduler is gone, or has lost too many workers
                    raise BrokenExecutor("the task was cancelled") from error
                yield pending.pop(future), result
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


def _failed(future: Future[Any]) -> bool:
    return future.cancelled() or future.exception() is not None


class _Processes(ProcessPoolExecutor):
    """Its workers, which are started by `submit`, do not hear Ctrl-C: whoever started them ends them."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        with deaf():
            return super().submit(fn, *args, **kwargs)

    def kill(self) -> None:
        for process in list((self._processes or {}).values()):  # `kill_workers` from Python 3.14 on
            process.kill()


@contextlib.contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    # spawned, not forked: a fork after torch has started threads may hang
    context = multiprocessing.get_context("spawn")
    with deaf():  # the pool's semaphores are tracked by a process too
        pool = _Processes(workers, mp_context=context, initializer=begin_worker)
    try:
        yield pool
    except BaseException:
        pool.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _dask(address: str) -> Iterator[tuple[Executor, int]]:
    distributed = _distributed()
    with _quiet("distributed"):
        try:
            client = distributed.Client(address, timeout=ANSWER_SECONDS)
        except (OSError, ValueError) as error:
            raise OSError(
                f"no dask scheduler answers at {address!r} within {ANSWER_SECONDS:g} s ({_first_line(error)}); "
                "`dask scheduler` starts one and prints its address"
            ) from error
        try:
            try:
                client.wait_for_workers(1, timeout=WORKER_SECONDS)
            except TimeoutError as error:
                raise OSError(
                    f"the dask scheduler at {address!r} has no workers; `dask worker {address}` starts one"
                ) from error
            # tasks with equal arguments are equal here, but dask must not merge what is asked twice
            yield client.get_executor(pure=False), 2 * max(1, sum(client.ncores().values()))
        finally:
            client.close(timeout=0.5)


def _distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise ValueError("dask needs the package distributed: pip install 'scoreplug[dask]'") from error


@contextlib.contextmanager
def _quiet(package: str) -> Iterator[None]:
    """Without a package's log: a connection that is lost is told here, in one line."""
    names = [name for name in logging.root.manager.loggerDict if name == package or name.startswith(f"{package}.")]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


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
