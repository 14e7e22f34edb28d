"""Denoising score matching: levels, weights and the loss itself."""

from __future__ import annotations

import math

import pytest
import torch

from scoreplug import registry
from scoreplug.noise import Noise
from scoreplug.training.config import Levels
from scoreplug.training.loss import check_levels, denoising_loss, draw_times, weight

CPU = torch.device("cpu")


def noise(n: int, dtype: torch.dtype = torch.float64) -> Noise:
    return Noise(0, range(n), dtype=dtype, device=CPU)


def level_of(sde, t):
    return sde.sigma(t) / sde.alpha(t)


def assert_one_per_stratum(cdf: torch.Tensor) -> None:
    """Sample j of B lies in the j-th of B intervals of equal probability."""
    assert (cdf * len(cdf)).floor().tolist() == list(range(len(cdf)))


def test_loguniform_levels_meet_their_distribution_in_every_batch():
    levels = Levels(distribution="loguniform", low=0.01, high=10.0)
    sde = registry.get_sde("vp")

    level = level_of(sde, draw_times(levels, sde, noise(64)))

    assert_one_per_stratum((level.log() - math.log(0.01)) / math.log(1000))


def test_lognormal_levels_meet_their_distribution_in_every_batch():
    levels = Levels(low=1e-3, high=100.0, mean=-1.0, std=1.5)
    sde = registry.get_sde("vp")

    level = level_of(sde, draw_times(levels, sde, noise(64)))

    assert_one_per_stratum(torch.special.ndtr((level.log() + 1.0) / 1.5))


def test_a_share_of_lognormal_draws_is_loguniform():
    levels = Levels(low=1e-3, high=100.0, mean=-1.0, std=0.01, loguniform_share=0.25)
    sde = registry.get_sde("vp")

    log_level = level_of(sde, draw_times(levels, sde, noise(64))).log()

    assert_one_per_stratum((log_level[:16] - math.log(1e-3)) / math.log(1e5))
    # the other 48 are at -1 with deviation 0.01, of which the largest of 48 strata is within 4
    assert ((log_level[16:] + 1).abs() < 0.04).all()


def test_levels_outside_the_range_are_set_to_its_ends():
    levels = Levels(low=0.3, high=0.4, mean=-1.0, std=2.0)
    sde = registry.get_sde("ve")

    level = level_of(sde, draw_times(levels, sde, noise(64)))

    # time_of and back in float64
    assert level.min().item() == pytest.approx(0.3, rel=1e-12)
    assert level.max().item() == pytest.approx(0.4, rel=1e-12)


@pytest.mark.parametrize("name", ["vp", "ve", "subvp"])
def test_uniform_t_is_uniform_in_the_time_of_the_process(name):
    levels = Levels(distribution="uniform-t", low=0.05, high=5.0)
    sde = registry.get_sde(name)
    first, last = (sde.time_of(torch.tensor(v, dtype=torch.float64)) for v in (0.05, 5.0))

    t = draw_times(levels, sde, noise(64))

    assert_one_per_stratum((t - first) / (last - first))


@pytest.mark.parametrize("name", ["vp", "ve", "subvp"])
def test_the_weights_are_those_of_score_matching(name):
    """|x0 - x_0|^2 is (sigma^2 / alpha)^2 |score error|^2; 'score' weighs the latter with sigma^2, 'likelihood' g^2."""
    sde = registry.get_sde(name)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    per_score_error = (alpha / sigma**2) ** 2

    # products of a handful of float64 numbers
    torch.testing.assert_close(weight(Levels(weight="score"), sde, t), sigma**2 * per_score_error, rtol=1e-12, atol=0)
    expected = sde.diffusion(t) ** 2 * per_score_error
    torch.testing.assert_close(weight(Levels(weight="likelihood"), sde, t), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("distribution", ["lognormal", "loguniform", "uniform-t"])
@pytest.mark.parametrize("name", ["vp", "ve"])
def test_the_edm_loss_of_the_exact_denoiser_is_1_at_every_level(exact_model, white_images, distribution, name):
    """For N(m, s^2) the error of E[x_0 | x_t] is s^2 level^2 / (s^2 + level^2), which is one over the weight."""
    model = exact_model(sde=registry.get_sde(name))
    levels = Levels(distribution=distribution, low=0.02, high=20.0, data_std=0.5)
    x_0 = torch.from_numpy(white_images().batch(range(2000)))

    loss = denoising_loss(model, x_0, levels, noise(2000, torch.float32))

    # the mean of 32000 squares of standard normal numbers has deviation sqrt(2 / 32000) = 0.008; four of them
    assert loss.item() == pytest.approx(1.0, abs=0.032)


def test_the_loss_is_smallest_at_the_exact_denoiser(exact_model, white_images):
    model = exact_model()
    model.module.requires_grad_()
    x_0 = torch.from_numpy(white_images().batch(range(4000)))

    denoising_loss(model, x_0, Levels(low=0.05, high=5.0), noise(4000, torch.float32)).backward()

    # each gradient is a mean of 64000 terms of order 1: deviation 1 / sqrt(64000) = 0.004; at mean 0 or std 1 it is 0.3
    assert abs(model.module.mean.grad.item()) < 0.03
    assert abs(model.module.log_std.grad.item()) < 0.03


def test_each_image_has_its_own_noise_whatever_its_batch(exact_model):
    """The noise of image i is addressed by i."""
    one = noise(3, torch.float32).at("z").normal((1, 4, 4))
    other = Noise(0, (2,), dtype=torch.float32, device=CPU).at("z").normal((1, 4, 4))

    assert torch.equal(one[2:], other)


def test_levels_that_the_process_does_not_reach_are_refused():
    with pytest.raises(ValueError, match=r"\[levels\] high must be at most 152.2, .* \(got 160.0\)"):
        check_levels(Levels(high=160.0), registry.get_sde("vp"))
    check_levels(Levels(high=152.0), registry.get_sde("vp"))
