"""What the beams share: parameters in lengths, the choice of matrix or call, and the inverse."""

from __future__ import annotations

import functools
import math

import attrs
import numpy as np
import torch
from torch import Tensor

from scoreplug import BaseLinearOperator, param
from scoreplug.operator import least_squares
from scoreplug_astra import _joseph, _toolbox
from scoreplug_astra._products import BYTES_PER_ENTRY, SparsePair, called
from scoreplug_astra._toolbox import Scan


@attrs.frozen(kw_only=True, eq=False)
class Beam(BaseLinearOperator):
    """A scan on a circle. A subclass gives `scan` and `image_shape`."""

    angles: int | tuple[float, ...] = param(
        60,
        unit="degree",
        doc="of the beam, counter-clockwise; a number n is n angles at equal distances in angle_range",
    )
    pixel_size: float = param(1.0, gt=0.0, unit="length", doc="side of a pixel; line integrals are data times length")
    detectors: int | None = param(
        None, ge=1, unit="pixel", doc="bins in a detector row; none covers the circle that the image turns in"
    )
    detector_offset: float = param(0.0, unit="length", doc="centre of the detector, along its rows")
    axis_offset: tuple[float, float] = param(
        (0.0, 0.0), unit="length", doc="axis of rotation, right of and above the centre of the image"
    )
    memory: float = param(2.0, ge=0.0, unit="GB", doc="largest matrix that is kept, beside its transpose; 0 keeps none")
    pinv_tolerance: float = param(
        1e-2, gt=0.0, lt=1.0, doc="relative residual at which the pseudoinverse stops; smaller amplifies more noise"
    )

    def __attrs_post_init__(self) -> None:
        if not self.degrees or not all(map(math.isfinite, self.degrees)):
            raise ValueError(f"angles must be a number >= 1 or finite degrees, at least one (got {self.angles!r})")
        if self.scan.projector.startswith("cuda") and not _toolbox.has_gpu():
            raise ValueError(
                "projector 'cuda' needs a CUDA device, and the ASTRA toolbox finds none; choose another projector"
            )

    @property
    def scan(self) -> Scan:
        """The geometry."""
        raise NotImplementedError

    @property
    def degrees(self) -> tuple[float, ...]:
        """The angles, one by one."""
        if isinstance(self.angles, tuple):
            return tuple(map(float, self.angles))
        first, last = self.angle_range  # type: ignore[attr-defined]
        return tuple(first + (last - first) * i / self.angles for i in range(self.angles))

    @property
    def reach(self) -> float:
        """Radius of the circle around the axis that the image turns in."""
        *_, height, width = self.input_shape
        x, y = self.axis_offset
        return math.hypot(width * self.pixel_size / 2 + abs(x), height * self.pixel_size / 2 + abs(y))

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the image, seen from the axis."""
        return -self.axis_offset[0], -self.axis_offset[1]

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.input_shape[0], len(self.degrees), *reversed(self.scan.detectors)

    @property
    def keeps_matrix(self) -> bool:
        """Whether A is a sparse matrix and A^T its transpose; else both are calls of the toolbox."""
        scan = self.scan
        return not scan.projector.startswith("cuda") and _gigabytes(scan) <= self.memory

    def forward(self, x: Tensor) -> Tensor:
        if self.keeps_matrix:
            return (
                _matrix(self.scan).forward(x.reshape(-1, math.prod(self.scan.volume))).reshape(-1, *self.output_shape)
            )
        return called(x, self._project, self._backproject)

    def transpose(self, y: Tensor) -> Tensor:
        if self.keeps_matrix:
            n = math.prod(self.output_shape[1:])
            return _matrix(self.scan).transpose(y.reshape(-1, n)).reshape(-1, *self.input_shape)
        return called(y, self._backproject, self._project)

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y to `pinv_tolerance`, (B, *output_shape) -> (B, *input_shape); see `scoreplug.operator.least_squares`.

        The toolbox's weights are of single precision: singular values that should be 0 are up to 1e-6 of the largest,
        and a tolerance near that inverts them.

        Raises:
            ArithmeticError: if conjugate gradients do not get there.
        """
        return least_squares(self, y, tolerance=self.pinv_tolerance)

    def _project(self, x: np.ndarray) -> np.ndarray:
        images = x.reshape(-1, *self.scan.volume)
        if len(self.scan.volume) == 2:
            return _toolbox.project(self.scan, images).reshape(-1, *self.output_shape)
        # in 3-D the toolbox's rows run upwards, and its sinograms are (detector row, angle, column)
        return _toolbox.project(self.scan, images[:, :, ::-1]).transpose(0, 2, 1, 3).reshape(-1, *self.output_shape)

    def _backproject(self, y: np.ndarray) -> np.ndarray:
        sinograms = y.reshape(-1, *self.output_shape[1:])
        if len(self.scan.volume) == 2:
            return _toolbox.backproject(self.scan, sinograms).reshape(-1, *self.input_shape)
        images = _toolbox.backproject(self.scan, sinograms.transpose(0, 2, 1, 3))[:, :, ::-1]
        return images.reshape(-1, *self.input_shape).copy()


