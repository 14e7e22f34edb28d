r"""Distances by kernels: MMD and energy distance against a reference, KSD against a score.

    MMD^2_u = sum_{i != j} k(x_i, x_j) / (n (n - 1)) + sum_{i != j} k(y_i, y_j) / (m (m - 1)) - 2 mean k(x_i, y_j)
    energy  = 2 mean |x_i - y_j| - sum_{i != j} |x_i - x_j| / (n (n - 1)) - sum_{i != j} |y_i - y_j| / (m (m - 1))
    KSD^2   = mean_{i != j} h(x_i, x_j),
    h(x, x') = s(x)^T s(x') k + s(x)^T grad_x' k + s(x')^T grad_x k + tr grad_x grad_x' k,    s = grad log p(x | y)

All three are U-statistics: unbiased, 0 on average for exact independent samples, and so negative about half of the time
then.  KSD needs no reference, only the score; for a learned prior that is the network at a small noise level plus
A^T (y - A x) / noise_std^2.  It barely sees the weights of modes that lie far apart, since the score does not.

References:
    Gretton, Borgwardt, Rasch, Schoelkopf, Smola: A kernel two-sample test. JMLR 2012.
    Szekely, Rizzo: Energy statistics. J. Stat. Plan. Inference 2013, doi:10.1016/j.jspi.2013.03.018.
    Liu, Lee, Jordan: A kernelized Stein discrepancy for goodness-of-fit tests. ICML 2016.
    Gorham, Mackey: Measuring sample quality with kernels. ICML 2017 (the inverse multiquadric kernel).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scoreplug.bench.metrics._arrays import Array, array, median_distance, rows, squared_distances, two_sets
from scoreplug.bench.metrics._rank import rank_p_value


class Discrepancy(NamedTuple):
    """A squared discrepancy and its test.

    Args:
        squared: the U-statistic; negative values are chance.
        p_value: of the hypothesis that the samples are exact and independent, in (0, 1].
        scale: the length in the kernel, in data units.
    """

    squared: float
    p_value: float
    scale: float


def mmd(
    samples: Array, reference: Array, *, bandwidth: float | None = None, permutations: int = 200, seed: int = 0
) -> Discrepancy:
    """Unbiased MMD^2 with the kernel k(x, x') = exp(-|x - x'|^2 / (2 bandwidth^2)), and its permutation test.

    Args:
        samples: (n, *shape), n >= 2.
        reference: exact samples, (m, *shape), m >= 2.
        bandwidth: > 0, data units; None takes the median distance between samples of the reference. The permutation
            test is exact for a bandwidth that is given, and nearly so for the median, which hardly depends on which
            samples it is taken over.
        permutations: number of relabellings; the p-value is at least 1 / (permutations + 1), and 1 with none.
        seed: of the relabellings.
    """
    x, y = two_sets(samples, reference, least=2)
    n, m = len(x), len(y)
    squared = squared_distances(both := np.concatenate([x, y]), both)
    scale = _positive(median_distance(squared[n:, n:]) if bandwidth is None else bandwidth, "bandwidth")
    k = np.exp(-squared / (2 * scale**2))
    np.fill_diagonal(k, 0.0)

    # one column for each labelling, 1 for "samples" and 0 for "reference"; the first is the true one
    rng = np.random.default_rng(seed)
    label = np.repeat([1.0, 0.0], [n, m])
    labels = np.stack([label, *(rng.permutation(label) for _ in range(permutations))], axis=1)
    k_labels = k @ labels
    within = (labels * k_labels).sum(0)
    across = k_labels.sum(0) - within
    other = k.sum() - within - 2 * across
    values = within / (n * (n - 1)) + other / (m * (m - 1)) - 2 * across / (n * m)
    return Discrepancy(float(values[0]), rank_p_value(values[0], values[1:]), scale)


def energy_distance(samples: Array, reference: Array) -> float:
    """The energy distance, unbiased, in data units: 0 on average for equal distributions.

    Args:
        samples: (n, *shape), n >= 2.
        reference: exact samples, (m, *shape), m >= 2.
    """
    x, y = two_sets(samples, reference, least=2)
    n, m = len(x), len(y)
    distance = np.sqrt(squared_distances(both := np.concatenate([x, y]), both))
    np.fill_diagonal(distance, 0.0)
    within, other = distance[:n, :n].sum() / (n * (n - 1)), distance[n:, n:].sum() / (m * (m - 1))
    return float(2 * distance[:n, n:].mean() - within - other)


def ksd(
    samples: Array,
    score: Callable[[Tensor], Tensor],
    *,
    scale: float | None = None,
    bootstraps: int = 200,
    seed: int = 0,
) -> Discrepancy:
    """Squared kernel Stein discrepancy with the kernel k(x, x') = (scale^2 + |x - x'|^2)^{-1/2}, and its test.

    The U-statistic; the V-statistic, with i = j, adds mean h(x_i, x_i) / n, which is of the order of d / n even for
    exact samples. The p-value is that of the wild bootstrap (Rademacher signs) of the degenerate U-statistic; it
    holds for independent samples, not for a chain.

    Args:
        samples: (n, *shape), n >= 2.
        score: grad log p(x | y), (n, *shape) to (n, *shape); called once, in the samples' own type.
        scale: > 0, data units; None takes the median distance between the samples.
        bootstraps: number of draws of signs; the p-value is at least 1 / (bootstraps + 1), and 1 with none.
        seed: of the signs.
    """
    x = rows(samples)
    n, d = x.shape
    if n < 2:
        raise ValueError("a Stein discrepancy needs 2 samples (got 1)")
    s = rows(score(samples if isinstance(samples, Tensor) else torch.from_numpy(array(samples))), "scores")
    if s.shape != x.shape:
        raise ValueError(f"scores have shape {s.shape} for samples of shape {x.shape}")
    squared = squared_distances(x, x)
    c = _positive(median_distance(squared) if scale is None else scale, "scale")

    q = c**2 + squared
    x_s = (x - x.mean(0)) @ s.T  # x_i . s_j
    own = np.diag(x_s)
    cross = own[:, None] + own - x_s - x_s.T  # (x_i - x_j) . (s_i - s_j)
    h = s @ s.T * q**-0.5 + (cross + d) * q**-1.5 - 3 * squared * q**-2.5
    np.fill_diagonal(h, 0.0)

    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n, bootstraps))
    null = (signs * (h @ signs)).sum(0) / (n * (n - 1))
    value = float(h.sum() / (n * (n - 1)))
    return Discrepancy(value, rank_p_value(value, null), c)


def gradient_of(log_density: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The score of a differentiable log-density, (n, *shape) to (n,): what `ksd` asks for."""

    def score(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(log_density(x).sum(), x)[0]

    return score


def _positive(value: float, name: str) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be > 0 (got {value!r}); a median of 0 means equal samples, so give one")
    return float(value)
