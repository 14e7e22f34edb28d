"""A run as chunks: small tasks of names, numbers and checksums, which any process can carry out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

import attrs
import numpy as np
import torch

from scoreplug import registry
from scoreplug.noise import Noise
from scoreplug.registry.specs import SamplerSpec
from scoreplug.run.config import RunConfig
from scoreplug.run.memory import peak_memory, peak_on, reset_peak
from scoreplug.run.setup import Setup, setup_of
from scoreplug.sampler import State

P = ParamSpec("P")
R = TypeVar("R")

Watch = Callable[[State], None]
"""Is shown every state of a chunk's trajectory."""


@attrs.frozen(kw_only=True)
class Task:
    """Samples start <= i < stop of a run.

    Args:
        problem: the run's `RunConfig.problem`.
        seed: of the sampling noise.
        start, stop: numbers of the samples.
        files: checksums of the files that go in.
        version: of scoreplug.
    """

    problem: str
    seed: int
    start: int
    stop: int
    files: Mapping[str, str]
    version: str

    @property
    def key(self) -> str:
        """Address of the result: equal for tasks with equal results."""
        return hashlib.sha256(json.dumps(attrs.asdict(self), sort_keys=True).encode()).hexdigest()[:32]


@attrs.frozen(kw_only=True, eq=False)
class Chunk:
    """Samples, (stop - start, *shape), and what they cost."""

    samples: np.ndarray
    facts: dict[str, Any]


def plan(config: RunConfig, files: Mapping[str, str]) -> list[Task]:
    """Split a run into chunks of `batch` samples; a sampler that couples its population gets it as one.

    Args:
        config: resolved.
        files: checksums of the files that it names.
    """
    spec = registry.spec("sampler", config.sampler.name)
    coupled = isinstance(spec, SamplerSpec) and spec.couples
    size = config.samples if coupled else config.batch
    return [
        task_of(config, files, start, min(start + size, config.samples)) for start in range(0, config.samples, size)
    ]


def task_of(config: RunConfig, files: Mapping[str, str], start: int, stop: int) -> Task:
    """Samples start <= i < stop of a run."""
    import scoreplug

    return Task(
        problem=config.problem,
        seed=config.seed,
        start=start,
        stop=stop,
        files=files,
        version=scoreplug.__version__,
    )


def execute(task: Task, watch: Watch | None = None) -> Chunk:
    """Draw the samples of a task.

    Raises:
        DivergenceError: if a sample becomes NaN or infinite.
    """
    setup = setup_of(task.problem, task.files)
    device = setup.prior.device
    reset_peak(device)
    before, began = setup.cost.as_dict(), time.perf_counter()
    samples = draw(setup, task.seed, range(task.start, task.stop), watch)
    spent = {key: value - before[key] for key, value in setup.cost.as_dict().items()}
    seconds = time.perf_counter() - began
    facts: dict[str, Any] = {"cost": spent, "seconds": seconds, "peak_memory_bytes": peak_memory()}
    if device.type == "cuda":
        facts["peak_device_bytes"] = peak_on(device)
    # NumPy has no bfloat16; float32 holds each of its values.
    exact = samples if samples.dtype in (torch.float32, torch.float64) else samples.float()
    return Chunk(samples=exact.cpu().numpy(), facts=facts)


def draw(setup: Setup, seed: int, samples: range, watch: Watch | None = None) -> torch.Tensor:
    """Samples of the posterior, (len(samples), *shape)."""
    posterior = setup.posterior
    noise = Noise(seed, tuple(samples), dtype=posterior.dtype, device=posterior.device)
    for state in setup.sampler.trajectory(posterior, noise):
        if watch is not None:
            watch(state)
    return state.x


class SerialExecutor(Executor):
    """Carries out each task in the caller's process, at once."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  it belongs to whoever asks for the result
            future.set_exception(error)
        return future
