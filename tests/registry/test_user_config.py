"""The file of `scoreplug disable`: where it is, and how it is read and written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from scoreplug.registry import Registry, Selection
from scoreplug.registry._user_config import read_disabled, user_config, write_disabled


@pytest.mark.parametrize("variable", [{}, {"XDG_CONFIG_HOME": "/etc/mine"}, {"XDG_CONFIG_HOME": "  "}], ids=str)
def test_the_folder_is_that_of_platformdirs(monkeypatch, variable):
    """Which is not asked at each start: its import takes longer than everything else that is read there."""
    for name, value in variable.items():
        monkeypatch.setenv(name, value)

    assert user_config().parent == platformdirs.user_config_path("scoreplug", appauthor=False)


def test_a_variable_replaces_the_folder(tmp_path):
    assert user_config({"SCOREPLUG_CONFIG_DIR": str(tmp_path)}) == tmp_path / "plugins.toml"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere platformdirs is asked")
def test_a_start_reads_it_without_platformdirs_or_a_toml_parser():
    code = (
        "import sys; from scoreplug.registry import Selection; Selection.from_environment(); "
        "print([m for m in ('platformdirs', 'tomllib', 'tempfile') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout == "[]\n"


def test_what_is_written_is_read(tmp_path):
    file = tmp_path / "not" / "there" / "plugins.toml"
    write_disabled(file, ["b", "a:x"])

    assert read_disabled(file) == ("a:x", "b")
    assert [path.name for path in file.parent.iterdir()] == ["plugins.toml"]


def test_without_a_file_nothing_is_disabled(tmp_path):
    (tmp_path / "file").write_text("")

    assert read_disabled(tmp_path / "plugins.toml") == read_disabled(tmp_path / "file" / "plugins.toml") == ()


def test_the_selection_has_what_is_disabled_in_one_spelling(home):
    write_disabled(home / ".config" / "scoreplug" / "plugins.toml", ["Fake_One"])

    assert Selection.from_environment({}).disabled == ("fake-one",)


def test_a_damaged_file_is_a_note_of_the_selection_and_trouble_of_the_registry(tmp_path):
    (tmp_path / "plugins.toml").write_text("disabled")
    selection = Selection.from_environment({"SCOREPLUG_CONFIG_DIR": str(tmp_path)})

    assert selection.disabled == ()
    assert "is not TOML" in selection.notes[0]
    assert selection.notes[0] in Registry(selection).trouble()


def test_a_variable_is_said_before_the_file(site, tmp_path):
    """The variable is the nearer one, and the one that has to go first."""
    site.install_samplers("fake-one", "name='one', summary='s'", module="fake_one_module")
    write_disabled(tmp_path / "plugins.toml", ["fake-one"])
    variables = {"SCOREPLUG_CONFIG_DIR": str(tmp_path), "SCOREPLUG_BLOCK": "fake-one"}
    (plugin,) = [p for p in Registry(Selection.from_environment(variables)).plugins if p.name == "fake-one"]

    assert (plugin.state, plugin.reason) == ("blocked", "named in SCOREPLUG_BLOCK")


def test_the_folder_may_be_any_spelling_of_a_path():
    assert user_config({"SCOREPLUG_CONFIG_DIR": "relative"}) == Path("relative", "plugins.toml")
