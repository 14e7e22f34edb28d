r"""The discrete diffusion chain that guided-diffusion networks are trained on.

With alpha_bar_t = prod_{s <= t} (1 - beta_s) and t = 0 .. T-1 (0 = least noise),

    q(x_t | x_0)          = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)
    q(x_{t-1} | x_t, x_0) = N(c0_t x_0 + c1_t x_t, beta_tilde_t I)
    beta_tilde_t          = beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t),          alpha_bar_{-1} = 1.

The continuous samplers are compared with this chain, and `index_of_level` tells a network which step a noise level is.

References:
    Ho, Jain, Abbeel: Denoising Diffusion Probabilistic Models. NeurIPS 2020, arXiv:2006.11239.
    Nichol, Dhariwal: Improved Denoising Diffusion Probabilistic Models. ICML 2021, arXiv:2102.09672.
    Song, Meng, Ermon: Denoising Diffusion Implicit Models. ICLR 2021, arXiv:2010.02502.
    Dhariwal, Nichol: Diffusion Models Beat GANs on Image Synthesis. NeurIPS 2021, arXiv:2105.05233 (guidance).
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Literal, NamedTuple

import attrs
import torch
from torch import Tensor

Prediction = Literal["epsilon", "x0", "v"]
Variance = Literal["learned_range", "learned", "fixed_small", "fixed_large"]


class Gaussian(NamedTuple):
    """N(mean, variance I), each (B, *shape). `log_variance` is not always log(variance): see `DiscreteSchedule`."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor


class Reverse(NamedTuple):
    """The network's p(x_{t-1} | x_t), and the denoised estimate x0 that it follows from; each (B, *shape)."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor
    x0: Tensor

    def draw(self, t: Tensor, noise: Tensor) -> Tensor:
        """x_{t-1}, the ancestral step; the last one, t = 0, takes the mean."""
        return self.mean + _not_last(t, noise) * torch.exp(self.log_variance / 2) * noise

    def guided(self, gradient: Tensor) -> Reverse:
        """p with its mean moved by variance x gradient of log p(y | x_t) (Dhariwal, Nichol 2021, algorithm 1)."""
        return self._replace(mean=self.mean + self.variance * gradient)


def denoised(prediction: Prediction, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x0 from what a network predicts at x = alpha x_0 + sigma eps, where alpha^2 + sigma^2 = 1.

    v = alpha eps - sigma x_0 is that of Salimans and Ho: Progressive Distillation for Fast Sampling of Diffusion
    Models. ICLR 2022, arXiv:2202.00512.
    """
    if prediction == "epsilon":
        return (x - sigma * output) / alpha
    if prediction == "v":
        return alpha * x - sigma * output
    return output


