"""From a config to a run directory."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from scoreplug.run.baseline import baseline
from scoreplug.run.config import RunConfig
from scoreplug.run.executors import completed
from scoreplug.run.figure import figure
from scoreplug.run.fit import FILE, Fit, fitted, held
from scoreplug.run.metrics import metrics
from scoreplug.run.plan import Chunk, SerialExecutor, Task, plan
from scoreplug.run.provenance import checksums, provenance, sha256, versions
from scoreplug.run.report import report, to_json
from scoreplug.run.result import Result
from scoreplug.run.resume import differing, recorded
from scoreplug.run.setup import setup_of
from scoreplug.run.store import ChunkStore, RunFolder, damaged, to_npz, write_atomic, write_sums
from scoreplug.run.trajectory import Trajectory, execute_and_follow, followed, joined
from scoreplug.sampler import DivergenceError, State

Progress = Callable[[float], None]
"""Is told which fraction of the sampling is done."""


class RunError(RuntimeError):
    """A run stopped on the way; the message says why, and what is kept of it."""


class RunInterruptedError(RunError):
    """The user stopped it."""


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
        RunError: if a sample diverged, a worker died, a file could not be written, or the user interrupted.
    """
    folder = RunFolder(out)
    folder.check()
    started, began = datetime.now(UTC), time.perf_counter()
    files = checksums(config)
    setup = setup_of(config.problem, files)
    weights = {setup.weights: sha256(setup.weights)} if setup.weights else {}
    _ = setup.posterior  # a conditioner that cannot use this measurement says so now
    config, fit = fitted(config, files, folder.partial)
    tasks = plan(config, files)
    folder.open()

    try:
        _begin(folder, config, files, fit)
        store, follow = ChunkStore(folder.chunks), followed(config.samples, setup.prior.shape)
        chunks, seen, reused = _computed(tasks, store, executor or SerialExecutor(), width, progress, follow, fit)
        samples = np.concatenate([chunk.samples for chunk in chunks])
        reference = baseline(setup.subject.measurement)
        result = Result(
            config=config,
            subject=setup.subject,
            baseline=reference,
            samples=samples,
            metrics=metrics(setup.subject, samples, reference),
            cost=_total(chunks, len(samples), reused, time.perf_counter() - began) | held(fit, chunks),
            provenance=provenance(
                files | weights, started=started, finished=datetime.now(UTC), facts=setup.subject.facts
            ),
            trajectory=joined(seen),
        )
        _write(folder.partial, result)
        folder.complete()
    except DivergenceError as error:
        raise RunError(f"{error}. {_keep(error, folder)}{folder.leave()}") from error
    except BrokenExecutor as error:
        raise RunError(f"{_gone(executor)}. {folder.leave()}") from error
    except KeyboardInterrupt as error:
        raise RunInterruptedError(f"interrupted. {folder.leave()}") from error
    except OSError as error:
        where = "" if error.filename is None else f": {str(error.filename)!r}"
        raise RunError(f"{error.strerror or error}{where}. {folder.leave()}") from error
    except BaseException:
        folder.leave()
        raise
    return result


def _begin(folder: RunFolder, config: RunConfig, files: Mapping[str, str], fit: Fit | None) -> None:
    """Say what the chunks belong to; those that were computed with other versions go."""
    now = versions(config)
    before = None if "plan.json" in damaged(folder.partial) else recorded(folder.partial)
    if before is not None and before.versions != now:
        count = ChunkStore(folder.chunks).clear()
        if count:
            told = ", ".join(differing(before.versions, now))
            warnings.warn(f"{count} chunks of other versions are computed again ({told})", stacklevel=3)
    record = {"versions": now, "files": dict(files)}
    contents = {"config.toml": config.to_toml().encode(), "plan.json": to_json(record).encode()}
    if fit is not None:
        contents[FILE] = to_json(fit.table).encode()
    folder.begin(contents)


def _keep(error: DivergenceError, folder: RunFolder) -> str:
    """Write what a chunk had when some of its samples diverged: the others, as they were after that step."""
    if not error.survivors:
        return ""
    arrays = {
        "x": error.x.detach().cpu().double().numpy(),
        "survivors": np.array(error.survivors),
        "samples": np.array(error.samples),
        "step": np.array(error.step),
        "level": np.array(error.level),
    }
    path = folder.partial / "diverged.npz"
    try:
        write_atomic(path, to_npz(arrays))
    except OSError as trouble:
        return f"The others of their chunk could not be kept ({trouble.strerror}). "
    return f"The others of their chunk, samples {list(error.survivors)}, are kept in {str(path)!r} as they were then. "


def _gone(executor: Executor | None) -> str:
    if isinstance(executor, ProcessPoolExecutor):
        return "a worker process died, which happens when memory runs out"
    return "a worker or the scheduler died, or cannot be reached any more"


def _computed(
    tasks: Sequence[Task],
    store: ChunkStore,
    executor: Executor,
    width: int,
    progress: Progress | None,
    follow: tuple[int, int],
    fit: Fit | None,
) -> tuple[list[Chunk], list[Trajectory | None], int]:
    """The chunk of every task, what was seen of it on the way, and how many chunks were there already."""
    found: dict[str, tuple[Chunk, Trajectory | None]] = {}
    for task in tasks:
        stored = store.load(task.key)
        if stored is not None:
            trajectory = None if stored.frames is None else Trajectory(**stored.frames)
            found[task.key] = Chunk(samples=stored.samples, facts=stored.facts), trajectory
    reused, todo = len(found), [task for task in tasks if task.key not in found]
    for task, (chunk, trajectory) in _executed(todo, executor, width, len(tasks), progress, follow):
        frames = None if trajectory is None else trajectory.arrays
        store.save(task.key, chunk.samples, chunk.facts, frames)
        if fit is not None and len(found) == reused:
            fit.check(chunk)
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
    write_sums(folder, contents | {"config.toml": result.config.to_toml().encode()})
