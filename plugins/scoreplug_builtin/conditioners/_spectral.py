"""What the methods in the basis of the operator's SVD share."""

from __future__ import annotations

import math
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from scoreplug.model import PriorDensity, ProjectedModel
from scoreplug.operator import SVD
from scoreplug.protocols import HasLogDensity, HasSVD, Operator, ScoreModel, Step


def require_svd(name: str, operator: Operator) -> SVD:
    """The operator's decomposition.

    Raises:
        TypeError: if it has none; it names what would do.
    """
    if not isinstance(operator, HasSVD):
        raise TypeError(
            f"conditioner {name!r} needs an operator with a singular value decomposition (got "
            f"{type(operator).__name__}); use scoreplug.operator.with_dense_svd if it is linear and small, or a "
            "conditioner without that need (dps, jalal)"
        )
    return operator.svd


def restored(prior: ScoreModel, **kwargs: Any) -> Restored:
    """The restored model, which has a log density if the prior has one: that of the prior, since its score is."""
    return (RestoredDensity if isinstance(prior, HasLogDensity) else Restored)(prior=prior, **kwargs)


@attrs.frozen(kw_only=True, eq=False)
class Restored(ProjectedModel):
    """The score of `prior`; the measured spectral coordinates are redrawn after every update (see `ddrm`).

    Args:
        svd: A = U diag(s) V^T.
        eta: share of new noise in the coordinates that are cleaner than the data.
        eta_b: weight of the data in the coordinates that are noisier than them.
        ties: data that are as noisy as the state count as measured, or as unmeasured.
        start: the first state is drawn around the data, or left as it is.
    """

    svd: SVD
    eta: float
    eta_b: float = 1.0
    ties: Literal["measured", "unmeasured"] = "measured"
    start: Literal["data", "noise"] = "data"

    def project(self, x: Tensor, step: Step) -> Tensor:
        x = self.prior.project(x, step)
        if step.x0 is None and self.start == "noise":
            return x
        if step.phase == "finish":
            alpha, level = torch.ones_like(step.s), torch.zeros_like(step.s)
        else:
            alpha = self.sde.alpha(step.s)
            level = self.sde.sigma(step.s) / alpha
        z = step.noise.at("ddrm").normal(tuple(self.svd.singular_values.shape))
        now = self.svd.Vt(x / alpha)
        Uty = self.svd.Ut(self.measurement.data.to(x)[None])
        if step.x0 is None:
            new = self._begun(now, Uty, level, z)
        else:
            new = self._redrawn(now, self.svd.Vt(step.x0), Uty, level, z)
        return x + alpha * self.svd.V(new - now)

    def _begun(self, now: Tensor, Uty: Tensor, level: Tensor, z: Tensor) -> Tensor:
        """V^T xbar at the first level, from what it is, (B, *spectral)."""
        s, inverse, sigma_y = self.svd.singular_values.to(now), self.svd.inverse(now), self.measurement.noise_std
        spread = (level**2 - (sigma_y * inverse) ** 2).clamp_min(0).sqrt()
        return torch.where(s * level > sigma_y, inverse * Uty + spread * z, now)

    def _redrawn(self, now: Tensor, m: Tensor, Uty: Tensor, level: Tensor, z: Tensor) -> Tensor:
        """V^T xbar at a level, from what it is and from m = V^T x0, (B, *spectral)."""
        s, sigma_y = self.svd.singular_values.to(now), self.measurement.noise_std
        noisier = s * level > sigma_y if self.ties == "unmeasured" else (s * level >= sigma_y) & (s > 0)
        inverse = self.svd.inverse(now)
        spread = (level**2 - (self.eta_b * sigma_y * inverse) ** 2).clamp_min(0).sqrt()
        from_data = (1 - self.eta_b) * m + self.eta_b * inverse * Uty + spread * z
        if sigma_y == 0:
            return torch.where(noisier, from_data, now)
        cleaner = (s * level < sigma_y) & (s > 0)
        gap = (Uty - s * m) / sigma_y  # (ybar - m) / (sigma_y / s), without dividing by a small s
        from_estimate = m + math.sqrt(1 - self.eta**2) * level * gap + self.eta * level * z
        return torch.where(noisier, from_data, torch.where(cleaner, from_estimate, now))


class RestoredDensity(PriorDensity, Restored):
    """The same, of a prior whose log density is known."""
