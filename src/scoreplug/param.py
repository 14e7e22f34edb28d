"""Parameters, declared once.

A method is one attrs class and its fields are its parameters. `param(...)` keeps type, default, bounds, unit and text
together, so that `--set`, `scoreplug show`, the documentation tables and the error messages all come from the one
declaration.
"""

from __future__ import annotations

import difflib
import functools
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

import attrs

from scoreplug.foreign import one_line, shown

_KEY = "scoreplug.param"


class ParameterError(ValueError):
    """One or more parameters of a component are wrong. `problems` lists every one of them."""

    def __init__(self, component: str, problems: Iterable[str]) -> None:
        self.component = component
        self.problems = tuple(map(one_line, problems))
        super().__init__(component, self.problems)  # the arguments as they came: it travels between processes

    def __str__(self) -> str:
        return f"{self.component}: {'; '.join(self.problems)}"


@attrs.frozen(kw_only=True)
class Param:
    """What is known of one parameter, as `parameters(cls)` lists it."""

    name: str = ""
    type: Any = None
    default: Any = attrs.field(factory=lambda: attrs.NOTHING)
    doc: str
    unit: str | None = None
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    component: str | None = None
    on_divergence: Literal["lower", "raise"] | None = None
    where: Mapping[str, tuple[Any, ...]] = attrs.field(factory=dict)

    @property
    def required(self) -> bool:
        return self.default is attrs.NOTHING

    @property
    def choices(self) -> tuple[Any, ...] | None:
        """The allowed values, when the type is (or contains) a Literal."""
        found = [c for t in _alternatives(self.type) if get_origin(t) is Literal for c in get_args(t)]
        return tuple(found) or None

    @property
    def type_name(self) -> str:
        """The type as a user would write it."""
        if self.component is not None:
            return f"name of a {self.component}, or a table with `name` and its parameters"
        return " or ".join(_type_name(t) for t in _alternatives(self.type))

    @property
    def range(self) -> str:
        """The bounds in words, empty if there are none."""
        bounds = ((">=", self.ge), (">", self.gt), ("<=", self.le), ("<", self.lt))
        return ", ".join(f"{symbol} {bound:g}" for symbol, bound in bounds if bound is not None)

    def problem(self, value: Any) -> str | None:
        """Say what is wrong with `value`, or None if it is a legal value."""
        if self.component is not None:
            # an object is taken as it is, and the parameters of a name or table are checked where it is built
            plain = isinstance(value, bool | int | float | tuple | list)
            return f"{self.name} must be the {self.type_name}, or an object (got {shown(value)})" if plain else None
        if not is_instance(value, self.type):
            allowed = f"one of {', '.join(map(repr, self.choices))}" if self.choices else self.type_name
            return f"{self.name} must be {allowed} (got {shown(value)}){self._near(value)}"
        for number in _numbers(value):
            if number != number:
                return f"{self.name} must not be NaN"
            low = (self.ge is not None and number < self.ge) or (self.gt is not None and number <= self.gt)
            high = (self.le is not None and number > self.le) or (self.lt is not None and number >= self.lt)
            if low or high:
                return f"{self.name} must be {self.range} (got {shown(number)})"
        return None

    def _near(self, value: Any) -> str:
        names = [c for c in self.choices or () if isinstance(c, str)]
        near = difflib.get_close_matches(value, names, n=1) if isinstance(value, str) else ()
        return f"; did you mean {near[0]!r}?" if near else ""


def param(
    default: Any = attrs.NOTHING,
    *,
    doc: str,
    unit: str | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    component: str | None = None,
    converter: Callable[[Any], Any] | None = None,
    on_divergence: Literal["lower", "raise"] | None = None,
    where: Mapping[str, tuple[Any, ...]] | None = None,
) -> Any:
    """Declare a parameter: an attrs field with its bounds, unit and text.

    Args:
        default: default value; without one the parameter is required.
        doc: what it means, in the words of the field.
        unit: "data", "pixel", "degree", ... or None.
        ge, gt, le, lt: bounds of a number, or of every number in a tuple.
        component: the kind ("sampler", "sde", ...) if the value is itself a component. It may then be given as a name,
            as a table with `name` and parameters, or as an object.
        converter: applied before the checks; it must not lose information.
        on_divergence: what to do with it when a run diverges, which the run then suggests.
        where: other parameters and the values of theirs with which that is of use.

    Returns:
        An attrs field.

    Raises:
        ValueError: at construction of the class, if the value has the wrong type or lies outside the bounds.
    """
    info = Param(
        doc=doc,
        unit=unit,
        ge=ge,
        gt=gt,
        le=le,
        lt=lt,
        component=component,
        on_divergence=on_divergence,
        where=where or {},
    )
    if component is not None:
        converter = functools.partial(_build, component)
    elif converter is None:
        converter = _canonical
    return attrs.field(default=default, converter=converter, validator=_validate, metadata={_KEY: info})


