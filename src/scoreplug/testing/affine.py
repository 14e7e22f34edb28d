"""The law of a sampler's output on a model whose score is affine, without step-size or Monte Carlo error.

With an affine score every step is an affine map of the state and of its draws, x' = L x + k + sum_j N_j z_j. The map
is read off the sampler itself by asking it for the images of unit vectors, and mean and covariance follow the
recursion

    M' = L M + k,    V' = L V L^T + sum_j N_j N_j^T

up to rounding. A sampler that keeps more than x between steps, a history, has no such recursion in x alone: there the
whole run is one map, of the start and of all draws. The result may be compared with a recursion written from a paper,
with a closed-form limit (as the steps become many), or with the posterior: then the difference is the method's own
bias.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from scoreplug.noise import Noise
from scoreplug.protocols import ScoreModel
from scoreplug.sampler import BaseSampler


@attrs.frozen(kw_only=True)
class _Probe(Noise):
    """Noise that is zero everywhere but for one unit draw per row: entry `component` of the draw at `path`."""

    units: tuple[tuple[tuple[str | int, ...], int], ...] = ()
    drawn: dict[tuple[str | int, ...], int] = attrs.field(factory=dict)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        self.drawn[self.path] = math.prod(shape)
        draw = torch.zeros(len(self.samples), math.prod(shape), dtype=self.dtype, device=self.device)
        for row, (path, component) in enumerate(self.units):
            if path == self.path:
                draw[row, component] = 1
        return draw.reshape(-1, *shape)


def affine_moments(sampler: BaseSampler, model: ScoreModel) -> tuple[Tensor, Tensor]:
    """Mean (n,) and covariance (n, n) of the samples, for a model with an affine score on n pixels.

    Args:
        sampler: any sampler whose steps are affine: no norms, accept decisions or adaptive steps.
        model: a Gaussian prior, or a posterior whose guidance is affine in x.

    Raises:
        ValueError: if a step turns out not to be affine.
    """
    n = math.prod(model.shape)
    options: dict[str, Any] = {"dtype": model.dtype, "device": model.device}
    first = sampler.init(model, torch.zeros(1, *model.shape, **options), Noise(0, (0,), **options))

    def begin(x: Tensor, noise: Noise) -> Tensor:
        return sampler.begin(model, x, noise).x

    def step(index: int, x: Tensor, noise: Noise) -> Tensor:
        return sampler.step(model, attrs.evolve(first, x=x, index=index), noise).x

    def finish(x: Tensor, noise: Noise) -> Tensor:
        return sampler.finish(model, attrs.evolve(first, x=x, index=len(first.times) - 1), noise).x

    def run(x: Tensor, noise: Noise) -> Tensor:
        state = sampler.begin(model, x, noise.at("start"))
        while not state.last:
            state = sampler.step(model, state, noise.at("step", state.index))
        return sampler.finish(model, state, noise.at("finish")).x

    mean, covariance = torch.zeros(n, **options), model.sde.prior_std**2 * torch.eye(n, **options)
    basis = torch.cat([torch.zeros(1, n, **options), torch.eye(n, **options), -torch.eye(n, **options)])
    maps: list[Callable[[Tensor, Noise], Tensor]] = [
        begin,
        *(functools.partial(step, index) for index in range(len(first.times) - 1)),
        finish,
    ]
    second = sampler.step(model, first, _Probe(seed=0, samples=range(1), **options))
    if second.carry is not None:
        maps = [run]
    for place, move in enumerate(maps):
        probe = _Probe(seed=0, samples=range(2 * n + 1), **options)
        k, images, mirrored = torch.split(move(basis.reshape(-1, *model.shape), probe).flatten(1), [1, n, n])
        L = (images - k).T
        scale = max(float(L.abs().max()), 1e-6 * float(k.abs().max()))  # where x is replaced, L is rounding
        if not torch.allclose(images - k, k - mirrored, rtol=1e-6, atol=1e-6 * scale):
            raise ValueError(
                f"map {place} of {len(maps)} is not affine: the images of x and -x do not mirror each other"
            )
        mean, covariance = L @ mean + k[0], L @ covariance @ L.T

        units = tuple((path, component) for path, size in probe.drawn.items() for component in range(size))
        if units:
            unit = _Probe(seed=0, samples=range(len(units)), units=units, **options)
            N = move(torch.zeros(len(units), *model.shape, **options), unit).flatten(1) - k
            covariance = covariance + N.T @ N
    return mean, covariance
