r"""Rectified flow: a straight line from the image to the noise.

    alpha(t) = 1 - u,    sigma(t) = u,    u = T t,    T = level_max / (1 + level_max)

At u = 1 no signal is left and sigma/alpha is infinite; t = 1 stands for the u = T just below, at which sigma/alpha =
level_max. The velocity that flow-matching networks predict is z - x_0; in terms of the score it is v = -(x + u score) /
(1 - u), and its probability flow is that of this process.

References:
    Liu, Gong, Liu: Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow. ICLR 2023,
    arXiv:2209.03003. Lipman, Chen, Ben-Hamu, Nickel, Le: Flow Matching for Generative Modeling. ICLR 2023,
    arXiv:2210.02747 (with the time reversed).
"""

from __future__ import annotations

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.sde import BaseSDE


@attrs.frozen(kw_only=True)
class Flow(BaseSDE):
    """Signal and noise add up to one."""

    level_max: float = param(150.0, gt=0.0, doc="noise level sigma/alpha at t = 1")
    t_min: float = param(1e-3, gt=0.0, lt=1.0, doc="the smallest time samplers go down to")

    @property
    def end(self) -> float:
        """T, the share of noise at t = 1."""
        return self.level_max / (1 + self.level_max)

    @property
    def prior_std(self) -> float:  # type: ignore[override]
        return self.end

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - self.end * t

    def sigma(self, t: Tensor) -> Tensor:
        return self.end * t

    def drift(self, t: Tensor) -> Tensor:
        return -self.end / self.alpha(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return (2 * self.end * self.sigma(t) / self.alpha(t)).sqrt()  # in the clock u: g^2 = 2 u / (1 - u)

    def time_of(self, level: Tensor) -> Tensor:
        return level / (1 + level) / self.end
