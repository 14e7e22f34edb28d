r"""Cone-beam line integrals of a volume, in the geometry of the ASTRA toolbox: a flat detector, the source on a circle.

At angle theta the source is at D (sin theta, -cos theta, 0), D = source_origin. Bin (i, j) sees the ray from there to

    P_ij = origin_detector (-sin theta, cos theta, 0) + s_j (cos theta, sin theta, 0) + w_i (0, 0, 1),

(u, v, w) to the right, upwards, and along the axis of rotation, which the slices are stacked on, in the unit of
`pixel_size`; s_j and w_i are the centres of the detector's columns and rows. y is the integral of x along the ray, data
times length. In the plane w = 0 this is `astra-fan`.

The toolbox projects volumes on graphics cards only. `joseph` is the same model of a ray as a sparse matrix, made here
from the toolbox's geometry vectors, and stored beside its transpose: for small volumes. 32^3 voxels, 30 angles and
48 x 48 bins are 0.2 GB. `cuda` calls the toolbox, whose backprojector is not exactly the transpose.

There is no filtered backprojection: the baseline is the pseudoinverse. A circle does not determine a volume off its
plane (Tuy 1983, doi:10.1137/0143035).

References:
    Joseph: An Improved Algorithm for Reprojecting Rays through Pixel Images. IEEE TMI 1982,
    doi:10.1109/TMI.1982.4307572.
"""

from __future__ import annotations

from typing import Literal

import attrs

from scoreplug import param
from scoreplug_astra._beam import Beam, bins, check_matrix_fits, check_outside, magnified_reach
from scoreplug_astra._toolbox import Scan


@attrs.frozen(kw_only=True, eq=False)
class ConeBeam(Beam):
    """A x, channel by channel, (B, C, D, H, W) -> (B, C, angles, detector rows, detectors)."""

    image_shape: tuple[int, int, int, int] = param(gt=0, doc="shape of x: channels, slices, height, width")
    source_origin: float = param(gt=0.0, unit="length", doc="D, from the source to the axis of rotation")
    origin_detector: float = param(ge=0.0, unit="length", doc="from the axis of rotation to the detector")
    angle_range: tuple[float, float] = param((0.0, 360.0), unit="degree", doc="from the first angle to behind the last")
    detector_rows: int | None = param(
        None, ge=1, unit="pixel", doc="rows of the detector; none covers the volume from everywhere"
    )
    detector_pixel_size: float | None = param(
        None, gt=0.0, unit="length", doc="side of a detector bin; none is pixel_size, magnified"
    )
    projector: Literal["joseph", "cuda"] = param("joseph", doc="joseph: a matrix; cuda: calls, on a graphics card")

    def __attrs_post_init__(self) -> None:
        check_outside(self.reach, self.source_origin)
        super().__attrs_post_init__()
        if self.projector == "joseph":
            check_matrix_fits(self.scan, self.memory)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.image_shape

    @property
    def scan(self) -> Scan:
        distance = self.source_origin + self.origin_detector
        magnification = distance / self.source_origin
        size = self.pixel_size * magnification if self.detector_pixel_size is None else self.detector_pixel_size
        half = magnified_reach(self.reach, self.source_origin, self.origin_detector) + abs(self.detector_offset)
        height = self.image_shape[1] * self.pixel_size * distance / (self.source_origin - self.reach)
        return Scan(
            beam="cone",
            projector="cuda3d" if self.projector == "cuda" else self.projector,
            volume=self.image_shape[1:],
            pixel_size=self.pixel_size,
            centre=self.centre,
            detectors=(
                bins(2 * half, size) if self.detectors is None else self.detectors,
                bins(height, size) if self.detector_rows is None else self.detector_rows,
            ),
            detector_pixel_size=size,
            detector_offset=self.detector_offset,
            degrees=self.degrees,
            distances=(self.source_origin, self.origin_detector),
        )
