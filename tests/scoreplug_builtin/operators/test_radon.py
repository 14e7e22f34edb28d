"""The Radon operator."""

import math

import numpy as np
import pytest
import torch
from skimage.data import shepp_logan_phantom
from skimage.transform import iradon, radon, resize

from scoreplug import registry
from scoreplug_builtin.operators._strips import projector


def radon_operator(image_shape=(1, 64, 64), **params):
    return registry.get_operator("radon", image_shape=image_shape, **params)


def blob(height, width, x, y, std):
    """A Gaussian of unit height at (x to the right, y upwards) from the axis in pixel (height // 2, width // 2)."""
    u = torch.arange(width, dtype=torch.float64) - width // 2
    v = height // 2 - torch.arange(height, dtype=torch.float64)
    return torch.exp(-((u - x) ** 2 + (v[:, None] - y) ** 2) / (2 * std**2))


def phantom():
    return torch.from_numpy(resize(shepp_logan_phantom(), (64, 64), anti_aliasing=True))


def relative(a, b):
    return float((a - b).norm() / b.norm())


def skimage_radon(image, degrees):
    return torch.from_numpy(radon(image.numpy(), theta=np.array(degrees), circle=False).T.copy())


# Both models smooth by 1/6 pixel^2 across oblique rays. What is left is skimage's sampling along the ray: it falls with
# the width of the structure. Measured: 2e-4, 1.2e-3 and 3.1e-3; a shift by a tenth of a pixel gives 2 to 50 times that.
@pytest.mark.parametrize(
    ("image", "bound"),
    [(blob(64, 64, 5.0, 4.0, 7.0), 4e-4), (blob(64, 64, 5.0, 4.0, 3.0), 2e-3), (phantom(), 5e-3)],
    ids=["wide-blob", "narrow-blob", "phantom"],
)
@pytest.mark.parametrize("angles", [30, 77], ids=str)
def test_agrees_with_skimage(image, bound, angles):
    """Axis, detector positions, sense of rotation and units are those of `skimage.transform.radon(circle=False)`."""
    A = radon_operator(angles=angles)

    assert relative(A(image[None, None])[0, 0], skimage_radon(image, A.degrees)) < bound


@pytest.mark.parametrize("shape", [(20, 33), (31, 18), (17, 17)], ids=str)
def test_agrees_with_skimage_for_odd_and_oblong_images(shape):
    """The axis is at (H // 2, W // 2), and detectors cover the diagonal of the square on the longer side."""
    image = blob(*shape, 1.0, -2.0, 2.5)
    A = radon_operator((1, *shape), angles=(0.0, 10.0, 77.0, 133.0, 200.0))

    # as the narrow blob above, which is a little wider
    assert relative(A(image[None, None])[0, 0], skimage_radon(image, A.degrees)) < 3e-3


def test_projects_a_gaussian_to_a_gaussian():
    """Its variance grows by that of pixel and bin, 1/12 each, and its centre is at x cos theta + y sin theta."""
    std, x, y = 4.0, 6.0, -3.0
    A = radon_operator(angles=(10.0, 15.0, 23.0, 60.0, 110.0, 163.0))  # oblique: bins and pixels do not line up
    theta = torch.deg2rad(torch.tensor(A.degrees, dtype=torch.float64))[:, None]
    t = torch.arange(A.output_shape[2], dtype=torch.float64) - A.output_shape[2] // 2
    variance = std**2 + 1 / 6
    t0 = x * theta.cos() + y * theta.sin()

    expected = std**2 * math.sqrt(2 * math.pi / variance) * torch.exp(-((t - t0) ** 2) / (2 * variance))

    # boxes are not Gaussians: their fourth cumulants, -1/120 each, change the peak by 3 / 24 / 60 / std^4 = 8e-6
    assert relative(A(blob(64, 64, x, y, std)[None, None])[0, 0], expected) < 2e-5


