"""Every built-in passes every check, and the kit's own surface."""

import pytest

from scoreplug import SamplerSpec, registry
from scoreplug.testing import Subject, iter_checks, parametrize_with_checks, run_checks

ALL = [(spec.kind, spec.name) for spec in registry.list()]


@pytest.mark.parametrize(("kind", "name"), ALL, ids=lambda v: v)
def test_every_builtin_passes(kind, name):
    report = run_checks(name, kind)

    assert report.ok, [(result.check, result.reason) for result in report.failures]
    assert sum(result.state == "pass" for result in report.results) >= 5


@parametrize_with_checks("em", level="spec")
def test_a_plugin_can_run_them_with_pytest(check, subject):
    check(subject)


def test_levels_add_up():
    levels = [{check.name for check in iter_checks("sampler", level)} for level in ("spec", "api", "numerics")]

    assert levels[0] < levels[1] < levels[2]


def test_an_expected_failure_is_data_and_has_to_fail():
    spec = SamplerSpec(name="broken", summary="Ends in a full stop.", factory="scoreplug_builtin.samplers.em:Nothing")
    subject = Subject(spec=spec, factory=lambda: None)

    plain = run_checks(subject, level="spec")
    excused = run_checks(
        subject,
        level="spec",
        expected_failures={"summary-is-a-line": "it is old", "factory-exists": "to be written"},
    )
    wrong = run_checks("em", level="spec", expected_failures={"summary-is-a-line": "it is not"})

    assert {result.check for result in plain.failures} == {"summary-is-a-line", "factory-exists"}
    assert excused.ok
    assert [result.state for result in excused.results].count("xfail") == 2
    assert [result.state for result in wrong.failures] == ["xpass"]


def test_an_unknown_check_is_refused():
    with pytest.raises(LookupError, match="no check is called 'no-such'"):
        run_checks("em", expected_failures={"no-such": "x"})


def test_a_spec_module_that_imports_torch_is_caught(site):
    site.install_samplers("fake-heavy", "name='heavy', summary='s'", module="fake_heavy")
    file = site.path / "fake_heavy.py"
    file.write_text("import torch\n" + file.read_text())
    made = registry.Registry(registry.Selection())

    report = run_checks("heavy", level="spec", registry=made)

    assert [result.check for result in report.failures] == ["spec-module-is-light"]
    assert "imports torch" in report.failures[0].reason
