"""Undersampled Fourier transform: single-coil magnetic resonance imaging."""

from __future__ import annotations

import functools
from typing import Literal

import attrs
import torch
from torch import Tensor

from scoreplug.noise import Noise
from scoreplug.operator import SVD, SpectralOperator
from scoreplug.param import param
from scoreplug_builtin.operators._hartley import hartley, reflect
from scoreplug_builtin.operators._image import Constant, OnImage, read_mask

_SPACE = (-2, -1)


@attrs.frozen(kw_only=True, eq=False)
class Fourier(OnImage, SpectralOperator):
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

    image: Literal["real", "complex"] = param("real", doc="what x is: real, or complex with its two parts as channels")
    mask: Literal["random", "equispaced"] | str | Tensor = param(
        "random",
        doc="which columns are measured, or an own mask (H, W) or (W,), 1 where measured: .npy or .npz file, or tensor",
    )
    acceleration: float = param(4.0, ge=1.0, doc="number of columns over number of measured columns")
    center_fraction: float = param(
        0.08, ge=0.0, le=1.0, doc="fraction of columns, around the centre, that are all measured"
    )
    seed: int = param(0, ge=0, doc="of a random mask")

    def __attrs_post_init__(self) -> None:
        if self.image == "complex" and self.image_shape[0] != 2:
            raise ValueError(
                f"a complex image is (2, H, W), real and imaginary part (got image_shape {self.image_shape!r})"
            )
        if self.output_shape[-1] == 0:
            raise ValueError("mask measures no entry of k-space at all; there is nothing to measure")

    @functools.cached_property
    def measured(self) -> Tensor:
        """The mask, (H, W), True where measured; the centre of k-space is at (H // 2, W // 2)."""
        _, height, width = self.image_shape
        if self.mask == "random" or self.mask == "equispaced":
            mask = self._columns(width)
        else:
            mask = read_mask(self.mask, height, width, choices=("random", "equispaced"))
            if mask.ndim > 2:
                raise ValueError(f"mask must be {(height, width)} or {(width,)} (got {tuple(mask.shape)})")
        return mask.expand(height, width).clone()

    def _columns(self, width: int) -> Tensor:
        central, total = round(self.center_fraction * width), round(width / self.acceleration)
        if central > total:
            raise ValueError(
                f"center_fraction={self.center_fraction!r} keeps {central} of {width} columns, more than the {total} "
                f"that acceleration={self.acceleration!r} leaves; lower one of the two"
            )
        mask = torch.zeros(width, dtype=torch.bool, device="cpu")
        first = (width - central + 1) // 2
        mask[first : first + central] = True

        outer, missing = (~mask).nonzero()[:, 0], total - central
        if self.mask == "random":
            draws = Noise(self.seed, (0,), dtype=torch.float64, device=torch.device("cpu")).at("fourier")
            chosen = draws.uniform((len(outer),))[0].argsort()[:missing]
        else:
            chosen = (2 * torch.arange(missing, device="cpu") + 1) * len(outer) // max(2 * missing, 1)
        mask[outer[chosen]] = True
        return mask

    @functools.cached_property
    def _index(self) -> Constant:
        return Constant(self.measured.flatten().nonzero()[:, 0])

    @property
    def output_shape(self) -> tuple[int, ...]:
        return 2, 1 if self.image == "complex" else self.image_shape[0], len(self._index.value)

    def forward(self, x: Tensor) -> Tensor:
        k = self._to_kspace(x).flatten(2).index_select(2, self._index.like(x))
        return torch.stack([k.real, k.imag], dim=1)

    def transpose(self, y: Tensor) -> Tensor:
        return self._to_image(self._filled(y))

    def picture(self, y: Tensor) -> Tensor:
        """The logarithm of the magnitude in k-space, log(1 + |k|), zero where nothing was measured, (B, H, W)."""
        return self._filled(y).abs().square().sum(1).sqrt().log1p()

    def _filled(self, y: Tensor) -> Tensor:
        """k-space with zeros where nothing was measured, (B, channels, H, W), complex."""
        values = torch.complex(y[:, 0], y[:, 1])
        zeros = torch.zeros(*values.shape[:2], self.measured.numel(), dtype=values.dtype, device=values.device)
        return zeros.index_copy(2, self._index.like(y), values).reshape(*values.shape[:2], *self.measured.shape)

    def _to_kspace(self, x: Tensor) -> Tensor:
        """F x, complex."""
        x = torch.complex(x[:, :1], x[:, 1:]) if self.image == "complex" else x
        return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, _SPACE), norm="ortho"), _SPACE)

    def _to_image(self, k: Tensor) -> Tensor:
        """The transpose of `_to_kspace`: F^H k, and its real part for a real image."""
        x = torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(k, _SPACE), norm="ortho"), _SPACE)
        return torch.cat([x.real, x.imag], dim=1) if self.image == "complex" else x.real

    @functools.cached_property
    def svd(self) -> SVD:
        mask = self.measured.to(torch.float64)
        if self.image == "complex":
            return SVD.from_right(
                mask.expand(self.image_shape).clone(),
                V=lambda c: self._to_image(torch.complex(c[:, :1], c[:, 1:])),
                Vt=lambda x: torch.cat([(k := self._to_kspace(x)).real, k.imag], dim=1),
                operator=self,
            )
        mirrored = torch.fft.fftshift(reflect(torch.fft.ifftshift(mask, _SPACE)), _SPACE)
        s = ((mask + mirrored) / 2).sqrt().expand(self.image_shape).clone()
        return SVD.from_right(s, V=_centred_hartley, Vt=_centred_hartley, operator=self)


def _centred_hartley(x: Tensor) -> Tensor:
    return torch.fft.fftshift(hartley(torch.fft.ifftshift(x, _SPACE)), _SPACE)
