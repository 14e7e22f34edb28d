r"""The variance-preserving SDE, dx = -beta(t)/2 x dt + sqrt(beta(t)) dw.

    beta(t) = beta_min + t (beta_max - beta_min)
    alpha(t) = exp(-t^2 (beta_max - beta_min)/4 - t beta_min/2),    sigma(t)^2 = 1 - alpha(t)^2

References:
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through Stochastic Differential
    Equations. ICLR 2021, arXiv:2011.13456, eq. 11 and appendix C.
    Ho, Jain, Abbeel: Denoising Diffusion Probabilistic Models. NeurIPS 2020, arXiv:2006.11239.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.sde import BaseSDE


@attrs.frozen(kw_only=True)
class VP(BaseSDE):
    """The continuous limit of DDPM's chain with linear betas."""

    beta_min: float = param(0.1, gt=0.0, doc="beta at t = 0")
    beta_max: float = param(20.0, gt=0.0, doc="beta at t = 1")
    t_min: float = param(1e-3, gt=0.0, lt=1.0, doc="the smallest time samplers go down to")

    def beta(self, t: Tensor) -> Tensor:
        """Rate beta(t) of the process, of t's shape."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha(t) = -1/2 int_0^t beta, of t's shape."""
        return -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def drift(self, t: Tensor) -> Tensor:
        return -self.beta(t) / 2

    def diffusion(self, t: Tensor) -> Tensor:
        return self.beta(t).sqrt()

    def time_of(self, level: Tensor) -> Tensor:
        return self.time_of_log_alpha(-torch.log1p(level**2) / 2)

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The positive root of log_alpha(t) = log_alpha, in the form that does not cancel for small t."""
        half, slope = self.beta_min / 2, self.beta_max - self.beta_min
        return -2 * log_alpha / (half + (half**2 - slope * log_alpha).sqrt())
