"""What `scoreplug new` makes is installed, checked, tested, used and removed, as its author would."""

import ast
import re
import shlex

import pytest

from scoreplug.registry.specs import KINDS
from scoreplug.scaffold import Project, write

QUICK = ("conditioner", "sampler", "operator", "sde")


@pytest.fixture(scope="session")
def installed(environment, tmp_path_factory):
    """A package of each kind, installed together: {kind: folder}."""
    place = tmp_path_factory.mktemp("packages")
    folders = {kind: write(Project(kind=kind, name=f"my-{kind}"), place) for kind in KINDS}
    environment.install(*folders.values())
    return folders


def cases(*quick):
    return [kind if kind in quick else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


def blocks(folder, language):
    text = (folder / "README.md").read_text().replace("\\\n", " ")
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


@pytest.mark.parametrize("kind", cases(*QUICK))
def test_its_own_tests_pass(environment, installed, kind):
    """They are the conformance kit, every check at every level, and the facts about the method."""
    done = environment.run(environment.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=installed[kind])

    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed >= 13, done.stdout
    assert " skipped" not in done.stdout or int(re.search(r"(\d+) skipped", done.stdout)[1]) <= 2


def test_scoreplug_lists_all_of_them_and_imports_nothing_heavy(environment, installed):
    listed = environment.scoreplug("list").stdout
    plugins = environment.scoreplug("plugins").stdout

    for kind in installed:
        assert re.search(rf"^{kind} +my-{kind} ", listed, re.M)
        assert re.search(rf"^scoreplug-my-{kind} +0.1.0 +ok +1 +editable", plugins, re.M)
    assert "slows every command down" not in plugins


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_scoreplug_check_passes(environment, installed, kind):
    assert " 0 failed" in environment.scoreplug("check", f"my-{kind}").stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_readme_runs(environment, installed, kind, tmp_path):
    """Its Python as it stands; its commands too, but for the length of a training."""
    folder = installed[kind]
    for example in blocks(folder, "python"):
        assert environment.run(environment.python, "-c", example, cwd=tmp_path).stdout
    for train in folder.glob("train.toml"):
        (tmp_path / "train.toml").write_text(train.read_text())
    commands = [line for body in blocks(folder, "bash") for line in body.splitlines() if line.startswith("scoreplug ")]
    assert len(commands) >= 3
    for command in commands:
        arguments = shlex.split(command)[1:]
        arguments += ["--minutes", "0.05", "--set", "evaluation.images=2"] if arguments[0] == "train" else []
        if arguments[0] == "check":
            continue  # that is the test above
        assert environment.scoreplug(*arguments, cwd=tmp_path).stdout


# Each generated fact can fail: a slip in the method, and its own test notices.

SLIPS = {
    "conditioner": ("level**2 / (s**2 + level**2)", "level**2 / (1 + level**2)"),
    "sampler": ("gain * score", "2 * gain * score"),
    "sde": ("t**self.power", "t**2.0"),
    "operator": ("self.offset : : self.every", "0 : : self.every"),
    "model": ("xbar - level * F", "xbar + level * F"),
    "problem": ("self.std**2 + self.noise_std**2)", "self.std**2 + self.noise_std)"),
}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS])
def test_its_fact_can_fail(environment, tmp_path, kind):
    project = Project(kind=kind, name="slip")
    folder = write(project, tmp_path)
    old, new = (text.replace(" : : ", " :: ") for text in SLIPS[kind])
    method = folder / project.method
    source = method.read_text()
    assert old in source
    method.write_text(source.replace(old, new))
    ast.parse(method.read_text())

    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "pythonpath=src", "tests/test_slip.py"]
    done = environment.run(environment.python, *tests, cwd=folder, check=False)

    assert re.search(r"\d+ failed", done.stdout), done.stdout


@pytest.mark.timeout(300)
def test_from_an_empty_folder(environment, tmp_path):
    """The whole way of an author: new, install, check, run, uninstall."""
    made = environment.scoreplug("new", "conditioner", "my-method", cwd=tmp_path)
    assert "scoreplug check my-method" in made.stdout
    environment.install(tmp_path / "scoreplug-my-method")
    checked = environment.scoreplug("check", "my-method")
    assert " 0 failed" in checked.stdout
    options = ["--conditioner", "my-method", "--sampler", "ancestral", "--set", "sampler.steps=3", "--samples", "1"]
    ran = environment.scoreplug("run", *options, "--out", "out", cwd=tmp_path)
    assert "run directory: out" in ran.stdout
    environment.scoreplug("uninstall", "scoreplug-my-method", "--yes")
    gone = environment.scoreplug("check", "my-method", check=False)
    assert gone.returncode == 2
    assert "unknown component 'my-method'" in gone.stderr
