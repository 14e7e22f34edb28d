"""`scoreplug show --toml` and `--bibtex`: text that goes into a config, and into a paper."""

from __future__ import annotations

import collections
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import scoreplug_builtin.plugin
from scoreplug import registry
from scoreplug.cli._bibtex import entries, identifier, minimal, parse
from scoreplug.cli._toml import literal
from scoreplug.param import parameters
from scoreplug.run.config import ConfigError, demo
from scoreplug.run.overrides import layered
from scoreplug.run.resolve import resolve

BUILTIN = [c for c in registry.components() if c.plugin.builtin]
IN_A_RUN = [c for c in BUILTIN if c.spec.kind != "problem"]
SHAPE = "image_shape"  # of an operator: a run takes that of its model
BIB = Path(scoreplug_builtin.plugin.__file__).with_name("references.bib")


def toml(scoreplug, component):
    result = scoreplug("show", component.id, "--kind", component.spec.kind, "--toml")
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("component", BUILTIN, ids=lambda c: c.id)
def test_the_stub_is_toml_and_has_every_parameter(scoreplug, component):
    text = toml(scoreplug, component)
    table = tomllib.loads(text)[component.spec.kind]

    declared = parameters(component.factory())
    required = [p.name for p in declared if p.required and p.name in component.spec.example]
    assert list(table) == ["name", *(name for name in required if component.spec.kind != "operator" or name != SHAPE)]
    for parameter in declared:
        assert f"{parameter.name} =" in text


@pytest.mark.parametrize("component", BUILTIN, ids=lambda c: c.id)
def test_what_is_commented_out_is_the_default(scoreplug, component):
    """Uncommented, each line means what leaving it out means."""
    lines = [line.removeprefix("# ") for line in toml(scoreplug, component).splitlines() if line.startswith("# ")]
    defaults = {p.name: p.default for p in parameters(component.factory()) if not p.required}
    shown = [line for line in lines if line.split(" =")[0] in defaults and not line.endswith("by default not given")]

    for name, value in tomllib.loads("\n".join(shown)).items():
        assert tuple_of(value) == tuple_of(defaults[name])


