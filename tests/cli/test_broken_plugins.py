"""A user does not lose the command line to somebody else's bug: broken plugins, really installed, by pip."""

from __future__ import annotations

import json

import numpy as np
import pytest

HEAD = "from scoreplug import SamplerSpec, hookimpl\n@hookimpl\n"

BROKEN = {
    "bad-import": ("import no_such_module", "failed (import)", "No module named 'no_such_module'"),
    "bad-syntax": ("def broken(:", "failed (import)", "SyntaxError: invalid syntax"),
    "bad-exit": ("raise SystemExit(3)", "failed (import)", "SystemExit: 3"),
    "bad-factory": (
        HEAD + "def scoreplug_components(): yield SamplerSpec(name='x', summary='s', factory='bad_factory')",
        "failed (components)",
        "factory is 'package.module:Class' (got 'bad_factory')",
    ),
    "bad-spec": (
        HEAD + "def scoreplug_components(): yield SamplerSpec(name='X Y', summary='s', factory='m:C')",
        "failed (components)",
        "a component's name is lower case with hyphens",
    ),
    "bad-hook": (
        HEAD + "def scoreplug_component(): return []",
        "failed (hooks)",
        "did you mean 'scoreplug_components'?",
    ),
    "bad-later": ("", "incompatible", "needs scoreplug>=99 (this is "),
}
"""Name: source, state, and the words that explain it."""

RUN = ("run", "--conditioner", "none", "--operator", "identity", "--sampler", "em", "--set", "sampler.steps=2")
RUN += ("--samples", "1")


@pytest.fixture(scope="module")
def crowded(environment):
    """Seven broken plugins, two that use one name for a sampler, and a shadowed one."""
    for name, (source, _, _) in BROKEN.items():
        module = name.replace("-", "_")
        environment.wheel(name, {module: source}, {"it": module})
    environment.sampler("twin-a", "same", "em")
    environment.sampler("twin-b", "same")
    names = [*BROKEN, "twin-a", "twin-b"]
    result = environment("install", *names)
    assert result.returncode == 0, result.stderr
    # pip would not install it, which test_install.py shows: its requirement is written afterwards
    (info,) = environment.folder.rglob("bad_later-1.0.dist-info")
    (info / "METADATA").write_text((info / "METADATA").read_text() + "Requires-Dist: scoreplug>=99\n")
    environment.installed = result
    return environment


def test_install_says_what_is_broken_and_what_collides(crowded):
    lines = crowded.installed.stdout.splitlines()

    for name in [name for name in BROKEN if name != "bad-later"]:
        (line,) = [line for line in lines if line.startswith(f"failed: plugin {name} 1.0: ")]
        assert BROKEN[name][2] in line
    assert "new: sampler twin-a:same  (plugin twin-a)" in lines
    assert "ambiguous: several plugins have a sampler 'same'; its full ids work: twin-a:same or twin-b:same" in lines
    assert "shadowed: sampler 'em' stays the built-in one; the new one is twin-a:em" in lines


def test_plugins_explains_each(crowded):
    result = crowded("plugins")
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}

    assert result.returncode == 0
    for name, (_, state, words) in BROKEN.items():
        assert state in rows[name]
        assert words in rows[name]
    assert " ok " in rows["twin-a"]


def test_list_and_show_go_on(crowded):
    listed, shown = crowded("list", "--json"), crowded("show", "em")
    components = json.loads(listed.stdout)

    assert (listed.returncode, shown.returncode) == (0, 0)
    assert {c["id"]: c["state"] for c in components if c["plugin"].startswith("twin")} == {
        "twin-a:same": "ambiguous",
        "twin-b:same": "ambiguous",
        "twin-a:em": "shadowed",
    }
    assert "id          scoreplug:em" in shown.stdout
    assert listed.stderr == "scoreplug: 7 plugins failed to load; see `scoreplug plugins`\n"


def test_an_ambiguous_name_is_refused_with_both_ids(crowded):
    result = crowded("show", "same")

    assert result.returncode == 2
    assert "ambiguous" in result.stderr
    assert "'twin-a:same' or 'twin-b:same'" in result.stderr


def test_info_and_completion_go_on(crowded):
    info = crowded("info", "--no-devices")
    offered = crowded(_SCOREPLUG_COMPLETE="bash_complete", COMP_WORDS="scoreplug show ancestr", COMP_CWORD="2")

    assert "1.0: failed: ModuleNotFoundError: No module named 'no_such_module'" in info.stdout
    assert (offered.stdout, offered.stderr) == ("plain,ancestral\n", "")


def test_a_run_with_built_in_components_is_the_same_to_the_bit(crowded, scoreplug, tmp_path):
    there = crowded(*RUN, "--out", str(tmp_path / "there"))
    here = scoreplug("--no-plugins", *RUN, "--out", str(tmp_path / "here"), env={"OMP_NUM_THREADS": "1"})

    assert (there.returncode, here.exit_code) == (0, 0), there.stderr
    with np.load(tmp_path / "there" / "arrays.npz") as a, np.load(tmp_path / "here" / "arrays.npz") as b:
        assert a["samples"].shape == (1, 1, 64, 64)
        assert np.array_equal(a["samples"], b["samples"])


def test_uninstall_takes_the_broken_and_the_colliding_ones_away(crowded):
    result = crowded("uninstall", "-y", *BROKEN, "Twin_B")
    lines = result.stdout.splitlines()

    assert result.returncode == 0, result.stderr
    assert [f"plugin {name} is no longer installed" in lines for name in BROKEN] == [True] * 7
    assert "gone: sampler twin-b:same  (plugin twin-b)" in lines
    assert "no longer ambiguous: sampler 'same' is that of twin-a" in lines
    assert crowded("list").stderr == ""
