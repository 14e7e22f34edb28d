"""Parallel and fan beams against closed forms, against `radon`, and against each other."""

import math
import threading

import astra
import pytest
import torch

from scoreplug import registry

FAN = {"source_origin": 30.0, "origin_detector": 12.0}


def parallel(image_shape=(1, 64, 64), **params):
    return registry.get_operator("astra-parallel", image_shape=image_shape, **params)


def fan(image_shape=(1, 64, 64), **params):
    return registry.get_operator("astra-fan", image_shape=image_shape, **{**FAN, **params})


def grid(height, width, h, axis=(0.0, 0.0)):
    """(x, y) of the pixel centres, from the axis."""
    x = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) * h - axis[0]
    y = ((height - 1) / 2 - torch.arange(height, dtype=torch.float64)) * h - axis[1]
    return x, y[:, None]


def blob(height, width, h, x0, y0, std, axis=(0.0, 0.0)):
    x, y = grid(height, width, h, axis)
    return torch.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * std**2))


def rays(A):
    """A point and the unit direction of every ray, from the definitions in the docstrings, (angles, bins, 2)."""
    scan = A.scan
    theta = torch.deg2rad(torch.tensor(A.degrees, dtype=torch.float64))[:, None, None]
    s = (torch.arange(scan.detectors[0], dtype=torch.float64) - (scan.detectors[0] - 1) / 2) * scan.detector_pixel_size
    s = (s + scan.detector_offset)[None, :, None]
    u = torch.cat([theta.cos(), theta.sin()], -1)
    v = torch.cat([-theta.sin(), theta.cos()], -1)
    if not scan.distances:
        return s * u, v.expand(-1, s.shape[1], -1)
    source, point = -scan.distances[0] * v, scan.distances[1] * v + s * u
    return point, (point - source) / (point - source).norm(dim=-1, keepdim=True)


def distance(A, x0, y0):
    """Of every ray from a point."""
    point, d = rays(A)
    w = torch.tensor([x0, y0], dtype=torch.float64) - point
    return (w[..., 0] * d[..., 1] - w[..., 1] * d[..., 0]).abs()


def relative(a, b):
    return float((a - b).norm() / b.norm())


