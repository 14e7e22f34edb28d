"""The blur operator."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch

from scoreplug import registry


def blur(image_shape=(1, 7, 10), **params):
    return registry.get_operator("blur", image_shape=image_shape, **params)


def draw(shape, n=2, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments(kernel):
    """Total mass, mean and covariance of a kernel, in (x to the right, y upwards)."""
    kernel = kernel.numpy()
    y, x = np.mgrid[: kernel.shape[0], : kernel.shape[1]]
    points = np.stack([x - kernel.shape[1] // 2, kernel.shape[0] // 2 - y])
    mean = (points * kernel).sum((1, 2)) / kernel.sum()
    covariance = np.einsum("iyx,jyx,yx->ij", points, points, kernel) / kernel.sum() - np.outer(mean, mean)
    return kernel.sum(), mean, covariance


@pytest.mark.parametrize("size", [(3, 3), (4, 3), (2, 5), (1, 1), (9, 12)], ids=str)
@pytest.mark.parametrize("image_shape", [(2, 7, 10), (1, 8, 5)], ids=str)
def test_is_the_circular_convolution(size, image_shape):
    """Sum over the kernel of weights times shifted images, the centre at (height // 2, width // 2), for any sizes."""
    kernel, x = draw(size, n=1)[0], draw(image_shape, seed=1)
    expected = torch.zeros_like(x)
    for r in range(size[0]):
        for c in range(size[1]):
            expected = expected + kernel[r, c] * x.roll((r - size[0] // 2, c - size[1] // 2), (2, 3))

    y = blur(image_shape, kernel=kernel)(x)

    torch.testing.assert_close(y, expected, rtol=0, atol=1e-13)  # rounding of FFTs against that of 100 terms


def test_agrees_with_scipy():
    """An independent implementation: `scipy.ndimage.convolve(mode="wrap")`, whose centre for odd sizes is ours."""
    kernel, x = draw((3, 5), n=1)[0], draw((1, 7, 10), seed=1)

    y = blur(kernel=kernel)(x)

    expected = scipy.ndimage.convolve(x[0, 0].numpy(), kernel.numpy(), mode="wrap")
    np.testing.assert_allclose(y[0, 0].numpy(), expected, rtol=0, atol=1e-13)  # as above


def test_an_own_kernel_is_used_as_given():
    """Not normalised: its sum scales the mean, and max |h| is the norm."""
    A = blur(kernel=((1.0, 2.0, 1.0),))
    ones = torch.ones(1, 1, 7, 10, dtype=torch.float64)

    torch.testing.assert_close(A(ones), 4 * ones, rtol=1e-14, atol=0)  # an FFT of 70 terms
    assert A.norm == pytest.approx(4, rel=1e-14)


def test_the_gaussian_has_its_standard_deviation():
    """Unit mass, mean zero and covariance std^2 I."""
    mass, mean, covariance = moments(blur(std=1.5).kernel_array)

    assert mass == pytest.approx(1, abs=1e-14)  # normalised, up to rounding
    np.testing.assert_allclose(mean, 0, atol=1e-14)  # symmetric
    # cut at four standard deviations: the tail's share of the variance is about 2 * 4.1 * phi(4.1) = 7e-4
    np.testing.assert_allclose(covariance, 1.5**2 * np.eye(2), atol=1.5**2 * 1e-3)


def test_the_size_of_the_gaussian_can_be_given():
    """61 pixels and std 3 are the deblurring problem of Chung et al., Diffusion posterior sampling, 2023."""
    assert blur((1, 64, 64), std=3.0, size=61).kernel_array.shape == (61, 61)
    assert blur(std=1.0).kernel_array.shape == (9, 9)


@pytest.mark.parametrize("angle", [0.0, 30.0, 45.0, 90.0, 135.0, -20.0])
@pytest.mark.parametrize("length", [0.5, 3.0, 7.3])
def test_motion_is_a_line_of_the_given_length_and_direction(length, angle):
    """Unit mass, mean zero; the variance along the line is length^2 / 12, and interpolation adds that of its hats."""
    mass, mean, covariance = moments(blur(kernel="motion", length=length, angle=angle).kernel_array)

    d = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
    assert mass == pytest.approx(1, abs=1e-13)  # the quadrature is exact
    np.testing.assert_allclose(mean, 0, atol=1e-13)
    # a hat centred at fraction u between two pixels has the variance u (1 - u), between 0 and 1/4
    excess = covariance - length**2 / 12 * np.outer(d, d)
    assert np.linalg.eigvalsh(excess).min() > -1e-12
    assert np.diag(excess).max() < 0.25


def test_motion_along_a_row_has_its_closed_form():
    """Length 3: the box of width 3 convolved with the hat is 1/24, 7/24, 1/3, 7/24, 1/24 after division by 3."""
    kernel = blur(kernel="motion", length=3.0).kernel_array

    # at distance 2 the hat overlaps half a pixel: int_0^1/2 s ds = 1/8; at 1 it loses that much: 7/8; inside all: 1
    centre = kernel[kernel.shape[0] // 2]
    expected = torch.tensor([0, 1 / 8, 7 / 8, 1, 7 / 8, 1 / 8, 0], dtype=torch.float64) / 3
    torch.testing.assert_close(centre, expected, rtol=0, atol=1e-15)  # rounding of the quadrature
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-15)


def test_motion_turns_counter_clockwise():
    """At 45 degrees the line rises to the right: rows run downwards, so it is on the anti-diagonal."""
    kernel = blur(kernel="motion", length=4.0, angle=45.0).kernel_array

    assert float(kernel.flip(1).diagonal().sum()) > 0.5 > 4 * float(kernel.diagonal().sum() - kernel.max())


def test_singular_values_are_the_moduli_of_the_spectrum():
    """|h(k)| of the two-pixel mean is |cos(pi k / W)| along the rows; its zero counts as zero exactly."""
    A = blur((1, 3, 8), kernel=((0.5, 0.5),))

    expected = torch.cos(math.pi * torch.arange(8, dtype=torch.float64) / 8).abs().expand(1, 3, 8)
    torch.testing.assert_close(A.svd.singular_values, expected, rtol=0, atol=1e-15)  # FFT of two terms
    assert (A.svd.singular_values[..., 4] == 0).all()


def test_baseline_is_stable():
    """The pseudo-inverse of this kernel amplifies noise by more than 1e6, the baseline by at most 5."""
    A = blur((1, 32, 32), std=2.0)
    noise = draw((1, 32, 32))

    assert float(A.pinv(noise).norm() / noise.norm()) > 1e6
    assert float(A.baseline(noise).norm() / noise.norm()) < 5


def test_baseline_restores_what_the_kernel_kept():
    """Where |h| is near 1, |h|^2 / (|h|^2 + 0.01) is near 1 too."""
    A = blur((1, 32, 32), std=2.0)
    wave = torch.cos(2 * math.pi * torch.arange(32, dtype=torch.float64) / 32).expand(1, 1, 32, 32)

    # h = exp(-2 (2 pi / 32)^2) = 0.926 at this frequency, which loses 0.01 / 0.867 = 1.2 %
    assert float((A.baseline(A(wave)) - wave).norm() / wave.norm()) < 0.013


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"kernel": "guassian"}, "did you mean 'gaussian'"),
        ({"kernel": torch.ones(3)}, r"kernel must be \(height, width\) \(got \(3,\)\)"),
        ({"kernel": torch.ones(0, 3)}, r"kernel must be \(height, width\) \(got \(0, 3\)\)"),
        ({"std": 0.0}, "std must be > 0"),
        ({"size": 0}, "size must be >= 1"),
        ({"angle": float("inf")}, r"angle must be finite \(got inf\)"),
        ({"length": -1.0}, "length must be > 0"),
    ],
)
def test_what_is_no_kernel_is_refused(params, message):
    """At construction, with the value that was given."""
    with pytest.raises(ValueError, match=message):
        blur(**params)
