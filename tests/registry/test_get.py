"""Building components: parameters, and code that does not import."""

from __future__ import annotations

import pytest

from scoreplug.param import ParameterError
from scoreplug.registry import PluginError, Registry, Selection

MODULE = """
import attrs
from scoreplug import ConditionerSpec, SamplerSpec, hookimpl
from scoreplug.param import param

@attrs.frozen(kw_only=True)
class Inner:
    depth: int = param(1, ge=1, doc="depth")

@attrs.frozen(kw_only=True)
class Outer:
    steps: int = param(10, ge=1, doc="steps")
    snr: float = param(0.1, gt=0, doc="ratio")
    name_of: str = param(doc="required")
    inner: Inner = param("inner", component="sampler", doc="another")

    def __attrs_post_init__(self):
        if self.steps == 13:
            raise ValueError("13 steps are one too many")

def function(*, width=1):
    return width

not_a_class = 3

@hookimpl
def scoreplug_components():
    for name, factory in [("inner", "Inner"), ("outer", "Outer"), ("function", "function"), ("number", "not_a_class"),
                          ("absent", "Absent")]:
        yield SamplerSpec(name=name, summary="s", factory=f"fake_get:{factory}", aliases=(f"{name}-alias",))
    yield SamplerSpec(name="unimportable", summary="s", factory="fake_get_broken:Thing")
"""


@pytest.fixture
def registry(site):
    from scoreplug import registry

    broken = "import no_such_module"
    site.install("fake-get", {"fake_get": MODULE, "fake_get_broken": broken}, {"it": "fake_get"})
    made = Registry(Selection())
    registry.use(made)  # a component given by name is looked up in the registry in use
    yield made
    registry.use(None)


def test_a_component_is_built_with_its_parameters(registry):
    outer = registry.get("sampler", "outer-alias", steps=3, name_of="x", inner={"name": "inner", "depth": 4})

    assert (outer.steps, outer.snr, outer.name_of, outer.inner.depth) == (3, 0.1, "x", 4)


def test_all_wrong_parameters_are_named_at_once(registry):
    with pytest.raises(ParameterError) as caught:
        registry.get_sampler("outer", stepz=3, steps=0, snr="high")

    assert caught.value.component == "sampler 'outer'"
    assert [problem.split()[0] for problem in caught.value.problems] == ["unknown", "steps", "snr", "name_of"]
    assert "did you mean 'steps'?" in str(caught.value)


def test_an_error_of_a_component_inside_names_that_one(registry):
    with pytest.raises(ParameterError, match=r"^sampler 'inner': depth must be >= 1 \(got 0\)$"):
        registry.get_sampler("outer", name_of="x", inner={"name": "inner", "depth": 0})


def test_an_error_of_the_constructor_passes_through(registry):
    with pytest.raises(ValueError, match=r"^13 steps are one too many$"):
        registry.get_sampler("outer", name_of="x", steps=13)


def test_a_factory_need_not_be_an_attrs_class(registry):
    assert registry.get_sampler("function", width=7) == 7
    with pytest.raises(ParameterError, match="sampler 'function': got an unexpected keyword argument 'wdith'"):
        registry.get_sampler("function", wdith=7)


def test_code_that_does_not_import_is_reported_with_plugin_and_component(registry):
    with pytest.raises(PluginError, match=r"sampler 'unimportable' of plugin 'fake-get'.*no_such_module") as caught:
        registry.get_sampler("unimportable")

    assert (caught.value.plugin, caught.value.component) == ("fake-get", "sampler 'unimportable'")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_missing_class_is_reported(registry):
    with pytest.raises(PluginError, match=r"'fake_get:Absent' cannot be imported \(AttributeError"):
        registry.get_sampler("absent")


def test_a_factory_that_is_no_class_is_reported(registry):
    with pytest.raises(PluginError, match=r"'fake_get:not_a_class' is not a class \(got 3\)"):
        registry.get_sampler("number")


@pytest.mark.parametrize("kind", ["model", "sde", "operator", "conditioner", "sampler", "problem"])
def test_each_kind_has_its_function(registry, kind):
    """`get_sampler("x")` asks for a sampler, not for some other kind."""
    from scoreplug import registry as package
    from scoreplug.registry import UnknownComponentError

    for owner in (registry, package):
        with pytest.raises(UnknownComponentError, match=f"unknown {kind} 'qqqqqq'"):
            getattr(owner, f"get_{kind}")("qqqqqq")


def test_parameters_may_be_called_kind_and_name(registry):
    """The registry's own arguments are positional, so that they take no name from a component."""
    with pytest.raises(ParameterError, match=r"unknown parameter 'kind'.*unknown parameter 'name'"):
        registry.get("sampler", "inner", kind="x", name="y")
