r"""Evidence, weights of particles, and the gap of the posterior mean.

    ESS = (sum_i w_i)^2 / sum_i w_i^2

References:
    Kong, Liu, Wong: Sequential imputations and Bayesian missing data problems. JASA 1994.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import entr, logsumexp

from scoreplug.bench.metrics._arrays import Array, array, float64, rows


class EvidenceError(NamedTuple):
    """Errors of repeated estimates of log p(y), in nats.

    Args:
        bias: mean of log Z^ - log Z; negative even if Z^ is unbiased (Jensen), by about half of std^2.
        std: standard deviation of log Z^; NaN for one estimate.
        log_mean_ratio: log mean(Z^ / Z); near 0 if Z^ is unbiased, but only once std is well below 1.
    """

    bias: float
    std: float
    log_mean_ratio: float


def log_evidence_error(estimates: Array, exact: float) -> EvidenceError:
    """Compare estimates of the log-evidence with its value.

    Args:
        estimates: log Z^ of independent runs, (R,); of a sequential Monte Carlo sampler Z^ is unbiased, not log Z^.
        exact: log p(y).
    """
    error = array(estimates, "estimates").ravel() - exact
    if not math.isfinite(exact):
        raise ValueError(f"the exact log-evidence must be finite (got {exact!r})")
    std = float(error.std(ddof=1)) if error.size > 1 else math.nan
    return EvidenceError(float(error.mean()), std, float(logsumexp(error) - math.log(error.size)))


def effective_sample_size(log_weights: Array) -> float:
    """(sum w)^2 / sum w^2 of N weights, in [1, N].

    Args:
        log_weights: log w_i up to a constant, (N,); -inf is a weight of 0.
    """
    log_w = _normalised(log_weights)
    return float(np.exp(-logsumexp(2 * log_w)))


def weight_entropy(log_weights: Array) -> float:
    """-sum w log w / log N of normalised weights, in [0, 1]: 1 if all are equal, 0 if one has it all.

    Args:
        log_weights: log w_i up to a constant, (N,), N >= 2; -inf is a weight of 0.
    """
    log_w = _normalised(log_weights)
    if log_w.size < 2:
        raise ValueError("the entropy of one weight has no scale; give at least 2")
    w = np.exp(log_w)
    return float(entr(w).sum() / math.log(w.size))


def mmse_gap(samples: Array, posterior_mean: Array, truth: Array) -> float:
    """10 log10(|mean(x_l) - x*|^2 / |E[x | y] - x*|^2), in dB.

    Over many problems L exact samples lose about 10 log10(1 + 1 / L). One problem may come out below 0; the average
    of a correct method does not.

    Args:
        samples: (L, *shape).
        posterior_mean: E[x | y], of d = prod(shape) values.
        truth: x*, likewise.
    """
    x, m, x_true = rows(samples), array(posterior_mean, "posterior mean").ravel(), array(truth, "truth").ravel()
    if not m.size == x_true.size == x.shape[1]:
        raise ValueError(f"samples of {x.shape[1]} values, a mean of {m.size} and a truth of {x_true.size} do not fit")
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(((x.mean(0) - x_true) ** 2).sum() / ((m - x_true) ** 2).sum()))


def _normalised(log_weights: Array) -> np.ndarray:
    log_w = float64(log_weights).ravel()
    total = logsumexp(log_w) if log_w.size else -math.inf
    if not math.isfinite(total):
        raise ValueError("log_weights must hold at least one finite value, and neither NaN nor +inf")
    normalised: np.ndarray = log_w - total
    return normalised
