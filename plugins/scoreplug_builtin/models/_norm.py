r"""Group normalisation, FiLM and SiLU in one go, for channels-last tensors in a network with frozen weights.

    z = w d / s + b,    d = x - m,    w = w_0 (1 + scale),  b = b_0 (1 + scale) + shift,    y = z sigmoid(z)

with m the mean of a group and s^2 = mean(d^2) + eps. The gradient takes d and z again from x, so that of the large
tensors in this chain one is kept,

    dx = (u - mean(u) - d mean(u d) / s^2) / s,    u = w dz.

PyTorch's own normalisation of channels-last tensors loses digits (it takes s^2 from mean(x^2) - m^2, which matters
where the values of a group are large and near each other), and its gradient is several times slower.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad


def normalise(x: Tensor, norm: nn.GroupNorm, *, film: Tensor | None = None, activate: bool = True) -> Tensor:
    """SiLU(norm(x) (1 + scale) + shift), (B, C, *size).

    Args:
        x: (B, C, *size).
        norm: the normalisation.
        film: scale and shift, (B or 1, 2 C, 1, ...); none if left out.
        activate: whether SiLU is applied.
    """
    weight: Tensor = norm.weight
    bias: Tensor = norm.bias
    fixed = is_fixed(x, weight, bias, *(() if film is None else (film,)))
    if not (fixed and x.is_contiguous(memory_format=torch.channels_last)):
        h = norm(x)
        if film is not None:
            scale, shift = film.chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return F.silu(h) if activate else h
    if film is not None:
        scale, shift = film.flatten(1).chunk(2, dim=1)
        weight, bias = weight * (1 + scale), bias * (1 + scale) + shift
    y, *_ = _Normalise.apply(x, weight, bias, norm.num_groups, norm.eps, activate)  # type: ignore[no-untyped-call]
    return cast(Tensor, y)


def is_fixed(x: Tensor, *constants: Tensor) -> bool:
    """Whether a layer with these constants has to be differentiated with respect to x alone, and backwards.

    And that on a CPU, in a precision whose sums can be trusted, and not by a compiler, which fuses by itself.
    """
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and all(c.dtype == x.dtype and not c.requires_grad for c in constants)
        and forward_ad.unpack_dual(x).tangent is None  # type: ignore[no-untyped-call]
        and not torch.compiler.is_compiling()
    )


class _Normalise(torch.autograd.Function):
    """(x, weight, bias, groups, eps, activate) -> y, and m and 1 / s, each (B, C, 1, ...); weight (C) or (B, C)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
        activate: bool,  # noqa: FBT001  # apply() takes no keywords
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = _group_mean(x, groups)
        d = x - mean
        inverse = (_group_mean(d * d, groups) + eps).rsqrt()
        z = torch.addcmul(_like(bias, x), d, inverse * _like(weight, x))
        return F.silu(z, inplace=True) if activate else z, mean, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, weight, bias, ctx.groups, ctx.eps, ctx.activate = inputs
        _, mean, inverse = output
        ctx.mark_non_differentiable(mean, inverse)
        ctx.save_for_backward(x, weight, bias, mean, inverse)

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, inverse = ctx.saved_tensors
        if torch.is_grad_enabled() and x.requires_grad:  # somebody differentiates once more, through m and s too
            z = F.group_norm(x.contiguous(), ctx.groups, eps=ctx.eps) * _like(weight, x) + _like(bias, x)
            y = F.silu(z) if ctx.activate else z
            return *torch.autograd.grad(y, x, dy, create_graph=True), None, None, None, None, None

        w = _like(weight, x)
        d, slope = x - mean, inverse * w
        dz = torch.ops.aten.silu_backward(dy, torch.addcmul(_like(bias, x), d, slope)) if ctx.activate else dy
        constant = inverse * _group_mean(dz, ctx.groups, w)
        linear = inverse**3 * _group_mean(dz * d, ctx.groups, w)
        return torch.addcmul(constant, d, linear).neg_().addcmul_(dz, slope), None, None, None, None, None


def _group_mean(v: Tensor, groups: int, weight: Tensor | None = None) -> Tensor:
    """The mean of weight v over each group, (B, C, 1, ...), equal in the channels of a group."""
    of_channel = v.mean(tuple(range(2, v.ndim)), keepdim=True)
    if weight is not None:
        of_channel = weight * of_channel
    of_group = of_channel.reshape(len(v), groups, -1).mean(-1, keepdim=True)
    return of_group.expand(-1, -1, v.shape[1] // groups).reshape(of_channel.shape)


def _like(parameter: Tensor, x: Tensor) -> Tensor:
    """(C) or (B or 1, C) to (B or 1, C, 1, ...), to multiply x."""
    return parameter.reshape(-1, x.shape[1], *[1] * (x.ndim - 2))
