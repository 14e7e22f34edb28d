"""From a config to a run directory."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from scoreplug.run.baseline import baseline
from scoreplug.run.config import RunConfig
from scoreplug.run.executors import completed
from scoreplug.run.figure import figure
from scoreplug.run.metrics import metrics
from scoreplug.run.plan import Chunk, SerialExecutor, Task, plan
from scoreplug.run.provenance import checksums, provenance, sha256
from scoreplug.run.report import report, to_json
from scoreplug.run.result import Result
from scoreplug.run.setup import setup_of
from scoreplug.run.store import ChunkStore, RunFolder, to_npz, write_atomic
from scoreplug.run.trajectory import Trajectory, execute_and_follow, followed, joined
from scoreplug.sampler import DivergenceError, State

Progress = Callable[[float], None]
"""Is told which fraction of the sampling is done."""


class RunError(RuntimeError):
    """A run stopped on the way; the message says why, and what is kept of it."""


def run(
    config: RunConfig,
    out: Path,
    *,
    executor: Executor | None = None,
    width: int = 1,
    progress: Progress | None = None,
) -> Result:
    """Sample, evaluate and write the run directory `out`.

    Args:
        config: resolved.
        out: a folder that does not exist yet, or is empty. Until the run is complete it is `<out>.partial`; chunks that
            are there from an earlier attempt are taken up.
        executor: where chunks are computed; by default here, one after the other (see `executors`).
        width: chunks that are handed over at a time.
        progress: called as the sampling goes on.

    Raises:
        ValueError, OSError: before anything is written, if the run cannot start.
        RunError: if a sample diverged, a worker died, or the user interrupted.
    """
    folder = RunFolder(out)
    folder.check()
    started, began = datetime.now(UTC), time.perf_counter()
    files = checksums(config)
    setup = setup_of(config.problem, files)
    tasks = plan(config, files)
    weights = {setup.weights: sha256(setup.weights)} if setup.weights else {}
    _ = setup.posterior  # a conditioner that cannot use this measurement says so now
    folder.open()
    write_atomic(folder.partial / "config.toml", config.to_toml().encode())

    try:
        store, follow = ChunkStore(folder.chunks), followed(config.samples, setup.prior.shape)
        chunks, seen, reused = _computed(tasks, store, executor or SerialExecutor(), width, progress, follow)
        samples = np.concatenate([chunk.samples for chunk in chunks])
        reference = baseline(setup.subject.measurement)
        result = Result(
            config=config,
            subject=setup.subject,
            baseline=reference,
            samples=samples,
            metrics=metrics(setup.subject, samples, reference),
            cost=_total(chunks, len(samples), reused, time.perf_counter() - began),
            provenance=provenance(
                files | weights, started=started, finished=datetime.now(UTC), facts=setup.subject.facts
            ),
            trajectory=joined(seen),
        )
        _write(folder.partial, result)
    except DivergenceError as error:
        raise RunError(f"{error}. {folder.leave()}") from error
    except BrokenExecutor as error:
        raise RunError(f"a worker process died, which happens when memory runs out. {folder.leave()}") from error
    except KeyboardInterrupt as error:
        raise RunError(f"interrupted. {folder.leave()}") from error
    except BaseException:
        folder.leave()
        raise
    folder.complete()
    return result


def _computed(
    tasks: Sequence[Task],
    store: ChunkStore,
    executor: Executor,
    width: int,
    progress: Progress | None,
    follow: tuple[int, int],
) -> tuple[list[Chunk], list[Trajectory | None], int]:
    """The chunk of every task, what was seen of it on the way, and how many chunks were there already."""
    found: dict[str, tuple[Chunk, Trajectory | None]] = {}
    for task in tasks:
        stored = store.load(task.key)
        if stored is not None:
            frames = store.load_frames(task.key)
            chunk = Chunk(samples=stored[0], facts=stored[1])
            found[task.key] = chunk, None if frames is None else Trajectory(**frames)
    reused, todo = len(found), [task for task in tasks if task.key not in found]
    for task, (chunk, trajectory) in _executed(todo, executor, width, len(tasks), progress, follow):
        if trajectory is not None:
            store.save_frames(task.key, trajectory.arrays)
        store.save(task.key, chunk.samples, chunk.facts)
        found[task.key] = chunk, trajectory
        if progress is not None:
            progress(len(found) / len(tasks))
    results = [found[task.key] for task in tasks]
    return [chunk for chunk, _ in results], [trajectory for _, trajectory in results], reused


def _executed(
    todo: Sequence[Task],
    executor: Executor,
    width: int,
    chunks: int,
    progress: Progress | None,
    follow: tuple[int, int],
) -> Iterator[tuple[Task, tuple[Chunk, Trajectory | None]]]:
    """Tasks and their results, as they are finished; here, the progress within a chunk is told as well."""
    if isinstance(executor, SerialExecutor):
        for done, task in enumerate(todo, start=chunks - len(todo)):
            watch = _watch(done, chunks, progress)
            yield task, executor.submit(execute_and_follow, task, watch, *follow).result()
    else:
        samples, levels = follow
        function = functools.partial(execute_and_follow, watch=None, samples=samples, levels=levels)
        yield from completed(executor, function, todo, width=width)


def _watch(done: int, chunks: int, progress: Progress | None) -> Callable[[State], None] | None:
    if progress is None:
        return None

    def watch(state: State) -> None:
        progress((done + state.index / max(len(state.times) - 1, 1)) / chunks)

    return watch


def _total(chunks: Sequence[Chunk], samples: int, reused: int, wall: float) -> dict[str, Any]:
    counts = {key: sum(chunk.facts["cost"][key] for chunk in chunks) for key in chunks[0].facts["cost"]}
    per_sample = {f"{key}_per_sample": n / samples for key, n in counts.items() if not key.endswith("_calls")}
    peaks = [chunk.facts["peak_memory_bytes"] for chunk in chunks]
    return {
        **counts,
        **per_sample,
        "sampling_seconds": sum(chunk.facts["seconds"] for chunk in chunks),
        "wall_seconds": wall,
        "peak_memory_bytes": max((peak for peak in peaks if peak is not None), default=None),
        "chunks": len(chunks),
        "chunks_reused": reused,
    }


def _write(folder: Path, result: Result) -> None:
    picture = figure(result)
    contents = {
        "provenance.json": to_json(result.provenance).encode(),
        "cost.json": to_json(result.cost).encode(),
        "metrics.json": to_json(result.metrics).encode(),
        "arrays.npz": to_npz(result.arrays),
        "figure.png": picture,
        "report.html": report(result, picture).encode(),
    }
    if result.trajectory is not None:
        contents["trajectory.npz"] = to_npz(result.trajectory.arrays)
    for name, content in contents.items():
        write_atomic(folder / name, content)
