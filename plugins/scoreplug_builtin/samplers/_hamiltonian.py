r"""Metropolis-adjusted Hamiltonian moves on p_t, of which MALA is the shortest kind.

    v <- d v + (1 - d^2)^{1/2} z                                            refreshment of the momentum
    v <- v + h/2 M^{1/2} s(x),  x <- x + h M^{1/2} v,  v <- v + h/2 M^{1/2} s(x)        leapfrog, several times
    accept with probability min(1, p_t(x') / p_t(x) exp(|v|^2 / 2 - |v'|^2 / 2)), else keep x and flip v

with s = grad log p_t, h the step in units of length, and M_t the model's metric, the identity if it has none; a
direction in which M is 0 does not move. One leapfrog step with d = 0 is MALA with e = h^2 / 2: x' = x + e M s + (2
e)^{1/2} M^{1/2} z. The move leaves p_t invariant whatever s is, as long as the ratio p_t(x') / p_t(x) is right.

Where the model has no log density, that ratio is the integral of the score from x to x', since the score is its
gradient. `nodes` = 0 takes the trapezoidal rule over the points that the leapfrog visits anyway. That sum differs from
the change of the kinetic energy by h^2/8 (|M^{1/2} s(x)|^2 - |M^{1/2} s(x')|^2), whatever lies between: it corrects
what the step does to a Gaussian, exactly, and of the rest only a part. `nodes` = n >= 1 takes Gauss's rule with n
points on the straight line from x to x', n more evaluations for each proposal; its error goes to 0 quickly with n if
the score is a gradient. Both change sign when x and x' are exchanged.

References:
    Duane, Kennedy, Pendleton, Roweth: Hybrid Monte Carlo. Phys. Lett. B 195 (1987), doi:10.1016/0370-2693(87)91197-X.
    Horowitz: A generalized guided Monte Carlo algorithm. Phys. Lett. B 268 (1991), doi:10.1016/0370-2693(91)90812-5.
    Sjoberg, Lindqvist, Schon: MCMC-Correction of Score-Based Diffusion Models for Model Composition. 2023,
    arXiv:2307.14012 (line integrals of the score).
"""

from __future__ import annotations

import warnings
from typing import ClassVar, Literal, NamedTuple

import attrs
import numpy as np
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.model import broadcast, precondition, score_and_log_density, tweedie
from scoreplug.noise import Noise
from scoreplug.protocols import HasLogDensity, ScoreModel, Step
from scoreplug.sampler import State
from scoreplug_builtin.samplers._annealed import AnnealedChain, rescaled


class ApproximateAcceptanceWarning(UserWarning):
    """A Metropolis step takes its ratio of densities from an integral of the score."""


class Point(NamedTuple):
    """A position, and what the model says there."""

    x: Tensor
    score: Tensor
    log_density: Tensor | None


class Memory(NamedTuple):
    """What a chain takes along: the log of the factor on its step size, (B,), float64, and x with its E[x_0 | x]."""

    log_factor: Tensor
    x: Tensor
    x0: Tensor


