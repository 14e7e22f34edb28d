"""The base class of samplers: time grids, the loop, and the state it carries."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import attrs
import torch
from torch import Tensor

from scoreplug.divergence import DivergenceError as DivergenceError
from scoreplug.divergence import bound, check
from scoreplug.noise import Noise
from scoreplug.param import param
from scoreplug.protocols import SDE, ScoreModel, Step


class LevelRangeWarning(UserWarning):
    """A prior is asked beyond the noise levels it was made for."""


@attrs.frozen(kw_only=True, eq=False)
class State:
    """Where a sampler is.

    Args:
        x: the samples at this level, (B, *shape).
        times: the whole grid, falling, (steps + 1,), float64.
        index: position in the grid.
        carry: what the sampler keeps between steps.
    """

    x: Tensor
    times: Tensor
    index: int = 0
    carry: NamedTuple | None = None

    @property
    def t(self) -> Tensor:
        """The level that x is at, ()."""
        return _points(self.times)[self.index]

    @property
    def s(self) -> Tensor:
        """The next level, ()."""
        return _points(self.times)[self.index + 1]

    @property
    def last(self) -> bool:
        """There is no next level."""
        return self.index == len(self.times) - 1

    def next(self, x: Tensor, carry: NamedTuple | None = None) -> State:
        """The state at the next level."""
        return attrs.evolve(self, x=x, index=self.index + 1, carry=carry)


@attrs.frozen(kw_only=True)
class BaseSampler:
    """Defaults for a sampler that gives `step`: grid, start, loop and end.

    The loop starts from x ~ N(0, prior_std^2 I) at t = 1, steps down the grid to t_min, and ends with one evaluation of
    E[x_0 | x_{t_min}], or without.
    """

    steps: int = param(200, ge=1, doc="number of steps from t = 1 to t_min")
    grid: Literal["uniform", "quadratic", "rho"] = param(
        "uniform",
        doc="spacing of the steps: uniform in t, uniform in sqrt(t), or uniform in level^(1/rho) (Karras et al. 2022)",
    )
    rho: float = param(7.0, gt=0.0, doc="exponent of the rho grid; larger means more steps at small noise levels")
    final: Literal["denoise", "sample"] = param(
        "denoise", doc="return E[x_0 | x_t] at t_min, at the cost of one evaluation, or x at t_min as it is"
    )

    def times(self, sde: SDE) -> Tensor:
        """The grid 1 = t_0 > ... > t_steps = t_min, (steps + 1,), float64."""
        return time_grid(sde, self.steps, self.grid, self.rho)

    def init(self, model: ScoreModel, x: Tensor, noise: Noise) -> State:
        del noise
        return State(x=x, times=self.times(model.sde))

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        raise NotImplementedError

    def begin(self, model: ScoreModel, x: Tensor, noise: Noise) -> State:
        """The first state, from x ~ N(0, prior_std^2 I), after the model's projection."""
        state = self.init(model, x, noise)
        start = Step(t=state.t, s=state.t, x0=None, gain=0.0, phase="start", noise=noise.at("project"))
        return attrs.evolve(state, x=model.project(state.x, start))

    def estimate(self, model: ScoreModel, state: State) -> Tensor:
        """E[x_0 | x_t] at a state, (B, *shape); a sampler that knows it from its last move need not ask again."""
        return model.denoise(state.x, state.t)

    def finish(self, model: ScoreModel, state: State, noise: Noise) -> State:
        """The samples: E[x_0 | x_t] at the last level after the model's projection, or the last state as it is."""
        if self.final == "sample":
            return state
        x0 = self.estimate(model, state)
        end = Step(t=state.t, s=state.t, x0=x0, gain=0.0, phase="finish", noise=noise.at("project"))
        return attrs.evolve(state, x=model.project(x0, end))

    def trajectory(self, model: ScoreModel, noise: Noise) -> Iterator[State]:
        """Every state from the start to the samples; the last one holds the samples.

        Raises:
            DivergenceError: as soon as a sample is NaN, infinite, or out of all bounds (see `scoreplug.divergence`).
        """
        with torch.no_grad():
            x = model.sde.prior_std * noise.at("start").normal(model.shape)
            state = self.begin(model, x, noise.at("start"))
        _check_levels(model, state)
        limit = bound(model, state.times)
        check(self, model, state, state, noise, limit=limit)
        yield state
        while not state.last:
            with torch.no_grad():  # entered anew in each step: a generator must not leave it on for its caller
                previous, state = state, self.step(model, state, noise.at("step", state.index))
            check(self, model, previous, state, noise, limit=limit)
            yield state
        with torch.no_grad():
            previous, state = state, self.finish(model, state, noise.at("finish"))
        check(self, model, previous, state, noise, limit=limit)
        yield state

    def sample(
        self, model: ScoreModel, n: int, *, seed: int = 0, callback: Callable[[State], None] | None = None
    ) -> Tensor:
        """Draw n samples.

        Args:
            model: the score model of a prior or of a posterior.
            n: how many, >= 1.
            seed: sample i of seed s is the same whatever n is.
            callback: called with every state.

        Returns:
            (n, *shape).

        Raises:
            DivergenceError: if a sample becomes NaN, infinite, or out of all bounds.
            ValueError: if n < 1 or the seed is not in [0, 2^64).
        """
        if n < 1:
            raise ValueError(f"n must be at least 1 (got {n!r})")
        noise = Noise(seed, range(n), dtype=model.dtype, device=model.device)
        for state in self.trajectory(model, noise):
            if callback is not None:
                callback(state)
        return state.x


