r"""DPM-Solver++: an exponential multistep method for the probability flow or the reverse SDE.

    xbar_s = (level_s / level_t) exp(-eta h) xbar_t + (1 - exp(-k)) D + level_s (1 - exp(-2 eta h))^{1/2} z
    xbar = x / alpha,    level = sigma / alpha,    h = log(level_t / level_s),    k = (1 + eta) h

The linear part of the equation is solved exactly; D stands for x0 = E[x_0 | x_t] during the step, extrapolated in log
level from the present step and earlier ones, of lengths h_1, h_2, with r_i = h_i / h:

    order 1:    D = x0                                deterministic DDIM (eta = 0), DDPM's posterior (eta = 1)
    order 2:    D = x0 + D1 / 2,                      D1 = (x0 - x0_1) / r_1
    order 3:    (1 - exp(-k)) D = (1 - exp(-k)) x0 + phi_2 D1 - 2 phi_3 D2

with, in order 3, phi_2 = 1 - (1 - exp(-k)) / k, phi_3 = phi_2 / k - 1/2, D10 = (x0 - x0_1) / r_1, D11 = (x0_1 - x0_2) /
r_2, D1 = D10 + r_1 (D10 - D11) / (r_1 + r_2), D2 = (D10 - D11) / (r_1 + r_2). That is the integral of the parabola
through the three estimates. The published code has phi_3 D2 without the 2, though D2 is half the second derivative, and
converges with order 2; compat = "authors" takes it. The first steps have the order that their history allows; order 3
keeps a small error of order 2 from the first one.

The orders are those of the probability flow; it has the start's bias, as any solver of it (see `ode`), which the
reverse SDE forgets. Noise leaves the mean of a Gaussian without any other bias, and the variance with an error of order
1 (order 1) or 2 (2 and 3). On a posterior of variance .4227, 50 steps of the rho grid under VP change it by

    order 1: -.050 (eta = 0), -.095 (eta = 1)      2: .0065, .0174      3: -.0013, -.0001

Earlier estimates belong to the solution that they were taken from. Where the model's `project`, or a corrector, has
moved x since, that is no longer the one at hand, and the history is dropped: with replacement or DDRM after every step
the method is of order 1.

The gain that the projection is told, alpha_s (1 - exp(-k)) alpha_t level_t^2, is that of order 1: a score shifted by g
shifts x0 by alpha level^2 g. For the others it is the first order in the step.

References:
    Lu, Zhou, Bao, Chen, Li, Zhu: DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models. 2022,
    arXiv:2211.01095, algorithm 2 (2M), section 5 (SDE) and appendix (3M).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.model import combination, kernel
from scoreplug.noise import Noise
from scoreplug.protocols import ScoreModel, Step
from scoreplug.sampler import BaseSampler, State


class History(NamedTuple):
    """What led to x: denoised estimates of earlier steps, the latest first, and the lengths in log level of the steps
    from them."""

    x: Tensor
    x0: tuple[Tensor, ...]
    h: tuple[float, ...]


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
    lower_order_final: bool = param(
        default=False, doc="lower the order towards the last step, of order 1; the authors do with less than 15 steps"
    )
    compat: Literal["fixed", "authors"] = param(
        "fixed",
        doc="order 3 in full, or with half the weight of the second difference, as in the authors' code",
    )

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        t, s = state.t, state.s
        (alpha_t, sigma_t), (alpha_s, sigma_s) = kernel(model.sde, t), kernel(model.sde, s)
        level_t, level_s = sigma_t / alpha_t, sigma_s / alpha_s
        h = math.log(level_t / level_s)
        k = (1 + self.eta) * h

        x0 = model.denoise(state.x, t)
        x0s, hs = self.history(state)
        x0s, hs = (x0, *x0s), (h, *hs)
        weights = [alpha_s * weight for weight in self.weights(hs, k)]
        x_s = combination((sigma_s / sigma_t * math.exp(-self.eta * h), state.x), *zip(weights, x0s, strict=True))
        if self.eta > 0:
            z = noise.at("z").normal(model.shape)
            x_s = combination((1, x_s), (sigma_s * math.sqrt(-math.expm1(-2 * self.eta * h)), z))

        gain = -alpha_s * math.expm1(-k) * alpha_t * level_t**2
        step = Step(t=t, s=s, x0=x0, gain=gain, phase="predict", noise=noise.at("project"))
        kept = self.order - 1
        return state.next(model.project(x_s, step), History(x=x_s, x0=x0s[:kept], h=hs[:kept]))

    def history(self, state: State) -> tuple[tuple[Tensor, ...], tuple[float, ...]]:
        """Estimates and lengths of the earlier steps that the present one goes by."""
        past = state.carry
        if not isinstance(past, History) or past.x is not state.x:  # a model that moves nothing returns x itself
            return (), ()
        to_go = len(state.times) - 1 - state.index
        used = min(self.order, to_go) - 1 if self.lower_order_final else self.order - 1
        return past.x0[:used], past.h[:used]

    def weights(self, hs: tuple[float, ...], k: float) -> tuple[float, ...]:
        """Those of the estimates, the latest first, in (1 - exp(-k)) D, in the order that the history allows."""
        weight = -math.expm1(-k)
        if len(hs) == 1:
            return (weight,)
        r_1 = hs[1] / hs[0]
        if len(hs) == 2:
            return weight * (1 + 0.5 / r_1), -weight * 0.5 / r_1
        r_2 = hs[2] / hs[0]
        phi_2 = 1 - weight / k
        phi_3 = (2 if self.compat == "fixed" else 1) * (phi_2 / k - 0.5)
        of_D2 = (phi_2 * r_1 - phi_3) / (r_1 + r_2)
        of_D10, of_D11 = phi_2 + of_D2, -of_D2
        return weight + of_D10 / r_1, of_D11 / r_2 - of_D10 / r_1, -of_D11 / r_2