def test_right_angles_sum_rows_and_columns():
    """There pixels and bins coincide."""
    x = torch.rand(1, 1, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    y = radon_operator((1, 7, 5), angles=(0.0, 90.0), detectors=7)(x)[0, 0]

    # axis at row 3 and column 2, which is bin 3; upwards is towards row 0. Sines of right angles are zero to 1e-16
    torch.testing.assert_close(y[0, 1:6], x[0, 0].sum(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(y[1], x[0, 0].sum(1).flip(0), rtol=1e-14, atol=0)


def test_every_angle_sees_the_whole_mass():
    """The bins partition the plane, so each angle sums to the image, if it lies within reach."""
    x = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    A = radon_operator((3, 9, 12), angles=(0.0, 13.0, 45.0, 90.0, 120.0, 180.0, 271.0), detectors=21)

    mass = A(x).sum(-1)

    torch.testing.assert_close(mass, x.sum((2, 3))[..., None].expand_as(mass), rtol=1e-13, atol=0)  # 108 terms


@pytest.mark.parametrize(
    ("angle", "expected"),
    [(0.0, [0, 0, 0, 1, 0]), (90.0, [0, 0, 0, 0, 1]), (180.0, [0, 1, 0, 0, 0]), (270.0, [1, 0, 0, 0, 0])],
)
def test_a_pixel_casts_its_shadow_where_it_should(angle, expected):
    """One step to the right and two upwards of the axis: t = 1, 2, -1, -2 at the four right angles."""
    x = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    x[0, 0, 0, 3] = 1

    y = radon_operator((1, 5, 5), angles=(angle,), detectors=5)(x)

    # sin and cos of right angles are zero to 2e-16
    torch.testing.assert_close(y[0, 0, 0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14)


def test_a_pixel_at_45_degrees_has_its_closed_form():
    """The shadow is a triangle of base sqrt(2): the central bin holds all but two tips of (sqrt(2)/2 - 1/2)^2 each."""
    x = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    x[0, 0, 1, 1] = 1
    tip = (math.sqrt(0.5) - 0.5) ** 2

    y = radon_operator((1, 3, 3), angles=(45.0,))(x)

    expected = torch.tensor([0, tip, 1 - 2 * tip, tip, 0], dtype=torch.float64)
    torch.testing.assert_close(y[0, 0, 0], expected, rtol=0, atol=1e-15)  # rounding of a handful of operations


def test_the_stored_adjoint_is_the_transpose_entry_by_entry():
    """To the last bit, also after rounding to single precision."""
    matrices = projector(6, 7, (0.0, 20.0, 100.0), 9)

    for dtype in (torch.float64, torch.float32):
        A, At = matrices.like(torch.zeros(1, dtype=dtype))
        assert torch.equal(A.to_dense().T, At.to_dense())


def test_the_matrix_is_made_once_for_a_geometry():
    """Two operators of one geometry share it, whatever their channels."""
    first, second = (radon_operator((c, 10, 11), angles=(1.0, 2.0)) for c in (1, 3))

    assert first._projector is second._projector


def test_defaults_of_torch_do_not_matter_when_the_matrix_is_made():
    """Nothing of it lands on the default device."""
    projector.cache_clear()
    with torch.device("meta"):
        y = radon_operator((1, 6, 5), angles=3)(torch.ones(1, 1, 6, 5, device="cpu"))

    assert y.device.type == "cpu"
    assert float(y.sum()) == pytest.approx(90, rel=1e-6)  # 30 pixels at 3 angles, single precision


def test_a_number_of_angles_is_equispaced():
    """n angles in [0, 180), as skimage's examples have them."""
    assert radon_operator(angles=4).degrees == (0.0, 45.0, 90.0, 135.0)


def test_fewer_detectors_look_at_the_middle():
    """Bin detectors // 2 is on the axis for any number."""
    x = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    full, part = (radon_operator((1, 9, 9), angles=5, detectors=n)(x) for n in (13, 6))

    torch.testing.assert_close(part, full[..., 3:9], rtol=1e-14, atol=0)  # sums of another vector length


def test_backprojection_inverts_many_angles():
    """With pi / 2 * 64 angles or more the error is that of the band limit, small for a smooth image."""
    image = blob(64, 64, 5.0, 4.0, 6.0)[None, None]
    A = radon_operator(angles=120)

    # the strips smooth by 1/6 pixel^2 on the way out and on the way back: 2 * (1/3) / (2 * 36) = 0.9 % at the peak
    assert relative(A.filtered_backprojection(A(image)), image) < 0.012


def test_backprojection_filters_with_the_ramp_of_kak_and_slaney():
    """Eq. (3.61): h(0) = 1/4, h(n) = -1 / (pi n)^2 for odd n, else 0; without wrapping around the detector's ends."""
    A = radon_operator((1, 9, 12), angles=5, detectors=15)
    n = A.output_shape[2]
    y = torch.rand(2, *A.output_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    taps = [1 / 4, *(-1 / (math.pi * k) ** 2 if k % 2 else 0.0 for k in range(1, n))]
    ramp = torch.tensor([[taps[abs(i - j)] for j in range(n)] for i in range(n)], dtype=torch.float64)

    expected = math.pi / 5 * A.adjoint(y @ ramp)

    torch.testing.assert_close(A.filtered_backprojection(y), expected, rtol=0, atol=1e-14)  # FFTs of 32 terms


@pytest.mark.parametrize(("n", "bound"), [(30, 0.02), (180, 0.008)])
def test_backprojection_agrees_with_skimage(n, bound):
    """The same ramp, the same weight pi / n; only interpolation on the way back differs (measured: 1.2 % and 0.5 %)."""
    A = radon_operator(angles=n)
    y = A(phantom()[None, None])

    expected = iradon(y[0, 0].numpy().T, theta=np.array(A.degrees), circle=False, output_size=64)

    assert relative(A.baseline(y)[0, 0], torch.from_numpy(expected)) < bound


def test_backprojection_weighs_angles_by_their_distance():
    """180 angles over half a circle, over a full one, and each taken twice give the same image."""
    image = blob(32, 32, 2.0, 3.0, 3.0)[None, None]
    half = tuple(float(d) for d in range(180))
    full = tuple(2.0 * d for d in range(180))
    reference, *others = (
        A.filtered_backprojection(A(image))
        for A in (radon_operator((1, 32, 32), angles=a) for a in (half, full, half + half))
    )

    # exact for equal weights; leaving out the largest of 180 or 360 gaps costs up to 1/179
    assert all(relative(other, reference) < 0.006 for other in others)


def test_a_missing_wedge_does_not_brighten_the_image():
    """Angles over a right angle: each stands for its degree, not for two, and half of the contrast is there."""
    image = blob(32, 32, 0.0, 0.0, 3.0)[None, None]
    whole, wedge = (radon_operator((1, 32, 32), angles=tuple(map(float, range(n)))) for n in (180, 90))

    peaks = [float(A.filtered_backprojection(A(image))[0, 0, 16, 16]) for A in (whole, wedge)]

    # every angle adds the same to the peak of a round blob, up to the pixel's orientation
    assert peaks[1] / peaks[0] == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"angles": 0}, r"angles must be a number >= 1 or finite degrees, at least one \(got 0\)"),
        ({"angles": ()}, r"at least one \(got \(\)\)"),
        ({"angles": (1.0, float("inf"))}, "finite degrees"),
        ({"angles": (1.0, float("nan"))}, "angles must not be NaN"),
        ({"angles": 1.5}, "angles must be int or"),
        ({"detectors": 0}, "detectors must be >= 1"),
    ],
)
def test_a_geometry_that_makes_no_sense_is_refused(params, message):
    """At construction, with the value that was given."""
    with pytest.raises(ValueError, match=message):
        radon_operator(**params)
