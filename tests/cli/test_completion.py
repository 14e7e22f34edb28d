"""Completion: the script of each shell, and the names that it offers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from scoreplug import registry
from scoreplug.cli import main


def offered(*words):
    """What is offered for the last of `words`."""
    *args, incomplete = words
    completion = ShellComplete(main, {}, "scoreplug", "_SCOREPLUG_COMPLETE")
    return [item.value for item in completion.get_completions(list(args), incomplete)]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_calls_scoreplug_and_says_where_it_goes(scoreplug, shell):
    result = scoreplug("completion", shell)

    assert result.exit_code == 0
    assert f"_SCOREPLUG_COMPLETE={shell}_complete" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("# ")


def test_without_a_shell_it_is_that_of_the_environment(scoreplug):
    assert scoreplug("completion", env={"SHELL": "/usr/bin/fish"}).stdout == scoreplug("completion", "fish").stdout
    assert (
        "which shell? Say bash, zsh, fish (SHELL says 'tcsh')"
        in scoreplug("completion", env={"SHELL": "/bin/tcsh"}).stderr
    )


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_takes_the_script(scoreplug, tmp_path):
    (tmp_path / "script").write_text(scoreplug("completion", "bash").stdout)
    shown = subprocess.run(
        ["bash", "-c", f"source {tmp_path / 'script'} && complete -p scoreplug"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stdout.rstrip().endswith("_scoreplug_completion scoreplug")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("",), ["list", "show", "run", "rerun", "bench", "train", "check", "new", "plugins", "install", "uninstall"]),
        (("list", "s"), ["sde", "sampler"]),
        (("list", "--provides", "p"), ["pinv"]),
        (("list", "--needs", "sv"), ["svd"]),
        (("list", "--plugin", "scorep"), ["scoreplug"]),
        (("show", "anc"), ["ancestral"]),
        (("show", "dps", "--kind", "c"), ["conditioner"]),
        (("completion", "z"), ["zsh"]),
    ],
)
def test_names_are_offered(words, expected):
    assert offered(*words)[: len(expected)] == expected


def test_plugins_are_offered_where_they_are_asked_for(scoreplug, site):
    site.install_samplers("fake-one", "name='one', summary='s'", module="fake_one_module")
    scoreplug("disable", "fake-one")

    assert [offered(verb, "fake") for verb in ("uninstall", "disable", "enable")] == [["fake-one"]] * 3
    assert offered("uninstall", "scoreplug") == []


def test_the_plugin_options_count_in_completion_too(site):
    site.install_samplers("fake-one", "name='one', summary='s'", module="fake_one_module")

    assert offered("show", "on") == ["one"]
    assert offered("-p", "no:fake-one", "show", "on") == offered("--no-plugins", "show", "on") == []


@pytest.mark.parametrize("variable", [{"SCOREPLUG_STRICT": "maybe"}, {"SCOREPLUG_PLUGINS": "nowhere.py"}])
def test_a_wrong_setting_offers_nothing_and_raises_nothing(monkeypatch, variable):
    for name, value in variable.items():
        monkeypatch.setenv(name, value)

    assert offered("show", "anc") == []


def test_with_broken_plugins_nothing_reaches_the_terminal_and_no_numerics_are_imported(site):
    site.install(
        "fake-loud", {"fake_loud": "import sys; print(1); print(2, file=sys.stderr); 1 / 0"}, {"i": "fake_loud"}
    )
    code = (
        "import sys; from scoreplug.cli import main\ntry: main(prog_name='scoreplug')\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'scipy', 'skimage', 'matplotlib') if m in sys.modules])"
    )
    variables = {"_SCOREPLUG_COMPLETE": "bash_complete", "COMP_WORDS": "scoreplug show ancest", "COMP_CWORD": "2"}
    env = os.environ | variables | {"PYTHONPATH": str(site.path), "SCOREPLUG_STRICT": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)

    assert (result.stdout, result.stderr) == ("plain,ancestral\n[]\n", "")


def test_every_kind_of_name_of_run_is_offered():
    for kind in ("model", "sde", "operator", "conditioner", "sampler"):
        assert offered("run", f"--{kind}", "") == [spec.name for spec in registry.list(kind)]
