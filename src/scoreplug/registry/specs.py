"""Component specifications: what is known of a method before its code, or torch, is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import attrs

from scoreplug.foreign import shown

API = 1
"""Number of the plugin contract; it changes only with a line of its own in the changelog."""

OF_POSTERIORS = ("likelihood", "twist", "refine")
"""Capabilities that a posterior may have and no prior has."""

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    """Keep a list or tuple of strings; one bare string would become its letters."""
    if isinstance(values, str):
        raise ValueError(f"a tuple of strings is needed, such as ({shown(values)},) (got {shown(values)})")
    values = tuple(values)
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"a tuple of strings is needed (got {shown(values)})")
    if not all(value.isprintable() for value in values):
        raise ValueError(f"strings that print are needed (got {shown(values)})")
    return values


def _table(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(values)


def _check_name(spec: ComponentSpec, field: object, value: str) -> None:
    del spec, field
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(
            f"a component's name is lower case with hyphens, like 'dps' or 'openai-unet' (got {shown(value)})"
        )


def _check_aliases(spec: ComponentSpec, field: object, value: tuple[str, ...]) -> None:
    for alias in value:
        _check_name(spec, field, alias)


def _check_factory(spec: ComponentSpec, field: object, value: str) -> None:
    del spec, field
    if not isinstance(value, str) or not _FACTORY.fullmatch(value):
        raise ValueError(f"factory is 'package.module:Class' (got {shown(value)})")


def _check_summary(spec: ComponentSpec, field: object, value: str) -> None:
    del spec, field
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"summary is one line of text that prints (got {shown(value)})")


def _check_api(spec: ComponentSpec, field: object, value: int) -> None:
    del spec, field
    if not isinstance(value, int):
        raise TypeError(f"api is the number of a plugin contract (got {shown(value)})")


@attrs.frozen(kw_only=True)
class ComponentSpec:
    """One component: its name, where its class is, and what it needs and offers.

    Args:
        name: unique within the kind; lower case with hyphens.
        summary: one line for `scoreplug list`.
        factory: "package.module:Class", imported only when the component is built.
        aliases: other names for it; an alias never beats a name.
        references: sources, "arXiv:2209.14687" or "doi:...".
        api: number of the plugin contract that the component was written for.
        example: parameters of a tiny instance, for `scoreplug check`; what has a default may be left out.
    """

    kind: ClassVar[str]

    name: str = attrs.field(validator=_check_name)
    summary: str = attrs.field(validator=_check_summary)
    factory: str = attrs.field(validator=_check_factory)
    aliases: tuple[str, ...] = attrs.field(default=(), converter=_texts, validator=_check_aliases)
    references: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    api: int = attrs.field(default=API, validator=_check_api)
    example: Mapping[str, Any] = attrs.field(factory=dict, hash=False, converter=_table)


@attrs.frozen(kw_only=True)
class ModelSpec(ComponentSpec):
    """A score model.

    Args:
        trainable: its class holds a `module` that `scoreplug train` can fit.
        provides: capabilities beyond ScoreModel, such as "log-density".
        shape: of one sample, if it is fixed.
    """

    kind: ClassVar[str] = "model"
    trainable: bool = False
    provides: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    shape: tuple[int, ...] | None = None


@attrs.frozen(kw_only=True)
class SDESpec(ComponentSpec):
    """A forward process."""

    kind: ClassVar[str] = "sde"


@attrs.frozen(kw_only=True)
class OperatorSpec(ComponentSpec):
    """A forward operator.

    Args:
        provides: of "linear", "pinv", "svd"; what is missing may still be had from a generic fallback.
    """

    kind: ClassVar[str] = "operator"
    provides: tuple[str, ...] = attrs.field(default=(), converter=_texts)


@attrs.frozen(kw_only=True)
class ConditionerSpec(ComponentSpec):
    """A way to integrate the measurement.

    Args:
        needs: what the operator must provide ("linear", "pinv", "svd").
        vjp: it differentiates through the network (one vector-Jacobian product per evaluation).
        exact: on a Gaussian prior with a linear operator its score is that of p_t(x | y).
        keeps: capabilities of the prior that the posterior has, too ("log-density").
        provides: capabilities that it gives the posterior, of `OF_POSTERIORS`.
        canonical: samplers it was published with.
    """

    kind: ClassVar[str] = "conditioner"
    needs: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    vjp: bool = False
    exact: bool = False
    keeps: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    provides: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    canonical: tuple[str, ...] = attrs.field(default=(), converter=_texts)


@attrs.frozen(kw_only=True)
class SamplerSpec(ComponentSpec):
    """A way to integrate the reverse SDE.

    Args:
        needs: what the model must provide ("log-density"), or the conditioner (`OF_POSTERIORS`).
        exact_with: what makes it exact ("log-density"); without, it approximates, and says so.
        corrects: it has moves at a fixed level, and can be the corrector of "pc".
        couples: samples of one population depend on each other (SMC); the population is then the unit of work.
        point: it reports an estimate, the spread of which says nothing of the posterior's.
    """

    kind: ClassVar[str] = "sampler"
    needs: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    exact_with: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    corrects: bool = False
    couples: bool = False
    point: bool = False


@attrs.frozen(kw_only=True)
class ProblemSpec(ComponentSpec):
    """A prior, a measurement, and what is known of the posterior.

    Args:
        provides: what is known: of "samples", "evidence", "oracle", "moments", "modes", "log-posterior".
    """

    kind: ClassVar[str] = "problem"
    provides: tuple[str, ...] = attrs.field(default=(), converter=_texts)


SPECS: dict[str, type[ComponentSpec]] = {
    spec.kind: spec for spec in (ModelSpec, SDESpec, OperatorSpec, ConditionerSpec, SamplerSpec, ProblemSpec)
}
KINDS = tuple(SPECS)
