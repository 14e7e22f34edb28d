r"""One truth against many samples: intervals, spread and proper scores, pixel by pixel.

The truth x* of a problem is itself a draw of p(x | y), exchangeable with exact samples; so these need no other exact
sample.  They average over pixels that are correlated: one image is one observation, and its coverage may well be off.

    CRPS         = mean_l |x_l - x*| - sum_{l, l'} |x_l - x_l'| / (2 L (L - 1))     per pixel
    energy score = the same with norms of whole images
    spread-skill = (mean_p var_p (L + 1) / L)^{1/2} / (mean_p (mean_p - x*_p)^2)^{1/2}

The division by L - 1 instead of L makes the scores fair: their expectation does not depend on L.

References:
    Gneiting, Raftery: Strictly proper scoring rules, prediction, and estimation. JASA 2007.
    Ferro: Fair scores for ensemble forecasts. Q. J. R. Meteorol. Soc. 2014, doi:10.1002/qj.2270.
    Fortin, Abaza, Anctil, Turcotte: Why should ensemble spread match the RMSE of the ensemble mean? J. Hydrometeorol.
    2014, doi:10.1175/JHM-D-14-0008.1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scoreplug.bench.metrics._arrays import Array, array, squared_distances


class IntervalCoverage(NamedTuple):
    """How often a central interval holds the truth.

    Args:
        nominal: the level that was asked for.
        target: the nearest level that L samples can give; what exchangeable samples reach on average.
        covered: share of pixels whose truth lies in the interval.
        width: mean width of the intervals, data units.
    """

    nominal: float
    target: float
    covered: float
    width: float


def interval_coverage(samples: Array, truth: Array, *, level: float = 0.9) -> IntervalCoverage:
    """Coverage of the central interval between the order statistics x_(j) and x_(L + 1 - j) of each pixel.

    A truth that is exchangeable with the samples has each of L + 1 ranks with the same probability, and so lies in
    the interval with probability (L + 1 - 2 j) / (L + 1) exactly; j is chosen such that this is nearest to `level`.
    Interpolated quantiles would cover less than their name, the more so the smaller L is.

    Args:
        samples: (L, *shape), L >= 2.
        truth: x*, of shape `shape`.
        level: in (0, 1).
    """
    x, x_true = _against_truth(samples, truth)
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1) (got {level!r})")
    draws = len(x)
    j = min(max(round((draws + 1) * (1 - level) / 2), 1), draws // 2)
    ordered = np.sort(x, axis=0)
    low, high = ordered[j - 1], ordered[draws - j]
    covered = ((low <= x_true) & (x_true <= high)).mean()
    return IntervalCoverage(level, (draws + 1 - 2 * j) / (draws + 1), float(covered), float((high - low).mean()))


def spread_skill(samples: Array, truth: Array) -> float:
    """Spread over error of the mean: 1 for exact samples, below it over-confident; infinite for an exact mean.

    Args:
        samples: (L, *shape), L >= 2.
        truth: x*, of shape `shape`.
    """
    x, x_true = _against_truth(samples, truth)
    draws = len(x)
    spread = np.sqrt(x.var(0, ddof=1).mean() * (draws + 1) / draws)
    error = np.sqrt(((x.mean(0) - x_true) ** 2).mean())
    return float(spread / error) if error > 0 else float("inf")


def crps(samples: Array, truth: Array) -> float:
    """The fair continuous ranked probability score, averaged over pixels, data units; lower is better.

    Args:
        samples: (L, *shape), L >= 2.
        truth: x*, of shape `shape`.
    """
    x, x_true = _against_truth(samples, truth)
    draws = len(x)
    # sum_{l < l'} |x_l - x_l'| = sum_l (2 l - L - 1) x_(l), l from 1
    rank = 2 * np.arange(1, draws + 1) - draws - 1
    between = np.tensordot(rank, np.sort(x, axis=0), axes=1) / (draws * (draws - 1))
    return float((np.abs(x - x_true).mean(0) - between).mean())


def energy_score(samples: Array, truth: Array) -> float:
    """The fair energy score with Euclidean norms of whole images, data units; lower is better.

    Args:
        samples: (L, *shape), L >= 2.
        truth: x*, of shape `shape`.
    """
    x, x_true = _against_truth(samples, truth)
    draws = len(x)
    x, x_true = x.reshape(draws, -1), x_true.ravel()
    between = np.sqrt(squared_distances(x, x))
    np.fill_diagonal(between, 0.0)
    return float(np.linalg.norm(x - x_true, axis=1).mean() - between.sum() / (2 * draws * (draws - 1)))


def _against_truth(samples: Array, truth: Array) -> tuple[np.ndarray, np.ndarray]:
    x, x_true = array(samples), array(truth, "truth")
    if x.ndim == 0 or x.shape[1:] != x_true.shape:
        raise ValueError(f"samples (L, *shape) and truth (*shape) do not fit (got {x.shape} and {x_true.shape})")
    if len(x) < 2:
        raise ValueError("2 samples are needed (got 1): one says nothing about the spread")
    return x, x_true
