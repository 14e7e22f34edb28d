r"""The cosine schedule, variance preserving.

    alpha(t) = cos(pi/2 (u + s) / (1 + s)) / cos(pi/2 s / (1 + s)),    u = T t,    sigma(t)^2 = 1 - alpha(t)^2

s keeps the noise from growing too slowly near t = 0. At u = 1 no signal is left and sigma/alpha is infinite, so that t
= 1 stands for the u = T just below 1 at which sigma/alpha = level_max. The authors' chain stops there by another means,
a bound of .999 on its betas (`ddpm` with schedule="cosine").

References:
    Nichol, Dhariwal: Improved Denoising Diffusion Probabilistic Models. ICML 2021, arXiv:2102.09672, eq. 17.
"""

from __future__ import annotations

import functools
import math

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.sde import BaseSDE


@attrs.frozen(kw_only=True)
class Cosine(BaseSDE):
    """The signal falls like a quarter of a cosine."""

    offset: float = param(0.008, gt=0.0, lt=1.0, doc="s, the part of the quarter that is left out at t = 0")
    level_max: float = param(150.0, gt=0.0, doc="noise level sigma/alpha at t = 1")
    t_min: float = param(1e-3, gt=0.0, lt=1.0, doc="the smallest time samplers go down to")

    @property
    def start(self) -> float:
        """Angle at t = 0."""
        return math.pi / 2 * self.offset / (1 + self.offset)

    @functools.cached_property
    def width(self) -> float:
        """Angle between t = 0 and t = 1, where the cosine is cos(start) / sqrt(1 + level_max^2)."""
        return math.acos(math.cos(self.start) / math.sqrt(1 + self.level_max**2)) - self.start

    def angle(self, t: Tensor) -> Tensor:
        """The angle whose cosine is alpha(t) cos(start)."""
        return self.start + self.width * t

    def alpha(self, t: Tensor) -> Tensor:
        return self.angle(t).cos() / math.cos(self.start)

    def sigma(self, t: Tensor) -> Tensor:
        # cos^2 a - cos^2 b = sin(b - a) sin(b + a) does not cancel as t -> 0
        product = torch.sin(self.width * t) * torch.sin(self.width * t + 2 * self.start)
        return product.sqrt() / math.cos(self.start)

    def drift(self, t: Tensor) -> Tensor:
        return -self.width * self.angle(t).tan()

    def diffusion(self, t: Tensor) -> Tensor:
        return (-2 * self.drift(t)).sqrt()  # variance preserving: g^2 = -2 f

    def time_of(self, level: Tensor) -> Tensor:
        # sin^2 b = 1 - cos^2(start) / (1 + level^2), put so that it does not cancel for small levels
        sine = ((level**2 + math.sin(self.start) ** 2) / (1 + level**2)).sqrt()
        cosine = math.cos(self.start) / (1 + level**2).sqrt()
        return (torch.atan2(sine, cosine) - self.start) / self.width
