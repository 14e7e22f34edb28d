r"""Pseudoinverse-guided diffusion models (PiGDM): Bayes' rule with the spread of x_0 given x_t taken as r_t^2 I.

    score(x, t) + scale J^T A^T (r_t^2 A A^T + sigma_y^2 I)^{-1} (y - A x0),    x0 = E[x_0 | x_t],    J = d x0 / d x

    spread = "prior":        r_t is the root mean square error of x0 that the prior states
    prior_std = tau:         r_t^2 = level^2 tau^2 / (level^2 + tau^2), that of the prior N(mu, tau^2 I)
    spread = "published":    r_t^2 = level^2 / (1 + level^2), the paper's, which is tau = 1

with level = sigma_t / alpha_t. For exact data the inverse is the pseudoinverse, J^T A^+ (y - A x0) / r_t^2: hence the
name. With the prior's own r_t it is `dps` in its predictive form, which is one score under two names; with r_t = 0
(prior_std = 0) it is dps in its likelihood form.

Exact for the prior N(mu, tau^2 I) with its r_t, biased elsewhere. In the scalar Gaussian problem y = a x_0 + n with the
prior variance S, let C = level^2 S / (level^2 + S) be the variance of x_0 given x_t. The reverse SDE then gives

    mean (y/a) (1 - exp(-K(S))),    variance int_0^S exp(-2 K(c)) dc,    K(c) = int_0^c a^2 / (a^2 r^2 + sigma_y^2) dC

with r^2 as a function of C. If r^2 <= C at all levels, the variance is too small and the mean too close to the data; if
r^2 >= C, the other way round. For S = 1.7, a = .8, sigma_y = .6, y = 1.3, whose posterior has the mean 1.221 and the
variance .423, the published r_t, too small here, gives 1.294 and .399; r_t = level, that of a flat prior, 1.013 and
.486; r_t = 0, 1.546 and .281. The published r_t assumes pixels of unit variance. For images in [0, 1] it is too large,
which is biased, but gentle. The prior's own r_t is one number for all directions, smaller than the spread in the
uncertain ones, and pulls firmly there: with `ellipses-64` 60 uniform steps blow up, and 200 do not.

compat = "authors" is the paper's algorithm: the guidance moves the state, and eps keeps what it was without it. To an
update from t to s it adds

    x_s <- x_s + alpha_s alpha_t G,    G = scale J^T r_t^2 A^T (r_t^2 A A^T + sigma_y^2 I)^{-1} (y - A x0)

and to the last estimate of x_0 likewise, with alpha_s = 1. For exact data G = scale J^T A^+ (y - A x0), without r_t.
The shift does not become small with the step, so that it depends on the number of steps what is sampled, and with many
of them nothing but y counts. In the problem above with VP, spread = "published" and `ancestral` with eta = 1, 20 / 100
/ 1000 uniform steps give the means 1.248 / 1.622 / 1.625 and the variances .200 / .065 / .016: y/a = 1.625 and no
spread in the limit. The code of RED-diff, by the same authors, also starts from the noised A^+ y, which is not
reproduced. The guidance has to come from the evaluation that made the step, which `ancestral` (DDIM) and `dpm-solver`
hand on; other samplers are refused at their first step.

References:
    Song, Vahdat, Mardani, Kautz: Pseudoinverse-Guided Diffusion Models for Inverse Problems. ICLR 2023,
    openreview.net/forum?id=9_gsMA8MRKQ, algorithm 1.
    Mardani, Song, Kautz, Vahdat: A Variational Perspective on Solving Inverse Problems with Diffusion Models. ICLR
    2024, arXiv:2305.04391 (RED-diff; its code contains the method, for exact data).
"""

from __future__ import annotations

from typing import Any, Literal

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.model import ConditionedModel, broadcast, last_vjp
from scoreplug.protocols import HasLogDensity, ScoreModel, Step
from scoreplug_builtin.conditioners._predictive import (
    GuidedDensity,
    GuidedModel,
    likelihood_pull,
    require_solvable,
    require_spread,
    spread_of,
)


