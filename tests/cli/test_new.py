"""`scoreplug new`."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scoreplug.registry.specs import KINDS


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_of_every_kind_is_made_here(scoreplug, here, kind):
    result = scoreplug("new", kind, "my-method")

    assert result.exit_code == 0, result.output
    assert (here / "scoreplug-my-method/src/scoreplug_my_method/my_method.py").is_file()


def test_it_says_what_to_do_next(scoreplug, here):
    lines = scoreplug("new", "operator", "my-method", "--out", "plugins").stdout.splitlines()

    folder = Path("plugins/scoreplug-my-method")
    file = folder / "src/scoreplug_my_method/my_method.py"
    assert lines == [
        f"made {folder}, an operator that works; your equation goes into {file}",
        "",
        "next:",
        f'  scoreplug install -e "{folder}[test]"',
        "  scoreplug check my-method",
        f"  pytest {folder}",
    ]


def test_author_summary_and_workflow_are_options(scoreplug, here):
    scoreplug("new", "sde", "my-sde", "--author", "Ada <ada@example.org>", "--summary", "A schedule", "--no-ci")

    about = tomllib.loads((here / "scoreplug-my-sde/pyproject.toml").read_text())["project"]
    assert about["authors"] == [{"name": "Ada", "email": "ada@example.org"}]
    assert about["description"] == "A schedule"
    assert not (here / "scoreplug-my-sde/.github").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["conditoner", "my-method"], "did you mean 'conditioner'"),
        (["conditioner", "MyMethod"], "did you mean 'my-method'"),
        (["conditioner", "dps"], "take it with --force"),
        (["conditioner", "my-method", "--summary", "It ends."], "without a full stop"),
        (["conditioner", "my-method", "--out", "taken"], "nothing is overwritten"),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(scoreplug, here, args, said):
    (here / "taken/scoreplug-my-method/mine").mkdir(parents=True)
    before = sorted(here.rglob("*"))

    result = scoreplug("new", *args)

    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(here.rglob("*")) == before


def test_a_name_can_be_taken_all_the_same(scoreplug, here):
    result = scoreplug("new", "conditioner", "dps", "--force")

    assert "scoreplug check scoreplug-dps:dps" in result.stdout


def test_no_numerics_are_imported(here):
    code = (
        "import sys; from scoreplug.cli import main\n"
        "main(['new', 'sampler', 'my-sampler'], standalone_mode=False)\n"
        "assert not {'torch', 'numpy', 'scipy', 'skimage', 'matplotlib'} & set(sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
