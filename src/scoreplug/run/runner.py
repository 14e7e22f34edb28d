"""From a config to a run directory."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from scoreplug.run.baseline import baseline
from scoreplug.run.config import RunConfig
from scoreplug.run.figure import figure
from scoreplug.run.metrics import metrics
from scoreplug.run.plan import Chunk, SerialExecutor, Task, execute, plan
from scoreplug.run.provenance import checksums, provenance, sha256
from scoreplug.run.report import report
from scoreplug.run.result import Result
from scoreplug.run.setup import setup_of
from scoreplug.run.store import ChunkStore, RunFolder, write_atomic
from scoreplug.sampler import DivergenceError, State

Progress = Callable[[float], None]
"""Is told which fraction of the sampling is done."""


class RunError(RuntimeError):
    """A run stopped on the way; the message says why, and what is kept of it."""


def run(config: RunConfig, out: Path, *, executor: Executor | None = None, progress: Progress | None = None) -> Result:
    """Sample, evaluate and write the run directory `out`.

    Args:
        config: resolved.
        out: a folder that does not exist yet, or is empty. Until the run is complete it is `<out>.partial`; chunks that
            are there from an earlier attempt are taken up.
        executor: where chunks are computed; by default here, one after the other.
        progress: called as the sampling goes on.

    Raises:
        ValueError, OSError: before anything is written, if the run cannot start.
        RunError: if a sample diverged, or the user interrupted.
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
        chunks, reused = _computed(tasks, ChunkStore(folder.chunks), executor or SerialExecutor(), progress)
        samples = np.concatenate([chunk.samples for chunk in chunks])
        reference = baseline(setup.subject.measurement)
        result = Result(
            config=config,
            subject=setup.subject,
            baseline=reference,
            samples=samples,
            metrics=metrics(setup.subject, samples, reference),
            cost=_total(chunks, len(samples), reused, time.perf_counter() - began),
            provenance=provenance(files | weights, started=started, finished=datetime.now(UTC)),
        )
        _write(folder.partial, result)
    except DivergenceError as error:
        raise RunError(f"{error}. {folder.leave()}") from error
    except KeyboardInterrupt as error:
        raise RunError(f"interrupted. {folder.leave()}") from error
    except BaseException:
        folder.leave()
        raise
    folder.complete()
    return result


def _computed(
    tasks: Sequence[Task], store: ChunkStore, executor: Executor, progress: Progress | None
) -> tuple[list[Chunk], int]:
    """The chunk of every task, and how many of them were there already."""
    chunks: list[Chunk] = []
    reused = 0
    for done, task in enumerate(tasks):
        stored = store.load(task.key)
        if stored is not None:
            chunks.append(Chunk(samples=stored[0], facts=stored[1]))
            reused += 1
            continue
        chunk = executor.submit(execute, task, _watch(done, len(tasks), progress)).result()
        store.save(task.key, chunk.samples, chunk.facts)
        chunks.append(chunk)
    if progress is not None:
        progress(1.0)
    return chunks, reused


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
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **result.arrays)  # type: ignore[arg-type]
    picture = figure(result)
    contents = {
        "provenance.json": _json(result.provenance),
        "cost.json": _json(result.cost),
        "metrics.json": _json(result.metrics),
        "arrays.npz": buffer.getvalue(),
        "figure.png": picture,
        "report.html": report(result, picture).encode(),
    }
    for name, content in contents.items():
        write_atomic(folder / name, content)


def _json(value: object) -> bytes:
    """JSON has no infinity (the PSNR of an exact reconstruction); it becomes null."""
    return (json.dumps(_finite(value), indent=2, allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
