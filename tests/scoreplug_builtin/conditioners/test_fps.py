"""The normal twist of x_t: its product with a transition, and what it is exact for."""

import math

import pytest
import torch

from scoreplug import Noise, registry, simulate
from scoreplug.operator import from_function
from scoreplug.testing import BatchNoise
from scoreplug_builtin.conditioners.fps import FPS

SHAPE, SIGMA_Y = (1, 1, 3), 0.3
M = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -0.3]]).double()


def prior(sde="vp", covariance=1.7):
    return registry.get_model("gaussian", image_shape=SHAPE, mean=0.4, covariance=covariance, sde=sde)


def measurement(sigma_y=SIGMA_Y):
    operator = registry.get_operator("matrix", image_shape=SHAPE, matrix=M)
    return simulate(operator, torch.tensor([0.3, -0.2, 0.8]).double().reshape(SHAPE), sigma_y)


def noise(n, *labels):
    return BatchNoise(0, range(n), dtype=torch.float64, device=torch.device("cpu")).at(*labels)


@pytest.mark.parametrize("params", [{}, {"kappa": 0.3}, {"kappa": 0.0, "path": "drawn"}], ids=str)
@pytest.mark.parametrize("sde", ["vp", "ve"])
def test_the_proposal_is_the_product_of_transition_and_twist(sde, params):
    """Log Z by the product's density at one point; the draws by the product's moments."""
    model = FPS(**params).condition(prior(sde), measurement())
    s, c, n = torch.tensor(0.3).double(), torch.tensor(0.4).double(), 40_000
    alpha = float(model.sde.alpha(s))
    m = torch.tensor([0.5, -0.1, 0.2]).double().reshape(SHAPE)

    x, log_z = model.propose(m.expand(n, *SHAPE), c, s, noise(n, "propose"))

    # psi is normal in x: read its precision and shift off its log, which is quadratic
    H = -torch.autograd.functional.hessian(
        lambda v: model.twist(v.reshape(1, *SHAPE), s).log[0], torch.zeros(3).double()
    )
    g = model.twist(torch.zeros(1, *SHAPE).double(), s).gradient.flatten()
    covariance = torch.linalg.inv(torch.eye(3).double() / c**2 + H)
    mean = covariance @ (m.flatten() / c**2 + g)
    error = 5 * (covariance.diagonal() / n).sqrt()
    assert ((x.flatten(1).mean(0) - mean).abs() <= error).all()
    assert float((x.flatten(1).T.cov() - covariance).abs().max()) <= 5 * math.sqrt(2 / n) * float(covariance.max())

    at = torch.tensor([[0.1, 0.2, -0.3]]).double()  # N(x; m, c^2) psi(x) = Z N(x; mean, covariance), at any x
    transition = torch.distributions.Normal(m.flatten(), c).log_prob(at).sum(1)
    product = torch.distributions.MultivariateNormal(mean, covariance).log_prob(at)
    expected = transition + model.twist(at.reshape(1, *SHAPE), s).log - product
    assert float(log_z[0]) == pytest.approx(float(expected), abs=1e-9)
    assert alpha > 0


def test_the_gradient_is_that_of_the_log():
    model, t = FPS(kappa=0.5).condition(prior(), measurement()), torch.tensor(0.4).double()
    x = noise(4, "x").normal(SHAPE).requires_grad_()
    twist = model.twist(x, t)
    torch.testing.assert_close(torch.autograd.grad(twist.log.sum(), x)[0], twist.gradient.detach())
    torch.testing.assert_close(
        model.score(x, t).detach(), (model.prior.score(x, t) + twist.gradient).detach(), rtol=1e-9, atol=1e-9
    )


def test_for_a_nearly_flat_prior_the_twist_is_p_of_y_given_x_t():
    """With the prior variance S the error is of the order of level^2 / S."""
    flat, t = prior(covariance=1e9), torch.tensor(0.4).double()
    model, exact = FPS().condition(flat, measurement()), registry.get_conditioner("mmps").condition(flat, measurement())
    x = noise(4, "x").normal(SHAPE)
    torch.testing.assert_close(model.twist(x, t).log, exact.twist(x, t).log, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("params", [{}, {"kappa": 0.2}, {"kappa": 0.5, "path": "drawn", "seed": 3}], ids=str)
def test_particles_reach_the_posterior(params):
    model = FPS(**params).condition(prior("ve", 1.0), measurement())
    n = 20_000
    smc = registry.get_sampler("smc", steps=60, rho=7.0)
    *_, state = smc.trajectory(model, noise(n, "run"))
    x = state.x.flatten(1)

    V = chain_variance(smc, model.prior)  # ddpm's kernel, without the network's derivative, ends a little too narrow
    gain = V * M.T @ torch.linalg.inv(V * M @ M.T + SIGMA_Y**2 * torch.eye(2).double())
    mean = 0.4 + gain @ (measurement().data - M @ torch.full((3,), 0.4).double())
    covariance = V * (torch.eye(3).double() - gain @ M)
    effective = n * state.carry.effective / 10  # every resampling loses some, and siblings are alike for a while
    assert ((x.mean(0) - mean).abs() <= 5 * (covariance.diagonal() / effective).sqrt()).all()
    assert float((x.T.cov() - covariance).abs().max()) <= 5 * math.sqrt(2 / effective) * float(covariance.max())
    assert state.carry.twist.vjp is None


def chain_variance(sampler, model):
    times = sampler.times(model.sde)
    levels = (model.sde.sigma(times) / model.sde.alpha(times)).tolist()
    V = levels[0] ** 2
    for i in range(len(levels) - 1):
        t, s = levels[i], levels[i + 1]
        rho2, J = (s / t) ** 2, 1 / (1 + t**2)
        V = (rho2 + (1 - rho2) * J) ** 2 * V + s**2 * (1 - rho2)
    return V / (1 + levels[-1] ** 2) ** 2


def test_what_it_cannot_do_it_refuses():
    with pytest.raises(ValueError, match="noise_std must be > 0"):
        FPS().condition(prior(), measurement(0.0))
    nonlinear = simulate(from_function(lambda x: x**2, SHAPE), torch.zeros(SHAPE).double(), 0.1)
    with pytest.raises(TypeError, match="needs a linear operator"):
        FPS().condition(prior(), nonlinear)
    big = from_function(lambda x: x.flatten(1) * 2, (1, 20, 20), linear=True)
    model = FPS().condition(
        registry.get_model("gaussian", image_shape=(1, 20, 20)), simulate(big, torch.zeros(1, 20, 20).double(), 0.1)
    )
    with pytest.raises(TypeError, match="determinant of A A"):
        model.twist(torch.zeros(1, 1, 20, 20).double(), torch.tensor(0.5))


def test_the_drawn_path_is_one_for_all_samples_and_levels():
    model = FPS(path="drawn", seed=5).condition(prior(), measurement())
    w = Noise(5, (0,), dtype=torch.float64, device=torch.device("cpu")).at("fps").normal(SHAPE)
    torch.testing.assert_close(model.drawn, w.flatten(1) @ M.T)