def draw(*shape, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


MODELS = [(parallel, "linear"), (parallel, "line"), (parallel, "strip"), (fan, "line"), (fan, "strip")]
MODEL_IDS = [f"{make.__name__}-{projector}" for make, projector in MODELS]


# The standard deviation is 8 pixels, and the edges are four of them away. Smoothing by pixel and bin changes the blob's
# variance by at most (1 + 1.4^2) / 12 pixel^2, 0.4 %, and the projection by no more. What `line` adds is the jump of a
# ray's length in a pixel, a part of a pixel's contrast. Measured: 1 to 3e-3, `line` 8 and
# 11e-3; a shift by a quarter of a pixel gives 17e-3.
@pytest.mark.parametrize(("make", "projector"), MODELS, ids=MODEL_IDS)
def test_a_gaussian_has_gaussian_line_integrals(make, projector):
    """In lengths, for pixels and bins of different sizes, off the axis and off the centre of the detector."""
    h, std, axis = 0.05, 0.4, (0.13, -0.31)
    offset = 0.0 if (make, projector) == (fan, "strip") else 0.21
    A = make((1, 90, 80), pixel_size=h, axis_offset=axis, detector_offset=offset, detector_pixel_size=0.07,
             angles=(3.0, 40.0, 45.0, 90.0, 200.0), projector=projector, detectors=120)  # fmt: skip

    y = A(blob(90, 80, h, 0.2, -0.1, std, axis)[None, None])[0, 0]

    exact = math.sqrt(2 * math.pi) * std * torch.exp(-(distance(A, 0.2, -0.1) ** 2) / (2 * std**2))
    assert y.shape == exact.shape == (5, 120)
    assert relative(y, exact) < (1.4e-2 if projector == "line" else 4e-3)


@pytest.mark.parametrize(("make", "projector"), MODELS, ids=MODEL_IDS)
def test_a_disc_has_chords(make, projector):
    """2 sqrt(r^2 - d^2): the mean error over rays that hit it stays below a quarter of a pixel of the ray's length."""
    h, r = 0.05, 1.1
    x, y = grid(64, 64, h)
    fine = (torch.arange(8, dtype=torch.float64) - 3.5) * h / 8
    inside = [((x + a - 0.1) ** 2 + (y + b + 0.2) ** 2 < r**2).double() for a in fine for b in fine]
    disc = torch.stack(inside).mean(0)  # pixels hold the share of their area that is in the disc
    A = make((1, 64, 64), pixel_size=h, angles=24, projector=projector)

    d = distance(A, 0.1, -0.2)
    chord = 2 * (r**2 - d**2).clamp(min=0).sqrt()
    error = (A(disc[None, None])[0, 0] - chord).abs()

    away = d < r - 2 * h  # at the rim the chord has a vertical tangent
    assert float(error[d < r].mean()) < h / 4
    assert float(error[d > r + 2 * h].max()) == 0
    # a boundary is met twice, each time within half a pixel's diagonal across the ray over the sine of incidence
    assert float(error[away].max()) < 2 * h


def test_an_ellipse_has_its_closed_form():
    """2 a b sqrt(q - s^2) / q with q = a^2 cos^2 + b^2 sin^2."""
    h, a, b = 0.02, 0.9, 0.5
    x, y = grid(128, 128, h)
    fine = (torch.arange(4, dtype=torch.float64) - 1.5) * h / 4
    ellipse = torch.stack([(((x + p) / a) ** 2 + ((y + q) / b) ** 2 < 1).double() for p in fine for q in fine]).mean(0)
    A = parallel((1, 128, 128), pixel_size=h, angles=(0.0, 20.0, 90.0, 130.0))

    theta = torch.deg2rad(torch.tensor(A.degrees, dtype=torch.float64))[:, None]
    s = (torch.arange(A.output_shape[2], dtype=torch.float64) - (A.output_shape[2] - 1) / 2) * h
    q = a**2 * theta.cos() ** 2 + b**2 * theta.sin() ** 2
    exact = 2 * a * b * (q - s**2).clamp(min=0).sqrt() / q

    # the mean over all rays; half a pixel along each ray would be 1e-2
    assert float((A(ellipse[None, None])[0, 0] - exact).abs().mean()) < h / 10


# The toolbox takes areas as differences at positions of up to 45 in single precision, 45 * 6e-8 each; measured 4e-6.
# `linear` and `line` are other models of the pixel: they differ from areas by 1/12 pixel^2 of smoothing, 1/24 |f''| of
# a blob of 6 pixels, 2e-3 of its peak.
@pytest.mark.parametrize(("projector", "bound"), [("strip", 1e-5), ("linear", 3e-3), ("line", 1e-2)])
@pytest.mark.parametrize("shape", [(64, 64), (63, 50)], ids=str)
def test_in_the_geometry_of_radon_it_is_radon(projector, bound, shape):
    """Axis in the middle of pixel (H // 2, W // 2) and of bin detectors // 2."""
    height, width = shape
    radon = registry.get_operator(
        "radon", image_shape=(1, *shape), angles=(0.0, 10.0, 77.0, 133.0, 200.0), detectors=90
    )
    axis = (0.5 * (width % 2 == 0), -0.5 * (height % 2 == 0))
    A = parallel((1, *shape), angles=radon.angles, detectors=90, axis_offset=axis, detector_offset=-0.5,
                 projector=projector)  # fmt: skip
    x = blob(height, width, 1.0, 3.0, -5.0, 6.0)[None, None]

    assert relative(A(x), radon(x)) < bound


@pytest.mark.parametrize("projector", ["line", "strip"])
def test_a_fan_from_afar_is_a_parallel_beam(projector):
    """Rays of a fan diverge by reach / D: over the image that is a shift of reach^2 / D = 2e-2 pixels."""
    angles, far = (5.0, 33.0, 120.0, 250.0), 1e5
    x = blob(64, 64, 1.0, 3.0, -5.0, 6.0)[None, None]

    found = fan(angles=angles, source_origin=far, origin_detector=far, detector_pixel_size=2.0, detectors=91,
                projector=projector)(x)  # fmt: skip

    # single precision of the toolbox at distances of 1e5 leaves 6e-3 pixels; the blob is 6 wide. Measured: 2e-4
    expected = parallel(angles=angles, detectors=91, projector=projector)(x)
    assert relative(found, expected) < 1e-3


def test_magnification_stretches_the_image_of_a_fan():
    """The same rays on a detector twice as far, with bins twice as wide."""
    x = draw(1, 1, 20, 20)
    near = fan((1, 20, 20), source_origin=40.0, origin_detector=0.0, detector_pixel_size=1.0, detectors=40)
    far = fan((1, 20, 20), source_origin=40.0, origin_detector=40.0, detector_pixel_size=2.0, detectors=40)

    torch.testing.assert_close(near(x), far(x), rtol=1e-4, atol=1e-4)  # the toolbox's geometry is of single precision


@pytest.mark.parametrize(("make", "projector"), MODELS, ids=MODEL_IDS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=str)
def test_the_adjoint_is_the_transpose(make, projector, dtype, bound):
    A = (
        make((2, 24, 20), projector=projector, angles=7, pixel_size=0.1, source_origin=3.0)
        if make is fan
        else make((2, 24, 20), projector=projector, angles=7, pixel_size=0.1)
    )
    x, v = draw(3, *A.input_shape, dtype=dtype), draw(3, *A.output_shape, dtype=dtype)

    forward, backward = (A(x) * v).sum().double(), (x * A.adjoint(v)).sum().double()

    assert A.keeps_matrix
    assert abs(float(forward / backward) - 1) < bound


@pytest.mark.parametrize(("make", "projector"), MODELS, ids=MODEL_IDS)
def test_calls_of_the_toolbox_agree_with_the_matrix(make, projector):
    """Up to the single precision that they compute in: sums over 60 pixels, 60 * 6e-8."""
    kept, calls = (
        make((2, 32, 28), projector=projector, angles=9),
        make((2, 32, 28), projector=projector, angles=9, memory=0.0),
    )
    x, v = draw(2, *kept.input_shape), draw(2, *kept.output_shape)

    assert kept.keeps_matrix
    assert not calls.keeps_matrix
    assert calls(x).dtype == torch.float64
    assert relative(calls(x), kept(x)) < 4e-6
    assert relative(calls.adjoint(v), kept.adjoint(v)) < 4e-6
    forward, backward = (calls(x) * v).sum(), (x * calls.adjoint(v)).sum()
    assert abs(float(forward / backward) - 1) < 4e-6


@pytest.mark.parametrize("memory", [2.0, 0.0], ids=["matrix", "calls"])
@pytest.mark.parametrize("make", [parallel, fan], ids=["parallel", "fan"])
def test_the_gradient_is_the_adjoint_and_can_be_differentiated(make, memory):
    A = make((1, 16, 16), angles=5, memory=memory)
    x, v = draw(2, *A.input_shape).requires_grad_(), draw(2, *A.output_shape).requires_grad_()

    (g,) = torch.autograd.grad(A(x), x, v, create_graph=True)
    (h,) = torch.autograd.grad(g, v, torch.ones_like(g))

    tolerance = 1e-12 if memory else 1e-5
    torch.testing.assert_close(g, A.adjoint(v), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(h, A(torch.ones_like(x)), rtol=tolerance, atol=tolerance * 16)


def test_filtered_backprojection_recovers_lengths():
    """Other pixels, other bins: a blob comes back with its own values."""
    x = blob(64, 64, 0.1, 0.4, -0.7, 0.6)[None, None]
    A = parallel(angles=180, pixel_size=0.1, detector_pixel_size=0.07)

    # interpolation in A and A^T smooths by about 1/6 pixel^2 each: (1/6 + 1/6) / 36 of the curvature, 1 %
    assert relative(A.filtered_backprojection(A(x)), x) < 2e-2


def test_the_pseudoinverse_fits_the_data():
    x = blob(32, 32, 1.0, 3.0, -2.0, 4.0)[None, None]
    A = fan((1, 32, 32), angles=40, pinv_tolerance=1e-3)

    assert relative(A(A.pinv(A(x))), A(x)) <= 1e-3


def test_the_objects_of_the_toolbox_are_freed(capfd):
    """Its tables are as long after use as before."""

    def listed():
        capfd.readouterr()
        for table in (astra.data2d, astra.projector, astra.matrix, astra.algorithm):
            table.info()
        return capfd.readouterr().out

    before = listed()
    A = parallel((1, 12, 11), angles=3, memory=0.0)
    A.adjoint(A(draw(2, *A.input_shape)))
    _ = parallel((1, 12, 11), angles=3)(draw(2, *A.input_shape))

    assert listed() == before


def test_threads_share_the_toolbox():
    operators = [parallel((1, 20 + i, 20), angles=6, memory=0.0) for i in range(4)]
    expected = [A(draw(1, *A.input_shape)) for A in operators]
    found = {}

    def work(i):
        A = operators[i % 4]
        found[i] = A(draw(1, *A.input_shape))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(torch.equal(found[i], expected[i % 4]) for i in range(16))


def test_angles_are_a_number_in_a_range_or_degrees():
    assert parallel(angles=4).degrees == (0.0, 45.0, 90.0, 135.0)
    assert fan(angles=4, source_origin=100.0).degrees == (0.0, 90.0, 180.0, 270.0)
    assert parallel(angles=3, angle_range=(-30.0, 60.0)).degrees == (-30.0, 0.0, 30.0)
    assert parallel(angles=[1.0, 2.5]).degrees == (1.0, 2.5)


@pytest.mark.parametrize("make", [parallel, fan], ids=["parallel", "fan"])
def test_without_a_number_the_detector_covers_the_image(make):
    """No ray beyond its ends would meet it, and one bin less would lose a corner."""
    params = {"axis_offset": (1.5, -2.0), "angles": 90, "angle_range": (0.0, 360.0), "source_origin": 40.0}
    params = {k: v for k, v in params.items() if make is fan or k != "source_origin"}
    A = make((1, 21, 17), **params)
    wide, short = (
        make((1, 21, 17), **params, detectors=A.output_shape[2] + 20),
        make((1, 21, 17), **params, detectors=A.output_shape[2] - 6),
    )
    x = torch.ones(1, *A.input_shape, dtype=torch.float64)

    assert float(A(x).sum()) == pytest.approx(float(wide(x).sum()), rel=1e-6)
    assert float(short(x).sum()) < float(wide(x).sum()) - 1e-3


@pytest.mark.parametrize(
    ("make", "params", "message"),
    [
        (parallel, {"angles": ()}, "at least one"),
        (parallel, {"angles": (0.0, math.nan)}, "NaN|finite"),
        (parallel, {"projector": "strop"}, "did you mean 'strip'"),
        (fan, {"source_origin": 45.0}, "source_origin must be larger than 45.25"),
        (fan, {"source_origin": 100.0, "projector": "strip", "detector_offset": 1.0}, "knows no detector_offset"),
    ],
)
def test_what_cannot_be_is_refused(make, params, message):
    with pytest.raises(ValueError, match=message):
        make(**params)


@pytest.mark.skipif(astra.use_cuda(), reason="there is a CUDA device")
def test_without_a_graphics_card_cuda_is_refused():
    with pytest.raises(ValueError, match="needs a CUDA device"):
        parallel(projector="cuda")


@pytest.mark.skipif(not astra.use_cuda(), reason="there is no CUDA device")
def test_on_a_graphics_card_the_calls_agree_with_the_processor():
    """Run by whoever has one."""
    x = blob(64, 64, 1.0, 3.0, -5.0, 6.0)[None, None]

    assert relative(parallel(projector="cuda")(x), parallel()(x)) < 1e-3
    assert relative(fan(projector="cuda", source_origin=100.0)(x), fan(source_origin=100.0)(x)) < 1e-2
