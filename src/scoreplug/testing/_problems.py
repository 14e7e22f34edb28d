"""Tiny problems that components are checked on: priors, operators, conditioners and samplers around the subject."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from torch import Tensor

from scoreplug import registry
from scoreplug.measurement import Measurement, simulate
from scoreplug.model import WrappedModel
from scoreplug.noise import Noise
from scoreplug.operator import from_function, with_dense_svd
from scoreplug.protocols import SDE, HasSpread, ScoreModel, Twist
from scoreplug.registry.specs import OF_POSTERIORS
from scoreplug.testing.kit import Subject

SHAPES = ((1, 8, 8), (3, 8, 8), (2, 8, 8))
SMALL = (1, 2, 2)


def source(n: int = 3, *labels: str | int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Noise:
    """Noise for samples 0 .. n-1."""
    return Noise(seed, range(n), dtype=dtype, device=torch.device("cpu")).at("check", *labels)


def instances(subject: Subject, **more: Any) -> Iterator[Any]:
    """Tiny instances: of the example's image shape, or of one, three and two channels, as far as it takes them.

    Raises:
        AssertionError: if it takes none.
    """
    if not subject.takes("image_shape") or "image_shape" in {**subject.spec.example, **subject.params}:
        yield subject.build(**more)
        return
    problems, made = [], 0
    for shape in SHAPES:
        try:
            instance = subject.build(image_shape=shape, **more)
        except (ValueError, TypeError) as error:
            problems.append(f"{shape}: {error}")
            continue
        made += 1
        yield instance
    assert made, f"no instance could be built; give parameters in spec.example. {'; '.join(problems)}"


def instance(subject: Subject, **more: Any) -> Any:
    """The first tiny instance."""
    return next(instances(subject, **more))


def mixture(sde: SDE | str = "vp", *, shape: tuple[int, ...] = SMALL, precision: str = "float64") -> Any:
    """A prior whose denoiser is not linear: two correlated normal distributions."""
    i = torch.arange(math.prod(shape), dtype=torch.float64, device="cpu")
    covariance = 0.2 * (-(i[:, None] - i).abs() / 2).exp()
    means = torch.stack([0.5 * (i + 1).sin(), 0.3 - 0.8 * (i + 1).cos()])
    return registry.get_model(
        "gaussian-mixture",
        image_shape=shape,
        means=means,
        covariances=covariance.repeat(2, 1, 1),
        sde=sde,
        precision=precision,
    )


def gaussian(sde: SDE | str = "vp", *, mean: float = 0.7, covariance: Any = 1.7, shape: tuple[int, ...] = SMALL) -> Any:
    """A Gaussian prior."""
    return registry.get_model("gaussian", image_shape=shape, mean=mean, covariance=covariance, sde=sde)


@functools.cache
def linear_operator() -> Any:
    """Three mixed measurements of four pixels, with a decomposition."""
    M = torch.tensor([[1.0, 0.5, 0.0, 0.2], [0.0, 1.0, -0.3, 0.0], [0.4, 0.0, 1.0, 1.0]], dtype=torch.float64)
    operator: Any = from_function(lambda x: x.flatten(1) @ M.to(x).T, SMALL, linear=True)
    return with_dense_svd(operator)


def measured(noise_std: float = 0.1) -> Measurement:
    """A measurement of an image that both modes of the mixture could have made; the same data for every noise_std."""
    image = torch.tensor([0.4, 0.1, -0.2, 0.3], dtype=torch.float64, device="cpu").reshape(SMALL)
    return attrs.evolve(simulate(linear_operator(), image, 0.1), noise_std=noise_std)


def posterior(subject: Subject, prior: ScoreModel, noise_std: float = 0.1) -> ScoreModel:
    """The prior conditioned by the subject."""
    measurement = measured(noise_std)
    if prior.dtype != torch.float64:
        measurement = attrs.evolve(measurement, data=measurement.data.to(prior.dtype))
    conditioned: ScoreModel = instance(subject).condition(prior, measurement)
    return conditioned


def sampler(name: str, **params: Any) -> Any:
    """A sampler of the registry to drive a conditioner with."""
    return registry.get_sampler(name, **params)


def short(subject: Subject, **more: Any) -> Any:
    """The subject, a sampler, with few steps."""
    return instance(subject, **({"steps": 4} if subject.takes("steps") else {}), **more)


def draw(sampler: Any, model: ScoreModel, indices: tuple[int, ...], seed: int = 0) -> Tensor:
    """Samples of these indices."""
    noise = Noise(seed, indices, dtype=model.dtype, device=model.device)
    *_, state = sampler.trajectory(model, noise)
    x: Tensor = state.x
    return x


@attrs.frozen(kw_only=True, eq=False)
class Wrapped(WrappedModel):
    """A model that does something with every evaluation of another one."""

    base: ScoreModel
    after: Callable[[Tensor, Tensor], Tensor]

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        return self.after(self.base.denoise(x, t), t)

    def spread(self, t: Tensor) -> Tensor:
        stated: HasSpread = self.base  # type: ignore[assignment]
        return stated.spread(t)


@attrs.frozen(kw_only=True, eq=False)
class Unmeasured(WrappedModel):
    """The posterior of a measurement that says nothing, with every capability that a posterior may have."""

    base: ScoreModel

    @property
    def prior(self) -> ScoreModel:
        return self.base

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        return self.base.denoise(x, t)

    def log_likelihood(self, x0: Tensor) -> Tensor:
        return 0 * x0.flatten(1).sum(1)

    def twist(self, x: Tensor, t: Tensor) -> Twist:
        x0, vjp = self.base.denoise_with_vjp(x, t)
        return Twist(x0=x0, log=torch.zeros_like(x0.flatten(1)[:, 0]), gradient=torch.zeros_like(x0), vjp=vjp)

    def refine(self, x0: Tensor, t: Tensor, noise: Noise) -> Tensor:
        return x0 + self.sde.sigma(t) / self.sde.alpha(t) * noise.normal(self.shape)


def target(subject: Subject, model: ScoreModel) -> ScoreModel:
    """What a sampler is driven with: a prior, or, if it needs what only a posterior has, its empty posterior."""
    return Unmeasured(base=model) if set(getattr(subject.spec, "needs", ())) & set(OF_POSTERIORS) else model


def time(model: ScoreModel, level: float) -> Tensor:
    """The model's time of a noise level."""
    return model.sde.time_of(torch.tensor(level, dtype=torch.float64, device="cpu"))


def close(found: Tensor, expected: Tensor, *, tolerance: float, what: str) -> None:
    """Assert that two tensors agree, relative to the larger one's size."""
    assert found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    scale = max(float(expected.abs().max()), float(found.abs().max()), 1e-300)
    worst = float((found - expected).abs().max()) / scale
    assert worst <= tolerance, f"{what}: off by {worst:.2g} of the largest value, {tolerance:.2g} is allowed"
