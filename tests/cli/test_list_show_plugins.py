"""The verbs that look at the registry, and what all verbs share: suggestions, exit codes, one line per error."""

from __future__ import annotations

import json

import pytest

from scoreplug import registry
from scoreplug.cli._main import LazyGroup
from scoreplug.registry.specs import KINDS

FAILING = """
from scoreplug import SamplerSpec, hookimpl
@hookimpl
def scoreplug_components():
    yield SamplerSpec(name="failing", summary="s", factory="fake_failing_code:Thing")
"""


@pytest.fixture
def broken(site):
    """Two plugins that do not load, and one that asks for another scoreplug."""
    site.install("fake-bad", {"fake_bad": "import no_such_module"}, {"it": "fake_bad"})
    site.install("fake-exit", {"fake_exit": "raise SystemExit('bye')"}, {"it": "fake_exit"})
    site.install("fake-later", {"fake_later": ""}, {"it": "fake_later"}, requires=["scoreplug>=99"])


# list


def test_list_names_every_component_with_its_kind(scoreplug):
    lines = scoreplug("list").stdout.splitlines()

    assert lines[0].split() == ["KIND", "NAME", "SUMMARY"]
    assert [line.split()[:2] for line in lines[1:]] == [[c.spec.kind, c.name] for c in registry.components()]


@pytest.mark.parametrize("kind", KINDS)
def test_list_takes_a_kind(scoreplug, kind):
    result = scoreplug("list", kind)

    assert result.exit_code == 0
    assert {line.split()[0] for line in result.stdout.splitlines()[1:]} <= {kind}


def test_list_json_has_the_whole_spec(scoreplug):
    dps = next(item for item in json.loads(scoreplug("list", "conditioner", "--json").stdout) if item["name"] == "dps")

    assert (dps["id"], dps["state"], dps["plugin"], dps["vjp"]) == ("scoreplug:dps", "ok", "scoreplug", True)
    assert dps["references"] == ["arXiv:2209.14687"]


def test_list_refuses_an_unknown_kind_with_a_suggestion(scoreplug):
    result = scoreplug("list", "samplers")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: unknown kind 'samplers'; did you mean 'sampler'?\n"


def test_list_shows_shadowed_and_ambiguous_components_under_their_full_ids(site, scoreplug):
    site.install_samplers("fake-a", "name='em', summary='s'", "name='same', summary='s'", module="fake_a")
    site.install_samplers("fake-b", "name='same', summary='s'", module="fake_b")
    lines = scoreplug("list", "sampler").stdout.splitlines()

    assert any("fake-a:em " in line and line.endswith("shadowed: 'em' is built in") for line in lines)
    for name in ("fake-a:same ", "fake-b:same "):
        assert any(name in line and line.endswith("ambiguous: several plugins have a 'same'") for line in lines)


@pytest.mark.usefixtures("broken")
def test_list_goes_on_without_broken_plugins_and_says_so_once(scoreplug):
    result = scoreplug("list", "--json")

    assert result.exit_code == 0
    assert [item["name"] for item in json.loads(result.stdout)] == [s.name for s in registry.list()]
    assert result.stderr == "scoreplug: 3 plugins failed to load; see `scoreplug plugins`\n"


def test_the_matrix_says_what_goes_with_what(scoreplug):
    text = scoreplug("list", "--matrix").stdout

    columns = next(line for line in text.splitlines() if line.startswith("SAMPLER \\ CONDITIONER")).split()[3:]
    row = next(line for line in text.splitlines() if line.startswith("ancestral")).split()
    assert dict(zip(columns, row[1:], strict=True))["DPS"] == "published"
    assert "conditioner 'ddrm' needs an operator with svd; 'multi-coil-fourier' provides linear, pinv. Use" in text
    assert "'mala' is exact with log-density, which model 'openai-unet' does not provide; it approximates" in text


def test_the_matrix_as_json_has_an_object_for_each_pair(scoreplug):
    pairs = json.loads(scoreplug("list", "--matrix", "--json").stdout)

    (pair,) = [p for p in pairs if (p.get("conditioner"), p.get("operator")) == ("song", "hdr")]
    assert pair["state"] == "refused"
    assert {p["state"] for p in pairs} == {"published", "runs", "approximate", "refused"}


@pytest.mark.parametrize(("args", "left_out"), [(("sampler",), "KIND"), (("--needs", "svd"), "--needs")])
def test_the_matrix_is_of_all_kinds(scoreplug, args, left_out):
    assert f"--matrix shows all kinds: leave {left_out} out" in scoreplug("list", *args, "--matrix").stderr


