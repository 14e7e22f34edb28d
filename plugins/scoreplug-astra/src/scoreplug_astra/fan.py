r"""Fan-beam line integrals by the ASTRA toolbox: a flat detector, the source on a circle.

At angle theta the source is at D (sin theta, -cos theta), D = source_origin, and the detector's row is centred
opposite, at origin_detector behind the axis, along (cos theta, sin theta). Bin j sees the ray from the source to

    P_j = origin_detector (-sin theta, cos theta) + s_j (cos theta, sin theta),
    s_j = (j - (detectors - 1) / 2) detector_pixel_size + detector_offset,

u to the right and v upwards from the axis of rotation, in the unit of `pixel_size`; y is the integral of x along it,
data times length. On the axis an image is magnified by (D + origin_detector) / D. As D grows the fan becomes the beam
of `astra-parallel`.

The models of the weights are the toolbox's: `line` takes the length of the ray in each pixel, `strip` the area of
overlap of pixel and the bin's fan, divided by the fan's width there.

The matrix, its transpose and the calls that stand in for them beyond `memory` are as for `astra-parallel`. There is no
filtered backprojection: the baseline is the pseudoinverse.

References:
    van Aarle, Palenstijn, Cant, Janssens, Bleichrodt, Dabravolski, De Beenhouwer, Batenburg, Sijbers: Fast and Flexible
    X-ray Tomography Using the ASTRA Toolbox. Optics Express 24(22), 2016, doi:10.1364/OE.24.025129.
    Kak, Slaney: Principles of Computerized Tomographic Imaging. IEEE Press 1988, section 3.4.
"""

from __future__ import annotations

from typing import Literal

import attrs

from scoreplug import param
from scoreplug_astra._beam import Beam, bins, check_outside, magnified_reach
from scoreplug_astra._toolbox import Scan


@attrs.frozen(kw_only=True, eq=False)
class FanBeam(Beam):
    """A x, channel by channel, (B, C, H, W) -> (B, C, angles, detectors)."""

    image_shape: tuple[int, int, int] = param(gt=0, doc="shape of x: channels, height, width")
    source_origin: float = param(gt=0.0, unit="length", doc="D, from the source to the axis of rotation")
    origin_detector: float = param(ge=0.0, unit="length", doc="from the axis of rotation to the detector")
    angle_range: tuple[float, float] = param((0.0, 360.0), unit="degree", doc="from the first angle to behind the last")
    detector_pixel_size: float | None = param(
        None, gt=0.0, unit="length", doc="width of a detector bin; none is pixel_size, magnified"
    )
    projector: Literal["line", "strip", "cuda"] = param(
        "line", doc="the toolbox's model of a ray; cuda interpolates, on a graphics card"
    )

    def __attrs_post_init__(self) -> None:
        check_outside(self.reach, self.source_origin)
        if self.projector == "strip" and self.detector_offset:
            raise ValueError(
                "the toolbox's strip projector of fan beams knows no detector_offset; use projector='line', or move "
                "the image by axis_offset"
            )
        super().__attrs_post_init__()

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.image_shape

    @property
    def scan(self) -> Scan:
        magnification = (self.source_origin + self.origin_detector) / self.source_origin
        size = self.pixel_size * magnification if self.detector_pixel_size is None else self.detector_pixel_size
        half = magnified_reach(self.reach, self.source_origin, self.origin_detector) + abs(self.detector_offset)
        return Scan(
            beam="fanflat",
            projector="cuda" if self.projector == "cuda" else f"{self.projector}_fanflat",
            volume=self.image_shape[1:],
            pixel_size=self.pixel_size,
            centre=self.centre,
            detectors=(bins(2 * half, size) if self.detectors is None else self.detectors,),
            detector_pixel_size=size,
            detector_offset=self.detector_offset,
            degrees=self.degrees,
            distances=(self.source_origin, self.origin_detector),
        )