def _gigabytes(scan: Scan) -> float:
    if len(scan.volume) == 3:
        return _joseph.entries(scan) * BYTES_PER_ENTRY / 1e9
    rays, across = len(scan.degrees) * scan.detectors[0], sum(scan.volume)
    per_ray = across * (1 + math.ceil(scan.detector_pixel_size / scan.pixel_size) * scan.projector.startswith("strip"))
    return rays * per_ray * BYTES_PER_ENTRY / 1e9


@functools.lru_cache(maxsize=4)
def _matrix(scan: Scan) -> SparsePair:
    return SparsePair(_joseph.matrix(scan) if len(scan.volume) == 3 else _toolbox.matrix(scan))


def check_outside(reach: float, source_origin: float) -> None:
    """Refuse a source that the image would hit."""
    if source_origin <= reach:
        raise ValueError(
            f"source_origin must be larger than {reach:g}, the radius of the circle that the image turns in "
            f"(got {source_origin:g}); move the source away or make pixel_size smaller"
        )


def check_matrix_fits(scan: Scan, memory: float) -> None:
    """Refuse what is neither kept as a matrix nor called: a volume too large without a graphics card."""
    needed = _gigabytes(scan)
    if needed > memory:
        raise ValueError(
            f"the matrix of this scan takes up to {needed:.2g} GB, more than memory = {memory:g} GB, and the ASTRA "
            "toolbox projects volumes on CUDA devices only: raise memory, use fewer voxels, angles or bins, or "
            "projector='cuda' where there is one"
        )


def magnified_reach(reach: float, source_origin: float, origin_detector: float) -> float:
    """Half the length of the detector that the circle of radius `reach` is seen on."""
    return (source_origin + origin_detector) * reach / math.sqrt(source_origin**2 - reach**2)


def bins(length: float, size: float) -> int:
    """How many bins cover a length, to rounding."""
    return max(1, math.ceil(length / size - 1e-9))


def ramp_filtered(y: Tensor) -> Tensor:
    """y * h along the last axis, h the band-limited ramp of unit steps (Kak, Slaney 1988, eq. 3.61)."""
    n = y.shape[-1]
    size = 2 ** math.ceil(math.log2(2 * n))  # zeros beyond the detector, or the circular convolution would wrap
    k = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64, device="cpu")
    ramp = torch.where(k % 2 == 1, -1 / (math.pi * torch.where(k == 0, 1, k)) ** 2, 0.0)
    ramp[0] = 1 / 4
    filtered: Tensor = torch.fft.irfft(torch.fft.rfft(y, size) * torch.fft.rfft(ramp).real.to(y), size)
    return filtered[..., :n]
