"""The conformance kit: what every component has to do, as named checks that plugins run on theirs.

    from scoreplug.testing import parametrize_with_checks

    @parametrize_with_checks("my-method")
    def test_conformance(check, subject):
        check(subject)

Levels add up. "spec" looks at the spec and its module, without torch; "api" builds tiny instances and looks at shapes,
types, noise, batches; "numerics" compares with closed forms. A check that does not apply, or cannot be carried out on
a component, says why and is skipped; one that is known to fail can be given as data, with the reason, and then has to
fail.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NoReturn

import attrs

from scoreplug import registry as _default
from scoreplug.param import check as check_parameters
from scoreplug.param import parameters
from scoreplug.registry.specs import KINDS, ComponentSpec

Level = Literal["spec", "api", "numerics"]
LEVELS: tuple[Level, ...] = ("spec", "api", "numerics")


class SkipCheck(Exception):
    """A check says why it does not apply."""


def skip(reason: str) -> NoReturn:
    """Leave a check that does not apply."""
    raise SkipCheck(reason)


@attrs.frozen(kw_only=True)
class Subject:
    """A component under examination.

    Args:
        spec: its spec.
        factory: its class.
        params: parameters of a tiny instance, over those of spec.example.
        module: name of the module that holds the spec; None if it is not known.
    """

    spec: ComponentSpec
    factory: Callable[[], Callable[..., Any]]
    params: Mapping[str, Any] = attrs.field(factory=dict)
    module: str | None = None

    @classmethod
    def of(cls, component: Any, params: Mapping[str, Any] | None = None) -> Subject:
        """The subject that a registered component is."""
        value = component.plugin.value
        return cls(
            spec=component.spec,
            factory=component.factory,
            params=params or {},
            module=None if "/" in value or value.endswith(".py") else value.partition(":")[0],
        )

    @property
    def label(self) -> str:
        return f"{self.spec.kind} {self.spec.name!r}"

    def takes(self, *names: str) -> bool:
        """Whether the class has all these parameters."""
        cls: Any = self.factory()
        known = {p.name for p in parameters(cls)} if attrs.has(cls) else set()
        return set(names) <= known

    def build(self, **more: Any) -> Any:
        """A tiny instance: the example's parameters, then the caller's, then `more`.

        Raises:
            ParameterError: naming what is unknown, missing or illegal.
        """
        cls: Any = self.factory()
        params = {**self.spec.example, **self.params, **more}
        if attrs.has(cls):
            check_parameters(cls, params, name=self.label)
        return cls(**params)


@attrs.frozen(kw_only=True)
class Check:
    """A fact about a component.

    Args:
        name: lower case with hyphens.
        level: spec, api or numerics.
        kinds: of components it is about.
        states: the fact, in one sentence.
        function: raises where it does not hold; `SkipCheck` where it does not apply.
    """

    name: str
    level: Level
    kinds: tuple[str, ...]
    states: str
    function: Callable[[Subject], None]

    def __call__(self, subject: Subject) -> None:
        self.function(subject)


@attrs.frozen(kw_only=True)
class Result:
    """How a check ended: pass, fail, skip, xfail (it failed as expected) or xpass (it passed, and should not have)."""

    component: str
    check: str
    level: Level
    state: Literal["pass", "fail", "skip", "xfail", "xpass"]
    reason: str = ""
    traceback: str = ""


@attrs.frozen(kw_only=True)
class Report:
    """The results for one component."""

    results: tuple[Result, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """What failed unexpectedly, or passed unexpectedly."""
        return tuple(result for result in self.results if result.state in ("fail", "xpass"))

    @property
    def ok(self) -> bool:
        return not self.failures


_CHECKS: list[Check] = []


def states(
    sentence: str, *, level: Level, kinds: Iterable[str] = KINDS
) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Register a function as a check; its name with hyphens is the check's."""

    def register(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        name = function.__name__.replace("_", "-")
        _CHECKS.append(Check(name=name, level=level, kinds=tuple(kinds), states=sentence, function=function))
        return function

    return register


def iter_checks(kind: str | None = None, level: Level = "numerics") -> Iterator[Check]:
    """The checks of a kind, or of all, up to a level."""
    wanted = LEVELS[: LEVELS.index(level) + 1]
    for each in wanted:
        importlib.import_module(f"scoreplug.testing._{each}")
    for check in sorted(_CHECKS, key=lambda check: LEVELS.index(check.level)):
        if check.level in wanted and (kind is None or kind in check.kinds):
            yield check


def run_checks(
    name: str | Subject,
    kind: str | None = None,
    *,
    level: Level = "numerics",
    params: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Any = None,
) -> Report:
    """Check a component.

    Args:
        name: of the component, an alias or `dist:name`; or a subject.
        kind: of the component, if several have the name.
        level: the last level that is run.
        params: parameters of a tiny instance.
        expected_failures: checks that are known to fail, with the reason.
        registry: another registry than the default one.

    Raises:
        LookupError: if there is no such component, or several, or no such check.
    """
    subject = name if isinstance(name, Subject) else find(name, kind, params=params, registry=registry)
    expected = dict(expected_failures or {})
    if expected:  # without, the modules that import torch are left alone
        known = {check.name for check in iter_checks()}
        unknown = sorted(set(expected) - known)
        if unknown:
            raise LookupError(
                f"no check is called {', '.join(map(repr, unknown))}; they are {', '.join(sorted(known))}"
            )
    return Report(results=tuple(_run(check, subject, expected) for check in iter_checks(subject.spec.kind, level)))


def find(
    name: str, kind: str | None = None, *, params: Mapping[str, Any] | None = None, registry: Any = None
) -> Subject:
    """The subject of that name.

    Raises:
        LookupError: if there is none, or several.
    """
    source = registry if registry is not None else _default
    found = (source.find(kind, name),) if kind is not None else source.search(name)
    if len(found) > 1:
        kinds = " or ".join(component.spec.kind for component in found)
        raise LookupError(f"{name!r} is a {kinds}: say which kind")
    return Subject.of(found[0], params)


def parametrize_with_checks(
    *names: str, kind: str | None = None, level: Level = "numerics", params: Mapping[str, Any] | None = None
) -> Any:
    """A pytest decorator: the test gets `check` and `subject` for every check of the components named."""
    import pytest

    cases = []
    for name in names:
        subject = find(name, kind, params=params)
        cases += [
            pytest.param(_skipping(check), subject, id=f"{name}-{check.name}")
            for check in iter_checks(subject.spec.kind, level)
        ]
    return pytest.mark.parametrize(("check", "subject"), cases)


def _skipping(check: Check) -> Callable[[Subject], None]:
    """The check, whose skip is pytest's."""

    def run(subject: Subject) -> None:
        import pytest

        try:
            check(subject)
        except SkipCheck as reason:
            pytest.skip(str(reason))

    return run


def _run(check: Check, subject: Subject, expected: Mapping[str, str]) -> Result:
    def result(state: Literal["pass", "fail", "skip", "xfail", "xpass"], reason: str = "", trace: str = "") -> Result:
        return Result(
            component=subject.label, check=check.name, level=check.level, state=state, reason=reason, traceback=trace
        )

    try:
        check(subject)
    except SkipCheck as reason:
        return result("skip", str(reason))
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        text = said[0] if isinstance(error, AssertionError) else f"{type(error).__name__}: {said[0]}"
        if check.name in expected:
            return result("xfail", expected[check.name])
        return result("fail", text, traceback.format_exc())
    if check.name in expected:
        return result("xpass", f"expected to fail ({expected[check.name]}), but holds")
    return result("pass")
