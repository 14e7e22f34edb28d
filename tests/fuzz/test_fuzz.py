"""Nearly valid input, everywhere where foreign bytes and text enter: it is read, or refused in short lines that print.

A small series, the same each time. `benchmarks/fuzz.py` runs 100,000 cases; SCOREPLUG_FUZZ_CASES=N runs N per target.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

sys.path.insert(0, str(Path(__file__).parent))
import targets as fuzz

sys.path.pop(0)

CASES = int(os.environ.get("SCOREPLUG_FUZZ_CASES", "0"))
SLOW = {"cli": 15, "plugin-metadata": 30, "resolve": 60, "suite": 60, "training": 60}


@pytest.fixture
def sandbox(tmp_path):
    with fuzz.sandbox(tmp_path) as folder:
        yield folder


@pytest.mark.parametrize("name", list(fuzz.targets()))
def test_bad_input_is_refused_in_short_lines_and_nothing_is_left_behind(tmp_path, sandbox, name):
    target, before = fuzz.targets()[name], fuzz.tree(tmp_path)

    @settings(
        max_examples=CASES or SLOW.get(name, 120),
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],  # a finding is looked at by hand; to shrink it would take minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(target.cases)
    def each(case):
        with fuzz.quiet():
            finding = fuzz.finding_of(target, case, sandbox)
        assert finding is None, f"{finding}\n{case!r:.2000}"

    each()

    assert fuzz.tree(tmp_path) == before


@pytest.mark.parametrize(
    ("message", "finding"),
    [
        ("cannot read 'x.npy': it is too short", None),
        ("", "an empty message"),
        ("x.npy " + "x" * 2000, "a message of 1 lines and 2006 characters"),
        ("x.npy\n" * 60, "a message of 61 lines and 360 characters"),
        ("x.npy \x1b[31m", r"a message that does not print: 'x.npy \x1b[31m'"),
        ("it is too short", "a message that does not name x.npy: 'it is too short'"),
    ],
)
def test_a_message_has_to_be_short_to_print_and_to_name_the_file(message, finding):
    assert fuzz.wrong_with(message, "x.npy") == finding


@pytest.mark.parametrize(
    ("read", "finding"),
    [
        (lambda case, folder: {}["x"], "KeyError comes out: \"'x'\""),
        (lambda case, folder: int("x"), None),
        (lambda case, folder: [None for _ in iter(int, 1)], "hang: more than 0.2 s, in "),
        (lambda case, folder: sys.exit(3), "SystemExit comes out: '3'"),
    ],
)
def test_another_exception_and_a_hang_are_findings(tmp_path, read, finding):
    target = fuzz.Target(name="t", cases=None, read=read, refusals=(ValueError,), seconds=0.2)

    found = fuzz.finding_of(target, b"", tmp_path)

    assert found == finding or found.startswith(finding + "targets.py")
