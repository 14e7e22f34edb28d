"""The nonlinear problems: quadrature agrees with closed forms, with SciPy's quadrature and with Bayes' theorem."""

import functools
import itertools
import math

import attrs
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from scoreplug import Measurement
from scoreplug.protocols import HasExactSamples, HasLogDensity, HasLogEvidence, HasLogPosterior, HasMoments, HasOracle
from scoreplug_builtin.problems.nonlinear import NonlinearProblem
from scoreplug_builtin.sdes.ve import VE
from scoreplug_builtin.sdes.vp import VP

ON_A_LINE = ["abs", "square", "sign"]
IN_THE_PLANE = ["abs", "square", "sign", "modulus"]
FUNCTIONS = {"abs": np.abs, "square": np.square, "sign": np.sign}
BOTH_SIDES = {"abs": 0.8, "square": 0.6, "sign": 0.02}  # data that x of either sign may have made
BREAKS = np.linspace(-6, 6, 25)  # 0 is one of them


@functools.cache
def of(dimension, operator):
    """A problem that tests share; the noise keeps the plane's table small."""
    return NonlinearProblem(dimension=dimension, operator=operator, noise_std=0.2 * dimension)


def with_data(problem, y):
    """The same problem with other data, put where the class keeps its measurement."""
    data = torch.as_tensor(y, dtype=torch.float64).reshape(problem.measurement.data.shape)
    other = attrs.evolve(problem)
    object.__setattr__(other, "measurement", Measurement(problem.measurement.operator, data, problem.noise_std))
    return other


def on_both_sides(operator, **params):
    return with_data(NonlinearProblem(operator=operator, **params), BOTH_SIDES[operator])


def components(problem):
    """(w_k, m_k, s_k) of a prior on the line."""
    normals = problem.prior.normals
    stds = normals.eigenvalues[:, 0].sqrt().tolist()
    return list(zip(problem.prior.log_weights.exp().tolist(), normals.mean[:, 0].tolist(), stds, strict=True))


def likelihood(problem, u):
    y = float(problem.measurement.data)
    return scipy.stats.norm.pdf(y, FUNCTIONS[problem.operator](u), problem.noise_std)


def joint(problem, u):
    """p(u) p(y | u), written again."""
    return sum(w * scipy.stats.norm.pdf(u, m, s) for w, m, s in components(problem)) * likelihood(problem, u)


def integral(f, breaks=BREAKS):
    """Forty nodes between neighbouring breaks."""
    return sum(scipy.integrate.fixed_quad(f, a, b, n=40)[0] for a, b in itertools.pairwise(breaks))