def names(scoreplug, *args):
    result = scoreplug("list", *args, "--json")
    assert result.exit_code == 0, result.stderr
    return [item["name"] for item in json.loads(result.stdout)]


@pytest.mark.parametrize(
    ("args", "holds"),
    [
        (("--provides", "svd"), lambda spec: "svd" in getattr(spec, "provides", ())),
        (("--needs", "svd"), lambda spec: "svd" in getattr(spec, "needs", ())),
        (("conditioner", "--provides", "twist"), lambda spec: "twist" in getattr(spec, "provides", ())),
        (("--reference", "arXiv:2209.14687"), lambda spec: "arXiv:2209.14687" in spec.references),
        (("--reference", "https://arxiv.org/abs/2209.14687v4"), lambda spec: "arXiv:2209.14687" in spec.references),
        (("--reference", "https://doi.org/10.2307/3318418"), lambda spec: "doi:10.2307/3318418" in spec.references),
        (("--search", "langevin"), lambda spec: "langevin" in str(spec).lower()),
        (("--plugin", "scoreplug"), lambda spec: True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_list_shows_what_a_filter_lets_through_and_nothing_else(scoreplug, args, holds):
    kind = args[0] if args[0] in KINDS else None
    found = names(scoreplug, *args)

    assert found
    assert found == [spec.name for spec in registry.list(kind) if holds(spec)]


def test_several_filters_all_hold(scoreplug):
    assert names(scoreplug, "--search", "spectral", "--needs", "svd") == ["ddrm"]
    assert names(scoreplug, "sampler", "--search", "LANGEVIN metropolis") == ["mala"]


def test_list_of_a_plugin(site, scoreplug):
    site.install_samplers("fake-a", "name='em', summary='s'", "name='other', summary='s'", module="fake_a")

    assert names(scoreplug, "--plugin", "fake-a") == ["em", "other"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--provides", "svdd"), "Error: nothing provides 'svdd'; did you mean 'svd'?\n"),
        (("--needs", "pnv"), "Error: nothing needs 'pnv'; did you mean 'pinv'?\n"),
        (("--plugin", "scoreplg"), "Error: no plugin 'scoreplg' is loaded; did you mean 'scoreplug'?\n"),
    ],
)
def test_a_filter_with_a_slip_of_the_pen_is_refused(scoreplug, args, message):
    result = scoreplug("list", *args)

    assert (result.exit_code, result.stderr) == (2, message)


def test_a_filter_that_nothing_passes_is_no_error(scoreplug):
    result = scoreplug("list", "--search", "no such words anywhere")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no component matches\n")


def test_an_example_that_json_has_no_word_for_does_not_stop_the_list(site, scoreplug):
    site.install_samplers("fake-a", "name='odd', summary='s', example={'x': {1, 2}}", module="fake_a")

    assert "odd" in names(scoreplug)


# plugins


@pytest.mark.usefixtures("broken")
def test_plugins_shows_state_and_reason_of_each(scoreplug):
    result = scoreplug("plugins")
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}

    assert (result.exit_code, result.stderr) == (0, "")
    assert "failed (import)" in rows["fake-bad"]
    assert rows["fake-bad"].endswith("ModuleNotFoundError: No module named 'no_such_module'")
    assert rows["fake-exit"].endswith("SystemExit: bye")
    assert "incompatible" in rows["fake-later"]
    assert "needs scoreplug>=99 (this is" in rows["fake-later"]
    assert " ok " in rows["scoreplug"]
    assert "Traceback" not in result.stdout


@pytest.mark.usefixtures("broken")
def test_plugins_verbose_adds_the_tracebacks(scoreplug):
    text = scoreplug("plugins", "-v").stdout

    assert text.count("Traceback (most recent call last)") == 2
    assert "fake_bad.py" in text


@pytest.mark.usefixtures("broken")
def test_plugins_failed_and_json(scoreplug):
    shown = json.loads(scoreplug("plugins", "--failed", "--json").stdout)

    assert [plugin["name"] for plugin in shown] == ["fake-bad", "fake-exit", "fake-later"]
    assert [plugin["phase"] for plugin in shown] == ["import", "import", None]
    assert shown[2]["requirement"].startswith("scoreplug>=99")


def test_plugins_shows_where_a_plugin_comes_from(site, scoreplug):
    record = '{"url": "https://x.org/p.git", "vcs_info": {"vcs": "git", "commit_id": "ab12"}}'
    site.install("fake-vcs", {"fake_vcs": ""}, {"it": "fake_vcs"}, direct_url=record)
    (shown,) = [p for p in json.loads(scoreplug("plugins", "--json").stdout) if p["name"] == "fake-vcs"]

    assert (shown["url"], shown["commit"]) == ("https://x.org/p.git", "ab12")
    assert "https://x.org/p.git at ab12" in scoreplug("plugins").stdout


def test_requirements_make_the_same_again(site, scoreplug, tmp_path):
    good = "from scoreplug import hookimpl\n@hookimpl\ndef scoreplug_components(): return []"
    sources = {
        "fake-index": None,
        "fake-vcs": '{"url": "https://x.org/p", "vcs_info": {"vcs": "git", "commit_id": "ab12"}, "subdirectory": "s"}',
        "fake-editable": '{"url": "file:///my%20folder/p", "dir_info": {"editable": true}}',
        "fake-wheel": '{"url": "file:///wheels/p.whl", "archive_info": {}}',
    }
    for name, record in sources.items():
        module = name.replace("-", "_")
        site.install(name, {module: good}, {"it": module}, direct_url=record)
    site.install("fake-both", {"both_a": good, "both_b": good}, {"a": "both_a", "b": "both_b"}, version="2.1")
    site.install("fake-bad", {"fake_bad": "1 / 0"}, {"it": "fake_bad"})
    (tmp_path / "fake_listed.py").write_text(good)
    lines = scoreplug("-p", str(tmp_path / "fake_listed.py"), "plugins", "--requirements").stdout.splitlines()

    assert [line for line in lines if "fake" in line or "my folder" in line] == [
        "fake-both==2.1",
        "-e /my folder/p",
        "fake-index==1.0",
        "fake-vcs @ git+https://x.org/p@ab12#subdirectory=s",
        "fake-wheel @ file:///wheels/p.whl",
        f"# {tmp_path / 'fake_listed.py'}: a file, to be given to -p",
    ]


def test_requirements_stand_alone(scoreplug):
    assert "--requirements stands alone" in scoreplug("plugins", "--requirements", "--json").stderr


# show


def test_show_has_the_parameters_as_they_are_declared(scoreplug):
    result = scoreplug("show", "em")
    (steps,) = [line for line in result.stdout.splitlines() if line.startswith("steps")]

    assert result.exit_code == 0
    assert steps.split()[:5] == ["steps", "int", "1000", ">=", "1"]
    assert "id          scoreplug:em" in result.stdout
    assert "arXiv:2011.13456" in result.stdout


def test_show_json_has_defaults_ranges_and_choices(scoreplug):
    shown = json.loads(scoreplug("show", "scoreplug:em", "--json").stdout)
    parameters = {parameter["name"]: parameter for parameter in shown["parameters"]}

    assert (parameters["steps"]["default"], parameters["steps"]["range"]) == (1000, ">= 1")
    assert "uniform" in parameters["grid"]["choices"]
    assert shown["factory"] == "scoreplug_builtin.samplers.em:EulerMaruyama"


@pytest.mark.parametrize("component", registry.components(), ids=lambda component: component.id)
def test_show_knows_every_component(scoreplug, component):
    assert scoreplug("show", component.name, "--kind", component.spec.kind).exit_code == 0


def test_show_suggests_over_all_kinds(scoreplug):
    result = scoreplug("show", "ancestrl")

    assert result.exit_code == 2
    assert result.stderr.startswith("Error: unknown component 'ancestrl'; did you mean 'ancestral'?")


def test_show_asks_for_the_kind_where_several_have_the_name(site, scoreplug):
    site.install_samplers("fake-a", "name='dps', summary='a sampler of that name'", module="fake_a")
    result = scoreplug("show", "dps")

    assert result.exit_code == 2
    assert "add --kind conditioner or --kind sampler" in result.stderr
    assert "a sampler of that name" in scoreplug("show", "dps", "--kind", "sampler").stdout


def test_show_of_a_component_that_does_not_import_shows_the_spec_and_fails(site, scoreplug):
    site.install("fake-failing", {"fake_failing": FAILING, "fake_failing_code": "1 / 0"}, {"it": "fake_failing"})
    result = scoreplug("show", "failing")

    assert result.exit_code == 1
    assert "id          fake-failing:failing" in result.stdout
    assert result.stderr.startswith("Error: sampler 'failing' of plugin 'fake-failing' is not usable")
    assert "Traceback" not in result.stderr


# what all verbs have in common


VERBS = ["list", "show", "run", "rerun", "bench", "train", "check", "new"]
VERBS += ["plugins", "install", "uninstall", "enable", "disable", "info", "completion"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(scoreplug, verb):
    result = scoreplug(verb, "--help")

    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: scoreplug {verb} [OPTIONS]")


def test_help_lists_every_verb(scoreplug):
    text = scoreplug("--help").stdout

    lines = text.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines if line[2:3].strip()] == VERBS


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("lst", "list"), ("plugin", "plugins"), ("trian", "train"), ("rnu", "run"), ("instal", "install")],
)
def test_an_unknown_verb_is_answered_with_the_nearest(scoreplug, typed, meant):
    """Over all verbs: click alone knows only those that are imported."""
    result = scoreplug(typed)

    assert result.exit_code == 2
    assert f"no such command '{typed}'; did you mean '{meant}'?" in result.stderr


