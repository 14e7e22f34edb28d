"""`scoreplug bench`: what it prints, what it writes, and how it says no."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scoreplug.bench.store import read_rows

PLUGIN = str(Path(__file__).parents[1] / "bench" / "tiny_plugin.py")
TINY = ("--problem", '{name="tiny",size=2,measured=1}', "--seeds", "1", "--n", "8")
EM = ("--conditioner", "dps", "--sampler", '{name="em",steps=3}')


@pytest.fixture
def bench(scoreplug, tmp_path, monkeypatch):
    """Run `scoreplug bench ARGS` with the problems of the tests."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: scoreplug("-p", PLUGIN, "bench", *args)


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "rows/" not in str(path))


def test_a_benchmark_prints_a_table_and_leaves_rows_and_a_page(bench, tmp_path):
    result = bench(*TINY, *EM, "--out", "out")

    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "tiny(size=2, measured=1): sliced wasserstein"
    assert lines[1].split() == ["METHOD", "ERROR", "/", "FLOOR", "SPREAD", "EVALS"]
    assert [line.split("  ")[0] for line in lines[2:4]] == ["exact", "dps / em(steps=3)"]
    assert lines[4].startswith("best within 20 evaluations: dps / em(steps=3), ")
    assert lines[-1] == "2 cells; page, rows.jsonl and rows.csv in out"
    assert written(tmp_path / "out") == ["bench.html", "rows", "rows.csv", "rows.jsonl"]
    assert "[1/2]" in result.stderr


def test_the_same_command_computes_nothing_again(bench, tmp_path):
    bench(*TINY, *EM, "--out", "out")
    before = (tmp_path / "out" / "rows.jsonl").read_bytes()

    result = bench(*TINY, *EM, "--out", "out")

    assert result.exit_code == 0
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == before  # times included


def test_a_folder_keeps_the_rows_of_other_commands(bench):
    bench(*TINY, *EM, "--out", "out")
    bench(*TINY, "--conditioner", "song", "--sampler", "em", "--set", "sampler.steps=3", "--out", "out")

    labels = {row.cell.method_label for row in read_rows(Path("out/rows.jsonl"))}
    assert labels == {"exact", "dps / em(steps=3)", "song / em(steps=3)"}


def test_a_file_is_a_suite_and_options_change_it(bench, tmp_path):
    (tmp_path / "mine.toml").write_text(
        'n = 50\n[[problems]]\nproblem = { name = "tiny", size = 2, measured = 1 }\n'
        '[[methods]]\nconditioner = "oracle"\nsampler = "em"\n'
    )

    result = bench("mine.toml", "--n", "6", "--seeds", "2", "--budget", "4", "--budget", "6")

    assert result.exit_code == 0, result.stderr
    rows = read_rows(tmp_path / "bench" / "mine" / "rows.jsonl")
    assert [(row.cell.n, row.cell.seed, row.cell.budget, row.cost["evaluations"]) for row in rows] == [
        (6, 0, 4, 4),
        (6, 1, 4, 4),
        (6, 0, 6, 6),
        (6, 1, 6, 6),
    ]


def test_json_has_an_object_per_method(bench):
    result = bench(*TINY, *EM, "--out", "out", "--json")

    exact, dps = json.loads(result.stdout)
    assert (exact["method"], exact["comparable"], dps["method"]) == ("exact", False, "dps / em(steps=3)")
    assert dps["estimates"]["evaluations"]["mean"] == 4


def test_a_pair_that_cannot_run_is_a_row_with_its_reason(bench):
    result = bench(*TINY, "--conditioner", "jalal", "--sampler", "needy", "--out", "out")

    assert result.exit_code == 0
    assert "1 refused" in result.stdout
    assert "sampler 'needy' needs a conditioner with twist" in result.stderr


def test_a_failure_does_not_stop_the_others_and_ends_with_code_1(bench):
    result = bench("--problem", '{name="tiny",size=2,measured=5}', *TINY, *EM, "--out", "out")

    assert result.exit_code == 1
    assert "tiny(size=2, measured=5): nothing finished" in result.stdout
    assert result.stdout.count("1 failed") == 2
    assert "2 cells failed; out/bench.html says how, and --retry computes them again" in result.stderr
    assert sum(row.status == "ok" for row in read_rows(Path("out/rows.jsonl"))) == 2


