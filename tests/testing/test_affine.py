"""`affine_moments` against Monte Carlo, with correlated pixels and a corrector; its refusal of what is not affine."""

import pytest
import torch

from scoreplug import registry
from scoreplug.testing import affine_moments

COVARIANCE = torch.tensor([[1.0, 0.6, 0.0], [0.6, 0.8, -0.3], [0.0, -0.3, 0.5]], dtype=torch.float64)


def test_it_is_the_law_of_the_samples():
    model = registry.get_model("gaussian", image_shape=(1, 1, 3), mean=(0.5, -1.0, 2.0), covariance=COVARIANCE)
    sampler, n = registry.get_sampler("pc", steps=8, corrector={"name": "langevin", "snr": 0.4}), 5000

    mean, covariance = affine_moments(sampler, model)
    x = sampler.sample(model, n).flatten(1)

    variance = covariance.diagonal()
    assert bool(((x.mean(0) - mean).abs() < 5 * (variance / n).sqrt()).all())
    # the variance of an entry of a Gaussian sample covariance is (V_ii V_jj + V_ij^2) / n
    bound = 5 * ((variance[:, None] * variance + covariance**2) / n).sqrt()
    assert bool(((x.T.cov() - covariance).abs() < bound).all())


def test_it_refuses_a_score_that_is_not_affine():
    model = registry.get_model("gaussian-mixture", image_shape=(1, 1, 1), means=((-2.0,), (1.0,)), covariances=0.1)

    with pytest.raises(ValueError, match="is not affine: the images of x and -x do not mirror each other"):
        affine_moments(registry.get_sampler("em", steps=8), model)
