r"""The discrete chains of DDPM as a continuous process.

    alpha(t_i)^2 = alpha_bar_i = prod_{j <= i} (1 - beta_j),    t_i = (i + 1) / N,    i = 0 .. N-1

with linear betas, 1e-4 to 0.02 for N = 1000, or those of the cosine schedule. Between its steps log(level^2) = -log SNR
is linear in t, so that a process on the grid t_i is the chain, and levels between two of its steps are between their
times. The noise levels are all that a network sees of its schedule, so any monotone interpolation would do; this one
has an exact inverse, and a rate of noise d log level / dt that stays finite in every step. Below t_0 the line goes on,
though nothing was trained there.

References:
    Ho, Jain, Abbeel: Denoising Diffusion Probabilistic Models. NeurIPS 2020, arXiv:2006.11239.
    Nichol, Dhariwal: Improved Denoising Diffusion Probabilistic Models. ICML 2021, arXiv:2102.09672.
"""

from __future__ import annotations

import functools
from typing import Literal

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.sde import BaseSDE
from scoreplug_builtin.models._discrete import DiscreteSchedule


@attrs.frozen(kw_only=True)
class DDPM(BaseSDE):
    """Variance preserving, through the noise levels of a chain of `chain_steps` steps."""

    schedule: Literal["linear", "cosine"] = param("linear", doc="betas: linear (Ho et al.), or of the cosine schedule")
    chain_steps: int = param(1000, ge=2, doc="N, steps of the chain; samplers choose their own number")
    t_min: float = param(1e-3, gt=0.0, lt=1.0, doc="the smallest time samplers go down to; 1/N is the chain's own")

    @functools.cached_property
    def log_levels(self) -> Tensor:
        """log(sigma/alpha) of the chain's steps, (N,), growing."""
        make = DiscreteSchedule.linear if self.schedule == "linear" else DiscreteSchedule.cosine
        alpha_bar = make(self.chain_steps).alpha_bar.to(dtype=torch.float64, device="cpu")
        return ((1 - alpha_bar) / alpha_bar).log() / 2

    def log_level(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """log(sigma/alpha) and its slope in t, each of t's shape."""
        table = self.log_levels.to(t)
        position = t * self.chain_steps - 1
        i = position.detach().floor().long().clamp(0, self.chain_steps - 2)
        rise = table[i + 1] - table[i]
        return table[i] + (position - i) * rise, rise * self.chain_steps

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-2 * self.log_level(t)[0]).sqrt()  # alpha^2 = 1 / (1 + level^2)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sigmoid(2 * self.log_level(t)[0]).sqrt()

    def drift(self, t: Tensor) -> Tensor:
        log_level, slope = self.log_level(t)
        return -torch.sigmoid(2 * log_level) * slope  # d log alpha / d log level = -sigma^2

    def diffusion(self, t: Tensor) -> Tensor:
        return (-2 * self.drift(t)).sqrt()  # variance preserving: g^2 = -2 f

    def time_of(self, level: Tensor) -> Tensor:
        table = self.log_levels.to(level)
        log_level = level.log()
        i = (torch.searchsorted(table, log_level.detach().contiguous()) - 1).clamp(0, self.chain_steps - 2)
        return (i + 1 + (log_level - table[i]) / (table[i + 1] - table[i])) / self.chain_steps
