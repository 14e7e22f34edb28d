"""colorization, walsh-hadamard, multi-coil-fourier: against numpy and scipy, and what they refuse."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from scoreplug import registry
from scoreplug.operator import matrix_of


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def multi_coil(image_shape=(2, 8, 8), image="complex", **params):
    return registry.get_operator("multi-coil-fourier", image_shape=image_shape, image=image, **params)


def test_colorization_is_the_mean_over_the_channels():
    """Equal weights are the default, as in DDRM."""
    x = draw(2, 3, 4, 5)

    y = registry.get_operator("colorization", image_shape=(3, 4, 5))(x)

    torch.testing.assert_close(y, x.mean(1, keepdim=True), rtol=0, atol=1e-15)  # rounding of three terms


def test_colorization_weighs_the_channels():
    """Each with its own weight, in their order; the norm is that of the weights."""
    w = (0.299, 0.587, 0.114)
    A, x = registry.get_operator("colorization", image_shape=(3, 4, 5), weights=w), draw(2, 3, 4, 5)

    y = A(x)

    torch.testing.assert_close(
        y[:, 0], w[0] * x[:, 0] + w[1] * x[:, 1] + w[2] * x[:, 2], rtol=0, atol=1e-15
    )  # as above
    assert A.norm == pytest.approx(math.hypot(*w), rel=1e-14)


def test_the_inverse_of_colorization_is_grey_for_equal_weights():
    """Of all images with one mean the one of equal channels has the smallest norm."""
    A, y = registry.get_operator("colorization", image_shape=(3, 4, 5)), draw(2, 1, 4, 5)

    torch.testing.assert_close(A.pinv(y), y.expand(2, 3, 4, 5), rtol=0, atol=1e-14)  # rounding of a 3 x 3 rotation


@pytest.mark.parametrize(
    "w", [(2.0,), (-2.0,), (1.0, 0.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (1.0, 1e-8, 0.0), (-0.3, 0.4)], ids=str
)
def test_the_first_singular_vector_of_colorization_is_along_the_weights(w):
    """Also where they are along the first axis, or nearly: a reflection between them would have no direction."""
    A = registry.get_operator("colorization", image_shape=(len(w), 1, 1), weights=w)
    first = torch.eye(len(w), dtype=torch.float64)[:1, :, None, None]

    unit = torch.tensor(w, dtype=torch.float64) / math.hypot(*w)
    torch.testing.assert_close(A.svd.V(first).flatten(), unit, rtol=0, atol=1e-15)  # rounding of entries below 1
    torch.testing.assert_close(A(A.svd.V(first)).flatten()[0].item(), math.hypot(*w), rtol=1e-15, atol=0)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.0, 0.0, 0.0), (1.0, math.inf, 1.0)], ids=["two", "zero", "inf"])
def test_colorization_wants_one_weight_for_each_channel(weights):
    """Else nothing, or nothing finite, would be measured."""
    with pytest.raises(ValueError, match=r"weights must be 3 finite numbers, one for each channel, .* \(got \("):
        registry.get_operator("colorization", image_shape=(3, 4, 5), weights=weights)


def test_walsh_hadamard_keeps_rows_of_scipys_matrix():
    """H P x with scipy's Hadamard matrix; the first row kept is the one of ones."""
    A = registry.get_operator("walsh-hadamard", image_shape=(1, 4, 8), fraction=0.3)
    M, H = matrix_of(A), torch.from_numpy(scipy.linalg.hadamard(32).astype(float)) / math.sqrt(32)

    permutation, _, rows = (constant.value for constant in A._draws)
    expected = torch.zeros_like(M)
    expected[:, permutation] = H[rows]
    assert A.output_shape == (1, 10)
    assert sorted(permutation.tolist()) == list(range(32))
    assert len(set(rows.tolist())) == 10
    torch.testing.assert_close(M, expected, rtol=0, atol=1e-15)  # one entry of +-1, divided once
    torch.testing.assert_close(M[0], torch.full((32,), 32**-0.5, dtype=torch.float64), rtol=0, atol=1e-15)


