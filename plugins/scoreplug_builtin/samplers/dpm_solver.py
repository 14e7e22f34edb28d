r"""DPM-Solver++: an exponential multistep method for the probability flow or the reverse SDE.

    xbar_s = (level_s / level_t) exp(-eta h) xbar_t + (1 - exp(-k)) D + level_s (1 - exp(-2 eta h))^{1/2} z
    xbar = x / alpha,    level = sigma / alpha,    h = log(level_t / level_s),    k = (1 + eta) h

The linear part of the equation is solved exactly; D stands for x0 = E[x_0 | x_t] during the step,
extrapolated in log level from the present step and earlier ones, of lengths h_1, h_2, with r_i = h_i / h:

    order 1:    D = x0                                deterministic DDIM (eta = 0), DDPM's posterior (eta = 1)
    order 2:    D = x0 + D1 / 2,                      D1 = (x0 - x0_1) / r_1
    order 3:    (1 - exp(-k)) x0 + phi_2 D1 - 2 phi_3 D2

with, in order 3, phi_2 = 1 - (1 - exp(-k)) / k, phi_3 = phi_2 / k - 1/2, D10 = (x0 - x0_1) / r_1, D11 = (x0_1 - x0_2) /
r_2, D1 = D10 + r_1 (D10 - D11) / (r_1 + r_2), D2 = (D10 - D11) / (r_1 + r_2). That is the integral of the parabola
through the three estimates. The published code has phi_3 D2 without the 2, though D2 is half the second derivative,
and so converges with order 2, as a test of both shows. The first steps have the order that their history allows, which
leaves order 3 with a small error of order 2 from the first one.

Earlier estimates belong to the solution that they were taken from. Where a posterior's `project` moves x, that is no
longer the one at hand, and the history is dropped: with replacement or DDRM after every step the method is of order 1.

References:
    Lu, Zhou, Bao, Chen, Li, Zhu: DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models. 2022,
    arXiv:2211.01095, algorithm 2 (2M), section 5 (SDE) and appendix (3M).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.noise import Noise
from scoreplug.protocols import ScoreModel, Step
from scoreplug.sampler import BaseSampler, State


class History(NamedTuple):
    """Denoised estimates of earlier steps, the latest first, and the lengths in log level of the steps from them."""

    x0: tuple[Tensor, ...]
    h: tuple[Tensor, ...]


@attrs.frozen(kw_only=True)
class DPMSolver(BaseSampler):
    """One evaluation per step; order 2 is DPM-Solver++(2M), order 3 is (3M)."""

    steps: int = param(30, ge=1, doc="number of steps from t = 1 to t_min")
    grid: Literal["uniform", "quadratic", "rho"] = param(
        "rho",
        doc="spacing of the steps: uniform in t, uniform in sqrt(t), or uniform in level^(1/rho) (Karras et al. 2022)",
    )
    order: Literal[1, 2, 3] = param(2, doc="of the method, for eta = 0")
    eta: float = param(0.0, ge=0.0, le=1.0, doc="noise: 0 solves the probability flow, 1 the reverse SDE")

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        t, s, sde = state.t, state.s, model.sde
        alpha_t, alpha_s = sde.alpha(t), sde.alpha(s)
        level_t, level_s = sde.sigma(t) / alpha_t, sde.sigma(s) / alpha_s
        h = (level_t / level_s).log()
        k = (1 + self.eta) * h
        past = state.carry if isinstance(state.carry, History) else History(x0=(), h=())

        x0 = model.denoise(state.x, t)
        xbar = level_s / level_t * (-self.eta * h).exp() * state.x / alpha_t
        xbar = xbar + extrapolated(x0, past, h, k)
        if self.eta > 0:
            xbar = xbar + level_s * (-(-2 * self.eta * h).expm1()).sqrt() * noise.at("z").normal(model.shape)

        x = alpha_s * xbar
        gain = -alpha_s * (-k).expm1() * alpha_t * level_t**2  # to first order: D follows x0
        projected = model.project(x, Step(t=t, s=s, x0=x0, gain=gain, phase="predict", noise=noise.at("project")))
        if projected is not x:  # only a model that moves nothing returns x itself
            return state.next(projected)
        kept = self.order - 1
        return state.next(x, History(x0=(x0, *past.x0)[:kept], h=(h, *past.h)[:kept]))


def extrapolated(x0: Tensor, past: History, h: Tensor, k: Tensor) -> Tensor:
    """int x0 over the step, (B, *shape), in the order that the history allows."""
    weight = -(-k).expm1()
    if not past.x0:
        return weight * x0
    r_1 = past.h[0] / h
    D10 = (x0 - past.x0[0]) / r_1
    if len(past.x0) == 1:
        return weight * (x0 + D10 / 2)
    r_2 = past.h[1] / h
    D11 = (past.x0[0] - past.x0[1]) / r_2
    D1, D2 = D10 + r_1 / (r_1 + r_2) * (D10 - D11), (D10 - D11) / (r_1 + r_2)
    phi_2 = 1 - weight / k
    return weight * x0 + phi_2 * D1 - 2 * (phi_2 / k - 0.5) * D2
