"""Parallel and cone beams through volumes."""

import math

import astra
import pytest
import torch

from scoreplug import registry


def parallel3d(image_shape=(1, 5, 12, 10), **params):
    return registry.get_operator("astra-parallel3d", image_shape=image_shape, **params)


def cone(image_shape=(1, 24, 24, 24), **params):
    given = {"source_origin": 60.0, "origin_detector": 30.0, "angles": 6}
    return registry.get_operator("astra-cone", image_shape=image_shape, **{**given, **params})


def draw(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def relative(a, b):
    return float((a - b).norm() / b.norm())


def coordinates(shape, h=1.0, axis=(0.0, 0.0)):
    depth, height, width = shape
    z = (torch.arange(depth, dtype=torch.float64) - (depth - 1) / 2) * h
    y = ((height - 1) / 2 - torch.arange(height, dtype=torch.float64)) * h - axis[1]
    x = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) * h - axis[0]
    return x, y[:, None], z[:, None, None]


def rays(A):
    """Source and unit direction of every ray, from the definitions in the docstring, (angles, rows, columns, 3)."""
    scan = A.scan
    D, E = scan.distances
    theta = torch.deg2rad(torch.tensor(A.degrees, dtype=torch.float64))[:, None, None, None]
    columns, rows = ((torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * scan.detector_pixel_size
                     for n in scan.detectors)  # fmt: skip
    zero = torch.zeros_like(theta)
    u, v = torch.cat([theta.cos(), theta.sin(), zero], -1), torch.cat([-theta.sin(), theta.cos(), zero], -1)
    w = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    point = E * v + (columns + scan.detector_offset)[None, None, :, None] * u + rows[None, :, None, None] * w
    d = point + D * v
    return -D * v, d / d.norm(dim=-1, keepdim=True)


def distance(A, centre):
    source, d = rays(A)
    return torch.linalg.cross((torch.tensor(centre, dtype=torch.float64) - source).expand_as(d), d).norm(dim=-1)


# Toolbox's weights are of single precision, and so is its geometry: 12 pixels times 6e-8 of 12
@pytest.mark.parametrize(
    "params", [{}, {"axis_offset": (0.7, -0.4), "detector_offset": 0.3, "pixel_size": 0.5}], ids=str
)
def test_slices_of_a_parallel_beam_are_the_toolbox_s_own(params):
    """Where detector rows and slices coincide: our own weights against those of `linear`."""
    A = parallel3d(**params, angles=(2.0, 33.0, 80.0, 101.0, 190.0))
    planar = registry.get_operator("astra-parallel", image_shape=(5, 12, 10), angles=A.angles, **params)
    x = draw(2, *A.input_shape)

    y = A(x)

    assert y.shape == (2, 1, 5, 5, planar.output_shape[2])
    torch.testing.assert_close(y[:, 0].transpose(1, 2), planar(x[:, 0]), rtol=0, atol=1e-4)


def test_a_detector_row_between_two_slices_sees_their_mean():
    x = draw(1, 1, 2, 8, 8)
    between = parallel3d((1, 2, 8, 8), angles=(10.0, 70.0), detector_rows=1)
    slices = parallel3d((1, 2, 8, 8), angles=(10.0, 70.0))

    torch.testing.assert_close(between(x)[:, :, :, 0], slices(x).mean(3), rtol=1e-12, atol=1e-12)


def test_a_ball_has_chords():
    """2 sqrt(r^2 - d^2) through a ball off the centre, to a quarter of a voxel in the mean."""
    h, r, centre = 0.1, 0.8, (0.2, -0.1, 0.15)
    A = cone(pixel_size=h, source_origin=4.0, origin_detector=2.0)
    x, y, z = coordinates((24, 24, 24), h)
    fine = (torch.arange(4, dtype=torch.float64) - 1.5) * h / 4
    ball = torch.stack([
        ((x + a - centre[0]) ** 2 + (y + b - centre[1]) ** 2 + (z + c - centre[2]) ** 2 < r**2).double()
        for a in fine for b in fine for c in fine
    ]).mean(0)  # fmt: skip

    d = distance(A, centre)
    error = (A(ball[None, None])[0, 0] - 2 * (r**2 - d**2).clamp(min=0).sqrt()).abs()

    assert float(error[d < r].mean()) < h / 4
    assert float(error[d > r + 2 * h].max()) == 0


def test_a_gaussian_ball_has_gaussian_line_integrals():
    """Axis and detector off the centre; std is 6 voxels, and interpolation smooths by at most 1/6 voxel^2."""
    h, std, axis, centre = 0.1, 0.6, (0.15, -0.25), (0.1, 0.2, -0.1)
    A = cone((1, 40, 40, 40), pixel_size=h, axis_offset=axis, detector_offset=0.2, source_origin=6.0,
             origin_detector=2.0, angles=(0.0, 30.0, 135.0, 200.0), detectors=40, detector_rows=30)  # fmt: skip
    x, y, z = coordinates((40, 40, 40), h, axis)
    ball = torch.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2) / (2 * std**2))

    d = distance(A, centre)
    exact = math.sqrt(2 * math.pi) * std * torch.exp(-(d**2) / (2 * std**2))

    near = d < 1.2
    assert relative(A(ball[None, None])[0, 0][near], exact[near]) < 5e-3  # a quarter of a voxel's shift: 2e-2