def test_walsh_hadamard_treats_channels_alike():
    """The same rows and the same permutation in each."""
    A = registry.get_operator("walsh-hadamard", image_shape=(3, 4, 8))
    one = registry.get_operator("walsh-hadamard", image_shape=(1, 4, 8))
    x = draw(2, 3, 4, 8)

    assert torch.equal(A(x), torch.cat([one(x[:, c : c + 1]) for c in range(3)], dim=1))


def test_walsh_hadamard_draws_others_with_another_seed():
    """Both the rows and the permutation."""
    one, other, again = (
        registry.get_operator("walsh-hadamard", image_shape=(1, 8, 8), seed=seed)._draws for seed in (0, 1, 0)
    )

    assert not torch.equal(one[0].value, other[0].value)
    assert not torch.equal(one[2].value, other[2].value)
    assert all(torch.equal(a.value, b.value) for a, b in zip(one, again, strict=True))


def test_all_rows_of_walsh_hadamard_lose_nothing():
    """H P is orthogonal."""
    A, x = registry.get_operator("walsh-hadamard", image_shape=(2, 8, 16), fraction=1.0), draw(2, 2, 8, 16)

    torch.testing.assert_close(A.adjoint(A(x)), x, rtol=0, atol=1e-14)  # 14 additions for each pixel


@pytest.mark.parametrize("fraction", [1e-9, 0.01])
def test_walsh_hadamard_always_keeps_the_mean(fraction):
    """A fraction that rounds to no row keeps that one."""
    A, x = registry.get_operator("walsh-hadamard", image_shape=(1, 4, 4), fraction=fraction), draw(2, 1, 4, 4)

    # orthonormal: the sum over 4 = sqrt(16)
    torch.testing.assert_close(A(x)[..., 0], x.sum((2, 3)) / 4, rtol=0, atol=1e-14)
    assert A.output_shape == (1, 1)


def test_walsh_hadamard_wants_a_power_of_two():
    """Sylvester's matrix exists for no other number of pixels."""
    with pytest.raises(ValueError, match=r"a power of two \(got 6 x 8\); use sides like"):
        registry.get_operator("walsh-hadamard", image_shape=(1, 6, 8))


@pytest.mark.parametrize("image", ["real", "complex"])
def test_multi_coil_is_numpys_transform_of_every_coils_image(image):
    """Real and imaginary part of the entries that the mask keeps, row by row."""
    A = multi_coil((2 if image == "complex" else 1, 6, 8), image, coils=3, acceleration=2.0)
    x = draw(1, *A.input_shape)

    y = A(x)[0]

    z = (x[0, 0] + 1j * x[0, 1] if image == "complex" else x[0, 0]).numpy()
    S, measured = A.sensitivities.value.numpy(), A.measured.numpy()
    k = np.stack([np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(s * z), norm="ortho"))[measured] for s in S])
    np.testing.assert_allclose(y, np.stack([k.real, k.imag]), rtol=0, atol=1e-14)  # two FFTs of 48 terms


def test_one_flat_coil_is_the_single_coil_operator():
    """With S = 1 it is `fourier`, mask and layout included."""
    flat = torch.stack([torch.ones(1, 6, 8), torch.zeros(1, 6, 8)])
    one = registry.get_operator("fourier", image_shape=(2, 6, 8), image="complex", acceleration=2.0, seed=4)
    A, x = multi_coil((2, 6, 8), maps=flat, acceleration=2.0, seed=4), draw(2, 2, 6, 8)

    torch.testing.assert_close(A(x), one(x), rtol=0, atol=1e-15)  # a product with 1


def test_own_maps_are_used_as_they_are(tmp_path):
    """From a file or a tensor, not normalised: twice the maps, twice the data."""
    maps = draw(2, 3, 4, 5)
    np.save(tmp_path / "maps.npy", 2 * maps.numpy())
    given, stored = (multi_coil((2, 4, 5), maps=m) for m in (maps, str(tmp_path / "maps.npy")))
    x = draw(1, 2, 4, 5, seed=1)

    assert given.output_shape[1] == 3
    torch.testing.assert_close(stored(x), 2 * given(x), rtol=1e-15, atol=0)


