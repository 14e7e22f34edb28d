"""What is benchmarked: problems, methods, seeds and sample counts, from a TOML file that is checked as a whole.

    n = 500                 # samples of each cell
    seeds = 5               # 0, ..., 4, or a list
    budgets = [20, 100]     # network evaluations per sample, which choose the steps of samplers that are given none

    [[problems]]
    problem = { name = "gaussian-mixture", dimension = 8, measured = 1 }

    [[methods]]
    conditioner = ["dps", { name = "dps", scale = 0.2 }]
    sampler = "ancestral"

A component is a name or a table of name and parameters, as in a run's config. Lists in a method stand for all their
combinations. A seed chooses the problem's `seed` or, where that is fixed, its `draw`; and always the sampler's noise.
Two names are no components: the conditioner "oracle" takes the problem's own exact score, and the sampler "exact" its
exact samples.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import attrs

from scoreplug.foreign import shown
from scoreplug.param import ParameterError, check, param
from scoreplug.run.config import ComponentConfig, ConfigError, Table, read

T = TypeVar("T")

ORACLE = "oracle"
"""The conditioner that stands for the problem's exact score."""

EXACT = "exact"
"""The sampler that stands for the problem's exact samples."""

ROLES = ("conditioner", "sampler", "sde")
"""The keys of a method that name a component."""

MOST = 100_000
"""Seeds of a problem, and methods of a table: more is a slip, and would fill the memory before anything begins."""


@attrs.frozen(kw_only=True)
class ProblemCase:
    """One problem of a suite, and the seeds that it is posed for."""

    label: str
    problem: ComponentConfig
    seeds: tuple[int, ...]


@attrs.frozen(kw_only=True)
class Method:
    """One method of a suite.

    Args:
        label: unique in the suite.
        conditioner: None for exact samples.
        sampler: how the reverse SDE is integrated.
        sde: the process; None is the problem's own.
        n: samples per cell.
        budgets: network evaluations per sample; (None,) takes the sampler's steps as they are.
    """

    label: str
    conditioner: ComponentConfig | None
    sampler: ComponentConfig
    sde: ComponentConfig | None
    n: int
    budgets: tuple[int | None, ...]

    @property
    def components(self) -> dict[str, ComponentConfig]:
        """The components that the registry knows, by role."""
        found = {role: getattr(self, role) for role in ROLES}
        return {role: c for role, c in found.items() if c is not None and not is_pseudo(role, c)}


@attrs.frozen(kw_only=True)
class Suite:
    """Problems and methods; each method meets each problem.

    Args:
        name: of the suite, or of its file.
        source: what errors name.
        summary: what it asks.
        c2st: also train classifiers.
        problems, methods: in their order.
    """

    name: str
    source: str
    summary: str
    c2st: bool
    problems: tuple[ProblemCase, ...]
    methods: tuple[Method, ...]


def is_pseudo(role: str, component: ComponentConfig) -> bool:
    """Whether a name stands for what the problem knows, and not for a component."""
    return (role, component.name) in (("conditioner", ORACLE), ("sampler", EXACT))


@attrs.frozen(kw_only=True)
class _Head:
    """The keys of a suite."""

    summary: str = param("", doc="what the suite asks")
    n: int = param(500, ge=2, doc="samples of each cell")
    seeds: int | tuple[int, ...] = param(5, ge=0, doc="number of seeds, from 0 on, or their list")
    budgets: tuple[int, ...] = param((), ge=1, doc="network evaluations per sample, for samplers without steps")
    c2st: bool = param(
        default=False, doc="also train a classifier on samples and exact samples, which takes seconds per cell"
    )
    problems: Any = param((), doc="tables with a problem each")
    methods: Any = param((), doc="tables with a method each")


@attrs.frozen(kw_only=True)
class _ProblemTable:
    """The keys of an entry of [[problems]]."""

    problem: Any = param(doc="the problem")
    label: str | None = param(None, doc="its name in tables")
    seeds: int | tuple[int, ...] | None = param(None, ge=0, doc="as the suite's, for this problem")


@attrs.frozen(kw_only=True)
class _MethodTable:
    """The keys of an entry of [[methods]]."""

    conditioner: Any = param(None, doc="how the measurement is used, one or a list")
    sampler: Any = param(doc="how the reverse SDE is integrated, one or a list")
    sde: Any = param(None, doc="the process, one or a list; without it the problem's own")
    label: str | None = param(None, doc="its name in tables; for a table that is one method")
    n: int | None = param(None, ge=2, doc="as the suite's, for this method")
    budgets: tuple[int, ...] | None = param(None, ge=1, doc="as the suite's, for this method; [] is none")


