"""The 1000-step DDPM chain, in whose steps authors state the strength of a gradient step."""

from __future__ import annotations

from torch import Tensor

from scoreplug_builtin.sdes.vp import VP

DDPM_STEPS = 1000


def ddpm_gain(level: Tensor) -> Tensor:
    """kappa = b / sqrt(1 - b): shift of x_s per unit of score in the 1000-step DDPM chain, at the level sigma/alpha."""
    chain = VP()
    b = chain.beta(chain.time_of(level)) / DDPM_STEPS
    return b / (1 - b).sqrt()
