"""High dynamic range: an overexposed image."""

from __future__ import annotations

import attrs
from torch import Tensor

from scoreplug.operator import BaseOperator
from scoreplug.param import ParameterError, param
from scoreplug_builtin.operators._image import OnImage


@attrs.frozen(kw_only=True, eq=False)
class HDR(OnImage, BaseOperator):
    """A(x) = min(max(gain x + offset, low), high), (B, C, H, W) -> (B, C, H, W); nonlinear.

    What would be recorded above high is lost, and what below low. The defaults are for images in [0, 1], of which they
    lose the brighter half. DAPS clips 2 x to [-1, 1] on images in [-1, 1]: low = -1 there, and on images in [0, 1],
    where x stands for 2 x - 1, offset = -1/2, which loses the brightest and the darkest quarter. The derivative is gain
    where nothing is clipped, else 0, so that a clipped pixel is not pulled towards its value.

    Raises:
        ParameterError: if low is not below high.

    References:
        Zhang, Chu, Berner, Meng, Anandkumar, Song: Improving Diffusion Inverse Problem Solving with Decoupled Noise
        Annealing. CVPR 2025, arXiv:2407.01521.
    """

    gain: float = param(2.0, gt=0.0, doc="exposure, the factor before clipping")
    offset: float = param(0.0, unit="data", doc="what is recorded of x = 0")
    low: float = param(0.0, unit="data", doc="the smallest value that is recorded")
    high: float = param(1.0, unit="data", doc="the largest value that is recorded")

    def __attrs_post_init__(self) -> None:
        if self.low >= self.high:
            raise ParameterError("hdr", [f"low must be < high = {self.high!r} (got {self.low!r})"])

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.image_shape

    def forward(self, x: Tensor) -> Tensor:
        return (self.gain * x + self.offset).clamp(self.low, self.high)
