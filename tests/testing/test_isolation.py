"""`isolated_registry`."""

import re

import pytest

from scoreplug import registry
from scoreplug.registry import PluginError
from scoreplug.testing import isolated_registry, run_checks

PLUGIN = """
from scoreplug import SDESpec, hookimpl

@hookimpl
def scoreplug_components():
    yield SDESpec(name="mine", summary="A schedule", factory="scoreplug_builtin.sdes.vp:VP")
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine_plugin.py").write_text(PLUGIN)
    return tmp_path / "mine_plugin.py"


def test_the_files_and_the_built_in_methods_are_there_and_nothing_that_is_installed(site, file):
    site.install_samplers("fake-other", "name='theirs', summary='s'", module="other_plugin")
    with isolated_registry(file) as made:
        assert registry.default() is made
        assert registry.get_sde("mine").beta_max == 20.0
        assert registry.get_sde("vp").beta_max == 20.0
        assert run_checks("mine", level="spec").ok
        with pytest.raises(LookupError, match="unknown sampler 'theirs'"):
            registry.get_sampler("theirs")


def test_the_registry_before_is_back_afterwards_whatever_happens(file):
    before = registry.default()
    with pytest.raises(RuntimeError, match="inside"), isolated_registry(file):
        raise RuntimeError("inside")

    assert registry.default() is before


def test_a_file_that_does_not_load_is_an_error(file):
    file.write_text("raise OSError('broken')")
    with isolated_registry(file), pytest.raises(PluginError, match="broken"):
        registry.list()


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape("no plugin file")), isolated_registry(tmp_path / "no.py"):
        pass
