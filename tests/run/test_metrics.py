"""Figures of merit, against their closed forms."""

import math

import numpy as np
import pytest
import torch

from scoreplug import Measurement, registry
from scoreplug.operator import from_function
from scoreplug.run.baseline import Baseline, baseline
from scoreplug.run.inputs import Subject
from scoreplug.run.metrics import metrics, psnr, ssim

SHAPE = (1, 12, 12)


def subject(shape=SHAPE, noise_std=0.1, *, truth=True):
    x = torch.linspace(0, 1, math.prod(shape), dtype=torch.float64).reshape(shape)
    operator = registry.get_operator("identity", image_shape=shape)
    measurement = Measurement(operator, x, noise_std)
    return Subject(
        measurement=measurement,
        truth=x if truth else None,
        data_range=(0.0, 1.0) if truth else None,
        range_origin="source" if truth else None,
    )


def test_psnr_is_that_of_a_constant_error():
    """20 log10(R / e) = 20 log10(2 / 0.02) = 40 dB."""
    x = np.zeros(SHAPE)

    assert psnr(x, x + 0.02, 2.0) == pytest.approx(40.0, rel=1e-12)  # rounding of one logarithm


def test_psnr_of_equal_images_is_infinite_without_a_warning():
    assert psnr(np.zeros(SHAPE), np.zeros(SHAPE), 1.0) == math.inf


def test_ssim_of_equal_images_is_one():
    x = np.random.default_rng(0).random(SHAPE)

    assert ssim(x, x, 1.0) == pytest.approx(1.0, abs=1e-12)


def test_ssim_of_several_channels_is_their_mean():
    x, y = np.random.default_rng(0).random((2, 3, 16, 16))
    each = [ssim(x[c : c + 1], y[c : c + 1], 1.0) for c in range(3)]

    assert ssim(x, y, 1.0) == pytest.approx(sum(each) / 3, rel=1e-12)


def test_ssim_needs_a_whole_window():
    assert ssim(np.zeros((1, 10, 30)), np.zeros((1, 10, 30)), 1.0) is None


def test_the_residual_is_in_units_of_the_noise():
    """x off by 0.3 in every one of m values: 0.3 sqrt(m) / (0.1 sqrt(m)) = 3."""
    s = subject()
    x = s.truth.numpy()[None] + 0.3

    assert metrics(s, x, None)["samples"][0]["residual"] == pytest.approx(3.0, rel=1e-12)


def test_samples_and_mean_are_judged_apart():
    """Two samples off by +-0.1: each has 20 dB, and their mean is exact."""
    s = subject()
    x = s.truth.numpy() + np.array([0.1, -0.1])[:, None, None, None]

    found = metrics(s, x, None)

    assert [entry["psnr"] for entry in found["samples"]] == pytest.approx([20.0, 20.0], rel=1e-10)
    assert found["average_of_samples"]["psnr"] == pytest.approx(20.0, rel=1e-10)
    assert found["posterior_mean"]["psnr"] > 300  # rounding of 1e-16 against a range of 1
    assert found["mean_std"] == pytest.approx(0.1 * math.sqrt(2), rel=1e-12)  # with n - 1 = 1


def test_one_sample_has_no_spread():
    assert metrics(subject(), subject().truth.numpy()[None], None)["mean_std"] is None


def test_without_a_truth_only_the_residual_is_known():
    s = subject(truth=False)

    found = metrics(s, np.zeros((2, *SHAPE)), None)

    assert found["posterior_mean"]["psnr"] is None
    assert found["posterior_mean"]["ssim"] is None
    assert found["posterior_mean"]["residual"] > 0
    assert found["data_range"] is None


def test_without_noise_there_is_no_unit_for_the_residual():
    assert metrics(subject(noise_std=0.0), np.zeros((2, *SHAPE)), None)["posterior_mean"]["residual"] is None


def test_a_constant_truth_has_no_range_to_compare_with():
    s = subject()
    flat = Subject(measurement=s.measurement, truth=s.truth * 0, data_range=(0.0, 0.0), range_origin="truth")

    assert metrics(flat, np.zeros((2, *SHAPE)), None)["posterior_mean"]["psnr"] is None


def test_the_baseline_is_judged_like_a_sample():
    s = subject()

    assert metrics(s, np.zeros((1, *SHAPE)), Baseline(s.truth + 0.1, "x"))["baseline"]["psnr"] == pytest.approx(20.0)


def test_the_baseline_of_an_operator_with_a_pseudoinverse_is_that():
    operator = registry.get_operator("downsampling", image_shape=(1, 4, 4), factor=2)
    y = torch.arange(4.0, dtype=torch.float64).reshape(operator.output_shape)

    found = baseline(Measurement(operator, y, 0.1))

    assert found.name == "pseudoinverse"
    assert torch.equal(found.x, operator.pinv(y[None])[0])


def test_the_operators_own_baseline_comes_first():
    operator = registry.get_operator("radon", image_shape=(1, 8, 8), angles=6)
    y = operator(torch.ones(1, 1, 8, 8, dtype=torch.float64))[0]

    assert torch.equal(baseline(Measurement(operator, y, 0.1)).x, operator.baseline(y[None])[0])


def test_a_nonlinear_operator_has_no_baseline():
    operator = from_function(torch.sin, (1, 2, 2))

    assert baseline(Measurement(operator, torch.zeros(1, 2, 2, dtype=torch.float64), 0.1)) is None


def test_a_linear_operator_without_more_is_solved_by_least_squares_with_an_early_end():
    """At a residual of 1 % what is small among the singular values is still left out: x is far below A^-1 y."""
    matrix = torch.diag(torch.logspace(0, -4, 16, dtype=torch.float64))
    operator = from_function(lambda x: x.flatten(1) @ matrix.T, (1, 4, 4), linear=True)
    truth = torch.linspace(1, 2, 16, dtype=torch.float64)
    y = matrix @ truth

    found = baseline(Measurement(operator, y, 0.1))

    assert found.name == "least squares"
    assert float((operator(found.x[None]) - y).norm()) <= 0.01 * float(y.norm())
    assert float(found.x.flatten()[-1].abs()) < 0.1 * float(truth[-1])


def test_data_of_zeros_have_the_baseline_zero():
    operator = from_function(lambda x: 2 * x, (1, 2, 2), linear=True)

    assert torch.equal(baseline(Measurement(operator, torch.zeros(1, 2, 2), 0.1)).x, torch.zeros(1, 2, 2))
