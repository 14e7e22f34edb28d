"""Random ellipse phantoms, the usual training set of learned tomography, made on the fly.

An image is a sum of min(N, 70) ellipses on the square [-1, 1]^2, N ~ Poisson(40), each with

    value ~ U(-0.4, 1),   half axes ~ 0.2 Exp(1),   centre ~ U(-0.9, 0.9)^2,   angle ~ U(0, 2 pi).

Every pixel that an ellipse touches is then shifted so that the smallest of them is 0, and the image is divided by its
maximum. It is drawn at twice the resolution and averaged over 2x2 (after the shift, so that an edge pixel is the mean
of what it covers).

References:
    Adler, Oektem: Solving ill-posed inverse problems using iterative deep neural networks. Inverse Problems 33, 2017,
    arXiv:1704.04058.
    Leuschner, Schmidt, Otero Baguer, Maass: LoDoPaB-CT, a benchmark dataset for low-dose computed tomography
    reconstruction. Scientific Data 8, 2021, doi:10.1038/s41597-021-00893-z; its library, DIVal, has these parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from scoreplug.data._source import Split, check_indices
from scoreplug.param import param

MOST = 70  # ellipses in one image
MEAN_COUNT = 40.0
FINE = 2  # sub-pixels per pixel and direction


@attrs.frozen(kw_only=True)
class Ellipses:
    """Endless images of random ellipses, values in [0, 1].

    Image i of a split is drawn from its own stream (seed, split, i): it never depends on which others are asked for.
    """

    size: int = param(64, ge=2, unit="pixel", doc="height and width of the image")
    seed: int = param(0, ge=0, doc="of the whole set; each seed is another set")
    split: Split = param("train", doc="'train' or 'held-out'; the two have no image in common")

    @property
    def shape(self) -> tuple[int, int, int]:
        return (1, self.size, self.size)

    @property
    def count(self) -> None:
        return None

    @property
    def data_range(self) -> tuple[float, float]:
        return (0.0, 1.0)

    @property
    def licence(self) -> str:
        return "none needed: the images are computed"

    @property
    def held_out(self) -> Ellipses:
        return attrs.evolve(self, split="held-out")

    def batch(self, indices: Sequence[int]) -> np.ndarray:
        """Images number `indices`, (B, 1, size, size) float32."""
        check_indices(indices, self.count)
        stream = int(self.split == "held-out")
        images = [_draw(np.random.Philox(np.random.SeedSequence((self.seed, stream, i))), self.size) for i in indices]
        return np.stack(images)[:, None]


def _draw(bits: np.random.Philox, size: int) -> np.ndarray:
    # Only the generator's uniform numbers are used, since NumPy promises their stream alone for all its versions.
    uniform = np.random.Generator(bits).random((7, MOST))
    # The arrivals of a Poisson process of rate 1 before time 40 are Poisson(40) in number, here capped at 70.
    count = int(np.searchsorted(np.cumsum(_exponential(uniform[0])), MEAN_COUNT))
    value = -0.4 + 1.4 * uniform[1]
    a, b = 0.2 * _exponential(uniform[2:4])
    x, y = -0.9 + 1.8 * uniform[4:6]
    angle = 2 * np.pi * uniform[6]

    n = FINE * size
    grid = (np.arange(n) + 0.5) * (2 / n) - 1
    image, touched = np.zeros((n, n)), np.zeros((n, n), dtype=bool)
    for k in range(count):
        c, s = np.cos(angle[k]), np.sin(angle[k])
        columns = _between(grid, x[k], np.hypot(a[k] * c, b[k] * s))
        rows = _between(grid, y[k], np.hypot(a[k] * s, b[k] * c))
        dx, dy = grid[columns] - x[k], grid[rows, None] - y[k]
        inside = ((c * dx + s * dy) / a[k]) ** 2 + ((c * dy - s * dx) / b[k]) ** 2 <= 1
        image[rows, columns] += value[k] * inside
        touched[rows, columns] |= inside

    if touched.any():
        image[touched] -= image[touched].min()
    image = image.reshape(size, FINE, size, FINE).mean((1, 3))
    top = image.max()
    return (image / top if top > 0 else image).astype(np.float32)


def _exponential(uniform: np.ndarray) -> np.ndarray:
    return -np.log1p(-uniform)


def _between(grid: np.ndarray, centre: float, reach: float) -> slice:
    """The part of the grid that an ellipse of that reach can touch."""
    return slice(int(np.searchsorted(grid, centre - reach)), int(np.searchsorted(grid, centre + reach, side="right")))
