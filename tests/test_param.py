"""Parameters: declared once, checked strictly, and all problems told at once."""

from __future__ import annotations

import pickle
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreplug.param import ParameterError, check, param, parameters


@attrs.frozen(kw_only=True)
class Method:
    """One parameter of each sort."""

    steps: int = param(10, ge=1, le=1000, doc="number of steps")
    snr: float = param(0.5, gt=0, lt=1, doc="ratio", unit="data")
    grid: Literal["uniform", "quadratic"] = param("uniform", doc="spacing")
    clip: bool = param(False, doc="clip or not")
    window: tuple[float, float] = param((0.0, 1.0), ge=0, doc="two numbers")
    angles: tuple[int, ...] = param((), doc="any number of them")
    limit: int | None = param(None, ge=0, doc="none means no limit")
    label: str = param(doc="a text, required")


LEGAL: dict[str, list[Any]] = {
    "steps": [1, 1000],
    "snr": [0.1, 0.999],
    "grid": ["uniform", "quadratic"],
    "clip": [True, False],
    "window": [(0.0, 1.0), (0, 3), [0.5, 2]],
    "angles": [(), (1,), [1, 2, 3]],
    "limit": [None, 0, 7],
    "label": ["", "a"],
}

ILLEGAL = [
    ("steps", 0, "steps must be >= 1, <= 1000 (got 0)"),
    ("steps", 1001, "steps must be >= 1, <= 1000 (got 1001)"),
    ("steps", 1.7, "steps must be int (got 1.7)"),
    ("steps", 2.0, "steps must be int (got 2.0)"),
    ("steps", "3", "steps must be int (got '3')"),
    ("steps", True, "steps must be int (got True)"),
    ("steps", None, "steps must be int (got None)"),
    ("snr", 0, "snr must be > 0, < 1 (got 0)"),
    ("snr", 1.0, "snr must be > 0, < 1 (got 1.0)"),
    ("snr", float("nan"), "snr must not be NaN"),
    ("snr", float("inf"), "snr must be > 0, < 1 (got inf)"),
    ("snr", True, "snr must be float (got True)"),
    ("grid", "quadatic", "grid must be one of 'uniform', 'quadratic' (got 'quadatic'); did you mean 'quadratic'?"),
    ("grid", 0, "grid must be one of 'uniform', 'quadratic' (got 0)"),
    ("clip", "false", "clip must be true or false (got 'false')"),
    ("clip", 0, "clip must be true or false (got 0)"),
    ("window", (0.0,), "window must be (float, float) (got (0.0,))"),
    ("window", (0.0, -1.0), "window must be >= 0 (got -1.0)"),
    ("window", 1.0, "window must be (float, float) (got 1.0)"),
    ("angles", [1, 2.5], "angles must be (int, ...) (got (1, 2.5))"),
    ("limit", -1, "limit must be >= 0 (got -1)"),
    ("limit", "none", "limit must be int or none (got 'none')"),
    ("label", 3, "label must be string (got 3)"),
]


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in LEGAL.items() for value in values], ids=repr
)
def test_legal_values_pass_check_and_constructor(key, value):
    values = {"label": "x"} | {key: value}
    check(Method, values, name="method")

    assert getattr(Method(**values), key) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(("key", "value", "problem"), ILLEGAL, ids=repr)
