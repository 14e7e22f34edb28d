"""Levy processes: the Gibbs sampler draws from the posterior, and the prior's score is right to its stated error."""

import math

import attrs
import numpy as np
import pytest
import scipy.stats
import torch

from scoreplug import Noise
from scoreplug.protocols import HasExactSamples, HasLogEvidence, HasLogPosterior, HasMoments, HasOracle, HasSpread
from scoreplug_builtin.models.gaussian import Gaussian
from scoreplug_builtin.problems.levy import Increments, LevyProblem
from scoreplug_builtin.sdes.ve import VE
from scoreplug_builtin.sdes.vp import VP

TASKS = ["denoising", "deconvolution", "masking", "fourier"]
HEAVY = ["laplace", "student"]
CPU = torch.device("cpu")


def time(value):
    return torch.tensor(value, dtype=torch.float64)


def noise(n, label="test"):
    return Noise(0, range(n), dtype=torch.float64, device=CPU).at(label)


def law(name):
    return Increments(name=name, scale=0.5, degrees=3)


def matrix(problem):
    n = problem.size
    return problem.measurement.operator(torch.eye(n, dtype=torch.float64).reshape(n, 1, 1, n)).flatten(1).T


def density(problem, u):
    """p(u) of one increment, by SciPy."""
    return {
        "gaussian": scipy.stats.norm(scale=problem.scale),
        "laplace": scipy.stats.laplace(scale=problem.scale),
        "student": scipy.stats.t(problem.degrees, scale=problem.scale),
    }[problem.increments].pdf(u)


def covariance(size, variance):
    i = torch.arange(1, size + 1, dtype=torch.float64)
    return variance * torch.minimum(i[:, None], i)


