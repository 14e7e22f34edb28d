"""Every check of `scoreplug check example`, as a test each."""

from scoreplug.testing import Check, Subject, parametrize_with_checks


@parametrize_with_checks("example", kind="conditioner")
def test_conformance(check: Check, subject: Subject) -> None:
    check(subject)