def column(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def time(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("operator", ON_A_LINE)
def test_evidence_and_moments_agree_with_another_quadrature(operator):
    problem = on_both_sides(operator)
    Z = integral(lambda u: joint(problem, u))
    mean = integral(lambda u: u * joint(problem, u)) / Z
    variance = integral(lambda u: (u - mean) ** 2 * joint(problem, u)) / Z

    # Forty nodes on half a unit are converged to rounding for widths of .1; ours is to 1e-8.
    assert problem.log_evidence == pytest.approx(math.log(Z), abs=1e-8)
    assert float(problem.moments[0]) == pytest.approx(mean, abs=1e-8)
    assert float(problem.moments[1]) == pytest.approx(variance, abs=1e-8)


@pytest.mark.parametrize("operator", ON_A_LINE)
def test_the_evidence_is_a_density_of_y(operator):
    problem = NonlinearProblem(operator=operator, noise_std=0.3)
    low, high, step = -2.7, {"abs": 6, "square": 20, "sign": 4}[operator], 0.1
    ys = torch.arange(low, high, step, dtype=torch.float64)

    # p(y) is smoothed by the noise: the trapezoidal rule at a third of its width errs by exp(-2 pi^2 9), and what the
    # range leaves out is nine standard deviations off below, and as much above.
    total = step * sum(math.exp(with_data(problem, y).log_evidence) for y in ys)
    assert total == pytest.approx(1, abs=1e-7)


def test_the_sign_has_its_closed_form():
    """p(y) = p(x > 0) N(y; 1, s^2) + p(x < 0) N(y; -1, s^2); a side's mean is that of the truncated mixture."""
    problem = on_both_sides("sign")
    y, noise = BOTH_SIDES["sign"], problem.noise_std
    positive = sum(w * scipy.stats.norm.sf(0, m, s) for w, m, s in components(problem))
    upper = sum(
        w * (m * scipy.stats.norm.sf(0, m, s) + s * scipy.stats.norm.pdf(m / s)) for w, m, s in components(problem)
    )
    lower = sum(w * m for w, m, _ in components(problem)) - upper
    at = [scipy.stats.norm.pdf(y, 1, noise), scipy.stats.norm.pdf(y, -1, noise)]
    Z = positive * at[0] + (1 - positive) * at[1]

    assert problem.log_evidence == pytest.approx(math.log(Z), abs=1e-9)
    assert float(problem.moments[0]) == pytest.approx((upper * at[0] + lower * at[1]) / Z, abs=1e-9)


@pytest.mark.parametrize("sde", [VP(), VE()], ids=["vp", "ve"])
@pytest.mark.parametrize("operator", ON_A_LINE)
def test_the_density_of_x_t_obeys_bayes_theorem(operator, sde):
    """log p_t(x | y) = log p_t(x) + log p(y | x_t) - log p(y). Here by forty nodes on every unit of the level."""
    problem = on_both_sides(operator, sde=sde)
    for level in (0.02, 0.3, 4.0):
        t = sde.time_of(time(level))
        alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
        for u0 in (-0.55, 0.03, 0.6):
            x = alpha * u0

            def kernel(u, x=x, alpha=alpha, sigma=sigma):
                return joint(problem, u) * scipy.stats.norm.pdf(x, alpha * u, sigma)

            breaks = sorted({*BREAKS, *(u0 + k * level for k in range(-10, 11))})
            expected = math.log(integral(kernel, breaks)) - problem.log_evidence

            # 5e-6 is the module's claim for the smallest of the three levels.
            assert float(problem.oracle.log_density(column(x), t)) == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("level", [0.01, 0.1, 0.5, 3.0])
@pytest.mark.parametrize(("dimension", "operator"), [*((1, o) for o in ON_A_LINE), *((2, o) for o in IN_THE_PLANE)])
def test_the_score_is_the_gradient_of_the_density(dimension, operator, level):
    problem = of(dimension, operator)
    t = problem.sde.time_of(time(level))
    x = (problem.sde.alpha(t) * problem.exact_samples(3) + problem.sde.sigma(t) * 0.7).requires_grad_()
    (gradient,) = torch.autograd.grad(problem.oracle.log_density(x, t).sum(), x)
    score = problem.oracle.score(x.detach(), t)

    # The gradient knows nothing of Tweedie's formula. Both are off by the moving rule's ends, 1e-6 of 1 / level.
    torch.testing.assert_close(score, gradient, rtol=1e-6, atol=1e-6 / level)
    alpha, sigma = problem.sde.alpha(t), problem.sde.sigma(t)
    torch.testing.assert_close(
        problem.oracle.denoise(x.detach(), t), (x.detach() + sigma**2 * score) / alpha, rtol=0, atol=1e-12
    )


def test_without_data_the_posterior_is_the_prior():
    """Noise a thousand times the signal: p(x | y) = p(x) to 1e-3, and the score is the mixture's closed form."""
    for dimension in (1, 2):
        problem = NonlinearProblem(dimension=dimension, operator="abs", noise_std=1e4)
        for level in (0.05, 0.4, 2.0):
            t = problem.sde.time_of(time(level))
            x = problem.sde.alpha(t) * problem.exact_samples(4) + problem.sde.sigma(t) * 0.5

            # |y|, |x| < 1e5 and sigma_y = 1e4: the likelihood's slope |y - x| / sigma_y^2 is about 1e-4.
            torch.testing.assert_close(problem.oracle.score(x, t), problem.prior.score(x, t), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("operator", IN_THE_PLANE)
def test_the_plane_agrees_with_a_fine_grid(operator):
    problem = of(2, operator)
    n, box = 1000, 5.0
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * box / n) - box  # 0 is the end of a cell
    points = torch.cartesian_prod(axis, axis)
    w, m, v = problem.prior.log_weights, problem.prior.normals.mean, problem.prior.normals.eigenvalues[:, 0]
    log_prior = torch.logsumexp(w - torch.log(2 * math.pi * v) - torch.cdist(points, m) ** 2 / (2 * v), dim=1)
    clean = {
        "abs": points.abs,
        "square": points.square,
        "sign": points.sign,
        "modulus": lambda: points.norm(dim=1, keepdim=True),
    }[operator]()
    r = (problem.measurement.data.flatten() - clean) / problem.noise_std
    log_p = log_prior - 0.5 * (r**2 + math.log(2 * math.pi * problem.noise_std**2)).sum(1) + 2 * math.log(2 * box / n)
    p = (log_p - log_p.logsumexp(0)).exp()

    # Midpoints of cells of .01: a kink or jump at their ends costs h^2 / 24 of the slope, 4e-6 times at most 25.
    assert problem.log_evidence == pytest.approx(float(log_p.logsumexp(0)), abs=2e-4)
    torch.testing.assert_close(problem.moments[0], p @ points, rtol=0, atol=2e-4)
    for level in (0.15, 1.0):
        t = problem.sde.time_of(time(level))
        u = problem.exact_samples(2).flatten(1) + 0.3 * level
        kernel = (log_p - ((points - u[:, None]) ** 2).sum(2) / (2 * level**2)).softmax(1)
        found = problem.oracle.denoise((problem.sde.alpha(t) * u).reshape(2, 1, 1, 2), t)
        torch.testing.assert_close(found.flatten(1), kernel @ points, rtol=0, atol=2e-4)


def test_with_one_component_the_plane_is_two_lines_even_far_away():
    """The prior and |x| are products, so is the posterior; each factor is two truncated normal distributions."""
    problem = NonlinearProblem(dimension=2, operator="abs", components=1, noise_std=0.05)
    m, v, noise = problem.prior.normals.mean[0].tolist(), float(problem.prior.normals.eigenvalues), problem.noise_std
    for level, far in ((0.06, 6.0), (0.06, 0.1), (0.5, 6.0), (0.02, 0.02)):
        t = problem.sde.time_of(time(level))
        u = torch.tensor([far, -far / 2], dtype=torch.float64)
        found = problem.oracle.denoise((problem.sde.alpha(t) * u).reshape(1, 1, 1, 2), t).flatten()
        for i in (0, 1):
            logs, means = [], []
            for sign in (1, -1):
                y = sign * float(problem.measurement.data.flatten()[i])
                precision = 1 / v + 1 / noise**2 + 1 / level**2
                c = (m[i] / v + y / noise**2 + float(u[i]) / level**2) / precision
                s = precision**-0.5
                exponent = m[i] ** 2 / v + y**2 / noise**2 - c**2 * precision
                logs.append(scipy.stats.norm.logcdf(sign * c / s) - exponent / 2)
                ends = (-c / s, math.inf) if sign > 0 else (-math.inf, -c / s)
                means.append(scipy.stats.truncnorm.mean(*ends, loc=c, scale=s))
            share = 1 / (1 + math.exp(logs[1] - logs[0])) if logs[1] - logs[0] < 700 else 0.0

            # At 6 the kernel holds e^-5000 of the posterior: the sum by logarithms. Its nodes resolve the product.
            expected = share * means[0] + (1 - share) * means[1]
            assert float(found[i]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("dimension", "operator"), [*((1, o) for o in ON_A_LINE), *((2, o) for o in IN_THE_PLANE)])
def test_fixed_and_moving_nodes_agree_where_they_meet(dimension, operator):
    problem = of(dimension, operator)
    oracle, u = problem.oracle, problem.exact_samples(5).flatten(1) + 0.02
    level = torch.full((5, 1), problem.width, dtype=torch.float64)
    fixed, moving = oracle._fixed(u, level), oracle._moving(u, level)

    # The moving rule's panels are longer: 5e-6 (see the module).
    torch.testing.assert_close(fixed[0], moving[0], rtol=0, atol=5e-6)
    torch.testing.assert_close(fixed[1], moving[1], rtol=0, atol=5e-6 * problem.width)


@pytest.mark.parametrize(("dimension", "operator"), [(1, "abs"), (1, "square"), (2, "abs"), (2, "modulus")])
def test_at_the_smallest_level_the_oracle_is_the_score_of_the_posterior(dimension, operator):
    problem = NonlinearProblem(dimension=dimension, operator=operator, sde=VE(sigma_min=1e-4))
    x = problem.exact_samples(4).requires_grad_()
    (gradient,) = torch.autograd.grad(problem.log_posterior(x).sum(), x)

    # Blurring by l changes the score by l^2 times its second derivative: 1e-8 of 1 / (0.02)^3 = 1e-3 at most.
    torch.testing.assert_close(problem.oracle.score(x.detach(), time(0.0)), gradient, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("operator", ON_A_LINE)
def test_exact_samples_have_the_distribution_function(operator):
    problem, n = on_both_sides(operator), 4000
    edges = np.linspace(-5, 5, 20_001)
    masses = joint(problem, (edges[1:] + edges[:-1]) / 2)
    cdf = np.concatenate([[0], masses.cumsum()]) / masses.sum()
    x = problem.exact_samples(n).flatten().numpy()

    # Kolmogorov's distance is below 1.95 / sqrt(n) with probability 0.999.
    assert scipy.stats.kstest(x, lambda v: np.interp(v, edges, cdf)).statistic < 1.95 / math.sqrt(n)
    assert 0.05 < cdf[10_000] < 0.95  # both sides are populated: the problem is one of two modes


@pytest.mark.parametrize("operator", IN_THE_PLANE)
def test_exact_samples_in_the_plane_have_the_moments_of_mass_and_position(operator):
    problem, n = of(2, operator), 1000
    x = problem.exact_samples(n).flatten(1)
    mean, covariance = problem.moments
    whitened = (x - mean) @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T

    assert whitened.mean(0).abs().max() < 4 / math.sqrt(n)
    # The fourth moments of these posteriors are at most ten: a covariance's entry has the error 3 / sqrt(n).
    assert (whitened.T.cov() - torch.eye(2, dtype=torch.float64)).abs().max() < 4 * 3 / math.sqrt(n)
    # log p(x | y) under p(x | y) has the mean of minus the entropy, which the quadrature knows.
    w = (problem._log_masses - problem.log_evidence).exp().flatten()
    log_p = problem.log_posterior(problem._points(problem._rule[0]).reshape(-1, 1, 1, 2))
    expected, spread = w @ log_p, (w @ (log_p - w @ log_p) ** 2).sqrt()
    assert abs(float(problem.log_posterior(x.reshape(-1, 1, 1, 2)).mean() - expected)) < 4 * float(spread) / math.sqrt(
        n
    )


@pytest.mark.parametrize("dimension", [1, 2])
def test_the_first_exact_samples_are_the_same_whatever_their_number(dimension):
    problem = NonlinearProblem(dimension=dimension)

    torch.testing.assert_close(problem.exact_samples(600)[:3], problem.exact_samples(3), rtol=0, atol=1e-13)
    assert not torch.equal(problem.exact_samples(3), problem.exact_samples(3, seed=1))


def test_halving_the_panels_changes_nothing():
    for dimension, operator in [*((1, o) for o in ON_A_LINE), *((2, o) for o in IN_THE_PLANE)]:
        assert of(dimension, operator).quadrature_error < 1e-8

    # A ring around 0 of less than its own width: the cone |x| is not smooth at its tip.
    assert with_data(NonlinearProblem(dimension=2, operator="modulus"), 0.05).quadrature_error < 1e-5


def test_the_oracle_depends_on_the_level_alone():
    problem = NonlinearProblem(sde=VP())
    other = NonlinearProblem(sde=VE())
    u = problem.exact_samples(3)
    for level in (0.02, 0.2, 3.0):
        t, s = VP().time_of(time(level)), VE().time_of(time(level))
        torch.testing.assert_close(
            problem.oracle.denoise(VP().alpha(t) * u, t), other.oracle.denoise(u, s), rtol=0, atol=1e-9
        )


def test_every_sample_may_have_its_own_time_and_no_batch_mates():
    for dimension in (1, 2):
        problem = NonlinearProblem(dimension=dimension)
        x, t = problem.exact_samples(4), torch.tensor([0.9, 1e-3, 0.3, 0.01], dtype=torch.float64)
        together = problem.oracle.score(x, t)
        alone = torch.cat([problem.oracle.score(x[i : i + 1], t[i]) for i in range(4)])

        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)
        density = problem.oracle.log_density(x, t)
        torch.testing.assert_close(density[1:2], problem.oracle.log_density(x[1:2], t[1]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("level", [0.05, 0.5])
def test_the_vjp_is_the_covariance_of_x0(level):
    """d x0 / dx = Cov[x_0 | x_t, y] alpha / sigma^2, here against central differences."""
    problem = NonlinearProblem(dimension=2, operator="modulus")
    t = problem.sde.time_of(time(level))
    x, v, h = problem.exact_samples(2), torch.ones(2, 1, 1, 2, dtype=torch.float64), 1e-5
    _, vjp = problem.oracle.denoise_with_vjp(x, t)
    expected = torch.zeros_like(x)
    for i in (0, 1):
        e = torch.zeros_like(x)
        e[..., i] = h
        difference = (problem.oracle.denoise(x + e, t) - problem.oracle.denoise(x - e, t)) / (2 * h)
        expected[..., i] = (difference * v).sum((1, 2, 3))[:, None, None]

    # Central differences: h^2 = 1e-10 and rounding 1e-16 / h = 1e-11, times a third derivative of about 1 / level^2;
    # moving nodes add their ends.
    torch.testing.assert_close(vjp(v), expected, rtol=1e-5, atol=1e-5)


def test_the_sign_tells_gradients_nothing():
    problem = NonlinearProblem(operator="sign")
    y, transpose = problem.measurement.operator.linearize(column(0.7, -0.2))

    assert y.flatten().tolist() == [1.0, -1.0]
    assert not transpose(torch.ones_like(y)).any()


def test_truths_are_of_the_prior_and_noise_has_its_size():
    n = 500
    problems = [NonlinearProblem(draw=i) for i in range(n)]
    x = torch.cat([p.truth.flatten() for p in problems]).numpy()
    residuals = torch.cat([p.measurement.residual(p.truth[None]).flatten() for p in problems]) / 0.2

    def cdf(v):
        return sum(w * scipy.stats.norm.cdf(v, m, s) for w, m, s in components(problems[0]))

    assert scipy.stats.kstest(x, cdf).statistic < 1.95 / math.sqrt(n)
    assert scipy.stats.kstest(residuals.numpy(), "norm").statistic < 1.95 / math.sqrt(n)


def test_a_draw_changes_x_and_y_and_a_seed_the_prior():
    first, second, other = NonlinearProblem(), NonlinearProblem(draw=1), NonlinearProblem(seed=1)

    assert torch.equal(first.prior.normals.mean, second.prior.normals.mean)
    assert not torch.equal(first.truth, second.truth)
    assert not torch.equal(first.measurement.data, second.measurement.data)
    assert not torch.equal(first.prior.normals.mean, other.prior.normals.mean)
    # Equal uniform numbers would put the samples of two posteriors into the same order.
    orders = [p.exact_samples(20).flatten().argsort() for p in (first, second, other)]
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(ValueError, match="dimension=2, or 'abs'"):
        NonlinearProblem(operator="modulus")
    with pytest.raises(ValueError, match="use more noise"):
        NonlinearProblem(dimension=2, noise_std=1e-3)
    assert NonlinearProblem(noise_std=1e-3).quadrature_error < 1e-8


def test_it_has_the_capabilities():
    problem = NonlinearProblem()

    for capability in (HasExactSamples, HasLogEvidence, HasOracle, HasMoments, HasLogPosterior):
        assert isinstance(problem, capability)
    assert isinstance(problem.oracle, HasLogDensity)
