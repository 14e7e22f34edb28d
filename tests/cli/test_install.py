"""`scoreplug install` and `uninstall`, through pip, in an environment of their own."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import sysconfig

import pytest

from scoreplug.cli import _pip
from scoreplug.cli._snapshot import SeenComponent, SeenPlugin, Snapshot, difference

VERSION = importlib.metadata.version("scoreplug")


def states(environment):
    return {p["name"]: p["version"] for p in json.loads(environment("plugins", "--json").stdout)}


def test_a_plugin_is_installed_upgraded_and_uninstalled(environment):
    environment.sampler("one-plugin", "one-sampler")
    first = environment("install", "one-plugin")
    environment.sampler("one-plugin", "one-sampler", "two-sampler", version="2.0")
    newer = environment("install", "--upgrade", "one-plugin")
    gone = environment("uninstall", "--yes", "one-plugin")

    assert [r.returncode for r in (first, newer, gone)] == [0] * 3, first.stderr + newer.stderr + gone.stderr
    assert first.stdout.splitlines() == [
        "plugin one-plugin 1.0 is installed",
        "new: sampler one-sampler  (plugin one-plugin)",
    ]
    assert newer.stdout.splitlines() == [
        "plugin one-plugin is now at 2.0, from 1.0",
        "new: sampler two-sampler  (plugin one-plugin)",
    ]
    assert gone.stdout.splitlines() == [
        "plugin one-plugin is no longer installed",
        "gone: sampler one-sampler  (plugin one-plugin)",
        "gone: sampler two-sampler  (plugin one-plugin)",
    ]
    assert "Successfully installed one-plugin-1.0" in first.stderr  # pip's own words go through, beside stdout


def test_a_wheel_without_a_plugin_is_said_to_be_none(environment):
    """Given by its path, which has no name that could be read before it is installed."""
    result = environment("install", str(environment.wheel("no-plugin", {"no_plugin": ""}, {})))

    assert result.stdout == "no-plugin is installed, but declares no plugin in the entry-point group 'scoreplug'\n"


def test_a_plugin_that_needs_another_scoreplug_is_not_installed(environment):
    """Else pip would replace the scoreplug that runs, and everything that the user has would change."""
    environment.sampler("wants-older", "x", requires=["scoreplug<0.0.1"])
    environment.sampler("scoreplug", version="0.0.0")  # there is one that would do
    result = environment("install", "wants-older")

    assert (result.returncode, result.stdout) == (1, "")
    assert "nothing was installed; the installer ended with exit code 1" in result.stderr
    assert "conflict" in result.stderr
    assert states(environment)["scoreplug"] == VERSION


def test_a_plugin_that_ends_the_process_can_be_disabled_and_uninstalled(environment):
    """os._exit cannot be caught: only what loads no plugin goes on. Once uninstalled, it is not disabled any more."""
    environment.wheel("kills", {"kills": "import os; os._exit(7)"}, {"it": "kills"})
    installed = environment("install", "kills")
    disabled = environment("disable", "kills")
    listed = environment("plugins")
    gone = environment("uninstall", "-y", "kills")

    assert (installed.returncode, installed.stdout) == (1, "")
    assert "`scoreplug plugins` ended with exit code 7" in installed.stderr
    assert disabled.stdout.startswith("kills is disabled, in ")
    assert "disabled by `scoreplug disable`; `scoreplug enable kills` undoes it" in listed.stdout
    assert (gone.returncode, gone.stdout) == (0, "plugin kills is no longer installed\n")
    assert "disabled = []" in (environment.cwd / "config" / "plugins.toml").read_text()


# what is refused before pip is asked


@pytest.fixture
def no_installer(monkeypatch):
    """Fail if an installer is started."""
    monkeypatch.setattr(subprocess, "call", lambda *args, **kwargs: pytest.fail(f"{args} was called"))


@pytest.mark.usefixtures("no_installer")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "which packages?"),
        (("scoreplug",), "scoreplug itself is no plugin"),
        (("ScorePlug[docs]>=99",), "scoreplug itself is no plugin"),
    ],
)
def test_install_refuses(scoreplug, args, message):
    result = scoreplug("install", *args)

    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.usefixtures("no_installer")
def test_uninstall_suggests_and_says_which_plugin_has_a_component(scoreplug, site, monkeypatch):
    site.install_samplers("fake-plugin", "name='fake-sampler', summary='s'", module="fake_plugin_module")
    monkeypatch.setenv("PYTHONPATH", str(site.path))
    near, component, none = (scoreplug("uninstall", "-y", n) for n in ("fake-plugn", "fake-sampler", "qqq"))

    assert [result.exit_code for result in (near, component, none)] == [2, 2, 2]
    assert near.stderr == "Error: no plugin 'fake-plugn' is installed; did you mean 'fake-plugin'?\n"
    assert component.stderr.endswith("'fake-sampler' is a component of 'fake-plugin'\n")
    assert "the installed plugins are " in none.stderr


@pytest.mark.usefixtures("no_installer")
@pytest.mark.parametrize("verb", ["uninstall", "disable"])
def test_the_builtin_plugin_stays(scoreplug, verb):
    result = scoreplug(verb, "scoreplug")

    assert result.exit_code == 2
    assert "is the built-in plugin" in result.stderr


@pytest.mark.usefixtures("no_installer")
def test_uninstall_asks(scoreplug, site):
    site.install_samplers("fake-plugin", "name='fake-sampler', summary='s'", module="fake_plugin_module")
    result = scoreplug("uninstall", "fake-plugin", input="n\n")

    assert result.exit_code == 1
    assert "Uninstall fake-plugin? [y/N]" in result.stderr


@pytest.mark.usefixtures("no_installer")
def test_an_externally_managed_python_is_left_alone(scoreplug, monkeypatch, tmp_path):
    (tmp_path / "EXTERNALLY-MANAGED").write_text("[externally-managed]\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    result = scoreplug("install", "anything")

    assert result.exit_code == 2
    assert "make a virtual environment" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_virtual_environment_of_a_managed_python_is_not_managed(monkeypatch, tmp_path):
    (tmp_path / "EXTERNALLY-MANAGED").write_text("[externally-managed]\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))

    _pip.refuse_if_managed()


def called(monkeypatch, *, pip, uv="/bin/uv"):
    """Record what would be called."""
    calls = []
    monkeypatch.setattr(_pip.importlib.util, "find_spec", lambda name: object() if pip else None)
    monkeypatch.setattr(_pip.shutil, "which", lambda name: uv)
    monkeypatch.setattr(_pip.subprocess, "call", lambda command, stdout: calls.append(command) or 0)
    return calls


def test_uv_is_taken_where_there_is_no_pip(monkeypatch):
    calls = called(monkeypatch, pip=False)
    _pip.install(["daps"], editables=["./mine"], upgrade=True)
    _pip.uninstall(["daps"])

    install, uninstall = calls
    assert install[:5] == ["/bin/uv", "pip", "install", "--python", sys.executable]
    assert install[5:] == ["--upgrade-package=daps", "--editable=./mine", "daps", f"scoreplug=={VERSION}"]
    assert uninstall == ["/bin/uv", "pip", "uninstall", "--python", sys.executable, "daps"]


def test_pip_is_that_of_this_interpreter(monkeypatch):
    calls = called(monkeypatch, pip=True)
    _pip.install(["daps"], upgrade=True)

    assert calls == [[sys.executable, "-m", "pip", "install", "--upgrade", "daps", f"scoreplug=={VERSION}"]]


def test_a_dry_run_is_the_installers_and_compares_nothing(scoreplug, monkeypatch):
    calls = called(monkeypatch, pip=True)
    result = scoreplug("install", "--dry-run", "daps")

    assert calls[0][3:] == ["install", "--dry-run", "daps", f"scoreplug=={VERSION}"]
    assert (result.exit_code, result.stdout) == (0, "")


def test_what_was_there_already_is_said_to_be_so(scoreplug, monkeypatch, site):
    called(monkeypatch, pip=True)
    site.install_samplers("fake-plugin", "name='x', summary='s'", module="fake_plugin_module")
    monkeypatch.setenv("PYTHONPATH", str(site.path))

    assert scoreplug("install", "fake-plugin").stdout == "nothing changed: it was installed already\n"
    assert scoreplug("install", "click").stdout.startswith("click is installed, but declares no plugin")


def test_the_exit_code_is_the_installers(scoreplug, monkeypatch):
    called(monkeypatch, pip=True)
    monkeypatch.setattr(_pip.subprocess, "call", lambda command, stdout: 3)

    assert scoreplug("install", "daps").exit_code == 3


def test_without_an_installer_it_is_said(scoreplug, monkeypatch):
    called(monkeypatch, pip=False, uv=None)

    assert "has no pip, and there is no uv on the PATH" in scoreplug("install", "daps").stderr


# the difference of two registries


def snapshot(*components, **states):
    seen = {name: SeenPlugin(name=name, version="1.0", state=state, reason="why") for name, state in states.items()}
    made = [
        SeenComponent(kind="sampler", name=n, id=f"{plugin}:{n}", state=state, plugin=plugin, aliases=())
        for plugin, n, state in components
    ]
    return Snapshot(plugins=seen, components=tuple(made))


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (snapshot(a="ok"), snapshot(a="ok"), []),
        (snapshot(a="failed"), snapshot(a="ok"), ["plugin a 1.0 loads now"]),
        (snapshot(), snapshot(a="blocked"), ["blocked: plugin a 1.0: why"]),
        (
            snapshot(("a", "x", "ambiguous"), ("b", "x", "ambiguous"), a="ok", b="ok"),
            snapshot(("a", "x", "ambiguous"), ("b", "x", "ambiguous"), ("c", "x", "ambiguous"), a="ok", b="ok"),
            [
                "new: sampler c:x  (plugin c)",
                "ambiguous: several plugins have a sampler 'x'; its full ids work: a:x or b:x or c:x",
            ],
        ),
        (None, snapshot(("a", "x", "ok"), a="ok"), ["the plugins can be read again: 1 plugins, 1 components"]),
    ],
)
def test_the_difference_has_a_line_for_each_change(before, after, lines):
    assert list(difference(before, after)) == lines
