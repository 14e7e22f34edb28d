"""Phase retrieval: the magnitude of the Fourier transform."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from scoreplug.operator import BaseOperator
from scoreplug.param import param
from scoreplug_builtin.operators._image import OnImage
from scoreplug_builtin.operators._kspace import SPACE


@attrs.frozen(kw_only=True, eq=False)
class PhaseRetrieval(OnImage, BaseOperator):
    """A(x) = |F Z x|, channel by channel, (B, C, H, W) -> (B, C, H', W'); nonlinear.

    Z puts the image into the middle of zeros, (1 + oversampling) times as high and wide, and F is the orthonormal
    Fourier transform; the default doubles each side, the least that determines an image up to its symmetries: its
    sign, shifts into the zeros, and its rotation by 180 degrees, which have the same magnitudes. At a zero of F Z x the
    magnitude has no derivative; 0 is taken.

    References:
        Fienup: Phase retrieval algorithms: a comparison. Appl. Opt. 21 (1982), doi:10.1364/AO.21.002758. Chung, Kim,
        McCann, Klasky, Ye: Diffusion Posterior Sampling for General Noisy Inverse Problems. ICLR 2023,
        arXiv:2209.14687.
    """

    oversampling: float = param(1.0, ge=0.0, doc="zeros added to each side in all, relative to the side")

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Zeros at left, right, top and bottom."""
        _, height, width = self.image_shape
        rows, columns = round(self.oversampling * height), round(self.oversampling * width)
        return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2

    @property
    def output_shape(self) -> tuple[int, ...]:
        channels, height, width = self.image_shape
        left, right, top, bottom = self.padding
        return channels, height + top + bottom, width + left + right

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(torch.nn.functional.pad(x, self.padding), norm="ortho")
        return torch.fft.fftshift(spectrum.abs(), SPACE)  # torch's derivative of |z| at 0 is 0
