"""Measurements: what is accepted, and what a simulated one is."""

import pytest
import torch

from scoreplug import Measurement, registry, simulate

SHAPE = (1, 4, 4)


def operator(shape=SHAPE):
    return registry.get_operator("identity", image_shape=shape)


def test_a_simulated_measurement_has_the_stated_noise():
    shape = (1, 200, 200)
    x = torch.full(shape, 0.5, dtype=torch.float64)

    y = simulate(operator(shape), x, 0.1, seed=3)

    n = y.data.numel()
    r = y.data - x
    assert abs(float(r.mean())) < 5 * 0.1 / n**0.5
    assert abs(float(r.std()) - 0.1) < 5 * 0.1 / (2 * n) ** 0.5
    assert torch.equal(simulate(operator(shape), x, 0.1, seed=3).data, y.data)
    assert not torch.equal(simulate(operator(shape), x, 0.1, seed=4).data, y.data)
    assert torch.equal(simulate(operator(shape), x, 0.0).data, x)


def test_the_residual_is_that_of_every_sample():
    y = Measurement(operator(), torch.ones(SHAPE), 0.1)
    x = torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE)])

    assert torch.equal(y.residual(x), torch.stack([torch.ones(SHAPE), torch.zeros(SHAPE)]))


@pytest.mark.parametrize(
    ("data", "noise_std", "error", "message"),
    [
        (torch.ones(1, *SHAPE), 0.1, ValueError, r"data has shape \(1, 1, 4, 4\), but the operator gives \(1, 4, 4\)"),
        (torch.full(SHAPE, float("nan")), 0.1, ValueError, "data has 16 values that are NaN or infinite"),
        (torch.ones(SHAPE), -0.1, ValueError, r"noise_std must be finite and >= 0 \(got -0.1\)"),
        (torch.ones(SHAPE), float("inf"), ValueError, r"noise_std must be finite and >= 0 \(got inf\)"),
        (torch.ones(SHAPE, dtype=torch.int64), 0.1, TypeError, r"real floating-point tensor \(got torch.int64\)"),
        (torch.ones(SHAPE, dtype=torch.complex64), 0.1, TypeError, r"complex data is \(2, ...\)"),
        ([1.0], 0.1, TypeError, r"real floating-point tensor \(got list\)"),
    ],
)
def test_impossible_measurements_are_refused(data, noise_std, error, message):
    with pytest.raises(error, match=message):
        Measurement(operator(), data, noise_std)
