"""Intervals, spread and scores against exchangeable truths and the closed forms of the normal distribution."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from scoreplug.bench.metrics import crps, energy_score, interval_coverage, spread_skill


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize(("draws", "level", "target"), [(19, 0.9, 0.9), (99, 0.5, 0.5), (8, 0.9, 7 / 9), (4, 0.5, 0.6)])
def test_intervals_of_exchangeable_draws_cover_exactly_the_target(draws, level, target):
    """Every pixel is its own problem here: +- 4 (p (1 - p) / 40000)^{1/2}. The target is level where L can give it."""
    x = normal(draws + 1, 40_000)

    found = interval_coverage(x[1:], x[0], level=level)

    assert found.target == pytest.approx(target, rel=1e-12)
    assert found.covered == pytest.approx(target, abs=4 * math.sqrt(target * (1 - target) / 40_000))


def test_coverage_is_exact_over_all_ranks_of_the_truth():
    """The truth takes each of 20 ranks once: 18 lie between the smallest and the largest of 19 draws."""
    x = np.tile(np.arange(19.0)[:, None], (1, 20))

    found = interval_coverage(x, np.arange(20) - 0.5, level=0.9)

    assert found == pytest.approx((0.9, 0.9, 0.9, 18.0))


def test_intervals_of_half_the_width_cover_less():
    """P(|z| < 1.645 / 2) = 0.589 instead of 0.9."""
    x = normal(200, 10_000)

    found = interval_coverage(0.5 * x[1:], x[0])

    expected = 1 - 2 * stats.norm.sf(1.645 / 2)
    # the ends are order statistics of 199, which costs about 1 / 199
    assert found.covered == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 10_000) + 1 / 199)
    assert found.width == pytest.approx(2 * 1.645 / 2, rel=0.02)  # by the curvature of the quantiles at the ends


def test_spread_equals_skill_for_exchangeable_draws():
    """With (L + 1) / L and n - 1; without both, L = 3 would give (2/3 * 3/4)^{1/2}.

    Mean squares of N pixels deviate by (2 / N)^{1/2} of themselves, roots by half of that, two of them by 2^{1/2} more:
    4 / N^{1/2} = 0.02.
    """
    x = normal(4, 40_000)

    assert spread_skill(x[1:], x[0]) == pytest.approx(1, abs=0.02)


def test_spread_skill_by_hand():
    """Draws 0 and 2, truth 3: variance 2 * 3/2, error 2."""
    assert spread_skill(np.array([[0.0], [2.0]]), np.array([3.0])) == pytest.approx(math.sqrt(3) / 2, rel=1e-12)
    assert spread_skill(np.array([[0.0], [2.0]]), np.array([1.0])) == math.inf


def test_crps_by_hand():
    """Draws 0, 1, 3 and truth 2: (2 + 1 + 1) / 3 - (1 + 3 + 2) * 2 / (2 * 3 * 2)."""
    assert crps(np.array([[0.0], [3.0], [1.0]]), np.array([2.0])) == pytest.approx(4 / 3 - 1, rel=1e-12)


@pytest.mark.parametrize("draws", [2, 50])
def test_crps_of_a_normal_is_gneitings_formula_at_every_number_of_draws(draws):
    """CRPS(N(0, s^2), x) = s (w (2 Phi(w) - 1) + 2 phi(w) - pi^{-1/2}), w = x / s: without bias."""
    s, truth = 2.0, 1.0
    w = truth / s
    expected = s * (w * (2 * stats.norm.cdf(w) - 1) + 2 * stats.norm.pdf(w) - 1 / math.sqrt(math.pi))
    x = s * normal(draws, 20_000)

    # one pixel deviates by less than s for two draws
    assert crps(x, np.full(20_000, truth)) == pytest.approx(expected, abs=4 * s / math.sqrt(20_000))


def test_crps_prefers_the_posterior():
    x, truth = normal(50, 5000), normal(5000, seed=1)

    assert crps(x, truth) < min(crps(0.5 * x, truth), crps(2 * x, truth), crps(x + 0.5, truth))


def test_the_energy_score_of_one_pixel_is_its_crps():
    x, truth = normal(9, 1), normal(1, seed=1)

    assert energy_score(x, truth) == pytest.approx(crps(x, truth), rel=1e-12)


def test_the_energy_score_by_hand():
    """Draws at (0, 0) and (3, 4), truth at (0, 0): 5 / 2 - 5 * 2 / (2 * 2)."""
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])

    assert energy_score(x, x[0]) == pytest.approx(0.0, abs=1e-12)
    assert energy_score(x, -x[1]) == pytest.approx((5 + 10) / 2 - 2.5, rel=1e-12)


@pytest.mark.parametrize("metric", [interval_coverage, spread_skill, crps, energy_score])
def test_images_count_pixel_by_pixel_and_stay_as_they_are(metric):
    x, truth = normal(5, 12), normal(12, seed=1)
    before = x.copy()

    image = metric(torch.from_numpy(x).reshape(5, 1, 3, 4), torch.from_numpy(truth).reshape(1, 3, 4))

    assert image == pytest.approx(metric(x, truth), rel=1e-12)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("metric", [interval_coverage, spread_skill, crps, energy_score])
def test_one_draw_has_no_spread(metric):
    with pytest.raises(ValueError, match="2 samples are needed"):
        metric(normal(1, 3), normal(3))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="do not fit"):
        crps(normal(5, 3), normal(4))
    with pytest.raises(ValueError, match=r"in \(0, 1\) \(got 90\)"):
        interval_coverage(normal(5, 3), normal(3), level=90)
