"""Whether the registry has what a suite names, and takes the parameters that it gives: asked before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import attrs

from scoreplug import registry
from scoreplug.bench.suite import Suite
from scoreplug.param import ParameterError
from scoreplug.param import check as check_parameters
from scoreplug.run.compatibility import unknown_names
from scoreplug.run.config import ComponentConfig, ConfigError
from scoreplug.run.resolve import takes


def check(suite: Suite) -> None:
    """Check names, without importing torch, and then parameters.

    Raises:
        ConfigError: naming every problem, with the source of the suite and the entry that it is in.
    """
    for found in (_names, _parameters):
        problems = list(found(suite))
        if problems:
            raise ConfigError(problems)


def seed_parameter(problem: ComponentConfig) -> str | None:
    """The parameter that seeds choose: `seed`, or `draw` where `seed` is fixed or missing; None if there is neither."""
    free = (key for key in ("seed", "draw") if key not in problem.params and takes("problem", problem.name, key))
    return next(free, None)


def _names(suite: Suite) -> Iterator[str]:
    for case in suite.problems:
        yield from _located(suite, f"problems {case.label!r}", unknown_names({"problem": case.problem}))
    for method in suite.methods:
        yield from _located(suite, f"methods {method.label!r}", unknown_names(method.components))


def _parameters(suite: Suite) -> Iterator[str]:
    for case in suite.problems:
        yield from _located(suite, f"problems {case.label!r}", _problem(case.problem))
    for method in suite.methods:
        built = [_built(role, component) for role, component in method.components.items()]
        yield from _located(suite, f"methods {method.label!r}", [text for texts in built for text in texts])


def _located(suite: Suite, where: str, problems: list[str]) -> list[str]:
    return [f"{suite.source}: {where}: {problem}" for problem in problems]


def _problem(problem: ComponentConfig) -> list[str]:
    """A problem may load a network or draw a gold standard, so that it is not built here."""
    try:
        factory = registry.find("problem", problem.name).factory()
    except registry.PluginError as error:
        return [str(error)]
    if inspect.isclass(factory) and attrs.has(factory):
        try:
            check_parameters(factory, problem.params, name=f"problem {problem.name!r}")
        except ParameterError as error:
            return [f"{error.component}: {text}" for text in error.problems]
    return []


def _built(role: str, component: ComponentConfig) -> list[str]:
    """Conditioners, samplers and processes are numbers alone; building one checks all of it."""
    try:
        registry.get(role, component.name, **component.params)
    except (ValueError, TypeError, LookupError, registry.PluginError) as error:
        return [str(error)]
    return []
