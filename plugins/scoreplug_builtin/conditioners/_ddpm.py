"""The 1000-step DDPM chain, in whose steps authors state the strength of a gradient step."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from scoreplug.model import Coefficient
from scoreplug_builtin.sdes.vp import VP

DDPM_STEPS = 1000


def ddpm_gain(level: Coefficient) -> Coefficient:
    """kappa = b / sqrt(1 - b): shift of x_s per unit of score in the 1000-step DDPM chain, at the level sigma/alpha.

    Args:
        level: a number, for which it is computed once, or a tensor.
    """
    return _gain(level) if isinstance(level, Tensor) else _known_gain(level)


@functools.lru_cache(maxsize=2**14)
def _known_gain(level: float) -> float:
    return float(_gain(torch.tensor(level, dtype=torch.float64, device="cpu")))


def _gain(level: Tensor) -> Tensor:
    chain = VP()
    b = chain.beta(chain.time_of(level)) / DDPM_STEPS
    return b / (1 - b).sqrt()
