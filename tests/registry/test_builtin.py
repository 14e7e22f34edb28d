"""The built-in plugin: found like any other, and every line of its table leads to a class."""

from __future__ import annotations

import pytest

from scoreplug import registry
from scoreplug.param import parameters
from scoreplug_builtin.plugin import COMPONENTS


def ident(spec):
    return f"{spec.kind}-{spec.name}"


def test_it_is_found_through_the_group_of_entry_points():
    (builtin,) = [plugin for plugin in registry.plugins() if plugin.builtin]

    assert (builtin.value, builtin.state, builtin.components) == ("scoreplug_builtin.plugin", "ok", COMPONENTS)


@pytest.mark.parametrize("spec", COMPONENTS, ids=ident)
def test_each_factory_imports_and_documents_its_parameters(spec):
    factory = registry.find(spec.kind, spec.name).factory()

    assert factory.__doc__
    assert all(parameter.doc and parameter.type is not None for parameter in parameters(factory))


@pytest.mark.parametrize("spec", COMPONENTS, ids=ident)
def test_each_file_is_named_after_its_method(spec):
    """The folder listing is the table of contents: name, kind and file go together."""
    module = spec.factory.partition(":")[0]

    assert module == f"scoreplug_builtin.{spec.kind}s.{spec.name.replace('-', '_')}"


MEMBERS = {"linear": "adjoint", "pinv": "pinv", "svd": "svd", "log-density": "log_density"}


@pytest.mark.parametrize("spec", [s for s in COMPONENTS if s.kind in ("operator", "model")], ids=ident)
def test_each_spec_provides_what_its_class_has(spec):
    """A run is refused on the word of the spec alone, before the class is imported."""
    factory = registry.find(spec.kind, spec.name).factory()

    assert set(spec.provides) == {capability for capability, member in MEMBERS.items() if hasattr(factory, member)}
