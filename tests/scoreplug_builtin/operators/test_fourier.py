"""The Fourier operator."""

import math

import numpy as np
import pytest
import torch

from scoreplug import registry


def fourier(image_shape=(1, 6, 9), **params):
    return registry.get_operator("fourier", image_shape=image_shape, **params)


def draw(shape, n=2, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def centred_spectrum(x):
    """The definition, term by term: sum over r of x(r) exp(-2 pi i k (r - r0)) / sqrt(N), k and r from the centre."""
    height, width = x.shape
    r, c = np.arange(height) - height // 2, np.arange(width) - width // 2
    rows = np.exp(-2j * np.pi * np.outer(r, r) / height)
    columns = np.exp(-2j * np.pi * np.outer(c, c) / width)
    return rows @ x @ columns / math.sqrt(height * width)


@pytest.mark.parametrize("shape", [(6, 9), (5, 4)], ids=str)
def test_measures_the_centred_orthonormal_spectrum_of_a_real_image(shape):
    """Real and imaginary part of the entries of the mask, row by row, channel by channel."""
    mask = draw(shape, n=1)[0] > 0
    x = draw((3, *shape), seed=1)

    y = fourier((3, *shape), mask=mask)(x)

    assert y.shape == (2, 2, 3, int(mask.sum()))
    expected = centred_spectrum(x[1, 2].numpy())[mask.numpy()]
    np.testing.assert_allclose(y[1, 0, 2].numpy(), expected.real, rtol=0, atol=1e-13)  # rounding of 54 terms
    np.testing.assert_allclose(y[1, 1, 2].numpy(), expected.imag, rtol=0, atol=1e-13)


def test_measures_the_spectrum_of_a_complex_image():
    """Its two channels are real and imaginary part of one image."""
    mask = draw((6, 9), n=1)[0] > 0
    x = draw((2, 6, 9), seed=1)

    y = fourier((2, 6, 9), image="complex", mask=mask)(x)

    assert y.shape == (2, 2, 1, int(mask.sum()))
    expected = centred_spectrum((x[0, 0] + 1j * x[0, 1]).numpy())[mask.numpy()]
    np.testing.assert_allclose(y[0, :, 0].numpy(), [expected.real, expected.imag], rtol=0, atol=1e-13)  # as above


def test_full_kspace_of_a_complex_image_is_inverted_by_the_adjoint():
    """F is orthonormal."""
    A = fourier((2, 6, 9), image="complex", acceleration=1.0)
    x = draw((2, 6, 9))

    torch.testing.assert_close(A.adjoint(A(x)), x, rtol=0, atol=1e-14)  # two FFTs


def test_singular_values_of_a_real_image_count_the_measured_ones_of_a_pair():
    """1 for both of k and -k, sqrt(1/2) for one of them, 0 for none, and 1 for a k that is its own mirror image."""
    mask = torch.zeros(4, 5)
    mask[2, 2] = 1  # k = 0
    mask[2, 1] = mask[2, 3] = 1  # both of a pair
    mask[3, 4] = 1  # one of a pair; its mirror image is [1, 0]
    expected = mask.clone()
    expected[3, 4] = expected[1, 0] = math.sqrt(0.5)

    s = fourier((1, 4, 5), mask=mask).svd.singular_values

    torch.testing.assert_close(s, expected[None].double(), rtol=1e-7, atol=0)  # the expectation is in single precision


def test_half_of_kspace_determines_a_real_image():
    """A complex image would need the other half."""
    mask = torch.zeros(5, 7)
    mask[:, 3:] = 1
    x = draw((1, 5, 7))
    A = fourier((1, 5, 7), mask=mask)

    torch.testing.assert_close(A.pinv(A(x)), x, rtol=0, atol=1e-13)  # FFTs; the smallest singular value is 0.7


def test_norm_is_that_of_the_best_measured_pair():
    """One side only, without k = 0: sqrt(1/2)."""
    mask = torch.zeros(5, 7)
    mask[:, 5:] = 1

    assert fourier((1, 5, 7), mask=mask).norm == pytest.approx(math.sqrt(0.5), rel=1e-15)
    assert fourier().norm == 1


@pytest.mark.parametrize("mask", ["random", "equispaced"])
@pytest.mark.parametrize(
    ("width", "acceleration", "center"), [(64, 4.0, 0.08), (63, 8.0, 0.04), (20, 1.0, 0.3), (32, 4.0, 0.25)]
)
def test_named_masks_have_the_exact_number_of_columns(mask, width, acceleration, center):
    """round(W / acceleration) whole columns, of which the central ones surround k = 0."""
    A = fourier((1, 4, width), mask=mask, acceleration=acceleration, center_fraction=center)
    columns = A.measured[0]

    assert torch.equal(A.measured, columns.expand(4, width))
    assert int(columns.sum()) == round(width / acceleration)
    central = round(center * width)
    first = width // 2 - central // 2
    assert columns[first : first + central].all()
    assert A.output_shape == (2, 1, 4 * round(width / acceleration))


def test_equispaced_columns_have_equal_distances():
    """Without a centre, every fourth of 64 columns."""
    columns = fourier((1, 2, 64), mask="equispaced", center_fraction=0.0).measured[0].nonzero()[:, 0]

    assert columns.diff().unique().tolist() == [4]


def test_random_columns_follow_their_seed():
    """The same seed gives the same mask, another one another."""
    masks = [fourier((1, 4, 64), seed=seed).measured for seed in (0, 0, 1)]

    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_an_own_mask_may_be_columns_from_a_file(tmp_path):
    """(W,) means whole columns."""
    np.save(tmp_path / "mask.npy", np.array([0, 1, 0, 0, 1, 1, 0, 0, 1]))

    measured = fourier(mask=str(tmp_path / "mask.npy")).measured

    assert torch.equal(measured, torch.tensor([0, 1, 0, 0, 1, 1, 0, 0, 1]).bool().expand(6, 9))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"image": "complex"},
            r"a complex image is \(2, H, W\), real and imaginary part \(got image_shape \(1, 6, 9\)\)",
        ),
        ({"mask": "equispace"}, "did you mean 'equispaced'"),
        ({"mask": torch.zeros(6, 9)}, "mask measures no entry"),
        ({"mask": torch.ones(1, 6, 9)}, r"mask must be \(6, 9\) or \(9,\) \(got \(1, 6, 9\)\)"),
        ({"mask": torch.ones(6)}, r"mask must have the image's height and width \(6, 9\) \(got \(6,\)\)"),
        ({"mask": 2 * torch.ones(6, 9)}, "mask must hold 0 and 1 only"),
        ({"acceleration": 100.0, "center_fraction": 0.0}, "mask measures no entry"),
        ({"center_fraction": 0.5}, "center_fraction=0.5 keeps 4 of 9 columns, more than the 2 that acceleration=4.0"),
        ({"acceleration": 0.5}, "acceleration must be >= 1"),
    ],
)
def test_a_mask_that_makes_no_sense_is_refused(params, message):
    """At construction, with the value that was given."""
    with pytest.raises(ValueError, match=message):
        fourier(**params)


def test_the_picture_of_full_kspace_is_the_logarithm_of_its_magnitude():
    """By numpy, with the zero frequency in the centre; what was not measured is zero."""
    x = np.random.default_rng(0).standard_normal((2, 1, 6, 8))
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))
    mask = np.zeros((6, 8))
    mask[:, ::2] = 1
    operator = fourier((1, 6, 8), mask=torch.from_numpy(mask))

    picture = operator.picture(operator(torch.from_numpy(x)))

    expected = torch.from_numpy(np.log1p(np.abs(kspace[:, 0]) * mask))
    torch.testing.assert_close(picture, expected, rtol=1e-12, atol=1e-12)
