"""The largest batch that fits a memory budget, from the memory that the run's own first steps take.

The peak of a step belongs to conditioner and sampler as much as to the network: graphs of vjps, vectors of conjugate
gradients, clouds of particles. So the run itself is measured: its first steps, with 1, 2, 4, ... samples, in this
process. Memory is affine in the batch,

    peak(b) = base + b per_sample

with the libraries, the weights and the operator in `base`; the batch is the largest b for which base + (1 + MARGIN) b
per_sample, and the samples that the run keeps, stay within the budget. Samples do not depend on the batch.

The budget is that of a process while it computes chunks, or of the graphics card if the model is on one. Processes of
an executor have it each.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from scoreplug import registry
from scoreplug.registry.specs import SamplerSpec
from scoreplug.run.config import ConfigError, RunConfig
from scoreplug.run.memory import give_back, in_words, now_on, parse_size, peak_on, unmeasurable
from scoreplug.run.plan import Chunk, task_of
from scoreplug.run.setup import setup_of
from scoreplug.run.trajectory import execute_and_follow, followed
from scoreplug.sampler import DivergenceError, State

FILE = "memory.json"
"""Where a run on its way keeps the choice, so that it is not made anew."""

MARGIN = 0.25
"""Share of the samples' memory that is left free: later steps find a heap with holes in it."""

STEPS = 2
"""Steps that are measured: what a sampler carries from one to the next is there in the second."""

ENOUGH = 0.05
"""Share of the budget that the samples have to take up, at least, for their need to stand out from the rest."""


class _Enough(Exception):
    """The steps that are measured are done."""


@attrs.frozen(kw_only=True)
class Fit:
    """A batch, and why.

    Args:
        asked: checksum of what was asked, but for the budget.
        budget: bytes.
        base: bytes at no samples.
        per_sample: bytes.
        kept: bytes of the samples of the whole run.
        batch: samples.
        measured: peak in bytes, by the batch it was measured with.
    """

    asked: str
    budget: int
    base: int
    per_sample: int
    kept: int
    batch: int
    measured: dict[str, int]

    def need(self, batch: int) -> int:
        """Bytes that a batch takes, with the margin."""
        return self.base + self.kept + round((1 + MARGIN) * self.per_sample * batch)

    @property
    def table(self) -> dict[str, Any]:
        return attrs.asdict(self)

    def check(self, chunk: Chunk) -> None:
        """Warn if a chunk took more than the budget."""
        peak = peak_of(chunk)
        if peak is not None and peak > self.budget:
            warnings.warn(
                f"a batch of {self.batch} took {in_words(peak)}, more than the {in_words(self.budget)} that were "
                "allowed; state a smaller `batch`",
                stacklevel=2,
            )

    def __str__(self) -> str:
        return (
            f"{in_words(self.need(self.batch))} of {in_words(self.budget)}: {in_words(self.base + self.kept)} without "
            f"samples, {in_words(self.per_sample)} for each, and {MARGIN:.0%} of that to spare"
        )


def fitted(config: RunConfig, files: Mapping[str, str], partial: Path) -> tuple[RunConfig, Fit | None]:
    """The config with the batch that its `memory` allows, and why; as it is if it names none.

    Args:
        config: resolved.
        files: checksums of the files that it names.
        partial: folder of an earlier attempt, whose choice holds.

    Raises:
        ConfigError: if not one sample fits, or memory cannot be measured here.
    """
    rest = {key: value for key, value in config.table.items() if key not in ("batch", "memory")}
    asked = hashlib.sha256(json.dumps([rest, dict(files)], sort_keys=True).encode()).hexdigest()
    before = _recorded(partial)
    if before is not None and before.asked != asked:
        before = None
    if config.memory is None:
        return config, before if before is not None and before.batch == config.batch else None
    holds = before is not None and before.budget == parse_size(config.memory)
    fit = before if before is not None and holds else choose(config, files, asked)
    return attrs.evolve(config, batch=fit.batch, memory=None), fit


