"""Base classes of score models: priors, conditioned models, and a prior under another SDE."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, overload

import attrs
import torch
from torch import Tensor, nn

from scoreplug.measurement import Measurement
from scoreplug.param import param
from scoreplug.protocols import SDE, HasLogDensity, HasMetric, HasSpread, ScoreModel, Step

Coefficient = float | Tensor
"""A number, or one for each sample, (B, 1, ...)."""


@overload
def broadcast(coefficient: Tensor, x: Tensor) -> Tensor: ...
@overload
def broadcast(coefficient: Coefficient, x: Tensor) -> Coefficient: ...
def broadcast(coefficient: Coefficient, x: Tensor) -> Coefficient:
    """Let a coefficient of t's shape, () or (B,), multiply x of shape (B, *shape), without changing the type of x.

    A number or a 0-dim float64 coefficient is left alone, since PyTorch does not promote x to it.
    """
    if not isinstance(coefficient, Tensor) or coefficient.ndim == 0:
        return coefficient
    return coefficient.to(x).reshape(-1, *(1 for _ in x.shape[1:]))


def kernel(sde: SDE, t: Tensor) -> tuple[float, float]:
    """alpha and sigma of the perturbation kernel at a level that the batch shares, as numbers.

    They are computed once for each process and time, so that a step of a sampler costs the arithmetic on x, and not
    that of its schedule.

    Args:
        sde: the process; immutable and hashable, as frozen attrs classes are.
        t: ().
    """
    return _kernel(sde, float(t))  # type: ignore[arg-type]  # a protocol does not say that it is hashable


def rates(sde: SDE, t: Tensor) -> tuple[float, float]:
    """f and g of dx = f x dt + g dw at a time (), as numbers, computed once for each process and time."""
    return _rates(sde, float(t))  # type: ignore[arg-type]


def coefficients(sde: SDE, t: Tensor, x: Tensor) -> tuple[Coefficient, Coefficient]:
    """alpha and sigma at t, () or (B,), to multiply x of shape (B, *shape) without changing its type."""
    if t.ndim == 0 and not t.requires_grad:
        return kernel(sde, t)
    return broadcast(sde.alpha(t), x), broadcast(sde.sigma(t), x)


def noise_level(sde: SDE, t: Tensor) -> Coefficient:
    """sigma / alpha at t: a number where the batch shares t, else of t's shape, (B,)."""
    if t.ndim == 0 and not t.requires_grad:
        alpha, sigma = kernel(sde, t)
        return sigma / alpha
    return sde.sigma(t) / sde.alpha(t)


@functools.lru_cache(maxsize=2**14)
def _kernel(sde: SDE, t: float) -> tuple[float, float]:
    time = torch.tensor(t, dtype=torch.float64, device="cpu")
    return float(sde.alpha(time)), float(sde.sigma(time))


@functools.lru_cache(maxsize=2**14)
def _rates(sde: SDE, t: float) -> tuple[float, float]:
    time = torch.tensor(t, dtype=torch.float64, device="cpu")
    return float(sde.drift(time)), float(sde.diffusion(time))


def combination(first: tuple[Coefficient, Tensor], *others: tuple[Coefficient, Tensor]) -> Tensor:
    """c_1 v_1 + c_2 v_2 + ..., (B, *shape), in one pass over the data for each term."""
    c, v = first
    total = c * v
    for c, v in others:
        total = total + c * v if isinstance(c, Tensor) else torch.add(total, v, alpha=c)
    return total