def test_the_central_row_of_a_cone_is_a_fan():
    """Where the volume does not change along the axis. The fan's model of a ray is another: `line`."""
    x, y, _ = coordinates((1, 24, 24))
    image = torch.exp(-((x - 2) ** 2 + (y + 3) ** 2) / (2 * 4.0**2))
    A = cone((1, 5, 24, 24), detector_rows=3, detectors=40, angles=(5.0, 20.0, 100.0, 300.0))
    fan = registry.get_operator("astra-fan", image_shape=(1, 24, 24), source_origin=60.0, origin_detector=30.0,
                                detectors=40, angles=A.angles)  # fmt: skip

    found, expected = A(image.expand(1, 1, 5, 24, 24).contiguous())[0, 0, :, 1], fan(image[None, None])[0, 0]

    # a blob of 4 pixels: models differ by about 1/12 pixel^2 of smoothing, and `line` jumps
    assert relative(found, expected) < 1e-2


def test_a_cone_mirrors_with_the_volume():
    """Upside down, the detector is upside down; and the opposite side of the circle sees a volume turned by 180."""
    A = cone((1, 6, 10, 10), angles=(20.0, 200.0))
    x = draw(1, 1, 6, 10, 10)

    torch.testing.assert_close(A(x.flip(2)), A(x).flip(3), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(A(x.flip(3, 4))[:, :, 0], A(x)[:, :, 1], rtol=1e-10, atol=1e-10)


def test_from_afar_a_cone_is_a_parallel_beam():
    """Rays diverge by reach^2 / D, 1e-5 of a voxel."""
    x = draw(1, 1, 4, 8, 8)
    far = cone((1, 4, 8, 8), source_origin=1e7, origin_detector=0.0, detectors=11, detector_rows=4, angles=(13.0, 70.0))
    near = parallel3d((1, 4, 8, 8), detectors=11, angles=(13.0, 70.0))

    torch.testing.assert_close(far(x), near(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=str)
@pytest.mark.parametrize("make", [parallel3d, cone], ids=["parallel3d", "cone"])
def test_the_adjoint_is_the_transpose(make, dtype, bound):
    A = make((2, 4, 8, 9), angles=5)
    x, v = draw(2, *A.input_shape).to(dtype), draw(2, *A.output_shape).to(dtype)

    assert abs(float((A(x) * v).sum().double() / (x * A.adjoint(v)).sum().double()) - 1) < bound


@pytest.mark.parametrize("make", [parallel3d, cone], ids=["parallel3d", "cone"])
def test_a_volume_too_large_is_refused(make):
    with pytest.raises(ValueError, match=r"takes up to .* GB, more than memory = 0.5 GB"):
        make((1, 256, 256, 256), source_origin=1000.0, memory=0.5) if make is cone else make(
            (1, 256, 256, 256), memory=0.5
        )


def test_a_source_within_the_volume_is_refused():
    with pytest.raises(ValueError, match="source_origin must be larger than"):
        cone(source_origin=15.0)


@pytest.mark.skipif(astra.use_cuda(), reason="there is a CUDA device")
def test_without_a_graphics_card_cuda_is_refused():
    with pytest.raises(ValueError, match="needs a CUDA device"):
        cone(projector="cuda")


def test_calls_in_three_dimensions_turn_axes_both_ways(monkeypatch):
    """A graphics card's path, the matrix in the toolbox's place: rows upwards, (detector row, angle, column)."""
    from scoreplug_astra import _beam, _toolbox

    kept = cone((1, 4, 6, 5))
    monkeypatch.setattr(_toolbox, "has_gpu", lambda: True)

    def project(scan, x):
        y = kept(torch.from_numpy(x[:, None, :, ::-1].copy()))
        return y[:, 0].permute(0, 2, 1, 3).numpy()

    def backproject(scan, y):
        x = kept.adjoint(torch.from_numpy(y.transpose(0, 2, 1, 3).copy())[:, None])
        return x[:, 0].numpy()[:, :, ::-1]

    monkeypatch.setattr(_beam._toolbox, "project", project)
    monkeypatch.setattr(_beam._toolbox, "backproject", backproject)
    A = cone((1, 4, 6, 5), projector="cuda")
    x, v = draw(2, *A.input_shape), draw(2, *A.output_shape)

    torch.testing.assert_close(A(x), kept(x), rtol=1e-5, atol=1e-5)  # single precision, as the toolbox has
    torch.testing.assert_close(A.adjoint(v), kept.adjoint(v), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not astra.use_cuda(), reason="there is no CUDA device")
def test_on_a_graphics_card_the_calls_agree_with_the_matrix():
    """Run by whoever has one: a volume that no mirroring leaves alone."""
    x = draw(1, 1, 8, 10, 12)

    assert relative(cone((1, 8, 10, 12), projector="cuda")(x), cone((1, 8, 10, 12))(x)) < 1e-2
