"""What example claims of itself."""

import torch
from scoreplug import Measurement, registry
from scoreplug.operator import from_function

from scoreplug_example.example import Example

SHAPE = (1, 2, 2)
Y = torch.tensor([1.3, -0.4, 0.2, 2.0], dtype=torch.float64).reshape(SHAPE)


def test_it_is_exact_for_a_white_prior_and_a_scaled_identity() -> None:
    m, s, a, sigma_y = 0.4, 0.8, 2.0, 0.3
    prior = registry.get_model("gaussian", image_shape=SHAPE, mean=m, covariance=s**2)
    measurement = Measurement(from_function(lambda x: a * x, SHAPE, linear=True), Y, noise_std=sigma_y)
    variance = 1 / (1 / s**2 + a**2 / sigma_y**2)  # of x_0 given y, pixel by pixel
    mean = variance * (m / s**2 + a * Y / sigma_y**2)
    known = registry.get_model("gaussian", image_shape=SHAPE, mean=mean.flatten(), covariance=variance, sde=prior.sde)
    x, t = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(3, *SHAPE), torch.tensor(0.4, dtype=torch.float64)

    posterior = Example(data_std=s).condition(prior, measurement)

    # float64, and quotients of numbers of one size: some 1e-14, with room
    torch.testing.assert_close(posterior.score(x, t), known.score(x, t), rtol=1e-10, atol=1e-12)


def test_scale_0_is_the_prior() -> None:
    prior = registry.get_model("gaussian", image_shape=SHAPE)
    measurement = Measurement(registry.get_operator("identity", image_shape=SHAPE), Y, noise_std=0.3)

    assert Example(scale=0.0).condition(prior, measurement) is prior
