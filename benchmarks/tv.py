r"""Total-variation-regularised least squares, the classical reconstruction that the demo is measured against.

    min_{x >= 0}  1/2 |A x - y|^2 + weight * sum_pixels |grad x|_2

by the primal-dual algorithm (Chambolle and Pock 2011, doi:10.1007/s10851-010-0251-1), with A and A^T of the real
operator, batched.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gradient(x: Tensor) -> Tensor:
    """Forward differences, (B, C, H, W) -> (2, B, C, H, W); zero beyond the last pixel (Neumann)."""
    dx, dy = torch.zeros_like(x), torch.zeros_like(x)
    dx[..., :, :-1] = x[..., :, 1:] - x[..., :, :-1]
    dy[..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    return torch.stack([dx, dy])


def gradient_adjoint(p: Tensor) -> Tensor:
    """The transpose of `gradient`."""
    px, py = p[0].clone(), p[1].clone()
    px[..., :, -1] = 0
    py[..., -1, :] = 0
    x = -px - py
    x[..., :, 1:] += px[..., :, :-1]
    x[..., 1:, :] += py[..., :-1, :]
    return x


def tv_least_squares(operator, y: Tensor, weight: float, *, steps: int = 1000, non_negative: bool = True) -> Tensor:
    """Reconstructions (B, *input_shape) of measurements y (B, *output_shape)."""
    A_norm = operator.norm
    balance = A_norm / 8**0.5  # gives both blocks of (A, grad) the same norm, 8 being that of grad^T grad
    L = (2 * A_norm**2) ** 0.5
    tau = sigma = 0.99 / L
    x = torch.zeros(len(y), *operator.input_shape, dtype=y.dtype)
    x_bar, u = x, torch.zeros_like(y)
    p = gradient(x)
    for _ in range(steps):
        u = (u + sigma * (operator(x_bar) - y)) / (1 + sigma)
        p = p + sigma * balance * gradient(x_bar)
        p = p / (p.norm(dim=0, keepdim=True) * balance / weight).clamp_min(1.0)
        x_new = x - tau * (operator.adjoint(u) + balance * gradient_adjoint(p))
        x_new = x_new.clamp_min(0.0) if non_negative else x_new
        x, x_bar = x_new, 2 * x_new - x
    return x