def test_an_unknown_verb_without_a_near_one_is_answered_with_all(scoreplug):
    assert f"the commands are {', '.join(VERBS)}" in scoreplug("qqqqqq").stderr


def test_traceback_raises_the_error_itself(scoreplug):
    result = scoreplug("--traceback", "show", "ancestrl")

    assert isinstance(result.exception, registry.UnknownComponentError)


@pytest.mark.usefixtures("broken")
def test_strict_plugins_stops_at_a_broken_one(scoreplug):
    result = scoreplug("--strict-plugins", "list")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: plugin 'fake-bad' did not load")


@pytest.mark.usefixtures("broken")
def test_no_plugins_leaves_the_builtin_one(scoreplug):
    result = scoreplug("--no-plugins", "plugins", "--json")
    states = {plugin["name"]: plugin["state"] for plugin in json.loads(result.stdout)}

    assert states.pop("scoreplug") == "ok"
    assert set(states.values()) == {"blocked"}


@pytest.mark.usefixtures("broken")
def test_p_no_blocks_a_plugin(scoreplug):
    result = scoreplug("-p", "no:fake-bad", "-p", "no:fake-exit", "-p", "no:fake-later", "list")

    assert (result.exit_code, result.stderr) == (0, "")


def test_p_with_a_name_that_is_not_there_says_so(scoreplug):
    assert "no plugin 'fake-bad' is installed" in scoreplug("-p", "no:fake-bad", "list").stderr
    assert "no plugin 'fake-bad' is installed" in scoreplug("-p", "no:fake-bad", "plugins").stderr


