"""Circular convolution with a kernel: deblurring."""

from __future__ import annotations

import functools
import math
from typing import ClassVar, Literal

import attrs
import numpy as np
import torch
from torch import Tensor

from scoreplug.operator import SVD, SpectralOperator
from scoreplug.param import param
from scoreplug_builtin.operators._hartley import hartley, reflect
from scoreplug_builtin.operators._image import Constant, OnImage, read_array


@attrs.frozen(kw_only=True, eq=False)
class Blur(OnImage, SpectralOperator):
    r"""A x = h * x with periodic boundaries, channel by channel, (B, C, H, W) -> (B, C, H, W).

    In Fourier space A = F^H diag(h(k)) F. For a real kernel |h(k)| = |h(-k)|, hence A^T A = H diag(|h|^2) H with the
    Hartley transform H, and

        V = H,    s = |h|,    U = F^H diag(h / |h|) F H.

    Singular values below N eps of the largest, N = H W, count as zero. The norm is max |h|; it is 1 for the named
    kernels, which are positive and sum to 1.

    "gaussian" is exp(-r^2 / (2 std^2)) on size x size pixels. "motion" averages the bilinearly interpolated image
    along a segment, which gives an antialiased line. An own kernel is used as it is given: it is not normalised, and
    not flipped (this is a convolution, not a correlation). The kernel's centre is at (height // 2, width // 2); one
    that is larger than the image wraps around.

    Raises:
        ValueError: if an own kernel cannot be read or is not two-dimensional.
    """

    baseline_name: ClassVar[str] = "regularised inverse"

    kernel: Literal["gaussian", "motion"] | str | Tensor | tuple[tuple[float, ...], ...] = param(
        "gaussian", doc="h: a named kernel, or an own one as a .npy or .npz file, a tensor or rows"
    )
    std: float = param(2.0, gt=0.0, unit="pixel", doc="standard deviation of the Gaussian kernel")
    size: int | None = param(
        None, ge=1, unit="pixel", doc="side of the Gaussian kernel; none cuts it at four standard deviations"
    )
    length: float = param(9.0, gt=0.0, unit="pixel", doc="length of the motion")
    angle: float = param(0.0, unit="degree", doc="direction of the motion, counter-clockwise from the rows")

    def __attrs_post_init__(self) -> None:
        shape = tuple(self.kernel_array.shape)
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"kernel must be (height, width) (got {shape})")
        if not math.isfinite(self.angle):
            raise ValueError(f"angle must be finite (got {self.angle!r})")

    @functools.cached_property
    def kernel_array(self) -> Tensor:
        """h, float64, (height, width)."""
        if self.kernel == "gaussian":
            return _gaussian(self.std, 2 * math.ceil(4 * self.std) + 1 if self.size is None else self.size)
        if self.kernel == "motion":
            return _motion(self.length, math.radians(self.angle))
        return read_array(self.kernel, "kernel", choices=("gaussian", "motion"))

    @functools.cached_property
    def _spectrum(self) -> Tensor:
        """h(k), complex128, (H, W)."""
        _, height, width = self.image_shape
        rows, columns = (torch.arange(n, device="cpu") - n // 2 for n in self.kernel_array.shape)
        periodic = torch.zeros(height, width, dtype=torch.float64, device="cpu")
        periodic.index_put_((rows[:, None] % height, columns % width), self.kernel_array, accumulate=True)
        h = torch.fft.fft2(periodic)
        return (h + reflect(h).conj()) / 2  # h(-k) = conj h(k) to the last bit, which U needs where h is small

    @functools.cached_property
    def _h(self) -> Constant:
        return Constant(self._spectrum[:, : self.image_shape[2] // 2 + 1])

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.image_shape

    def forward(self, x: Tensor) -> Tensor:
        return self._filter(x, self._h.like(x))

    def transpose(self, y: Tensor) -> Tensor:
        return self._filter(y, self._h.like(y).conj())

    def baseline(self, y: Tensor) -> Tensor:
        """A^T (A A^T + 0.01 norm^2 I)^-1 y: unlike A^+ y it amplifies noise by at most 5 / norm."""
        return self.adjoint(self.solve(y, a=1.0, b=0.01 * self.norm**2))

    def _filter(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * h, s=x.shape[-2:])

    @functools.cached_property
    def svd(self) -> SVD:
        _, height, width = self.image_shape
        h, s = self._spectrum, self._spectrum.abs()
        s = torch.where(s > height * width * torch.finfo(s.dtype).eps * s.max(), s, torch.zeros_like(s))
        phase = torch.where(s > 0, h / torch.where(s > 0, s, torch.ones_like(s)), torch.zeros_like(h))
        u = Constant(phase[:, : width // 2 + 1])
        return SVD(
            singular_values=s.expand(self.image_shape).clone(),
            V=hartley,
            Vt=hartley,
            U=lambda c: self._filter(hartley(c), u.like(c)),
            Ut=lambda y: hartley(self._filter(y, u.like(y).conj())),
        )


def _gaussian(std: float, size: int) -> Tensor:
    # An even size is sampled around size // 2 as well, where the kernel's centre is.
    r = torch.arange(size, dtype=torch.float64, device="cpu") - size // 2
    profile = torch.exp(-(r**2) / (2 * std**2))
    return torch.outer(profile, profile) / profile.sum() ** 2


def _motion(length: float, angle: float) -> Tensor:
    """h(p) = mean over |s| <= length / 2 of hat(p - s d), d the direction, hat the tent of bilinear interpolation.

    Between two crossings of the grid's lines the integrand is a quadratic in s: Gauss-Legendre with two nodes is exact.
    """
    direction = np.array([-math.sin(angle), math.cos(angle)])  # rows run downwards
    radius = math.ceil(length / 2) + 1
    lines = np.arange(-radius, radius + 1)
    crossings = np.concatenate([lines / d for d in direction if abs(d) > 1e-12])
    ends = np.unique(np.clip(np.concatenate([crossings, [-length / 2, length / 2]]), -length / 2, length / 2))
    middle, half = (ends[1:] + ends[:-1]) / 2, (ends[1:] - ends[:-1]) / 2
    s = np.concatenate([middle - half / math.sqrt(3), middle + half / math.sqrt(3)])
    weight = np.concatenate([half, half]) / length
    rows, columns = (np.maximum(0, 1 - np.abs(lines[:, None] - d * s)) for d in direction)
    return torch.from_numpy((rows * weight) @ columns.T)
