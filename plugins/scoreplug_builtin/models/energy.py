r"""A network read as an energy: its score is a gradient, and its log density is at hand.

    form = "inner":    log p_t(x) = -<x, eps> / (2 sigma_t)
    form = "norm":     log p_t(x) = -|eps|^2 / (2 sigma_t)

up to a constant for each t, with eps = (x - alpha_t x0) / sigma_t made of what the base model denoises, and the score
by differentiating it. Any network defines a density so, which Metropolis acceptance (`mala`, `hmc`) can then use
exactly; but it is another model than the base, whose own score is -eps / sigma_t and in general no gradient.

inner: the two scores agree where eps is linear in x with a symmetric matrix, as it is for a Gaussian prior of mean 0,
and wherever the network is homogeneous with a symmetric Jacobian; for other networks it is an approximation that needs
no training. norm is the parametrisation of Du et al.: for a network trained to predict eps it is the wrong density (for
N(0, S) its score is -sigma_t x / P_t^2, where -x / P_t is right), so that the network has to be trained through this
model. Both cost a derivative of the network per evaluation.

References:
    Du, Durkan, Strudel, Tenenbaum, Dieleman, Fergus, Sohl-Dickstein, Doucet, Grathwohl: Reduce, Reuse, Recycle:
    Compositional Generation with Energy-Based Diffusion Models and MCMC. ICML 2023, arXiv:2302.11552, section 4.
    Salimans, Ho: Should EBMs model the energy or the score? ICLR 2021 workshop on energy-based models. Romano, Elad,
    Milanfar: The Little Engine that Could: Regularization by Denoising. SIAM J. Imaging Sci. 10 (2017),
    arXiv:1611.02862 (inner).
"""

from __future__ import annotations

from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.model import WrappedModel, broadcast
from scoreplug.protocols import ScoreModel


@attrs.frozen(kw_only=True, eq=False)
class Energy(WrappedModel):
    """The density whose energy a network gives; one evaluation and one derivative of the network per score."""

    base: ScoreModel = param(component="model", doc="the model whose denoised estimate makes the energy")
    form: Literal["inner", "norm"] = param(
        "inner", doc="energy from <x, eps>, for networks as they are, or from |eps|^2, for networks trained with it"
    )

    @property
    def module(self) -> Any:
        """The base's torch.nn.Module; the score is differentiable in its parameters."""
        base: Any = self.base
        return base.module

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x) up to a constant for each t, (B,)."""
        alpha, sigma = broadcast(self.sde.alpha(t), x), broadcast(self.sde.sigma(t), x)
        eps = (x - alpha * self.base.denoise(x, t)) / sigma
        energy = (x if self.form == "inner" else eps) * eps / (2 * sigma)
        return -energy.flatten(1).sum(1)

    def score_and_log_density(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        # guidance and training differentiate the score once more
        wanted = torch.is_grad_enabled() and (x.requires_grad or self._is_training())
        with torch.enable_grad():
            x = x if wanted and x.requires_grad else x.detach().requires_grad_()
            log_density = self.log_density(x, t)
            (score,) = torch.autograd.grad(log_density.sum(), x, create_graph=wanted)
        return score, log_density if wanted else log_density.detach()

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        return self.score_and_log_density(x, t)[0]

    def _is_training(self) -> bool:
        module: torch.nn.Module | None = getattr(self.base, "module", None)
        return module is not None and any(parameter.requires_grad for parameter in module.parameters())