@pytest.mark.parametrize("image", ["real", "complex"])
def test_the_made_coils_see_every_pixel_once_in_all(image):
    """sum_c |S_c|^2 = 1: with all of k-space A^T A = I, and the norm is 1."""
    A = multi_coil((2 if image == "complex" else 1, 8, 8), image, coils=4, acceleration=1.0, center_fraction=0.0)
    x = draw(2, *A.input_shape)

    torch.testing.assert_close(A.adjoint(A(x)), x, rtol=0, atol=1e-14)  # FFTs of 64 terms, there and back
    assert A.norm == pytest.approx(1, rel=1e-4)  # power iteration's accuracy


def test_the_made_coils_differ_from_each_other_and_from_place_to_place():
    """Else several of them would tell no more than one. Each is strongest at the image's rim."""
    S = multi_coil((2, 16, 16), coils=4).sensitivities.value.abs()

    strongest = [divmod(int(s.argmax()), 16) for s in S]

    # angles 0, 90, 180, 270 degrees from the right, rows downwards; even sides have two middle pixels
    assert [column for _, column in strongest[::2]] == [15, 0]
    assert [row for row, _ in strongest[1::2]] == [15, 0]


def test_several_coils_determine_what_one_does_not():
    """Half of the columns: the least-squares solution of exact data is the image with 6 coils, and not with one."""
    x = draw(1, 2, 16, 16)
    six, one = (
        multi_coil((2, 16, 16), coils=c, acceleration=2.0, center_fraction=0.1, pinv_tolerance=1e-10) for c in (6, 1)
    )

    condition = six.norm / float(torch.linalg.svdvals(matrix_of(six))[-1])
    error = (six.pinv(six(x)) - x).norm() / x.norm()

    assert condition < 1e4
    # |x - A^+ y| <= |residual| / s_min; the second criterion of the stop is as good for data in the range
    assert float(error) <= 1e-10 * condition
    assert float((one.pinv(one(x)) - x).norm() / x.norm()) > 0.3  # half of the energy is not seen: sqrt(1/2)


def test_the_inverse_of_several_coils_meets_exact_data_to_its_tolerance():
    """|A A^+ y - y| <= tolerance |y| in the range of A, also in single precision."""
    A = multi_coil((2, 16, 16))
    y = A(draw(2, 2, 16, 16))

    for data in (y, y.float()):
        residual = (A(A.pinv(data)) - data).flatten(1).norm(dim=1)
        # the recursive residual drifts from the true one by rounding, 1e-6 at most
        assert bool((residual <= (A.pinv_tolerance + 1e-6) * data.flatten(1).norm(dim=1)).all())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"image_shape": (3, 4, 4), "image": "real"}, "a real image has one channel"),
        ({"image_shape": (1, 4, 4)}, "a complex image is"),
        ({"image_shape": (2, 4, 4), "maps": torch.zeros(2, 3, 4, 5)}, r"maps must be \(2, coils, 4, 4\)"),
        ({"image_shape": (2, 4, 4), "maps": torch.zeros(3, 4, 4, dtype=torch.complex64)}, "maps must be real"),
        ({"image_shape": (2, 4, 4), "mask": torch.zeros(4, 4)}, "mask measures no entry"),
        ({"image_shape": (2, 4, 4), "coils": 0}, "coils must be >= 1"),
    ],
)
def test_multi_coil_refuses_what_does_not_fit(params, message):
    """At construction, with what it should be."""
    with pytest.raises(ValueError, match=message):
        multi_coil(**params)


def test_an_array_of_complex_numbers_in_a_file_is_refused(tmp_path):
    """Its imaginary part would be lost in silence."""
    np.save(tmp_path / "maps.npy", np.ones((3, 4, 4)) * 1j)

    with pytest.raises(ValueError, match="maps must be real; give real and imaginary part as numbers of their own"):
        multi_coil((2, 4, 4), maps=str(tmp_path / "maps.npy"))
