"""All that is asked of the ASTRA toolbox. Its objects are made for one question, and freed with the answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import astra  # type: ignore[import-untyped]
import attrs
import numpy as np

_LOCK = threading.Lock()  # the toolbox keeps its objects in tables that threads share


@attrs.frozen(kw_only=True)
class Scan:
    """A geometry in plain numbers: it is hashed, compared, pickled, and turned into the toolbox's own when asked.

    Lengths are in the user's unit. The origin is on the axis of rotation.

    Args:
        beam: the toolbox's name of the geometry.
        projector: the toolbox's name of the projector.
        volume: (height, width), or (depth, height, width).
        pixel_size: side of a pixel.
        centre: (x to the right, y upwards) of the centre of the image.
        detectors: number of bins in a row, and of rows in 3-D.
        detector_pixel_size: side of a bin.
        detector_offset: where the centre of the detector is along its rows.
        degrees: the angles.
        distances: of source and detector from the axis; () for parallel beams.
    """

    beam: Literal["parallel", "fanflat", "parallel3d", "cone"]
    projector: str
    volume: tuple[int, ...]
    pixel_size: float
    centre: tuple[float, float]
    detectors: tuple[int, ...]
    detector_pixel_size: float
    detector_offset: float
    degrees: tuple[float, ...]
    distances: tuple[float, ...]

    def volume_geometry(self) -> Any:
        """The toolbox's volume geometry; (x, y) of its window are those of the image's edges."""
        *depth, height, width = self.volume
        x, y = self.centre
        h = self.pixel_size
        window = [x - width * h / 2, x + width * h / 2, y - height * h / 2, y + height * h / 2]
        if depth:
            return astra.create_vol_geom(height, width, depth[0], *window, -depth[0] * h / 2, depth[0] * h / 2)
        return astra.create_vol_geom(height, width, *window)

    def projection_geometry(self) -> Any:
        """The toolbox's projection geometry, as vectors if the detector is off the centre."""
        angles = np.deg2rad(self.degrees)
        size = self.detector_pixel_size
        if len(self.volume) == 3:
            columns, rows = self.detectors
            found = astra.create_proj_geom(self.beam, size, size, rows, columns, angles, *self.distances)
        else:
            found = astra.create_proj_geom(self.beam, size, *self.detectors, angles, *self.distances)
        if self.detector_offset:
            return astra.geom_postalignment(found, self.detector_offset / size)  # in bins
        return found

    def vectors(self) -> np.ndarray:
        """The toolbox's vectors, one row an angle: source or ray, centre of the detector, steps of its bins."""
        vectors: np.ndarray = astra.geom_2vec(self.projection_geometry())["Vectors"]
        return vectors


def has_gpu() -> bool:
    """Whether the toolbox finds a CUDA device."""
    return bool(astra.use_cuda())


def matrix(scan: Scan) -> Any:
    """The projector's weights, (angles * bins, pixels), a scipy matrix of compressed rows."""
    with _projector(scan) as projector:
        made = astra.projector.matrix(projector)
        try:
            found = astra.matrix.get(made)
        finally:
            astra.matrix.delete(made)
    found.sum_duplicates()
    return found


def project(scan: Scan, x: np.ndarray) -> np.ndarray:
    """Project images one by one, (n, *volume) -> (n, *sinogram), in the toolbox's axes; float32."""
    with _projector(scan) as projector:
        calls = astra.OpTomo(projector)
        return np.stack([calls.FP(np.ascontiguousarray(image, dtype=np.float32)) for image in x])


def backproject(scan: Scan, y: np.ndarray) -> np.ndarray:
    """Backproject sinograms one by one, (n, *sinogram) -> (n, *volume), in the toolbox's axes; float32."""
    with _projector(scan) as projector:
        calls = astra.OpTomo(projector)
        return np.stack([calls.BP(np.ascontiguousarray(sinogram, dtype=np.float32)) for sinogram in y])


@contextmanager
def _projector(scan: Scan) -> Iterator[int]:
    with _LOCK:
        made = astra.create_projector(scan.projector, scan.projection_geometry(), scan.volume_geometry())
        try:
            yield made
        finally:
            (astra.projector3d if len(scan.volume) == 3 else astra.projector).delete(made)
