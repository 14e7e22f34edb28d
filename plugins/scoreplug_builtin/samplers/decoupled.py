r"""Decoupled samplers: the prior and the measurement take turns, each exactly, and noise keeps them together.

Down a falling sequence of levels l = sigma / alpha, with r^2 about l^2 and `refine` the conditioner's,

    form = "daps":         x0 ~ `inner`, down from x_t;    v = refine(x0) at t;    x_s = alpha_s v + sigma_s z
    form = "mean":         the same with x0 = E[x_0 | x_t]
    form = "split-gibbs":  x0 ~ `inner`, down from x_t;    v = refine(x0) at s;    x_s = alpha_s v

where refine draws from p(y | v) N(v; x0, r^2 I). The network never meets the measurement, and the measurement never a
noisy image: any operator whose data can be drawn given x_0 will do, and a step may jump to another mode. At the last
level the estimate x0 is what comes out, without refinement. For refinement take `diffpir`.

"daps" is the decoupled annealing of Zhang et al.: five evaluations of the probability flow for x0, 200 levels. Noise
of variance r^2 around x0 stands for the spread of x_0 given x_t; but x0 by the flow is a draw already, and with the
exact refinement its spread counts twice. "mean" takes it once. "split-gibbs" is the Gibbs sampler of p(x) N(v; x, l^2
I) p(y | v), PnP-DM: x0 is drawn given v, a noisy image at level l, by a stochastic sampler, and v given x0; annealing
makes it start well. A level that is held gives x0 the posterior of p(x) for data with the noise sigma_y^2 I + l^2 A
A^T.

Bias. In the scalar problem N(0, 1.7), y = .8 x + .6 n = 1.3, whose posterior has mean 1.2210 and variance .4227, many
levels down to 0 give, with `diffpir`'s r = l,

    form = "mean":                    1.2210 and .4227, exact
    form = "daps", exact flow:        1.3943 and .4827, the posterior of a prior with twice the variance
    form = "split-gibbs", l held:     mean (y / a) k / (1 + k), variance 1.7 / (1 + k), k = 1.088 / (.36 + .64 l^2)

"mean" moves by steps of the size l^2, like Langevin dynamics: it needs many levels where l is small, and does not
change modes there. The defaults, 200 levels down to .1, give under vp 1.224 and .426 ("mean"), 1.336 and .467 ("daps":
five Euler steps), 1.190 and .436 ("split-gibbs").

Levels are those of the grid from the largest down to `level_min`, where the chain stays for `hold` more steps. PnP-DM:
form="split-gibbs", steps=33, hold=67, level_min=.3, a geometric grid.

References:
    Zhang, Chu, Berner, Meng, Anandkumar, Song: Improving Diffusion Inverse Problem Solving with Decoupled Noise
    Annealing. CVPR 2025, arXiv:2407.01521, algorithm 1. Wu, Sun, Chen, Zhang, Yue, Bouman: Principled Probabilistic
    Imaging using Diffusion Models as Plug-and-Play Priors. NeurIPS 2024, arXiv:2405.18782, algorithm 1. Vono, Dobigeon,
    Chainais: Split-and-Augmented Gibbs Sampler. IEEE TSP 2019, doi:10.1109/TSP.2019.2894825.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from scoreplug import param, registry
from scoreplug.noise import Noise
from scoreplug.param import ParameterError
from scoreplug.protocols import SDE, HasRefine, ScoreModel
from scoreplug.sampler import BaseSampler, State
from scoreplug.sde import BaseSDE

FLOW: tuple[str, dict[str, Any]] = ("ode", {"method": "euler", "steps": 4, "grid": "rho"})
"""The DAPS authors' five evaluations: four Euler steps, and the estimate at their end."""

REVERSE: tuple[str, dict[str, Any]] = ("dpm-solver", {"eta": 1.0, "steps": 10})
"""The reverse SDE to second order, where the PnP-DM authors take some tens of Euler steps."""


