"""Jalal's annealed likelihood: its score is the formula's, and its Langevin chain has the known law of each level."""

import pytest
import torch

from scoreplug import Measurement, registry
from scoreplug.operator import from_function
from scoreplug.protocols import HasLogDensity
from scoreplug.testing import affine_moments

SIGMA_Y, GAMMA, SNR = 0.4, 0.7, 0.3


def problem(sde):
    """Two correlated pixels, one measured: the posterior has a direction of its own."""
    S = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64)
    mu = torch.tensor([0.3, -0.2], dtype=torch.float64)
    A = torch.tensor([[2.0, 0.5]], dtype=torch.float64)
    y = torch.tensor([1.1], dtype=torch.float64)
    prior = registry.get_model("gaussian", image_shape=(1, 1, 2), mean=mu, covariance=S, sde=sde)
    operator = from_function(lambda x: x.flatten(1) @ A.T, (1, 1, 2), linear=True)
    posterior = registry.get_conditioner("jalal", gamma=GAMMA).condition(prior, Measurement(operator, y, SIGMA_Y))
    return posterior, (S, mu, A, y)


@pytest.mark.parametrize("sde", ["vp", "ve", "subvp"])
def test_langevin_moves_have_the_law_of_their_level(sde):
    """In VE coordinates N(Lam^-1 b, Lam^-1) with Lam = (S + level^2)^-1 + A^T A / (sigma_y^2 + gamma_t^2), the
    variance 1/lam of each eigenmode inflated by 1 / (1 - e lam / 2), e being the step: unadjusted Langevin's own
    stationary law."""
    params = {"sigma_max": 2.0} if sde == "ve" else {}  # a start from N(0, 50^2) would take more moves to forget
    both_matter = torch.tensor(0.5, dtype=torch.float64)  # a level between the prior's spread and the data's
    t_min = float(registry.get_sde(sde, **params).time_of(both_matter))
    posterior, (S, mu, A, y) = problem(registry.get_sde(sde, t_min=t_min, **params))
    sampler = registry.get_sampler("langevin", steps=1, moves=150, snr=SNR, final="sample")

    mean, covariance = affine_moments(sampler, posterior)

    t = torch.tensor(t_min, dtype=torch.float64)
    alpha, level = posterior.sde.alpha(t), posterior.sde.level(t)
    variance_y = SIGMA_Y**2 + (GAMMA * torch.linalg.matrix_norm(A, 2) * level) ** 2
    prior_precision = torch.linalg.inv(S + level**2 * torch.eye(2, dtype=torch.float64))
    Lam = prior_precision + A.T @ A / variance_y
    b = prior_precision @ mu + A.T @ y / variance_y
    e = 2 * (SNR * level) ** 2
    lam, Q = torch.linalg.eigh(Lam)
    expected = Q @ torch.diag(1 / lam / (1 - e * lam / 2)) @ Q.T

    left = float((1 - e * lam.min()) ** 150)  # of the start's mean; 2e-3 here
    torch.testing.assert_close(mean / alpha, torch.linalg.solve(Lam, b), rtol=1e-4, atol=left)
    # the operator's norm in gamma_t comes from power iteration, good to 1e-4
    torch.testing.assert_close(covariance / alpha**2, expected, rtol=1e-3, atol=10 * left**2)


@pytest.mark.parametrize("sde", ["vp", "ve", "subvp"])
def test_the_guidance_is_the_likelihood_at_x(sde):
    posterior, (_, _, A, y) = problem(sde)
    t = torch.tensor(0.3, dtype=torch.float64)
    x = torch.tensor([[0.2, 1.0], [-3.0, 0.1]], dtype=torch.float64).reshape(2, 1, 1, 2).requires_grad_()
    alpha, level = posterior.sde.alpha(t), posterior.sde.level(t)

    variance = SIGMA_Y**2 + (GAMMA * torch.linalg.matrix_norm(A, 2) * level) ** 2
    log_likelihood = -((y - x.flatten(1) / alpha @ A.T) ** 2).sum() / (2 * variance)
    (gradient,) = torch.autograd.grad(log_likelihood, x)

    expected = posterior.prior.score(x, t) + gradient
    torch.testing.assert_close(posterior.score(x.detach(), t), expected.detach(), rtol=1e-4, atol=1e-8)


