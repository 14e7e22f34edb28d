"""colorization, walsh-hadamard, multi-coil-fourier: against numpy and scipy, and what they refuse."""

import numpy as np
import pytest
import scipy.linalg
import torch

from scoreplug import registry
from scoreplug.operator import least_squares, matrix_of


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_colorization_is_the_mean_over_the_channels():
    x = draw(2, 3, 4, 5)

    y = registry.get_operator("colorization", image_shape=(3, 4, 5))(x)

    torch.testing.assert_close(y, x.mean(1, keepdim=True), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.0, 0.0, 0.0)])
def test_colorization_wants_one_weight_for_each_channel(weights):
    with pytest.raises(ValueError, match="weights must be 3 numbers"):
        registry.get_operator("colorization", image_shape=(3, 4, 5), weights=weights)


def test_walsh_hadamard_keeps_rows_of_scipys_matrix():
    """H P x with scipy's Hadamard matrix; the first row kept is the one of ones."""
    A = registry.get_operator("walsh-hadamard", image_shape=(1, 4, 8), fraction=0.3)
    M, H = matrix_of(A), torch.from_numpy(scipy.linalg.hadamard(32).astype(float)) / 32**0.5

    permutation, _, rows = (constant.value for constant in A._draws)
    expected = torch.zeros_like(M)
    expected[:, permutation] = H[rows]
    torch.testing.assert_close(M, expected, rtol=0, atol=1e-14)
    assert A.output_shape == (1, 10)
    torch.testing.assert_close(M[0], torch.full((32,), 32**-0.5, dtype=torch.float64))
    assert sorted(permutation.tolist()) == list(range(32))


def test_walsh_hadamard_draws_others_with_another_seed():
    one, other = (registry.get_operator("walsh-hadamard", image_shape=(1, 8, 8), seed=seed) for seed in (0, 1))
    x = draw(1, 1, 8, 8)

    assert not torch.allclose(one(x), other(x))


def test_walsh_hadamard_wants_a_power_of_two():
    with pytest.raises(ValueError, match=r"a power of two \(got 6 x 8\)"):
        registry.get_operator("walsh-hadamard", image_shape=(1, 6, 8))


def test_multi_coil_is_numpys_transform_of_every_coils_image():
    shape = (2, 6, 8)
    A = registry.get_operator("multi-coil-fourier", image_shape=shape, image="complex", coils=3, acceleration=2.0)
    x = draw(1, *shape)

    y = A(x)[0]

    z, S = (x[0, 0] + 1j * x[0, 1]).numpy(), A.sensitivities.value.numpy()
    measured = A.measured.numpy()
    for c in range(3):
        k = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(S[c] * z), norm="ortho"))[measured]
        np.testing.assert_allclose(y[0, c], k.real, atol=1e-13)
        np.testing.assert_allclose(y[1, c], k.imag, atol=1e-13)


def test_the_made_coils_see_every_pixel_once_in_all():
    """sum_c |S_c|^2 = 1: with all of k-space A^T A = I, and the norm is 1."""
    A = registry.get_operator(
        "multi-coil-fourier", image_shape=(2, 8, 8), image="complex", coils=4, acceleration=1.0, center_fraction=0.0
    )
    x = draw(2, 2, 8, 8)

    torch.testing.assert_close(A.adjoint(A(x)), x, rtol=1e-12, atol=1e-12)
    assert A.norm == pytest.approx(1, rel=1e-6)
    S = A.sensitivities.value.abs()
    assert bool((S.flatten(1).std(1) > 0.05).all())  # they do differ from place to place


def test_several_coils_determine_what_one_does_not():
    """Half of the columns, 4 coils: the least-squares solution of exact data is the image."""
    A = registry.get_operator("multi-coil-fourier", image_shape=(2, 16, 16), image="complex", coils=6, acceleration=2.0)
    x = draw(1, 2, 16, 16)

    y = A(x)

    # the condition number is some hundreds, and the residual is stopped at 1e-10
    torch.testing.assert_close(A.pinv(y), x, rtol=0, atol=1e-6)
    assert float((A(A.pinv(y)) - y).norm()) <= 2e-10 * float(y.norm())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"image_shape": (3, 4, 4)}, "a real image has one channel"),
        ({"image_shape": (1, 4, 4), "image": "complex"}, "a complex image is"),
        ({"image_shape": (1, 4, 4), "maps": torch.zeros(2, 3, 4, 5)}, r"maps must be \(2, coils, 4, 4\)"),
        ({"image_shape": (1, 4, 4), "mask": torch.zeros(4, 4)}, "mask measures no entry"),
    ],
)
def test_multi_coil_refuses_what_does_not_fit(params, message):
    with pytest.raises(ValueError, match=message):
        registry.get_operator("multi-coil-fourier", **params)


def test_least_squares_is_the_pseudoinverse_for_each_sample():
    """Also of a rank-deficient matrix and of data outside its range; and a sample alone is a sample in a batch."""
    M = draw(6, 3) @ draw(3, 8, seed=1)
    A = registry.get_operator("matrix", image_shape=(1, 2, 4), matrix=M)
    y = draw(3, 6, seed=2)

    x = least_squares(A, y, tolerance=1e-13)

    torch.testing.assert_close(x.flatten(1), y @ torch.linalg.pinv(M).T, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(least_squares(A, y[1:2], tolerance=1e-13), x[1:2], rtol=1e-10, atol=1e-10)
    assert torch.equal(least_squares(A, 0 * y), torch.zeros_like(x))


def test_least_squares_says_what_it_could_not_reach():
    M = torch.diag(torch.logspace(0, -9, 8, dtype=torch.float64))
    A = registry.get_operator("matrix", image_shape=(1, 2, 4), matrix=M)

    with pytest.raises(ArithmeticError, match="least squares stopped after 3 steps at a relative residual of"):
        least_squares(A, torch.ones(1, 8, dtype=torch.float64), max_steps=3)
    with pytest.raises(ArithmeticError, match="not finite"):
        least_squares(A, torch.full((1, 8), float("nan"), dtype=torch.float64))
