r"""Sequential Monte Carlo: particles that are proposed by guidance, and weighted so that its bias goes away.

A cloud of K particles follows the prior's reverse chain p(x_s | x_t), twisted by an approximation psi_t(x) of p(y | x_t
= x) that the conditioner states:

    x_s ~ q(x_s | x_t),    log w += log p(x_s | x_t) - log q(x_s | x_t) + log psi_s(x_s) - log psi_t(x_t)

with psi_1 in the first weight and the likelihood p(y | x_0) itself in the last. When the effective sample size 1 / sum
W^2 falls below a share of K, the particles are resampled in proportion to their weights. As K grows the samples are
those of the posterior of the discretised chain whatever psi is, and for every K

    Z = prod mean(w),    E[Z] = p(y) of the discretised chain

Its log is in the last state's `carry`. How good K particles are depends on psi: `mmps` is the one to begin with.

Kernels, in xbar = x / alpha with level l = sigma / alpha, rho = l_s / l_t, z ~ N(0, I):

    "ancestral":     xbar_s = x0 + rho^2 (xbar - x0) + c z,    c^2 = l_s^2 (1 - rho^2)
    "second-order":  the same with c (I + kappa J) z,    J = d x0 / d xbar,    kappa = (1 - rho^2) / (2 rho^2)

The first is DDPM's, which leaves out that x_0 is uncertain given x_t: the reverse transition of a Gaussian prior has
the covariance c^2 I + (1 - rho^2)^2 C_t with C_t = l_t^2 J, and without the second term the chain ends too narrow, by
17 % of the variance for unit variance, 100 steps and levels from 1800 to .001. The second-order kernel has the square
root of that covariance to first order in J, which leaves 1 %; it costs one more vjp per step. Proposal and chain share
the factor, so that the weights need neither its inverse nor its determinant: with the proposal z + a for z,

    log p(x_s | x_t) - log q(x_s | x_t) = -a.z - |a|^2 / 2

The shift a moves the mean by (1 - rho^2) C_t grad log psi_t, which for a normal p(x_0 | x_t) is that of the exact
conditional transition. A conditioner that knows the product of a normal transition and its twist (`fps`) draws from it.

Systematic resampling takes one uniform number for all, and the particles in the order of a curve through the two
principal directions of x0, so that particles that are alike compete with each other and every mode keeps its share to
within a particle or two. A corrector (`mala`, `hmc`) moves the resampled particles at fixed level, with p_t psi_t for
target.

A step costs one evaluation. Siblings share their parent's, which has one derivative for all of them, so that the first
transition after a resampling is DDPM's; E[Z] = p(y) holds strictly for kernel = "ancestral", or without resampling.

The particles of a cloud, which is the batch, depend on each other; clouds of other seeds are independent.

References:
    Wu, Trippe, Naesseth, Blei, Cunningham: Practical and Asymptotically Exact Conditional Sampling in Diffusion Models.
    NeurIPS 2023, arXiv:2306.17775 (twisted diffusion sampler; here without the weights that its code drops).
    Dou, Song: Diffusion Posterior Sampling for Linear Inverse Problem Solving: A Filtering Perspective. ICLR 2024.
    Cardoso, Janati El Idrissi, Le Corff, Moulines: Monte Carlo guided Diffusion for Bayesian linear inverse problems.
    ICLR 2024, arXiv:2308.07983.
    Gerber, Chopin: Sequential quasi Monte Carlo. JRSS B 2015, arXiv:1402.4039 (the order).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.model import WrappedModel, broadcast
from scoreplug.noise import Noise
from scoreplug.protocols import SDE, HasLogDensity, HasProposal, HasTwist, ScoreModel, Twist
from scoreplug.sampler import BaseSampler, State
from scoreplug_builtin.samplers._resampling import along_a_curve, effective_size, offspring


class Cloud(NamedTuple):
    """What the particles carry.

    Args:
        twist: psi_t at the particles.
        log_weights: log w, (B,), since the last resampling.
        log_evidence: log Z up to the last resampling, (); in the last state log Z.
        effective: the smallest effective sample size so far, as a share of the particles.
        resampled: how often the particles were resampled before the end.
    """

    twist: Twist
    log_weights: Tensor
    log_evidence: Tensor
    effective: float
    resampled: int


@attrs.frozen(kw_only=True)
class SMC(BaseSampler):
    """Twisted particles; needs a conditioner with a twist. The batch is one cloud."""

    steps: int = param(100, ge=1, doc="number of steps from t = 1 to t_min")
    grid: Literal["uniform", "quadratic", "rho"] = param(
        "rho",
        doc="spacing of the steps: uniform in t, uniform in sqrt(t), or uniform in level^(1/rho) (Karras et al. 2022)",
    )
    rho: float = param(10.0, gt=0.0, doc="exponent of the rho grid; larger means more steps at small noise levels")
    kernel: Literal["second-order", "ancestral"] | None = param(
        None,
        doc="transition of the prior's chain; none is second-order where the twist differentiates the network, "
        "else ancestral",
    )
    resample_below: float = param(
        0.5, ge=0.0, le=1.0, doc="share of the particles that the effective sample size may fall to; 0 is never"
    )
    resampling: Literal["systematic", "multinomial"] = param(
        "systematic", doc="one uniform number for all particles, or one for each"
    )
    corrector: Any = param(
        None,
        component="sampler",
        doc="moves at fixed level after a resampling, mala or hmc; exact if the prior has a log density",
    )

    def init(self, model: ScoreModel, x: Tensor, noise: Noise) -> State:
        del noise
        posterior = self._posterior(model)
        times = self.times(model.sde)
        twist = posterior.twist(x, times[0])
        if self.kernel == "second-order" and twist.vjp is None:
            raise TypeError(
                "sampler 'smc' with kernel='second-order' needs a twist that differentiates the network; "
                "use kernel='ancestral', or a conditioner such as 'mmps'"
            )
        cloud = Cloud(
            twist=twist, log_weights=twist.log, log_evidence=torch.zeros_like(twist.log[0]), effective=1.0, resampled=0
        )
        return State(x=x, times=times, carry=cloud)

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        posterior, t, s = self._posterior(model), state.t, state.s
        x, cloud = self._selected(posterior, state, noise.at("resample"))
        mean, std = ancestral(model.sde, x, cloud.twist.x0, t, s)
        if isinstance(posterior, HasProposal):
            x, log_ratio = posterior.propose(mean, std, s, noise.at("propose"))
            twist = posterior.twist(x, s)
            log_weights = cloud.log_weights + log_ratio - cloud.twist.log
        else:
            spread = self._spread(model.sde, cloud.twist, t, s)
            z = noise.at("z").normal(model.shape)
            a = self._shift(model.sde, cloud.twist, spread, t, s)
            x = mean + std * spread(z + a)
            twist = posterior.twist(x, s)
            log_ratio = -(a * z + a**2 / 2).flatten(1).sum(1)
            log_weights = cloud.log_weights + log_ratio + twist.log - cloud.twist.log
        x = _checked(x, log_weights, state)
        return state.next(x, carry=cloud._replace(twist=twist, log_weights=log_weights))

    def finish(self, model: ScoreModel, state: State, noise: Noise) -> State:
        """The particles, resampled in proportion to p(y | x_0)."""
        posterior, cloud = self._posterior(model), self._cloud(state)
        x0 = cloud.twist.x0
        if self.final == "sample":
            x0 = state.x / broadcast(model.sde.alpha(state.t), state.x)
        log_weights = cloud.log_weights + posterior.log_likelihood(x0) - cloud.twist.log
        x0 = _checked(x0, log_weights, state)
        end = attrs.evolve(state, x=x0, carry=cloud._replace(log_weights=log_weights))
        parents = self._parents(end, noise.at("resample"))
        cloud = self._cloud(end)
        return attrs.evolve(end, x=x0[parents], carry=_weighed(cloud, cloud.twist))

    def _selected(self, posterior: HasTwist, state: State, noise: Noise) -> tuple[Tensor, Cloud]:
        """The particles as they are, or resampled and moved."""
        cloud = self._cloud(state)
        if not effective_size(cloud.log_weights) < self.resample_below:  # nor if it is NaN
            return state.x, cloud
        parents = self._parents(state, noise)
        x, (x0, log, gradient, _) = state.x[parents], cloud.twist
        if self.corrector is None:  # siblings share one graph, which has no derivative for each of them
            twist = Twist(x0=x0[parents], log=log[parents], gradient=gradient[parents])
        else:
            x = self.corrector.correct(twisted(posterior), x, state.t, noise.at("corrector"))
            twist = posterior.twist(x, state.t)
        return x, _weighed(cloud, twist)._replace(resampled=cloud.resampled + 1)

    def _parents(self, state: State, noise: Noise) -> Tensor:
        """Which particle each one becomes, (B,)."""
        cloud = self._cloud(state)
        weights = cloud.log_weights.softmax(0)
        if self.resampling == "multinomial":
            return offspring(weights, noise.uniform())
        order = along_a_curve(cloud.twist.x0)
        points = (torch.arange(len(weights), device=weights.device) + noise.uniform()[0]) / len(weights)
        return order[offspring(weights[order], points)]

    def _spread(self, sde: SDE, twist: Twist, t: Tensor, s: Tensor) -> Callable[[Tensor], Tensor]:
        """v -> (I + kappa J) v, or v."""
        if self.kernel == "ancestral" or twist.vjp is None:
            return lambda v: v
        vjp, scale = twist.vjp, half_excess(sde, t, s) * sde.alpha(t)
        return lambda v: v + scale * vjp(v)

    def _shift(self, sde: SDE, twist: Twist, spread: Callable[[Tensor], Tensor], t: Tensor, s: Tensor) -> Tensor:
        """a, such that c spread(a) is nearly (1 - rho^2) C grad log psi: the first two terms of a Neumann series."""
        level_t, level_s = sde.sigma(t) / sde.alpha(t), sde.sigma(s) / sde.alpha(s)
        wanted = level_t**2 * (1 - (level_s / level_t) ** 2).sqrt() / level_s * sde.alpha(t) * twist.gradient
        return 2 * wanted - spread(wanted)

    def _posterior(self, model: ScoreModel) -> HasTwist:
        if not isinstance(model, HasTwist):
            raise TypeError(
                f"sampler 'smc' needs a posterior with a twist, an approximate log p(y | x_t), which "
                f"{type(model).__name__} does not have; use a conditioner that gives one, such as 'mmps'"
            )
        return model

    def _cloud(self, state: State) -> Cloud:
        cloud: Cloud = state.carry  # type: ignore[assignment]
        return cloud


def ancestral(sde: SDE, x: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, (B, *shape), and standard deviation, (), of DDPM's transition from level t to level s."""
    alpha_t, alpha_s = sde.alpha(t), sde.alpha(s)
    level_s, ratio = sde.sigma(s) / alpha_s, sde.sigma(s) * alpha_t / (alpha_s * sde.sigma(t))
    mean = alpha_s * (x0 + ratio**2 * (x / alpha_t - x0))
    return mean, alpha_s * level_s * (1 - ratio**2).sqrt()