def test_the_log_density_is_the_one_whose_gradient_the_score_is():
    """And comes with the score from one call."""
    posterior, _ = problem("vp")
    t, x = torch.tensor(0.3, dtype=torch.float64), torch.tensor([[[[0.2, 1.0]]]], dtype=torch.float64).requires_grad_()

    log_density = posterior.log_density(x, t)

    (gradient,) = torch.autograd.grad(log_density.sum(), x)
    score, together = posterior.score_and_log_density(x.detach(), t)
    torch.testing.assert_close(score, gradient, rtol=1e-12, atol=0)  # the same formula, to rounding
    torch.testing.assert_close(posterior.score(x.detach(), t), score, rtol=1e-12, atol=0)
    torch.testing.assert_close(together, log_density.detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("sde", ["vp", "ve", "subvp"])
def test_the_implicit_form_is_the_codes_update(sde):
    """The code adds e (s - mse g |s| / |g|) with g = A^T (A x - y) at x/alpha; in x itself the score is s / alpha."""
    ratio = 5.0
    _, (S, mu, A, y) = problem(sde)
    prior = registry.get_model("gaussian", image_shape=(1, 1, 2), mean=mu, covariance=S, sde=sde)
    operator = from_function(lambda x: x.flatten(1) @ A.T, (1, 1, 2), linear=True)
    posterior = registry.get_conditioner("jalal", form="implicit", ratio=ratio).condition(
        prior, Measurement(operator, y, SIGMA_Y)
    )
    t = torch.tensor(0.3, dtype=torch.float64)
    x = torch.tensor([[0.2, 1.0], [-3.0, 0.1]], dtype=torch.float64)

    alpha = prior.sde.alpha(t)
    s = alpha * prior.score(x.reshape(2, 1, 1, 2), t).flatten(1)  # the score of x/alpha
    expected = torch.empty_like(s)
    for i in range(2):
        g = A.T @ (A @ (x[i] / alpha) - y)
        expected[i] = (s[i] - ratio * g * s[i].norm() / g.norm()) / alpha

    found = posterior.score(x.reshape(2, 1, 1, 2), t).flatten(1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert not isinstance(posterior, HasLogDensity)  # it is no potential's gradient


def test_the_implicit_form_survives_an_exact_fit():
    """0/0 in the authors' code; here an exact fit pulls nowhere."""
    prior = registry.get_model("gaussian", image_shape=(1, 1, 2), sde="ve")
    operator = registry.get_operator("identity", image_shape=(1, 1, 2))
    y, t = torch.ones(1, 1, 2, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    posterior = registry.get_conditioner("jalal", form="implicit").condition(prior, Measurement(operator, y, 0.0))

    assert torch.equal(posterior.score(y[None], t), prior.score(y[None], t))


def test_a_nonlinear_operator_is_pulled_by_its_jacobian():
    prior = registry.get_model("gaussian", image_shape=(1, 1, 2), sde="ve")
    squared = from_function(lambda x: x**2, (1, 1, 2))
    y = torch.tensor([[[0.5, 2.0]]], dtype=torch.float64)
    posterior = registry.get_conditioner("jalal", gamma=0.5).condition(prior, Measurement(squared, y, 0.1))
    t, x = torch.tensor(0.3, dtype=torch.float64), torch.tensor([[[[0.3, -1.0]]]], dtype=torch.float64)

    variance = 0.1**2 + (0.5 * prior.sde.level(t)) ** 2
    expected = prior.score(x, t) + 2 * x * (y - x**2) / variance
    torch.testing.assert_close(posterior.score(x, t), expected, rtol=1e-12, atol=0)


def test_it_refuses_a_division_by_zero():
    prior = registry.get_model("gaussian", image_shape=(1, 1, 2))
    data = torch.ones(1, 1, 2, dtype=torch.float64)
    linear = from_function(lambda x: 2 * x, (1, 1, 2), linear=True)

    with pytest.raises(ValueError, match="gamma and noise_std cannot both be 0"):
        registry.get_conditioner("jalal", gamma=0.0).condition(prior, Measurement(linear, data, 0.0))
