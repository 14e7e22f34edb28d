"""Checks against closed forms: on a Gaussian prior with a linear operator everything is known."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from scoreplug import registry
from scoreplug.model import score_and_log_density, tweedie
from scoreplug.operator import BaseLinearOperator, matrix_of
from scoreplug.protocols import Corrector, HasLogDensity, HasPinv, HasSVD, LinearOperator, ScoreModel, Step
from scoreplug.sampler import BaseSampler
from scoreplug.testing._problems import (
    SMALL,
    close,
    gaussian,
    instance,
    instances,
    linear_operator,
    measured,
    mixture,
    posterior,
    sampler,
    source,
    target,
    time,
)
from scoreplug.testing.affine import affine_moments
from scoreplug.testing.kit import Subject, skip, states
from scoreplug.testing.noise import BatchNoise

MANY = 4000  # samples of a Monte-Carlo check
SIGMAS = 5  # standard errors that it allows: one false alarm in a million


def has(component: Any, capability: type) -> bool:
    """isinstance, without narrowing the type to the capability alone."""
    return isinstance(component, capability)


def _times(sde: Any) -> Tensor:
    return torch.linspace(max(sde.t_min, 1e-3), 1, 9, dtype=torch.float64, device="cpu")


def _slope(function: Any, t: Tensor) -> Tensor:
    h = 1e-6
    inner = t.clamp(h, 1 - h)
    return (function(inner + h) - function(inner - h)) / (2 * h)


# SDEs


@states(
    "alpha falls from 1 or less and stays positive, and the noise level sigma/alpha grows.",
    level="numerics",
    kinds=["sde"],
)
def kernel_is_a_noising(subject: Subject) -> None:
    sde = instance(subject)
    t = _times(sde)
    alpha, level = sde.alpha(t), sde.sigma(t) / sde.alpha(t)
    assert bool((alpha > 0).all()), "alpha is not positive"
    assert bool((alpha <= 1 + 1e-9).all()), f"alpha exceeds 1: {float(alpha.max()):.6g}"
    assert bool((alpha.diff() <= 1e-12).all()), "alpha grows"
    assert bool((level > 0).all()), "the noise level is not positive"
    assert bool((level.diff() > 0).all()), "the noise level does not grow"


@states("drift(t) = d log alpha / dt.", level="numerics", kinds=["sde"])
def drift_follows_from_alpha(subject: Subject) -> None:
    sde = instance(subject)
    t = _times(sde)[1:-1] + 1.3e-4  # off the knots of a table
    close(sde.drift(t), _slope(lambda u: sde.alpha(u).log(), t), tolerance=1e-5, what="drift")


@states("diffusion(t)^2 = alpha^2 d(level^2)/dt.", level="numerics", kinds=["sde"])
def diffusion_follows_from_the_level(subject: Subject) -> None:
    sde = instance(subject)
    t = _times(sde)[1:-1] + 1.3e-4
    g2 = sde.alpha(t) ** 2 * _slope(lambda u: (sde.sigma(u) / sde.alpha(u)) ** 2, t)
    ratio = sde.diffusion(t) ** 2 / g2
    worst = float((ratio - 1).abs().max())
    assert worst <= 1e-4, f"g^2 is {float(ratio[(ratio - 1).abs().argmax()]):.4g} times what alpha and sigma imply"


@states("time_of is the inverse of the noise level.", level="numerics", kinds=["sde"])
def time_of_is_the_inverse(subject: Subject) -> None:
    sde = instance(subject)
    t = _times(sde)
    close(sde.time_of(sde.sigma(t) / sde.alpha(t)), t, tolerance=1e-7, what="time_of(level(t))")


@states(
    "prior_std is the width of x_1 of data of variance 1, up to the signal that is left.",
    level="numerics",
    kinds=["sde"],
)
def start_is_as_wide_as_the_end(subject: Subject) -> None:
    sde = instance(subject)
    one = torch.ones((), dtype=torch.float64, device="cpu")
    alpha, sigma = float(sde.alpha(one)), float(sde.sigma(one))
    low, high = sigma * (1 - 1e-6), (sigma + alpha**2) * (1 + 1e-6)
    assert low <= sde.prior_std <= high, f"prior_std is {sde.prior_std:.6g}, x_1 is {low:.6g} to {high:.6g} wide"
    assert 0 < sde.t_min < 1, f"t_min = {sde.t_min:.3g} is not in (0, 1)"


# Models


def _model_at(subject: Subject) -> tuple[Any, Tensor, list[Tensor]]:
    model = instance(subject)
    x = source(2, "x", dtype=model.dtype).normal(tuple(model.shape))
    return model, x, [time(model, level) for level in (0.1, 0.7, 4.0)]


def _loose(model: Any) -> float:
    return 1e-8 if model.dtype == torch.float64 else 2e-3


@states("score and denoise state one fact: alpha x0 = x + sigma^2 score.", level="numerics", kinds=["model"])
def tweedie_holds(subject: Subject) -> None:
    model, x, times = _model_at(subject)
    with torch.no_grad():
        for t in times:
            close(tweedie(model, x, t, model.score(x, t)), model.denoise(x, t), tolerance=_loose(model), what="x0")


@states(
    "Under a process with another alpha it is the same model: x0 at the same noise level and x/alpha.",
    level="numerics",
    kinds=["model"],
)
def process_is_a_choice(subject: Subject) -> None:
    model, x, times = _model_at(subject)
    with torch.no_grad():
        for t in times:
            level, xbar = model.sde.sigma(t) / model.sde.alpha(t), x / model.sde.alpha(t)
            for name in ("vp", "ve"):
                other = model.under(registry.get_sde(name))
                t_other = other.sde.time_of(level)
                scaled = other.sde.alpha(t_other) * xbar
                close(
                    other.denoise(scaled, t_other),
                    model.denoise(x, t),
                    tolerance=10 * _loose(model),
                    what=f"x0 under {name}",
                )


@states("At high noise the estimate forgets x, and x0 is finite at every level.", level="numerics", kinds=["model"])
def estimate_is_finite(subject: Subject) -> None:
    model, x, times = _model_at(subject)
    with torch.no_grad():
        for t in times:
            assert bool(model.denoise(x, t).isfinite().all()), (
                f"x0 is not finite at level {float(model.sde.sigma(t) / model.sde.alpha(t)):.3g}"
            )


@states("A time for each sample is each sample at its own time.", level="numerics", kinds=["model"])
def times_may_be_a_batch(subject: Subject) -> None:
    model, x, times = _model_at(subject)
    with torch.no_grad():
        both = model.denoise(x, torch.stack(times[:2]))
        for i in range(2):
            close(both[i : i + 1], model.denoise(x[i : i + 1], times[i]), tolerance=_loose(model), what=f"sample {i}")


@states("The score is the gradient of the log density.", level="numerics", kinds=["model"])
def density_has_this_score(subject: Subject) -> None:
    model, x, times = _model_at(subject)
    if not has(model, HasLogDensity):
        skip("the model has no log density")
    if model.dtype != torch.float64:
        skip("differences of log densities need float64")
    u, h = source(2, "u").normal(tuple(model.shape)), 1e-5
    for t in times:
        score, log_density = score_and_log_density(model, x, t)
        slope = (model.log_density(x + h * u, t) - model.log_density(x - h * u, t)) / (2 * h)
        close((score * u).flatten(1).sum(1), slope, tolerance=1e-5, what="directional derivative of log p")
        close(log_density, model.log_density(x, t), tolerance=1e-9, what="log p with the score")


@states("The vector-Jacobian product is the derivative of denoise.", level="numerics", kinds=["model"])
def vjp_is_the_derivative(subject: Subject) -> None:
    model, x, times = _model_at(subject)
    v = source(2, "v", dtype=model.dtype).normal(tuple(model.shape))
    x0, vjp = model.denoise_with_vjp(x, times[1])
    u, h = source(2, "u", dtype=model.dtype).normal(tuple(model.shape)), 1e-5 if model.dtype == torch.float64 else 1e-2
    with torch.no_grad():
        slope = (model.denoise(x + h * u, times[1]) - model.denoise(x - h * u, times[1])) / (2 * h)
        close(x0, model.denoise(x, times[1]), tolerance=_loose(model), what="x0")
    tolerance = 1e-6 if model.dtype == torch.float64 else 5e-2
    close((vjp(v) * u).flatten(1).sum(1), (v * slope).flatten(1).sum(1), tolerance=tolerance, what="<v, J u>")


# Operators


@states("A(2 x - 3 x') = 2 A x - 3 A x'.", level="numerics", kinds=["operator"])
def operator_is_linear(subject: Subject) -> None:
    for A in _linear(subject):
        x, other = source(2, "x").normal(tuple(A.input_shape)), source(2, "x'").normal(tuple(A.input_shape))
        close(A(2 * x - 3 * other), 2 * A(x) - 3 * A(other), tolerance=1e-10, what="A(2 x - 3 x')")


def _linear(subject: Subject) -> list[Any]:
    made = [A for A in instances(subject) if isinstance(A, LinearOperator)]
    if not made:
        skip("the operator is not linear")
    return made


@states("<A x, y> = <x, A^T y>.", level="numerics", kinds=["operator"])
def adjoint_is_the_transpose(subject: Subject) -> None:
    for A in _linear(subject):
        x, y = source(3, "x").normal(tuple(A.input_shape)), source(3, "y").normal(tuple(A.output_shape))
        Ax, Aty = A(x), A.adjoint(y)
        forward, backward = (Ax * y).flatten(1).sum(1), (x * Aty).flatten(1).sum(1)
        scale = float((Ax.flatten(1).norm(dim=1) * y.flatten(1).norm(dim=1)).max())
        worst = float((forward - backward).abs().max()) / scale
        assert worst <= 1e-10, f"<A x, y> and <x, A^T y> differ by {worst:.2g} of |A x| |y|, 1e-10 is allowed"


@states("norm is the largest singular value, to 0.1 percent.", level="numerics", kinds=["operator"])
def norm_is_the_largest_singular_value(subject: Subject) -> None:
    A: Any = _linear(subject)[0]
    true = float(torch.linalg.svdvals(_matrix(A))[0])
    assert abs(A.norm / true - 1) <= 1e-3, f"norm is {A.norm:.6g}, the largest singular value {true:.6g}"


def _matrix(A: Any) -> Tensor:
    if isinstance(A, BaseLinearOperator):
        return matrix_of(A)
    n = math.prod(A.input_shape)
    basis: Tensor = torch.eye(n, dtype=torch.float64, device="cpu").reshape(n, *A.input_shape)
    columns: Tensor = A(basis).flatten(1)
    return columns.T


@states(
    "pinv is the Moore-Penrose inverse: A A+ A = A, A+ A A+ = A+, and both products are symmetric.",
    level="numerics",
    kinds=["operator"],
)
def pinv_is_moore_penrose(subject: Subject) -> None:
    A: Any = _linear(subject)[0]
    if not has(A, HasPinv):
        skip("the operator has no pseudoinverse of its own")
    M, m = _matrix(A), math.prod(A.output_shape)
    P = A.pinv(torch.eye(m, dtype=torch.float64, device="cpu").reshape(m, *A.output_shape)).flatten(1).T
    for found, expected, what in (
        (M @ P @ M, M, "A A+ A"),
        (P @ M @ P, P, "A+ A A+"),
        ((M @ P).T, M @ P, "A A+ transposed"),
        ((P @ M).T, P @ M, "A+ A transposed"),
    ):
        close(found, expected, tolerance=1e-6, what=what)


@states(
    "svd is a decomposition: V has orthonormal columns, and U diag(s) V^T = A.", level="numerics", kinds=["operator"]
)
def svd_is_a_decomposition(subject: Subject) -> None:
    A: Any = _linear(subject)[0]
    if not has(A, HasSVD):
        skip("the operator has no decomposition of its own")
    svd = A.svd
    s = svd.singular_values
    unit = torch.eye(s.numel(), dtype=torch.float64, device="cpu").reshape(-1, *s.shape)
    U, V = svd.U(unit).flatten(1).T, svd.V(unit).flatten(1).T
    close(V.T @ V, torch.eye(s.numel(), dtype=torch.float64, device="cpu"), tolerance=1e-8, what="V^T V")
    close(U @ torch.diag(s.flatten()) @ V.T, _matrix(A), tolerance=1e-8, what="U diag(s) V^T")
    n = math.prod(A.input_shape)
    basis = torch.eye(n, dtype=torch.float64, device="cpu").reshape(n, *A.input_shape)
    close(svd.Vt(basis).flatten(1), V, tolerance=1e-8, what="Vt, as the transpose of V")


@states("solve(r, a, b) inverts a A A^T + b I.", level="numerics", kinds=["operator"])
def solve_inverts(subject: Subject) -> None:
    A: Any = _linear(subject)[0]
    r = source(2, "r").normal(tuple(A.output_shape))
    v = A.solve(r, a=2.0, b=0.3)
    close(2.0 * A(A.adjoint(v)) + 0.3 * v, r, tolerance=1e-6, what="(a A A^T + b I) solve(r)")


@states("linearize gives A(x) and the transposed Jacobian there.", level="numerics", kinds=["operator"])
def linearize_is_the_derivative(subject: Subject) -> None:
    for A in instances(subject):
        x = 0.3 + 0.1 * source(2, "x").normal(tuple(A.input_shape))
        u, v = source(2, "u").normal(tuple(A.input_shape)), source(2, "v").normal(tuple(A.output_shape))
        value, vjp = A.linearize(x)
        h = 1e-6
        slope = (A(x + h * u) - A(x - h * u)) / (2 * h)
        close(value, A(x), tolerance=1e-10, what="the value")
        close((vjp(v) * u).flatten(1).sum(1), (slope * v).flatten(1).sum(1), tolerance=1e-5, what="<J^T v, u>")


# Conditioners


@states("score and denoise of the posterior state one fact.", level="numerics", kinds=["conditioner"])
def posterior_obeys_tweedie(subject: Subject) -> None:
    for sde in ("vp", "ve"):
        model = posterior(subject, mixture(sde))
        x = source(2, "x").normal(SMALL)
        for level in (0.2, 1.0):
            t = time(model, level)
            close(tweedie(model, x, t, model.score(x, t)), model.denoise(x, t), tolerance=1e-8, what=f"x0 under {sde}")


@states(
    "A step with the same levels and noise gives the same x/alpha under processes with different alpha.",
    level="numerics",
    kinds=["conditioner"],
)
def posterior_is_the_same_under_every_process(subject: Subject) -> None:
    kernel, found = sampler("ancestral"), []
    for sde in ("vp", "ve", "flow"):
        model = posterior(subject, mixture("vp")).under(registry.get_sde(sde))
        t, s = time(model, 0.8), time(model, 0.5)
        alpha_t, alpha_s = model.sde.alpha(t), model.sde.alpha(s)
        noise = source(2, "kernel")
        x, x0, gain = kernel.transition(model, alpha_t * source(2, "x").normal(SMALL), t, s, noise)
        step = Step(t=t, s=s, x0=x0, gain=gain, phase="predict", noise=noise.at("project"))
        found.append(model.project(x, step) / alpha_s)
    for other, sde in zip(found[1:], ("ve", "flow"), strict=True):
        close(other, found[0], tolerance=1e-7, what=f"x/alpha under {sde}, and under vp")


@states("Samples are nearer to the measurement than the prior's are.", level="numerics", kinds=["conditioner"])
def measurement_is_heard(subject: Subject) -> None:
    prior = mixture("ve")
    model = posterior(subject, prior)
    if model is prior:
        skip("the posterior is the prior: the measurement is ignored on purpose")
    many = {"steps": 200, "grid": "rho"}
    plain = measured().residual(sampler("ancestral", **many).sample(prior, 64))
    given = measured().residual(sampler("ancestral", **many).sample(model, 64))
    ratio = float(given.square().mean() / plain.square().mean())
    # 64 samples of each: a ratio of 1 +- 0.25 would be chance
    assert ratio < 0.5, f"the squared residual is {ratio:.2f} of the prior's, below .5 is asked for"


@states("As the noise grows without bound the score tends to the prior's.", level="numerics", kinds=["conditioner"])
def useless_measurement_leaves_the_prior(subject: Subject) -> None:
    prior = mixture("ve")
    x, t = source(2, "x").normal(SMALL), time(prior, 0.7)
    here, louder, useless = (posterior(subject, prior, noise).score(x, t) for noise in (0.1, 0.2, 1e7))
    if torch.equal(here, louder):
        skip("its score does not depend on the noise in y")
    close(useless, prior.score(x, t), tolerance=1e-6, what="the score with sigma_y = 1e7, and the prior's")


@states(
    "What a projection draws comes from the step's noise: the same address, the same draw; another, another.",
    level="numerics",
    kinds=["conditioner"],
)
def projection_draws_from_the_step(subject: Subject) -> None:
    model = posterior(subject, mixture("ve"))
    x, x0 = source(2, "x").normal(SMALL), source(2, "x0").normal(SMALL)
    t, s = time(model, 0.8), time(model, 0.5)

    def projected(*labels: str | int, seed: int = 0) -> Tensor:
        noise = source(2, *labels, seed=seed)
        return model.project(x, Step(t=t, s=s, x0=x0, gain=0.1, phase="predict", noise=noise))

    first = projected("step", 1)
    assert torch.equal(first, projected("step", 1)), "the same step gives another projection: noise from elsewhere"
    if torch.equal(first, projected("step", 1, seed=1)):
        if torch.equal(first, x):
            skip("it does not project")
        assert torch.equal(first, projected("step", 2)), "the projection depends on the step, but not on the seed"
        return
    assert not torch.equal(first, projected("step", 2)), "every step draws the same noise"


@states(
    "The projection of a sample does not depend on its batch mates, and keeps shape and type.",
    level="numerics",
    kinds=["conditioner"],
)
def projection_is_per_sample(subject: Subject) -> None:
    model = posterior(subject, mixture("ve"))
    t = time(model, 0.5)
    for phase in ("start", "predict", "correct", "finish"):
        found = []
        for n in (4, 2):
            x, x0 = source(n, "x").normal(SMALL), source(n, "x0").normal(SMALL)
            step = Step(t=t, s=t, x0=None if phase == "start" else x0, gain=0.0, phase=phase, noise=source(n, phase))
            found.append(model.project(x, step))
        close(found[0][:2], found[1], tolerance=1e-9, what=f"the projection in phase {phase!r}")


@states(
    "On a Gaussian prior the samples have the posterior's mean and covariance.", level="numerics", kinds=["conditioner"]
)
def exact_means_exact(subject: Subject) -> None:
    if not getattr(subject.spec, "exact", False):
        skip("the spec does not say that it is exact")
    i = torch.arange(4, dtype=torch.float64, device="cpu")
    S = 0.6 * (-(i[:, None] - i).abs() / 2).exp()
    model = posterior(subject, gaussian("ve", mean=0.2, covariance=S))
    M, y, sigma_y = _matrix(linear_operator()), measured().data.flatten(), 0.1
    K = S @ M.T @ torch.linalg.inv(M @ S @ M.T + sigma_y**2 * torch.eye(3, dtype=torch.float64, device="cpu"))
    mean, covariance = 0.2 + K @ (y - M @ torch.full((4,), 0.2, dtype=torch.float64, device="cpu")), S - K @ M @ S
    found = [affine_moments(sampler("ancestral", steps=n, grid="rho"), model) for n in (300, 600)]
    # the sampler is of first order: twice the second less the first leaves the second order, 1e-3
    close(2 * found[1][0] - found[0][0], mean, tolerance=0.01, what="mean")
    close(2 * found[1][1] - found[0][1], covariance, tolerance=0.02, what="covariance")


# Samplers

TARGET_MEAN, TARGET_VARIANCE = 0.7, 1.7


@states(
    "With the exact score of N(.7, 1.7) the samples tend to its mean and variance.", level="numerics", kinds=["sampler"]
)
def target_is_reached(subject: Subject) -> None:
    if getattr(subject.spec, "corrects", False):
        skip("it is a chain at fixed level, whose check is that it leaves its target invariant")
    if getattr(subject.spec, "point", False):
        skip("it reports a point estimate, not samples")
    if not subject.takes("steps"):
        skip("it has no number of steps to let grow")
    for sde in (registry.get_sde("ve", sigma_max=10.0, t_min=1e-4), registry.get_sde("vp", t_min=1e-4)):
        model = target(subject, gaussian(sde, mean=TARGET_MEAN, covariance=TARGET_VARIANCE, shape=(1, 1, 1)))
        coarse, fine = (_moments(instance(subject, steps=steps), model) for steps in (150, 300))
        one = torch.ones((), dtype=torch.float64, device="cpu")
        signal = float(sde.alpha(one)) / model.sde.prior_std * math.sqrt(TARGET_VARIANCE)  # what the start leaves out
        for what, true, a, b in zip(("mean", "variance"), (TARGET_MEAN, TARGET_VARIANCE), coarse, fine, strict=True):
            start = 2 * signal * true
            near, before = abs(b - true) - start, abs(a - true) - start
            # within 5 % of the variance's scale, or at least on its way: three quarters of the error of half the steps
            allowed = max(0.05 * math.sqrt(TARGET_VARIANCE), 0.75 * before)
            assert near <= allowed, (
                f"{what} is {b:.4g} after 300 steps and {a:.4g} after 150, the target's is {true:.4g}"
            )
        worst = abs(fine[1] / TARGET_VARIANCE - 1)
        assert worst <= 0.2, f"variance is {fine[1]:.4g} after 300 steps, the target's is {TARGET_VARIANCE}"


def _moments(made: BaseSampler, model: ScoreModel) -> tuple[float, float]:
    """Exactly for an affine sampler, from many samples for another one."""
    try:
        mean, covariance = affine_moments(made, model)
    except ValueError:
        x = _sample_many(made, model)
        return float(x.mean()), float(x.var())
    return float(mean), float(covariance)


def _sample_many(made: BaseSampler, model: ScoreModel) -> Tensor:
    noise = BatchNoise(0, range(MANY), dtype=model.dtype, device=model.device)
    *_, state = made.trajectory(model, noise)
    return state.x


@states(
    "Moves at a fixed level leave p_t invariant, up to an inflation of the variance of 10 percent.",
    level="numerics",
    kinds=["sampler"],
)
def correct_leaves_the_target(subject: Subject) -> None:
    made = instance(subject)
    if not isinstance(made, Corrector):
        skip("it has no moves at a fixed level")
    n, model = 20_000, gaussian("ve", mean=TARGET_MEAN, covariance=0.8, shape=(1, 1, 1))
    t = time(model, 0.5)
    width = math.sqrt(0.8 + 0.25)
    draws = BatchNoise(0, range(n), dtype=torch.float64, device=torch.device("cpu"))
    x = TARGET_MEAN + width * draws.at("x").normal((1, 1, 1))
    for block in range(40):
        x = made.correct(model, x, t, draws.at("block", block))
    mean, ratio = float(x.mean()), float(x.var()) / width**2
    allowed = SIGMAS * width / math.sqrt(n)
    assert abs(mean - TARGET_MEAN) <= allowed, f"mean moved to {mean:.4g} from {TARGET_MEAN}, {allowed:.2g} is chance"
    chance = SIGMAS * math.sqrt(2 / n)
    assert -chance <= ratio - 1 <= 0.1 + chance, (
        f"variance became {ratio:.4g} of p_t's, 1 to {1.1 + chance:.3g} is allowed"
    )


@states(
    "With a log density and large steps a Metropolis chain still leaves a mixture invariant.",
    level="numerics",
    kinds=["sampler"],
)
def acceptance_is_right(subject: Subject) -> None:
    if "log-density" not in getattr(subject.spec, "exact_with", ()):
        skip("the spec does not say that a log density makes it exact")
    made = instance(subject, **({"step_size": 1.5} if subject.takes("step_size") else {}))
    n, centres = 20_000, torch.tensor([[0.0, 0.0], [1.5, 0.5]], dtype=torch.float64, device="cpu")
    model = registry.get_model("gaussian-mixture", image_shape=(1, 1, 2), means=centres, covariances=0.1, sde="ve")
    t = time(model, 0.4)
    draws = BatchNoise(0, range(n), dtype=torch.float64, device=torch.device("cpu"))
    which = (draws.at("mode").uniform() < 0.5).long()
    width = math.sqrt(0.1 + 0.16)
    before = x = centres[which].reshape(n, 1, 1, 2) + width * draws.at("x").normal((1, 1, 2))
    for block in range(5):
        x = made.correct(model, x, t, draws.at("block", block))
    moved = float((x - before).abs().mean())
    assert moved > 0.01 * width, "no proposal is accepted at step_size = 1.5"
    for power in (1, 2):
        a, b = (v.flatten(1) ** power for v in (before, x))
        error = SIGMAS * ((a.var(0) + b.var(0)) / n).sqrt()
        worst = ((b.mean(0) - a.mean(0)).abs() / error).max()
        assert float(worst) <= 1, f"moment {power} of the mixture moved by {float(worst) * SIGMAS:.1f} standard errors"


@states("In float32 the samples are those of float64, up to rounding.", level="numerics", kinds=["sampler"])
def precision_is_the_models(subject: Subject) -> None:
    if getattr(subject.spec, "exact_with", ()):
        skip("rounding may turn a decision to accept")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*acceptance is approximate")
        made = instance(subject, **({"steps": 8} if subject.takes("steps") else {}))
        double, single = (made.sample(target(subject, mixture("vp", precision=p)), 2) for p in ("float64", "float32"))
    close(single.double(), double, tolerance=1e-3, what="samples in float32")


# Problems


@states(
    "Exact samples have the moments of the posterior, and the score of the oracle is that of its log density near 0.",
    level="numerics",
    kinds=["problem"],
)
def posterior_is_one_law(subject: Subject) -> None:
    made: Any = instance(subject)
    provides = getattr(subject.spec, "provides", ())
    if "samples" not in provides:
        skip("the spec does not say that it has exact samples")
    n = 2000
    x = made.exact_samples(n).double()
    assert torch.equal(x[:10], made.exact_samples(10).double()), "the first samples depend on how many are drawn"
    assert not torch.equal(x[:10], made.exact_samples(10, seed=1).double()), "another seed gave the same samples"
    if "moments" in provides:
        mean, covariance = made.moments
        error = SIGMAS * (covariance.diagonal() / n).sqrt()
        worst = ((x.flatten(1).mean(0) - mean).abs() / error).max()
        assert float(worst) <= 1, f"the mean of exact samples is {float(worst) * SIGMAS:.1f} standard errors off"
    if {"log-posterior", "oracle"} <= set(provides):
        few = x[:5].requires_grad_()
        (slope,) = torch.autograd.grad(made.log_posterior(few).sum(), few)
        t = made.oracle.sde.time_of(torch.tensor(1e-4, dtype=torch.float64, device="cpu"))
        score = made.oracle.score(made.oracle.sde.alpha(t) * few.detach(), t) * made.oracle.sde.alpha(t)
        close(score, slope, tolerance=1e-3, what="the oracle's score at level 1e-4 and the log posterior's slope")
