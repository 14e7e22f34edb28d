r"""The Metropolis-adjusted Langevin algorithm at every noise level.

    x' = x + e M_t score(x, t) + (2 e)^{1/2} M_t^{1/2} z,    e = step_size sigma_t^2,    M_t = I without a metric
    log a = log p_t(x') - log p_t(x) - (|x - x' - e score(x', t)|^2 - |x' - x - e score(x, t)|^2) / (4 e)

It is accepted with the probability min(1, a), each chain by itself (the formula is that for M = I), and leaves p_t
invariant for every step size. With a log density (Gaussians, mixtures, `energy`, and the posteriors of `jalal` and
`dps` of such priors) it is exact; without, log p_t(x') - log p_t(x) is the line integral of the score, and a warning
says so. Du et al.'s torch code divides by 2 e^2 and accepts the batch as one; that is not MALA.

References:
    Roberts, Tweedie: Exponential convergence of Langevin distributions and their discrete approximations. Bernoulli 2
    (1996), doi:10.2307/3318418. Roberts, Rosenthal: Optimal scaling of discrete approximations to Langevin diffusions.
    JRSS B 60 (1998), doi:10.1111/1467-9868.00123 (acceptance .574). Du, Durkan, Strudel, Tenenbaum, Dieleman, Fergus,
    Sohl-Dickstein, Doucet, Grathwohl: Reduce, Reuse, Recycle: Compositional Generation with Energy-Based Diffusion
    Models and MCMC. ICML 2023, arXiv:2302.11552.
"""

from __future__ import annotations

from typing import ClassVar

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug_builtin.samplers._hamiltonian import MetropolisChain


@attrs.frozen(kw_only=True)
class MALA(MetropolisChain):
    """Langevin moves with acceptance; 1 + moves evaluations per level."""

    name: ClassVar[str] = "mala"
    target: ClassVar[float] = 0.574

    step_size: float = param(0.1, gt=0.0, on_divergence="lower", doc="e in units of sigma_t^2, at the first level")

    def length(self, sigma: Tensor) -> Tensor:
        return (2 * self.step_size) ** 0.5 * sigma  # one leapfrog step with e = h^2 / 2
