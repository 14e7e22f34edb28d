"""One cell, from its tables to its row; in any process, with one torch thread."""

from __future__ import annotations

import contextlib
import functools
import json
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor

from scoreplug import registry
from scoreplug.bench.budget import Refusal, steps_within
from scoreplug.bench.cell import Cell, Row, canonical, component, refusal
from scoreplug.bench.evaluate import References, evaluate, ranks_of
from scoreplug.bench.suite import ORACLE
from scoreplug.measurement import Measurement
from scoreplug.noise import Noise
from scoreplug.protocols import HasExactSamples, Sampler, ScoreModel
from scoreplug.run.cost import Cost, counted_model, counted_operator
from scoreplug.run.memory import peak_memory, reset_peak
from scoreplug.run.rehearse import stand_in
from scoreplug.run.resolve import takes
from scoreplug.sampler import State

REFERENCES = tuple(range(2**32, 2**32 + 5))
"""Seeds of the sets of exact samples that all others are compared with: no seeds of cells."""

COUNTS = ("evaluations", "vjps", "forwards", "adjoints")


def execute(cell: Cell) -> Row:
    """The row of a cell. Whatever goes wrong with a method or a problem is written there."""
    reason = refusal(cell)
    if reason is not None:
        return Row(cell=cell, status="refused", reason=reason)
    with _one_thread(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            row = _measured(cell)
        except Refusal as error:
            row = Row(cell=cell, status="refused", reason=str(error))
        except ArithmeticError as error:  # DivergenceError, and solvers that do not converge
            row = Row(cell=cell, status="diverged", reason=str(error))
        except Exception as error:  # noqa: BLE001  a benchmark goes on, and shows what broke
            row = Row(cell=cell, status="failed", reason=f"{type(error).__name__}: {error}")
    said = list(dict.fromkeys(str(warning.message) for warning in caught))
    return attrs.evolve(row, warnings=said)


class Posed(NamedTuple):
    """A problem, and sets of its exact samples if it has any."""

    problem: Any
    references: References | None


class Drawn(NamedTuple):
    """Samples, the numbers that the sampler reports, and the cost per sample."""

    x: Tensor
    report: dict[str, float]
    cost: dict[str, float]


@functools.lru_cache(maxsize=2)
def pose(problem: str, n: int) -> Posed:
    """The problem of a table in JSON, with sets of n exact samples, built once as long as cells ask for the same."""
    table = component(json.loads(problem))
    built = registry.get_problem(table.name, **table.params)
    if not isinstance(built, HasExactSamples):
        return Posed(built, None)
    with torch.no_grad():
        return Posed(built, References(sets=tuple(built.exact_samples(n, seed=seed) for seed in REFERENCES)))


def _measured(cell: Cell) -> Row:
    problem, references = pose(canonical(cell.problem), cell.n)
    reset_peak()
    began = time.perf_counter()
    steps = None if cell.budget is None else _steps(cell, problem)
    drawn = _exact(cell, problem) if cell.is_exact else _draw(cell, problem, n=cell.n, steps=steps)
    peak, spent = peak_memory(), drawn.cost["evaluations"]
    if cell.budget is not None and spent > cell.budget:
        raise Refusal(
            f"it took {spent:g} network evaluations per sample, more than the budget of {cell.budget}, since their "
            "number is not affine in its steps; give its steps instead of a budget"
        )
    metrics = evaluate(problem, drawn.x, references, report=drawn.report, c2st=cell.c2st)
    facts = {"total_seconds": time.perf_counter() - began} | ({} if peak is None else {"peak_memory_bytes": peak})
    ranks = ranks_of(problem, drawn.x, seed=cell.seed)
    return Row(cell=cell, metrics=metrics, ranks=ranks, cost=drawn.cost | facts, report=drawn.report, steps=steps)


def _exact(cell: Cell, problem: HasExactSamples) -> Drawn:
    began = time.perf_counter()
    with torch.no_grad():
        x = problem.exact_samples(cell.n, seed=cell.seed)
    return Drawn(x, {}, dict.fromkeys(COUNTS, 0.0) | {"seconds": time.perf_counter() - began})


def _draw(cell: Cell, problem: Any, *, n: int, steps: int | None, rehearsal: bool = False) -> Drawn:
    """n samples of the cell's method; of a rehearsal with N(0, I) in the prior's place."""
    sampler = component(cell.sampler)
    params = sampler.params if steps is None else {**sampler.params, "steps": steps}
    cost = Cost()
    began = time.perf_counter()
    posterior = _posterior(cell, problem, cost, rehearsal=rehearsal)
    state = _last_state(registry.get_sampler(sampler.name, **params), posterior, n, cell.seed)
    counts = {name: getattr(cost, name) / n for name in COUNTS}
    return Drawn(state.x, reported(state), counts | {"seconds": time.perf_counter() - began})


def _posterior(cell: Cell, problem: Any, cost: Cost, *, rehearsal: bool) -> ScoreModel:
    """The score model that is sampled, with a counter on network and operator."""
    assert cell.conditioner is not None
    oracle = cell.conditioner["name"] == ORACLE
    model: ScoreModel = problem.oracle if oracle else problem.prior
    if cell.sde is not None:
        sde = component(cell.sde)
        model = model.under(registry.get_sde(sde.name, **sde.params))
    model = counted_model(stand_in(model) if rehearsal else model, cost)
    if oracle:
        return model
    y: Measurement = problem.measurement
    conditioner = component(cell.conditioner)
    built = registry.get_conditioner(conditioner.name, **conditioner.params)
    counted = Measurement(counted_operator(y.operator, cost), y.data, y.noise_std)
    try:
        posterior: ScoreModel = built.condition(model, counted)
    except (TypeError, ValueError) as error:
        raise Refusal(str(error)) from error
    return posterior


def _last_state(sampler: Sampler, posterior: ScoreModel, n: int, seed: int) -> State:
    trajectory = sampler.trajectory(posterior, Noise(seed, range(n), dtype=posterior.dtype, device=posterior.device))
    try:
        state = next(trajectory)  # a sampler that cannot use this posterior says so at its start
    except (TypeError, ValueError) as error:
        raise Refusal(str(error)) from error
    for state in trajectory:  # noqa: B007  the last one holds the samples
        pass
    return state


def _steps(cell: Cell, problem: Any) -> int:
    """The steps that the cell's budget allows."""
    assert cell.budget is not None
    if not takes("sampler", cell.sampler["name"], "steps"):
        raise Refusal(f"sampler {cell.sampler['name']!r} has no parameter `steps` to meet a budget with; leave it out")
    # two particles: one alone would be no cloud
    return steps_within(
        cell.budget, lambda steps: _draw(cell, problem, n=2, steps=steps, rehearsal=True).cost["evaluations"]
    )


def reported(state: State) -> dict[str, float]:
    """The numbers in what a sampler carries in its last state, by the names that it gives them."""
    carried = {} if state.carry is None else state.carry._asdict()
    single = {k: v for k, v in carried.items() if isinstance(v, int | float) or (isinstance(v, Tensor) and v.ndim == 0)}
    return {name: float(value) for name, value in single.items()}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """One thread, so that cells side by side do not fight for cores, and times can be compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
