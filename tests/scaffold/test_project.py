"""What `scoreplug new` writes, before anything of it is run."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scoreplug.registry import UnknownKindError
from scoreplug.registry.specs import KINDS
from scoreplug.scaffold import Project, check_name, objections, settled, write

ROOT = Path(__file__).parents[2]
SHORT, LONG = "x", "a-name-of-twenty-eight-chars"  # lines of the templates are to fit with both


def test_the_folder_is_that_of_a_package(tmp_path):
    folder = write(Project(kind="operator", name="fan-beam"), tmp_path)

    assert folder == tmp_path / "scoreplug-fan-beam"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        ".github/workflows/ci.yml",
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "src/scoreplug_fan_beam/__init__.py",
        "src/scoreplug_fan_beam/fan_beam.py",
        "src/scoreplug_fan_beam/plugin.py",
        "src/scoreplug_fan_beam/py.typed",
        "tests/test_conformance.py",
        "tests/test_fan_beam.py",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["scoreplug-fan-beam"]


def test_the_package_says_what_the_author_said():
    project = Project(
        kind="sde", name="my-sde", author="Ada Lovelace <ada@example.org>", summary="It's a line", ci=False
    )
    files = project.files()

    about = tomllib.loads(files["pyproject.toml"])["project"]
    assert about["name"] == "scoreplug-my-sde"
    assert about["description"] == "It's a line"
    assert about["authors"] == [{"name": "Ada Lovelace", "email": "ada@example.org"}]
    assert about["entry-points"]["scoreplug"] == {"my-sde": "scoreplug_my_sde.plugin"}
    assert 'summary="It\'s a line",' in files["src/scoreplug_my_sde/plugin.py"]
    assert not any(path.startswith(".github") for path in files)


@pytest.mark.parametrize(("author", "authors"), [("", None), ("Ada", [{"name": "Ada"}])])
def test_an_address_and_an_author_may_be_left_out(author, authors):
    files = Project(kind="sde", name="my-sde", author=author).files()

    assert tomllib.loads(files["pyproject.toml"])["project"].get("authors") == authors


@pytest.mark.parametrize("kind", KINDS)
def test_no_placeholder_is_left(kind):
    for path, text in Project(kind=kind, name="my-method").files().items():
        assert "{%" not in text, path
        assert "{package}" not in path, path
        assert "{{" not in text.replace("${{ matrix.python }}", ""), path
        assert text == "" or (text.endswith("\n") and not text.endswith("\n\n")), path


@pytest.mark.parametrize("kind", KINDS)
def test_the_author_is_told_where_equation_and_parameters_go(kind):
    project = Project(kind=kind, name="my-method")
    method = project.files()[project.method]

    assert re.search(r"\((Your|What your) ", method)
    assert "Your parameters here" in method


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [SHORT, LONG])
def test_it_is_clean_for_ruff(tmp_path, kind, name):
    pytest.importorskip("ruff", reason="ruff is not installed")
    folder = write(Project(kind=kind, name=name, author="Ada <a@b.org>", summary="W" * 100), tmp_path)

    for verb in (["check"], ["format", "--diff"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *verb, "--no-cache", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_it_is_clean_for_mypy(tmp_path):
    """All kinds in one run, since mypy takes half a minute to read torch's types."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    sources = [str(write(Project(kind=kind, name=f"my-{kind}"), tmp_path) / "src") for kind in KINDS]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), *sources],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_is_what_is_generated():
    folder = ROOT / "plugins/scoreplug-example"
    renew = "rm -r plugins/scoreplug-example && scoreplug new conditioner example --out plugins"
    expected = Project(kind="conditioner", name="example").files()
    leftovers = ("__pycache__", ".ruff_cache", ".pytest_cache", ".mypy_cache")
    found = {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and not set(path.parts) & set(leftovers)
    }

    differing = sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path))
    assert not differing, f"{', '.join(differing)}: not what the templates make. Renew it: {renew}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("MyMethod", "did you mean 'my-method'"),
        ("my_method", "did you mean 'my-method'"),
        ("2d-blur", "begins with a letter"),
        ("é", "lower case"),
        ("", "lower case"),
        ("scoreplug-daps", "leave it out, 'daps'"),
        ("lambda", "keyword of Python"),
        ("plugin", "'plugin-method'"),
        ("builtin", "scoreplug_builtin"),
        ("a" * 29, "at most 28 characters"),
    ],
)
def test_an_impossible_name_is_refused_with_one_that_would_do(name, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dps", "built-in conditioner, which keeps it: yours would be called scoreplug-dps:dps"),
        ("random", "standard library"),
    ],
)
def test_what_speaks_against_a_name_is_said_and_can_be_overruled(name, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        settled(Project(kind="conditioner", name=name))

    assert settled(Project(kind="conditioner", name=name), force=True).name == name


def test_a_component_whose_name_leads_elsewhere_is_called_by_its_id():
    project = settled(Project(kind="sampler", name="dps"), force=True)

    assert project.called == "scoreplug-dps:dps"
    assert (
        '@parametrize_with_checks("scoreplug-dps:dps", kind="sampler")' in project.files()["tests/test_conformance.py"]
    )
    assert "scoreplug check scoreplug-dps:dps" in project.files()["README.md"]
    assert settled(Project(kind="sampler", name="my-own")).called == "my-own"


def test_the_name_of_another_plugin_is_in_the_way_but_not_ones_own(site):
    from scoreplug import registry

    site.install_samplers("scoreplug-mine", "name='mine', summary='s'", module="mine_plugin")
    site.install_samplers("fake-other", "name='theirs', summary='s', aliases=('alias',)", module="other_plugin")
    registry.use(None)
    try:
        assert objections("mine") == ()
        assert "is the name of a sampler of fake-other" in objections("theirs")[0]
        assert "another name of the sampler 'theirs' of fake-other" in objections("alias")[0]
    finally:
        registry.use(None)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"summary": "It ends."}, "without a full stop: 'It ends'"),
        ({"summary": "two\nlines"}, "one line of text"),
        ({"summary": 'says "so"'}, "without double quotes"),
        ({"author": "back\\slash"}, "backslashes"),
        ({"summary": "W" * 101}, "at most 100 characters"),
        ({"summary": ""}, "one line of text"),
    ],
)
def test_text_that_would_break_the_files_is_refused(about, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Project(kind="sde", name="my-sde", **about)


def test_an_unknown_kind_is_refused():
    with pytest.raises(UnknownKindError, match="did you mean 'conditioner'"):
        Project(kind="conditioners", name="my-method")


def test_nothing_is_overwritten(tmp_path):
    folder = tmp_path / "scoreplug-my-sde"
    folder.mkdir()
    write(Project(kind="sde", name="my-sde"), tmp_path)  # an empty folder is in nobody's way
    (folder / "README.md").write_text("mine")

    with pytest.raises(FileExistsError, match="is not empty, and nothing is overwritten"):
        write(Project(kind="sde", name="my-sde"), tmp_path)

    assert (folder / "README.md").read_text() == "mine"
    (tmp_path / "scoreplug-other").write_text("a file")
    with pytest.raises(FileExistsError, match="is no folder"):
        write(Project(kind="sde", name="other"), tmp_path)


def test_nothing_half_written_is_left_behind(tmp_path, monkeypatch):
    real, written = Path.write_text, []

    def full(self, *args, **kwargs):
        written.append(self)
        if len(written) == 4:
            raise OSError("no space left on device")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space left"):
        write(Project(kind="sde", name="my-sde"), tmp_path)

    assert len(written) == 4
    assert list(tmp_path.iterdir()) == []


def test_the_templates_are_a_folder_for_each_kind():
    folders = {path.name for path in (ROOT / "src/scoreplug/scaffold/templates").iterdir()}

    assert folders == {"common", *KINDS}