def parameters(cls: type) -> tuple[Param, ...]:
    """The parameters of a component class, in the order of declaration."""
    hints = typing.get_type_hints(cls)
    return tuple(
        attrs.evolve(f.metadata[_KEY], name=f.name, type=hints.get(f.name, f.type), default=_default(f))
        for f in attrs.fields(cls)
        if _KEY in f.metadata and f.init
    )


def check(cls: type, values: Mapping[str, Any], *, name: str) -> None:
    """Check names, types and bounds of `values` against the parameters of `cls`, all at once.

    Raises:
        ParameterError: naming every unknown key (with a suggestion), missing parameter and illegal value.
    """
    known = {p.name: p for p in parameters(cls)}
    problems = []
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known) or 'no parameters'}"
            problems.append(f"unknown parameter {shown(key)}; {hint}")
        elif problem := _problem(cls, known[key], value):
            problems.append(problem)
    missing = [p.name for p in known.values() if p.required and p.name not in values]
    problems += [f"{key} is required: {known[key].doc}" for key in missing]
    if problems:
        raise ParameterError(name, problems)


def _problem(cls: type, parameter: Param, value: Any) -> str | None:
    """What the constructor would say of one value, converter included."""
    if parameter.component is not None:
        return parameter.problem(value)
    converter: Callable[[Any], Any] = attrs.fields_dict(cls)[parameter.name].converter  # type: ignore[assignment]
    try:
        converted = converter(value)
    except (TypeError, ValueError, OverflowError) as error:
        return f"{parameter.name} cannot be {shown(value)}: {error}"
    return parameter.problem(converted)


def _default(field: Any) -> Any:
    return field.default.factory() if isinstance(field.default, attrs.Factory) else field.default  # type: ignore[arg-type]


def _build(kind: str, value: Any) -> Any:
    """Turn a name or a table into the component it names; leave objects alone."""
    if not isinstance(value, str | Mapping):
        return value
    from scoreplug import registry

    table = {"name": value} if isinstance(value, str) else dict(value)
    if "name" not in table:
        raise ValueError(f"a {kind} given as a table needs a 'name' (got {shown(sorted(table))})")
    return registry.get(kind, table.pop("name"), **table)


def _canonical(value: Any) -> Any:
    """Lists become tuples, so that a value from TOML or JSON equals, and hashes as, the one written in Python."""
    return tuple(_canonical(v) for v in value) if isinstance(value, list) else value


def _validate(instance: Any, field: Any, value: Any) -> None:
    known = _known(instance.__class__)
    if field.name in known and (problem := known[field.name].problem(value)):
        raise ParameterError(type(instance).__name__, [problem])


@functools.cache
def _known(cls: type) -> dict[str, Param]:
    return {p.name: p for p in parameters(cls)}


def _alternatives(tp: Any) -> tuple[Any, ...]:
    union = get_origin(tp) in (typing.Union, types.UnionType)
    return get_args(tp) if union else (tp,)


def is_instance(value: Any, tp: Any) -> bool:
    """Whether a value is of a type, strictly: True is not 1, "1" is not 1, 1.7 is not 1; an int is a legal float."""
    if tp is Any or (tp is None and value is None):
        return True
    origin, args = get_origin(tp), get_args(tp)
    if origin in (typing.Union, types.UnionType):
        return any(is_instance(value, t) for t in args)
    if origin is Literal:
        return any(value == c and type(value) is type(c) for c in args)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(args) == 2 and args[1] is Ellipsis:
            return all(is_instance(v, args[0]) for v in value)
        return len(value) == len(args) and all(is_instance(v, t) for v, t in zip(value, args, strict=True))
    if tp is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if tp is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or tp)


def _numbers(value: Any) -> Iterable[float]:
    if isinstance(value, tuple):
        return [n for v in value for n in _numbers(v)]
    return [value] if isinstance(value, float | int) and not isinstance(value, bool) else []


def _type_name(tp: Any) -> str:
    if tp is type(None) or tp is None:
        return "none"
    if get_origin(tp) is Literal:
        return " or ".join(repr(c) for c in get_args(tp))
    if get_origin(tp) is tuple:
        args = get_args(tp)
        endless = len(args) == 2 and args[1] is Ellipsis
        names = [_type_name(args[0]), "..."] if endless else [_type_name(arg) for arg in args]
        return f"({', '.join(names)})"
    plain = {float: "float", int: "int", str: "string", bool: "true or false"}
    return plain.get(tp) or str(getattr(tp, "__name__", tp))
