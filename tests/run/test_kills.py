"""A few of the kills of `benchmarks/kills.py`: nothing that was finished is lost, and Ctrl-C is quick."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc, and forks")


def measured(tmp_path, *options):
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--out", str(tmp_path / "kills.json"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "kills.json").read_text())


def trials(tmp_path, kills, interrupts, *only):
    return measured(tmp_path, "--kills", str(kills), "--interrupts", str(interrupts), "--only", *only)


def test_no_kill_loses_what_was_finished_and_ctrl_c_is_quick(tmp_path):
    found = trials(tmp_path, 6, 2, "serial")

    assert len(found["kills"]) == 3
    assert all(trial["equal"] for trial in found["kills"])
    assert not any(trial["recomputed"] or trial["unreadable"] or trial["orphans"] for trial in found["kills"])
    for trial in found["interrupts"]:
        assert (trial["code"], trial["one_line"], trial["resumable"], trial["left"]) == (130, True, True, 0), trial
        assert trial["seconds"] < 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["process:2", "dask"])
def test_no_kill_of_a_worker_or_scheduler_loses_what_was_finished(tmp_path, kind):
    if kind == "dask":
        pytest.importorskip("distributed")
    found = trials(tmp_path, 2, 1, kind)

    assert all(trial["equal"] for trial in found["kills"])
    assert not any(trial["recomputed"] or trial["unreadable"] or trial["orphans"] for trial in found["kills"])
    for trial in found["interrupts"]:
        assert (trial["code"], trial["one_line"], trial["resumable"], trial["left"]) == (130, True, True, 0), trial
        assert trial["seconds"] < 2


def test_the_page_can_be_written_from_the_numbers(tmp_path):
    source = ROOT / "docs" / "kills.json"
    if not source.exists():
        pytest.skip("not measured yet")
    page = tmp_path / "kills.md"
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--render", str(source), "--out", str(page)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": ""})

    assert page.read_text() == (ROOT / "docs" / "kills.md").read_text()
