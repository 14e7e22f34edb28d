"""The downsampling operator."""

import pytest
import torch

from scoreplug import registry


def downsampling(image_shape=(2, 4, 6), factor=2):
    return registry.get_operator("downsampling", image_shape=image_shape, factor=factor)


def test_averages_over_blocks():
    """The blocks of 0..5 and 6..11, two columns at a time."""
    y = downsampling((1, 2, 6))(torch.arange(12, dtype=torch.float64).reshape(1, 1, 2, 6))

    assert y.tolist() == [[[[3.5, 5.5, 7.5]]]]


def test_rows_of_the_matrix_are_orthogonal():
    """A A^T = I / f^2, and the norm is 1 / f."""
    A = downsampling(factor=2)
    y = torch.randn(3, 2, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    torch.testing.assert_close(A(A.adjoint(y)), y / 4, rtol=1e-14, atol=0)  # a mean of four equal terms
    assert A.norm == 0.5


def test_pinv_repeats_pixels():
    """The smallest image with the given means is constant on blocks."""
    A = downsampling(factor=2)
    y = torch.randn(3, 2, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    repeated = y.repeat_interleave(2, 2).repeat_interleave(2, 3)

    torch.testing.assert_close(A.pinv(y), repeated, rtol=1e-14, atol=1e-15)  # a few multiplications


@pytest.mark.parametrize("factor", [4, 5, 6])
def test_a_factor_that_does_not_divide_the_image_is_refused(factor):
    """No pixel is dropped in silence."""
    with pytest.raises(ValueError, match=rf"factor must divide .* \(4, 6\) \(got {factor}\)"):
        downsampling(factor=factor)


def test_factor_zero_is_refused():
    """A block has at least one pixel."""
    with pytest.raises(ValueError, match="factor must be >= 1"):
        downsampling(factor=0)
