r"""Regularisation by denoising diffusion (RED-diff): an image is optimised until it fits y and its denoised versions.

For each sample mu descends, by Adam, while t falls through the grid, with fresh noise at each step:

    g = -v grad log p(y | x_0) + w (x_0 - E[x_0 | x_t]),    x_0 = mu + sigma_x0 z,    x_t = alpha x_0 + sigma eps

The second term is the authors' w level (eps_theta(x_t) - eps), in which level = sigma / alpha is the weight of t: the
factor cancels. No gradient goes through the network.

It reports a POINT, not a posterior sample. The method fits a normal distribution of the fixed width sigma_x0 around mu,
and mu is what comes out: samples differ by what is left of the noise of their gradients, which says nothing of the
posterior's spread. For a prior N(0, S) and y = a x + sigma_y n the gradient's mean is zero at

    mu = v a y / (v a^2 + w sigma_y^2 avg_t[sigma_t^2 / P_t]),    P_t = alpha^2 S + sigma^2

if all levels count alike. As they are visited in falling order, and the pull of the prior fades with level, mu ends the
nearer to the data the larger lr is.

The authors' data term is v |y - A mu|^2 / (2 m), a mean over the m measured values, and their term of the prior is a
mean over the n pixels: their w counts as w m / (n sigma_y^2) here. The default is their number, .25, which for accurate
data leaves the prior little say. They start at A^+ y, which a sampler does not know; here mu starts at E[x_0 | x_1],
the middle of the prior.

References:
    Mardani, Song, Kautz, Vahdat: A Variational Perspective on Solving Inverse Problems with Diffusion Models. ICLR
    2024, arXiv:2305.04391, algorithm 1. Kingma, Ba: Adam: A Method for Stochastic Optimization. ICLR 2015,
    arXiv:1412.6980.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.noise import Noise
from scoreplug.protocols import HasLikelihood, HasRefine, ScoreModel
from scoreplug.sampler import BaseSampler, State

BETAS, EPSILON = (0.9, 0.99), 1e-8  # Adam's, as the authors set them


class Moments(NamedTuple):
    """Adam's running means of the gradient and of its square, each (B, *shape)."""

    first: Tensor
    second: Tensor


@attrs.frozen(kw_only=True)
class REDDiff(BaseSampler):
    """A point estimate by stochastic optimisation; one evaluation and one gradient of the likelihood per step."""

    steps: int = param(1000, ge=1, doc="number of steps, from t = 1 to t_min")
    v: float = param(1.0, gt=0.0, doc="weight of the log likelihood; the authors' data term has its own scale")
    w: float = param(0.25, ge=0.0, doc="weight of the prior, see above for the authors' in these units")
    lr: float = param(
        0.1, gt=0.0, unit="data", on_divergence="lower", doc="Adam's step size: about how far a pixel moves per step"
    )
    sigma_x0: float = param(0.0, ge=0.0, unit="data", doc="standard deviation of the fitted normal distribution")
    final: Literal["denoise", "sample"] = param(
        "sample", doc="return mu as it is, or E[x_0 | x_t = alpha mu] at t_min, at the cost of one evaluation"
    )

    def init(self, model: ScoreModel, x: Tensor, noise: Noise) -> State:
        del noise
        times = self.times(model.sde)
        mu = self._posterior(model).prior.denoise(x, times[0])
        return State(x=mu, times=times, carry=Moments(first=torch.zeros_like(mu), second=torch.zeros_like(mu)))

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        g = self.gradient(self._posterior(model), state.x, state.t, noise)
        moments: Moments = state.carry  # type: ignore[assignment]
        first = BETAS[0] * moments.first + (1 - BETAS[0]) * g
        second = BETAS[1] * moments.second + (1 - BETAS[1]) * g**2
        n = state.index + 1
        direction = first / (1 - BETAS[0] ** n) / ((second / (1 - BETAS[1] ** n)).sqrt() + EPSILON)
        return state.next(state.x - self.lr * direction, carry=Moments(first=first, second=second))

    def gradient(self, posterior: HasLikelihood, mu: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """g at mu and the level t, (B, *shape)."""
        prior = posterior.prior
        x0 = mu
        if self.sigma_x0 > 0:
            x0 = mu + self.sigma_x0 * noise.at("x0").normal(prior.shape)
        x_t = prior.sde.alpha(t) * x0 + prior.sde.sigma(t) * noise.at("eps").normal(prior.shape)
        return -self.v * likelihood_score(posterior, x0) + self.w * (x0 - prior.denoise(x_t, t))

    def estimate(self, model: ScoreModel, state: State) -> Tensor:
        prior = self._posterior(model).prior
        return prior.denoise(prior.sde.alpha(state.t) * state.x, state.t)

    def _posterior(self, model: ScoreModel) -> HasLikelihood:
        if not isinstance(model, HasRefine):  # another one's guidance of x_t would go unheard
            raise TypeError(
                f"sampler 'reddiff' needs a posterior that meets y in x_0 alone, which {type(model).__name__} does "
                "not; use the conditioner 'diffpir'"
            )
        return model


def likelihood_score(posterior: HasLikelihood, x0: Tensor) -> Tensor:
    """grad log p(y | x_0) at x0, (B, *shape)."""
    with torch.enable_grad():
        x0 = x0.detach().requires_grad_()
        log_likelihood = posterior.log_likelihood(x0).sum()  # of independent samples
    return torch.autograd.grad(log_likelihood, x0)[0]
