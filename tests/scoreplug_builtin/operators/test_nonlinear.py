"""phase-retrieval and hdr: against numpy, with the symmetries and derivatives that they have."""

import numpy as np
import pytest
import torch

from scoreplug import registry
from scoreplug.protocols import LinearOperator


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def phases(image_shape=(1, 4, 4), **params):
    return registry.get_operator("phase-retrieval", image_shape=image_shape, **params)


def hdr(image_shape=(1, 1, 4), **params):
    return registry.get_operator("hdr", image_shape=image_shape, **params)


def row(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


def test_phase_retrieval_is_numpys_magnitude_of_the_padded_image():
    """Twice as high and wide by default, the origin of k-space in the middle; the norm is kept (Parseval)."""
    A, x = phases((2, 4, 5)), draw(1, 2, 4, 5)

    y = A(x)

    padded = np.pad(x[0].numpy(), ((0, 0), (2, 2), (2, 3)))
    expected = np.fft.fftshift(np.abs(np.fft.fft2(padded, norm="ortho")), axes=(1, 2))
    assert A.output_shape == y.shape[1:] == (2, 8, 10)
    np.testing.assert_allclose(y[0], expected, rtol=0, atol=1e-14)  # FFTs of 80 terms
    torch.testing.assert_close(y.norm(), x.norm(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("shape", [(4, 5), (5, 4), (5, 7), (1, 3), (3, 1)], ids=str)
def test_half_of_the_magnitudes_is_the_mirror_image_of_the_other(shape):
    """Whatever sides are odd: rows and columns with their own mirror image are there once."""
    A, x = phases((1, *shape), oversampling=1.0), draw(1, 1, *shape)

    expected = np.fft.fftshift(np.abs(np.fft.fft2(x[0].numpy(), norm="ortho")), axes=(1, 2))

    np.testing.assert_allclose(A(x)[0], expected, rtol=0, atol=1e-14)  # FFTs of up to 35 terms


def test_twice_the_side_holds_the_autocorrelation():
    """F^H y^2 is sum_r x(r) x(r + d) for all shifts d of the image against itself, without wrapping around."""
    A, x = phases((1, 3, 4)), draw(1, 1, 3, 4)

    correlation = torch.fft.ifft2(torch.fft.ifftshift(A(x)[0, 0], (-2, -1)) ** 2).real * 48  # 6 x 8, orthonormal

    for i in range(-2, 3):
        for j in range(-3, 4):
            pairs = [
                x[0, 0, r, s] * x[0, 0, r + i, s + j]
                for r in range(max(0, -i), min(3, 3 - i))
                for s in range(max(0, -j), min(4, 4 - j))
            ]
            assert float(correlation[i, j]) == pytest.approx(float(sum(pairs)), abs=1e-13)  # FFTs of 48 terms


def test_phase_retrieval_cannot_tell_an_image_from_its_twins():
    """Its negative, and its rotation by 180 degrees; it can tell it from its mirror image."""
    A, x = phases(), draw(1, 1, 4, 4)

    torch.testing.assert_close(A(-x), A(x), rtol=0, atol=0)
    torch.testing.assert_close(A(x.flip((-2, -1))), A(x), rtol=0, atol=1e-14)  # another order of summation
    assert not torch.allclose(A(x.flip(-1)), A(x), atol=0.1)


@pytest.mark.parametrize(("oversampling", "shape"), [(1.0, (4, 6)), (1.5, (6, 9)), (2.2, (9, 13))], ids=str)
def test_oversampling_is_the_ratio_of_the_sides(oversampling, shape):
    """Rounded; 1 adds nothing."""
    A, x = phases((1, 4, 6), oversampling=oversampling), draw(1, 1, 4, 6)

    assert A.output_shape == A(x).shape[1:] == (1, *shape)


def test_phase_retrieval_cannot_add_less_than_nothing():
    """A ratio below 1 would cut the image."""
    with pytest.raises(ValueError, match="oversampling must be >= 1"):
        phases(oversampling=0.5)


def test_the_magnitude_of_zero_has_the_derivative_zero():
    """|z| has none at z = 0: where the transform vanishes nothing flows back, and nowhere is it NaN."""
    A = phases((1, 1, 2), oversampling=1.0)  # F x = (x0 + x1, x0 - x1) / sqrt(2)
    x = row(1.0, 1.0)

    y, vjp = A.linearize(x)
    _, flat = A.linearize(0 * x)

    root = 0.5**0.5
    torch.testing.assert_close(y, row(0.0, 2 * root), rtol=1e-15, atol=0)  # the origin is in the middle
    assert torch.equal(vjp(row(1.0, 0.0)), row(0.0, 0.0))
    torch.testing.assert_close(vjp(row(0.0, 1.0)), row(root, root), rtol=1e-15, atol=0)
    assert torch.equal(flat(row(1.0, 1.0)), row(0.0, 0.0))


def test_hdr_clips_what_is_too_bright():
    """2 x up to 1, and 0 for what is below 0; the derivative is 2 inside and 0 where something was clipped."""
    A, x = hdr(), row(-0.2, 0.3, 0.49, 0.9)

    value, vjp = A.linearize(x)

    torch.testing.assert_close(value, row(0.0, 0.6, 0.98, 1.0), rtol=1e-15, atol=0)
    assert torch.equal(vjp(row(3.0, 5.0, 7.0, 9.0)), row(0.0, 10.0, 14.0, 0.0))


def test_an_offset_carries_the_problem_on_minus_one_to_one_over_to_zero_to_one():
    """With x = (u + 1) / 2, clip(2 x - 1/2, 0, 1) is (clip(2 u, -1, 1) + 1) / 2."""
    u = draw(2, 1, 5, 5)
    signed, unsigned = hdr((1, 5, 5), low=-1.0), hdr((1, 5, 5), offset=-0.5)

    torch.testing.assert_close(unsigned((u + 1) / 2), (signed(u) + 1) / 2, rtol=0, atol=1e-15)  # three roundings
    torch.testing.assert_close(signed(u), (2 * u).clamp(-1, 1), rtol=0, atol=0)


@pytest.mark.parametrize("low", [0.5, 1.0])
def test_hdr_refuses_an_empty_range(low):
    """Every image would look alike."""
    with pytest.raises(ValueError, match=r"low must be < high = 0.5 \(got "):
        hdr(low=low, high=0.5)


@pytest.mark.parametrize("name", ["phase-retrieval", "hdr"])
def test_the_jacobian_is_the_limit_of_differences(name):
    """And the value that comes with it is A(x)."""
    A, x = registry.get_operator(name, image_shape=(1, 4, 4)), 0.2 + 0.1 * draw(2, 1, 4, 4)
    u, v, h = draw(2, 1, 4, 4, seed=1), draw(2, *A.output_shape, seed=2), 1e-5

    value, vjp = A.linearize(x)

    slope = ((A(x + h * u) - A(x - h * u)) / (2 * h) * v).flatten(1).sum(1)
    # central differences: h^2 = 1e-10 times third derivatives, of 1 / |z|^2 < 1e3; rounding, 1e-16 / h, is 1e-11
    torch.testing.assert_close((vjp(v) * u).flatten(1).sum(1), slope, rtol=0, atol=1e-6)
    assert torch.equal(value, A(x))
    assert not isinstance(A, LinearOperator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
@pytest.mark.parametrize("name", ["phase-retrieval", "hdr"])
def test_type_batch_and_input_are_kept(name, dtype):
    """A sample is the same alone and in a batch, and x is not written to."""
    A, x = registry.get_operator(name, image_shape=(1, 4, 4)), draw(3, 1, 4, 4).to(dtype)
    kept = x.clone()

    y = A(x)

    assert y.dtype == dtype
    assert torch.equal(x, kept)
    torch.testing.assert_close(A(x[1:2]), y[1:2], rtol=0, atol=8 * torch.finfo(dtype).eps)  # FFTs of other batches
