"""Which components fit together, from their specs alone: an impossible run is refused before torch is imported."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from scoreplug import registry
from scoreplug.registry.specs import ComponentSpec, ConditionerSpec, ModelSpec, OperatorSpec, SamplerSpec
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


def refusals(components: Mapping[str, ComponentConfig]) -> list[str]:
    """Every combination that cannot run, with the reason and what would work instead. Unknown names are left alone."""
    specs = {}
    for role, component in components.items():
        with contextlib.suppress(LookupError):
            specs[role] = registry.spec(role, component.name)
    problems = []
    conditioner, operator = specs.get("conditioner"), specs.get("operator")
    if isinstance(conditioner, ConditionerSpec) and isinstance(operator, OperatorSpec):
        problems += _refusal(conditioner, conditioner.needs, operator, operator.provides)
    sampler, model = specs.get("sampler"), specs.get("model")
    if isinstance(sampler, SamplerSpec) and isinstance(model, ModelSpec):
        problems += _refusal(sampler, sampler.needs, model, model.provides)
    return problems


def _refusal(
    asking: ComponentSpec, needs: tuple[str, ...], giving: ComponentSpec, provides: tuple[str, ...]
) -> list[str]:
    missing = [need for need in needs if need not in provides]
    if not missing:
        return []
    others = _names(asking.kind, lambda spec: set(spec.needs) <= set(provides))  # type: ignore[attr-defined]
    givers = _names(giving.kind, lambda spec: set(needs) <= set(spec.provides))  # type: ignore[attr-defined]
    advice = [f"{_article(asking.kind)} without that need ({others})"] * bool(others)
    advice += [f"{_article(giving.kind)} that provides it ({givers})"] * bool(givers)
    return [
        f"{asking.kind} {asking.name!r} needs {_article(giving.kind)} with {', '.join(missing)}; "
        f"{giving.name!r} provides {', '.join(provides) or 'nothing beyond the protocol'}"
        + (f". Use {' or '.join(advice)}" if advice else "")
    ]


def _names(kind: str, fits: Callable[[ComponentSpec], bool]) -> str:
    return ", ".join(spec.name for spec in registry.list(kind) if fits(spec))


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
