"""The discrete Hartley transform: a real orthonormal basis that diagonalises real symmetric filters.

Source: Bracewell: Discrete Hartley transform. J. Opt. Soc. Am. 73 (1983), doi:10.1364/JOSA.73.001832.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hartley(x: Tensor) -> Tensor:
    """H x = Re F x - Im F x over the last two dimensions, F the orthonormal Fourier transform. H = H^T = H^-1."""
    spectrum = torch.fft.fft2(x, norm="ortho")
    return spectrum.real - spectrum.imag


def reflect(spectrum: Tensor) -> Tensor:
    """spectrum(-k) over the last two dimensions, in the order of `torch.fft`."""
    return spectrum.flip((-2, -1)).roll((1, 1), (-2, -1))
