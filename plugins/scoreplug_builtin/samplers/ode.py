r"""The probability flow, the ordinary differential equation that has the marginals p_t of the reverse SDE.

    d xbar / d level = (xbar - x0) / level,    xbar = x / alpha,    level = sigma / alpha,    x0 = E[x_0 | x_t]

In xbar over level it is the same equation under every process, and its solutions are nearly straight (Karras et al.
2022). Euler's step is deterministic DDIM. Heun's, the second-order method of EDM, takes the mean of the slopes at both
ends of the step. Both, and the classical method of fourth order, take the steps of the grid. rk45, the pair of Dormand
and Prince, is adaptive: between two times of the grid each sample takes as many steps of its own as its error needs.
`rtol` and `atol` bound the error of one step in xbar; Song et al. bound that of x, to which it comes near the end,
where alpha is 1. The model's projection, and whatever it draws, come once per step of the grid, never inside it.

Churn. Before a step noise is added, for those levels that lie in [churn_min, churn_max]:

    level^ = level (1 + gamma),    gamma = min(churn / steps, sqrt(2) - 1)
    xbar^ = xbar + (level^^2 - level^2)^{1/2} churn_noise z

and the step goes on from level^, at most the process's highest one. With churn_noise = 1 the noise itself keeps p_t.
Without churn, noise enters at the start alone.

The start N(0, prior_std^2 I) is not p_1, and nothing on the way corrects it: on a Gaussian N(m, V) the flow's mean is
short by alpha_1 (V / P_1)^{1/2} m, where a reverse SDE leaves alpha_1^2 (V / P_1) m, with P_1 = alpha_1^2 V +
sigma_1^2. With m = 1.221 and V = .4227 that is .0052 and 2e-5 under VP. The rest of the error is the method's, of order
1, 2, 4 in the step: 50 steps of the rho grid change that variance by -.050 (euler), .0062 (heun), 3e-5 (rk4).

The gain that the projection is told is that of Euler's step, alpha_s (level_t - level_s) alpha_t level_t: a score
shifted by g shifts x0 by alpha level^2 g and the slope by -alpha level g. For the other methods that is the first order
in the step.

References:
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through Stochastic Differential
    Equations. ICLR 2021, arXiv:2011.13456, section 4.3. Karras, Aittala, Aila, Laine: Elucidating the Design Space of
    Diffusion-Based Generative Models. NeurIPS 2022, arXiv:2206.00364, algorithms 1 (Heun) and 2 (churn).
"""

from __future__ import annotations

import functools
import math
from typing import Literal, NamedTuple

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.model import broadcast
from scoreplug.noise import Noise
from scoreplug.protocols import SDE, ScoreModel, Step
from scoreplug.sampler import BaseSampler, State
from scoreplug_builtin.samplers._runge_kutta import EULER, HEUN, RK4, integrate, stages, weighted

FIXED = {"euler": EULER, "heun": HEUN, "rk4": RK4}


class Known(NamedTuple):
    """The slope at x, which rk45's last stage was. Of any other x, moved by a projection or corrector, it says
    nothing."""

    x: Tensor
    slope: Tensor


@attrs.frozen(kw_only=True)
class ProbabilityFlow(BaseSampler):
    """Deterministic after the start, unless churned; 1, 2, 4 evaluations per step, or as many as the tolerance asks
    for (rk45)."""

    steps: int = param(50, ge=1, doc="number of steps from t = 1 to t_min; of rk45, intervals between projections")
    grid: Literal["uniform", "quadratic", "rho"] = param(
        "rho",
        doc="spacing of the steps: uniform in t, uniform in sqrt(t), or uniform in level^(1/rho) (Karras et al. 2022)",
    )
    method: Literal["euler", "heun", "rk4", "rk45"] = param("heun", doc="order 1, 2, 4, or 5 with adaptive steps")
    rtol: float = param(1e-5, ge=0.0, doc="tolerated error of a step relative to xbar (rk45)")
    atol: float = param(1e-5, gt=0.0, unit="data", doc="tolerated error of a step beside that (rk45)")
    churn: float = param(0.0, ge=0.0, doc="S_churn of EDM: noise added over all steps; 0 adds none")
    churn_min: float = param(0.0, ge=0.0, unit="data", doc="S_min: no noise is added below this level")
    churn_max: float | None = param(None, gt=0.0, unit="data", doc="S_max: no noise is added above this level, if any")
    churn_noise: float = param(1.0, gt=0.0, doc="S_noise: standard deviation of the added noise, times what is due")

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        x, t = self.churned(model, state, noise)
        s, sde = state.s, model.sde
        alpha_t, alpha_s, level_t, level_s = sde.alpha(t), sde.alpha(s), level_of(sde, t), level_of(sde, s)
        f = functools.partial(slope_of, model)

        xbar, last = x / alpha_t, None
        first = self.known(state, x)
        first = f(xbar, level_t) if first is None else first
        x0 = xbar - level_t * first
        if self.method == "rk45":
            xbar, last = integrate(f, xbar, level_t, level_s, first=first, rtol=self.rtol, atol=self.atol)
        else:
            h, tableau = level_s - level_t, FIXED[self.method]
            xbar = weighted(xbar, h, tableau.b, stages(f, tableau, xbar, level_t, h, first))

        gain = alpha_s * (level_t - level_s) * alpha_t * level_t
        x_s = alpha_s * xbar
        step = Step(t=t, s=s, x0=x0, gain=gain, phase="predict", noise=noise.at("project"))
        return state.next(model.project(x_s, step), None if last is None else Known(x=x_s, slope=last))

    def estimate(self, model: ScoreModel, state: State) -> Tensor:
        slope = self.known(state, state.x)
        if slope is None:
            return super().estimate(model, state)
        return state.x / model.sde.alpha(state.t) - level_of(model.sde, state.t) * slope

    def churned(self, model: ScoreModel, state: State, noise: Noise) -> tuple[Tensor, Tensor]:
        """x and t after the step's share of new noise; the same x and t if it has none."""
        x, t, sde = state.x, state.t, model.sde
        level, highest = level_of(sde, t), math.inf if self.churn_max is None else self.churn_max
        if self.churn == 0 or not self.churn_min <= float(level) <= highest:
            return x, t
        gamma = min(self.churn / (len(state.times) - 1), math.sqrt(2) - 1)
        t_hat = sde.time_of((1 + gamma) * level).clamp(max=1)
        added = (level_of(sde, t_hat) ** 2 - level**2).clamp_min(0).sqrt()
        xbar = x / sde.alpha(t) + added * self.churn_noise * noise.at("churn").normal(model.shape)
        return sde.alpha(t_hat) * xbar, t_hat

    def known(self, state: State, x: Tensor) -> Tensor | None:
        """The slope at x, if the last step has evaluated it."""
        return state.carry.slope if isinstance(state.carry, Known) and state.carry.x is x else None


def level_of(sde: SDE, t: Tensor) -> Tensor:
    """sigma / alpha, of t's shape."""
    return sde.sigma(t) / sde.alpha(t)


def slope_of(model: ScoreModel, xbar: Tensor, level: Tensor) -> Tensor:
    """(xbar - x0) / level, (B, *shape), at a level () or (B,)."""
    t = model.sde.time_of(level)
    x0 = model.denoise(xbar * broadcast(model.sde.alpha(t), xbar), t)
    return (xbar - x0) / broadcast(level, xbar)