def test_illegal_values_are_named_by_check_and_by_the_constructor(key, value, problem):
    """Both, since a method may be built without the registry."""
    values = {"label": "x"} | {key: value}
    with pytest.raises(ParameterError) as checked:
        check(Method, values, name="method")
    with pytest.raises(ParameterError) as built:
        Method(**values)

    assert checked.value.problems == built.value.problems == (problem,)
    assert str(checked.value) == f"method: {problem}"
    assert built.value.component == "Method"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2000) | st.floats(-2, 2) | st.sampled_from(["uniform", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=4,
)


@given(st.sampled_from(sorted(LEGAL)), VALUES)
def test_check_and_constructor_agree_on_every_value(key, value):
    """`check` is a rehearsal: what it lets pass can be built, and what it refuses cannot."""
    values = {"label": "x"} | {key: value}
    assert _raises(lambda: check(Method, values, name="method")) == _raises(lambda: Method(**values))


def _raises(call):
    try:
        call()
    except ParameterError as error:
        return error.problems
    return None


@given(st.integers(1, 1000), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_value_within_the_bounds_is_kept_as_it_is(steps, snr):
    method = Method(steps=steps, snr=snr, label="x")

    assert (method.steps, method.snr, type(method.steps)) == (steps, snr, int)


def test_all_problems_are_told_at_once():
    with pytest.raises(ParameterError) as caught:
        check(Method, {"stepz": 1, "steps": 0, "qqqqqq": 1}, name="sampler 'em'")

    assert caught.value.component == "sampler 'em'"
    assert caught.value.problems == (
        "unknown parameter 'stepz'; did you mean 'steps'?",
        "steps must be >= 1, <= 1000 (got 0)",
        "unknown parameter 'qqqqqq'; it takes steps, snr, grid, clip, window, angles, limit, label",
        "label is required: a text, required",
    )


def test_a_class_without_parameters_says_so():
    @attrs.frozen
    class Nothing:
        pass

    with pytest.raises(ParameterError, match="unknown parameter 'x'; it takes no parameters"):
        check(Nothing, {"x": 1}, name="nothing")


def test_parameters_lists_what_is_declared_in_that_order():
    listed = {p.name: p for p in parameters(Method)}

    assert list(listed) == list(LEGAL)
    assert (listed["snr"].default, listed["snr"].unit, listed["snr"].range) == (0.5, "data", "> 0, < 1")
    assert listed["grid"].choices == ("uniform", "quadratic")
    assert [p.name for p in listed.values() if p.required] == ["label"]
    assert [p.type_name for p in listed.values()] == [
        "int",
        "float",
        "'uniform' or 'quadratic'",
        "true or false",
        "(float, float)",
        "(int, ...)",
        "int or none",
        "string",
    ]


def test_fields_that_are_no_parameters_are_left_out():
    @attrs.frozen(kw_only=True)
    class Mixed:
        module: object = None
        width: int = param(1, doc="width")
        derived: int = attrs.field(init=False, default=3)

    assert [p.name for p in parameters(Mixed)] == ["width"]


def test_a_factory_of_defaults_is_called():
    @attrs.frozen(kw_only=True)
    class Made:
        sizes: tuple[int, ...] = param(attrs.Factory(lambda: (1, 2)), doc="sizes")

    assert parameters(Made)[0].default == (1, 2)


def test_lists_become_tuples_at_every_depth():
    @attrs.frozen(kw_only=True)
    class Nested:
        rows: tuple[tuple[int, ...], ...] = param(doc="rows")

    given_lists, given_tuples = Nested(rows=[[1, 2], [3]]), Nested(rows=((1, 2), (3,)))

    assert given_lists == given_tuples
    assert hash(given_lists) == hash(given_tuples)


def test_a_converter_runs_before_the_check():
    @attrs.frozen(kw_only=True)
    class Converted:
        size: tuple[int, int] = param(doc="size", ge=1, converter=lambda v: (v, v) if isinstance(v, int) else tuple(v))

    check(Converted, {"size": 3}, name="converted")
    assert Converted(size=3).size == (3, 3)
    with pytest.raises(ParameterError, match=r"size cannot be 1.5: 'float' object is not iterable"):
        check(Converted, {"size": 1.5}, name="converted")
    with pytest.raises(ParameterError, match=r"size must be >= 1 \(got 0\)"):
        check(Converted, {"size": 0}, name="converted")


@attrs.frozen(kw_only=True)
class Outer:
    """A method that takes another component."""

    sde: Any = param("vp", component="sde", doc="the forward process")


@pytest.mark.parametrize("value", ["vp", {"name": "vp"}, {"name": "vp", "beta_max": 20.0}], ids=repr)
def test_a_component_is_given_by_name_or_table(value):
    assert type(Outer(sde=value).sde).__name__ == "VP"


def test_the_parameters_of_a_table_arrive_and_the_table_is_left_alone():
    table = {"name": "vp", "beta_max": 12.0}

    assert Outer(sde=table).sde.beta_max == 12.0
    assert table == {"name": "vp", "beta_max": 12.0}


def test_a_component_is_given_as_an_object_or_not_at_all():
    thing = object()

    assert Outer(sde=thing).sde is thing
    assert Outer(sde=None).sde is None


def test_a_table_needs_a_name():
    with pytest.raises(ValueError, match=r"a sde given as a table needs a 'name' \(got \['beta_max'\]\)"):
        Outer(sde={"beta_max": 20.0})


@pytest.mark.parametrize("value", [3, 0.5, True, ("vp",), ["vp"]], ids=repr)
def test_a_number_or_a_list_is_no_component(value):
    with pytest.raises(ParameterError, match=r"sde must be the name of a sde, or a table .*, or an object"):
        Outer(sde=value)
    with pytest.raises(ParameterError, match="sde must be the name of a sde"):
        check(Outer, {"sde": value}, name="outer")


def test_the_error_survives_the_way_back_from_a_worker():
    error = ParameterError("sampler 'em'", ["a", "b"])
    copy = pickle.loads(pickle.dumps(error))

    assert (str(copy), copy.component, copy.problems) == ("sampler 'em': a; b", "sampler 'em'", ("a", "b"))
