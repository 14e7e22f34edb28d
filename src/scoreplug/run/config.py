"""What a run is made of, and the only way in: a table, from TOML or from flags, checked as a whole."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs
import tomli_w

from scoreplug.foreign import objection, one_line, parse_toml, read_toml, shown
from scoreplug.param import ParameterError, check, param, parameters
from scoreplug.run.memory import parse_size

ROLES = ("model", "sde", "operator", "conditioner", "sampler")
"""The tables of a config that name a component."""

Table = dict[str, Any]

_LISTED = 30
"""Problems that a message lists; `ConfigError.problems` has all of them."""


class ConfigError(ValueError):
    """A run cannot be started. `problems` lists every reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(map(one_line, problems))
        super().__init__(self.problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        listed = [*self.problems[:_LISTED], *["..."] * (len(self.problems) > _LISTED)]
        return f"{len(self.problems)} problems:" + "".join(f"\n  - {problem}" for problem in listed)


@attrs.frozen(kw_only=True)
class ComponentConfig:
    """One component: its registered name, and its parameters as TOML has them."""

    name: str
    params: Table = attrs.field(factory=dict)

    @property
    def table(self) -> Table:
        return {"name": self.name, **self.params}


@attrs.frozen(kw_only=True)
class InputConfig:
    """What is reconstructed: an image of a source or a file, whose measurement is simulated, or a measurement file."""

    source: str | None = param(None, doc="source of held-out images whose measurement is simulated: ellipses, digits")
    index: int = param(0, ge=0, doc="number of the image in the source's held-out set")
    image: str | None = param(
        None, doc="image file whose measurement is simulated: NumPy, picture, HDF5, NIfTI, DICOM or a folder of DICOM"
    )
    measurement: str | None = param(
        None, doc="measurement file, of the same formats; there is no truth to compare with"
    )
    key: str | None = param(
        None, doc="name of the array in a file with several, or SeriesInstanceUID in a folder with several series"
    )
    slice: int | None = param(None, ge=0, doc="number of the slice of a volume, or of the page, to take from the file")
    axis: int | None = param(
        None, ge=0, doc="axis along which `slice` counts; by default the first, and for NIfTI it has to be stated"
    )
    scale: float = param(
        1.0, gt=0.0, doc="factor on the values of a measurement file and on its noise_std, to the model's units"
    )
    noise_std: float | None = param(None, ge=0.0, unit="of y", doc="standard deviation of the measurement's noise")
    relative_noise: float | None = param(
        None, ge=0.0, doc="noise_std of a simulated measurement in units of the root mean square of A x"
    )
    data_range: tuple[float, float] | None = param(
        None,
        unit="of the file",
        doc="values of the image file that stand for the low and high end of the model's data range; without it the "
        "file's values are taken as they are, which integer files cannot be",
    )
    seed: int = param(0, ge=0, lt=2**64, doc="of the noise of a simulated measurement; --seed does not change it")

    def problems(self) -> list[str]:
        """What is wrong between the fields."""
        found = []
        given = [key for key in _SUBJECTS if getattr(self, key) is not None]
        if len(given) != 1:
            found.append(f"[input] takes exactly one of {', '.join(_SUBJECTS)} (got {' and '.join(given) or 'none'})")
        noise = [key for key in _NOISES if getattr(self, key) is not None]
        if self.measurement is not None and self.noise_std is None:
            found.append("[input] a measurement file needs its noise_std, in the units of its values")
        if self.measurement is not None and self.relative_noise is not None:
            found.append(
                "[input] relative_noise is for a simulated measurement; state noise_std for a measurement file"
            )
        elif self.measurement is None and len(noise) != 1:
            found.append(f"[input] takes exactly one of {', '.join(_NOISES)} (got {' and '.join(noise) or 'none'})")
        found += [
            f"[input] {key} must be finite (got {getattr(self, key)!r})"
            for key in noise
            if not math.isfinite(getattr(self, key))
        ]
        parts = [key for key in ("key", "slice", "axis") if getattr(self, key) is not None]
        if parts and self.image is None and self.measurement is None:
            found.append(f"[input] {' and '.join(parts)} belong to a file; a source takes the index of an image")
        elif self.axis is not None and self.slice is None:
            found.append("[input] axis says along which axis slices are counted; name one of them by slice")
        if self.scale != 1.0 and self.measurement is None:
            found.append("[input] scale belongs to a measurement file; an image file takes data_range")
        elif not math.isfinite(self.scale):
            found.append(f"[input] scale must be finite (got {self.scale!r})")
        if self.data_range is not None and self.image is None:
            found.append(
                "[input] data_range belongs to an image file; a source and a measurement are in the model's units"
            )
        if self.data_range is not None and not self.data_range[0] < self.data_range[1]:
            found.append(f"[input] data_range must be [low, high] with low < high (got {list(self.data_range)})")
        return found

    @property
    def table(self) -> Table:
        subject = next(key for key in _SUBJECTS if getattr(self, key) is not None)
        fields = {key: value for key, value in attrs.asdict(self).items() if value is not None}
        without = {"source": ("scale",), "image": ("index", "scale"), "measurement": ("index", "seed")}[subject]
        return {key: list(v) if isinstance(v, tuple) else v for key, v in fields.items() if key not in without}


_SUBJECTS = ("source", "image", "measurement")
_NOISES = ("noise_std", "relative_noise")
_OF_THE_FILE = {"index", "data_range", "key", "slice", "axis", "scale"}
RIVALS = {
    "source": {"image", "measurement", *_OF_THE_FILE},
    "image": {"source", "measurement", *_OF_THE_FILE},
    "measurement": {"source", "image", "relative_noise", *_OF_THE_FILE},
    "noise_std": {"relative_noise"},
    "relative_noise": {"noise_std"},
}
"""Keys of [input] that another key replaces."""


def _size(value: object) -> object:
    if isinstance(value, str):
        parse_size(value)
    return value


@attrs.frozen(kw_only=True)
class RunConfig:
    """A whole run. Without [sde] the model is asked under its own process."""

    samples: int = param(8, ge=1, le=10**7, doc="number of posterior samples")
    seed: int = param(
        0,
        ge=0,
        lt=2**64,
        doc="of the sampling noise; sample i of a seed is the same whatever `samples` and `batch` are",
    )
    batch: int = param(8, ge=1, doc="samples computed together")
    memory: str | None = param(
        None,
        converter=_size,
        doc="instead of `batch`, the memory that a process may take while it samples, such as 2GB; the largest batch "
        "that fits is measured, and takes this key's place in the run's own config.toml",
    )
    model: ComponentConfig
    sde: ComponentConfig | None = None
    operator: ComponentConfig
    conditioner: ComponentConfig
    sampler: ComponentConfig
    input: InputConfig

    @property
    def table(self) -> Table:
        """The config as TOML and JSON have it."""
        roles = {role: getattr(self, role) for role in ROLES}
        numbers = {p.name: getattr(self, p.name) for p in parameters(RunConfig)}
        del numbers["memory" if self.memory is None else "batch"]
        return {
            **numbers,
            **{role: component.table for role, component in roles.items() if component is not None},
            "input": self.input.table,
        }

    def to_toml(self) -> str:
        return tomli_w.dumps(self.table)

    @property
    def problem(self) -> str:
        """The tables alone, in JSON: all that a sample depends on beside its number and the seed."""
        tables = {key: value for key, value in self.table.items() if isinstance(value, dict)}
        return json.dumps(tables, sort_keys=True)


def demo() -> Table:
    """The table that `scoreplug run` starts from."""
    return parse_toml(files("scoreplug.run").joinpath("demo.toml").read_text(encoding="utf-8"))


def parse_problem(problem: str) -> RunConfig:
    """The config of a `RunConfig.problem`, with default numbers."""
    return structure(json.loads(problem))


def read(path: Path) -> Table:
    """Read a config file.

    Raises:
        ConfigError: if it cannot be read, or is not TOML.
    """
    try:
        return read_toml(path)
    except OSError as error:
        raise ConfigError([f"cannot read the config {shown(str(path))}: {error.strerror or error}"]) from error
    except ValueError as error:
        raise ConfigError([f"{shown(str(path))} is not TOML: {error}"]) from error


def structure(table: Mapping[str, Any]) -> RunConfig:
    """Turn a table into a config; `table` is its inverse. The registry is not asked about components yet.

    Raises:
        ConfigError: naming every unknown key (with a suggestion), missing table and illegal value.
    """
    parts = parse(table)
    if parts.problems or parts.input is None:
        raise ConfigError(parts.problems)
    return RunConfig(**parts.numbers, **parts.components, input=parts.input)  # type: ignore[arg-type]


@attrs.frozen(kw_only=True)
class Parts:
    """What could be read of a table, and what is wrong with the rest."""

    numbers: dict[str, Any]
    components: dict[str, ComponentConfig]
    input: InputConfig | None
    problems: list[str]


def parse(table: Mapping[str, Any]) -> Parts:
    """Read as much of a table as there is sense in, and collect the problems."""
    known = [p.name for p in parameters(RunConfig)] + [*ROLES, "input"]
    problems = [f"unknown key {shown(key)}; {_hint(key, known)}" for key in table if key not in known]
    objections = {key: why for key, value in table.items() if key in known and (why := objection(value))}
    if objections:
        problems += [f"{key}: {why}" for key, why in objections.items()]
        return Parts(numbers={}, components={}, input=None, problems=problems)
    numbers = {key: value for key, value in table.items() if key in known and key not in (*ROLES, "input")}
    problems += _problems(RunConfig, numbers)
    if "batch" in numbers and "memory" in numbers:
        problems.append("memory chooses the batch: leave out one of them")

    components = {role: _component(role, table[role], problems) for role in ROLES if role in table}
    problems += [f"[{role}] is missing: name one" for role in ROLES if role not in table and role != "sde"]

    subject = None
    values = table.get("input")
    if not isinstance(values, Mapping):
        problems.append(f"[input] must be a table with a source, an image or a measurement (got {shown(values)})")
    elif wrong := _problems(InputConfig, values):
        problems += [f"[input] {problem}" for problem in wrong]
    else:
        subject = InputConfig(**values)
        problems += subject.problems()
    named = {role: component for role, component in components.items() if component is not None}
    return Parts(numbers=numbers, components=named, input=subject, problems=problems)


def _component(role: str, value: object, problems: list[str]) -> ComponentConfig | None:
    table = {"name": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping):
        problems.append(f"[{role}] must be a table with `name` and parameters, or a name (got {shown(value)})")
    elif not isinstance(table.get("name"), str):
        problems.append(f"[{role}] needs `name`, a string (got {shown(table.get('name'))})")
    else:
        return ComponentConfig(name=table["name"], params={k: v for k, v in table.items() if k != "name"})
    return None


def _problems(cls: type, values: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        check(cls, values, name="")
    except ParameterError as error:
        return error.problems
    return ()


def _hint(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
