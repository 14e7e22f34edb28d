"""The page of numbers is what was measured, and can be measured again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from scoreplug.bench.store import read_rows
from scoreplug.cli import main

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "docs/bench/quick.jsonl"


def test_the_page_is_rendered_from_the_rows(tmp_path):
    page, script = tmp_path / "page.md", ROOT / "benchmarks/posterior.py"
    command = [sys.executable, str(script), "--render", str(ROOT / "docs/bench"), "--out", str(page)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    assert page.read_text() == (ROOT / "docs/posterior.md").read_text()


@pytest.mark.parametrize(
    ("problem", "method", "budget"),
    [
        ("gaussian", "dps / ancestral(grid=rho, rho=10.0)", 20),
        ("mixture 8-1", "ddrm / ancestral(grid=rho, rho=10.0, noise=fresh, eta=0.85)", 20),
        ("mixture 8-4", "mmps / smc", 100),
    ],
)
def test_three_rows_are_measured_again(problem, method, budget):
    """To a relative 1e-4: sums in another order, in another version of a library, of a run of a hundred steps."""
    (row,) = [
        row
        for row in read_rows(ROWS)
        if (row.cell.problem_label, row.cell.method_label, row.cell.budget) == (problem, method, budget)
        and row.cell.seed == 0
    ]
    result = CliRunner().invoke(main, ["bench", "--reproduce", row.key, "--out", str(ROWS), "--tolerance", "1e-4"])

    assert result.exit_code == 0, result.output
