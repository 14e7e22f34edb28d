"""Undersampled Fourier transform: single-coil magnetic resonance imaging."""

from __future__ import annotations

import functools

import attrs
import torch
from torch import Tensor

from scoreplug.operator import SVD, SpectralOperator
from scoreplug_builtin.operators._hartley import hartley, reflect
from scoreplug_builtin.operators._kspace import SPACE, OnKSpace, from_kspace, to_kspace


@attrs.frozen(kw_only=True, eq=False)
class Fourier(OnKSpace, SpectralOperator):
    r"""A x = the measured entries of F x, (B, C, H, W) -> (B, 2, channels, m).

    y holds the real and imaginary parts of the m measured entries, row by row, and nothing that was not measured.
    F is the orthonormal two-dimensional Fourier transform with the origin of image and k-space at (H // 2, W // 2),
    as fastMRI stores them. Noise of standard deviation sigma in y is sigma in the real and sigma in the imaginary
    part.

    A real image has C channels, transformed one by one. Its k-space is redundant, F x(-k) = conj F x(k), so that with
    the mask M

        A^T A = H diag(s^2) H,    s(k)^2 = (M(k) + M(-k)) / 2,    V = H, the Hartley transform.

    A complex image is (2, H, W), real and imaginary part, and one channel of k-space; then V = F^H and s = M. The
    norm is 1, unless a real image is measured on one side of k-space only, where it is sqrt(1/2).

    A named mask keeps round(W / acceleration) columns: the central ones, and others drawn at random or at equal
    distances.

    Raises:
        ValueError: if the mask measures nothing, the centre alone has more columns than the acceleration leaves, an
            own mask is not one of 0 and 1 of the image's size, or a complex image has not two channels.

    References:
        Lustig, Donoho, Pauly: Sparse MRI. Magn. Reson. Med. 58 (2007), doi:10.1002/mrm.21391.
        Zbontar et al.: fastMRI, an open dataset and benchmarks for accelerated MRI. 2018, arXiv:1811.08839 (the masks).
    """

    @property
    def output_shape(self) -> tuple[int, ...]:
        return 2, 1 if self.image == "complex" else self.image_shape[0], len(self._index.value)

    def forward(self, x: Tensor) -> Tensor:
        return self.transformed(self.as_complex(torch.fft.ifftshift(x, SPACE)))

    def transpose(self, y: Tensor) -> Tensor:
        return torch.fft.fftshift(self.as_parts(self.transformed_back(y)), SPACE)

    @functools.cached_property
    def svd(self) -> SVD:
        mask = self.measured.to(torch.float64)
        if self.image == "complex":
            return SVD.from_right(
                mask.expand(self.image_shape).clone(),
                V=lambda c: self.as_parts(from_kspace(torch.complex(c[:, :1], c[:, 1:]))),
                Vt=lambda x: torch.cat([(k := to_kspace(self.as_complex(x))).real, k.imag], dim=1),
                operator=self,
            )
        mirrored = torch.fft.fftshift(reflect(torch.fft.ifftshift(mask, SPACE)), SPACE)
        s = ((mask + mirrored) / 2).sqrt().expand(self.image_shape).clone()
        return SVD.from_right(s, V=_centred_hartley, Vt=_centred_hartley, operator=self)


def _centred_hartley(x: Tensor) -> Tensor:
    return torch.fft.fftshift(hartley(torch.fft.ifftshift(x, SPACE)), SPACE)
