"""Pictures, figure and report: what is shown, for every kind of run."""

import io

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from scoreplug import Measurement, registry
from scoreplug.run.baseline import baseline
from scoreplug.run.config import structure
from scoreplug.run.display import Picture, pictures, to_png
from scoreplug.run.figure import figure
from scoreplug.run.inputs import Subject
from scoreplug.run.metrics import metrics
from scoreplug.run.report import report
from scoreplug.run.result import Result

COST = {
    **{
        f"{what}{s}": 1 for what in ("evaluation", "vjp", "forward", "adjoint") for s in ("s", "_calls", "s_per_sample")
    },
    "sampling_seconds": 1.0,
    "wall_seconds": 2.0,
    "peak_memory_bytes": 1000,
    "chunks": 2,
    "chunks_reused": 1,
}


def result(operator="inpainting", shape=(1, 8, 8), n=6, *, truth=True, title="gaussian", **params):
    config = structure(
        {
            "model": title,
            "operator": operator,
            "conditioner": "dps",
            "sampler": "pc",
            "input": {"source": "ellipses", "noise_std": 0.1},
        }
    )
    x = torch.linspace(0, 1, int(np.prod(shape)), dtype=torch.float64).reshape(shape)
    A = registry.get_operator(operator, image_shape=shape, **params)
    measurement = Measurement(A, A(x[None])[0], 0.1)
    subject = Subject(
        measurement=measurement,
        truth=x if truth else None,
        data_range=(0.0, 1.0) if truth else None,
        range_origin="model",
    )
    samples = x.numpy() + 0.1 * np.random.default_rng(0).standard_normal((n, *shape))
    reference = baseline(measurement)
    return Result(
        config=config,
        subject=subject,
        baseline=reference,
        samples=samples,
        metrics=metrics(subject, samples, reference),
        cost=COST,
        provenance={"python": "3"},
    )


def test_every_picture_is_there():
    names = list(pictures(result(n=2)))

    assert names == ["truth", "measurement", "baseline", "mean", "std", "error", "sample 1", "sample 2"]


def test_what_needs_a_truth_or_several_samples_is_left_out_without():
    assert list(pictures(result(n=1, truth=False))) == ["measurement", "baseline", "mean", "sample 1"]


def test_images_share_the_scale_of_the_data():
    found = pictures(result())

    assert {(found[name].low, found[name].high) for name in ("truth", "baseline", "mean", "sample 1")} == {(0.0, 1.0)}


def test_the_error_is_drawn_symmetrically():
    error = pictures(result())["error"]

    assert error.low == -error.high
    assert error.high == np.abs(error.pixels).max()


def test_a_masked_measurement_is_drawn_in_its_place():
    r = result("inpainting", mask="random")

    picture = pictures(r)["measurement"]

    np.testing.assert_array_equal(picture.pixels, r.subject.measurement.operator.observed[0].numpy() * r.truth[0])


def test_a_sinogram_is_drawn_as_it_is():
    r = result("radon", angles=5)

    picture = pictures(r)["measurement"]

    np.testing.assert_array_equal(picture.pixels, r.subject.measurement.data[0].numpy())
    assert not picture.like_image


def test_an_operator_may_draw_its_measurement_itself():
    class Painted:
        input_shape = output_shape = (1, 2, 2)

        def __call__(self, x):
            return x

        def picture(self, y):
            return y[:, 0] + 1

    r = result()
    y = torch.zeros(1, 2, 2, dtype=torch.float64)
    subject = Subject(measurement=Measurement(Painted(), y, 0.1))

    from attrs import evolve

    picture = pictures(evolve(r, subject=subject, baseline=None))["measurement"]

    np.testing.assert_array_equal(picture.pixels, np.ones((2, 2)))


def test_a_complex_image_is_drawn_by_its_magnitude():
    r = result("fourier", (2, 8, 8), image="complex", acceleration=2.0)

    np.testing.assert_allclose(pictures(r)["truth"].pixels, np.hypot(*r.truth), rtol=1e-15)


def test_a_colour_image_is_drawn_in_colour():
    assert pictures(result(shape=(3, 8, 8)))["mean"].pixels.shape == (8, 8, 3)


def test_png_keeps_pixels():
    picture = Picture(np.array([[0.0, 1.0], [0.5, 2.0]]), 0.0, 1.0, "gray", "")

    pixels = imread(io.BytesIO(to_png(picture)))[..., 0]

    np.testing.assert_allclose(pixels, [[0, 1], [0.5, 1]], atol=1 / 255)  # 8 bits; beyond the scale is its end


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"n": 1},
        {"truth": False},
        {"operator": "radon", "angles": 5},
        {"operator": "fourier", "shape": (2, 8, 8), "image": "complex", "acceleration": 2.0},
        {"operator": "blur", "shape": (3, 9, 14)},
    ],
    ids=str,
)
def test_a_figure_and_a_report_are_drawn_for_every_kind_of_run(case):
    """A smoke test: the figure is a picture, and the report mentions the components."""
    r = result(**case)
    picture = figure(r)

    assert imread(io.BytesIO(picture)).shape[1] > 500
    assert "<h1>gaussian / " in report(r, picture)


def test_the_figure_leaves_pyplot_alone():
    from matplotlib import _pylab_helpers

    before = _pylab_helpers.Gcf.get_all_fig_managers()

    figure(result())

    assert before == _pylab_helpers.Gcf.get_all_fig_managers()
