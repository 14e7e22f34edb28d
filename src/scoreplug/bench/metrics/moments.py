r"""Mean, covariance and mode weights of samples, against those of the posterior.

    W_2^2(N(m, C), N(m', C')) = |m - m'|^2 + tr(C + C' - 2 (C^{1/2} C' C^{1/2})^{1/2})

References:
    Dowson, Landau: The Frechet distance between multivariate normal distributions. J. Multivar. Anal. 1982.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from scoreplug.bench.metrics._arrays import Array, array, rows


def mean_error(samples: Array, mean: Array, covariance: Array) -> float:
    """|m^ - m| / tr(C)^{1/2}, >= 0. Of n independent exact samples its root mean square is 1 / sqrt(n).

    Args:
        samples: (n, *shape).
        mean: E[x | y], of d = prod(shape) values.
        covariance: Cov[x | y], (d, d).
    """
    x = rows(samples)
    m, c = _of_dimension(x.shape[1], mean, covariance)
    return float(np.linalg.norm(x.mean(0) - m) / np.sqrt(np.trace(c)))


def spread_ratio(samples: Array, covariance: Array) -> float:
    """tr(C^) / tr(C), C^ with n - 1: below 1 the samples are over-confident, above 1 too wide; unbiased.

    Args:
        samples: (n, *shape), n >= 2.
        covariance: Cov[x | y], (d, d).
    """
    x = rows(samples)
    _, c = _of_dimension(x.shape[1], x[0], covariance)
    return float(_covariance(x).trace() / np.trace(c))


def gaussian_wasserstein(samples: Array, mean: Array, covariance: Array) -> float:
    """W_2 between the Gaussians with the samples' moments and the posterior's, >= 0, data units.

    It is not 0 for exact samples: about sqrt(tr(C) / n) from the mean alone, and more for n < d.

    Args:
        samples: (n, *shape), n >= 2.
        mean: E[x | y], of d = prod(shape) values.
        covariance: Cov[x | y], (d, d).
    """
    x = rows(samples)
    m, c = _of_dimension(x.shape[1], mean, covariance)
    return bures_wasserstein(x.mean(0), _covariance(x), m, c)


def bures_wasserstein(mean: Array, covariance: Array, other_mean: Array, other_covariance: Array) -> float:
    """W_2 between two Gaussians, >= 0; the covariances may be singular.

    Args:
        mean: m, (d,).
        covariance: C, (d, d), symmetric, positive semidefinite.
        other_mean: m', (d,).
        other_covariance: C', (d, d), likewise.
    """
    m, c = array(mean, "mean").ravel(), array(covariance, "covariance")
    n, e = array(other_mean, "mean").ravel(), array(other_covariance, "covariance")
    # tr (C^{1/2} C' C^{1/2})^{1/2} is the sum of the singular values of C'^{1/2} C^{1/2}: no root of a rounded product
    overlap = np.linalg.norm(_root(e) @ _root(c).T, ord="nuc")
    squared = ((m - n) ** 2).sum() + np.trace(c) + np.trace(e) - 2 * overlap
    return float(np.sqrt(max(squared, 0.0)))


class ModeWeights(NamedTuple):
    """How far the shares of the modes are off.

    Args:
        tv: total variation 1/2 sum_k |w^_k - w_k|, in [0, 1].
        tv_floor: the expected tv of as many independent exact samples.
        chi2: n sum_k (w^_k - w_k)^2 / w_k; K - 1 on average for independent exact samples. Infinite if a mode of
            weight 0 is visited; not to be read as a chi-squared variable while some n w_k are below about 5.
    """

    tv: float
    tv_floor: float
    chi2: float


def mode_weights_tv(labels: Array, weights: Array) -> ModeWeights:
    """Compare the shares of samples in each mode with the posterior weights of the modes.

    Args:
        labels: the mode of each sample, (n,), integers below K.
        weights: w_k, (K,), summing to 1.
    """
    label, w = array(labels, "labels"), array(weights, "weights").ravel()
    if (label != np.round(label)).any() or label.min() < 0 or label.max() >= len(w):
        raise ValueError(f"labels must be integers in [0, {len(w)})")
    if w.min() < 0 or abs(w.sum() - 1) > 1e-6:  # weights may come from float32
        raise ValueError(f"weights must be >= 0 and sum to 1 (their sum is {w.sum()!r})")
    n = label.size
    share = np.bincount(label.ravel().astype(np.int64), minlength=len(w)) / n

    # E|w^ - w| of a binomial share: de Moivre, 2 k (1 - w) P(n w^ = k) / n with k = floor(n w) + 1
    k = np.minimum(np.floor(n * w) + 1, n)
    floor = float((k * (1 - w) * stats.binom.pmf(k, n, np.minimum(w, 1.0))).sum() / n)
    with np.errstate(divide="ignore", over="ignore"):
        terms = np.divide((share - w) ** 2, w, out=np.zeros_like(w), where=share != w)
    return ModeWeights(float(np.abs(share - w).sum() / 2), floor, float(n * terms.sum()))


def _covariance(x: np.ndarray) -> np.ndarray:
    if len(x) < 2:
        raise ValueError("a covariance needs 2 samples (got 1)")
    return np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1])


def _root(c: np.ndarray) -> np.ndarray:
    """A factor R with R^T R = C, from the eigenvalues; rounding may have made those that are 0 negative."""
    values, vectors = np.linalg.eigh((c + c.T) / 2)
    root: np.ndarray = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    return root


def _of_dimension(d: int, mean: Array, covariance: Array) -> tuple[np.ndarray, np.ndarray]:
    m, c = array(mean, "mean").ravel(), array(covariance, "covariance")
    if m.shape != (d,) or c.shape != (d, d):
        raise ValueError(
            f"samples of {d} values need a mean of {d} and a covariance of {(d, d)} (got {m.shape} and {c.shape})"
        )
    if not np.trace(c) > 0:
        raise ValueError("the posterior's covariance is 0: errors relative to it have no meaning")
    return m, c
