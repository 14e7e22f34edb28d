"""The base class of forward processes: whatever alpha(t) and sigma(t) imply."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class BaseSDE:
    """Defaults for an SDE that gives alpha(t), sigma(t) and t_min.

    drift, diffusion and time_of follow from the two by differentiation and bisection; a process that knows them in
    closed form overrides them.
    """

    t_min: float
    prior_std: float = 1.0

    def alpha(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def sigma(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def level(self, t: Tensor) -> Tensor:
        """Noise level sigma(t) / alpha(t), of t's shape."""
        return self.sigma(t) / self.alpha(t)

    def drift(self, t: Tensor) -> Tensor:
        with torch.enable_grad():
            t = t.detach().requires_grad_()
            (slope,) = torch.autograd.grad((self.alpha(t) + 0 * t).log().sum(), t)
        return slope

    def diffusion(self, t: Tensor) -> Tensor:
        with torch.enable_grad():
            t = t.detach().requires_grad_()
            (slope,) = torch.autograd.grad((self.level(t) ** 2).sum(), t)
        return self.alpha(t.detach()) * slope.sqrt()

    def time_of(self, level: Tensor) -> Tensor:
        low, high = torch.zeros_like(level), torch.ones_like(level)
        for _ in range(60):  # halves the interval to below the spacing of float64
            middle = (low + high) / 2
            above = self.level(middle) > level
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2

    def prior_log_density(self, z: Tensor) -> Tensor:
        """log N(z; 0, prior_std^2 I), (B,), in nats."""
        n = z[0].numel()
        squared = z.flatten(1).square().sum(1)
        return -0.5 * n * math.log(2 * math.pi * self.prior_std**2) - squared / (2 * self.prior_std**2)
