"""Random ellipse phantoms."""

from __future__ import annotations

import numpy as np
import pytest

from scoreplug.data.ellipses import Ellipses


def draw_densely(seed: int, split: int, index: int, size: int) -> np.ndarray:
    """The definition, pixel by pixel on the whole grid, from the same stream of uniform numbers."""
    bits = np.random.Philox(np.random.SeedSequence((seed, split, index)))
    u = np.random.Generator(bits).random((7, 70))
    arrivals = np.cumsum(-np.log(1 - u[0]))
    centres = (np.arange(2 * size) + 0.5) / size - 1
    y, x = np.meshgrid(centres, centres, indexing="ij")
    image, touched = np.zeros_like(x), np.zeros_like(x, dtype=bool)
    for k in range(70):
        if arrivals[k] >= 40:
            break
        a, b = -0.2 * np.log(1 - u[2, k]), -0.2 * np.log(1 - u[3, k])
        dx, dy, angle = x - (1.8 * u[4, k] - 0.9), y - (1.8 * u[5, k] - 0.9), 2 * np.pi * u[6, k]
        along, across = np.cos(angle) * dx + np.sin(angle) * dy, -np.sin(angle) * dx + np.cos(angle) * dy
        inside = (along / a) ** 2 + (across / b) ** 2 <= 1
        image = image + (1.4 * u[1, k] - 0.4) * inside
        touched |= inside
    image = np.where(touched, image - image[touched].min(), 0)
    image = (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4
    return image / image.max()


@pytest.mark.parametrize("index", range(4))
def test_an_image_is_the_sum_of_its_ellipses(index):
    """Drawing inside bounding boxes leaves no pixel out."""
    image = Ellipses(size=48, seed=3, split="held-out").batch([index])[0, 0]

    # float32 rounds values up to 1 by 6e-8; a pixel on the wrong side of an edge would differ by about 0.1
    np.testing.assert_allclose(image, draw_densely(3, 1, index, 48), atol=1e-6)


def test_values_fill_the_unit_interval():
    images = Ellipses(size=32).batch(range(20))

    np.testing.assert_array_equal(images.max((1, 2, 3)), 1)
    assert images.min() == 0


def test_seeds_are_different_sets():
    assert not np.array_equal(Ellipses(size=16, seed=0).batch([0]), Ellipses(size=16, seed=1).batch([0]))


def test_the_pixels_have_the_known_mean_and_deviation():
    """As measured on 1000 other images of the same distribution: 0.239 and 0.227."""
    images = Ellipses(size=64, seed=5).batch(range(200))

    # The mean of one image varies by 0.08, that of 200 by 0.006; three of these
    assert images.mean() == pytest.approx(0.239, abs=0.018)
    assert images.std() == pytest.approx(0.227, abs=0.018)


def test_the_set_that_the_shipped_weights_were_trained_on_stays_as_it_is():
    """Drawn with this code and NumPy 2 in November 2026; `ellipses-64` is valid for this distribution only."""
    image = Ellipses().batch([0])[0, 0]

    # six digits of printed values
    assert image.mean() == pytest.approx(GOLDEN_MEAN, abs=1e-6)
    np.testing.assert_allclose(image[32, 10:60:10], GOLDEN_ROW, atol=1e-6)


GOLDEN_MEAN = 0.239909
GOLDEN_ROW = (0.101784, 0.176461, 0.528330, 0.392900, 0.320788)
