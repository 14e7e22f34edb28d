"""Sums of an image over strips: the sparse matrix of a parallel beam, made for as few angles as its symmetry asks for.

The grid of pixels is the same after a quarter turn about the axis and after a mirror image, so that

    y(theta) of x = y(theta0) of a turned or mirrored x,    theta = 90 k + theta0 or 90 k - theta0,  0 <= theta0 <= 45.

n equispaced angles with even n need the matrix of n / 4 angles and the image in four positions; an odd n needs half of
them and two. That is a quarter of the memory and of the time to make it, and a product that reads a weight once uses it
four times. Angles that do not come in such groups, such as those of a limited scan, have a matrix of their own each.
"""

from __future__ import annotations

import collections
import functools
import math
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from scoreplug_builtin.operators._image import Constant

WORTHWHILE = 2**18
"""Pixels times angles from which symmetry is used: a smaller matrix is in the processor's caches as it is."""

SURPLUS = 1.25
"""How much more work than angle by angle symmetry may cost: pixels beside the image, positions not asked for."""

BLOCK_BYTES = 2**25
"""Bytes of the images in one product. More would be mapped anew at every call, which takes longer than to fill it, and
would be as much again as the samples."""

ROW_BYTES = 128
"""Bytes of the columns that a product with compressed rows handles at once: it is several times slower beyond."""

FEW = 8
"""Columns below which a product with compressed rows is faster than sums over bags."""


class Position(NamedTuple):
    """A mirror image, left and right, and then quarter turns, clockwise."""

    turns: int = 0
    mirrored: bool = False
    copy: int = 0
    """Told apart for an angle that is asked for again."""

    def of(self, x: Tensor) -> Tensor:
        """(H, W); the number of turns is even, or H = W."""
        return torch.rot90(x.flip(1) if self.mirrored else x, -self.turns)