class Transition(NamedTuple):
    """One move from level t to level s: where to, by which estimate (or what computes it), and how far a unit of score
    would have moved it."""

    x: Tensor
    x0: Tensor | Callable[[], Tensor]
    gain: Tensor | float


@attrs.frozen(kw_only=True)
class KernelSampler(BaseSampler):
    """A sampler whose step is one transition x_t -> x_s of its own, followed by the model's projection."""

    def transition(self, model: ScoreModel, x: Tensor, t: Tensor, s: Tensor, noise: Noise) -> Transition:
        """Move from level t to level s, with one evaluation of the model."""
        raise NotImplementedError

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        x, x0, gain = self.transition(model, state.x, state.t, state.s, noise)
        step = Step(t=state.t, s=state.s, x0=x0, gain=gain, phase="predict", noise=noise.at("project"))
        return state.next(model.project(x, step))


def time_grid(sde: SDE, steps: int, grid: Literal["uniform", "quadratic", "rho"], rho: float = 7.0) -> Tensor:
    """1 = t_0 > ... > t_steps = t_min, (steps + 1,), float64.

    "rho" spaces level = sigma/alpha so that level^(1/rho) is uniform (Karras et al. 2022, arXiv:2206.00364, eq. 5).
    """
    r = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device="cpu")
    ends = torch.tensor([1.0, sde.t_min], dtype=torch.float64, device="cpu")
    if grid == "uniform":
        times = torch.lerp(ends[0], ends[1], r)
    elif grid == "quadratic":
        times = torch.lerp(ends[0].sqrt(), ends[1].sqrt(), r) ** 2
    else:
        roots = (sde.sigma(ends) / sde.alpha(ends)) ** (1 / rho)
        times = sde.time_of(torch.lerp(roots[0], roots[1], r) ** rho)
    times[0], times[-1] = ends  # exact, whatever the rounding in between
    return times


@functools.lru_cache(maxsize=4)  # of the loops within loops, the last; 10,000 levels take megabytes
def _points(times: Tensor) -> tuple[Tensor, ...]:
    """The levels of a grid, each (); a grid is one object for a whole trajectory."""
    return times.unbind()


def _check_levels(model: ScoreModel, state: State) -> None:
    allowed: tuple[float, float] | None = getattr(model, "level_range", None)
    radius: float | None = getattr(model, "radius", None)
    ends = state.times[[0, -1]]
    high, low = (model.sde.sigma(ends) / model.sde.alpha(ends)).tolist()
    if allowed is not None and (low < allowed[0] or high > allowed[1]):
        warnings.warn(
            f"the prior was made for noise levels {allowed[0]:g} to {allowed[1]:g}, "
            f"but the process runs from {high:g} down to {low:g}; "
            "choose an SDE within that range",
            LevelRangeWarning,
            stacklevel=3,
        )
    if radius is not None and high < radius < math.inf:
        warnings.warn(
            f"the data reach {radius:.3g} from 0, and the process starts from noise of level {high:.3g} around 0, "
            "which favours the modes near 0; choose an SDE whose last noise level is larger",
            LevelRangeWarning,
            stacklevel=3,
        )
