"""Moment matching: exact for Gaussian priors, at every level and under every process."""

import attrs
import pytest
import torch

from scoreplug import Noise, registry, simulate
from scoreplug.model import WrappedModel
from scoreplug.operator import from_function
from scoreplug_builtin.conditioners.mmps import MMPS

SHAPE, SIGMA_Y = (1, 1, 5), 0.3
M = torch.tensor([[1.0, 0.5, 0.0, 0.2, -1.0], [0.0, 1.0, -0.3, 0.0, 0.4], [2.0, 0.0, 1.0, 1.0, 0.0]]).double()
PLACE = torch.arange(5.0).double()
S = 0.9 * (-(PLACE[:, None] - PLACE).abs() / 2).exp()
MU = 0.4 * torch.sin(PLACE)


def noise(*labels, n=6):
    return Noise(0, range(n), dtype=torch.float64, device=torch.device("cpu")).at(*labels)


def gaussian(sde, mean=MU, covariance=S):
    return registry.get_model("gaussian", image_shape=SHAPE, mean=mean, covariance=covariance, sde=sde)


def measurement(sigma_y=SIGMA_Y):
    operator = registry.get_operator("matrix", image_shape=SHAPE, matrix=M)
    return simulate(operator, torch.tensor([0.3, -0.2, 0.8, 0.1, 0.5]).double().reshape(SHAPE), sigma_y)


def exact(sde):
    """The posterior N(m_y, S_y) as a model of its own."""
    y = measurement().data
    K = S @ M.T @ torch.linalg.inv(M @ S @ M.T + SIGMA_Y**2 * torch.eye(3).double())
    return gaussian(sde, MU + K @ (y - M @ MU), S - K @ M @ S)


@pytest.mark.parametrize("params", [{}, {"dense": 0, "tolerance": 1e-12}], ids=["matrix", "conjugate-gradients"])
@pytest.mark.parametrize("sde", [spec.name for spec in registry.list("sde")])
def test_the_score_of_a_gaussians_posterior_is_exact(sde, params):
    prior = gaussian(sde)
    model, truth = MMPS(**params).condition(prior, measurement()), exact(sde)
    for t in (0.9, 0.5, 0.1):
        t = torch.tensor(t).double()
        x = prior.sde.alpha(t) * 0.5 + prior.sde.sigma(t) * noise("x").normal(SHAPE)
        # the solves have a condition of 100, and the levels go up to 150
        torch.testing.assert_close(model.denoise(x, t), truth.denoise(x, t), rtol=1e-8, atol=1e-8)
        scale = float(truth.score(x, t).abs().max())
        torch.testing.assert_close(model.score(x, t), truth.score(x, t), rtol=1e-8, atol=1e-8 * scale)


@pytest.mark.parametrize("sde", ["vp", "ve", "flow"])
def test_the_twist_of_a_gaussian_is_p_of_y_given_x_t(sde):
    """Bayes: log p(y | x_t) = log p_t(x | y) - log p_t(x) + log p(y), and its gradient is the guidance."""
    prior, data = gaussian(sde), measurement()
    model, truth = MMPS().condition(prior, data), exact(sde)
    t = torch.tensor(0.4).double()
    x = prior.sde.alpha(t) * 0.5 + prior.sde.sigma(t) * noise("x").normal(SHAPE)

    twist = model.twist(x, t)

    covariance = M @ S @ M.T + SIGMA_Y**2 * torch.eye(3).double()
    evidence = torch.distributions.MultivariateNormal(M @ MU, covariance).log_prob(data.data)
    expected = truth.log_density(x, t) - prior.log_density(x, t) + evidence
    torch.testing.assert_close(twist.log, expected, rtol=1e-8, atol=1e-8)
    difference = truth.score(x, t) - prior.score(x, t)
    torch.testing.assert_close(twist.gradient, difference, rtol=0, atol=1e-9 * float(truth.score(x, t).abs().max()))
    torch.testing.assert_close(twist.x0, prior.denoise(x, t))
    v = noise("v").normal(SHAPE)
    torch.testing.assert_close(twist.vjp(v), prior.denoise_with_vjp(x, t)[1](v))


def test_the_likelihood_is_the_noises_density():
    model, x = MMPS().condition(gaussian("vp"), measurement()), noise("x").normal(SHAPE)
    mean = x.flatten(1) @ M.T
    expected = torch.distributions.Normal(mean, SIGMA_Y).log_prob(measurement().data).sum(1)
    torch.testing.assert_close(model.log_likelihood(x), expected)


def test_on_a_mixture_matrix_and_conjugate_gradients_agree():
    means = torch.stack([MU, MU + 1.5, MU - 2.0])
    prior = registry.get_model("gaussian-mixture", image_shape=SHAPE, means=means, covariances=0.2)
    dense, iterative = (m.condition(prior, measurement()) for m in (MMPS(), MMPS(dense=0, tolerance=1e-12)))
    for t in (0.7, 0.2):
        t = torch.tensor(t).double()
        x = prior.sde.alpha(t) * 0.5 + prior.sde.sigma(t) * noise("x").normal(SHAPE)
        torch.testing.assert_close(iterative.denoise(x, t), dense.denoise(x, t), rtol=1e-8, atol=1e-8)


def test_the_default_tolerance_is_accurate_and_one_step_is_not():
    prior, t = gaussian("vp"), torch.tensor(0.3).double()
    x = prior.sde.alpha(t) * 0.5 + prior.sde.sigma(t) * noise("x").normal(SHAPE)
    error = {}
    for name, params in {"default": {"dense": 0}, "one step": {"dense": 0, "max_steps": 1}}.items():
        model = MMPS(**params).condition(prior, measurement())
        guidance = exact("vp").denoise(x, t) - prior.denoise(x, t)
        error[name] = float((model.denoise(x, t) - exact("vp").denoise(x, t)).norm() / guidance.norm())
    assert error["default"] < 3e-3  # the tolerance, times what M^{-1} and A^T make of a residual
    assert error["one step"] > 1e-2


@attrs.frozen(kw_only=True, eq=False)
class Indefinite(WrappedModel):
    """A denoiser whose Jacobian has a negative direction, as a network's may."""

    base: object

    def denoise(self, x, t):
        return self.base.denoise(x, t) * torch.tensor([1.0, 1.0, -1.0, 1.0, 1.0]).double()


@pytest.mark.parametrize("dense", [0, 16])
def test_a_jacobian_that_is_not_positive_does_not_break_it(dense):
    base = gaussian("vp", covariance=torch.diag(torch.tensor([1.0, 1.0, 40.0, 1.0, 1.0]).double()))
    model = MMPS(dense=dense).condition(Indefinite(base=base), measurement())
    t = torch.tensor(0.3).double()
    assert bool(model.denoise(noise("x").normal(SHAPE), t).isfinite().all())


def test_what_it_cannot_do_it_refuses():
    prior = gaussian("vp")
    with pytest.raises(ValueError, match="noise_std must be > 0"):
        MMPS().condition(prior, measurement(0.0))
    nonlinear = simulate(from_function(lambda x: x**2, SHAPE), torch.zeros(SHAPE).double(), 0.1)
    with pytest.raises(TypeError, match="needs a linear operator"):
        MMPS().condition(prior, nonlinear)
    model = MMPS(dense=2).condition(prior, measurement())
    with pytest.raises(TypeError, match="3 measured values, more than dense=2"):
        model.twist(noise("x").normal(SHAPE), torch.tensor(0.5))
