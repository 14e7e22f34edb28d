"""Phase retrieval: the magnitude of the Fourier transform."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from scoreplug.operator import BaseOperator
from scoreplug.param import param
from scoreplug_builtin.operators._image import OnImage


@attrs.frozen(kw_only=True, eq=False)
class PhaseRetrieval(OnImage, BaseOperator):
    """A(x) = |F Z x|, channel by channel, (B, C, H, W) -> (B, C, H', W'); nonlinear.

    Z puts the image into the middle of zeros, so that each side is `oversampling` times as long, and F is the
    orthonormal Fourier transform. With twice the side y^2 holds the whole autocorrelation of the image, which
    determines almost every image up to what has the same magnitudes: its negative, shifts into the zeros, and its
    rotation by 180 degrees. The problem of DPS, which pads 256 pixels by 64 on each side, is oversampling = 1.5. At a
    zero of F Z x the magnitude has no derivative; 0 is taken.

    References:
        Fienup: Phase retrieval algorithms: a comparison. Appl. Opt. 21 (1982), doi:10.1364/AO.21.002758.
        Hayes: The reconstruction of a multidimensional sequence from the phase or magnitude of its Fourier transform.
        IEEE Trans. Acoust. Speech Signal Process. 30 (1982).
        Chung, Kim, McCann, Klasky, Ye: Diffusion Posterior Sampling for General Noisy Inverse Problems. ICLR 2023,
        arXiv:2209.14687.
    """

    oversampling: float = param(2.0, ge=1.0, doc="length of each side with its zeros over that without")

    @property
    def output_shape(self) -> tuple[int, ...]:
        channels, height, width = self.image_shape
        return channels, round(self.oversampling * height), round(self.oversampling * width)

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Zeros at left, right, top and bottom."""
        rows, columns = (
            longer - side for longer, side in zip(self.output_shape[1:], self.image_shape[1:], strict=True)
        )
        return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(torch.nn.functional.pad(x, self.padding), norm="ortho")
        right = torch.fft.fftshift(spectrum.abs(), -2)  # torch's derivative of |z| at 0 is 0
        # the other half is the mirror image: |F x(-k)| = |F x(k)| for a real x, at half the price
        rows, columns = self.output_shape[1:]
        mirrored = right.flip((-2, -1)).roll(1 - rows % 2, -2)[..., : columns // 2]
        return torch.cat([mirrored, right[..., : columns - columns // 2]], dim=-1)
