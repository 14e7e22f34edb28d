"""From a config as it was written to one that says everything: checkpoints opened, parameters checked, defaults filled.

Everything here and in `compatibility` happens before anything is computed or written.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import attrs

from scoreplug import registry
from scoreplug.foreign import shown
from scoreplug.param import Param, ParameterError, check, parameters
from scoreplug.registry import PluginError
from scoreplug.registry.specs import ModelSpec
from scoreplug.run.compatibility import refusals, unknown_names, untrained
from scoreplug.run.config import ComponentConfig, ConfigError, RunConfig, parse

_CHECKPOINTS = (".safetensors", ".pt", ".pth", ".ckpt")
"""A model's name that ends like this is a file."""


def resolve(table: Mapping[str, Any]) -> RunConfig:
    """Check a table against the registry, and make every default explicit.

    Impossible combinations are refused without importing torch; then parameters are checked against the classes.

    Raises:
        ConfigError: naming every problem.
    """
    parts = parse(table)
    components, problems = _opened(parts.components)
    problems = [*parts.problems, *problems, *unknown_names(components), *untrained(components.get("model"))]
    if parts.input is not None:
        problems += _unknown_source(parts.input.source)
    if refused := refusals(components):
        raise ConfigError(problems + refused)

    resolved: dict[str, Any] = {}
    for role, component in components.items():
        given = {"image_shape": _shape(components.get("model"))} if role == "operator" else {}
        with contextlib.suppress(LookupError):  # its name is among the problems already
            resolved[role], wrong = _checked(role, component, given)
            problems += wrong
    if problems or parts.input is None:
        raise ConfigError(problems)
    files = (parts.input.image, parts.input.measurement)
    image, measurement = (file and str(Path(file).absolute()) for file in files)
    subject = attrs.evolve(parts.input, image=image, measurement=measurement)
    return RunConfig(**parts.numbers, **resolved, input=subject)


def takes(kind: str, name: str, parameter: str) -> bool:
    """Whether a component has a parameter of that name."""
    factory = registry.find(kind, name).factory()
    return parameter in (_known(factory) if _declares(factory) else inspect.signature(factory).parameters)


def _opened(components: Mapping[str, ComponentConfig]) -> tuple[dict[str, ComponentConfig], list[str]]:
    """A model that is named by the file of its weights is the one that the file describes."""
    model = components.get("model")
    if model is None or Path(model.name).suffix not in _CHECKPOINTS:
        return dict(components), []
    from scoreplug.checkpoint import CheckpointError, read_model_config

    path = Path(model.name)
    try:
        name, params = read_model_config(path)
    except CheckpointError as error:
        return {role: component for role, component in components.items() if role != "model"}, [str(error)]
    params = {**params, "checkpoint": str(path.absolute()), **model.params}
    return {**components, "model": ComponentConfig(name=name, params=params)}, []


def _unknown_source(name: str | None) -> list[str]:
    from scoreplug.data import SOURCES

    if name is None or name in SOURCES:
        return []
    near = difflib.get_close_matches(name, SOURCES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(SOURCES)}"
    return [f"[input] no image source {shown(name)}; {hint}"]


def _shape(model: ComponentConfig | None) -> list[int]:
    """The shape of an image as far as it is known without the model, to check an operator's parameters against."""
    known = None
    if model is not None:
        with contextlib.suppress(LookupError):
            spec = registry.spec("model", model.name)
            known = spec.shape if isinstance(spec, ModelSpec) else None
        known = known or model.params.get("image_shape")
    return list(known) if isinstance(known, list | tuple) else [1, 1, 1]


def _checked(role: str, component: ComponentConfig, given: Mapping[str, Any]) -> tuple[ComponentConfig, list[str]]:
    """The component with its defaults, and what is wrong with it.

    Args:
        given: parameters that the run fills in when the config leaves them out.
    """
    try:
        factory = registry.find(role, component.name).factory()
    except PluginError as error:
        return component, [str(error)]
    if not _declares(factory):
        return component, []
    known = _known(factory)
    filled = {key: value for key, value in given.items() if key in known and key not in component.params}
    problems: list[str] = []
    try:
        check(factory, {**component.params, **filled}, name=f"{role} {component.name!r}")
    except ParameterError as error:
        problems += [f"{error.component}: {problem}" for problem in error.problems]

    params = {key: _plain(p.default) for key, p in known.items() if not p.required and key not in filled}
    params = {key: value for key, value in params.items() if value is not None} | component.params
    for key in [key for key in params if key in known and known[key].component is not None]:
        params[key], wrong = _nested(known[key], params[key])
        problems += [f"{role} {component.name!r}: {key}: {problem}" for problem in wrong]
    return attrs.evolve(component, params=params), problems


def _nested(parameter: Param, value: object) -> tuple[object, list[str]]:
    """A parameter that is itself a component, given as a name or as a table."""
    kind = parameter.component or ""
    table: Any = {"name": value} if isinstance(value, str) else value
    if isinstance(table, dict) and "name" not in table and isinstance(parameter.default, str):
        table = {"name": parameter.default, **table}  # `sampler.corrector.snr=0.1` speaks of the default corrector
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        return value, [f"a {kind} is a name, or a table with `name` and parameters (got {shown(value)})"]
    params = {k: v for k, v in table.items() if k != "name"}
    try:
        registry.spec(kind, table["name"])
    except LookupError as error:
        return value, [str(error)]
    component, problems = _checked(kind, ComponentConfig(name=table["name"], params=params), {})
    # A bare name stays one while it says all there is to say.
    return (component.table if params else value), problems


def _declares(factory: object) -> TypeGuard[type]:
    return inspect.isclass(factory) and attrs.has(factory)


def _known(factory: type) -> dict[str, Param]:
    return {p.name: p for p in parameters(factory)}


def _plain(value: object) -> Any:
    """A default as TOML has it; None if TOML has nothing like it."""
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value if isinstance(value, bool | int | float | str | dict) else None
