"""The held-out denoising curve and its linear reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scoreplug.training.evaluation import Spectrum, denoising_curve


def test_the_curve_of_an_exact_model_is_the_posterior_deviation(exact_model, white_images):
    """N(m, s^2) seen with noise: the error is s level / sqrt(s^2 + level^2)."""
    images = torch.from_numpy(white_images().held_out.batch(range(600)))
    spectrum = Spectrum.of(torch.from_numpy(white_images().batch(range(2000))))

    points = denoising_curve(exact_model(), images, (0.1, 0.5, 2.0), spectrum=spectrum)

    for point in points:
        expected = 0.5 * point.level / math.hypot(0.5, point.level)
        # the mean of 9600 squares: deviation sqrt(2 / 9600) / 2 = 0.7 % of the root; four of them
        assert point.rmse == pytest.approx(expected, rel=0.03)
        assert point.linear == pytest.approx(expected, rel=0.04)  # and 1 % for the estimated spectrum


def test_the_linear_reference_is_the_posterior_mean_of_a_stationary_gaussian():
    """Against C (C + level^2 I)^-1, with the circulant covariance written out."""
    rng = np.random.default_rng(0)
    height, width, level = 4, 6, 0.3
    kernel = torch.from_numpy(rng.standard_normal((height, width)))
    transform = torch.fft.fft2(kernel)
    shifts = [torch.roll(kernel, (i, j), (0, 1)).flatten() for i in range(height) for j in range(width)]
    root = torch.stack(shifts)  # rows are shifts of the kernel: C = root^T root is circulant
    covariance = root.T @ root
    mean = torch.from_numpy(rng.standard_normal((1, height, width)))
    noisy = torch.from_numpy(rng.standard_normal((2, 1, height, width)))

    denoised = Spectrum(mean=mean, power=transform.abs().square()[None]).denoise(noisy, level)

    gain = covariance @ torch.linalg.inv(covariance + level**2 * torch.eye(height * width, dtype=torch.float64))
    expected = mean + ((noisy - mean).flatten(1) @ gain.T).reshape(noisy.shape)
    # condition number at most 1e3 in float64
    torch.testing.assert_close(denoised, expected, rtol=1e-9, atol=1e-11)


def test_the_spectrum_of_white_images_is_their_variance(white_images):
    spectrum = Spectrum.of(torch.from_numpy(white_images().batch(range(4000))))

    # 4000 images of 16 pixels
    assert spectrum.power.mean().item() == pytest.approx(0.25, rel=0.03)
    assert spectrum.mean.mean().item() == pytest.approx(0.3, abs=0.01)


def test_the_curve_is_the_same_each_time_and_leaves_no_gradient(exact_model, white_images):
    images = torch.from_numpy(white_images().held_out.batch(range(20)))  # more than are denoised at once
    spectrum = Spectrum.of(images)
    model = exact_model()
    model.module.requires_grad_()

    first = denoising_curve(model, images, (0.2, 1.0), spectrum=spectrum)
    second = denoising_curve(model, images, (0.2, 1.0), spectrum=spectrum)

    assert first == second
    assert model.module.mean.grad is None