@attrs.frozen(kw_only=True)
class PiGDM:
    """Pseudoinverse guidance: one vjp of the network per evaluation, one solve with A A^T."""

    scale: float = param(
        1.0, ge=0.0, on_divergence="lower", doc="weight of the log likelihood; 1 is Bayes' rule, 0 is the prior"
    )
    spread: Literal["prior", "published"] = param(
        "prior", doc="r_t: the prior's own denoising error, or the paper's level / (1 + level^2)^(1/2)"
    )
    prior_std: float | None = param(
        None,
        ge=0.0,
        unit="data",
        doc="tau, for the r_t of the prior N(mu, tau^2 I) in place of `spread`; 0 is dps in its likelihood form",
    )
    compat: Literal["fixed", "authors"] = param(
        "fixed", doc="guidance in the score, or added to x_s while eps is kept, as in the paper; that one collapses"
    )

    def __attrs_post_init__(self) -> None:
        if self.spread == "published" and self.prior_std is not None:
            raise ValueError(
                "spread='published' is prior_std=1, so that prior_std cannot be given as well "
                f"(got {self.prior_std!r}); leave one of them out"
            )

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        require_solvable("pigdm", measurement)
        exact_data, authors = measurement.noise_std == 0, self.compat == "authors"
        if self.tau == 0 and (exact_data or authors):
            raise ValueError(
                "conditioner 'pigdm' with prior_std = 0 is dps in its likelihood form, which divides by sigma_y^2 and "
                "has no form that keeps eps: give noise_std > 0 and compat='fixed', or prior_std > 0"
            )
        if self.tau is None and not (exact_data and authors):
            instead = "give prior_std, the standard deviation of one pixel, or spread='published'"
            require_spread("conditioner 'pigdm'", prior, instead=instead)
        if self.scale == 0:
            return prior
        if authors:
            return PiGDMInjection(prior=prior, measurement=measurement, method=self)
        kind = PiGDMDensity if isinstance(prior, HasLogDensity) else PiGDMScore
        return kind(prior=prior, measurement=measurement, method=self)

    @property
    def tau(self) -> float | None:
        """The standard deviation of the white prior that r_t belongs to, or None for the prior's own r_t."""
        return 1.0 if self.spread == "published" else self.prior_std


@attrs.frozen(kw_only=True, eq=False)
class PiGDMScore(GuidedModel):
    """The prior's score plus the guidance."""

    method: PiGDM

    def potential(self, x0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        variance = spread_of(self.prior, t, self.method.tau) ** 2
        pull, square = likelihood_pull(self.measurement, self.measurement.residual(x0), variance=variance)
        return self.method.scale * pull, -0.5 * self.method.scale * square


class PiGDMDensity(GuidedDensity, PiGDMScore):
    """The same, of a prior whose log density is known."""


@attrs.frozen(kw_only=True, eq=False)
class PiGDMInjection(ConditionedModel):
    """The prior's score; after an update the guidance of its evaluation is added to the state.

    The guidance belongs to the estimate x0 of the same evaluation, and travels with it: as an attribute of the tensor,
    from `denoise` through the sampler's Step to `project`. The model keeps nothing.
    """

    method: PiGDM

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        return self.prior.score(x, t)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        x0, vjp = self.prior.denoise_with_vjp(x, t)
        x0 = x0.detach()  # a tensor of its own, which may carry something
        vars(x0)[_SHIFT] = self.method.scale * broadcast(self.sde.alpha(t), x) * last_vjp(vjp, self.pull(x0, t))
        return x0

    def pull(self, x0: Tensor, t: Tensor) -> Tensor:
        """r_t^2 A^T (r_t^2 A A^T + sigma_y^2 I)^{-1} (y - A x0), (B, *shape); for exact data A^+ (y - A x0)."""
        A: Any = self.measurement.operator
        r = self.measurement.residual(x0)
        if self.measurement.noise_std == 0:
            return A.pinv(r)
        variance = spread_of(self.prior, t, self.method.tau) ** 2
        return broadcast(variance, x0) * likelihood_pull(self.measurement, r, variance=variance)[0]

    def project(self, x: Tensor, step: Step) -> Tensor:
        x = self.prior.project(x, step)
        if step.phase == "start":
            return x
        shift = None if step.x0 is None else vars(step.x0).get(_SHIFT)
        if shift is None:
            raise TypeError(
                "conditioner 'pigdm' with compat='authors' adds the guidance to x_s that belongs to the estimate x0 of "
                "the same step, and this sampler hands on another one; use the sampler 'ancestral' (DDIM), or "
                "compat='fixed', which runs with every sampler"
            )
        alpha_s = 1.0 if step.phase == "finish" else self.sde.alpha(step.s)
        return x + alpha_s * shift


_SHIFT = "pigdm_shift"
