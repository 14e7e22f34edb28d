r"""Divergence: when a sample counts as lost, and what is then said.

A sample is lost when it is NaN or infinite, or so large that the process has nothing to do with it any more:

    |x| > 1e3 (|x_0| + prior_std n^{1/2})

for a state of n pixels, where |x_0| is how far the data reach (the prior's `radius`). A prior that does not say it is
allowed level(1) n^{1/2}, the largest noise level: a process whose noise does not drown the data does not fit them
anyway. alpha is at most 1, so that x_t = alpha x_0 + sigma z stays below 1/1e3 of the bound under every process. What
is left of the factor is for steps that overshoot and come back. The bound is one number for a whole trajectory, and
the norm takes the place of the sum that a search for NaN takes, so that the check costs what it did without.
"""

from __future__ import annotations

import copyreg
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from scoreplug import registry
from scoreplug.param import parameters
from scoreplug.protocols import ScoreModel

if TYPE_CHECKING:
    from scoreplug.noise import Noise
    from scoreplug.sampler import State

FACTOR = 1e3
"""Of the bound, over the largest norm that the process and the prior know."""

Norms = Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]
"""Of "x", "score" and "guidance": for each lost sample, before the step and after it."""


class DivergenceError(ArithmeticError):
    """Samples became NaN, infinite, or larger than anything that the process knows.

    Args:
        message: all of this in words, with what to do.
        step: the step that lost them, counted from 1; 0 is the start, steps + 1 the last estimate.
        steps: how many there are.
        level: the noise level sigma/alpha that the step led to.
        t: the time that the step led to.
        samples: indices of the lost samples in the run.
        survivors: indices of the others.
        x: the states of the others after the step, (len(survivors), *shape).
        norms: of the lost samples' x, score and guidance, as far as they are known.
    """

    def __init__(
        self,
        message: str,
        *,
        step: int,
        steps: int,
        level: float,
        samples: tuple[int, ...],
        survivors: tuple[int, ...],
        x: Tensor,
        t: float = math.nan,
        norms: Norms | None = None,
    ) -> None:
        super().__init__(message)
        self.step, self.steps, self.level, self.t = step, steps, level, t
        self.samples, self.survivors, self.x = samples, survivors, x
        self.norms: Norms = {} if norms is None else norms

    def __reduce__(self) -> tuple[Any, ...]:
        """From a worker process it comes back as it is."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


def bound(model: ScoreModel, times: Tensor) -> float:
    """The norm of one sample above which it counts as lost.

    Args:
        model: whose samples they are.
        times: the grid, falling.
    """
    sde, root_n = model.sde, math.sqrt(math.prod(model.shape))
    radius: float | None = getattr(model, "radius", None)
    if radius is None:
        radius = float(sde.sigma(times[0]) / sde.alpha(times[0])) * root_n
    return FACTOR * (radius + sde.prior_std * root_n)


def check(sampler: object, model: ScoreModel, previous: State, state: State, noise: Noise, *, limit: float) -> None:
    """Stop where a sample is lost.

    Args:
        sampler: that moved from one state to the other.
        model: that it asked.
        previous: the state before, or the same one at the start.
        state: the state to look at.
        noise: of the run; it knows which samples they are.
        limit: the largest norm of one sample (see `bound`).

    Raises:
        DivergenceError: if there is one.
    """
    if float(torch.linalg.vector_norm(state.x)) <= limit:  # the norm of them all is at least that of each
        return
    norms = state.x.flatten(1).norm(dim=1)
    lost = ~(norms <= limit)  # a NaN is not
    if bool(lost.any()):
        raise _error(sampler, model, previous, state, noise, lost)


def _error(
    sampler: object, model: ScoreModel, previous: State, state: State, noise: Noise, lost: Tensor
) -> DivergenceError:
    rows = lost.tolist()
    samples = tuple(i for i, bad in zip(noise.samples, rows, strict=True) if bad)
    survivors = tuple(i for i, bad in zip(noise.samples, rows, strict=True) if not bad)
    infinite = not bool(state.x[lost].isfinite().all())
    methods = tuple(_conditioners(model))
    t, level = float(state.t), float(model.sde.sigma(state.t) / model.sde.alpha(state.t))
    step = 0 if previous is state else state.index + (state.last and previous.last)
    steps = len(state.times) - 1
    before, after = _norms(model, previous, lost), _norms(model, state, lost)
    norms = {name: (before[name], after[name]) for name in before}
    where = "in the last estimate, after step" if step > steps else "in step"
    conditioned = " and ".join(f"conditioner {_called('conditioner', method)!r}" for method in methods)
    message = (
        f"samples {list(samples)} {'became NaN or infinite' if infinite else 'grew without bound'} "
        f"{where} {min(step, steps)} of {steps}, at noise level {level:.3g} (t = {t:.3g}), "
        f"with sampler {_called('sampler', sampler)!r}{' and ' if methods else ''}{conditioned}. "
        f"Norms before and after: {'; '.join(_told(*item) for item in norms.items())}. "
        f"{f'The other {len(survivors)} samples are sound' if survivors else 'No sample is left'}. "
        f"{_advice(sampler, methods)}"
    )
    return DivergenceError(
        message,
        step=step,
        steps=steps,
        level=level,
        t=t,
        samples=samples,
        survivors=survivors,
        x=state.x[~lost],
        norms=norms,
    )


def _norms(model: ScoreModel, state: State, lost: Tensor) -> dict[str, tuple[float, ...]]:
    """Norms of the lost samples, and of what the model says of them; evaluated anew, which a step does not keep.

    The whole batch is evaluated, as it was in the step. What cannot be evaluated there is NaN.
    """
    prior = model
    while (inner := getattr(prior, "prior", None)) is not None:
        prior = inner
    x, unknown = state.x, torch.full_like(state.x, math.nan)
    score = guidance = unknown
    if bool(x[lost].isfinite().all()):
        try:
            with torch.no_grad():
                score = model.score(x, state.t)
                guidance = score - prior.score(x, state.t)
        except (ArithmeticError, RuntimeError, ValueError):  # of a solver, or LAPACK: the reason is the divergence
            pass
    found = {"x": x, "score": score} | ({} if prior is model else {"guidance": guidance})
    return {name: tuple(v[lost].flatten(1).norm(dim=1).tolist()) for name, v in found.items()}


def _told(name: str, norms: tuple[Sequence[float], Sequence[float]]) -> str:
    """At most three of them: a batch may be large."""
    pairs = [f"{before:.3g} -> {after:.3g}" for before, after in zip(*norms, strict=True)]
    return f"{name} {', '.join(pairs[:3])}{', ...' if len(pairs) > 3 else ''}"


def _conditioners(model: ScoreModel) -> Iterator[object]:
    """The conditioners that a posterior says it was made by, the outermost first, each once."""
    found: list[object] = []
    inner: Any = model
    while inner is not None:
        method = getattr(inner, "method", None)
        if method is not None and not any(method is other for other in found):
            found.append(method)
            yield method
        inner = getattr(inner, "prior", None)


def _called(kind: str, component: object) -> str:
    """The name in the registry, or that of the class."""
    cls = type(component)
    factory = f"{cls.__module__}:{cls.__qualname__}"
    names = [found.name for found in registry.components(kind) if found.spec.factory == factory]
    return names[0] if names else cls.__name__


def _advice(sampler: object, methods: Sequence[object]) -> str:
    """What to change, by the names in a config."""
    to_do = [remedy for method in methods for remedy in _remedies("conditioner", method)]
    without = [_called("conditioner", method) for method in methods] if not to_do else []
    to_do += _remedies("sampler", sampler)
    steps = getattr(sampler, "steps", None)
    if steps is not None:
        to_do.append(f"raise sampler.steps (now {steps})")
    if without:
        to_do.append(f"take a gentler conditioner, since {without[0]!r} has no strength to lower")
    advice = ", or ".join(to_do) or "take smaller steps"
    return advice[0].upper() + advice[1:]


def _remedies(path: str, component: Any) -> Iterator[str]:
    """What the parameters of a component, and of the components in it, say of divergence."""
    if not attrs.has(type(component)):
        return
    for known in parameters(type(component)):
        value = getattr(component, known.name)
        if known.component is not None:
            yield from _remedies(f"{path}.{known.name}", value)
        elif known.on_divergence and all(getattr(component, key) in allowed for key, allowed in known.where.items()):
            yield f"{known.on_divergence} {path}.{known.name} (now {value:g})"
