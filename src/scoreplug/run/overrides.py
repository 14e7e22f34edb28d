"""Layers of a config: the demo, a file, and flags; each one over the one before."""

from __future__ import annotations

import copy
import datetime
import re
from collections.abc import Iterable, Mapping
from typing import Any

from scoreplug.foreign import DEEPEST, objection, parse_toml, shown
from scoreplug.run.config import RIVALS, ROLES, ConfigError, Table

Assignment = tuple[tuple[str, ...], Any]
"""A key, as the path of its tables, and its value."""

_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_QUOTED = re.compile(r'"(\\.|[^"\\])*"|' + r"'[^']*'")


def layered(base: Mapping[str, Any], file: Mapping[str, Any]) -> Table:
    """A file over the demo: each table of the file replaces the demo's as a whole, since a table stands for itself.

    The demo's [sde] is its prior's: a file with another [model] and no [sde] means that model under its own process.
    """
    below = copy.deepcopy(dict(base))
    if "model" in file:
        below.pop("sde", None)
    if "memory" in file:
        below.pop("batch", None)
    return {**below, **copy.deepcopy(dict(file))}


def overridden(table: Mapping[str, Any], assignments: Iterable[Assignment]) -> Table:
    """Flags over a table.

    Parameters belong to the component they were written for: naming another one drops them. In [input] a new image
    drops the old one, and a new noise level the old one. A memory budget and a batch drop each other.
    """
    result, assignments = copy.deepcopy(dict(table)), list(assignments)
    for path, value in assignments:
        if _names_a_component(path) and _as_table(result.get(path[0], {})).get("name") != value:
            result[path[0]] = {"name": value}
        if path[0] == "input" and isinstance(result.get("input"), dict):
            # Only what lies below gives way; two rivals among the flags are for `structure` to refuse.
            for rival in RIVALS.get(path[-1], ()):
                result["input"].pop(rival, None)
        for one, other in (("batch", "memory"), ("memory", "batch")):
            if path == (one,):
                result.pop(other, None)
    for path, value in assignments:
        _put(result, path, value)
    return result


def parse_assignment(text: str) -> Assignment:
    """Read `role.key=value`.

    The value is a TOML literal, `3`, `0.5`, `true`, `[1, 2]`, `"text"`; what does not start like one is a string.

    Raises:
        ConfigError: if it is not of that form.
    """
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not _KEY.fullmatch(key):
        raise ConfigError([f"--set takes role.key=value, as in sampler.steps=100 (got {shown(text)})"])
    if key.count(".") >= DEEPEST:
        raise ConfigError([f"--set takes a key of at most {DEEPEST} parts (got {shown(key)})"])
    if not value or any(not c.isprintable() for c in value):
        raise ConfigError([f"--set {key}: the value must be one line of printable text (got {shown(value)})"])
    if "#" in _QUOTED.sub("", value):
        raise ConfigError([f"--set {key}: '#' would begin a comment; put the value in quotes (got {shown(value)})"])
    try:
        parsed = parse_toml(f"v = {value}")["v"]
    except ValueError as error:
        if value[0] in "\"'[{":
            raise ConfigError([f"--set {key}: {shown(value)} is not a TOML value: {error}"]) from error
        parsed = value
    bare_date = isinstance(parsed, datetime.date | datetime.time)
    parsed = value if bare_date else parsed
    if wrong := objection(parsed):
        raise ConfigError([f"--set {key}: {wrong}"])
    return tuple(key.split(".")), parsed


def _names_a_component(path: tuple[str, ...]) -> bool:
    return len(path) == 2 and path[0] in ROLES and path[1] == "name"


def _put(table: Table, path: tuple[str, ...], value: object) -> None:
    for key in path[:-1]:
        inner = _as_table(table.get(key, {}))
        table[key] = inner
        table = inner
    table[path[-1]] = value


def _as_table(value: Any) -> Table:
    """A component named by its name alone is a table with that name."""
    return value if isinstance(value, dict) else {"name": value}
