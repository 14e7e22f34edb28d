"""log p(y | x_0): the normal density, for any operator, sample by sample."""

import math

import pytest
import torch
from torch.distributions import Normal

from scoreplug import Measurement, Noise, registry
from scoreplug.operator import from_function
from scoreplug.protocols import HasLikelihood
from scoreplug_builtin.conditioners._likelihood import GaussianLikelihood

SHAPE = (1, 2, 3)
OPERATORS = {
    "linear": from_function(lambda x: x[..., :2] - 2 * x[..., 1:], SHAPE, linear=True),
    "nonlinear": from_function(lambda x: (x**2).sum(-1), SHAPE),
}


def likelihood(operator, noise_std=0.3):
    y = torch.linspace(-1, 1, math.prod(operator.output_shape), dtype=torch.float64).reshape(operator.output_shape)
    prior = registry.get_model("gaussian", image_shape=SHAPE)
    return GaussianLikelihood(prior=prior, measurement=Measurement(operator, y, noise_std))


def images(n=3):
    return Noise(1, range(n), dtype=torch.float64, device=torch.device("cpu")).normal(SHAPE)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_it_is_the_normal_density_of_y_around_what_the_operator_makes_of_x0(operator):
    posterior, x0 = likelihood(operator), images()

    found = posterior.log_likelihood(x0)

    expected = Normal(operator(x0), 0.3).log_prob(posterior.measurement.data).flatten(1).sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(posterior.log_likelihood(x0[1:2]), expected[1:2], rtol=1e-12, atol=1e-12)
    assert isinstance(posterior, HasLikelihood)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_its_gradient_is_the_residual_seen_through_the_jacobian(operator):
    posterior, x0 = likelihood(operator), images().requires_grad_()

    (gradient,) = torch.autograd.grad(posterior.log_likelihood(x0).sum(), x0)

    Ax0, adjoint = operator.linearize(x0.detach())
    torch.testing.assert_close(gradient, adjoint(posterior.measurement.data - Ax0) / 0.3**2, rtol=1e-12, atol=1e-12)


def test_exact_data_have_no_density():
    posterior = likelihood(OPERATORS["linear"], noise_std=0.0)

    with pytest.raises(ValueError, match="exact data have no likelihood: noise_std must be > 0"):
        posterior.log_likelihood(images())
