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

from typing import Literal

import attrs

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.protocols import ScoreModel
from scoreplug_builtin.conditioners._spectral import require_svd, restored


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
        ties: Literal["measured", "unmeasured"] = "unmeasured" if self.compat == "authors" else "measured"
        return restored(prior, measurement=measurement, method=self, svd=svd, eta=self.eta, eta_b=self.eta_b, ties=ties)
