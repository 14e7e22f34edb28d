r"""The process of a chain of any betas, made continuous between its steps.

    alpha(t_i)^2 = alpha_bar_i = prod_{j <= i} (1 - beta_j),    t_i = (i + 1) / N,    i = 0 .. N-1

Between its steps the log of the noise level sigma/alpha is linear in t, as it is in the index that diffusers' own
schedulers ask a network at for levels between two steps. A uniform grid from t = 1 to 1/N is the chain.

References:
    Ho, Jain, Abbeel: Denoising Diffusion Probabilistic Models. NeurIPS 2020, arXiv:2006.11239.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from scoreplug import BaseSDE


@attrs.frozen(kw_only=True, eq=False)
class Chain(BaseSDE):
    """Variance preserving, through the noise levels of a chain.

    Args:
        log_levels: log(sigma/alpha) of the N steps, (N,), float64, growing.
    """

    log_levels: Tensor

    @classmethod
    def of_betas(cls, betas: Tensor) -> Chain:
        """The chain of these betas, (N,), each in (0, 1]. Its steps end where no signal is left."""
        log_alpha_bar = torch.log1p(-betas.double().cpu()).cumsum(0)
        log_alpha_bar = log_alpha_bar[log_alpha_bar.isfinite()]  # zero terminal SNR: a level that is infinite
        return cls(log_levels=((-torch.expm1(log_alpha_bar)).log() - log_alpha_bar) / 2)

    @property
    def steps(self) -> int:
        """N."""
        return len(self.log_levels)

    @property
    def t_min(self) -> float:  # type: ignore[override]
        """The chain's own last step: nothing was trained below."""
        return 1 / self.steps

    def index(self, t: Tensor) -> Tensor:
        """The step, between two steps a fraction, of t's shape; times outside the chain get its first or last."""
        return (t * self.steps - 1).clamp(0, self.steps - 1)

    def log_level(self, t: Tensor) -> Tensor:
        """log(sigma/alpha), of t's shape."""
        table = self.log_levels.to(t)
        position = t * self.steps - 1
        i = position.detach().floor().long().clamp(0, self.steps - 2)
        return table[i] + (position - i) * (table[i + 1] - table[i])

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-2 * self.log_level(t)).sqrt()  # alpha^2 = 1 / (1 + level^2)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sigmoid(2 * self.log_level(t)).sqrt()

    def time_of(self, level: Tensor) -> Tensor:
        table, log_level = self.log_levels.to(level), level.log()
        i = (torch.searchsorted(table, log_level.detach().contiguous()) - 1).clamp(0, self.steps - 2)
        return (i + 1 + (log_level - table[i]) / (table[i + 1] - table[i])) / self.steps