class Symmetry(NamedTuple):
    """Which angles have a matrix, and what images it is applied to.

    Args:
        grid: height and width of the images that it is applied to.
        degrees: theta0, each of them once.
        positions: what the image is turned to.
        found: of each angle asked for the index of its theta0, and of its position; no two are alike.
    """

    grid: tuple[int, int]
    degrees: tuple[float, ...]
    positions: tuple[Position, ...]
    found: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, height: int, width: int, degrees: Sequence[float]) -> Symmetry:
        """The smallest matrix that costs no more than `SURPLUS` in work."""
        odd = 2 * (height // 2) + 1, 2 * (width // 2) + 1  # the axis is in a pixel, which is then the one in the middle
        one_by_one = cls((height, width), tuple(degrees), (Position(),), tuple((i, 0) for i in range(len(degrees))))
        work = len(degrees) * height * width
        if work < WORTHWHILE:
            return one_by_one
        choices = (
            cls._grouped((max(odd), max(odd)), [_folded(theta, 90) for theta in degrees]),
            cls._grouped(odd, [_folded(theta, 180) for theta in degrees]),
        )
        limit = SURPLUS * work
        within = (c for c in choices if len(c.degrees) * len(c.positions) * math.prod(c.grid) <= limit)
        return next(within, one_by_one)

    @classmethod
    def _grouped(cls, grid: tuple[int, int], angles: Sequence[tuple[float, Position]]) -> Symmetry:
        first: dict[float, float] = {}
        positions: dict[Position, int] = {}
        found = []
        seen: collections.Counter[tuple[float, Position]] = collections.Counter()
        for theta, position in angles:
            key = round(theta, 12)  # angles that differ by rounding alone are one
            first.setdefault(key, theta)
            place = position._replace(copy=seen[key, position])
            seen[key, position] += 1
            found.append((list(first).index(key), positions.setdefault(place, len(positions))))
        return cls(grid, tuple(first.values()), tuple(positions), tuple(found))


def _folded(theta: float, period: int) -> tuple[float, Position]:
    """theta0 in [0, period / 2] and the position for which theta0 sees what theta sees of the image itself.

    A mirror image turns theta into 180 - theta, and a quarter turn clockwise theta into theta - 90.
    """
    k, rest = divmod(theta, period)
    turns = int(k) * (period // 90)
    if rest <= period / 2:
        return rest, Position(turns % 4)
    return period - rest, Position((2 - period // 90 - turns) % 4, mirrored=True)


class Projector:
    """The matrix (theta0s * detectors, pixels) and its transpose, in compressed rows, and the products with them."""

    def __init__(self, height: int, width: int, degrees: tuple[float, ...], detectors: int) -> None:
        symmetry = Symmetry.of(height, width, degrees)
        matrix = strip_matrix(*symmetry.grid, symmetry.degrees, detectors)
        # strips side by side of all theta0 together: they share pixels, which stay in the processor's caches
        matrix = matrix[np.arange(matrix.shape[0]).reshape(-1, detectors).T.ravel()]
        double = _compressed_rows(matrix), _compressed_rows(matrix.T.tocsr())
        self._converted = {(torch.float64, torch.device("cpu")): double}
        self._positions = len(symmetry.positions)
        self._pixels, self._pixels_back = map(Constant, _pixels(symmetry, height, width))
        self._values, self._values_back = map(Constant, _values(symmetry, detectors))
        self.symmetry = symmetry
        self.image_shape = height, width
        self.sinogram_shape = len(degrees), detectors

    def like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both matrices for arithmetic with x: on x's device, in x's precision. They are converted once, and held."""
        key = (x.dtype, x.device)
        if key not in self._converted:
            A, At = self._converted[torch.float64, torch.device("cpu")]
            self._converted[key] = _converted(A, x), _converted(At, x)
        return self._converted[key]

    def project(self, x: Tensor) -> Tensor:
        """(n, H, W) -> (n, angles, detectors), differentiable to any order."""
        y: Tensor = _Linear.apply(x, self._project, self._backproject)  # type: ignore[no-untyped-call]
        return y

    def backproject(self, y: Tensor) -> Tensor:
        """(n, angles, detectors) -> (n, H, W): the transpose."""
        x: Tensor = _Linear.apply(y, self._backproject, self._project)  # type: ignore[no-untyped-call]
        return x

    # Within, images are the last dimension: what is gathered, multiplied and summed lies side by side in memory.

    def _project(self, x: Tensor) -> Tensor:
        A, _ = self.like(x)
        pixels, values = self._pixels.like(x), self._values.like(x)

        def few(x: Tensor) -> Tensor:
            turned = _with_zero(x).index_select(0, pixels).reshape(A.shape[1], self._positions * x.shape[1])
            return product(A, turned).reshape(A.shape[0] * self._positions, x.shape[1]).index_select(0, values)

        return self._in_blocks(few, x, self.sinogram_shape)

    def _backproject(self, y: Tensor) -> Tensor:
        _, At = self.like(y)
        pixels, values = self._pixels_back.like(y), self._values_back.like(y)

        def few(y: Tensor) -> Tensor:
            sorted_ = _with_zero(y).index_select(0, values).reshape(At.shape[1], self._positions * y.shape[1])
            x = product(At, sorted_).reshape(At.shape[0] * self._positions, y.shape[1]).index_select(0, pixels)
            return x.reshape(self._positions, math.prod(self.image_shape), y.shape[1]).sum(0)

        return self._in_blocks(few, y, self.image_shape)

    def _in_blocks(self, function: Callable[[Tensor], Tensor], x: Tensor, shape: tuple[int, int]) -> Tensor:
        blocks = math.ceil(len(x) * len(self._pixels.value) * x.element_size() / BLOCK_BYTES)
        parts = [function(part.flatten(1).T).T for part in x.tensor_split(max(1, min(blocks, len(x))))]
        return torch.cat(parts).reshape(len(x), *shape)


def _pixels(symmetry: Symmetry, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Of every pixel of the grid in every position, the pixel of the image there, or the zero behind the last one; and
    where the image's pixels went, position by position."""
    (rows, columns), outside = symmetry.grid, height * width
    grid = torch.full((rows, columns), outside, device="cpu")
    top, left = rows // 2 - height // 2, columns // 2 - width // 2  # the axes coincide
    grid[top : top + height, left : left + width] = torch.arange(outside, device="cpu").reshape(height, width)
    pixels = torch.stack([position.of(grid) for position in symmetry.positions], dim=-1).flatten()
    back = pixels.argsort(stable=True)[: outside * len(symmetry.positions)]
    return pixels, back.reshape(outside, -1).T.flatten()


def _values(symmetry: Symmetry, detectors: int) -> tuple[Tensor, Tensor]:
    """Of every value of the sinogram, its place among those of all theta0 in all positions; and of every such place the
    value, or the zero behind the last one, where an angle was not asked for."""
    theta, position = torch.tensor(symmetry.found, device="cpu").T
    row = torch.arange(detectors, device="cpu") * len(symmetry.degrees) + theta[:, None]
    values = (row * len(symmetry.positions) + position[:, None]).flatten()
    back = torch.full((len(symmetry.degrees) * detectors * len(symmetry.positions),), len(values), device="cpu")
    back[values] = torch.arange(len(values), device="cpu")
    return values, back


def _with_zero(x: Tensor) -> Tensor:
    return torch.nn.functional.pad(x, (0, 0, 0, 1))


_alive: weakref.WeakValueDictionary[tuple[Any, ...], Projector] = weakref.WeakValueDictionary()


@functools.lru_cache(maxsize=1)  # the last one outlives its operator, for the next operator of the same geometry
def projector(height: int, width: int, degrees: tuple[float, ...], detectors: int) -> Projector:
    """One for all operators of a geometry, for as long as one of them is there."""
    geometry = (height, width, degrees, detectors)
    found = _alive.get(geometry)
    if found is None:
        found = _alive[geometry] = Projector(*geometry)
    return found


def strip_matrix(height: int, width: int, degrees: Sequence[float], detectors: int) -> Any:
    """The areas of overlap of pixels and strips, (angles * detectors, H * W), a scipy.sparse.csr_array."""
    u = np.tile(np.arange(width) - width // 2, height)
    v = np.repeat(height // 2 - np.arange(height), width)
    shape = (detectors, height * width)
    return scipy.sparse.vstack([_of_angle(u, v, theta, shape) for theta in np.deg2rad(degrees)], format="csr")


def _of_angle(u: Any, v: Any, theta: float, shape: tuple[int, int]) -> Any:
    centre = u * np.cos(theta) + v * np.sin(theta) + shape[0] // 2
    nearest = np.rint(centre)
    # a pixel's shadow is at most sqrt(2) wide: it reaches the bins beside the nearest, and no other
    below, above = _shadow(nearest - 0.5 - centre, theta), _shadow(centre - nearest - 0.5, theta)
    weight = np.concatenate([below, 1 - below - above, above])
    j = np.concatenate([nearest - 1, nearest, nearest + 1]).astype(np.int32)
    seen = np.flatnonzero((weight > 1e-14) & (j >= 0) & (j < shape[0]))  # 1e-14: rounding at the shadow's rim
    columns = (seen % len(centre)).astype(np.int32)
    return scipy.sparse.csr_array((weight[seen], (j[seen], columns)), shape=shape)


def _shadow(t: Any, theta: float) -> Any:
    """The part of a unit square's shadow that falls below t: the integral of a trapezoid, two boxes convolved."""
    a, b = sorted((abs(math.cos(theta)), abs(math.sin(theta))))
    a = max(a, np.finfo(np.float64).eps)
    rim = np.maximum((a + b) / 2 - np.abs(t), 0)
    beyond = np.where(rim < a, rim**2 / (2 * a * b), (rim - a / 2) / b)
    return np.where(t > 0, 1 - beyond, beyond)


class _Linear(torch.autograd.Function):
    """A linear function of x. Its gradient is the transpose, differentiable in turn."""

    @staticmethod
    def forward(x: Tensor, function: Any, transpose: Any) -> Tensor:
        del transpose
        y: Tensor = function(x)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        _, ctx.function, ctx.transpose = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Linear.apply(gradients[0], ctx.transpose, ctx.function), None, None  # type: ignore[no-untyped-call]


def product(matrix: Tensor, x: Tensor) -> Tensor:
    """M x, (columns, n) -> (rows, n), for M in compressed rows; without a graph.

    Many columns x in single precision on a processor go to `embedding_bag`, which is made for recommenders and sums
    weighted rows with vector instructions: up to four times the speed of the product.
    """
    n = x.shape[1]
    if n == 1:
        return (matrix @ x[:, 0])[:, None]
    if x.dtype == torch.float32 and x.device.type == "cpu" and n >= FEW:
        crow, column, weights = matrix.crow_indices(), matrix.col_indices(), matrix.values()
        return torch.nn.functional.embedding_bag(
            column, x, crow, mode="sum", per_sample_weights=weights, include_last_offset=True
        )
    few = max(1, ROW_BYTES // x.element_size()) if x.device.type == "cpu" else n
    return torch.cat([matrix @ x[:, i : i + few] for i in range(0, max(1, n), few)], dim=1)


def _compressed_rows(matrix: Any) -> Tensor:
    # 32-bit indices: half the memory, and what MKL multiplies with; it would convert others at every product
    crow, column = (torch.from_numpy(index.astype(np.int32, copy=False)) for index in (matrix.indptr, matrix.indices))
    return _csr(crow, column, torch.from_numpy(matrix.data), matrix.shape)


def _converted(matrix: Tensor, x: Tensor) -> Tensor:
    """In x's precision and on its device; on the same device the indices are shared."""
    crow, column = matrix.crow_indices().to(x.device), matrix.col_indices().to(x.device)
    return _csr(crow, column, matrix.values().to(x), matrix.shape)


def _csr(crow: Tensor, column: Tensor, values: Tensor, shape: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        return torch.sparse_csr_tensor(
            crow, column, values, size=tuple(shape), dtype=values.dtype, device=values.device, check_invariants=True
        )