class BaseModel:
    """Defaults for a score model that gives `score` or `denoise`: Tweedie's formula derives either from the other."""

    @property
    def sde(self) -> SDE:
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        raise NotImplementedError

    @property
    def level_range(self) -> tuple[float, float] | None:
        """Noise levels that the model was made for, if it has limits; samplers warn outside."""
        return None

    @property
    def radius(self) -> float | None:
        """How far from 0 the data reach, if that is known; samplers warn if the noise that they start from is less."""
        return None

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = coefficients(self.sde, t, x)
        return combination((alpha / sigma**2, self.denoise(x, t)), (-1 / sigma**2, x))

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        if type(self).score is BaseModel.score:
            raise TypeError(f"{type(self).__name__} must define score or denoise")
        return tweedie(self, x, t, self.score(x, t))

    def project(self, x: Tensor, step: Step) -> Tensor:
        del step
        return x

    def under(self, sde: SDE) -> ScoreModel:
        """The same model under another SDE, exactly (see `Rescheduled`)."""
        return Rescheduled.of(self, sde)

    def denoise_with_vjp(self, x: Tensor, t: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The denoised estimate and its vector-Jacobian product, from one evaluation.

        Returns:
            x0 = E[x_0 | x_t = x], (B, *shape), and the map v -> (d x0 / d x)^T v.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0 = self.denoise(x, t)
        return x0.detach(), Pullback(x=x, x0=x0)


@attrs.frozen(kw_only=True, eq=False)
class Pullback:
    """v -> (d x0 / d x)^T v, by walking back the graph that led from x to x0."""

    x: Tensor
    x0: Tensor

    def __call__(self, v: Tensor) -> Tensor:
        return torch.autograd.grad(self.x0, self.x, v, retain_graph=True)[0]

    def last(self, v: Tensor) -> Tensor:
        """The same for the last time: the graph is freed on the way, which is quicker and takes less memory."""
        return torch.autograd.grad(self.x0, self.x, v)[0]


def last_vjp(vjp: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    """(d x0 / d x)^T v where no other product is asked for; frees the graph on the way if the model offers it.

    Args:
        vjp: as `denoise_with_vjp` gives it.
        v: (B, *shape).
    """
    last: Callable[[Tensor], Tensor] = getattr(vjp, "last", vjp)
    return last(v)


def tweedie(model: ScoreModel, x: Tensor, t: Tensor, score: Tensor) -> Tensor:
    """x0 = (x + sigma^2 score) / alpha (Robbins 1956; Efron 2011, doi:10.1198/jasa.2011.tm11181)."""
    alpha, sigma = coefficients(model.sde, t, x)
    return combination((1 / alpha, x), (sigma**2 / alpha, score))


def score_and_log_density(model: ScoreModel, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """grad log p_t(x), (B, *shape), and log p_t(x), (B,), from one evaluation where the model knows how.

    Args:
        model: one with a log density.
        x: (B, *shape).
        t: () or (B,).
    """
    together: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
    together = getattr(model, "score_and_log_density", None)
    if together is not None:
        return together(x, t)
    dense: HasLogDensity = model  # type: ignore[assignment]
    return model.score(x, t), dense.log_density(x, t)


def precondition(model: ScoreModel, v: Tensor, t: Tensor, power: Literal["half", "one"]) -> Tensor:
    """M_t^{1/2} v or M_t v, (B, *shape): the model's metric, the identity if it has none."""
    return model.metric(v, t, power) if isinstance(model, HasMetric) else v


class WrappedModel(BaseModel):
    """A model made of another one, `base`, whose process, shape, type and device it has."""

    @property
    def base(self) -> ScoreModel:
        raise NotImplementedError

    @property
    def sde(self) -> SDE:
        return self.base.sde

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def device(self) -> torch.device:
        return self.base.device

    @property
    def level_range(self) -> tuple[float, float] | None:
        return getattr(self.base, "level_range", None)

    @property
    def radius(self) -> float | None:
        return getattr(self.base, "radius", None)


@attrs.frozen(kw_only=True, eq=False)
class Rescheduled(WrappedModel):
    """A model under another SDE.

    With t' the time at which the model's own process has the same noise level sigma/alpha, and x' = x alpha'(t') /
    alpha(t), the two conditional expectations are the same: E[x_0 | x_t = x] = E'[x_0 | x'_{t'} = x'].
    """

    base: ScoreModel
    sde: SDE

    @classmethod
    def of(cls, base: ScoreModel, sde: SDE) -> Rescheduled:
        """The model under the SDE, with the capabilities that the model has."""
        has_density, has_spread = isinstance(base, HasLogDensity), isinstance(base, HasSpread)
        return _RESCHEDULED[has_density, has_spread](base=base, sde=sde)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        if t.ndim == 0 and not t.requires_grad:
            native_t, ratio = self._native(float(t))
            return self.base.denoise(ratio * x, native_t)
        return self.base.denoise(x * broadcast(self.ratio(t), x), self.native_time(t))

    def under(self, sde: SDE) -> ScoreModel:
        return self.base.under(sde)

    def native_time(self, t: Tensor) -> Tensor:
        """t', the time at which the model's own process has the noise level of this one at t."""
        return self.base.sde.time_of(self.sde.sigma(t) / self.sde.alpha(t))

    def ratio(self, t: Tensor) -> Tensor:
        """alpha'(t') / alpha(t), of t's shape."""
        return self.base.sde.alpha(self.native_time(t)) / self.sde.alpha(t)

    @functools.cached_property
    def _native(self) -> Callable[[float], tuple[Tensor, float]]:
        """t' and the ratio at a time that the batch shares, computed once for each."""

        @functools.lru_cache(maxsize=2**14)
        def native(t: float) -> tuple[Tensor, float]:
            time = torch.tensor(t, dtype=torch.float64, device="cpu")
            return self.native_time(time), float(self.ratio(time))

        return native


class _Density(Rescheduled):
    """log p_t(x) = log p'_{t'}(x') + n log(alpha'(t') / alpha(t))."""

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        base: HasLogDensity = self.base  # type: ignore[assignment]
        ratio = self.ratio(t)
        native = base.log_density(x * broadcast(ratio, x), self.native_time(t))
        return native + x[0].numel() * ratio.log().to(x)

    def score_and_log_density(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        ratio = self.ratio(t)
        score, native = score_and_log_density(self.base, x * broadcast(ratio, x), self.native_time(t))
        return score * broadcast(ratio, x), native + x[0].numel() * ratio.log().to(x)


class _Spread(Rescheduled):
    """The model's error at the same noise level."""

    def spread(self, t: Tensor) -> Tensor:
        base: HasSpread = self.base  # type: ignore[assignment]
        return base.spread(self.native_time(t))


class _DensityAndSpread(_Density, _Spread):
    """Both."""


_RESCHEDULED: dict[tuple[bool, bool], type[Rescheduled]] = {
    (False, False): Rescheduled,
    (True, False): _Density,
    (False, True): _Spread,
    (True, True): _DensityAndSpread,
}


@attrs.frozen(kw_only=True, eq=False)
class ConditionedModel(WrappedModel):
    """The score model of p(x | y), by a conditioner that has seen the measurement.

    A method overrides `score` or `denoise` (guidance), or `project` (data consistency), or both.

    Args:
        prior: the score model of p(x).
        measurement: y = A x + n.
        method: the conditioner, with its parameters; a run that diverges names them.
    """

    prior: ScoreModel
    measurement: Measurement
    method: Any = None

    @property
    def base(self) -> ScoreModel:
        return self.prior

    def project(self, x: Tensor, step: Step) -> Tensor:
        return self.prior.project(x, step)

    def under(self, sde: SDE) -> ScoreModel:
        return attrs.evolve(self, prior=self.prior.under(sde))


@attrs.frozen(kw_only=True, eq=False)
class ProjectedModel(ConditionedModel):
    """The score of the prior, with data consistency after every update: a method that overrides `project` alone."""

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        return self.prior.score(x, t)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        return self.prior.denoise(x, t)

    def denoise_with_vjp(self, x: Tensor, t: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return self.prior.denoise_with_vjp(x, t)


class PriorDensity(ProjectedModel):
    """Mixin for a projected model of a prior whose log density is known: between projections the target is p_t(x)."""

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        prior: HasLogDensity = self.prior  # type: ignore[assignment]
        return prior.log_density(x, t)

    def score_and_log_density(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return score_and_log_density(self.prior, x, t)


@attrs.frozen(kw_only=True, eq=False)
class BasePrior(BaseModel):
    """A prior under the process, in the precision and on the device that the user chooses."""

    sde: SDE = param("vp", component="sde", doc="the forward process that the model is asked under")
    precision: Literal["float32", "float64", "bfloat16"] = param(
        "float32", doc="floating-point type of weights and samples"
    )
    device_name: str = param("cpu", doc="where the model runs, as torch names it: cpu, cuda, cuda:1, mps")

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.precision)

    @property
    def device(self) -> torch.device:
        return torch.device(self.device_name)


@attrs.frozen(kw_only=True, eq=False)
class NetworkModel(BasePrior):
    """A prior held by a neural network.

    A subclass gives `build()`, the torch module, and `denoise`. The weights are frozen, so that guidance
    differentiates with respect to x alone.
    """

    image_shape: tuple[int, ...] = param(doc="shape of one image, (channels, height, width)", ge=1, unit="pixel")
    checkpoint: str | None = param(None, doc="file with the weights (.safetensors, .pt); without one they are fresh")

    def __attrs_post_init__(self) -> None:
        _ = self.module  # a bad checkpoint is found now, not at the first step

    def build(self) -> nn.Module:
        """The network with its weights, on the CPU, in the precision of the checkpoint."""
        raise NotImplementedError

    @functools.cached_property
    def module(self) -> nn.Module:
        return self.build().to(device=self.device, dtype=self.dtype).eval().requires_grad_(requires_grad=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image_shape