@attrs.frozen(kw_only=True)
class MetropolisChain(AnnealedChain):
    """Hamiltonian moves at each level. A subclass says how long they are, in `length`, and what `leapfrogs` and
    `persistence` are."""

    name: ClassVar[str]
    target: ClassVar[float]
    """Mean acceptance at which a step size is about the most efficient, in many dimensions."""

    moves: int = param(3, ge=1, doc="moves at each level, each accepted or rejected")
    adapt: float = param(
        0.5,
        ge=0.0,
        doc="change of log step size from level to level, per unit of acceptance off its target; 0 keeps the step size",
    )
    potential: Literal["auto", "log-density", "line-integral"] = param(
        "auto", doc="where p_t(x') / p_t(x) comes from; auto is the log density of a model that has one"
    )
    nodes: int = param(0, ge=0, le=32, doc="points of Gauss's rule for the line integral; 0 is the trapezoidal rule")

    def length(self, sigma: Tensor) -> Tensor:
        """h before adaptation, ()."""
        raise NotImplementedError

    @property
    def trajectory_steps(self) -> int:
        """Leapfrog steps of a move."""
        return 1

    @property
    def kept_momentum(self) -> float:
        """d, the share of the momentum that a move takes over from the last one."""
        return 0.0

    def correct(self, model: ScoreModel, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """x after the moves at level t, with the step size as it is given."""
        return self.block(model, x, t, self.length(model.sde.sigma(t)), noise)[0]

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        """From level to level; the step size changes between levels alone, so that each block has a fixed kernel."""
        x, s = rescaled(model, state), state.s
        factor = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        if isinstance(state.carry, Memory):
            factor = state.carry.log_factor
        h = self.length(model.sde.sigma(s)) * factor.exp()
        x, acceptance, point, x0 = self.block(model, x, s, h, noise.at("corrector"))
        factor = factor + self.adapt * (acceptance - self.target)
        return state.next(x, Memory(log_factor=factor, x=point, x0=x0))

    def estimate(self, model: ScoreModel, state: State) -> Tensor:
        if isinstance(state.carry, Memory) and state.carry.x is state.x:  # no projection has moved it since
            return state.carry.x0
        return super().estimate(model, state)

    def block(
        self, model: ScoreModel, x: Tensor, t: Tensor, h: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The moves at level t, and the model's projection after them.

        Returns:
            x, the share of accepted moves, (B,), and before the projection x and E[x_0 | x].
        """
        exact = self.knows_density(model)
        point = evaluate(model, x, t, exact=exact)
        # a chain would reject every proposal from where the model says NaN, and stand still unseen
        sound = point.score.isfinite().flatten(1).all(1)
        point = point._replace(x=torch.where(broadcast(sound, x).bool(), x, torch.nan))
        kept = self.kept_momentum
        v = noise.at("momentum").normal(model.shape) if kept > 0 else torch.zeros_like(x)
        accepted = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for k in range(self.moves):
            here = noise.at("move", k)
            v = kept * v + (1 - kept**2) ** 0.5 * here.at("z").normal(model.shape)
            new, v_new, work = self.leapfrog(model, point, v, t, h, exact=exact)
            log_ratio = work + (squared(v) - squared(v_new)) / 2
            accept = here.at("accept").uniform().log() < log_ratio
            accept = accept & log_ratio.isfinite()  # a proposal into nowhere is rejected
            point, v = chosen(accept, new, point), torch.where(broadcast(accept, v).bool(), v_new, -v)
            accepted = accepted + accept / self.moves
        x0 = tweedie(model, point.x, t, point.score)
        step = Step(t=t, s=t, x0=x0, gain=broadcast(h**2 / 2, x), phase="correct", noise=noise.at("project"))
        return model.project(point.x, step), accepted, point.x, x0

    def leapfrog(
        self, model: ScoreModel, start: Point, v: Tensor, t: Tensor, h: Tensor, *, exact: bool
    ) -> tuple[Point, Tensor, Tensor]:
        """A proposal: where it ends, with which momentum, and log p_t(x') - log p_t(x), (B,)."""
        point, length, along = start, broadcast(h, v), torch.zeros(len(v), dtype=v.dtype, device=v.device)
        for _ in range(self.trajectory_steps):
            v = v + length / 2 * precondition(model, point.score, t, "half")
            new = evaluate(model, point.x + length * precondition(model, v, t, "half"), t, exact=exact)
            v = v + length / 2 * precondition(model, new.score, t, "half")
            along = along + inner(point.score + new.score, new.x - point.x) / 2
            point = new
        if point.log_density is not None and start.log_density is not None:
            return point, v, point.log_density - start.log_density
        return point, v, along if self.nodes == 0 else self.line_integral(model, start.x, point.x, t)

    def line_integral(self, model: ScoreModel, x: Tensor, x_new: Tensor, t: Tensor) -> Tensor:
        """int <s, dx> from x to x' on the straight line by Gauss's rule, (B,)."""
        places, weights = np.polynomial.legendre.leggauss(self.nodes)
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for place, weight in zip(((1 + places) / 2).tolist(), (weights / 2).tolist(), strict=True):
            total = total + weight * inner(model.score(torch.lerp(x, x_new, place), t), x_new - x)
        return total

    def knows_density(self, model: ScoreModel) -> bool:
        """Whether the ratio of densities is the model's own.

        Raises:
            TypeError: if it has to be and the model has none.
        """
        has = isinstance(model, HasLogDensity)
        if self.potential == "log-density" and not has:
            raise TypeError(
                f"sampler {self.name!r} with potential='log-density' needs a model with a log density, which "
                f"{type(model).__name__} is not; use potential='line-integral', or a model that has one ('energy')"
            )
        if self.potential == "auto" and not has:
            warnings.warn(
                f"sampler {self.name!r} has no log density to accept by: it integrates the score along the way, and "
                "its acceptance is approximate; potential='line-integral' says so without this warning",
                ApproximateAcceptanceWarning,
                stacklevel=2,
            )
        return has and self.potential != "line-integral"


def evaluate(model: ScoreModel, x: Tensor, t: Tensor, *, exact: bool) -> Point:
    """The score, and the log density where it is asked for, from one evaluation."""
    if exact:
        return Point(x, *score_and_log_density(model, x, t))
    return Point(x, model.score(x, t), None)


def chosen(accept: Tensor, new: Point, old: Point) -> Point:
    """For each sample the new point or the old one."""
    log_density = None
    if new.log_density is not None and old.log_density is not None:
        log_density = torch.where(accept, new.log_density, old.log_density)
    wide = broadcast(accept, new.x).bool()
    return Point(torch.where(wide, new.x, old.x), torch.where(wide, new.score, old.score), log_density)


def inner(u: Tensor, v: Tensor) -> Tensor:
    """<u, v> for each sample, (B,)."""
    return (u * v).flatten(1).sum(1)


def squared(v: Tensor) -> Tensor:
    """|v|^2 for each sample, (B,)."""
    return inner(v, v)
