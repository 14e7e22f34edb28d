"""The Gaussian problem: every closed form agrees with an independent one, and Bayes' theorem ties them together."""

import math

import pytest
import torch

from scoreplug.protocols import HasExactSamples, HasLogEvidence, HasLogPosterior, HasMoments, HasOracle
from scoreplug_builtin.problems.gaussian import GaussianProblem
from scoreplug_builtin.sdes.ve import VE
from scoreplug_builtin.sdes.vp import VP

PROBLEMS = {
    "random": {},
    "denoising": {"measured": None, "size": 9},
    "power law": {"covariance": "power-law", "correlation": 3.0, "size": 12},
    "image": {"domain": "image", "size": 4, "measured": 6},
    "image, power law": {"domain": "image", "size": 4, "covariance": "power-law", "measured": None},
    "little noise": {"noise_std": 1e-3},
}


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return GaussianProblem(**PROBLEMS[request.param])


def eye(n):
    return torch.eye(n, dtype=torch.float64)


def matrix(problem):
    """A, read off the operator."""
    n = math.prod(problem.prior.shape)
    return problem.measurement.operator(eye(n).reshape(n, *problem.prior.shape)).flatten(1).T


def prior_moments(problem):
    return problem.prior.normals.mean[0], torch.as_tensor(problem.prior.covariance)


def normal(mean, covariance):
    return torch.distributions.MultivariateNormal(mean, covariance)


def test_the_moments_are_those_of_the_gain_form(problem):
    A, (m, S) = matrix(problem), prior_moments(problem)
    y, noise = problem.measurement.data.flatten(), problem.noise_std**2
    K = S @ A.T @ torch.linalg.inv(A @ S @ A.T + noise * eye(len(A)))
    mean, covariance = problem.moments

    # The gain form subtracts two matrices of size 1; with noise_std = 1e-3 the inverse adds a condition of 1e6: 1e-9.
    torch.testing.assert_close(mean, m + K @ (y - A @ m), rtol=0, atol=1e-9)
    torch.testing.assert_close(covariance, S - K @ A @ S, rtol=0, atol=1e-9)


def test_the_evidence_is_the_density_of_y(problem):
    A, (m, S) = matrix(problem), prior_moments(problem)
    law = normal(A @ m, A @ S @ A.T + problem.noise_std**2 * eye(len(A)))

    assert problem.log_evidence == pytest.approx(float(law.log_prob(problem.measurement.data.flatten())), abs=1e-7)


def test_the_log_posterior_is_normalised_and_that_of_the_moments(problem):
    mean, covariance = problem.moments
    x = problem.exact_samples(5, seed=3)
    expected = normal(mean, covariance).log_prob(x.flatten(1))

    # Two routes to one number: prior plus likelihood minus evidence, and the posterior's own density.
    torch.testing.assert_close(problem.log_posterior(x), expected, rtol=0, atol=1e-6)


