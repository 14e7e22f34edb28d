"""Resampling of weighted particles."""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 10
"""The curve has 2^BITS cells a side: more than there are particles in a row."""


def effective_size(log_weights: Tensor) -> float:
    """1 / (K sum W^2), the effective sample size as a share of the K particles, in [1 / K, 1]."""
    weights = log_weights.softmax(0)
    return float(1 / (len(weights) * weights.square().sum()))


def offspring(weights: Tensor, points: Tensor) -> Tensor:
    """Inverse of the weights' cumulative distribution: which particle each point in [0, 1) falls on, (B,), integer.

    A particle with weight W gets B W points in expectation if the points are uniform (one each: multinomial; (i + u) /
    B with one u: systematic, with floor(B W) or one more).
    """
    cumulative = weights.double().cumsum(0)
    return torch.searchsorted(cumulative / cumulative[-1], points.double(), right=True).clamp(max=len(weights) - 1)


def along_a_curve(x: Tensor) -> Tensor:
    """The order of particles along a Hilbert curve through the ranks of their two first principal coordinates, (B,).

    Hilbert 1891, doi:10.1007/BF01199431. Neighbours on the curve are neighbours in the plane.
    """
    flat = x.flatten(1).double()
    if len(flat) < 3 or flat.shape[1] < 2:
        return flat[:, 0].argsort()
    centred = flat - flat.mean(0)
    gram = centred.T @ centred if flat.shape[1] < len(flat) else centred @ centred.T
    vectors = torch.linalg.eigh(gram)[1][:, -2:]
    coordinates = centred @ vectors if flat.shape[1] < len(flat) else vectors
    ranks = coordinates.argsort(0).argsort(0)
    i, j = (ranks * 2**BITS // len(flat)).unbind(1)
    return _distance_along(i, j).argsort(stable=True)


def _distance_along(i: Tensor, j: Tensor) -> Tensor:
    """Position of a cell (i, j) on the curve of order BITS, an integer below 4^BITS."""
    position, side = torch.zeros_like(i), 2**BITS
    half = side // 2
    while half > 0:
        right, upper = ((i & half) > 0).long(), ((j & half) > 0).long()
        position = position + half * half * ((3 * right) ^ upper)
        turned = (upper == 0) & (right == 1)
        i, j = torch.where(turned, side - 1 - i, i), torch.where(turned, side - 1 - j, j)
        i, j = torch.where(upper == 0, j, i), torch.where(upper == 0, i, j)
        half //= 2
    return position
