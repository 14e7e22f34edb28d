"""The normalisation of frozen networks against PyTorch's, in the default memory order."""

import pytest
import torch
import torch.nn.functional as F

from scoreplug_builtin.models._norm import normalise
from scoreplug_builtin.models._unet import GroupNorm


def setting(rows: int, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(0)
    norm = GroupNorm(64).to(dtype).requires_grad_(False)
    norm.weight.copy_(1 + 0.3 * torch.randn(64, generator=generator))
    norm.bias.copy_(torch.randn(64, generator=generator))
    film = torch.randn(rows, 128, 1, 1, generator=generator, dtype=torch.float64).to(dtype)
    x = torch.randn(3, 64, 5, 4, generator=generator, dtype=torch.float64).to(dtype)
    return x.contiguous(memory_format=torch.channels_last), norm, film


def plain(x, norm, film, activate):
    h = F.group_norm(x.contiguous(), 32, norm.weight, norm.bias)
    if film is not None:
        scale, shift = film.chunk(2, dim=1)
        h = h * (1 + scale) + shift
    return F.silu(h) if activate else h


@pytest.mark.parametrize("activate", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_value_and_gradients_are_pytorch_s(rows, activate):
    x, norm, film = setting(rows or 1)
    film = film if rows else None
    results = []
    for function in (
        lambda x: normalise(x, norm, film=film, activate=activate),
        lambda x: plain(x, norm, film, activate),
    ):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        (first,) = torch.autograd.grad(y.pow(3).sum(), leaf, retain_graph=True)
        (graph,) = torch.autograd.grad(y.pow(3).sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(graph.pow(2).sum(), leaf)
        results.append((y, first, graph, second))

    for ours, theirs in zip(*results, strict=True):
        # float64 sums of forty terms, values of up to 1e4 in the second derivative
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-9)


def test_a_group_of_large_values_near_each_other_keeps_its_digits():
    """Where mean(x^2) - mean^2 would be left with none: a mean of 100 deviations."""
    x, norm, _ = setting(1, torch.float32)
    x = 0.01 * x + 1
    exact = plain(x.double(), norm.double(), None, activate=False)

    value = normalise(x, norm.float(), activate=False)

    # the mean is rounded to 6e-8, which is 6e-6 deviations, times weights below 2
    torch.testing.assert_close(value.double(), exact, rtol=0, atol=3e-5)


def test_one_tensor_is_kept_for_the_gradient():
    x, norm, film = setting(1)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda v: kept.append(v.numel()) or v, lambda v: v):
        normalise(x.requires_grad_(), norm, film=film)

    assert sum(n >= x.numel() for n in kept) == 1
