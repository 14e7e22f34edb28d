"""The five nouns, on one page: SDE, ScoreModel, Operator, Conditioner, Sampler.

    A posterior is just another score model.

A conditioner takes the score model of p(x) and a measurement y = A x + n, and returns the score model of p(x | y). A
sampler takes a score model and returns samples. No sampler knows what a measurement is; no conditioner knows what a
sampler is.

Notation. The perturbation kernel is x_t = alpha_t x_0 + sigma_t z with z ~ N(0, I); the forward process is dx = f(t) x
dt + g(t) dw; level = sigma_t / alpha_t. `x` is (B, *shape); `t` is a 0-dim float64 tensor in [t_min, 1] shared by the
batch (models also accept (B,)).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import attrs

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from scoreplug.measurement import Measurement
    from scoreplug.noise import Noise
    from scoreplug.operator import SVD
    from scoreplug.sampler import State


class SDE(Protocol):
    """A forward process, by its kernel x_t = alpha(t) x_0 + sigma(t) z and its coefficients dx = f(t) x dt + g(t)
    dw."""

    @property
    def t_min(self) -> float:
        """The smallest time that samplers go down to, in (0, 1)."""

    @property
    def prior_std(self) -> float:
        """Standard deviation of the distribution N(0, prior_std^2 I) that the process ends in, and samplers start
        from."""

    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale alpha(t), of t's shape."""

    def sigma(self, t: Tensor) -> Tensor:
        """Noise standard deviation sigma(t), of t's shape."""

    def drift(self, t: Tensor) -> Tensor:
        """f(t) = d log alpha / dt, of t's shape."""

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) = alpha sqrt(d level^2 / dt), of t's shape."""

    def time_of(self, level: Tensor) -> Tensor:
        """The time at which sigma / alpha equals `level` (> 0); levels outside the process extrapolate."""


