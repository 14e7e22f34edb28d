r"""Calibration over many measurements: simulation-based calibration, TARP, coverage of regions of highest density.

Draw (x*, y) ~ p(x) p(y | x) S times and L samples for each y.  If they come from p(x | y), then for any statistic
f(x, y) the rank

    r = sum_l 1[f(x_l, y) < f(x*, y)]

is uniform on {0, ..., L}.  What is tested is the choice of f:

- coordinates, or projections of x: the usual SBC.  Samples of the prior, for any y, pass: never use it alone.
- log p(x | y): coverage of regions of highest density.
- |x - x_r|, the distance to a reference point x_r(y): TARP.  If all x_r are drawn independently of y, samples of the
  prior pass again; it is sufficient only if x_r depends on y: see `references_near`.

All ranks break ties at random, so pixels that are clipped to the end of the range do not look miscalibrated.

References:
    Talts, Betancourt, Simpson, Vehtari, Gelman: Validating Bayesian inference algorithms with simulation-based
    calibration. arXiv:1804.06788.
    Saeilynoja, Buerkner, Vehtari: Graphical test for discrete uniformity and its applications in goodness-of-fit
    evaluation and multiple sample comparison. Stat. Comput. 2022, doi:10.1007/s11222-022-10090-6.
    Lemos, Coogan, Hezaveh, Perreault-Levasseur: Sampling-based accuracy testing of posterior estimators for general
    inference. ICML 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import attrs
import numpy as np
from scipy import integrate, stats

from scoreplug.bench.metrics._arrays import Array, array, directions
from scoreplug.bench.metrics._rank import rank_p_value


def sbc_ranks(samples: Array, truth: Array, *, seed: int = 0) -> np.ndarray:
    """r = #{l: f(x_l) < f(x*)}, integers in {0, ..., L}, (S,) or (S, *shape); each entry is a statistic of its own.

    Args:
        samples: f(x_l), (S, L) or (S, L, *shape).
        truth: f(x*), (S,) or (S, *shape).
        seed: of the breaking of ties.
    """
    f, f_true = array(samples), array(truth, "truth")
    if f.ndim < 2 or f.shape[:1] + f.shape[2:] != f_true.shape:
        raise ValueError(
            f"samples (S, L, *shape) and truth (S, *shape) do not belong together (got {f.shape} and {f_true.shape})"
        )
    below, ties = (f < f_true[:, None]).sum(1), (f == f_true[:, None]).sum(1)
    ranks: np.ndarray = below + np.random.default_rng(seed).integers(0, ties, endpoint=True)
    return ranks


def project(x: Array, count: int, *, axes: int = 1, seed: int = 0) -> np.ndarray:
    """Projections of images onto random unit vectors: statistics for `sbc_ranks`, (..., count).

    Args:
        x: images behind `axes` axes: (S, *shape) with 1, (S, L, *shape) with 2.
        count: number of projections.
        axes: number of axes that are not the image.
        seed: of the vectors; the same seed gives samples and truth the same ones.
    """
    values = array(x)
    flat = values.reshape(*values.shape[:axes], -1)
    projected: np.ndarray = flat @ directions(flat.shape[-1], count, seed)
    return projected


@attrs.frozen(kw_only=True, eq=False)
class Uniformity:
    """Whether ranks are uniform.

    Args:
        chi2_p_value: of Pearson's test over bins of ranks.
        ecdf_p_value: of the simultaneous test of the ECDF, by simulation.
        levels: (k + 1) / (L + 1), where P(r <= k) is looked at, (K,).
        ecdf: share of ranks <= k, (K,).
        lower, upper: the band that the whole ECDF of uniform ranks stays in with the stated probability, (K,).
    """

    chi2_p_value: float
    ecdf_p_value: float
    levels: np.ndarray
    ecdf: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def inside(self) -> bool:
        """Whether the ECDF lies in its band everywhere."""
        return bool(((self.lower <= self.ecdf) & (self.ecdf <= self.upper)).all())

    @property
    def deviation(self) -> float:
        """max_k |ecdf - level|."""
        return float(np.abs(self.ecdf - self.levels).max())


def rank_uniformity(
    ranks: np.ndarray, draws: int, *, level: float = 0.95, points: int = 100, simulations: int = 1000, seed: int = 0
) -> Uniformity:
    """Test ranks for uniformity on {0, ..., L}.

    The band is the intersection of binomial intervals for S P(r <= k), each with the same tail probability, that is
    simulated such that all hold at once.

    Args:
        ranks: of one statistic, (S,), S >= 10.
        draws: L, samples for each measurement, >= 1.
        level: probability that uniform ranks stay in the band.
        points: largest number of k that the ECDF is looked at.
        simulations: number of sets of uniform ranks that the band and its p-value rest on.
        seed: of the simulations.
    """
    r = np.asarray(ranks)
    if r.ndim != 1 or len(r) < 10 or r.min() < 0 or r.max() > draws or (r != np.round(r)).any():
        raise ValueError(f"at least 10 ranks of one statistic, integers in [0, {draws}], are needed (got {r.shape})")
    size, r = len(r), r.astype(np.int64)

    # bins as even as the L + 1 ranks allow, each with an expected count of 5 or more
    bins = np.arange(draws + 1) * max(2, min(draws + 1, 20, size // 5)) // (draws + 1)
    expected = np.bincount(bins) * size / (draws + 1)
    chi2 = stats.chisquare(np.bincount(bins[r], minlength=len(expected)), expected)

    k = np.unique(np.linspace(0, draws - 1, min(points, draws)).round().astype(np.int64))
    levels = (k + 1) / (draws + 1)
    counts = np.arange(size + 1)[:, None]
    # the smaller tail of each possible count at each k, twice: small where the ECDF is unlikely
    tail = 2 * np.minimum(stats.binom.cdf(counts, size, levels), stats.binom.sf(counts - 1, size, levels))
    uniform = np.random.default_rng(seed).multinomial(size, np.full(draws + 1, 1 / (draws + 1)), size=simulations)
    at = np.arange(len(k))
    null = tail[uniform.cumsum(1)[:, k], at].min(1)
    observed = np.bincount(r, minlength=draws + 1).cumsum()[k]
    gamma = np.quantile(null, 1 - level, method="lower")

    allowed = tail >= gamma
    lower, upper = allowed.argmax(0), size - allowed[::-1].argmax(0)
    return Uniformity(
        chi2_p_value=float(chi2.pvalue),
        ecdf_p_value=rank_p_value(-tail[observed, at].min(), -null),
        levels=levels,
        ecdf=observed / size,
        lower=lower / size,
        upper=upper / size,
    )


def references_near(estimates: Array, spread: float, *, seed: int = 0) -> np.ndarray:
    """Reference points that depend on y: x_r = estimate(y) + spread z, z ~ N(0, I), (S, *shape).

    Args:
        estimates: one for each measurement, (S, *shape): A^+ y, or the mean of samples of another method. Not of the
            samples that are judged, and no function of x* but through y.
        spread: >= 0, data units; about the width of the posterior.
        seed: of z.
    """
    x = array(estimates, "estimates")
    if not spread >= 0:
        raise ValueError(f"spread must be >= 0 (got {spread!r})")
    return x + spread * np.random.default_rng(seed).standard_normal(x.shape)


@attrs.frozen(kw_only=True, eq=False)
class Tarp:
    """Expected coverage against credibility.

    Args:
        levels: alpha = k / (L + 1), k = 0, ..., L + 1.
        coverage: ECP(alpha), on average alpha for exact samples, at every L.
        lower, upper: pointwise band of the bootstrap over measurements.
        atc: integral of ECP - alpha over alpha > 1/2; above 0 the samples are too wide, below 0 over-confident.
        atc_std: its standard deviation over the bootstrap.
        ranks: of the distances, (S,), for `rank_uniformity`.
    """

    levels: np.ndarray
    coverage: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    atc: float
    atc_std: float
    ranks: np.ndarray


def tarp(
    samples: Array, truth: Array, references: Array, *, level: float = 0.95, bootstraps: int = 200, seed: int = 0
) -> Tarp:
    """Tests of accuracy with random points: SBC of the distance to a reference point.

    f_i = #{l: |x_l - x_r| < |x* - x_r|} / L, and ECP(alpha) is the probability that the ball around x_r that holds a
    share alpha of the samples also holds x*. Distances are Euclidean, in the data's own unit: references belong into
    that unit too, and coordinates of unlike scale are better scaled first, in all three arguments.

    Args:
        samples: (S, L, *shape).
        truth: x*, (S, *shape).
        references: x_r, (S, *shape); see `references_near`.
        level: of the bootstrap's band.
        bootstraps: number of resamplings of the S measurements.
        seed: of the resampling, and of the breaking of ties.
    """
    x, x_true, x_r = array(samples), array(truth, "truth"), array(references, "references")
    if x.ndim < 2 or x.shape[:1] + x.shape[2:] != x_true.shape or x_true.shape != x_r.shape:
        raise ValueError(
            "samples (S, L, *shape), truth and references (S, *shape) do not belong together "
            f"(got {x.shape}, {x_true.shape}, {x_r.shape})"
        )
    size, draws = x.shape[:2]
    distance = np.linalg.norm((x - x_r[:, None]).reshape(size, draws, -1), axis=-1)
    distance_true = np.linalg.norm((x_true - x_r).reshape(size, -1), axis=-1)
    ranks = sbc_ranks(distance, distance_true, seed=seed)
    return tarp_of_ranks(ranks, draws, level=level, bootstraps=bootstraps, seed=seed)


def tarp_of_ranks(ranks: np.ndarray, draws: int, *, level: float = 0.95, bootstraps: int = 200, seed: int = 0) -> Tarp:
    """`tarp` from the ranks of the distances, (S,), among L = `draws` samples."""
    size, k = len(ranks), np.arange(draws + 2)
    # P(r < k) = k / (L + 1) if r is uniform on the L + 1 ranks: at these levels a finite L leaves no bias
    levels = k / (draws + 1)
    below = ranks[:, None] < k
    weights = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=bootstraps) / size
    curves = weights @ below
    lower, upper = np.quantile(curves, [(1 - level) / 2, (1 + level) / 2], axis=0)
    coverage = below.mean(0)
    return Tarp(
        levels=levels,
        coverage=coverage,
        lower=lower,
        upper=upper,
        atc=_area(levels, coverage),
        atc_std=float(np.std([_area(levels, curve) for curve in curves])),
        ranks=ranks,
    )


class Coverage(NamedTuple):
    """How often a region holds the truth.

    Args:
        nominal: the level that was asked for.
        target: the level that L samples can give; exact samples reach this one on average.
        covered: share of measurements whose truth lies in the region.
        lower, upper: its 95 % interval (Clopper-Pearson).
    """

    nominal: float
    target: float
    covered: float
    lower: float
    upper: float


def hpd_coverage(
    log_samples: Array, log_truth: Array, *, levels: Sequence[float] = (0.5, 0.9), seed: int = 0
) -> list[Coverage]:
    """Coverage of the regions of highest posterior density.

    x* is in the region of level alpha if fewer than alpha (L + 1) samples have a higher density. All samples count
    equally: weights that favour high density belong to no sampler that draws from the posterior.

    Args:
        log_samples: log p(x_l | y), (S, L); constants that depend on y alone do not matter.
        log_truth: log p(x* | y), (S,), with the same constant.
        levels: alpha, each in (0, 1).
        seed: of the breaking of ties.
    """
    ranks = sbc_ranks(log_samples, log_truth, seed=seed)
    if ranks.ndim != 1:
        raise ValueError("a log-density is one number for each sample: log_samples is (S, L), log_truth (S,)")
    return hpd_coverage_of_ranks(ranks, array(log_samples).shape[1], levels=levels)


def hpd_coverage_of_ranks(ranks: np.ndarray, draws: int, *, levels: Sequence[float] = (0.5, 0.9)) -> list[Coverage]:
    """`hpd_coverage` from the ranks of the log density, (S,), among L = `draws` samples."""
    found = []
    for alpha in levels:
        if not 0 < alpha < 1:
            raise ValueError(f"levels must be in (0, 1) (got {alpha!r})")
        k = math.ceil(round(alpha * (draws + 1), 9))  # 0.9 * 100 is not 90 in binary
        inside = int((draws - ranks < k).sum())
        interval = stats.binomtest(inside, len(ranks)).proportion_ci(0.95)
        found.append(Coverage(alpha, k / (draws + 1), inside / len(ranks), float(interval.low), float(interval.high)))
    return found


def _area(levels: np.ndarray, coverage: np.ndarray) -> float:
    """The integral of coverage - level over levels above 1/2, of the straight lines between the points."""
    grid = np.append(0.5, levels[levels > 0.5])
    return float(integrate.trapezoid(np.interp(grid, levels, coverage) - grid, grid))
