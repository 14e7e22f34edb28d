"""The held-out denoising curve: how good a prior is, level by level."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from scoreplug.model import broadcast
from scoreplug.noise import Noise
from scoreplug.protocols import ScoreModel

CHUNK = 16  # images denoised at once


@attrs.frozen(kw_only=True)
class Point:
    """Root mean squared error per pixel at one level, of the model and of the best linear filter."""

    level: float
    rmse: float
    linear: float


def denoising_curve(
    model: ScoreModel, images: Tensor, levels: tuple[float, ...], *, spectrum: Spectrum, seed: int = 0
) -> tuple[Point, ...]:
    """Add noise of each level to the images, denoise, compare.

    Args:
        model: the score model.
        images: held-out images, (N, *shape), in the model's type.
        levels: noise levels sigma/alpha.
        spectrum: of the training images, for the reference.
        seed: of the noise; image i meets the same z at all levels.
    """
    noise = Noise(seed, range(len(images)), dtype=images.dtype, device=images.device).at("held-out")
    z = noise.normal(tuple(images.shape[1:]))
    points = []
    for level in levels:
        noisy = images + level * z
        t = model.sde.time_of(torch.tensor(level, dtype=torch.float64, device=images.device))
        alpha = broadcast(model.sde.alpha(t), images)
        with torch.no_grad():
            denoised = torch.cat([model.denoise(alpha * part, t) for part in torch.split(noisy, CHUNK)])
        points.append(
            Point(level=level, rmse=_rmse(denoised, images), linear=_rmse(spectrum.denoise(noisy, level), images))
        )
    return tuple(points)


@attrs.frozen(kw_only=True, eq=False)
class Spectrum:
    """Mean image and power spectrum: the stationary Gaussian prior, whose denoiser is Wiener's filter.

    Attributes:
        mean: (*shape).
        power: (*shape), expected squared modulus of the orthonormal Fourier transform of x - mean.
    """

    mean: Tensor
    power: Tensor

    @classmethod
    def of(cls, images: Tensor) -> Spectrum:
        """Estimate from images, (N, *shape)."""
        mean = images.mean(0)
        return cls(mean=mean, power=_fourier(images - mean).abs().square().mean(0))

    def denoise(self, noisy: Tensor, level: float) -> Tensor:
        """E[x_0 | x_0 + level z = noisy] under this prior, (N, *shape)."""
        transform = _fourier(noisy - self.mean) * (self.power / (self.power + level**2))
        return self.mean + torch.fft.ifft2(transform, norm="ortho").real


def _fourier(images: Tensor) -> Tensor:
    return torch.fft.fft2(images, norm="ortho")


def _rmse(a: Tensor, b: Tensor) -> float:
    return (a - b).double().square().mean().sqrt().item()
