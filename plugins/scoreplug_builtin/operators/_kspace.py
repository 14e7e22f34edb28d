"""What the operators of magnetic resonance imaging share: masks in k-space, and the centred Fourier transform."""

from __future__ import annotations

import functools
from typing import Literal

import attrs
import torch
from torch import Tensor

from scoreplug.noise import Noise
from scoreplug.param import param
from scoreplug_builtin.operators._image import Constant, OnImage, read_mask

SPACE = (-2, -1)


@attrs.frozen(kw_only=True, eq=False)
class OnKSpace(OnImage):
    """Mixin of an operator that measures entries of k-space, whose origin is at (H // 2, W // 2)."""

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
        if not bool(self.measured.any()):
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

    @functools.cached_property
    def _corner_index(self) -> Constant:
        """Where the measured entries are if the origin of k-space is its first entry, as `torch.fft` has it."""
        places = torch.arange(self.measured.numel(), device="cpu").reshape(self.measured.shape)
        return Constant(torch.fft.fftshift(places).flatten()[self._index.value])

    def transformed(self, x: Tensor) -> Tensor:
        """The measured entries of F x, (B, channels, H, W) -> (B, 2, channels, m), for x whose origin is its first
        entry: what is not measured is not moved to the centre either."""
        k = torch.fft.fft2(x, norm="ortho").flatten(2).index_select(2, self._corner_index.like(x))
        return torch.stack([k.real, k.imag], dim=1)

    def transformed_back(self, y: Tensor) -> Tensor:
        """The transpose of `transformed`, before the real part is taken; the origin is the first entry."""
        return torch.fft.ifft2(self._filled(y, self._corner_index), norm="ortho")

    def measured_entries(self, k: Tensor) -> Tensor:
        """Real and imaginary part of the measured entries, (B, channels, H, W) complex -> (B, 2, channels, m)."""
        k = k.flatten(2).index_select(2, self._index.like(k))
        return torch.stack([k.real, k.imag], dim=1)

    def filled(self, y: Tensor) -> Tensor:
        """k-space with zeros where nothing was measured, (B, channels, H, W), complex."""
        return self._filled(y, self._index)

    def _filled(self, y: Tensor, index: Constant) -> Tensor:
        values = torch.complex(y[:, 0], y[:, 1])
        zeros = torch.zeros(*values.shape[:2], self.measured.numel(), dtype=values.dtype, device=values.device)
        return zeros.index_copy(2, index.like(y), values).reshape(*values.shape[:2], *self.measured.shape)

    def picture(self, y: Tensor) -> Tensor:
        """The logarithm of the magnitude in k-space, log(1 + |k|), zero where nothing was measured, (B, H, W)."""
        return self.filled(y).abs().square().sum(1).sqrt().log1p()

    def as_complex(self, x: Tensor) -> Tensor:
        """The image as one complex channel, or the real one as it is."""
        return torch.complex(x[:, :1], x[:, 1:]) if self.image == "complex" else x

    def as_parts(self, x: Tensor) -> Tensor:
        """The transpose of `as_complex`: both parts as channels, or the real part."""
        return torch.cat([x.real, x.imag], dim=1) if self.image == "complex" else x.real


def to_kspace(x: Tensor) -> Tensor:
    """F x over the last two dimensions, orthonormal, origins in the centre."""
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, SPACE), norm="ortho"), SPACE)


def from_kspace(k: Tensor) -> Tensor:
    """F^H k."""
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(k, SPACE), norm="ortho"), SPACE)
