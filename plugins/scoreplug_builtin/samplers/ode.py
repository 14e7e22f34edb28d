r"""The probability flow, the ordinary differential equation that has the marginals p_t of the reverse SDE.

    d xbar / d level = (xbar - x0) / level,    xbar = x / alpha,    level = sigma / alpha,    x0 = E[x_0 | x_t]

In xbar over level it is the same equation under every process, and its solutions are nearly straight (Karras et al.
2022). Euler's step is deterministic DDIM. Heun's, the second-order method of EDM, takes the mean of the slopes at both
ends of the step. Both, and the classical method of fourth order, take the steps of the grid. rk45, the pair of Dormand
and Prince, is adaptive: between two times of the grid each sample takes as many steps of its own as its error needs,

    |e / (atol + rtol max(|xbar|, |xbar'|))|_rms <= 1,    e the difference of the pair,

so that no sample depends on its batch mates; only samples that are still on their way are evaluated.

Noise enters at the start alone. The start N(0, prior_std^2 I) is not p_1, and nothing on the way corrects it: on a
Gaussian N(m, V) the mean comes out short by alpha_1 sqrt(V / P_1) m, where a reverse SDE leaves alpha_1^2 (V / P_1) m,
with P_1 = alpha_1^2 V + sigma_1^2: 1 % of m for V = 1 under VP, 2 % of m under VE with sigma_max = 50.

References:
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through Stochastic Differential
    Equations. ICLR 2021, arXiv:2011.13456, section 4.3. Karras, Aittala, Aila, Laine: Elucidating the Design Space of
    Diffusion-Based Generative Models. NeurIPS 2022, arXiv:2206.00364, algorithm 1. Dormand, Prince: A family of
    embedded Runge-Kutta formulae. J. Comp. Appl. Math. 6 (1980), doi:10.1016/0771-050X(80)90013-3. Hairer, Norsett,
    Wanner: Solving Ordinary Differential Equations I. Springer 1993, section II.4 (step size control).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.model import broadcast
from scoreplug.noise import Noise
from scoreplug.protocols import ScoreModel, Step
from scoreplug.sampler import BaseSampler, State


class Tableau(NamedTuple):
    """An explicit Runge-Kutta method: k_i is the slope at c_i, after sum_j a_ij k_j; the step is sum_i b_i k_i, and
    sum_i e_i k_i its difference from an embedded method of lower order."""

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    e: tuple[float, ...] = ()


EULER = Tableau(c=(0,), a=((),), b=(1,))
HEUN = Tableau(c=(0, 1), a=((), (1,)), b=(1 / 2, 1 / 2))
RK4 = Tableau(c=(0, 1 / 2, 1 / 2, 1), a=((), (1 / 2,), (0, 1 / 2), (0, 0, 1)), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6))
DORMAND_PRINCE = Tableau(
    c=(0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=(35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
    e=(71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)
FIXED = {"euler": EULER, "heun": HEUN, "rk4": RK4}

SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0  # of the step size controller, as Hairer et al. recommend
SMALLEST = 1e-10  # step, relative to the interval, at which the flow counts as too stiff


@attrs.frozen(kw_only=True)
class ProbabilityFlow(BaseSampler):
    """Deterministic after the start; 1, 2, 4 evaluations per step, or as many as the tolerance asks for (rk45)."""

    steps: int = param(50, ge=1, doc="number of steps from t = 1 to t_min; of rk45, intervals between projections")
    grid: Literal["uniform", "quadratic", "rho"] = param(
        "rho",
        doc="spacing of the steps: uniform in t, uniform in sqrt(t), or uniform in level^(1/rho) (Karras et al. 2022)",
    )
    method: Literal["euler", "heun", "rk4", "rk45"] = param("heun", doc="order 1, 2, 4, or 5 with adaptive steps")
    rtol: float = param(1e-5, ge=0.0, doc="tolerated error of a step relative to xbar (rk45)")
    atol: float = param(1e-5, gt=0.0, unit="data", doc="tolerated error of a step beside that (rk45)")

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        t, s, sde = state.t, state.s, model.sde
        alpha_t, alpha_s = sde.alpha(t), sde.alpha(s)
        level_t, level_s = sde.sigma(t) / alpha_t, sde.sigma(s) / alpha_s
        xbar = state.x / alpha_t
        if self.method == "rk45":
            xbar, x0 = self._adaptive(model, xbar, level_t, level_s)
        else:
            k = stages(model, FIXED[self.method], xbar, level_t, level_s - level_t)
            xbar, x0 = weighted(xbar, level_s - level_t, FIXED[self.method].b, k), xbar - level_t * k[0]
        # a score shifted by g shifts x0 by alpha level^2 g, and the slope by -alpha level g: to first order in the step
        gain = alpha_s * (level_t - level_s) * alpha_t * level_t
        step = Step(t=t, s=s, x0=x0, gain=gain, phase="predict", noise=noise.at("project"))
        return state.next(model.project(alpha_s * xbar, step))

    def _adaptive(self, model: ScoreModel, xbar: Tensor, start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
        """From level `start` to `stop`, in steps of each sample's own. Returns xbar, and x0 at the start."""
        level = start.expand(len(xbar)).clone()
        h = (stop - start).expand(len(xbar)).clone()  # falls from start to stop: h < 0
        first = slope(model, xbar, level)
        x0 = xbar - broadcast(level, xbar) * first

        xbar, slopes, way = xbar.clone(), first, torch.arange(len(xbar), device=xbar.device)
        while len(way):
            h_way = torch.maximum(h[way], stop - level[way])
            if bool((h_way.abs() < SMALLEST * (start - stop)).any()):
                worst = float(level[way][h_way.abs().argmin()])
                raise ArithmeticError(
                    f"sampler 'ode' needs steps below {SMALLEST:g} of the interval at noise level {worst:.3g} to reach "
                    f"rtol={self.rtol:g}, atol={self.atol:g}; allow a larger error, or use method='heun'"
                )
            k = stages(model, DORMAND_PRINCE, xbar[way], level[way], h_way, first=slopes[way])
            new = weighted(xbar[way], h_way, DORMAND_PRINCE.b, k)
            error = weighted(torch.zeros_like(new), h_way, DORMAND_PRINCE.e, k)
            ratio = self._ratio(error, xbar[way], new)

            accepted = ratio <= 1
            arrived = accepted & (h_way <= stop - level[way])
            took = way[accepted]
            xbar[took], slopes[took] = new[accepted], k[-1][accepted]  # the last stage is the next step's first
            level[took] = level[took] + h_way[accepted]
            factor = SAFETY * ratio.clamp_min(1e-10) ** (-1 / 5)  # the pair's error is of order 5 in the step
            h[way] = h_way * factor.clamp(SHRINK, GROW)
            way = way[~arrived]
        return xbar, x0

    def _ratio(self, error: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """Error over tolerance, root mean square over the entries of a sample, (B,), float64."""
        scale = self.atol + self.rtol * torch.maximum(old.abs(), new.abs())
        return (error / scale).flatten(1).double().square().mean(1).sqrt()


def slope(model: ScoreModel, xbar: Tensor, level: Tensor) -> Tensor:
    """(xbar - x0) / level, (B, *shape), at a level () or (B,)."""
    t = model.sde.time_of(level)
    x0 = model.denoise(xbar * broadcast(model.sde.alpha(t), xbar), t)
    return (xbar - x0) / broadcast(level, xbar)


def stages(
    model: ScoreModel, tableau: Tableau, xbar: Tensor, level: Tensor, h: Tensor, first: Tensor | None = None
) -> list[Tensor]:
    """The slopes k_i of a step h from `level`, each (B, *shape); the first one may be known."""
    k = [slope(model, xbar, level) if first is None else first]
    for c, a in zip(tableau.c[1:], tableau.a[1:], strict=True):
        k.append(slope(model, weighted(xbar, h, a, k), level + c * h))
    return k


def weighted(xbar: Tensor, h: Tensor, weights: tuple[float, ...], k: list[Tensor]) -> Tensor:
    """xbar + h sum_i weight_i k_i, (B, *shape)."""
    total = sum(weight * slope for weight, slope in zip(weights, k, strict=True) if weight)
    return xbar + broadcast(h, xbar) * total
