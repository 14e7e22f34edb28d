r"""Hamiltonian Monte Carlo at every noise level, with partial refreshment of the momentum.

    v <- d v + (1 - d^2)^{1/2} z
    v <- v + h/2 M_t^{1/2} score,  x <- x + h M_t^{1/2} v,  v <- v + h/2 M_t^{1/2} score,    `leapfrogs` times
    accept with probability min(1, p_t(x') / p_t(x) exp(|v|^2 / 2 - |v'|^2 / 2)), else keep x and flip v

with h = step_size sigma_t and M_t = I without a metric. Each chain accepts by itself, and p_t stays invariant for every
step size, number of leapfrogs and persistence d; without the flip it would not for d > 0. With a log density
(Gaussians, mixtures, `energy`, and the posteriors of `jalal` and `dps` of such priors) it is exact; without, log
p_t(x') - log p_t(x) is the line integral of the score, and a warning says so. Du et al.'s torch code compares the new
momentum with itself and does not flip it; that is not HMC.

References:
    Duane, Kennedy, Pendleton, Roweth: Hybrid Monte Carlo. Phys. Lett. B 195 (1987), doi:10.1016/0370-2693(87)91197-X.
    Horowitz: A generalized guided Monte Carlo algorithm. Phys. Lett. B 268 (1991), doi:10.1016/0370-2693(91)90812-5.
    Beskos, Pillai, Roberts, Sanz-Serna, Stuart: Optimal tuning of the hybrid Monte Carlo algorithm. Bernoulli 19
    (2013), doi:10.3150/12-BEJ414 (acceptance .651). Du, Durkan, Strudel, Tenenbaum, Dieleman, Fergus, Sohl-Dickstein,
    Doucet, Grathwohl: Reduce, Reuse, Recycle. ICML 2023, arXiv:2302.11552.
"""

from __future__ import annotations

from typing import ClassVar

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug_builtin.samplers._hamiltonian import MetropolisChain


@attrs.frozen(kw_only=True)
class HMC(MetropolisChain):
    """Leapfrog trajectories with acceptance; 1 + moves * leapfrogs evaluations per level."""

    name: ClassVar[str] = "hmc"
    target: ClassVar[float] = 0.651

    step_size: float = param(0.5, gt=0.0, on_divergence="lower", doc="h in units of sigma_t, at the first level")
    leapfrogs: int = param(3, ge=1, doc="leapfrog steps of a move")
    persistence: float = param(0.7, ge=0.0, lt=1.0, doc="d, share of the momentum that a move takes over; 0 is HMC")

    def length(self, sigma: Tensor) -> Tensor:
        return self.step_size * sigma

    @property
    def trajectory_steps(self) -> int:
        return self.leapfrogs

    @property
    def kept_momentum(self) -> float:
        return self.persistence
