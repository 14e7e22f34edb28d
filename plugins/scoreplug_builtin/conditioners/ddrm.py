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

With eta_b = 1 exact data are met exactly. The law is that of no posterior, and the method is made for few steps. Each
one draws the measured coordinates around y again, so that with many of them nothing but y counts. In the scalar problem
N(0, 1.7), y = .8 x + .6 n = 1.3, whose posterior has mean 1.221 and variance .423, 20 / 100 / 1000 geometric levels
from 100 to 1e-4 give, with the defaults, the means 1.135 / 1.441 / 1.600 and the variances .142 / .043 / .005: y/a =
1.625 and no spread in the limit. With eta = 1 they forget y instead: means .636 and .000, variances .488 and .844 after
20 and 1000. An unmeasured coordinate that is independent of the others has the variance (1 + q) S / 2 in the limit, S
being the prior's: fresh noise does not keep the prior's law either.

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
    """Spectral redrawing after every update: no vjp of the network; one V and U^T, two V^T per update."""

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
        Uty = self.svd.Ut(self.measurement.data.to(x)[None])
        if step.x0 is None:
            new = self.start(now, Uty, level, z)
        else:
            new = self.redrawn(now, self.svd.Vt(step.x0), Uty, level, z)
        return x + alpha * self.svd.V(new - now)

    def start(self, now: Tensor, Uty: Tensor, level: Tensor, z: Tensor) -> Tensor:
        """V^T xbar at the first level, from what it is, (B, *spectral)."""
        s, inverse, sigma_y = self.svd.singular_values.to(now), self.svd.inverse(now), self.measurement.noise_std
        spread = (level**2 - (sigma_y * inverse) ** 2).clamp_min(0).sqrt()
        return torch.where(s * level > sigma_y, inverse * Uty + spread * z, now)

    def redrawn(self, now: Tensor, m: Tensor, Uty: Tensor, level: Tensor, z: Tensor) -> Tensor:
        """V^T xbar at a level, from what it is and from m = V^T x0, (B, *spectral)."""
        s, sigma_y = self.svd.singular_values.to(now), self.measurement.noise_std
        eta, eta_b = self.method.eta, self.method.eta_b
        noisier = s * level > sigma_y if self.method.compat == "authors" else (s * level >= sigma_y) & (s > 0)
        inverse = self.svd.inverse(now)
        spread = (level**2 - (eta_b * sigma_y * inverse) ** 2).clamp_min(0).sqrt()
        from_data = (1 - eta_b) * m + eta_b * inverse * Uty + spread * z
        if sigma_y == 0:
            return torch.where(noisier, from_data, now)
        cleaner = (s * level < sigma_y) & (s > 0)
        gap = (Uty - s * m) / sigma_y  # (ybar - m) / (sigma_y / s), without dividing by a small s
        from_estimate = m + math.sqrt(1 - eta**2) * level * gap + eta * level * z
        return torch.where(noisier, from_data, torch.where(cleaner, from_estimate, now))


class RestoredDensity(PriorDensity, Restored):
    """The same, of a prior whose log density is known."""
