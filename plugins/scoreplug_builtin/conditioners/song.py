r"""Projection onto the noised measurement (Song et al. 2022); with weight 1, replacement (Song et al. 2021).

    x <- x + lam A^+ (y_t - A x),    y_t = alpha_t y + sigma_t A z,    z ~ N(0, I), an image

The score is the prior's. After the start, and after every predictor and corrector move, the state at level t is moved
towards a measurement of the same level, with new noise z each time; at the end the estimate of x_0 is projected onto y
itself. Where A has full row rank, A A^+ = I, and lam = 1 gives A x = y_t after every move and A x = y at the end, up to
rounding. Otherwise A x is the projection of y_t, or y, onto the range of A: the least-squares fit.

The 2022 paper writes A = P(Lam) T with an invertible T (the Fourier transform, or the Radon transform from all angles)
whose rows the diagonal Lam of zeros and ones selects, and mixes in T's domain:

    x <- T^{-1} [lam Lam P(Lam)^T y_t + (1 - lam) Lam T x + (I - Lam) T x]

With the right inverse A^- = T^{-1} P(Lam)^T in the place of A^+ that is the formula above. A^- = A^+ for an orthogonal
T (inpainting, MRI of complex images); for others A^+ is the right inverse that moves x least.

Noise. y is taken as exact, and a lam below 1 is the only provision for noise: the authors tuned it to .841 for CT from
23 views, .72 for low-dose CT, .355 to .865 where the trace of metal is left out, and 1 for MRI. With lam = 1 the
samples reproduce y's noise, as A^+ amplifies it: by up to the condition number, in a blur or a sinogram. Rounding is
noise, too: in float32 it comes out at some 1e-8 times the condition number, relative to the state. A method with
sigma_y in its equations (ddrm, dps) is the better choice there.

Bias. Exact if the measured part is independent of the rest. Otherwise the prior's score at (y_t, rest) is not that of
the rest given y: y_t is drawn anew in each step, and does not listen to the rest. For two unit normal variables of
correlation rho, x_1 = y measured without noise, lam = 1, and many steps of the reverse SDE without corrector, x_2 has

    mean (y / rho) (1 - (1 - rho^2)^{1/2}),    variance (1 - rho^2) artanh(rho) / rho

in place of rho y and 1 - rho^2: for rho = .5, .268 y and .824 (.5 y, .75); for rho = .8, .5 y and .494 (.8 y, .36). The
mean moves half as far as it should when rho is small, and the variance is always too large. Langevin moves at every
level lessen the bias; it goes away with many of them and a small last level.

The 2021 code takes y_t at the level t that an update came from, although the state is at the level s that it went to;
compat = "authors" does the same. finish = "soft" is the variant "langevin_projection" of the 2022 code, which ends with
the same lam that it samples with.

References:
    Song, Shen, Xing, Ermon: Solving Inverse Problems in Medical Imaging with Score-Based Generative Models. ICLR 2022,
    arXiv:2111.08005.
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through Stochastic Differential
    Equations. ICLR 2021, arXiv:2011.13456 (inpainting and colorization by replacement).
"""

from __future__ import annotations

from typing import Literal

import attrs

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.protocols import ScoreModel
from scoreplug_builtin.conditioners._projection import projected, require_pinv


@attrs.frozen(kw_only=True)
class Song:
    """Projection after every update: no vjp of the network; one A and one A^+ per update."""

    weight: float = param(
        1.0,
        ge=0.0,
        le=1.0,
        on_divergence="lower",
        doc="lam, how far towards the noised measurement; 1 replaces, 0 is the prior",
    )
    finish: Literal["exact", "soft", "none"] = param(
        "exact", doc="the estimate of x_0 is made to agree with y, moved by `weight` towards it, or left alone"
    )
    compat: Literal["fixed", "authors"] = param(
        "fixed", doc="level of the noised measurement: that of the state, or the one it came from, as in the 2021 code"
    )

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        require_pinv("song", measurement.operator)
        if self.weight == 0:
            return prior
        level: Literal["s", "t"] = "t" if self.compat == "authors" else "s"
        return projected(
            prior, measurement=measurement, method=self, weight=self.weight, finish=self.finish, data_level=level
        )
