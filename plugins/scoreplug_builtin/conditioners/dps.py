r"""Diffusion posterior sampling (DPS): the likelihood at the denoised estimate, by the gradient through the network.

    score(x, t) + g(x, t),    x0 = E[x_0 | x_t],    r = y - A x0,    J = d x0 / d x

    form = "norm":          g = -scale rate(t) grad_x |r| / |A|
    form = "likelihood":    g = scale J^T A^T r / sigma_y^2
    form = "predictive":    g = scale J^T A^T (sigma_y^2 I + r_t^2 A A^T)^{-1} r

Norm form, the authors'. They subtract zeta grad |r| from the state after each of the 1000 steps of a DDPM chain, whose
step moves the state by kappa(t) per unit of score. Dividing by that kappa turns their step into a score, rate(t) = 1 /
kappa(t) at the same noise level, so that `scale` is the authors' zeta in that setting and means the same under every
SDE, sampler and number of steps. Dividing by the operator's norm |A|, its largest singular value, makes it mean the
same for every unit of the measurement, and one default serve a mask (|A| = 1), a blur (|A| = 1) and a sinogram (|A| =
43 for 30 angles at 64 x 64). The authors' images have the range [-1, 1]; on [0, 1] their zeta is twice the scale. A
nonlinear operator has no norm; |A| = 1 there. The pull along a singular vector is proportional to its singular value,
so an ill-conditioned operator (a sinogram) is fitted more slowly than a mask.

Likelihood form. Bayes' rule with p(y | x_t) replaced by N(y; A x0, sigma_y^2 I), which leaves out the spread of x_0
given x_t. It is biased for every prior with a spread: in a scalar Gaussian problem y = a x_0 + n with the prior
variance S and kap = scale a^2 S / sigma_y^2, the reverse SDE gives

    mean (y/a) (1 - exp(-kap)),    variance S (1 - exp(-2 kap)) / (2 kap)

where the posterior has (y/a) kap / (1 + kap) and S / (1 + kap) at scale 1: the mean goes too far towards the data, the
variance is too small (half, for small noise), and the probability flow gives yet another result, S exp(-kap). With
small noise it is stiff: a step's gain has to stay below 2 sigma_y^2 / |A|^2, or the samples diverge.

Predictive form. The spread of x_0 given x_t is put back as r_t^2 I, which is the score of `pigdm`, with r_t the prior's
own denoising error: known in closed form, or measured on held-out images after the training. With prior_std = tau it is
that of a white prior, r_t^2 = level^2 tau^2 / (level^2 + tau^2), level = sigma_t / alpha_t. Exact for the prior N(mu,
tau^2 I), biased elsewhere; scale 1 is Bayes' rule, and nothing is left to tune for an operator or its unit. It needs a
linear operator, and solves with its A A^T. A good prior's r_t is small, so that the pull is firm: a hundred steps or
more.

Every form is the gradient of a potential: -scale rate(t) |r| / |A|, or -scale / 2 times the square of r in the metric
of its covariance. A prior with a log density therefore makes a posterior with one.

compat = "authors" clips x0 to [-1, 1] before it is measured, as their code does for images of that range: a pixel that
is clipped passes no gradient on.

References:
    Chung, Kim, McCann, Klasky, Ye: Diffusion Posterior Sampling for General Noisy Inverse Problems. ICLR 2023,
    arXiv:2209.14687. The authors' code takes one norm over the whole batch, and clips x0; here each sample has its
    own, and nothing is clipped unless asked for.
    Song, Vahdat, Mardani, Kautz: Pseudoinverse-Guided Diffusion Models for Inverse Problems. ICLR 2023 (predictive
    form).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.model import broadcast, noise_level
from scoreplug.protocols import HasLogDensity, LinearOperator, ScoreModel
from scoreplug_builtin.conditioners._ddpm import ddpm_gain
from scoreplug_builtin.conditioners._predictive import GuidedDensity, GuidedModel, require_spread, spread_of


@attrs.frozen(kw_only=True)
class DPS:
    """Diffusion posterior sampling; one vjp of the network per evaluation. Norm and likelihood take any operator."""

    form: Literal["norm", "likelihood", "predictive"] = param(
        "norm",
        doc="the authors' gradient of the residual's norm, the Gaussian log likelihood, or that with x_0's spread",
    )
    scale: float = param(
        1.0,
        ge=0.0,
        on_divergence="lower",
        doc="the authors' zeta (norm), or the weight of the log likelihood (1 is Bayes); 0 is the prior",
    )
    prior_std: float | None = param(
        None,
        gt=0.0,
        unit="data",
        doc="tau, for the r_t of a white prior (predictive); none asks the prior for its own r_t",
    )

    compat: Literal["fixed", "authors"] = param(
        "fixed", doc="nothing is clipped, or x0 is clipped to [-1, 1] before it is measured, as in the authors' code"
    )

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        if self.form != "norm" and measurement.noise_std == 0:
            raise ValueError(
                f"conditioner 'dps' in {self.form} form divides by sigma_y^2: noise_std must be > 0, or use form='norm'"
            )
        if self.form == "predictive" and not isinstance(measurement.operator, LinearOperator):
            raise TypeError(
                "conditioner 'dps' in predictive form needs a linear operator "
                f"(got {type(measurement.operator).__name__}); use form='norm' or 'likelihood'"
            )
        if self.form == "predictive" and self.prior_std is None:
            instead = "give prior_std, the standard deviation of one pixel"
            require_spread("conditioner 'dps' in predictive form", prior, instead=instead)
        kind = DPSDensity if isinstance(prior, HasLogDensity) else DPSScore
        return kind(prior=prior, measurement=measurement, method=self)


@attrs.frozen(kw_only=True, eq=False)
class DPSScore(GuidedModel):
    """The prior's score plus the guidance."""

    method: DPS

    def potential(self, x0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The pull on x0, and the potential: a norm is homogeneous of degree 1 in r, a square of degree 2."""
        r, adjoint = self.residual(x0)
        pull = self.method.scale * self.pull(r, t)
        degree = 1 if self.method.form == "norm" else 2
        return adjoint(pull), -(r * pull).flatten(1).sum(1) / degree

    def residual(self, x0: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """r = y - A x0, (B, *output_shape), and the map v -> J_A^T v, J_A being the Jacobian of A at x0."""
        if self.method.compat == "fixed":
            Ax0, adjoint = self.measurement.operator.linearize(x0)
            return self.measurement.data.to(x0) - Ax0, adjoint
        Ax0, adjoint = self.measurement.operator.linearize(x0.clamp(-1, 1))
        passes = (x0.abs() <= 1).to(x0)
        return self.measurement.data.to(x0) - Ax0, lambda v: passes * adjoint(v)

    def pull(self, r: Tensor, t: Tensor) -> Tensor:
        """The vector v of the guidance J^T A^T v, (B, *output_shape): minus the loss's gradient in A x0."""
        sigma_y = self.measurement.noise_std
        if self.method.form == "likelihood":
            return r / sigma_y**2
        if self.method.form == "predictive":
            r_t = spread_of(self.prior, t, self.method.prior_std)
            return self.linear_operator.solve(r, a=broadcast(r_t**2, r), b=sigma_y**2)
        operator = self.measurement.operator
        norm = operator.norm if isinstance(operator, LinearOperator) else 1.0
        length = r.flatten(1).norm(dim=1).clamp_min(torch.finfo(r.dtype).tiny)  # an exact fit pulls nowhere
        kappa = ddpm_gain(noise_level(self.sde, t))
        return r / broadcast(length, r) / (broadcast(kappa, r) * norm)

    @property
    def linear_operator(self) -> LinearOperator:
        """The measurement's operator, which `DPS.condition` has seen to be linear."""
        operator: LinearOperator = self.measurement.operator  # type: ignore[assignment]
        return operator


class DPSDensity(GuidedDensity, DPSScore):
    """The same, of a prior whose log density is known."""
