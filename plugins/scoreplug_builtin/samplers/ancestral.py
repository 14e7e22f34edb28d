r"""Ancestral sampling: the DDPM and DDIM family of Gaussian transitions through the denoised estimate.

    x_s = alpha_s x0 + B eps + c z,    x0 = E[x_0 | x_t],    eps = (x_t - alpha_t x0) / sigma_t,    B^2 + c^2 =
    sigma_s^2

    noise = "posterior":    c = eta sigma_s sqrt(1 - (alpha_t sigma_s / (alpha_s sigma_t))^2)
    noise = "fresh":        c = eta sigma_s

Posterior noise with eta = 1 is DDPM with the variance of q(x_s | x_t, x_0); eta = 0 is deterministic DDIM, an Euler
step of the probability flow in x/alpha over sigma/alpha. Both keep the marginals p_t as the steps become small. Fresh
noise replaces a share of eps at every step, whatever the step size: it is made for few steps (DDRM, DDNM, DiffPIR) and
does not keep p_t as they become many.

References:
    Ho, Jain, Abbeel: Denoising Diffusion Probabilistic Models. NeurIPS 2020, arXiv:2006.11239.
    Song, Meng, Ermon: Denoising Diffusion Implicit Models. ICLR 2021, arXiv:2010.02502, eq. 12 and 16.
    Kawar, Elad, Ermon, Song: Denoising Diffusion Restoration Models. NeurIPS 2022, arXiv:2201.11793 (fresh noise).
"""

from __future__ import annotations

from typing import Literal

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.model import combination, kernel
from scoreplug.noise import Noise
from scoreplug.protocols import ScoreModel
from scoreplug.sampler import KernelSampler, Transition


@attrs.frozen(kw_only=True)
class Ancestral(KernelSampler):
    """DDPM (eta = 1), DDIM (eta = 0) and what lies between; one evaluation per step."""

    eta: float = param(
        1.0, ge=0.0, le=1.0, doc="share of new noise: 0 is deterministic, 1 is DDPM's posterior or all fresh"
    )
    noise: Literal["posterior", "fresh"] = param(
        "posterior", doc="variance that eta multiplies: that of q(x_s | x_t, x_0), or all of sigma_s^2"
    )

    def transition(self, model: ScoreModel, x: Tensor, t: Tensor, s: Tensor, noise: Noise) -> Transition:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = kernel(model.sde, t), kernel(model.sde, s)
        c = self.eta * sigma_s
        if self.noise == "posterior":
            c = c * (1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2) ** 0.5
        B = (sigma_s**2 - c**2) ** 0.5

        x0 = model.denoise(x, t)
        eps = combination((1 / sigma_t, x), (-alpha_t / sigma_t, x0))
        x_s = combination((alpha_s, x0), (B, eps))
        if self.eta > 0:
            x_s = combination((1, x_s), (c, noise.at("z").normal(model.shape)))
        return Transition(x=x_s, x0=x0, gain=alpha_s * sigma_t**2 / alpha_t - B * sigma_t)