def test_the_log_posterior_does_not_depend_on_x_in_anything_but_bayes_theorem():
    """p(x | y) p(y) = p(y | x) p(x) for two data of one problem: the same x, another draw of y."""
    first, second = GaussianProblem(), GaussianProblem(draw=1)
    x = first.exact_samples(2, seed=1)

    def log_likelihood(problem):
        A, y = matrix(problem), problem.measurement.data
        return normal(x.flatten(1) @ A.T, problem.noise_std**2 * eye(len(A))).log_prob(y)

    difference = first.log_posterior(x) - second.log_posterior(x)
    expected = log_likelihood(first) - first.log_evidence - log_likelihood(second) + second.log_evidence
    torch.testing.assert_close(difference, expected.double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("sde", [VP(), VE()], ids=["vp", "ve"])
def test_the_oracle_is_the_prior_plus_the_gradient_of_the_likelihood_of_x_t(sde):
    """s(x | y) = s(x) + grad log N(y; A x0, sigma_y^2 I + A C_t A^T), x0 and C_t those of the prior."""
    problem = GaussianProblem(sde=sde)
    A, (_, S) = matrix(problem), prior_moments(problem)
    y, identity = problem.measurement.data, eye(len(S))
    for t in torch.tensor([0.05, 0.4, 0.9], dtype=torch.float64):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        x = (problem.exact_samples(3) * alpha + sigma).requires_grad_()
        C = sigma**2 * S @ torch.linalg.inv(alpha**2 * S + sigma**2 * identity)
        law = normal(problem.prior.denoise(x, t).flatten(1) @ A.T, problem.noise_std**2 * eye(len(A)) + A @ C @ A.T)
        (gradient,) = torch.autograd.grad(law.log_prob(y).sum(), x)
        x = x.detach()

        expected = problem.prior.score(x, t) + gradient
        torch.testing.assert_close(problem.oracle.score(x, t), expected, rtol=1e-8, atol=1e-9)


def test_at_the_smallest_level_the_oracle_is_the_score_of_the_posterior():
    problem = GaussianProblem(noise_std=0.5, nugget=0.1, sde=VE(sigma_min=1e-4))
    x = problem.exact_samples(3).requires_grad_()
    (gradient,) = torch.autograd.grad(problem.log_posterior(x).sum(), x)

    # P^{-1} - (P + s^2)^{-1} is s^2 P^{-2}: 1e-8 over the smallest eigenvalue, about the nugget, .1 at the least.
    t = torch.tensor(0.0, dtype=torch.float64)
    torch.testing.assert_close(problem.oracle.score(x.detach(), t), gradient, rtol=1e-6, atol=1e-6)


def test_exact_samples_have_the_moments():
    problem, n = GaussianProblem(size=5, measured=2), 20_000
    x = problem.exact_samples(n).flatten(1)
    mean, covariance = problem.moments
    whitened = (x - mean) @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T

    # Whitened, an entry of the mean has the error 1/sqrt(n), one of the covariance up to sqrt(2/n). Thirty entries at
    # four standard errors fail once in 500 seeds.
    assert whitened.mean(0).abs().max() < 4 / math.sqrt(n)
    assert (whitened.T.cov() - eye(5)).abs().max() < 4 * math.sqrt(2 / n)


def test_the_first_exact_samples_are_the_same_whatever_their_number():
    problem = GaussianProblem()

    # Rounding: a matrix product of another size may add in another order.
    torch.testing.assert_close(problem.exact_samples(7)[:3], problem.exact_samples(3), rtol=0, atol=1e-13)
    assert not torch.equal(problem.exact_samples(3), problem.exact_samples(3, seed=1))


def test_the_truths_of_many_draws_are_of_the_prior_and_the_noise_has_its_size():
    n, size = 500, 3
    problems = [GaussianProblem(size=size, measured=1, draw=i) for i in range(n)]
    truths = torch.stack([p.truth.flatten() for p in problems])
    residuals = torch.stack([p.measurement.residual(p.truth[None]).flatten() for p in problems])
    m, S = prior_moments(problems[0])
    whitened = (truths - m) @ torch.linalg.inv(torch.linalg.cholesky(S)).T

    assert whitened.mean(0).abs().max() < 4 / math.sqrt(n)
    assert (whitened.T.cov() - eye(size)).abs().max() < 4 * math.sqrt(2 / n)
    assert abs(float(residuals.std()) / 0.1 - 1) < 4 / math.sqrt(2 * n)
    assert abs(float((residuals * whitened).mean())) < 4 * 0.1 / math.sqrt(n)  # independent of the truth


def test_a_draw_changes_x_and_y_and_a_seed_the_operator():
    first, second, other = GaussianProblem(), GaussianProblem(draw=1), GaussianProblem(seed=1)

    assert torch.equal(matrix(first), matrix(second))
    assert not torch.equal(first.truth, second.truth)
    assert not torch.equal(first.measurement.data, second.measurement.data)
    assert not torch.equal(matrix(first), matrix(other))
    # Samples of two draws are not one sample, shifted: or calibration over draws would see one sample over and over.
    shifted = [p.exact_samples(1) - p.moments[0] for p in (first, second)]
    assert not torch.allclose(*shifted, rtol=0, atol=1e-3)


def test_the_singular_values_are_between_0_and_1():
    s = torch.linalg.svdvals(matrix(GaussianProblem(size=20, measured=20)))

    # The mean of 20 uniform numbers is .5 with the standard deviation .065.
    assert 0 < s.min() < s.max() < 1
    assert abs(float(s.mean()) - 0.5) < 0.2


def test_power_law_is_stationary_with_the_spectrum_it_says():
    problem = GaussianProblem(covariance="power-law", size=32, correlation=4.0, nugget=1e-9, std=2.0)
    S = torch.as_tensor(problem.prior.covariance)
    spectrum = torch.fft.fft(S[0]).real

    torch.testing.assert_close(S.diagonal(), torch.full((32,), 4.0, dtype=torch.float64))
    assert float(spectrum[2] / spectrum[8]) == pytest.approx(
        (1 + (2 * math.pi * 4 * 8 / 32) ** 2) / (1 + (2 * math.pi * 4 * 2 / 32) ** 2), rel=1e-6
    )


def test_squared_exponential_falls_as_it_says():
    problem = GaussianProblem(domain="image", size=4, correlation=1.5, nugget=0.01, std=2.0)
    S = torch.as_tensor(problem.prior.covariance)

    assert float(S[0, 0]) == pytest.approx(4.0)
    assert float(S[0, 4 * 2 + 1]) == pytest.approx(4 * 0.99 * math.exp(-(2**2 + 1**2) / (2 * 1.5**2)))


def test_more_measurements_than_pixels_are_refused():
    with pytest.raises(ValueError, match="at most the 4 pixels"):
        GaussianProblem(size=4, measured=5)


def test_it_has_the_capabilities():
    problem = GaussianProblem()

    for capability in (HasExactSamples, HasLogEvidence, HasOracle, HasMoments, HasLogPosterior):
        assert isinstance(problem, capability)
