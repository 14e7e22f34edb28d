"""The README's examples run, as a reader would run them."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from scoreplug.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language):
    return [body for kind, body in re.findall(r"```(\w+)\n(.*?)```", README, re.S) if kind == language]


COMMANDS = [
    line.split("  #")[0].strip()
    for body in blocks("bash")
    for line in body.splitlines()
    if line.startswith("scoreplug ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(command, tmp_path, monkeypatch):
    """Verbatim, but for the number of steps, so that it takes seconds."""
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(main, shlex.split(command.replace("steps=20", "steps=3"))[1:])

    assert result.exit_code == 0, result.output
    if " run " in command:
        assert list(tmp_path.glob("runs/*/report.html"))


def test_the_python_example_draws_samples():
    (example,) = blocks("python")
    names = {}

    exec(compile(example.replace("steps=20", "steps=3"), "README.md", "exec"), names)

    assert names["samples"].shape == (2, 1, 64, 64)
    assert names["measurement"].data.shape == names["scanner"].output_shape
    assert bool(names["samples"].isfinite().all())
