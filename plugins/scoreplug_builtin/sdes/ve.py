r"""The variance-exploding SDE, dx = g(t) dw.

    alpha(t) = 1,    sigma(t) = sigma_min (sigma_max / sigma_min)^t

sigma(t) is what networks are trained with; the process started at t = 0 has the variance sigma(t)^2 - sigma_min^2, so
"clean" data are data blurred by sigma_min.

References:
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through Stochastic Differential
    Equations. ICLR 2021, arXiv:2011.13456, eq. 9 and appendix C.
"""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.param import ParameterError
from scoreplug.sde import BaseSDE


@attrs.frozen(kw_only=True)
class VE(BaseSDE):
    """Geometric noise levels from sigma_min to sigma_max, as in NCSN."""

    sigma_min: float = param(0.01, gt=0.0, unit="data", doc="noise level at t = 0")
    sigma_max: float = param(50.0, gt=0.0, unit="data", doc="noise level at t = 1; at least the diameter of the data")
    t_min: float = param(1e-5, gt=0.0, lt=1.0, doc="the smallest time samplers go down to")

    def __attrs_post_init__(self) -> None:
        if self.sigma_max <= self.sigma_min:
            raise ParameterError("ve", [f"sigma_max must be > sigma_min = {self.sigma_min!r} (got {self.sigma_max!r})"])

    @property
    def prior_std(self) -> float:  # type: ignore[override]
        return self.sigma_max

    @property
    def log_ratio(self) -> float:
        """log(sigma_max / sigma_min)."""
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (t * self.log_ratio).exp()

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self.sigma(t) * math.sqrt(2 * self.log_ratio)

    def time_of(self, level: Tensor) -> Tensor:
        return (level / self.sigma_min).log() / self.log_ratio
