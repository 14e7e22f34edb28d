r"""Denoising diffusion restoration (DDRM): the measured spectral coordinates are redrawn at every level.

With A = U diag(s) V^T, xbar = x / alpha, m = V^T x0, ybar = U^T y / s, q = (1 - eta^2)^{1/2} and z ~ N(0, I), an update
to the level l = sigma_s / alpha_s ends with V^T xbar_s =

    s_i = 0:              what the sampler made of it
    0 < s_i l < sigma_y:  m + q l (ybar - m) / (sigma_y / s) + eta l z
    s_i l >= sigma_y:     (1 - eta_b) m + eta_b ybar + (l^2 - eta_b^2 sigma_y^2 / s^2)^{1/2} z

The first update, of the start, draws the coordinates with s_i l > sigma_y from N(ybar, l^2 - sigma_y^2 / s^2); the last
one is to the level 0, so that exact data are met exactly. With the sampler `ancestral`, noise="fresh" and the same eta
this is the paper's method, whose transition of the unmeasured coordinates is m + q l (xbar - m) / l_t + eta l z; any
other sampler brings its own.

Exact for no posterior with sigma_y > 0 or with correlations between the coordinates, and made for few steps. Each one
draws the measured coordinates around y again, so that with many of them nothing but y counts. In the scalar problem
N(0, 1.7), y = .8 x + .6 n = 1.3, whose posterior has mean 1.221 and variance .423, 20 / 100 / 1000 geometric levels
from 100 to 1e-4 give, with the defaults, the means 1.135 / 1.441 / 1.600 and the variances .142 / .043 / .005: y/a =
1.625 and no spread in the limit. With eta = 1 they forget y instead: means .636 and .000, variances .488 and .844 after
20 and 1000.

compat = "authors" takes their code's strict inequalities: a coordinate with s_i l = sigma_y counts as unmeasured, so
that at the last level 0 with sigma_y = 0 the samples are x0 as it is, and do not meet the data. Their start, divided by
l where alpha is meant, is the same up to 1 / sigma_1 = 1 + 2e-5 in their process and makes no sense in others; it is
not reproduced.

References:
    Kawar, Elad, Ermon, Song: Denoising Diffusion Restoration Models. NeurIPS 2022, arXiv:2201.11793, eq. 7 and 8.
"""

from __future__ import annotations

import math
from typing import Literal

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.model import PriorDensity, ProjectedModel
from scoreplug.operator import SVD
from scoreplug.protocols import HasLogDensity, ScoreModel, Step
from scoreplug_builtin.conditioners._spectral import require_svd


@attrs.frozen(kw_only=True)
class DDRM:
    """Spectral redrawing after every update: no vjp of the network; one V, V^T and U^T per update."""

    eta: float = param(0.85, ge=0.0, le=1.0, doc="share of new noise in the coordinates that are cleaner than the data")
    eta_b: float = param(1.0, ge=0.0, le=1.0, doc="weight of the data in the coordinates that are noisier than them")
    compat: Literal["fixed", "authors"] = param(
        "fixed", doc="data as noisy as the state count as measured (the paper), or as unmeasured (its code)"
    )

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        svd = require_svd("ddrm", measurement.operator)
        kind = RestoredDensity if isinstance(prior, HasLogDensity) else Restored
        return kind(prior=prior, measurement=measurement, method=self, svd=svd)


@attrs.frozen(kw_only=True, eq=False)
class Restored(ProjectedModel):
    """The prior's score; the measured coordinates are redrawn."""

    method: DDRM
    svd: SVD

    def project(self, x: Tensor, step: Step) -> Tensor:
        x = self.prior.project(x, step)
        if step.phase == "finish":
            alpha, level = torch.ones_like(step.s), torch.zeros_like(step.s)
        else:
            alpha = self.sde.alpha(step.s)
            level = self.sde.sigma(step.s) / alpha
        z = step.noise.at("ddrm").normal(tuple(self.svd.singular_values.shape))
        now = self.svd.Vt(x / alpha)
        new = self.start(now, level, z) if step.x0 is None else self.redrawn(now, self.svd.Vt(step.x0), level, z)
        return x + alpha * self.svd.V(new - now)

    def start(self, now: Tensor, level: Tensor, z: Tensor) -> Tensor:
        """V^T xbar at the first level, (B, *spectral)."""
        s, sigma_y = self.svd.singular_values.to(now), self.measurement.noise_std
        spread = (level**2 - (sigma_y * self.svd.inverse(now)) ** 2).clamp_min(0).sqrt()
        return torch.where(s * level > sigma_y, self.ybar(now) + spread * z, now)

    def redrawn(self, now: Tensor, m: Tensor, level: Tensor, z: Tensor) -> Tensor:
        """V^T xbar at a level, from what it is and from m = V^T x0, (B, *spectral)."""
        s, sigma_y, eta, eta_b = (
            self.svd.singular_values.to(now),
            self.measurement.noise_std,
            self.method.eta,
            self.method.eta_b,
        )
        noisier = s * level > sigma_y if self.method.compat == "authors" else (s * level >= sigma_y) & (s > 0)
        spread = (level**2 - (eta_b * sigma_y * self.svd.inverse(now)) ** 2).clamp_min(0).sqrt()
        from_data = (1 - eta_b) * m + eta_b * self.ybar(now) + spread * z
        if sigma_y == 0:
            return torch.where(noisier, from_data, now)
        cleaner = (s * level < sigma_y) & (s > 0)
        gap = (self.Uty(now) - s * m) / sigma_y  # (ybar - m) / (sigma_y / s), without dividing by a small s
        from_estimate = m + math.sqrt(1 - eta**2) * level * gap + eta * level * z
        return torch.where(noisier, from_data, torch.where(cleaner, from_estimate, now))

    def Uty(self, like: Tensor) -> Tensor:
        """U^T y, (1, *spectral)."""
        return self.svd.Ut(self.measurement.data.to(like)[None])

    def ybar(self, like: Tensor) -> Tensor:
        """U^T y / s, (1, *spectral); 0 where s = 0."""
        return self.svd.inverse(like) * self.Uty(like)


class RestoredDensity(PriorDensity, Restored):
    """The same, of a prior whose log density is known."""
