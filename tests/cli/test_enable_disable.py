"""`scoreplug disable` and `enable`: what they write is read by every later command, and by Python."""

from __future__ import annotations

import pytest

from scoreplug import registry
from scoreplug.registry import Registry

FILE = "plugins.toml"


@pytest.fixture
def two(site):
    site.install_samplers("fake-one", "name='one', summary='s'", module="fake_one_module")
    site.install("fake-two", {"fake_a": "", "fake_b": ""}, {"a": "fake_a", "b": "fake_b"})


def states():
    return {plugin.name: plugin.state for plugin in Registry().plugins if plugin.name.startswith("fake")}


@pytest.mark.usefixtures("two")
def test_a_disabled_plugin_is_blocked_until_it_is_enabled(scoreplug, config_folder):
    before = states()
    off = scoreplug("disable", "Fake_One")
    between, shown = states(), scoreplug("plugins").stdout
    on = scoreplug("enable", "fake-one")

    assert off.stdout == f"fake-one is disabled, in {config_folder / FILE}\n"
    assert (before["fake-one"], between["fake-one"], states()["fake-one"]) == ("ok", "blocked", "ok")
    assert "disabled by `scoreplug disable`; `scoreplug enable fake-one` undoes it" in shown
    assert on.stdout == "fake-one is enabled\n"


def test_a_disabled_plugin_is_not_imported(scoreplug, site):
    site.install("fake-bad", {"fake_bad": "raise AssertionError('imported')"}, {"it": "fake_bad"})

    assert scoreplug("disable", "fake-bad").exit_code == 0
    assert scoreplug("list").stderr == ""


@pytest.mark.usefixtures("two")
def test_a_distribution_or_one_of_its_plugins(scoreplug):
    scoreplug("disable", "fake-two:a")
    one = states()
    scoreplug("disable", "fake-two")
    both = states()
    refused = scoreplug("enable", "fake-two:b")

    assert (one["fake-two:a"], one["fake-two:b"]) == ("blocked", "ok")
    assert (both["fake-two:a"], both["fake-two:b"]) == ("blocked", "blocked")
    assert "'fake-two:b' is disabled with all of 'fake-two'; enable that" in refused.stderr


@pytest.mark.usefixtures("two")
def test_twice_is_said_and_no_error(scoreplug, config_folder):
    never = scoreplug("enable", "fake-two")
    untouched = not config_folder.exists()
    scoreplug("disable", "fake-one")
    again = scoreplug("disable", "fake-one")

    assert untouched
    assert (again.exit_code, again.stdout) == (0, "fake-one was disabled already\n")
    assert (never.exit_code, never.stdout) == (0, "fake-two was not disabled\n")


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("verb", ["enable", "disable"])
def test_an_unknown_name_is_answered_with_the_nearest(scoreplug, config_folder, verb):
    result = scoreplug(verb, "fake-two", "fake-on")

    assert result.exit_code == 2
    assert result.stderr == "Error: no plugin 'fake-on' is installed; did you mean 'fake-one'?\n"
    assert not config_folder.exists()  # none of several is disabled if one is wrong


def test_what_was_uninstalled_since_can_be_enabled_and_is_not_complained_of(scoreplug, config_folder):
    config_folder.mkdir()
    (config_folder / FILE).write_text('disabled = ["gone-since"]')
    quiet = scoreplug("list")
    result = scoreplug("enable", "gone-since")

    assert quiet.stderr == ""
    assert result.stdout == "gone-since is enabled\n"
    assert "disabled = []" in (config_folder / FILE).read_text()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("disabled = [", "is not TOML"),
        ("disabled = 'fake-one'", "has a 'disabled' that is not a list of names (got 'fake-one')"),
        ("disabled = [1]", "has a 'disabled' that is not a list of names (got [1])"),
        ("disable = []", "has an unknown key 'disable'"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
@pytest.mark.usefixtures("two")
def test_a_damaged_file_is_one_line_and_the_commands_go_on(scoreplug, config_folder, text, problem):
    config_folder.mkdir()
    (config_folder / FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    listed, plugins = scoreplug("list", "sampler"), scoreplug("plugins")
    refused = scoreplug("disable", "fake-one")

    for result in (listed, plugins):
        (line,) = result.stderr.splitlines()
        assert result.exit_code == 0
        assert line.startswith(f"scoreplug: '{config_folder / FILE}' {problem}")
        assert line.endswith("repair or delete it: no plugin is disabled by it until then")
    assert " one " in listed.stdout
    assert refused.exit_code == 2
    assert problem in refused.stderr


@pytest.mark.usefixtures("two")
def test_a_file_that_cannot_be_written_keeps_what_it_said(scoreplug, config_folder, monkeypatch):
    scoreplug("disable", "fake-one")
    before = (config_folder / FILE).read_text()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    result = scoreplug("disable", "fake-two")

    assert (result.exit_code, result.stderr) == (2, "Error: [Errno 28] No space left on device\n")
    assert [path.name for path in config_folder.iterdir()] == [FILE]
    assert (config_folder / FILE).read_text() == before


@pytest.mark.usefixtures("two")
def test_enable_says_what_still_blocks(scoreplug):
    scoreplug("disable", "fake-one")
    result = scoreplug("enable", "fake-one", env={"SCOREPLUG_BLOCK": "fake-one"})

    assert result.stderr == "scoreplug: fake-one stays blocked, named in SCOREPLUG_BLOCK\n"


@pytest.mark.usefixtures("two")
def test_python_leaves_out_what_is_disabled_too(scoreplug):
    scoreplug("disable", "fake-one")
    registry.use(None)

    with pytest.raises(registry.UnknownComponentError, match="unknown sampler 'one'"):
        registry.find("sampler", "one")
