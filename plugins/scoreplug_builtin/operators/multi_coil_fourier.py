"""Undersampled Fourier transforms of the image seen by several coils: parallel magnetic resonance imaging."""

from __future__ import annotations

import functools
import math

import attrs
import torch
from torch import Tensor

from scoreplug.operator import BaseLinearOperator, least_squares
from scoreplug.param import param
from scoreplug_builtin.operators._image import Constant, read_array
from scoreplug_builtin.operators._kspace import SPACE, OnKSpace


@attrs.frozen(kw_only=True, eq=False)
class MultiCoilFourier(OnKSpace, BaseLinearOperator):
    r"""A x = the measured entries of F (S_c x) for each coil c, (B, C, H, W) -> (B, 2, coils, m).

    S_c is the complex sensitivity of coil c, F the centred orthonormal Fourier transform; y holds real and imaginary
    part, as in `fourier`. x is complex, (2, H, W), or real, (1, H, W).

        A^T y = sum_c conj(S_c) F^H (zeros where nothing was measured, y_c elsewhere)

    Without maps of your own the coils sit at equal distances around the image, each with a Gaussian profile and a
    phase of its own, and sum_c |S_c|^2 = 1, so that |A| <= 1, with |A| = 1 if all of k-space is measured.

    No basis diagonalises A, and neighbouring coils see almost the same: its small singular values say nothing that
    noise does not drown. `pinv` is least squares by conjugate gradients (see `scoreplug.operator.least_squares`), which
    come to the small ones last. A relative residual of 1e-2 takes a dozen steps for exact data at 64 x 64 pixels, 8
    coils and acceleration 4; 1e-6 takes more than the 2000 that are allowed.

    Raises:
        ValueError: as `fourier`, or if the maps do not have the image's size, or a real image more than one channel.

    References:
        Pruessmann, Weiger, Scheidegger, Boesiger: SENSE: Sensitivity encoding for fast MRI. Magn. Reson. Med. 42
        (1999). Zbontar et al.: fastMRI, an open dataset and benchmarks for accelerated MRI. 2018, arXiv:1811.08839.
    """

    coils: int = param(8, ge=1, doc="number of coils; own maps bring their own")
    maps: str | Tensor | None = param(
        None,
        doc="sensitivities (2, coils, H, W), real and imaginary part: .npy or .npz file, or tensor; none makes them",
    )
    pinv_tolerance: float = param(
        1e-2, gt=0.0, lt=1.0, doc="relative residual at which the pseudoinverse stops; smaller amplifies more noise"
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.image == "real" and self.image_shape[0] != 1:
            raise ValueError(
                f"a real image has one channel here, and a complex one is (2, H, W) with image='complex' (got "
                f"image_shape {self.image_shape!r})"
            )
        _ = self.sensitivities  # bad maps are found now

    @functools.cached_property
    def sensitivities(self) -> Constant:
        """S, (coils, H, W), complex128."""
        _, height, width = self.image_shape
        if self.maps is None:
            return Constant(_gaussian_coils(self.coils, height, width))
        parts = read_array(self.maps, "maps")
        if parts.ndim != 4 or parts.shape[0] != 2 or tuple(parts.shape[2:]) != (height, width):
            raise ValueError(f"maps must be (2, coils, {height}, {width}) (got {tuple(parts.shape)})")
        return Constant(torch.complex(parts[0], parts[1]))

    @functools.cached_property
    def _seen(self) -> Constant:
        """S with its origin in the first entry: one image is moved there rather than one of each coil."""
        return Constant(torch.fft.ifftshift(self.sensitivities.value, SPACE))

    @property
    def output_shape(self) -> tuple[int, ...]:
        return 2, len(self.sensitivities.value), len(self._index.value)

    def forward(self, x: Tensor) -> Tensor:
        return self.transformed(self._seen.like(x) * self.as_complex(torch.fft.ifftshift(x, SPACE)))

    def transpose(self, y: Tensor) -> Tensor:
        image = (self._seen.like(y).conj() * self.transformed_back(y)).sum(1, keepdim=True)
        return torch.fft.fftshift(self.as_parts(image), SPACE)

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y to `pinv_tolerance`, (B, *output_shape) -> (B, *input_shape).

        Raises:
            ArithmeticError: if conjugate gradients do not get there.
        """
        return least_squares(self, y, tolerance=self.pinv_tolerance)


def _gaussian_coils(coils: int, height: int, width: int) -> Tensor:
    """Profiles exp(-|r - r_c|^2 / (2 w^2)) with a linear phase; sum_c |S_c|^2 = 1.

    In units of half the image's side r_c is on a circle of radius 1.2, just outside its edges, and w = 1/2: a coil sees
    about half of the image.
    """
    v = torch.linspace(-1, 1, height, dtype=torch.float64, device="cpu")[:, None]
    u = torch.linspace(-1, 1, width, dtype=torch.float64, device="cpu")
    angle = 2 * math.pi * torch.arange(coils, dtype=torch.float64, device="cpu")[:, None, None] / coils
    du, dv = u - 1.2 * angle.cos(), v - 1.2 * angle.sin()
    magnitude = (-(du**2 + dv**2) / (2 * 0.5**2)).exp()
    phase = angle + du * angle.sin() - dv * angle.cos()
    S = torch.polar(magnitude, phase)
    return S / S.abs().square().sum(0).sqrt()
