"""Which plugins load: blocking, switching off, files."""

from __future__ import annotations

import os

import pytest

from scoreplug.registry import Registry, Selection

FILE = """
from scoreplug import SamplerSpec, hookimpl
class Thing: pass
@hookimpl
def scoreplug_components():
    yield SamplerSpec(name="from-file", summary="s", factory="{module}:Thing")
"""


def states(selection):
    return {plugin.name: (plugin.state, plugin.reason) for plugin in Registry(selection).plugins}


@pytest.fixture
def two_plugins(site):
    site.install_samplers("fake-one", "name='one', summary='s'", module="fake_one")
    site.install_samplers("fake-two", "name='two', summary='s'", module="fake_two")


@pytest.mark.usefixtures("two_plugins")
@pytest.mark.parametrize("name", ["fake-one", "Fake_One", "fake.one"])
def test_a_name_blocks_its_plugin_in_any_spelling(name):
    found = states(Selection.from_environment({"SCOREPLUG_BLOCK": f" {name} ,"}))

    assert found["fake-one"] == ("blocked", "named in SCOREPLUG_BLOCK")
    assert found["fake-two"][0] == found["scoreplug"][0] == "ok"


def test_a_blocked_plugin_is_not_imported(site):
    site.install("fake-bad", {"fake_bad": "raise AssertionError('imported')"}, {"it": "fake_bad"})

    assert states(Selection().with_options(["no:fake-bad"]))["fake-bad"] == ("blocked", "blocked by -p no:fake-bad")


def test_a_distribution_blocks_all_its_plugins_and_a_full_identity_one(site):
    site.install("fake-two", {"fake_a": "", "fake_b": ""}, {"a": "fake_a", "b": "fake_b"})
    whole = states(Selection(blocked={"fake-two": "test"}))
    one = states(Selection().with_options(["no:fake-two:a"]))

    assert whole["fake-two:a"] == whole["fake-two:b"] == ("blocked", "test")
    assert (one["fake-two:a"][0], one["fake-two:b"][0]) == ("blocked", "ok")


@pytest.mark.usefixtures("two_plugins")
def test_without_autoload_the_builtin_plugin_and_files_still_load(tmp_path):
    (tmp_path / "fake_file.py").write_text(FILE.format(module="fake_file"))
    selection = Selection.from_environment({"SCOREPLUG_DISABLE_AUTOLOAD": "1"})
    registry = Registry(selection.with_options([str(tmp_path / "fake_file.py")]))

    assert {p.name: p.state for p in registry.plugins if "fake" in p.name or p.builtin} == {
        "fake-one": "blocked",
        "fake-two": "blocked",
        "scoreplug": "ok",
        "fake_file.py": "ok",
    }
    assert registry.spec("sampler", "fake_file.py:from-file").name == "from-file"


def test_a_file_provides_components_under_its_own_module_name(tmp_path):
    (tmp_path / "fake_local.py").write_text(FILE.format(module="fake_local"))
    registry = Registry(Selection(files=(tmp_path / "fake_local.py",)))

    assert type(registry.get_sampler("from-file")).__name__ == "Thing"


def test_a_file_loads_again_in_a_second_registry(tmp_path):
    (tmp_path / "fake_again.py").write_text(FILE.format(module="fake_again"))
    selection = Selection(files=(tmp_path / "fake_again.py",))
    Registry(selection).list()

    assert Registry(selection).spec("sampler", "from-file")


def test_a_file_cannot_take_the_name_of_a_module(tmp_path):
    """Else `-p json.py` would replace the standard library for everybody."""
    (tmp_path / "colorsys.py").write_text(FILE.format(module="colorsys"))
    (plugin,) = [p for p in Registry(Selection(files=(tmp_path / "colorsys.py",))).plugins if p.name == "colorsys.py"]

    assert plugin.phase == "import"
    assert "rename 'colorsys.py'" in plugin.reason


def test_a_file_that_raises_leaves_no_module_behind(tmp_path):
    (tmp_path / "fake_raises.py").write_text("1 / 0")
    Registry(Selection(files=(tmp_path / "fake_raises.py",))).list()

    assert "fake_raises" not in __import__("sys").modules


def test_files_of_the_environment_load_as_those_of_p(tmp_path):
    """Several, separated as those of PATH; the same file twice is one."""
    for name in ("fake_env_a", "fake_env_b"):
        (tmp_path / f"{name}.py").write_text(FILE.format(module=name))
    paths = [str(tmp_path / name) for name in ("fake_env_a.py", "fake_env_b.py", "fake_env_a.py")]
    selection = Selection.from_environment({"SCOREPLUG_PLUGINS": os.pathsep.join(["", *paths])}).with_options(paths[:1])

    assert [path.name for path in selection.files] == ["fake_env_a.py", "fake_env_b.py"]
    assert {p.state for p in Registry(selection).plugins if p.name.startswith("fake_env")} == {"ok"}


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("nowhere.py", FileNotFoundError, "no plugin file 'nowhere.py', in SCOREPLUG_PLUGINS"),
        ("scoreplug-daps", ValueError, "a plugin file is a Python file .got 'scoreplug-daps', in SCOREPLUG_PLUGINS"),
    ],
)
def test_other_files_of_the_environment_are_refused(value, error, message):
    with pytest.raises(error, match=message):
        Selection.from_environment({"SCOREPLUG_PLUGINS": value})


@pytest.mark.parametrize("option", ["fake-one", "no:", "yes:fake-one"])
def test_other_options_are_refused(option):
    with pytest.raises(ValueError, match=f"-p takes no:NAME.*got '{option}'"):
        Selection().with_options([option])


def test_a_file_that_does_not_exist_is_refused():
    with pytest.raises(FileNotFoundError, match=r"no plugin file 'nowhere.py'"):
        Selection().with_options(["nowhere.py"])


@pytest.mark.parametrize("variable", ["SCOREPLUG_DISABLE_AUTOLOAD", "SCOREPLUG_STRICT"])
def test_a_switch_is_one_or_zero(variable):
    """ "no" must not mean yes."""
    with pytest.raises(ValueError, match=f"{variable} is 1 .on. or 0 .off. .got 'no'."):
        Selection.from_environment({variable: "no"})


def test_the_switches_set_what_they_say():
    on = Selection.from_environment({"SCOREPLUG_DISABLE_AUTOLOAD": "1", "SCOREPLUG_STRICT": "1"})
    off = Selection.from_environment({"SCOREPLUG_DISABLE_AUTOLOAD": "0", "SCOREPLUG_STRICT": ""})

    assert (on.autoload, on.strict) == (False, True)
    assert off == Selection()


@pytest.mark.usefixtures("two_plugins")
def test_blocking_what_is_not_there_is_said(site):
    registry = Registry(Selection().with_options(["no:fake-onee", "no:fake-two"]))

    assert [line for line in registry.trouble() if "fake" in line] == [
        "no plugin 'fake-onee' is installed, so nothing is blocked by that name; did you mean 'fake-one'?"
    ]