def choose(config: RunConfig, files: Mapping[str, str], asked: str = "") -> Fit:
    """Measure, and take the largest batch that fits, at most all samples.

    Raises:
        ConfigError: as `fitted`.
    """
    assert config.memory is not None
    setup = setup_of(config.problem, files)
    device, budget = setup.prior.device, parse_size(config.memory)
    if why := unmeasurable(device):
        raise ConfigError([f"memory: {why}; state a batch instead"])
    kept = config.samples * int(np.prod(setup.prior.shape)) * setup.prior.dtype.itemsize
    spec = registry.spec("sampler", config.sampler.name)
    coupled = isinstance(spec, SamplerSpec) and spec.couples
    least = config.samples if coupled else 1

    def peak(batch: int) -> int:
        return _peak(config, files, batch)

    def resting() -> int:
        give_back(device)
        return now_on(device)

    base, per_sample, measured = _measured(peak, resting, budget - kept, config.samples)
    fit = Fit(
        asked=asked,
        budget=budget,
        base=base,
        per_sample=per_sample,
        kept=kept if device.type == "cpu" else 0,
        batch=least,
        measured={str(batch): peak for batch, peak in measured.items()},
    )
    if fit.need(least) > budget:
        raise ConfigError([_too_little(config, fit, coupled=coupled)])
    while fit.batch < config.samples and fit.need(fit.batch + 1) <= budget:
        spare = (budget - fit.need(fit.batch)) / ((1 + MARGIN) * max(per_sample, 1))
        fit = attrs.evolve(fit, batch=min(config.samples, fit.batch + max(int(spare), 1)))
    return fit


def _measured(
    peak: Callable[[int], int], resting: Callable[[], int], budget: int, samples: int
) -> tuple[int, int, dict[int, int]]:
    """Base, slope and the peaks of batches 1, 2, 4, ..., as far as it takes to see the slope, and as they will fit.

    Args:
        peak: bytes at a batch.
        resting: bytes in between.
        budget: bytes.
        samples: the largest batch there can be.
    """
    peak(1)  # libraries load, tables are made, threads start
    measured, below = {1: peak(1)}, resting()
    first = measured[1]
    slope, batch = max(first - below, 0), 2
    while batch <= samples and below + slope * batch <= budget and (batch == 2 or slope * batch < 2 * ENOUGH * budget):
        measured[batch] = peak(batch)
        rises = ((measured[batch] - first) / (batch - 1), (measured[batch] - measured[batch // 2]) / (batch // 2))
        slope = max(0, round(max(rises)))
        batch *= 2
    return max(first - slope, 0), slope, measured


def _peak(config: RunConfig, files: Mapping[str, str], batch: int) -> int:
    """The peak of the first steps of a batch, of everything that a chunk holds."""
    setup = setup_of(config.problem, files)

    def watch(state: State) -> None:
        if state.index >= STEPS:
            raise _Enough

    give_back(setup.prior.device)
    with warnings.catch_warnings(), contextlib.suppress(_Enough, DivergenceError):  # the run itself will say it
        warnings.simplefilter("ignore")
        task = task_of(config, files, 0, batch)
        execute_and_follow(task, watch, *followed(config.samples, setup.prior.shape))
    return peak_on(setup.prior.device) or 0


def _too_little(config: RunConfig, fit: Fit, *, coupled: bool) -> str:
    need, base, each = (in_words(size) for size in (fit.need(fit.batch), fit.base + fit.kept, fit.per_sample))
    numbers = f"{base} without samples, {each} for each, and {MARGIN:.0%} of that to spare"
    if coupled:
        return (
            f"memory = {config.memory!r} does not hold the {config.samples} samples that sampler "
            f"{config.sampler.name!r} draws as one population: they take {need} ({numbers}); allow that, or take fewer"
        )
    return (
        f"memory = {config.memory!r} does not hold a single sample: it takes {need} ({numbers}); "
        "allow that, or take a smaller image or network"
    )


def held(fit: Fit | None, chunks: Sequence[Chunk]) -> dict[str, Any]:
    """The choice, what it was made of, and whether it held, as cost.json has it; nothing if there was none."""
    if fit is None:
        return {}
    peak = max((peak for chunk in chunks if (peak := peak_of(chunk)) is not None), default=None)
    return {
        "memory": {
            "batch": fit.batch,
            "budget_bytes": fit.budget,
            "base_bytes": fit.base,
            "bytes_per_sample": fit.per_sample,
            "kept_bytes": fit.kept,
            "measured_bytes": fit.measured,
            "margin": MARGIN,
            "expected_bytes": fit.base + fit.kept + fit.per_sample * fit.batch,
            "peak_bytes": peak,
            "held": None if peak is None else peak <= fit.budget,
        }
    }


def peak_of(chunk: Chunk) -> int | None:
    """Bytes that a chunk took at most, of the graphics card if it was computed there."""
    peak: int | None = chunk.facts.get("peak_device_bytes", chunk.facts["peak_memory_bytes"])
    return peak


def _recorded(partial: Path) -> Fit | None:
    try:
        return Fit(**json.loads((partial / FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