def test_p_loads_a_file(tmp_path, scoreplug):
    file = tmp_path / "fake_given.py"
    file.write_text(FAILING.replace("failing", "from-a-file", 1))

    assert "from-a-file" in scoreplug("-p", str(file), "list", "sampler").stdout


@pytest.mark.parametrize(
    ("option", "message"),
    [("fake-bad", "-p takes no:NAME"), ("nowhere.py", "there is no plugin file 'nowhere.py'")],
)
def test_other_values_of_p_are_refused(scoreplug, option, message):
    result = scoreplug("-p", option, "list")

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


@pytest.mark.usefixtures("broken")
def test_the_environment_selects_too(scoreplug):
    blocked = scoreplug("list", env={"SCOREPLUG_BLOCK": "fake-bad,fake-exit,fake-later"})
    strict = scoreplug("list", env={"SCOREPLUG_STRICT": "1"})
    wrong = scoreplug("list", env={"SCOREPLUG_STRICT": "yes"})

    assert (blocked.exit_code, blocked.stderr) == (0, "")
    assert strict.exit_code == 1
    assert (wrong.exit_code, wrong.stderr) == (2, "Error: SCOREPLUG_STRICT is 1 (on) or 0 (off) (got 'yes')\n")


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (ValueError("steps must be >= 1"), 2, "Error: steps must be >= 1\n"),
        (FileNotFoundError("no config 'x.toml'"), 2, "Error: no config 'x.toml'\n"),
        (KeyError("grid"), 1, "Error: KeyError: 'grid' (`scoreplug --traceback ...` shows where)\n"),
        (
            RuntimeError("out of memory"),
            1,
            "Error: RuntimeError: out of memory (`scoreplug --traceback ...` shows where)\n",
        ),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(scoreplug, monkeypatch, error, exit_code, message):
    """2 for what the user gave, 1 for what went wrong on the way."""

    def fail(kind=None):
        raise error

    monkeypatch.setattr(registry, "components", fail)
    result = scoreplug("list")

    assert (result.exit_code, result.stderr) == (exit_code, message)


@pytest.mark.parametrize("args", [("--help", "-p", "no:fake-bad"), ("-p", "no:fake-bad", "--help")])
def test_help_knows_the_plugin_options_wherever_they_stand(scoreplug, monkeypatch, args):
    """What --help lists may depend on the plugins, so that -p is read first."""
    seen = []
    monkeypatch.setattr(LazyGroup, "format_commands", lambda self, ctx, formatter: seen.append(ctx.params["options"]))
    scoreplug(*args)

    assert seen == [("no:fake-bad",)]
