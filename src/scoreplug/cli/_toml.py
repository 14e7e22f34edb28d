"""A table of a run config as a text to begin with: every parameter, its default, and what it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scoreplug.param import Param
from scoreplug.registry import Component


def stub(component: Component, parameters: tuple[Param, ...]) -> str:
    """The TOML table of a component. What has a default is commented out; what is required has the spec's example."""
    return "\n".join(_lines(component, parameters))


def _lines(component: Component, parameters: tuple[Param, ...]) -> Iterator[str]:
    spec = component.spec
    yield f"# {spec.summary}"
    if spec.kind == "problem":
        yield "# In a suite of `scoreplug bench`: problem = { name = ..., ... }"
    yield f"[{spec.kind}]"
    yield f"name = {literal(component.name)}"
    for parameter in parameters:
        value = spec.example.get(parameter.name) if parameter.required else parameter.default
        text, meaning = _value(parameter, value), _meaning(parameter)
        if parameter.required and (spec.kind, parameter.name) == ("operator", "image_shape"):
            yield f"# {parameter.name} =   # in a run, that of the model: {meaning}"
        elif parameter.required and text is not None:
            yield f"{parameter.name} = {text}  # required, here an example: {meaning}"
        elif parameter.required:
            yield f"# {parameter.name} =   # required: {meaning}"
        else:
            yield f"# {parameter.name} = {text or ''}  # {meaning}{'' if text else '; by default not given'}"


def _value(parameter: Param, value: Any) -> str | None:
    """None for what TOML cannot say: None itself, or an object."""
    if value is None:
        return None
    try:
        return literal(value)
    except TypeError:
        return None


def _meaning(parameter: Param) -> str:
    choices = f"one of {', '.join(map(str, parameter.choices))}" if parameter.choices else parameter.type_name
    facts = [choices, parameter.range, parameter.unit or ""]
    return f"{' '.join(parameter.doc.split())} ({'; '.join(fact for fact in facts if fact)})"


def literal(value: Any) -> str:
    """A value in one line of TOML. Raises TypeError for what TOML does not have."""
    import tomli_w

    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {literal(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):  # tomli_w would write one line for each
        return "[" + ", ".join(map(literal, value)) + "]"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").rstrip("\n")


def _key(name: str) -> str:
    import tomli_w

    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")
