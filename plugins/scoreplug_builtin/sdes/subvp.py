r"""The sub-VP SDE, dx = -beta(t)/2 x dt + sqrt(beta(t) (1 - alpha(t)^4)) dw.

    alpha(t) as in the VP SDE,    sigma(t) = 1 - alpha(t)^2

References:
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through Stochastic Differential
    Equations. ICLR 2021, arXiv:2011.13456, eq. 13 and appendix C.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from scoreplug_builtin.sdes.vp import VP


@attrs.frozen(kw_only=True)
class SubVP(VP):
    """The VP SDE's mean with less noise at every time."""

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(2 * self.log_alpha(t))

    def diffusion(self, t: Tensor) -> Tensor:
        return (-self.beta(t) * torch.expm1(4 * self.log_alpha(t))).sqrt()

    def time_of(self, level: Tensor) -> Tensor:
        # level = (1 - alpha^2) / alpha, so alpha = 2 / (level + sqrt(level^2 + 4)) = exp(-asinh(level / 2))
        return self.time_of_log_alpha(-torch.asinh(level / 2))
