r"""Parallel-beam line integrals by the ASTRA toolbox.

    y(theta, j) = int x(u, v) delta(u cos theta + v sin theta - s_j) du dv,
    s_j = (j - (detectors - 1) / 2) detector_pixel_size + detector_offset,

u to the right and v upwards from the axis of rotation, in the unit of `pixel_size`. Units of y are data times length.

The models of the weights are the toolbox's: `linear` interpolates between the two nearest pixels of a row or column
(Joseph), `line` takes the length of the ray in each pixel, `strip` the area of overlap of pixel and bin, divided by the
bin's width. Data measured with one model and reconstructed with another differ by a part of a pixel's values at edges.

Exact for: images that the model of the weights is exact for; on smooth ones it is off by the square of the pixel. At
unit sizes, with `strip` and the axis in the middle of pixel (H // 2, W // 2), it is the operator `radon`.

The weights become a sparse matrix, stored beside its transpose: the adjoint is the transpose, entry by entry. The
toolbox gives weights in single precision; sums are made in x's. A matrix beyond `memory` is not made: A and A^T are
then calls of the toolbox in single precision, image by image, whose `linear`, `line` and `strip` are transposes of each
other to rounding. With `projector="cuda"` they are not: the toolbox's backprojector on a card interpolates the
sinogram.

References:
    van Aarle, Palenstijn, Cant, Janssens, Bleichrodt, Dabravolski, De Beenhouwer, Batenburg, Sijbers: Fast and Flexible
    X-ray Tomography Using the ASTRA Toolbox. Optics Express 24(22), 2016, doi:10.1364/OE.24.025129.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug_astra._beam import Beam, bins, ramp_filtered
from scoreplug_astra._toolbox import Scan


@attrs.frozen(kw_only=True, eq=False)
class ParallelBeam(Beam):
    """A x, channel by channel, (B, C, H, W) -> (B, C, angles, detectors)."""

    baseline_name: ClassVar[str] = "filtered backprojection"

    image_shape: tuple[int, int, int] = param(gt=0, doc="shape of x: channels, height, width")
    angle_range: tuple[float, float] = param((0.0, 180.0), unit="degree", doc="from the first angle to behind the last")
    detector_pixel_size: float | None = param(
        None, gt=0.0, unit="length", doc="width of a detector bin; none is pixel_size"
    )
    projector: Literal["linear", "line", "strip", "cuda"] = param(
        "linear", doc="the toolbox's model of a ray; cuda is linear on a graphics card"
    )

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.image_shape

    @property
    def scan(self) -> Scan:
        size = self.pixel_size if self.detector_pixel_size is None else self.detector_pixel_size
        covering = bins(2 * (self.reach + abs(self.detector_offset)), size)
        return Scan(
            beam="parallel",
            projector=self.projector,
            volume=self.image_shape[1:],
            pixel_size=self.pixel_size,
            centre=self.centre,
            detectors=(covering if self.detectors is None else self.detectors,),
            detector_pixel_size=size,
            detector_offset=self.detector_offset,
            degrees=self.degrees,
            distances=(),
        )

    def filtered_backprojection(self, y: Tensor) -> Tensor:
        """The inverse for many angles: x = dtheta (tau / pixel_size^2) A^T (h * y), tau the bin's width and h the ramp.

        A^T spreads a value over the pixels of its ray, pixel_size^2 / tau of it to each angle of a pixel. dtheta is the
        mean distance of neighbouring angles modulo 180 degrees without the largest gap, which may be a missing wedge.

        Args:
            y: (B, *output_shape).

        Returns:
            (B, *input_shape).
        """
        tau = self.scan.detector_pixel_size
        filtered = ramp_filtered(y) / tau**2 * tau  # the ramp scales with 1 / tau^2, the convolution with tau
        return self.adjoint(filtered) * (_angular_spacing(self.degrees) * tau / self.pixel_size**2)

    def baseline(self, y: Tensor) -> Tensor:
        """The classical reconstruction, `filtered_backprojection`."""
        return self.filtered_backprojection(y)


def _angular_spacing(degrees: tuple[float, ...]) -> float:
    ordered = sorted(d % 180 for d in degrees)
    gaps = sorted(b - a for a, b in zip(ordered, [*ordered[1:], ordered[0] + 180], strict=True))
    return math.radians(math.fsum(gaps[:-1]) / (len(gaps) - 1) if len(gaps) > 1 else 180)
