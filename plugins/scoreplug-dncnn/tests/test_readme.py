"""The README's example runs, as a reader would run it, and its numbers are those measured."""

import json
import math
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_example_draws_samples():
    """Verbatim, but for the number of steps."""
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    names = {}

    exec(compile(example.replace("steps=20", "steps=3"), "README.md", "exec"), names)

    assert names["samples"].shape == (2, 1, 64, 64)
    assert bool(names["samples"].isfinite().all())


def test_the_table_is_the_curve():
    curves = json.loads((ROOT / "benchmarks" / "curve.json").read_text())["curves"]
    levels = [float(cell) for cell in re.search(r"\| level \|(.*)\|", README)[1].split("|")]

    for weights, points in curves.items():
        told = [float(cell) for cell in re.search(rf'\| `weights="{weights}"`.*? MB \|(.*)\|', README)[1].split("|")]
        assert told == [round(-20 * math.log10(dict(map(tuple, points))[level]), 1) for level in levels]


def test_the_results_are_those_of_the_benchmark():
    for row in json.loads((ROOT / "benchmarks" / "deblurring.json").read_text())["rows"]:
        if "psnr" not in row:
            continue
        assert f"| {row['method']} | {row['psnr']:.2f} |" in README
