"""What is imported when: the commands that only look things up are quick because they import no numerics."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys

import pytest

import scoreplug

NUMERICS = ("torch", "numpy", "scipy", "skimage", "matplotlib")

CALL = "import sys; from scoreplug.cli import main; main({args!r}, prog_name='scoreplug', standalone_mode=False)"
REPORT = "; print([m for m in {modules!r} if m in sys.modules], file=sys.stderr)"


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | env
    )


@pytest.mark.parametrize(
    "args",
    [["list"], ["list", "--json"], ["list", "sampler"], ["plugins"], ["plugins", "-v"], ["--help"], ["--version"]],
    ids=" ".join,
)
def test_looking_things_up_imports_no_numerics(args):
    code = CALL.format(args=args) + REPORT.format(modules=NUMERICS)

    assert python(code).stderr.splitlines()[-1] == "[]"


VERBS = ["list", "show", "run", "rerun", "bench", "train", "check", "new", "plugins", "install", "uninstall"]
VERBS += ["enable", "disable", "info", "completion"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_imports_no_numerics(verb):
    code = CALL.format(args=[verb, "--help"]) + REPORT.format(modules=NUMERICS)

    assert python(code).stderr.splitlines()[-1] == "[]"


def test_help_imports_no_verb():
    """The short texts of --help stand beside the import paths."""
    code = (
        CALL.format(args=["--help"])
        + "; print([m for m in sys.modules if m.startswith('scoreplug.cli.')], file=sys.stderr)"
    )

    assert python(code).stderr.splitlines()[-1] == "['scoreplug.cli._main']"


@pytest.mark.parametrize(
    ("words", "index", "expected"),
    [
        ("scoreplug ", 1, VERBS),
        ("scoreplug pl", 1, ["plugins"]),
        ("scoreplug list s", 2, ["sde", "sampler"]),
        ("scoreplug show anc", 2, ["ancestral"]),
    ],
)
def test_completion_imports_no_numerics(words, index, expected):
    code = "import sys; from scoreplug.cli import main\ntry: main(prog_name='scoreplug')\nexcept SystemExit: pass\n"
    code += REPORT.format(modules=NUMERICS).lstrip("; ")
    result = python(code, _SCOREPLUG_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(index))

    assert [line.partition(",")[2] for line in result.stdout.splitlines()] == expected
    assert result.stderr.splitlines()[-1] == "[]"


def test_import_scoreplug_imports_no_numerics():
    code = "import sys, scoreplug" + REPORT.format(modules=NUMERICS)

    assert python(code).stderr == "[]\n"


def test_every_public_name_is_there():
    for name in scoreplug.__all__:
        assert getattr(scoreplug, name) is not None
    assert set(scoreplug.__all__) <= set(dir(scoreplug))


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'scoreplug' has no attribute 'Measurment'"):
        scoreplug.Measurment  # noqa: B018


def test_the_lazy_names_are_the_objects_themselves():
    from scoreplug.measurement import Measurement
    from scoreplug.protocols import Step

    assert scoreplug.Measurement is Measurement
    assert scoreplug.Step is Step


def cpu_seconds(*args: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # An installed package comes with its bytecode; without this, an environment that writes none compiles at each call.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, *args], check=True, stdout=subprocess.DEVNULL, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("args", [["list"], ["plugins"], ["--help"]], ids=" ".join)
def test_looking_things_up_costs_at_most_twice_its_libraries(args):
    """CPU time, not wall; interleaved, so that other load on the machine falls on both alike; medians of 7."""
    call = f"import sys; from scoreplug.cli import main; main({args!r}, prog_name='scoreplug')"
    cpu_seconds("-c", call)  # writes the bytecode
    pairs = [(cpu_seconds("-c", "import click, pluggy, attrs"), cpu_seconds("-c", call)) for _ in range(7)]
    libraries, ours = (statistics.median(times) for times in zip(*pairs, strict=True))

    assert ours <= 2 * libraries  # measured: 1.5
