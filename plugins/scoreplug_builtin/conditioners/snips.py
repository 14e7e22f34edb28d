r"""SNIPS: Langevin dynamics in the basis of the SVD, with noise that is correlated with the measurement's.

With A = U diag(s) V^T, xbar = x / alpha at the level l = sigma / alpha, y_i = (U^T y)_i and x_i = (V^T xbar)_i, the
score of xbar has the coordinates

    s_i = 0:              (V^T s)_i
    0 < s_i l < sigma_y:  (V^T s)_i + s_i (y_i - s_i x_i) / (sigma_y^2 - s_i^2 l^2)
    s_i l > sigma_y:      s_i (y_i - s_i x_i) / (s_i^2 l^2 - sigma_y^2)

s being the prior's score, and Langevin moves the metric

    1,    1 - s_i^2 l^2 / sigma_y^2,    1 - sigma_y^2 / (s_i^2 l^2)

so that a move of step e takes e times the metric in each coordinate, as in the paper's algorithm. The noise in x is
taken as part of the measurement's noise where it is smaller, and the other way round where it is larger; then what is
left of the noise in y - A xbar is independent of x in the first case, and the prior has nothing to say in the second.
At s_i l = sigma_y both have no freedom left: guidance and metric are 0 there, and the coordinate stands still.

Where all s_i l < sigma_y it is the conditional score under that coupling, exactly, so that the last level is exact as
moves become many and small, and its level goes to 0. Where s_i l > sigma_y it ignores what other coordinates tell about
this one, hence is biased when they are correlated. In the scalar problem N(0, 1.7), y = .8 x + .6 n = 1.3 the law of
the level .5 (s l = .4 < .6) has mean 1.401 and variance .269; p_t(x | y), without the coupling, has 1.221 and .673, and
the posterior, which both tend to, 1.221 and .423. With exact data there is no second case, and the samples follow
the data alone in what they measure.

Made for `langevin` with rule="ncsn" and final="sample". Its authors end at the last level, and Tweedie's formula does
not give E[x_0 | x_t, y] where the noise is correlated with that of the data. What it gives is harmless for s_i l far
from sigma_y and blows up near it: with s_i = 5, sigma_y = .1 and s_i l = .999 sigma_y at the last level, samples of the
variance 1e-5 become estimates of the variance 2.2, where the posterior of a prior N(0, 1.7) has 4e-4. An operator with
many singular values, as a blur, will have some there.

Where s_i l > sigma_y a move of step e brings x_i to y_i / s_i by the factor 1 - e / l^2, however small the metric, and
the level should not fall faster than that. With few moves take large steps: 200 on the way from level 50 to .01, with
x measured as it is with sigma_y = .5, end with the standard deviation .60 if snr = .16 and .46 if snr = .5; the
posterior has .47.

Other samplers take the same score without the metric, and for them it is stiff around s_i l = sigma_y. It is no
potential's gradient, so that Metropolis acceptance is approximate.

compat = "authors" is their indexing by the number of missing coordinates: where A has no null space, none is missing,
and it puts the prior's score into all of them: y is ignored. Their data have the range [0, 1], and they start from
uniform noise; here samplers start from N(0, prior_std^2 I).

References:
    Kawar, Vaksman, Elad: SNIPS: Solving Noisy Inverse Problems Stochastically. NeurIPS 2021, arXiv:2105.14951,
    algorithm 1.
"""

from __future__ import annotations

import math
from typing import Literal

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.model import ConditionedModel, broadcast
from scoreplug.operator import SVD
from scoreplug.protocols import ScoreModel
from scoreplug_builtin.conditioners._spectral import require_svd


@attrs.frozen(kw_only=True)
class SNIPS:
    """Spectral guidance with a metric: no vjp of the network; V, V^T once per evaluation."""

    compat: Literal["fixed", "authors"] = param(
        "fixed", doc="coordinates by their singular values, or by their number as in the authors' code"
    )

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        svd = require_svd("snips", measurement.operator)
        none_missing = int((svd.singular_values > 0).sum()) == math.prod(measurement.operator.input_shape)
        if self.compat == "authors" and none_missing:
            return prior
        return SNIPSScore(prior=prior, measurement=measurement, method=self, svd=svd)


@attrs.frozen(kw_only=True, eq=False)
class SNIPSScore(ConditionedModel):
    """The prior's score with the measured coordinates guided, and the metric that goes with it."""

    svd: SVD

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        alpha = broadcast(self.sde.alpha(t), x)
        score = alpha * self.prior.score(x, t)  # of xbar
        c, y = self.svd.Vt(score), self.svd.Ut(self.measurement.data.to(x)[None])
        s, variance = self.singular_values_and_variance(c, t)
        gap = s * (y - s * self.svd.Vt(x / alpha))
        pull = torch.where(variance == 0, 0, gap / torch.where(variance == 0, 1, variance).abs())
        change = torch.where(variance > 0, pull, pull - c)  # noisier than the data: they replace the prior
        return (score + self.svd.V(torch.where(s > 0, change, 0))) / alpha

    def metric(self, v: Tensor, t: Tensor, power: Literal["half", "one"]) -> Tensor:
        """V diag(m) V^T v, or with the root of m, where m is what is left of the larger variance, over it."""
        c = self.svd.Vt(v)
        s, variance = self.singular_values_and_variance(c, t)
        sigma_y2 = self.measurement.noise_std**2
        larger = torch.where(variance > 0, sigma_y2, sigma_y2 - variance)  # sigma_y^2, or s^2 level^2
        m = torch.where(s > 0, variance.abs() / torch.where(s > 0, larger, 1), 1)
        m = m.sqrt() if power == "half" else m
        return v + self.svd.V((m - 1) * c)

    def singular_values_and_variance(self, c: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """s, and sigma_y^2 - s^2 level^2: what is left of the measurement's noise, or minus what is left of x's."""
        s = self.svd.singular_values.to(c)
        level = broadcast(self.sde.sigma(t) / self.sde.alpha(t), c)
        return s, self.measurement.noise_std**2 - (s * level) ** 2
