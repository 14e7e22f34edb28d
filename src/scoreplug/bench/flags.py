"""What the command line changes in the table of a suite."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Sequence
from typing import Any

from scoreplug import registry
from scoreplug.bench.suite import EXACT, ORACLE, ROLES, is_pseudo
from scoreplug.registry.specs import ProblemSpec
from scoreplug.run.config import ComponentConfig, ConfigError, Table
from scoreplug.run.overrides import Assignment, overridden, parse_assignment
from scoreplug.run.resolve import takes

DEFAULTS = {"conditioner": ORACLE, "sampler": "ancestral"}
"""What stands for a part of a method that the flags do not name."""


def changed(
    table: Table,
    *,
    problems: Sequence[str] = (),
    conditioners: Sequence[str] = (),
    samplers: Sequence[str] = (),
    sdes: Sequence[str] = (),
    settings: Iterable[str] = (),
    **numbers: Any,
) -> Table:
    """The table under the flags.

    Problems replace the suite's problems. Conditioners and samplers replace its methods, by all their combinations and
    the exact samples; processes alone go into its methods.

    Args:
        table: of a suite.
        problems, conditioners, samplers, sdes: names, or inline TOML tables with `name` and parameters.
        settings: "role.key=value", for every component of the role that has the parameter.
        numbers: n, seeds, budgets; what is None or empty is left as it is.

    Raises:
        ConfigError: naming every flag that cannot be read, or changes nothing.
    """
    result = copy.deepcopy(dict(table))
    if problems:
        result["problems"] = [{"problem": _value(text)} for text in problems]
    parts = {"conditioner": conditioners, "sampler": samplers, "sde": sdes}
    given = {role: [_value(text) for text in texts] for role, texts in parts.items() if texts}
    if conditioners or samplers:
        combined = {**DEFAULTS, **given}
        exact = [{"sampler": EXACT}] if _has_exact(_tables(result, "problems")) else []
        result["methods"] = [*exact, combined]
    elif sdes:
        result["methods"] = [{**m, **given} for m in _tables(result, "methods") if m.get("sampler") != EXACT]
    for key, value in numbers.items():
        if value is not None and value != ():
            result[key] = value
            for entry in (*_tables(result, "problems"), *_tables(result, "methods")):
                entry.pop(key, None)
    wrong: list[str] = []
    for text in settings:
        try:
            _set(result, parse_assignment(text))
        except ConfigError as error:
            wrong += error.problems
    if wrong:
        raise ConfigError(wrong)
    return result


def _value(text: str) -> Any:
    """A name, or an inline table."""
    return parse_assignment(f"component={text}")[1] if text.startswith("{") else text


def _tables(table: Table, key: str) -> list[Table]:
    """The entries that are tables; `parse` complains of the others."""
    entries = table.get(key)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _has_exact(cases: Iterable[Table]) -> bool:
    for case in cases:
        problem = case.get("problem")
        name = problem.get("name") if isinstance(problem, dict) else problem
        with contextlib.suppress(LookupError):  # `check` complains of it
            spec = registry.spec("problem", str(name))
            if isinstance(spec, ProblemSpec) and "samples" in spec.provides:
                return True
    return False


def _set(table: Table, assignment: Assignment) -> None:
    """Put a parameter into every component of a role that has it."""
    path, _ = assignment
    roles = ("problem", *ROLES)
    if len(path) < 2 or path[0] not in roles:
        raise ConfigError(
            [f"--set takes role.key=value with the role one of {', '.join(roles)} (got {'.'.join(path)!r})"]
        )
    role, key = path[:2]
    reached = False
    for entry in _tables(table, "problems" if role == "problem" else "methods"):
        values = entry.get(role)
        several = values if isinstance(values, list) else [values]
        fits = [v is not None and _takes(role, v, key) for v in several]
        new = [overridden({role: v}, [assignment])[role] if fit else v for v, fit in zip(several, fits, strict=True)]
        if any(fits):
            entry[role] = new if isinstance(values, list) else new[0]
            reached = True
    if not reached:
        raise ConfigError([f"--set {'.'.join(path)}: no {role} of this benchmark has a parameter {key!r}"])


def _takes(role: str, value: Any, key: str) -> bool:
    name = value.get("name") if isinstance(value, dict) else value
    if is_pseudo(role, ComponentConfig(name=str(name))):
        return False
    try:
        return takes(role, str(name), key)
    except LookupError:
        return True  # `check` complains of the name