def built_in() -> tuple[str, ...]:
    """The names of the suites that ship with the package."""
    folder = files("scoreplug.bench").joinpath("suites")
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load(name: str) -> tuple[str, Table]:
    """The name and the table of a suite that is built in, or a TOML file.

    Raises:
        ConfigError: if there is no such suite, or the file cannot be read.
    """
    if name in built_in():
        return name, read(Path(str(files("scoreplug.bench").joinpath("suites", f"{name}.toml"))))
    if name.endswith(".toml"):
        return Path(name).stem, read(Path(name))
    near = difflib.get_close_matches(name, built_in(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"built in are {', '.join(built_in())}"
    raise ConfigError([f"no suite {shown(name)}; {hint}. A suite of your own is the path of a .toml file"])


def parse(table: Mapping[str, Any], *, name: str, source: str | None = None) -> Suite:
    """Turn a table into a suite. The registry is not asked yet.

    Args:
        table: as TOML has it.
        name: of the suite.
        source: what errors name, by default the name.

    Raises:
        ConfigError: naming the source and every wrong key.
    """
    source = name if source is None else source
    problems = _wrong(_Head, table, source)
    if problems:
        raise ConfigError(problems)
    head = _Head(**table)
    cases = [
        case
        for where, table_of_case in _entries(_ProblemTable, "problems", head.problems, source, problems)
        for case in _case(head, table_of_case, where, problems)
    ]
    methods = [
        method
        for where, table_of_methods in _entries(_MethodTable, "methods", head.methods, source, problems)
        for method in _methods(head, table_of_methods, where, problems)
    ]
    for key, labels in (("problems", [c.label for c in cases]), ("methods", [m.label for m in methods])):
        problems += [
            f"{source}: {key}: {label!r} is there {count} times; give each a label of its own"
            for label, count in Counter(labels).items()
            if count > 1
        ]
    if problems:
        raise ConfigError(problems)
    return Suite(
        name=name,
        source=source,
        summary=head.summary,
        c2st=head.c2st,
        problems=tuple(cases),
        methods=tuple(methods),
    )


def _entries(cls: type[T], key: str, entries: object, source: str, problems: list[str]) -> Iterator[tuple[str, T]]:
    """The entries of a list of tables that can be read, each with its place."""
    if not isinstance(entries, list | tuple) or not entries:
        problems.append(f"{source}: {key} must be a list of tables, [[{key}]], with at least one")
        return
    for i, entry in enumerate(entries, start=1):
        where = f"{source}: {key} {i}"
        if not isinstance(entry, Mapping):
            problems.append(f"{where}: must be a table (got {shown(entry)})")
        elif wrong := _wrong(cls, entry, where):
            problems += wrong
        else:
            yield where, cls(**entry)


def _case(head: _Head, table: _ProblemTable, where: str, problems: list[str]) -> list[ProblemCase]:
    component = _component(table.problem, f"{where}: problem", problems)
    if component is None:
        return []
    given = head.seeds if table.seeds is None else table.seeds
    if isinstance(given, int) and given > MOST:
        problems.append(f"{where}: at most {MOST} seeds (got {shown(given)})")
        return []
    seeds = _seeds(given)
    if not seeds or len(set(seeds)) < len(seeds):
        problems.append(f"{where}: seeds must be at least one, each once (got {shown(list(seeds))})")
    return [ProblemCase(label=table.label or described(component), problem=component, seeds=seeds)]


def _methods(head: _Head, table: _MethodTable, where: str, problems: list[str]) -> list[Method]:
    before = len(problems)
    options: dict[str, list[ComponentConfig | None]] = {}
    for role in ROLES:
        values = getattr(table, role)
        several = values if isinstance(values, tuple | list) else [values]
        if not several:
            problems.append(f"{where}: {role} names nothing")
        options[role] = [v if v is None else _component(v, f"{where}: {role}", problems) for v in several]
    if len(problems) > before:
        return []
    if (number := math.prod(map(len, options.values()))) > MOST:
        problems.append(f"{where}: {number} combinations, and a table has at most {MOST}")
        return []
    combinations = list(itertools.product(*options.values()))
    if table.label is not None and len(combinations) > 1:
        problems.append(f"{where}: label names one method, and this table has {len(combinations)}; leave it out")
        return []
    budgets = head.budgets if table.budgets is None else table.budgets
    fixed = [sampler for _, sampler, _ in combinations if sampler is not None and "steps" in sampler.params]
    if fixed and table.budgets:
        problems.append(
            f"{where}: {fixed[0].name!r} has its `steps`, which budgets would choose: leave out one of them"
        )
    found = []
    for conditioner, sampler, sde in combinations:
        assert sampler is not None  # a required key, and TOML has no null
        exact = is_pseudo("sampler", sampler)
        if exact and (conditioner is not None or sde is not None):
            problems.append(f"{where}: the sampler {EXACT!r} takes neither conditioner nor sde: leave them out")
        if not exact and conditioner is None:
            problems.append(f"{where}: conditioner is missing: name one, or {ORACLE!r}")
        parts = [c for c in (conditioner, sampler, sde) if c is not None]
        method = Method(
            label=table.label or " / ".join(map(described, parts)),
            conditioner=conditioner,
            sampler=sampler,
            sde=sde,
            n=head.n if table.n is None else table.n,
            budgets=tuple(budgets) if budgets and not exact and sampler not in fixed else (None,),
        )
        problems += [f"{where}: {p}" for p in _parameters_of_pseudo(method)]
        found.append(method)
    return found


def _parameters_of_pseudo(method: Method) -> list[str]:
    parts = (("conditioner", method.conditioner), ("sampler", method.sampler))
    return [f"{c.name!r} takes no parameters" for role, c in parts if c and c.params and is_pseudo(role, c)]


def _component(value: object, where: str, problems: list[str]) -> ComponentConfig | None:
    table = {"name": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        problems.append(f"{where} must be a name, or a table with `name` and parameters (got {shown(value)})")
        return None
    return ComponentConfig(name=table["name"], params={k: v for k, v in table.items() if k != "name"})


def described(component: ComponentConfig) -> str:
    """A component in a label: its name, and the parameters that were given."""
    given = ", ".join(f"{key}={_short(value)}" for key, value in component.params.items())
    return f"{component.name}({given})" if given else component.name


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        inner = {k: v for k, v in value.items() if k != "name"}
        return described(ComponentConfig(name=str(value.get("name")), params=inner))
    return str(value)


def _seeds(value: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(range(value)) if isinstance(value, int) else tuple(value)


def _wrong(cls: type, values: Mapping[str, Any], where: str) -> list[str]:
    try:
        check(cls, values, name="")
    except ParameterError as error:
        return [f"{where}: {problem}" for problem in error.problems]
    return []