@pytest.mark.parametrize("name", ["gaussian", *HEAVY])
def test_a_normal_of_random_variance_has_the_law(name):
    n = 4000
    u = law(name).variances(1, noise(n, "v")).sqrt() * noise(n, "z").normal((1,))
    expected = {
        "gaussian": scipy.stats.norm(scale=0.5),
        "laplace": scipy.stats.laplace(scale=0.5),
        "student": scipy.stats.t(3, scale=0.5),
    }[name]

    # Kolmogorov's distance is below 1.95 / sqrt(n) with probability 0.999.
    assert scipy.stats.kstest(u.flatten().numpy(), expected.cdf).statistic < 1.95 / math.sqrt(n)
    grid = torch.linspace(-3, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(law(name).log_density(grid), torch.from_numpy(expected.logpdf(grid.numpy())))
    assert law(name).variance == pytest.approx(float(expected.var()))


@pytest.mark.parametrize("value", [0.0, 1e-3, 0.4, 5.0])
@pytest.mark.parametrize("name", HEAVY)
def test_the_variance_given_the_increment_has_its_law(name, value):
    n = 4000
    u, numbers = torch.full((n, 1), value, dtype=torch.float64), law(name).normals
    normal, uniform = noise(n, "z").normal((numbers, 1)), noise(n, "u").uniform((1,))
    v = law(name).variances_given(u, normal, uniform).flatten().numpy()
    grid = np.geomspace(1e-14, 1e4, 200_001)
    with np.errstate(under="ignore"):
        prior = {
            "laplace": scipy.stats.expon(scale=2 * 0.5**2).pdf(grid),
            "student": scipy.stats.invgamma(1.5, scale=1.5 * 0.5**2).pdf(grid),
        }[name]
        masses = prior * np.exp(-(value**2) / (2 * grid)) / np.sqrt(grid) * grid  # d v = v d log v
    cdf = masses.cumsum() / masses.sum()

    # Bayes' theorem p(v | u) ~ p(v) N(u; 0, v), on a grid that knows nothing of inverse Gaussians.
    assert scipy.stats.kstest(v, lambda q: np.interp(q, grid, cdf)).statistic < 1.95 / math.sqrt(n)


@pytest.mark.parametrize("task", TASKS)
def test_with_gaussian_increments_the_samples_have_the_moments_in_closed_form(task):
    problem, n = LevyProblem(size=8, increments="gaussian", task=task, burn_in=1), 4000
    A, S = matrix(problem), covariance(8, 0.25)
    G = S @ A.T @ torch.linalg.inv(A @ S @ A.T + problem.noise_std**2 * torch.eye(len(A), dtype=torch.float64))
    mean, posterior = G @ problem.measurement.data.flatten(), S - G @ A @ S
    whitened = (problem.exact_samples(n).flatten(1) - mean) @ torch.linalg.inv(torch.linalg.cholesky(posterior)).T

    # A mean has the error 1/sqrt(n), a covariance at most sqrt(2/n); 44 numbers at 4.5 of it.
    assert whitened.mean(0).abs().max() < 4.5 / math.sqrt(n)
    assert (whitened.T.cov() - torch.eye(8, dtype=torch.float64)).abs().max() < 4.5 * math.sqrt(2 / n)


@pytest.mark.parametrize("name", HEAVY)
def test_one_increment_has_the_posterior_of_a_quadrature(name):
    problem, n = LevyProblem(size=1, increments=name, task="denoising", noise_std=0.7, draw=2), 2000
    x = np.linspace(-8, 8, 40_001)
    y = float(problem.measurement.data)
    cdf = (density(problem, x) * np.exp(-((y - x) ** 2) / (2 * 0.7**2))).cumsum()

    assert scipy.stats.kstest(
        problem.exact_samples(n).flatten(), lambda v: np.interp(v, x, cdf / cdf[-1])
    ).statistic < (1.95 / math.sqrt(n))


@pytest.mark.parametrize("task", ["deconvolution", "masking"])
@pytest.mark.parametrize("name", HEAVY)
def test_two_pixels_have_the_posterior_of_a_quadrature(name, task):
    problem, n = LevyProblem(size=2, increments=name, task=task, noise_std=0.5), 2000
    axis = np.linspace(-10, 10, 801)
    first, second = np.meshgrid(axis, axis, indexing="ij")
    grid = np.stack([first.ravel(), second.ravel()], axis=1)
    r = problem.measurement.data.flatten().numpy() - grid @ matrix(problem).T.numpy()
    p = density(problem, grid[:, 0]) * density(problem, grid[:, 1] - grid[:, 0]) * np.exp(-(r**2).sum(1) / (2 * 0.5**2))
    p /= p.sum()
    x = problem.exact_samples(n).flatten(1).numpy()

    # Bounded statistics, since Student's law of three degrees has no fourth moment: |E f| errs by at most 1/sqrt(n).
    for direction in ([1, 0], [0, 1], [-1, 1], [1, 1]):
        for f in (np.tanh, np.cos):
            found, expected = f(x @ direction).mean(), p @ f(grid @ direction)
            assert abs(found - expected) < 4 / math.sqrt(n)

    log_p = problem.log_posterior(torch.from_numpy(grid[::5000]).reshape(-1, 1, 1, 2)).numpy()
    kept = p[::5000] > 1e-250
    shift = (log_p - np.log(np.maximum(p[::5000], 1e-300)))[kept]
    assert np.ptp(shift) < 1e-9  # the same function up to a constant


@pytest.mark.parametrize(("name", "task"), [("laplace", "deconvolution"), ("student", "fourier")])
def test_the_truth_is_one_more_sample_of_its_posterior(name, task):
    """Over many pairs (x, y) the rank of the truth among its posterior samples is uniform."""
    draws, samples = 120, 15
    ranks = []
    for draw in range(draws):
        problem = LevyProblem(size=6, increments=name, task=task, draw=draw, burn_in=20)
        x = torch.cat([problem.truth[None], problem.exact_samples(samples)])
        for f in (x.flatten(1)[:, 2], x.flatten(1).abs().amax(1), problem.log_posterior(x)):
            ranks.append(int((f[1:] < f[0]).sum()))

    for k in range(3):
        quarter = np.bincount(np.array(ranks)[k::3] // 4, minlength=4)
        # chi^2 of three degrees of freedom is below 16.3 with probability 0.999.
        assert ((quarter - draws / 4) ** 2 / (draws / 4)).sum() < 16.3


@pytest.mark.parametrize("sde", [VP(), VE()], ids=["vp", "ve"])
def test_with_gaussian_increments_the_prior_is_the_gaussian_model(sde):
    problem = LevyProblem(size=7, increments="gaussian", sde=sde)
    model = Gaussian(image_shape=(1, 1, 7), covariance=covariance(7, 0.25), sde=sde)
    x = noise(3).normal((1, 1, 7))
    for level in (0.02, 0.5, 10.0):
        t = sde.time_of(time(level))

        # The conditioning of S + l^2 I is at most 12 / 4e-4, so that 1e-11 is met with room.
        torch.testing.assert_close(problem.prior.score(x, t), model.score(x, t), rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(problem.prior.denoise(x, t), model.denoise(x, t), rtol=1e-9, atol=1e-10)
        (x0, vjp), (expected, reference) = problem.prior.denoise_with_vjp(x, t), model.denoise_with_vjp(x, t)
        torch.testing.assert_close(x0, expected, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(vjp(x.flip(0)), reference(x.flip(0)), rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(problem.prior.spread(t), model.spread(t))


@pytest.mark.parametrize("level", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("name", HEAVY)
def test_for_one_increment_the_denoiser_is_that_of_a_quadrature(name, level):
    sweeps = 4000
    problem = LevyProblem(size=1, increments=name, sweeps=sweeps)
    y = torch.tensor([-2.5, 0.1, 1.2], dtype=torch.float64)
    t = problem.sde.time_of(time(level))
    x0, vjp = problem.prior.denoise_with_vjp(problem.sde.alpha(t) * y.reshape(3, 1, 1, 1), t)
    grid = np.linspace(-60, 60, 600_001)
    for i in range(3):
        p = density(problem, grid) * np.exp(-((float(y[i]) - grid) ** 2) / (2 * level**2))
        p /= p.sum()
        mean = p @ grid
        variance = p @ (grid - mean) ** 2

        # What is averaged has no more variance than x_0 itself; its autocorrelation time is below 10 sweeps.
        error = math.sqrt(10 * variance / sweeps)
        assert abs(float(x0[i]) - mean) < 3 * error
        # The Jacobian is a variance, which errs by sqrt(kurtosis / n) of itself: with a kurtosis of at most 25 and 400
        # independent sweeps by a quarter.
        jacobian = float(vjp(torch.ones_like(x0))[i]) * float(problem.sde.alpha(t))
        assert jacobian == pytest.approx(variance / level**2, rel=0.25)


@pytest.mark.parametrize("name", HEAVY)
def test_more_sweeps_come_closer(name):
    """The error's root mean square falls as one over the root of the sweeps, here by four from 50 to 800."""
    problem = LevyProblem(size=8, increments=name)
    t = problem.sde.time_of(time(0.7))
    x = torch.stack([attrs.evolve(problem, draw=i).truth for i in range(6)]) * problem.sde.alpha(t)
    few, many, reference = (attrs.evolve(problem, sweeps=k).prior.denoise(x, t) for k in (50, 800, 6400))

    # The two errors are single numbers of a Monte Carlo: a factor of two on the ratio of four.
    ratio = float((few - reference).norm() / (many - reference).norm())
    assert 2 < ratio < 8
    assert float((many - reference).square().mean().sqrt()) < 0.03 * 0.7


def test_the_denoiser_is_a_function_of_its_argument_without_batch_mates():
    prior = LevyProblem(size=5, sweeps=20).prior
    x, t = noise(3).normal((1, 1, 5)), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    together = prior.denoise(x, t)

    assert torch.equal(together, prior.denoise(x, t))
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], prior.denoise(x[i : i + 1], t[i]), rtol=1e-9, atol=1e-11)
    alpha, sigma = (c.reshape(-1, 1, 1, 1) for c in (prior.sde.alpha(t), prior.sde.sigma(t)))
    torch.testing.assert_close((x + sigma**2 * prior.score(x, t)) / alpha, together, rtol=1e-9, atol=1e-11)


def test_the_first_samples_are_the_same_whatever_their_number():
    problem = LevyProblem(size=6, burn_in=5)

    torch.testing.assert_close(problem.exact_samples(300)[:3], problem.exact_samples(3), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        problem.exact_samples(300)[297:299], problem.exact_samples(299)[297:], rtol=0, atol=1e-10
    )
    assert not torch.equal(problem.exact_samples(3), problem.exact_samples(3, seed=1))


def test_the_log_posterior_has_the_gradient_of_its_parts():
    problem = LevyProblem(size=4, increments="student", task="masking")
    x = noise(2).normal((1, 1, 4)).requires_grad_()
    (gradient,) = torch.autograd.grad(problem.log_posterior(x).sum(), x)

    k, s = 3, 0.5
    flat = x.detach().flatten(1)
    u = flat.diff(dim=1, prepend=torch.zeros(2, 1, dtype=torch.float64))
    slope = -(k + 1) * u / (k * s**2 + u**2)
    expected = slope - torch.cat([slope[:, 1:], torch.zeros(2, 1, dtype=torch.float64)], dim=1)
    r = problem.measurement.residual(x.detach())
    expected = expected + problem.measurement.operator.adjoint(r).flatten(1) / problem.noise_std**2
    torch.testing.assert_close(gradient.flatten(1), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("task", TASKS)
def test_a_draw_changes_x_and_y_and_a_seed_the_mask(task):
    first, second, other = (LevyProblem(size=12, task=task, **k) for k in ({}, {"draw": 1}, {"seed": 1}))

    assert torch.equal(matrix(first), matrix(second))
    assert not torch.equal(first.truth, second.truth)
    assert not torch.equal(first.truth, other.truth)
    if task in ("masking", "fourier"):
        assert not torch.equal(matrix(first), matrix(other))


def test_samples_of_two_draws_share_no_noise():
    """With Gaussian increments equal noise would make the one a shifted copy of the other."""
    first, second = (LevyProblem(size=4, increments="gaussian", task="denoising", draw=i, burn_in=1) for i in (0, 1))

    assert (first.exact_samples(20) - second.exact_samples(20)).std(0).min() > 0.05


def test_degrees_without_a_variance_are_refused():
    with pytest.raises(ValueError, match="degrees must be >= 3"):
        LevyProblem(increments="student", degrees=2)


def test_it_claims_what_it_knows_and_no_more():
    problem = LevyProblem(size=3)

    for capability in (HasExactSamples, HasLogPosterior):
        assert isinstance(problem, capability)
    for capability in (HasLogEvidence, HasMoments, HasOracle):
        assert not isinstance(problem, capability)
    assert isinstance(problem.prior, HasSpread)
