"""phase-retrieval and hdr: against numpy, with the symmetries and derivatives that they have."""

import numpy as np
import pytest
import torch

from scoreplug import registry
from scoreplug.protocols import LinearOperator


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_phase_retrieval_is_numpys_magnitude_of_the_padded_image():
    A, x = registry.get_operator("phase-retrieval", image_shape=(2, 4, 5)), draw(1, 2, 4, 5)

    y = A(x)

    padded = np.pad(x[0].numpy(), ((0, 0), (2, 2), (2, 3)))
    expected = np.fft.fftshift(np.abs(np.fft.fft2(padded, norm="ortho")), axes=(1, 2))
    np.testing.assert_allclose(y[0], expected, atol=1e-13)
    assert A.output_shape == (2, 8, 10)
    torch.testing.assert_close(y.norm(), x.norm())  # Parseval


def test_phase_retrieval_cannot_tell_an_image_from_its_twin():
    A, x = registry.get_operator("phase-retrieval", image_shape=(1, 4, 4)), draw(1, 1, 4, 4)

    torch.testing.assert_close(A(-x), A(x))
    torch.testing.assert_close(A(x.flip((-2, -1))), A(x), rtol=1e-12, atol=1e-12)


def test_phase_retrieval_without_oversampling_keeps_the_shape():
    assert registry.get_operator("phase-retrieval", image_shape=(1, 4, 6), oversampling=0.0).output_shape == (1, 4, 6)


def test_hdr_clips_what_is_too_bright():
    A = registry.get_operator("hdr", image_shape=(1, 1, 4))
    x = torch.tensor([-0.2, 0.3, 0.5, 0.9], dtype=torch.float64).reshape(1, 1, 1, 4)

    value, vjp = A.linearize(x)

    torch.testing.assert_close(value.flatten(), torch.tensor([0.0, 0.6, 1.0, 1.0], dtype=torch.float64))
    inside = torch.tensor([0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(vjp(torch.ones_like(x)).flatten()[[0, 1]], inside)
    assert float(vjp(torch.ones_like(x)).flatten()[3]) == 0


def test_hdr_refuses_an_empty_range():
    with pytest.raises(ValueError, match="low must be < high"):
        registry.get_operator("hdr", image_shape=(1, 2, 2), low=1.0, high=0.5)


@pytest.mark.parametrize("name", ["phase-retrieval", "hdr"])
def test_the_jacobian_is_the_limit_of_differences(name):
    A, x = registry.get_operator(name, image_shape=(1, 4, 4)), 0.2 + 0.1 * draw(2, 1, 4, 4)
    u, v, h = draw(2, 1, 4, 4, seed=1), draw(2, *A.output_shape, seed=2), 1e-6

    value, vjp = A.linearize(x)

    slope = ((A(x + h * u) - A(x - h * u)) / (2 * h) * v).flatten(1).sum(1)
    torch.testing.assert_close((vjp(v) * u).flatten(1).sum(1), slope, rtol=1e-6, atol=1e-6)
    assert torch.equal(value, A(x))
    assert not isinstance(A, LinearOperator)


@pytest.mark.parametrize("name", ["phase-retrieval", "hdr"])
def test_zero_has_a_derivative(name):
    """|z| has none at z = 0; what is taken is not NaN."""
    A = registry.get_operator(name, image_shape=(1, 4, 4))

    _, vjp = A.linearize(torch.zeros(1, 1, 4, 4, dtype=torch.float64))

    assert bool(vjp(torch.ones(1, *A.output_shape, dtype=torch.float64)).isfinite().all())