def tuple_of(value):
    return tuple(map(tuple_of, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("component", IN_A_RUN, ids=lambda c: c.id)
def test_the_stub_is_a_table_of_a_run(scoreplug, component):
    """It may be refused for what it does not go with, but not for what it says."""
    problems = refusal(layered(demo(), tomllib.loads(toml(scoreplug, component))))

    assert all("unknown" not in problem and "must be" not in problem for problem in problems)


def refusal(table):
    try:
        resolve(table)
    except ConfigError as error:
        return error.problems
    return ()


OPERATOR = "[operator]\nname = 'inpainting'\n"


@pytest.mark.parametrize("name", ["dps", "ddrm", "pigdm", "song"])
def test_a_stub_pasted_into_a_config_runs(scoreplug, tmp_path, name):
    component = registry.find("conditioner", name)
    (tmp_path / "config.toml").write_text(
        toml(scoreplug, component) + "\n[sampler]\nname = 'em'\nsteps = 2\n" + OPERATOR
    )
    result = scoreplug("run", str(tmp_path / "config.toml"), "--dry-run", "--out", str(tmp_path / "out"))

    assert result.exit_code == 0, result.stderr
    assert tomllib.loads(result.stdout)["conditioner"]["name"] == name


def test_a_shadowed_component_keeps_its_full_id(scoreplug, site):
    site.install_samplers("fake-a", "name='em', summary='s'", module="fake_a")

    assert tomllib.loads(scoreplug("show", "fake-a:em", "--toml").stdout) == {"sampler": {"name": "fake-a:em"}}


@pytest.mark.parametrize(
    "value", [1, 0.5, 1e-9, float("inf"), True, 'a"b\\', "x\ny", [1, [2.5, "a"]], (), {"name": "em", "a b": [1]}]
)
def test_a_literal_is_one_line_that_means_the_value(value):
    text = literal(value)

    assert "\n" not in text
    assert tuple_of(tomllib.loads(f"v = {text}")["v"]) == tuple_of(value)


def test_what_toml_has_no_word_for_is_refused():
    with pytest.raises(TypeError):
        literal([object()])


# BibTeX


@pytest.mark.parametrize("reference", sorted({r for c in BUILTIN for r in c.spec.references}))
def test_every_reference_of_a_builtin_has_an_entry(reference):
    shipped = {name: entry for _, entry, names in parse(BIB.read_text()) for name in names}

    entry = shipped[identifier(reference)]
    for field in ("title", "year"):
        assert f"\n  {field} = {{" in entry


def test_no_two_entries_have_one_key_or_one_identifier_and_none_is_without_use():
    parsed = list(parse(BIB.read_text()))
    wanted = {identifier(r) for c in BUILTIN for r in c.spec.references}

    assert BIB.read_text().count("\n@") == len(parsed)
    assert max(collections.Counter(key for key, _, _ in parsed).values()) == 1
    assert max(collections.Counter(name for _, _, names in parsed for name in names).values()) == 1
    assert all(wanted & set(names) for _, _, names in parsed)


def test_bibtex_prints_the_entries_in_the_order_of_the_references(scoreplug):
    text = scoreplug("show", "decoupled", "--bibtex").stdout
    parsed = [names[0] for _, _, names in parse(text)]

    assert parsed == list(map(identifier, registry.spec("sampler", "decoupled").references))
    assert "Wu, Zihui" in text


def test_bibtex_of_a_component_without_references_says_so(scoreplug):
    result = scoreplug("show", "none", "--bibtex")

    assert (result.stdout, result.stderr) == ("", "conditioner 'none' has no references\n")


SPECS = """
from scoreplug import SamplerSpec, hookimpl
@hookimpl
def scoreplug_components():
    yield SamplerSpec(
        name="cited", summary="s", factory="fake_pkg.m:C", references=("arXiv:2101.00001", "doi:10.1000/AbC", "a book")
    )
"""
MINIMAL = "@misc{arxiv-2101-00001,\n  eprint = {2101.00001},\n  archiveprefix = {arXiv},\n"


@pytest.mark.parametrize(
    ("bib", "first"),
    [
        (None, MINIMAL),
        ("@article{me, title = {T}", MINIMAL),
        ("@article{me,\n  title = {{T}},\n  EPRINT = {2101.00001v3},\n}", "@article{me,\n  title = {{T}},\n"),
    ],
    ids=["no file", "a damaged file", "a file"],
)
def test_a_plugin_ships_its_entries_beside_its_specs(scoreplug, site, bib, first):
    site.install("fake-pkg", {"fake_pkg.__init__": "", "fake_pkg.plugin": SPECS}, {"it": "fake_pkg.plugin"})
    if bib is not None:
        (site.path / "fake_pkg" / "references.bib").write_text(bib)
    text = scoreplug("show", "cited", "--bibtex").stdout

    assert text.startswith(first)
    assert "@misc{doi-10-1000-abc,\n  doi = {10.1000/AbC},\n}" in text
    assert "note = {a book}" in text


def test_a_plugin_of_one_file_has_its_entries_beside_it(scoreplug, tmp_path):
    (tmp_path / "fake_cited.py").write_text(SPECS)
    (tmp_path / "references.bib").write_text("@book{me,\n  doi = {10.1000/abc},\n}\n")

    assert "@book{me,\n" in scoreplug("-p", str(tmp_path / "fake_cited.py"), "show", "cited", "--bibtex").stdout


@pytest.mark.parametrize(
    ("spellings", "expected"),
    [
        (
            ("arXiv:2209.14687", "ARXIV: 2209.14687v2", "2209.14687", "https://arxiv.org/pdf/2209.14687v1"),
            "arxiv:2209.14687",
        ),
        (("arXiv:hep-lat/9208011", "http://arxiv.org/abs/hep-lat/9208011"), "arxiv:hep-lat/9208011"),
        (("doi:10.2307/AbC", "https://doi.org/10.2307/abc", "10.2307/abc"), "doi:10.2307/abc"),
        (("https://x.org/a",), "https://x.org/a"),
    ],
)
def test_one_reference_has_one_identifier(spellings, expected):
    assert {identifier(text) for text in spellings} == {expected}


def test_an_entry_of_an_address_has_the_address():
    assert "url = {https://openreview.net/forum?id=Ab_C}" in minimal("https://openreview.net/forum?id=Ab_C")


def test_bibtex_imports_no_numerics():
    code = (
        "import sys; from scoreplug.cli import main; main(['show', 'dps', '--bibtex'], standalone_mode=False); "
        "print([m for m in ('torch', 'numpy', 'scipy', 'skimage', 'matplotlib') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.startswith("@inproceedings{chung2023diffusion,")
    assert result.stdout.endswith("[]\n")


def test_a_problem_is_of_a_suite_and_not_of_a_run(scoreplug):
    component = registry.find("problem", "gaussian")

    assert "scoreplug bench" in toml(scoreplug, component)
    assert entries(component) == []


@pytest.mark.parametrize("flags", [("--json", "--toml"), ("--toml", "--bibtex")])
def test_one_form_at_a_time(scoreplug, flags):
    assert "exclude each other" in scoreplug("show", "dps", *flags).stderr
