r"""The variance-exploding process of EDM, with its time grid built in.

    alpha(t) = 1,    sigma(t)^(1/rho) = sigma_min^(1/rho) + t (sigma_max^(1/rho) - sigma_min^(1/rho))

As a process it is `ve` with another clock: Karras et al. take sigma itself as the time, and space it so that
sigma^(1/rho) is uniform. Here t is that uniform variable, so that grid="uniform" is their grid, and grid="rho" for
every rho and process gives the same levels.

References:
    Karras, Aittala, Aila, Laine: Elucidating the Design Space of Diffusion-Based Generative Models. NeurIPS 2022,
    arXiv:2206.00364, eq. 5.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.param import ParameterError
from scoreplug.sde import BaseSDE


@attrs.frozen(kw_only=True)
class EDM(BaseSDE):
    """Noise levels from sigma_min to sigma_max, many of them small."""

    sigma_min: float = param(0.002, gt=0.0, unit="data", doc="noise level at t = 0")
    sigma_max: float = param(80.0, gt=0.0, unit="data", doc="noise level at t = 1; at least the diameter of the data")
    rho: float = param(7.0, gt=0.0, doc="exponent; larger means more time at small noise levels")
    t_min: float = param(1e-5, gt=0.0, lt=1.0, doc="the smallest time samplers go down to")

    def __attrs_post_init__(self) -> None:
        if self.sigma_max <= self.sigma_min:
            raise ParameterError(
                "edm", [f"sigma_max must be > sigma_min = {self.sigma_min!r} (got {self.sigma_max!r})"]
            )

    @property
    def prior_std(self) -> float:  # type: ignore[override]
        return self.sigma_max

    @property
    def roots(self) -> tuple[float, float]:
        """sigma^(1/rho) at t = 0, and how much it grows until t = 1."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return low, high - low

    def root(self, t: Tensor) -> Tensor:
        """sigma(t)^(1/rho), of t's shape."""
        low, growth = self.roots
        return low + growth * t

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.root(t) ** self.rho

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        # d sigma^2 / dt = 2 rho growth root^(2 rho - 1)
        _, growth = self.roots
        return (2 * self.rho * growth * self.root(t) ** (2 * self.rho - 1)).sqrt()

    def time_of(self, level: Tensor) -> Tensor:
        low, growth = self.roots
        return (level ** (1 / self.rho) - low) / growth