@attrs.frozen(kw_only=True, eq=False)
class DiscreteSchedule:
    """A chain of T noise levels, all tables (T,) in float64.

    Methods take indices t, (B,), and tensors (B, *shape), and compute in the type of the tensors. beta_tilde_0 is 0, so
    in the logarithm beta_tilde_1 takes its place (Nichol and Dhariwal's choice).

    Args:
        betas: beta_t, each in (0, 1].
        timestep_map: (T,), the index that the network knows each level by.
        original_steps: length of the chain that `timestep_map` points into.

    Raises:
        ValueError: if there are fewer than two levels or a beta outside (0, 1].
    """

    betas: Tensor = attrs.field()
    timestep_map: Tensor
    original_steps: int

    @betas.validator
    def _check_betas(self, field: object, betas: Tensor) -> None:
        del field
        if betas.ndim != 1 or len(betas) < 2 or not bool(((betas > 0) & (betas <= 1)).all()):
            raise ValueError(f"betas are two or more numbers in (0, 1] (got {betas!r})")

    @classmethod
    def linear(cls, steps: int = 1000) -> DiscreteSchedule:
        """beta_t from 0.1 / T to 20 / T in equal steps (Ho et al. 2020, scaled to other T)."""
        return cls._full(torch.linspace(0.1 / steps, 20 / steps, steps, dtype=torch.float64, device="cpu"))

    @classmethod
    def cosine(cls, steps: int = 1000) -> DiscreteSchedule:
        """alpha_bar(s) = cos^2((s + 0.008) / 1.008 pi / 2) at s = t / T, with beta <= 0.999 (Nichol, Dhariwal 2021)."""
        s = torch.arange(steps + 1, dtype=torch.float64, device="cpu") / steps
        alpha_bar = torch.cos((s + 0.008) / 1.008 * math.pi / 2) ** 2
        return cls._full((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999))

    @classmethod
    def _full(cls, betas: Tensor) -> DiscreteSchedule:
        return cls(betas=betas, timestep_map=torch.arange(len(betas), device="cpu"), original_steps=len(betas))

    def respaced(self, spacing: str) -> DiscreteSchedule:
        """The chain of some of the levels; see `kept_steps`."""
        kept = torch.tensor(kept_steps(len(self.betas), spacing), device="cpu")
        alpha_bar = self.alpha_bar[kept]
        betas = 1 - alpha_bar / torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
        return attrs.evolve(self, betas=betas, timestep_map=self.timestep_map[kept])

    # Tables

    @functools.cached_property
    def alpha_bar(self) -> Tensor:
        """Product of 1 - beta_s over s <= t."""
        return torch.cumprod(1 - self.betas, dim=0)

    @functools.cached_property
    def alpha_bar_previous(self) -> Tensor:
        """alpha_bar_{t-1}, the first being 1."""
        return torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])

    @functools.cached_property
    def alpha_bar_next(self) -> Tensor:
        """alpha_bar_{t+1}, the last being 0."""
        return torch.cat([self.alpha_bar[1:], self.alpha_bar.new_zeros(1)])

    @functools.cached_property
    def posterior_variance(self) -> Tensor:
        """beta_tilde_t."""
        return self.betas * (1 - self.alpha_bar_previous) / (1 - self.alpha_bar)

    @functools.cached_property
    def posterior_log_variance(self) -> Tensor:
        """log beta_tilde_t, the first entry replaced by the second."""
        return torch.cat([self.posterior_variance[1:2], self.posterior_variance[1:]]).log()

    @functools.cached_property
    def posterior_mean_x0(self) -> Tensor:
        """c0_t = beta_t sqrt(alpha_bar_{t-1}) / (1 - alpha_bar_t)."""
        return self.betas * self.alpha_bar_previous.sqrt() / (1 - self.alpha_bar)

    @functools.cached_property
    def posterior_mean_x(self) -> Tensor:
        """c1_t = (1 - alpha_bar_{t-1}) sqrt(1 - beta_t) / (1 - alpha_bar_t)."""
        return (1 - self.alpha_bar_previous) * (1 - self.betas).sqrt() / (1 - self.alpha_bar)

    # What the network is told

    def network_index(self, t: Tensor, *, rescaled: bool = False) -> Tensor:
        """The index that the network knows level t by; rescaled to a chain of 1000 if it was trained so."""
        index = self.timestep_map.to(t.device)[t]
        return index.float() * (1000 / self.original_steps) if rescaled else index

    def index_of_level(self, level: Tensor) -> Tensor:
        """The fractional index at which sqrt((1 - alpha_bar) / alpha_bar) equals `level`.

        -log(alpha_bar) is interpolated linearly between the indices; levels outside the chain get its first or last.

        Args:
            level: sigma / alpha, of any shape.

        Returns:
            Indices in [0, T - 1], of level's shape, float64.
        """
        known = -self.alpha_bar.log().to(level.device)
        wanted = torch.log1p(level.to(torch.float64) ** 2)  # -log alpha_bar = log(1 + level^2)
        right = torch.searchsorted(known, wanted).clamp(1, len(known) - 1)
        fraction = (wanted - known[right - 1]) / (known[right] - known[right - 1])
        return right - 1 + fraction.clamp(0, 1)

    # The forward chain

    def q(self, x0: Tensor, t: Tensor) -> Gaussian:
        """q(x_t | x_0)."""
        variance = 1 - self.alpha_bar
        return Gaussian(
            _at(self.alpha_bar.sqrt(), t, x0) * x0,
            _at(variance, t, x0).expand_as(x0),
            _at(variance.log(), t, x0).expand_as(x0),
        )

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t from x_0."""
        alpha, sigma = self._kernel(t, x0)
        return alpha * x0 + sigma * noise

    def q_posterior(self, x0: Tensor, x: Tensor, t: Tensor) -> Gaussian:
        """q(x_{t-1} | x_t, x_0)."""
        return Gaussian(
            _at(self.posterior_mean_x0, t, x) * x0 + _at(self.posterior_mean_x, t, x) * x,
            _at(self.posterior_variance, t, x).expand_as(x),
            _at(self.posterior_log_variance, t, x).expand_as(x),
        )

    def eps_from_x0(self, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """The noise in x_t if x_0 is x0."""
        alpha, sigma = self._kernel(t, x)
        return (x - alpha * x0) / sigma

    def x0_from_eps(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_0 if the noise in x_t is eps."""
        return denoised("epsilon", eps, x, *self._kernel(t, x))

    def _kernel(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return _at(self.alpha_bar.sqrt(), t, x), _at((1 - self.alpha_bar).sqrt(), t, x)

    # The reverse chain

    def p(
        self, x: Tensor, t: Tensor, output: Tensor, *, prediction: Prediction, variance: Variance, clip: bool
    ) -> Reverse:
        """p(x_{t-1} | x_t) = q(x_{t-1} | x_t, x0) with the network's x0, and its variance.

        Args:
            x: x_t, (B, C, *size).
            t: (B,).
            output: of the network, (B, C, *size), or (B, 2 C, *size) if it tells the variance.
            prediction: what its first C channels are.
            variance: "learned": the last C channels are log sigma^2. "learned_range": they are v in log sigma^2 =
                f log beta_t + (1 - f) log beta_tilde_t, f = (v + 1) / 2. "fixed_large": it is beta_t. "fixed_small":
                it is beta_tilde_t.
            clip: clamp x0 to [-1, 1], as the original does for images in that range.
        """
        learned = variance in ("learned", "learned_range")
        output, values = output.chunk(2, dim=1) if learned else (output, output)

        x0 = denoised(prediction, output, x, *self._kernel(t, x))
        x0 = x0.clamp(-1, 1) if clip else x0
        mean, small, log_small = self.q_posterior(x0, x, t)

        if variance == "fixed_small":
            return Reverse(mean, small, log_small, x0)
        if variance == "fixed_large":
            betas = torch.cat([self.posterior_variance[1:2], self.betas[1:]])  # beta_0 would blur the last step
            return Reverse(mean, _at(betas, t, x).expand_as(x), _at(betas.log(), t, x).expand_as(x), x0)
        if variance == "learned_range":
            f = (values + 1) / 2
            values = f * _at(self.betas.log(), t, x) + (1 - f) * log_small
        return Reverse(mean, values.exp(), values, x0)

    def guided_x0(self, x: Tensor, x0: Tensor, t: Tensor, gradient: Tensor) -> Tensor:
        """x0 for DDIM, with eps - sqrt(1 - alpha_bar) gradient in place of eps (Dhariwal, Nichol 2021, algorithm 2)."""
        _, sigma = self._kernel(t, x)
        return self.x0_from_eps(x, self.eps_from_x0(x, x0, t) - sigma * gradient, t)

    def ddim(self, x: Tensor, x0: Tensor, t: Tensor, noise: Tensor, *, stochasticity: float) -> Tensor:
        """x_{t-1} = sqrt(alpha_bar_{t-1}) x0 + sqrt(1 - alpha_bar_{t-1} - s^2) eps + s noise.

        Song, Meng, Ermon 2021, equations 12 and 16.

        Args:
            x, x0, t, noise: as elsewhere.
            stochasticity: eta; s = eta sqrt(beta_tilde_t), 0 is deterministic and 1 nearly the ancestral step.
        """
        before = self.alpha_bar_previous
        s = stochasticity * self.posterior_variance.sqrt()
        return (
            _at(before.sqrt(), t, x) * x0
            + _at((1 - before - s**2).sqrt(), t, x) * self.eps_from_x0(x, x0, t)
            + _not_last(t, x) * _at(s, t, x) * noise
        )

    def ddim_reverse(self, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """x_{t+1} along the deterministic path, from data to noise."""
        after = self.alpha_bar_next
        return _at(after.sqrt(), t, x) * x0 + _at((1 - after).sqrt(), t, x) * self.eps_from_x0(x, x0, t)

    # The variational bound, in bits per dimension

    def bound(self, x0: Tensor, x: Tensor, t: Tensor, p: Reverse) -> Tensor:
        """The term L_t of the bound: KL(q(x_{t-1} | x_t, x_0) || p), or -log p(x_0 | x_1) at t = 0; (B,).

        Data are images of 256 grey values, scaled to [-1, 1].
        """
        q = self.q_posterior(x0, x, t)
        divergence = _per_sample(kl(q.mean, q.log_variance, p.mean, p.log_variance))
        likelihood = _per_sample(-grey_value_log_likelihood(x0, p.mean, p.log_variance))
        return torch.where(t == 0, likelihood, divergence) / math.log(2)

    def prior_bound(self, x0: Tensor) -> Tensor:
        """The term L_T: KL(q(x_T | x_0) || N(0, I)), (B,)."""
        last = torch.full(x0.shape[:1], len(self.betas) - 1, device=x0.device)
        q = self.q(x0, last)
        zero = torch.zeros_like(x0)
        return _per_sample(kl(q.mean, q.log_variance, zero, zero)) / math.log(2)

    def hybrid_loss(
        self, x0: Tensor, t: Tensor, noise: Tensor, output: Tensor, *, rescale: bool
    ) -> tuple[Tensor, Tensor]:
        """The two terms of L_hybrid for an epsilon network with learned_range variance (Nichol, Dhariwal 2021, eq. 16).

        Args:
            x0, t, noise: as elsewhere.
            output: of the network at x_t, (B, 2 C, *size).
            rescale: weight the bound by T / 1000, so that one step weighs the same in chains of any length.

        Returns:
            The mean squared error of epsilon and the bound, (B,) each. The bound trains the variance alone.
        """
        x = self.q_sample(x0, t, noise)
        eps, values = output.chunk(2, dim=1)
        frozen = torch.cat([eps.detach(), values], dim=1)
        bound = self.bound(x0, x, t, self.p(x, t, frozen, prediction="epsilon", variance="learned_range", clip=False))
        return _per_sample((noise - eps) ** 2), bound * (len(self.betas) / 1000 if rescale else 1)


def kept_steps(steps: int, spacing: str) -> tuple[int, ...]:
    """The steps of a chain that a shorter one keeps.

    Args:
        steps: length of the chain.
        spacing: "": all. "ddimN": N steps at the smallest whole stride that gives N, from 0. "a,b,c": as many sections
            of equal length as there are numbers, the first with a steps from its first to its last, and so on.

    Returns:
        Indices, ascending.

    Raises:
        ValueError: if there is no such stride, a section has fewer steps than asked for, or `spacing` has another form.
    """
    if spacing == "":
        return tuple(range(steps))
    if spacing.startswith("ddim") and spacing[4:].isdecimal():
        wanted = int(spacing[4:])
        for stride in range(1, steps):
            if len(range(0, steps, stride)) == wanted:
                return tuple(range(0, steps, stride))
        raise ValueError(f"no whole stride takes {wanted} of {steps} steps (got {spacing!r})")
    counts = [int(count) if count.strip().isdecimal() else 0 for count in spacing.split(",")]
    if min(counts) < 1:
        raise ValueError(f"a spacing is 'ddimN' or positive numbers like '10,15,20' (got {spacing!r})")

    kept: list[int] = []
    start = 0
    for i, count in enumerate(counts):
        size = steps // len(counts) + (i < steps % len(counts))
        if size < count:
            raise ValueError(f"section {i} has {size} steps, of which {count} cannot be kept (got {spacing!r})")
        spread = (size - 1) / (count - 1) if count > 1 else 1.0
        # The sum is accumulated, since its rounding decides between two neighbours at a half.
        kept += [start + round(k) for k in itertools.accumulate([0.0, *[spread] * (count - 1)])]
        start += size
    return tuple(kept)


def kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N(mean1, variance1) || N(mean2, variance2)) of every coordinate, in nats."""
    ratio = log_variance1 - log_variance2
    return (ratio.exp() - 1 - ratio + (mean1 - mean2) ** 2 * torch.exp(-log_variance2)) / 2


def grey_value_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log of the mass of N(mean, variance) in the grey value's cell around x, of every coordinate, in nats.

    Cells are [x - 1/255, x + 1/255]; those of -1 and 1 extend to infinity. (Ho et al. 2020, eq. 13.)
    """
    std = torch.exp(log_variance / 2)
    below = _normal_cdf((x - mean - 1 / 255) / std)
    above = _normal_cdf((x - mean + 1 / 255) / std)
    above = torch.where(x > 0.999, 1, above)
    below = torch.where(x < -0.999, 0, below)
    return (above - below).clamp(min=1e-12).log()


def _normal_cdf(z: Tensor) -> Tensor:
    """The normal distribution function in Page's approximation (1977, doi:10.2307/2346872), as in the original."""
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2


def _at(table: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """table[t] as a factor of x, (B, 1, ..., 1); rounded to x's type only now."""
    return table.to(t.device)[t].to(x).reshape(-1, *(1 for _ in x.shape[1:]))


def _not_last(t: Tensor, x: Tensor) -> Tensor:
    return (t != 0).to(x).reshape(-1, *(1 for _ in x.shape[1:]))


def _per_sample(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)