def half_excess(sde: SDE, t: Tensor, s: Tensor) -> Tensor:
    """kappa = (1 - rho^2) / (2 rho^2), ()."""
    ratio = sde.sigma(s) * sde.alpha(t) / (sde.alpha(s) * sde.sigma(t))
    return (1 - ratio**2) / (2 * ratio**2)


def _weighed(cloud: Cloud, twist: Twist) -> Cloud:
    """The cloud after a resampling: the mean weight goes into the evidence."""
    n = len(cloud.log_weights)
    return cloud._replace(
        twist=twist,
        log_weights=torch.zeros_like(cloud.log_weights),
        log_evidence=cloud.log_evidence + cloud.log_weights.logsumexp(0) - math.log(n),
        effective=min(cloud.effective, effective_size(cloud.log_weights)),
    )


def _checked(x: Tensor, log_weights: Tensor, state: State) -> Tensor:
    """x, with NaN for a particle that has no weight, which the loop then reports.

    Raises:
        ArithmeticError: if every weight is zero.
    """
    if bool((log_weights == -math.inf).all()):
        raise ArithmeticError(
            f"the weights of all particles are zero in step {state.index + 1}: the twist does not fit the "
            "measurement; check noise_std, or take more steps"
        )
    return torch.where(broadcast(log_weights, x).isfinite(), x, math.nan)


def twisted(posterior: HasTwist) -> ScoreModel:
    """The score model of p_t psi_t, with a log density if the prior has one: what a corrector leaves invariant."""
    kind = TwistedDensity if isinstance(posterior.prior, HasLogDensity) else Twisted
    return kind(posterior=posterior)


@attrs.frozen(kw_only=True, eq=False)
class Twisted(WrappedModel):
    """grad log p_t + grad log psi_t."""

    posterior: HasTwist

    @property
    def base(self) -> ScoreModel:
        return self.posterior.prior

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        twist = self.posterior.twist(x, t)
        return twist.x0 + broadcast(self.sde.sigma(t) ** 2 / self.sde.alpha(t), x) * twist.gradient


class TwistedDensity(Twisted):
    """log p_t + log psi_t."""

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        prior: HasLogDensity = self.posterior.prior  # type: ignore[assignment]
        return prior.log_density(x, t) + self.posterior.twist(x, t).log
