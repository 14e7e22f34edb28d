r"""Joseph's projector in three dimensions, as a sparse matrix.

A ray p + t d meets the planes of voxel centres across its dominant axis a = argmax |d_a| once each; there the volume is
interpolated between the four nearest voxels of the plane, and the sum is weighted by the way from plane to plane,

    y = h |d| / |d_a| sum_k x(p + t_k d),    t_k = (c_k - p_a) / d_a.

The toolbox has this in 3-D for graphics cards only. Its `linear` projector of 2-D parallel beams is the same model.

References:
    Joseph: An Improved Algorithm for Reprojecting Rays through Pixel Images. IEEE TMI 1982,
    doi:10.1109/TMI.1982.4307572.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from scoreplug_astra._toolbox import Scan


def entries(scan: Scan) -> int:
    """How many weights the matrix has at most."""
    return len(scan.degrees) * int(np.prod(scan.detectors)) * max(scan.volume) * 4


def matrix(scan: Scan) -> Any:
    """The weights, (angles * rows * columns, voxels), voxels in the order (slice, row, column), rows downwards in y."""
    depth, height, width = scan.volume
    (x, y), h = scan.centre, scan.pixel_size
    axes = (
        x + (np.arange(width) - (width - 1) / 2) * h,
        y + ((height - 1) / 2 - np.arange(height)) * h,
        (np.arange(depth) - (depth - 1) / 2) * h,
    )
    blocks = []
    for vector in scan.vectors():
        points, directions = _rays(scan, vector)
        blocks.append(_block(points, directions, axes, h))
    return scipy.sparse.vstack(blocks, format="csr")


def _rays(scan: Scan, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A point and the direction of each ray of one angle, (rows * columns, 3) each."""
    start, centre, along, across = vector.reshape(4, 3)
    columns, rows = scan.detectors
    i, j = np.meshgrid(np.arange(rows) - (rows - 1) / 2, np.arange(columns) - (columns - 1) / 2, indexing="ij")
    bins = centre + j.reshape(-1, 1) * along + i.reshape(-1, 1) * across
    return bins, (bins - start if scan.beam == "cone" else np.broadcast_to(start, bins.shape))


def _block(points: np.ndarray, directions: np.ndarray, axes: tuple[np.ndarray, ...], h: float) -> Any:
    shape = tuple(len(axis) for axis in axes)  # x, y, z
    strides = np.array([1, shape[0], shape[0] * shape[1]])
    # to rounding: of two axes that are met alike, the earlier one
    dominant = np.argmax(np.round(np.abs(directions) / np.abs(directions).max(), 12), axis=1)
    rows, columns, weights = [], [], []
    for a in range(3):
        rays = np.flatnonzero(dominant == a)
        if not len(rays):
            continue
        b, c = (k for k in range(3) if k != a)
        p, d = points[rays], directions[rays]
        t = (axes[a] - p[:, a : a + 1]) / d[:, a : a + 1]  # (rays, planes)
        low, fraction = zip(*(_between(p[:, k : k + 1] + t * d[:, k : k + 1], axes[k], h) for k in (b, c)), strict=True)
        step = h * np.linalg.norm(d, axis=1, keepdims=True) / np.abs(d[:, a : a + 1])
        for i in (0, 1):
            for j in (0, 1):
                u, v = low[0] + i, low[1] + j
                weight = step * np.abs(1 - i - fraction[0]) * np.abs(1 - j - fraction[1])
                seen = (u >= 0) & (u < shape[b]) & (v >= 0) & (v < shape[c]) & (weight > 0)
                voxel = np.arange(shape[a]) * strides[a] + u * strides[b] + v * strides[c]
                rows.append(np.broadcast_to(rays[:, None], seen.shape)[seen])
                columns.append(voxel[seen])
                weights.append(weight[seen])
    triplets = np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))
    return scipy.sparse.csr_array(triplets, shape=(len(points), int(np.prod(shape))))


def _between(position: np.ndarray, axis: np.ndarray, h: float) -> tuple[np.ndarray, np.ndarray]:
    """The voxel before each position along an axis, and the share of the next one. The y axis runs downwards."""
    sign = -1 if len(axis) > 1 and axis[1] < axis[0] else 1
    index = sign * (position - axis[0]) / h
    low = np.floor(index).astype(np.int64)
    return low, index - low
