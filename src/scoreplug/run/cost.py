"""What a run costs: calls of the network, of its derivative, of A and of A^T, counted where they happen.

A counted model or operator is a copy whose class counts. In every other respect it is the same object, with the same
capabilities, parameters and arithmetic, hence bit-identical results. A proxy would have to repeat every capability that
some plugin may look for.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import attrs
from torch import Tensor

from scoreplug.model import last_vjp, score_and_log_density
from scoreplug.protocols import SDE, Operator, ScoreModel

T = TypeVar("T")


@attrs.define(kw_only=True)
class Cost:
    """Counters. `*_calls` count batches; the others count samples, so that they do not depend on the batch size.

    Args:
        evaluations: of the network, through `score` or `denoise`.
        vjps: vector-Jacobian products of the network.
        forwards: applications of A.
        adjoints: applications of A^T, or of a Jacobian's transpose.
    """

    evaluations: int = 0
    evaluation_calls: int = 0
    vjps: int = 0
    vjp_calls: int = 0
    forwards: int = 0
    forward_calls: int = 0
    adjoints: int = 0
    adjoint_calls: int = 0
    _inside: bool = attrs.field(default=False, repr=False)

    def count(self, what: str, batch: Tensor) -> None:
        setattr(self, f"{what}s", getattr(self, f"{what}s") + batch.shape[0])
        setattr(self, f"{what}_calls", getattr(self, f"{what}_calls") + 1)

    def as_dict(self) -> dict[str, int]:
        return attrs.asdict(self, filter=lambda field, _: field.name != "_inside")

    @contextlib.contextmanager
    def once(self, what: str, batch: Tensor) -> Iterator[bool]:
        """Count the outermost call alone, as `score` may call `denoise` or the reverse. Yields whether this is it."""
        outermost, self._inside = not self._inside, True
        try:
            if outermost:
                self.count(what, batch)
            yield outermost
        finally:
            self._inside = not outermost


def counted_model(model: ScoreModel, cost: Cost) -> ScoreModel:
    """The same model, whose evaluations and vjps add to `cost`."""
    kind: Any = type(model)

    class Counted(kind):  # type: ignore[misc]
        __slots__ = ()

        def score(self, x: Tensor, t: Tensor) -> Tensor:
            with cost.once("evaluation", x) as outermost:
                return _watched("vjp", super().score(x, t), cost) if outermost else super().score(x, t)

        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            with cost.once("evaluation", x) as outermost:
                return _watched("vjp", super().denoise(x, t), cost) if outermost else super().denoise(x, t)

        def denoise_with_vjp(self, x: Tensor, t: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            with cost.once("evaluation", x):
                x0, vjp = super().denoise_with_vjp(x, t)
            return x0, _CountedVJP(vjp=vjp, cost=cost)

        def under(self, sde: SDE) -> ScoreModel:
            return counted_model(super().under(sde), cost)

    if hasattr(kind, "log_density"):

        class CountedDensity(Counted):
            __slots__ = ()

            def log_density(self, x: Tensor, t: Tensor) -> Tensor:
                with cost.once("evaluation", x) as outermost:
                    return _watched("vjp", super().log_density(x, t), cost) if outermost else super().log_density(x, t)

            def score_and_log_density(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
                with cost.once("evaluation", x) as outermost:
                    score, log_density = score_and_log_density(super(), x, t)  # type: ignore[arg-type]
                    return _watched("vjp", score, cost) if outermost else score, log_density

        return recast(model, CountedDensity)
    return recast(model, Counted)


@attrs.frozen(kw_only=True, eq=False)
class _CountedVJP:
    vjp: Callable[[Tensor], Tensor]
    cost: Cost

    def __call__(self, v: Tensor) -> Tensor:
        self.cost.count("vjp", v)
        return self.vjp(v)

    def last(self, v: Tensor) -> Tensor:
        self.cost.count("vjp", v)
        return last_vjp(self.vjp, v)


def counted_operator(operator: Operator, cost: Cost) -> Operator:
    """The same operator, whose applications add to `cost`, those inside its own solvers included."""
    kind: Any = type(operator)

    class Counted(kind):  # type: ignore[misc]
        __slots__ = ()

        def __call__(self, x: Tensor) -> Tensor:
            cost.count("forward", x)
            return _watched("adjoint", super().__call__(x), cost)

    if hasattr(kind, "adjoint"):

        class CountedLinear(Counted):
            __slots__ = ()

            def adjoint(self, y: Tensor) -> Tensor:
                cost.count("adjoint", y)
                return super().adjoint(y)

        return recast(operator, CountedLinear)
    return recast(operator, Counted)


def _watched(what: str, y: Tensor, cost: Cost) -> Tensor:
    """Count when autograd comes back through y; the hook leaves the gradient alone."""
    if y.requires_grad:
        y.register_hook(lambda v: cost.count(what, v))  # type: ignore[no-untyped-call]
    return y


def recast(instance: T, kind: type) -> T:
    """A shallow copy of another class, cached properties included: a network is not loaded twice."""
    kind.__name__ = type(instance).__name__  # error messages name the class
    twin: T = object.__new__(kind)
    for cls in type(instance).__mro__:
        for slot in vars(cls).values():
            if isinstance(slot, types.MemberDescriptorType):
                with contextlib.suppress(AttributeError):  # a cached property that nobody has asked for yet
                    slot.__set__(twin, slot.__get__(instance))
    getattr(twin, "__dict__", {}).update(getattr(instance, "__dict__", {}))
    return twin