@attrs.frozen(kw_only=True)
class Decoupled(BaseSampler):
    """Prior, measurement and noise in turn; needs a conditioner that refines. The cost is `inner`'s at each level."""

    grid: Literal["uniform", "quadratic", "rho"] = param(
        "rho",
        doc="spacing of the levels: uniform in t, uniform in sqrt(t), or uniform in level^(1/rho) (Karras et al. 2022)",
    )
    form: Literal["daps", "mean", "split-gibbs"] = param(
        "daps", doc="x_0 by `inner` and new noise, E[x_0 | x_t] and new noise, or x_0 by `inner` and none but refine's"
    )
    inner: Any = param(
        None,
        component="sampler",
        doc="draws x_0 given x_t, in its own steps down from t (daps, split-gibbs); none takes the papers': "
        "4 Euler steps of the probability flow, or the reverse SDE in 10 of second order",
    )
    level_min: float | None = param(
        0.1, gt=0.0, unit="data", doc="the last level, if it is above that of t_min; none is t_min"
    )
    hold: int = param(0, ge=0, doc="further steps at the last level")

    def __attrs_post_init__(self) -> None:
        if self.inner is not None and not isinstance(self.inner, BaseSampler):
            raise ParameterError(
                "decoupled", [f"inner must be built on BaseSampler, to start below t = 1 (got {self.inner!r})"]
            )

    def init(self, model: ScoreModel, x: Tensor, noise: Noise) -> State:
        del noise
        self._posterior(model)  # refused before anything is computed
        last = self.last_time(model.sde)
        times = self.times(Section(base=model.sde, start=_time(1.0), t_min=float(last))).clamp(min=last)
        return State(x=x, times=torch.cat([times, times[-1:].expand(self.hold)]))

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        posterior, s, sde = self._posterior(model), state.s, model.sde
        x0 = self.estimated(posterior.prior, state, noise.at("inner"))
        if self.form == "split-gibbs":
            return state.next(sde.alpha(s) * posterior.refine(x0, s, noise.at("refine")))
        x0 = posterior.refine(x0, state.t, noise.at("refine"))
        return state.next(sde.alpha(s) * x0 + sde.sigma(s) * noise.at("z").normal(model.shape))

    def finish(self, model: ScoreModel, state: State, noise: Noise) -> State:
        """The estimate of x_0 at the last level, or the last state as it is."""
        if self.final == "sample":
            return state
        prior = self._posterior(model).prior
        return attrs.evolve(state, x=self.estimated(prior, state, noise.at("inner")))

    def estimated(self, prior: ScoreModel, state: State, noise: Noise) -> Tensor:
        """x_0 from the state, by the prior alone, (B, *shape)."""
        if self.form == "mean":
            return prior.denoise(state.x, state.t)
        inner = self._solver
        inside = inner.init(prior, state.x, noise.at("start"))
        inside = attrs.evolve(inside, times=grid_below(inner, prior.sde, state.t))
        while not inside.last:
            inside = inner.step(prior, inside, noise.at("step", inside.index))
        return inner.finish(prior, inside, noise.at("finish")).x

    def last_time(self, sde: SDE) -> Tensor:
        """The time of the last level, ().

        Raises:
            ValueError: if level_min is above the levels of the process.
        """
        lowest = _time(sde.t_min)
        if self.level_min is None:
            return lowest
        t = sde.time_of(_time(self.level_min))
        if t >= 1:
            raise ValueError(
                f"level_min = {self.level_min:g} is above the largest noise level of {type(sde).__name__}; "
                "use a smaller one"
            )
        return torch.maximum(t, lowest)

    @functools.cached_property
    def _solver(self) -> BaseSampler:
        """`inner`, or the sampler of the form's paper."""
        if self.inner is None:
            name, params = REVERSE if self.form == "split-gibbs" else FLOW
            sampler: BaseSampler = registry.get_sampler(name, **params)
            return sampler
        inner: BaseSampler = self.inner
        return inner

    def _posterior(self, model: ScoreModel) -> HasRefine:
        if not isinstance(model, HasRefine):
            raise TypeError(
                f"sampler 'decoupled' needs a posterior that refines an estimate of x_0, which {type(model).__name__} "
                "does not; use a conditioner that gives one, such as 'diffpir'"
            )
        return model


@attrs.frozen(kw_only=True, eq=False)
class Section(BaseSDE):
    """A process from the time `start` down, on a clock that calls this time 1: samplers make their grids for it.

    Args:
        base: the process.
        start: ().
        t_min: the smallest time, on the new clock.
    """

    base: SDE
    start: Tensor
    t_min: float

    def alpha(self, t: Tensor) -> Tensor:
        return self.base.alpha(self.start * t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.base.sigma(self.start * t)

    def time_of(self, level: Tensor) -> Tensor:
        return self.base.time_of(level) / self.start


def grid_below(sampler: BaseSampler, sde: SDE, start: Tensor) -> Tensor:
    """The sampler's grid from a time of the process down to t_min, falling; `start` alone if there is nothing below."""
    stop = _time(sde.t_min)
    times = start * sampler.times(Section(base=sde, start=start, t_min=float(stop / start)))
    below = times < start * (1 - 1e-9)  # rounding is not a step
    return torch.cat([start[None], times[below].clamp(min=stop)])


def _time(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, device="cpu")
