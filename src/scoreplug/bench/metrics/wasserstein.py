r"""Sliced Wasserstein distance, and how large it is between exact samples.

    SW_p^p(P, Q) = E_theta W_p^p(theta^T x, theta^T y),    theta uniform on the unit sphere,

    W_p^p = int_0^1 |F^{-1}(u) - G^{-1}(u)|^p du,          which for equally many samples is mean |x_(i) - y_(i)|^p.

Published tables of posterior samplers average over slices (MCGDiff) or take the worst one (max-sliced): the two are not
comparable; this is the average.  Between two finite exact sets it is not 0: state it beside that floor.

References:
    Bonneel, Rabin, Peyre, Pfister: Sliced and Radon Wasserstein barycenters of measures. J. Math. Imaging Vis. 2015.
    Cardoso, Janati el Idrissi, Le Corff, Moulines: Monte Carlo guided denoising diffusion models for Bayesian linear
    inverse problems. ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import numpy as np

from scoreplug.bench.metrics._arrays import Array, directions, two_sets
from scoreplug.bench.metrics._rank import rank_p_value


def sliced_wasserstein(
    samples: Array, reference: Array, *, order: float = 1.0, projections: int = 100, seed: int = 0
) -> float:
    """SW_p of two sets of samples, >= 0, in the unit of the data.

    Args:
        samples: (n, *shape).
        reference: (m, *shape); m may differ from n.
        order: p >= 1.
        projections: number of slices.
        seed: of the slices, which depend on nothing else but the dimension and their number.
    """
    if not order >= 1:
        raise ValueError(f"order must be at least 1, below it W_p is no metric (got {order!r})")
    x, y = two_sets(samples, reference)
    theta = directions(x.shape[1], projections, seed)
    x, y = np.sort(x @ theta, axis=0), np.sort(y @ theta, axis=0)
    i, j, width = _coupling(len(x), len(y))
    return float((width @ np.abs(x[i] - y[j]) ** order).mean() ** (1 / order))


def _coupling(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order statistics i and j of n and m samples that share a range of quantiles, and how wide that range is."""
    # both quantile functions are constant between levels that are multiples of 1/n or 1/m; here in units of 1 / (n m)
    levels = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    return (levels - 1) // m, (levels - 1) // n, np.diff(levels, prepend=0) / (n * m)


@attrs.frozen(kw_only=True, eq=False)
class Floor:
    """What a distance is between independent sets of exact samples.

    Args:
        values: of each pair of sets, (B,), ascending.
    """

    values: np.ndarray

    @property
    def mean(self) -> float:
        """The average over pairs."""
        return float(self.values.mean())

    def quantile(self, level: float) -> float:
        """A quantile over pairs, `level` in [0, 1]."""
        return float(np.quantile(self.values, level))

    def p_value(self, value: float) -> float:
        """The rank of a distance among those of exact samples; with B pairs it is at least 1 / (B + 1)."""
        return rank_p_value(value, self.values)


def wasserstein_floor(
    pairs: Iterable[tuple[Array, Array]], *, order: float = 1.0, projections: int = 100, seed: int = 0
) -> Floor:
    """SW_p between exact sets.

    Args:
        pairs: independent sets of exact samples, no set used twice, each as large as the sets that are judged: the
            floor falls with their size.
        order: p >= 1.
        projections: number of slices.
        seed: of the slices; that of the value that is compared, so that both see the same slices.
    """
    values = [sliced_wasserstein(x, y, order=order, projections=projections, seed=seed) for x, y in pairs]
    if not values:
        raise ValueError("a floor needs at least one pair of exact sets")
    return Floor(values=np.sort(np.array(values)))
