"""Moments and mode weights, against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from scoreplug.bench.metrics import bures_wasserstein, gaussian_wasserstein, mean_error, mode_weights_tv, spread_ratio


def covariance(d, rank=None, seed=0):
    factor = np.random.default_rng(seed).standard_normal((d, rank or d))
    return factor @ factor.T


def test_the_error_of_the_mean_is_in_units_of_the_posteriors_width():
    """The mean of +-a + (3, 4) is off by 5; tr C = 4."""
    x = np.array([[3.0, 4.0]]) + np.array([[1.0, 2.0], [-1.0, -2.0]])

    assert mean_error(x, np.zeros(2), np.diag([1.0, 3.0])) == pytest.approx(2.5, rel=1e-12)


def test_exact_samples_miss_the_mean_by_one_over_root_n():
    """E (mean_error)^2 = 1 / n; it deviates by (2 / d)^{1/2} of itself for C = I, over 400 sets by 1 / 20 of that."""
    sets = np.random.default_rng(0).standard_normal((400, 25, 8))

    squares = [mean_error(x, np.zeros(8), np.eye(8)) ** 2 for x in sets]

    assert np.mean(squares) == pytest.approx(1 / 25, rel=4 * math.sqrt(2 / 8) / 20)


def test_the_spread_ratio_is_unbiased_for_few_samples():
    """E tr C^ = tr C with n - 1; with n it were 2/3 here. Deviation of one: (2 / (n - 1) / d)^{1/2}, of 1000: / 32."""
    sets = 3 * np.random.default_rng(0).standard_normal((1000, 3, 4))

    ratios = [spread_ratio(x, 9 * np.eye(4)) for x in sets]

    assert np.mean(ratios) == pytest.approx(1, abs=4 * math.sqrt(2 / 2 / 4 / 1000))
    assert spread_ratio(sets[0] / 2, 9 * np.eye(4)) == pytest.approx(ratios[0] / 4, rel=1e-12)


def test_bures_between_diagonal_gaussians_is_the_distance_of_means_and_deviations():
    """W_2^2 = |m - m'|^2 + sum (s - s')^2 = 1 + 4 + 1 + 9."""
    found = bures_wasserstein(np.zeros(2), np.diag([1.0, 4.0]), np.array([1.0, 2.0]), np.diag([4.0, 25.0]))

    assert found == pytest.approx(math.sqrt(15), rel=1e-12)


def test_bures_is_the_formula_with_matrix_roots():
    c, e = covariance(5), covariance(5, seed=1)
    root = sqrtm(c)

    expected = np.trace(c + e - 2 * sqrtm(root @ e @ root).real)

    assert bures_wasserstein(np.zeros(5), c, np.zeros(5), e) ** 2 == pytest.approx(expected, rel=1e-8)  # of sqrtm


def test_bures_of_singular_covariances_is_exact():
    """Two points in three dimensions, and a line against a plane: ranks 0, 1 and 2. sum (s - s')^2 again."""
    line, plane, m = np.diag([4.0, 0.0, 0.0]), np.diag([1.0, 9.0, 0.0]), np.zeros(3)

    assert bures_wasserstein(m, np.zeros((3, 3)), m + 1, np.zeros((3, 3))) == pytest.approx(math.sqrt(3), rel=1e-12)
    assert bures_wasserstein(m, line, m, plane) == pytest.approx(math.sqrt(1 + 9), rel=1e-12)


def test_bures_of_equal_gaussians_is_zero_to_half_precision():
    """A difference of traces of size 100 that rounds to 1e-14, under a root."""
    c = covariance(6, rank=3)

    assert bures_wasserstein(np.ones(6), c, np.ones(6), c) < 1e-6


def test_bures_is_symmetric_and_obeys_rotations():
    c, e, m = covariance(4), covariance(4, seed=1), np.arange(4.0)
    q = np.linalg.qr(covariance(4, seed=2))[0]
    value = bures_wasserstein(m, c, 0 * m, e)

    assert bures_wasserstein(0 * m, e, m, c) == pytest.approx(value, rel=1e-12)
    assert bures_wasserstein(q @ m, q @ c @ q.T, 0 * m, q @ e @ q.T) == pytest.approx(value, rel=1e-12)


def test_samples_are_compared_by_their_own_moments():
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((10, 2, 2)))
    flat, m, c = x.reshape(10, 4).numpy(), np.ones(4), covariance(4)

    expected = bures_wasserstein(flat.mean(0), np.cov(flat.T), m, c)

    assert gaussian_wasserstein(x, torch.from_numpy(m), torch.from_numpy(c)) == expected


def test_one_pixel_has_a_covariance_too():
    """Samples +-1 have n - 1 variance 2; W_2 = |2^{1/2} - 1|."""
    x = np.array([[1.0], [-1.0]])

    assert gaussian_wasserstein(x, np.zeros(1), np.eye(1)) == pytest.approx(math.sqrt(2) - 1, rel=1e-12)


def test_mode_weights_by_hand():
    """Shares 3/4, 1/4, 0 against 1/2, 1/4, 1/4: tv 1/4; chi2 = 4 (1/16 / (1/2) + 1/16 / (1/4)) = 1.5."""
    found = mode_weights_tv(torch.tensor([0, 0, 1, 0]), np.array([0.5, 0.25, 0.25]))

    assert found.tv == pytest.approx(0.25, rel=1e-12)
    assert found.chi2 == pytest.approx(1.5, rel=1e-12)


def test_the_floor_of_mode_weights_is_the_expected_tv():
    """The expectation over multinomial draws, 4 standard errors of 1000 of them; chi2 is K - 1 on average."""
    w, n = np.array([0.6, 0.3, 0.09, 0.01]), 50
    rng = np.random.default_rng(0)
    found = [mode_weights_tv(rng.choice(4, n, p=w), w) for _ in range(1000)]
    tv, chi2 = np.array([f.tv for f in found]), np.array([f.chi2 for f in found])

    assert found[0].tv_floor == pytest.approx(tv.mean(), abs=4 * tv.std() / math.sqrt(1000))
    assert chi2.mean() == pytest.approx(3, abs=4 * chi2.std() / math.sqrt(1000))


def test_a_mode_of_no_weight_counts_only_if_it_is_visited():
    assert mode_weights_tv(np.zeros(5), np.array([1.0, 0.0])) == (0.0, 0.0, 0.0)
    assert mode_weights_tv(np.array([0, 1]), np.array([1.0, 0.0])) == (0.5, 0.0, math.inf)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: mean_error(np.ones((3, 2)), np.zeros(3), np.eye(2)), "need a mean of 2"),
        (lambda: spread_ratio(np.ones((3, 2)), np.eye(3)), "need a mean of 2"),
        (lambda: mean_error(np.ones((3, 2)), np.zeros(2), np.zeros((2, 2))), "covariance is 0"),
        (lambda: spread_ratio(np.ones((1, 2)), np.eye(2)), "needs 2 samples"),
        (lambda: mode_weights_tv(np.array([2]), np.array([0.5, 0.5])), r"integers in \[0, 2\)"),
        (lambda: mode_weights_tv(np.array([0.5]), np.array([0.5, 0.5])), "must be integers"),
        (lambda: mode_weights_tv(np.array([0]), np.array([0.5, 0.4])), "sum to 1"),
    ],
    ids=["mean", "covariance", "no spread", "one sample", "label", "half a label", "weights"],
)
def test_what_does_not_fit_is_refused(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