def test_a_dry_run_tells_what_would_run_and_writes_nothing(bench, tmp_path):
    result = bench(*TINY, "--conditioner", "jalal", "--sampler", "em", "--sampler", "needy", "--dry-run")

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[-1] == "5 cells"  # one of exact samples, two samplers with two budgets each
    assert "needs a conditioner with twist" in next(line for line in lines if "jalal / needy" in line)
    assert list(tmp_path.iterdir()) == []


def test_a_row_is_reproduced(bench):
    bench(*TINY, *EM, "--out", "out")
    row = next(row for row in read_rows(Path("out/rows.jsonl")) if not row.cell.is_exact)

    for where in ("out", "out/rows.jsonl"):
        result = bench("--reproduce", row.key[:10], "--out", where)
        assert (result.exit_code, result.stdout.splitlines()[-1]) == (
            0,
            "reproduced: every number agrees within 1e-06 of its size",
        )


def test_a_row_that_is_not_reproduced_ends_with_code_1_and_both_numbers(bench, tmp_path):
    bench(*TINY, *EM, "--out", "out")
    path = tmp_path / "out" / "rows.jsonl"
    row = next(row for row in read_rows(path) if not row.cell.is_exact)
    value = row.metrics["crps"]
    path.write_text(path.read_text().replace(repr(value), repr(value + 1.0)))

    result = bench("--reproduce", row.key[:10], "--out", "out")

    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].split() == ["crps", f"{value + 1:.9g}", f"{value:.9g}"]
    assert "1 numbers differ by more than 1e-06 of their size" in result.stderr
    assert bench("--reproduce", row.key[:10], "--out", "out", "--tolerance", "100").exit_code == 0


BAD = {
    "unknown suite": (("quik",), "no suite 'quik'; did you mean 'quick'"),
    "absent file": (("absent.toml",), "cannot read the config 'absent.toml'"),
    "not TOML": (("bad.toml",), "'bad.toml' is not TOML"),
    "unknown key": (("wrong.toml",), "wrong.toml: unknown parameter 'nn'"),
    "unknown problem": ((*TINY, "--problem", "tny", *EM), "unknown problem 'tny'"),
    "unknown conditioner": ((*TINY, "--conditioner", "dsp"), "unknown conditioner 'dsp'"),
    "unknown parameter": ((*TINY, *EM, "--set", "sampler.stpes=3"), "no sampler of this benchmark has a parameter"),
    "wrong value": ((*TINY, *EM, "--set", "sampler.steps=0"), "steps must be >= 1 (got 0)"),
    "no executor": ((*TINY, *EM, "--executor", "dask"), "--executor takes serial, process:N"),
    "no budget": ((*TINY, *EM, "--budget", "0"), "0 is not in the range x>=1"),
    "no row": (("--reproduce", "3f", "--out", "empty.jsonl"), "has no row whose key begins with '3f'"),
    "no rows": (("--reproduce", "3f", "--out", "nowhere"), "nowhere"),
    "folder below a file": ((*TINY, *EM, "--out", "bad.toml/out"), "cannot make the output folder 'bad.toml/out'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_clear_message_and_leaves_nothing(bench, tmp_path, case):
    options, message = BAD[case]
    (tmp_path / "bad.toml").write_text("n =")
    (tmp_path / "wrong.toml").write_text("nn = 1")
    (tmp_path / "empty.jsonl").write_text("")
    before = written(tmp_path)

    result = bench(*options)

    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert result.stderr.count("Error: ") == 1
    assert written(tmp_path) == before


def test_ctrl_c_keeps_what_is_finished_and_says_so(tmp_path):
    """A real signal to a real process; of 2000 cells some are finished when it comes, and never all."""
    code = (
        "from scoreplug.cli import _main\n"
        f"_main.main(['-p', {PLUGIN!r}, 'bench', *{[*TINY, *EM]!r}, '--seeds', '1000', '--out', 'out'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("out/rows/*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    kept = len(list(tmp_path.glob("out/rows/*.json")))
    assert process.returncode == 130, errors
    assert 3 <= kept < 2000
    assert errors.splitlines()[-1] == (
        f"interrupted: {kept} of 2000 rows are kept; the same command with --out 'out' goes on from there"
    )


def test_help_shows_the_examples_and_imports_no_numerics():
    code = (
        "import sys; from scoreplug.cli.bench import command\n"
        "try: command(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'scipy', 'skimage', 'matplotlib') if m in sys.modules])"
    )

    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()

    assert "  scoreplug bench mixture --seeds 3 --executor process:4" in lines
    assert lines[-1] == "[]"


def test_help_names_every_suite_that_ships(bench):
    from scoreplug.bench.suite import built_in

    text = bench("--help").stdout

    assert all(name in text for name in built_in())