class ScoreModel(Protocol):
    """The score of p_t(x), or of p_t(x | y): samplers cannot tell."""

    @property
    def sde(self) -> SDE:
        """The process whose marginals p_t the model describes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type in which samples are computed."""

    @property
    def device(self) -> torch.device:
        """Where samples are computed."""

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """grad log p_t(x), (B, *shape)."""

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """x0 = E[x_0 | x_t = x], (B, *shape). By Tweedie's formula alpha x0 = x + sigma^2 score(x, t)."""

    def project(self, x: Tensor, step: Step) -> Tensor:
        """Data consistency after an update, (B, *shape); a prior returns x."""

    def under(self, sde: SDE) -> ScoreModel:
        """The same model under another process."""

    def denoise_with_vjp(self, x: Tensor, t: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """x0 = denoise(x, t) and the map v -> (d x0 / d x)^T v, from one evaluation."""


class Operator(Protocol):
    """The forward operator A, batched and differentiable."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one x."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one y."""

    def __call__(self, x: Tensor) -> Tensor:
        """A x, (B, *input_shape) -> (B, *output_shape)."""

    def linearize(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """A(x) and the map v -> J^T v with J the Jacobian of A at x; for a linear A that is the adjoint."""


class Conditioner(Protocol):
    """A way to integrate the measurement."""

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        """The score model of p(x | y)."""


class Sampler(Protocol):
    """A way to integrate the reverse SDE."""

    def init(self, model: ScoreModel, x: Tensor, noise: Noise) -> State:
        """The state that starts from x ~ p_1, (B, *shape)."""

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        """From one level to the next. Pure: the same arguments give the same state."""

    def trajectory(self, model: ScoreModel, noise: Noise) -> Iterator[State]:
        """Every state from the start to the samples."""

    def sample(
        self, model: ScoreModel, n: int, *, seed: int = 0, callback: Callable[[State], None] | None = None
    ) -> Tensor:
        """n samples, (n, *shape)."""


@attrs.frozen(kw_only=True, eq=False)
class Step:
    """What an update did, for `ScoreModel.project`.

    Args:
        t: level the update came from, ().
        s: level it went to, (); equal to t in a corrector.
        x0: the denoised estimate that the update used, (B, *shape); None at the start. It may be given as a function,
            which is called if a projection asks.
        gain: shift of x_s per unit of added score, ().
        phase: "start": x is a draw from p_1. "predict": x went from t to s. "correct": x moved at level t.
            "finish": x is the sampler's estimate of x_0, free of noise.
        noise: source for whatever the projection draws.
    """

    t: Tensor
    s: Tensor
    _x0: Tensor | Callable[[], Tensor] | None
    gain: Tensor | float
    phase: Literal["start", "predict", "correct", "finish"]
    noise: Noise

    @functools.cached_property
    def x0(self) -> Tensor | None:
        return self._x0() if callable(self._x0) else self._x0


# Capabilities: what some methods need beyond the five nouns.


@runtime_checkable
class LinearOperator(Protocol):
    """A is linear: A(x) = A x."""

    @property
    def norm(self) -> float:
        """The largest singular value."""

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y, (B, *output_shape) -> (B, *input_shape)."""

    def solve(self, r: Tensor, *, a: float | Tensor, b: float | Tensor) -> Tensor:
        """(a A A^T + b I)^{-1} r, (B, *output_shape)."""


@runtime_checkable
class HasPinv(Protocol):
    """The Moore-Penrose inverse is at hand."""

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y, (B, *output_shape) -> (B, *input_shape)."""


@runtime_checkable
class HasSVD(Protocol):
    """A = U diag(s) V^T is at hand."""

    @property
    def svd(self) -> SVD:
        """The decomposition."""


@runtime_checkable
class HasLogDensity(Protocol):
    """The potential is at hand, not only its gradient: Metropolis acceptance needs it."""

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x) up to a constant that depends on t alone, (B,), in nats.

        A model for which score and density share an evaluation also has `score_and_log_density(x, t)`, which gives
        both.
        """


@runtime_checkable
class HasSpread(Protocol):
    """The prior states how far its denoised estimate is off."""

    def spread(self, t: Tensor) -> Tensor:
        """r_t, the root mean square error of x0 = E[x_0 | x_t] per pixel under the prior, of t's shape, data units."""


@runtime_checkable
class HasMetric(Protocol):
    """Directions move at different speeds: Langevin and Hamiltonian moves are preconditioned.

    A Langevin move of step e is then x + e M_t score + sqrt(2 e) M_t^{1/2} z.
    """

    def metric(self, v: Tensor, t: Tensor, power: Literal["half", "one"]) -> Tensor:
        """M_t^{1/2} v or M_t v, (B, *shape); M_t is symmetric, positive semidefinite, and at most the identity."""


class Twist(NamedTuple):
    """An approximation psi_t(x) of p(y | x_t = x), from one evaluation of the prior.

    Args:
        x0: the prior's E[x_0 | x_t = x], (B, *shape).
        log: log psi_t(x), (B,), in nats, up to a constant that depends on t alone.
        gradient: the gradient of log psi_t in x, or an approximation of it, (B, *shape).
        vjp: v -> (d x0 / dx)^T v at the same x, if the method differentiates the network.
    """

    x0: Tensor
    log: Tensor
    gradient: Tensor
    vjp: Callable[[Tensor], Tensor] | None = None


@runtime_checkable
class HasLikelihood(Protocol):
    """A posterior that states what it is made of: p(x_0) and p(y | x_0)."""

    @property
    def prior(self) -> ScoreModel:
        """The score model of p(x)."""

    def log_likelihood(self, x0: Tensor) -> Tensor:
        """log p(y | x_0), (B,), in nats; differentiable."""


@runtime_checkable
class HasTwist(HasLikelihood, Protocol):
    """A posterior with an approximate log p(y | x_t): sequential Monte Carlo weighs its particles by it."""

    def twist(self, x: Tensor, t: Tensor) -> Twist:
        """psi_t at x, (B, *shape). Any positive function is a valid twist; a good one keeps the weights even."""


@runtime_checkable
class HasProposal(HasTwist, Protocol):
    """A twist whose product with a normal transition is known: particles are drawn from the product itself."""

    def propose(self, mean: Tensor, std: Tensor, s: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """A draw x_s of N(x_s; mean, std^2 I) psi_s(x_s) / Z, (B, *shape), and log Z, (B,).

        Args:
            mean: (B, *shape).
            std: > 0, ().
            s: the level that the transition leads to, ().
            noise: source of the draw.
        """


@runtime_checkable
class HasRefine(HasLikelihood, Protocol):
    """A posterior that meets the measurement in x_0 alone: decoupled samplers alternate it with the prior."""

    def refine(self, x0: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """x_0 given y and an estimate x0 that is off by about the noise level of t, (B, *shape)."""


@runtime_checkable
class Corrector(Protocol):
    """A Markov chain that leaves p_t invariant, run at fixed t."""

    def correct(self, model: ScoreModel, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """x after the chain's moves, (B, *shape)."""


@runtime_checkable
class Trainable(Protocol):
    """A model whose `denoise` is differentiable in the parameters of its `module`."""

    @property
    def module(self) -> Any:
        """The torch.nn.Module."""


# Problems with a known answer: what `scoreplug bench` measures methods against.


class Problem(Protocol):
    """A prior, a measurement of one of its samples, and what is known of the posterior."""

    @property
    def prior(self) -> ScoreModel:
        """The score model of p(x), under the process that the problem is posed in."""

    @property
    def measurement(self) -> Measurement:
        """y = A x + noise_std n."""

    @property
    def truth(self) -> Tensor:
        """The x that was measured, of the prior's shape: one draw of p(x | y)."""


@runtime_checkable
class HasExactSamples(Protocol):
    """Independent draws of p(x | y)."""

    def exact_samples(self, n: int, *, seed: int = 0) -> Tensor:
        """n draws, (n, *shape); draw i of a seed is the same whatever n is."""


@runtime_checkable
class HasLogEvidence(Protocol):
    """log p(y) is known."""

    @property
    def log_evidence(self) -> float:
        """log p(y), in nats."""


@runtime_checkable
class HasOracle(Protocol):
    """The exact score of p_t(x | y) is known."""

    @property
    def oracle(self) -> ScoreModel:
        """The score model of p(x | y), without approximation."""


@runtime_checkable
class HasMoments(Protocol):
    """Mean and covariance of p(x | y) are known."""

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """E[x | y], (n,), and Cov[x | y], (n, n), of the flattened image."""


@runtime_checkable
class HasModes(Protocol):
    """p(x | y) is a mixture of known components."""

    @property
    def mode_weights(self) -> Tensor:
        """Their posterior weights, (K,), summing to 1."""

    def modes(self, x: Tensor) -> Tensor:
        """The component that each sample most probably belongs to, (B,), of integers below K."""


@runtime_checkable
class HasLogPosterior(Protocol):
    """log p(x | y) is known up to a constant."""

    def log_posterior(self, x: Tensor) -> Tensor:
        """log p(x | y) plus a constant, (B,), in nats; differentiable."""
