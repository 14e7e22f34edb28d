"""One measurement of a benchmark, as a task of names and numbers, and the row that it becomes."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, Literal, get_type_hints

import attrs

from scoreplug import registry
from scoreplug.bench.check import seed_parameter
from scoreplug.bench.suite import ORACLE, ProblemCase, Suite, is_pseudo
from scoreplug.param import is_instance
from scoreplug.registry.specs import ProblemSpec
from scoreplug.run.compatibility import refusals
from scoreplug.run.config import ComponentConfig, Table

_DEPENDENCIES = ("numpy", "scoreplug", "torch")
"""Packages whose version goes into a cell: what they compute may change from one to the next."""


@attrs.frozen(kw_only=True)
class Cell:
    """A problem, a method, a seed and a budget.

    Args:
        problem: its table, with the seed put in.
        conditioner, sampler, sde: tables; a conditioner of None goes with exact samples, an sde of None is the
            problem's own.
        seed: of the sampling noise.
        n: samples.
        budget: network evaluations per sample; None takes the sampler's steps as they are.
        c2st: also train a classifier.
        files: checksums of the files that the tables name.
        versions: of the packages that the result depends on.
        problem_label, method_label: names in tables; the result does not depend on them.
    """

    problem: Table
    conditioner: Table | None
    sampler: Table
    sde: Table | None
    seed: int
    n: int
    budget: int | None
    c2st: bool
    files: Mapping[str, str]
    versions: Mapping[str, str]
    problem_label: str
    method_label: str

    @property
    def table(self) -> Table:
        """The cell as JSON has it."""
        return attrs.asdict(self, recurse=False)

    @functools.cached_property
    def key(self) -> str:
        """Address of the result: equal for cells with equal results."""
        content = {key: value for key, value in self.table.items() if not key.endswith("_label")}
        return hashlib.sha256(canonical(content).encode()).hexdigest()

    @property
    def is_exact(self) -> bool:
        """Exact samples, not those of a sampler."""
        return is_pseudo("sampler", component(self.sampler))


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError("a list of texts is needed, not one")
    return tuple(values)


@attrs.frozen(kw_only=True)
class Row:
    """What a cell gave.

    Args:
        cell: what was asked.
        status: "ok"; "refused": the parts do not fit; "diverged": the arithmetic broke, as samples were no longer
            finite or a solver did not converge; "failed": anything else went wrong.
        reason: why it is not ok.
        metrics: by name; a number that is not finite, such as the PSNR of an exact reconstruction, is None in JSON.
        ranks: of the truth among the n samples, for each statistic of simulation-based calibration.
        cost: per sample: evaluations, vjps, forwards, adjoints; of the cell: seconds, peak_memory_bytes.
        report: numbers that the sampler leaves in its last state, such as log_evidence.
        steps: of the sampler, if a budget chose them.
        warnings: each once.
    """

    cell: Cell
    status: Literal["ok", "refused", "diverged", "failed"] = "ok"
    reason: str = ""
    metrics: dict[str, float | None] = attrs.field(factory=dict)
    ranks: dict[str, int] = attrs.field(factory=dict)
    cost: dict[str, float] = attrs.field(factory=dict)
    report: dict[str, float] = attrs.field(factory=dict)
    steps: int | None = None
    warnings: tuple[str, ...] = attrs.field(default=(), converter=_texts)

    @property
    def key(self) -> str:
        return self.cell.key

    @property
    def table(self) -> Table:
        """The row as JSON has it."""
        return {"key": self.key, **attrs.asdict(self, recurse=False), "cell": self.cell.table}

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Row:
        """The inverse of `table`.

        Raises:
            ValueError: if it is not one, or its key is not that of its cell.
        """
        values = {key: value for key, value in table.items() if key != "key"}
        try:
            row = cls(**{**values, "cell": Cell(**values["cell"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no row of a benchmark: {error}") from error
        if wrong := [*_mistyped(row.cell), *_mistyped(row)]:
            raise ValueError(f"this is no row of a benchmark: {', '.join(wrong)} cannot be what it is")
        if row.key != table.get("key"):
            raise ValueError("the row's key is not that of its cell")
        return row


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _mistyped(instance: Cell | Row) -> list[str]:
    """The fields that hold something else than they are for: a row may come from anybody's file."""
    kind: Any = type(instance)
    hints = _hints(kind)
    return [name for name, hint in hints.items() if not is_instance(getattr(instance, name), hint)]


def cells(suite: Suite) -> list[Cell]:
    """Every cell of a suite, problem by problem and seed by seed, so that a worker builds each problem about once.

    Args:
        suite: checked.
    """
    own = {name: version(name) for name in _DEPENDENCIES}
    return [cell for case in suite.problems for cell in _of_problem(suite, case, own)]


def _of_problem(suite: Suite, case: ProblemCase, own: Mapping[str, str]) -> Iterator[Cell]:
    parameter = seed_parameter(case.problem)
    named = {method.label: {"problem": case.problem, **method.components} for method in suite.methods}
    files = {label: _checksums([c.table for c in parts.values()]) for label, parts in named.items()}
    versions = {label: _versions(parts, own) for label, parts in named.items()}
    for seed, method in itertools.product(case.seeds, suite.methods):
        for budget in method.budgets:
            yield Cell(
                problem={**case.problem.table, **({} if parameter is None else {parameter: seed})},
                conditioner=None if method.conditioner is None else method.conditioner.table,
                sampler=method.sampler.table,
                sde=None if method.sde is None else method.sde.table,
                seed=seed,
                n=method.n,
                budget=budget,
                c2st=suite.c2st,
                files=files[method.label],
                versions=versions[method.label],
                problem_label=case.label,
                method_label=method.label,
            )


def component(table: Mapping[str, Any]) -> ComponentConfig:
    """A component of a cell."""
    return ComponentConfig(name=table["name"], params={k: v for k, v in table.items() if k != "name"})


def refusal(cell: Cell) -> str | None:
    """Why a cell cannot run, as far as specs tell; None if they say nothing against it."""
    known = registry.spec("problem", cell.problem["name"])
    provides = known.provides if isinstance(known, ProblemSpec) else ()
    name = cell.problem["name"]
    if cell.is_exact:
        return None if "samples" in provides else f"problem {name!r} has no exact samples to draw"
    assert cell.conditioner is not None
    roles = {"conditioner": component(cell.conditioner), "sampler": component(cell.sampler)}
    if cell.conditioner["name"] == ORACLE:
        if "oracle" not in provides:
            return f"the score of the posterior of problem {name!r} is not known; name a conditioner instead"
        del roles["conditioner"]
    return "; ".join(refusals(roles)) or None


def canonical(value: object) -> str:
    """JSON that equal values have in common, on one line."""
    return json.dumps(finite(value), sort_keys=True, ensure_ascii=False, allow_nan=False)


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity; both become null."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _checksums(tables: list[Table]) -> dict[str, str]:
    from scoreplug.run.provenance import checksums

    return checksums(_Tables(table={str(i): table for i, table in enumerate(tables)}))  # type: ignore[arg-type]


@attrs.frozen(kw_only=True)
class _Tables:
    """All that `checksums` reads of a config."""

    table: Table


def _versions(components: Mapping[str, ComponentConfig], own: Mapping[str, str]) -> dict[str, str]:
    """Versions of what computes the result: the packages above, `own`, and the plugins of the components."""
    plugins = [registry.find(role, c.name).plugin for role, c in components.items()]
    third = {plugin.name: plugin.version or "" for plugin in plugins if not plugin.builtin}
    return dict(sorted({**third, **own}.items()))
