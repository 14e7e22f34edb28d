"""Evidence and weights of particles, by hand and in expectation."""

import math

import numpy as np
import pytest
import torch

from scoreplug.bench.metrics import effective_sample_size, log_evidence_error, mmse_gap, weight_entropy


def test_errors_of_the_log_evidence_by_hand():
    """log Z^ - log Z = 0 and log 3: their mean ratio is 2."""
    found = log_evidence_error(np.array([-5.0, -5.0 + math.log(3)]), -5.0)

    assert found == pytest.approx((math.log(3) / 2, math.log(3) / math.sqrt(2), math.log(2)), rel=1e-12)


def test_an_unbiased_estimate_has_a_log_that_is_too_low():
    """log Z^ ~ N(-v/2, v) has E Z^ = Z: the bias is -v/2, the log of the mean ratio 0.

    Over R runs these deviate by (v / R)^{1/2} and ((e^v - 1) / R)^{1/2}.
    """
    v, runs = 0.25, 10_000
    estimates = torch.from_numpy(np.random.default_rng(0).normal(-v / 2, math.sqrt(v), runs)) + 300

    found = log_evidence_error(estimates, 300.0)

    assert found.bias == pytest.approx(-v / 2, abs=4 * math.sqrt(v / runs))
    assert found.std == pytest.approx(math.sqrt(v), rel=4 / math.sqrt(2 * runs))
    assert found.log_mean_ratio == pytest.approx(0, abs=4 * math.sqrt(math.expm1(v) / runs))


def test_one_run_has_no_spread():
    assert math.isnan(log_evidence_error(np.array([1.0]), 0.0).std)


@pytest.mark.parametrize(
    ("weights", "size", "entropy"),
    [([1, 1, 1, 1], 4, 1), ([1, 0, 0, 0], 1, 0), ([1, 1, 0, 0], 2, 0.5)],
    ids=["even", "one has it all", "half"],
)
@pytest.mark.parametrize("constant", [0.0, -2000.0, 2000.0])
def test_effective_size_and_entropy_of_weights(weights, size, entropy, constant):
    with np.errstate(divide="ignore"):
        log_w = np.log(np.array(weights, dtype=float)) + constant

    assert effective_sample_size(log_w) == pytest.approx(size, rel=1e-12)
    assert weight_entropy(torch.from_numpy(log_w)) == pytest.approx(entropy, abs=1e-12)


def test_effective_size_by_hand():
    """(3 + 1)^2 / (9 + 1)."""
    assert effective_sample_size(np.log([3.0, 1.0])) == pytest.approx(1.6, rel=1e-12)


def test_the_gap_of_l_exact_samples_is_that_of_their_mean():
    """E|mean - x*|^2 = tr C (1 + 1 / L): 10 log10(5 / 4) for L = 4; in 20000 dimensions one problem is enough.

    Each of both squared errors deviates by (2 / d)^{1/2} = 1 %, which is 0.043 dB; they largely share it.
    """
    x = np.random.default_rng(0).standard_normal((5, 20_000))

    assert mmse_gap(x[1:], np.zeros(20_000), x[0]) == pytest.approx(10 * math.log10(5 / 4), abs=4 * 0.043)


def test_the_gap_by_hand():
    """Means off by 10 and by 1: 20 dB; the posterior mean itself has none."""
    x = torch.full((2, 1, 2, 2), 10.0)

    assert mmse_gap(x, np.ones(4), np.zeros((1, 2, 2))) == pytest.approx(20, rel=1e-12)
    assert mmse_gap(np.ones((3, 4)), np.ones(4), np.zeros(4)) == 0


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: effective_sample_size(np.array([-math.inf, -math.inf])), "at least one finite value"),
        (lambda: effective_sample_size(np.array([0.0, math.nan])), "neither NaN"),
        (lambda: effective_sample_size(np.array([])), "at least one finite value"),
        (lambda: weight_entropy(np.array([0.0])), "at least 2"),
        (lambda: log_evidence_error(np.array([0.0]), math.inf), "must be finite"),
        (lambda: log_evidence_error(np.array([math.nan]), 0.0), "NaN or infinite"),
        (lambda: mmse_gap(np.zeros((2, 3)), np.zeros(3), np.zeros(4)), "do not fit"),
    ],
    ids=["no weight", "nan", "none", "one", "exact", "estimate", "shapes"],
)
def test_what_has_no_meaning_is_refused(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
