r"""Parallel-beam line integrals of a volume, in the geometry of the ASTRA toolbox.

    y(theta, i, j) = int x(u, v, w) delta(u cos theta + v sin theta - s_j) delta(w - w_i) du dv dw,

u to the right, v upwards and w along the axis of rotation, which the slices are stacked on: slice after slice this is
`astra-parallel`, and where slices and detector rows coincide it is exactly its `linear` model. s_j and w_i are the
centres of the detector's columns and rows, in the unit of `pixel_size`. Units of y are data times length.

The toolbox projects volumes on graphics cards only. `joseph` is the same model of a ray as a sparse matrix, made here
from the toolbox's geometry vectors, and stored beside its transpose: for small volumes. `cuda` calls the toolbox.

References:
    Joseph: An Improved Algorithm for Reprojecting Rays through Pixel Images. IEEE TMI 1982,
    doi:10.1109/TMI.1982.4307572.
"""

from __future__ import annotations

from typing import Literal

import attrs

from scoreplug import param
from scoreplug_astra._beam import Beam, bins, check_matrix_fits
from scoreplug_astra._toolbox import Scan


@attrs.frozen(kw_only=True, eq=False)
class ParallelBeam3D(Beam):
    """A x, channel by channel, (B, C, D, H, W) -> (B, C, angles, detector rows, detectors)."""

    image_shape: tuple[int, int, int, int] = param(gt=0, doc="shape of x: channels, slices, height, width")
    angle_range: tuple[float, float] = param((0.0, 180.0), unit="degree", doc="from the first angle to behind the last")
    detector_rows: int | None = param(None, ge=1, unit="pixel", doc="rows of the detector; none covers the slices")
    detector_pixel_size: float | None = param(
        None, gt=0.0, unit="length", doc="side of a detector bin; none is pixel_size"
    )
    projector: Literal["joseph", "cuda"] = param("joseph", doc="joseph: a matrix; cuda: calls, on a graphics card")

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.projector == "joseph":
            check_matrix_fits(self.scan, self.memory)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.image_shape

    @property
    def scan(self) -> Scan:
        size = self.pixel_size if self.detector_pixel_size is None else self.detector_pixel_size
        columns = bins(2 * (self.reach + abs(self.detector_offset)), size)
        rows = bins(self.image_shape[1] * self.pixel_size, size)
        return Scan(
            beam="parallel3d",
            projector="cuda3d" if self.projector == "cuda" else self.projector,
            volume=self.image_shape[1:],
            pixel_size=self.pixel_size,
            centre=self.centre,
            detectors=(
                columns if self.detectors is None else self.detectors,
                rows if self.detector_rows is None else self.detector_rows,
            ),
            detector_pixel_size=size,
            detector_offset=self.detector_offset,
            degrees=self.degrees,
            distances=(),
        )
