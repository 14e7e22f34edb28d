"""Base classes of score models: priors, conditioned models, and a prior under another SDE."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import attrs
import torch
from torch import Tensor, nn

from scoreplug.measurement import Measurement
from scoreplug.param import param
from scoreplug.protocols import SDE, ScoreModel, Step


def broadcast(coefficient: Tensor, x: Tensor) -> Tensor:
    """Let a coefficient of t's shape, () or (B,), multiply x of shape (B, *shape), without changing the type of x.

    A 0-dim float64 coefficient is left alone, since PyTorch does not promote x to it.
    """
    if coefficient.ndim == 0:
        return coefficient
    return coefficient.to(x).reshape(-1, *(1 for _ in x.shape[1:]))


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

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = broadcast(self.sde.alpha(t), x), broadcast(self.sde.sigma(t), x)
        return (alpha * self.denoise(x, t) - x) / sigma**2

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        if type(self).score is BaseModel.score:
            raise TypeError(f"{type(self).__name__} must define score or denoise")
        return tweedie(self, x, t, self.score(x, t))

    def project(self, x: Tensor, step: Step) -> Tensor:
        del step
        return x

    def under(self, sde: SDE) -> ScoreModel:
        """The same model under another SDE, exactly (see `Rescheduled`)."""
        return Rescheduled(base=self, sde=sde)

    def denoise_with_vjp(self, x: Tensor, t: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The denoised estimate and its vector-Jacobian product, from one evaluation.

        Returns:
            x0 = E[x_0 | x_t = x], (B, *shape), and the map v -> (d x0 / d x)^T v.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0 = self.denoise(x, t)

        def vjp(v: Tensor) -> Tensor:
            return torch.autograd.grad(x0, x, v, retain_graph=True)[0]

        return x0.detach(), vjp


def tweedie(model: ScoreModel, x: Tensor, t: Tensor, score: Tensor) -> Tensor:
    """x0 = (x + sigma^2 score) / alpha (Robbins 1956; Efron 2011, doi:10.1198/jasa.2011.tm11181)."""
    alpha, sigma = broadcast(model.sde.alpha(t), x), broadcast(model.sde.sigma(t), x)
    return (x + sigma**2 * score) / alpha


@attrs.frozen(kw_only=True, eq=False)
class Rescheduled(BaseModel):
    """A model under another SDE.

    With t' the time at which the model's own process has the same noise level sigma/alpha, and x' = x alpha'(t') /
    alpha(t), the two conditional expectations are the same: E[x_0 | x_t = x] = E'[x_0 | x'_{t'} = x'].
    """

    base: ScoreModel
    sde: SDE

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

    def spread(self, t: Tensor) -> Tensor:
        """The model's error at the same noise level, if the model states it."""
        return self.base.spread(self._native(t))  # type: ignore[attr-defined]

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        native, native_t, alpha = self.base.sde, self._native(t), self.sde.alpha(t)
        return self.base.denoise(x * broadcast(native.alpha(native_t) / alpha, x), native_t)

    def under(self, sde: SDE) -> ScoreModel:
        return self.base.under(sde)

    def _native(self, t: Tensor) -> Tensor:
        """The time at which the model's own process has the noise level of this one at t."""
        return self.base.sde.time_of(self.sde.sigma(t) / self.sde.alpha(t))

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x) = log p'_{t'}(x') + n log(alpha'(t') / alpha(t)), if the model under its own process has one."""
        native, native_t, alpha = self.base.sde, self._native(t), self.sde.alpha(t)
        ratio = native.alpha(native_t) / alpha
        native_density = self.base.log_density(x * broadcast(ratio, x), native_t)  # type: ignore[attr-defined]
        return native_density + x[0].numel() * ratio.log().to(x)


@attrs.frozen(kw_only=True, eq=False)
class ConditionedModel(BaseModel):
    """The score model of p(x | y), by a conditioner that has seen the measurement.

    A method overrides `score` or `denoise` (guidance), or `project` (data consistency), or both.
    """

    prior: ScoreModel
    measurement: Measurement

    @property
    def sde(self) -> SDE:
        return self.prior.sde

    @property
    def shape(self) -> tuple[int, ...]:
        return self.prior.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.prior.dtype

    @property
    def device(self) -> torch.device:
        return self.prior.device

    @property
    def level_range(self) -> tuple[float, float] | None:
        return getattr(self.prior, "level_range", None)

    def project(self, x: Tensor, step: Step) -> Tensor:
        return self.prior.project(x, step)

    def under(self, sde: SDE) -> ScoreModel:
        return attrs.evolve(self, prior=self.prior.under(sde))


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
