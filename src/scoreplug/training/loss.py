r"""Denoising score matching.

With x_t = alpha_t x_0 + sigma_t z, the minimiser over all functions x0 of

    E  w(level) |x0(x_t, t) - x_0|^2,    level = sigma_t / alpha_t,

is E[x_0 | x_t], which by Tweedie's formula is the score of p_t, whatever the positive weight w and the distribution
of t.

References:
    Vincent: A connection between score matching and denoising autoencoders. Neural Computation 23, 2011,
    doi:10.1162/NECO_a_00142.
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-based generative modeling through stochastic differential
    equations. ICLR 2021, arXiv:2011.13456.
    Karras, Aittala, Aila, Laine: Elucidating the design space of diffusion-based generative models. NeurIPS 2022,
    arXiv:2206.00364.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoreplug.model import broadcast
from scoreplug.noise import Noise
from scoreplug.protocols import SDE, ScoreModel
from scoreplug.training.config import Levels


def draw_times(levels: Levels, sde: SDE, noise: Noise) -> Tensor:
    """Times of the batch's levels, (B,) float64.

    The distribution is met in each batch and not only on average: sample j of B draws from its j-th quantile interval
    of length 1/B, which leaves the expectation of the loss as it is and lowers its variance.
    """
    batch = len(noise.samples)
    draws = noise.uniform().double()
    u = (torch.arange(batch, dtype=torch.float64, device=draws.device) + draws) / batch
    low, high = (torch.tensor(value, dtype=torch.float64, device=draws.device) for value in (levels.low, levels.high))
    if levels.distribution == "uniform-t":
        first, last = sde.time_of(low), sde.time_of(high)
        return first + u * (last - first)
    share = 1.0 if levels.distribution == "loguniform" else levels.loguniform_share
    loguniform = low.log() + (u / max(share, 1e-12)) * (high.log() - low.log())
    lognormal = levels.mean + levels.std * torch.special.ndtri((u - share) / max(1 - share, 1e-12))
    log_level = torch.where(u < share, loguniform, lognormal)
    return sde.time_of(log_level.exp().clamp(low, high))


def weight(levels: Levels, sde: SDE, t: Tensor) -> Tensor:
    """Weight of |x0 - x_0|^2 at time t, of t's shape."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    level = sigma / alpha
    match levels.weight:
        case "edm":
            return (level**2 + levels.data_std**2) / (level * levels.data_std) ** 2
        case "score":  # sigma^2 |score - z-score|^2, the loss of epsilon networks
            return 1 / level**2
        case "likelihood":  # Song, Durkan, Murray, Ermon 2021, arXiv:2101.09258
            return sde.diffusion(t) ** 2 * alpha**2 / sigma**4


def denoising_loss(model: ScoreModel, x_0: Tensor, levels: Levels, noise: Noise) -> Tensor:
    """Weighted squared error per pixel, averaged over the batch; a 0-dim tensor that can be differentiated.

    Args:
        model: whose denoised estimate is asked.
        x_0: clean images, (B, *shape), in the model's type.
        levels: distribution and weight of the levels.
        noise: of this batch, one stream per image.
    """
    sde = model.sde
    t = draw_times(levels, sde, noise.at("level"))
    z = noise.at("z").normal(tuple(x_0.shape[1:]))
    x_t = broadcast(sde.alpha(t), x_0) * x_0 + broadcast(sde.sigma(t), x_0) * z
    error = (model.denoise(x_t, t) - x_0).flatten(1).square().mean(1)
    return (weight(levels, sde, t).to(error) * error).mean()


def check_levels(levels: Levels, sde: SDE) -> None:
    """Refuse levels that the model's process never reaches.

    Raises:
        ValueError: naming the highest level.
    """
    end = torch.ones((), dtype=torch.float64)
    highest = (sde.sigma(end) / sde.alpha(end)).item()
    if levels.high > highest * (1 + 1e-9) and math.isfinite(highest):
        raise ValueError(
            f"[levels] high must be at most {highest:.4g}, the model's process at t = 1 (got {levels.high!r})"
        )
