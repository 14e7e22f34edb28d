"""`scoreplug check`."""

import json
import subprocess
import sys


def test_a_sound_component_passes_level_spec(scoreplug):
    result = scoreplug("check", "em", "--level", "spec")

    assert result.exit_code == 0
    assert "summary-is-a-line" in result.stdout
    assert result.stdout.splitlines()[-1].endswith("0 failed, 0 skipped or expected")


def test_json_has_an_object_for_each_check(scoreplug):
    results = json.loads(scoreplug("check", "vp", "--json").stdout)

    assert {"component", "check", "level", "state", "reason", "traceback"} == set(results[0])
    assert {item["state"] for item in results} <= {"pass", "skip"}


def test_an_expectation_that_does_not_come_true_is_a_failure(scoreplug):
    result = scoreplug("check", "em", "--level", "spec", "--xfail", "summary-is-a-line=it ends in a stop")

    assert result.exit_code == 1
    assert "expected to fail (it ends in a stop), but holds" in result.stdout


def test_parameters_of_the_instance_can_be_given(scoreplug):
    result = scoreplug("check", "downsampling", "--level", "api", "--set", "factor=4")

    assert result.exit_code == 0, result.stdout


def test_the_checks_are_listed(scoreplug):
    lines = scoreplug("check", "--list").stdout.splitlines()

    assert lines[0].split() == ["CHECK", "LEVEL", "KINDS", "STATES"]
    assert any(line.startswith("adjoint-is-the-transpose") for line in lines)


def test_unknown_names_and_malformed_options_are_refused(scoreplug):
    assert "did you mean" in scoreplug("check", "emm").stderr
    assert "CHECK=REASON" in scoreplug("check", "em", "--xfail", "nonsense").stderr
    assert "which component" in scoreplug("check").stderr


def test_level_spec_imports_no_torch():
    code = (
        "import sys; from scoreplug.cli import main\n"
        "try: main(['check', 'em', '--level', 'spec'], standalone_mode=False)\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
