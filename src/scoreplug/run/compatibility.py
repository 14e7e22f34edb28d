"""Which components fit together, from their specs alone: an impossible run is refused before torch is imported."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import attrs

from scoreplug import registry
from scoreplug.registry.specs import (
    OF_POSTERIORS,
    ComponentSpec,
    ConditionerSpec,
    ModelSpec,
    OperatorSpec,
    SamplerSpec,
)
from scoreplug.run.config import ComponentConfig


def unknown_names(components: Mapping[str, ComponentConfig]) -> list[str]:
    """What is wrong with the names of components, by role."""
    problems = []
    for role, component in components.items():
        try:
            registry.spec(role, component.name)
        except LookupError as error:
            problems.append(str(error))
    return problems


def untrained(model: ComponentConfig | None) -> list[str]:
    """A network without weights is for training; its samples would be nobody's posterior."""
    if model is None:
        return []
    with contextlib.suppress(LookupError):
        spec = registry.spec("model", model.name)
        if isinstance(spec, ModelSpec) and spec.trainable and model.params.get("checkpoint") is None:
            return [
                f"model {model.name!r} has no weights: name their file with model.checkpoint, "
                "or make one with `scoreplug train`"
            ]
    return []


@attrs.frozen(kw_only=True)
class Verdict:
    """How two components go together.

    Args:
        first: one of them.
        second: the other.
        state: "published": so it was published. "runs": the parts fit. "approximate": it runs, and approximates what
            is missing. "refused": it cannot run.
        reason: why it is approximate or refused, and what to use instead.
    """

    first: ComponentSpec
    second: ComponentSpec
    state: Literal["published", "runs", "approximate", "refused"]
    reason: str = ""


def matrix() -> tuple[Verdict, ...]:
    """The verdict on every pair that has something to say to each other: conditioner and sampler, conditioner and
    operator, model and sampler. A combination of all kinds runs if its pairs do; every model runs under every SDE."""
    pairs = [("conditioner", "sampler"), ("conditioner", "operator"), ("model", "sampler")]
    return tuple(
        verdict(first, second)
        for kinds in pairs
        for first, second in itertools.product(*(registry.list(kind) for kind in kinds))
    )


def verdict(first: ComponentSpec, second: ComponentSpec) -> Verdict:
    """How two components go together, from their specs."""
    state: Literal["published", "runs", "approximate", "refused"] = "runs"
    reason = "; ".join(_pair_refusals(first, second))
    if reason:
        state = "refused"
    elif isinstance(first, ConditionerSpec) and second.name in first.canonical:
        state = "published"
    if state != "refused" and isinstance(second, SamplerSpec):
        has = _capabilities(first)
        missing = [need for need in second.exact_with if need not in has]
        if missing:
            state = "approximate"
            reason = (
                f"{second.name!r} is exact with {', '.join(missing)}, which {first.kind} {first.name!r} does not "
                f"{'keep' if first.kind == 'conditioner' else 'provide'}; it approximates, and says so"
            )
    return Verdict(first=first, second=second, state=state, reason=reason)


def refusals(components: Mapping[str, ComponentConfig]) -> list[str]:
    """Every combination that cannot run, with the reason and what would work instead. Unknown names are left alone."""
    specs = {}
    for role, component in components.items():
        with contextlib.suppress(LookupError):
            specs[role] = registry.spec(role, component.name)
    pairs = itertools.permutations(specs.values(), 2)
    return list(dict.fromkeys(problem for first, second in pairs for problem in _pair_refusals(first, second)))


def _pair_refusals(first: ComponentSpec, second: ComponentSpec) -> Iterator[str]:
    if isinstance(first, ConditionerSpec) and isinstance(second, OperatorSpec):
        yield from _refusal(first, first.needs, second, second.provides)
    if isinstance(second, SamplerSpec) and isinstance(first, (ModelSpec, ConditionerSpec)):
        needs = second.needs
        if isinstance(first, ModelSpec):  # what only a posterior can have, the conditioner answers for
            needs = tuple(need for need in needs if need not in OF_POSTERIORS)
        yield from _refusal(second, needs, first, _capabilities(first))


def _capabilities(spec: ComponentSpec) -> tuple[str, ...]:
    """What a model has, or a conditioner leaves to its posterior."""
    if isinstance(spec, ConditionerSpec):
        return spec.keeps + spec.provides
    return spec.provides if isinstance(spec, (ModelSpec, OperatorSpec)) else ()


def _refusal(
    asking: ComponentSpec, needs: tuple[str, ...], giving: ComponentSpec, provides: tuple[str, ...]
) -> list[str]:
    missing = [need for need in needs if need not in provides]
    if not missing:
        return []
    others = _names(asking.kind, lambda spec: set(spec.needs) <= set(provides))  # type: ignore[attr-defined]
    givers = _names(giving.kind, lambda spec: set(needs) <= set(_capabilities(spec)))
    advice = [f"{_article(asking.kind)} without that need ({others})"] * bool(others)
    advice += [f"{_article(giving.kind)} that provides it ({givers})"] * bool(givers)
    return [
        f"{asking.kind} {asking.name!r} needs {_article(giving.kind)} with {', '.join(missing)}; "
        f"{giving.name!r} {'gives its posterior' if giving.kind == 'conditioner' else 'provides'} "
        f"{', '.join(provides) or 'nothing beyond the protocol'}" + (f". Use {' or '.join(advice)}" if advice else "")
    ]


def _names(kind: str, fits: Callable[[ComponentSpec], bool]) -> str:
    return ", ".join(spec.name for spec in registry.list(kind) if fits(spec))


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
