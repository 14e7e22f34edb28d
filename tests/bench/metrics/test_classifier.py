"""The classifier two-sample test: chance for equal sets, Bayes' accuracy for shifted ones."""

import math

import numpy as np
import pytest
from scipy import stats

from scoreplug.bench.metrics import c2st


def normal(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("d", [3, 100], ids=["all coordinates", "projections"])
def test_equal_distributions_are_told_apart_by_chance_alone(d):
    """0.5 +- 4 standard deviations of 2 n guesses."""
    assert c2st(normal(200, d), normal(200, d, 1)) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(400))


@pytest.mark.parametrize("d", [3, 100], ids=["all coordinates", "projections"])
def test_far_sets_are_told_apart(d):
    assert c2st(normal(50, d) + 4, normal(50, d, 1)) > 0.9


def test_a_shift_is_told_apart_as_well_as_anyone_could():
    """Bayes' accuracy for means delta apart is Phi(delta / 2) = 0.841; the training may cost 5 %."""
    best = stats.norm.cdf(1.0)

    found = c2st(normal(400, 2) + np.array([2.0, 0.0]), normal(400, 2, 1))

    assert best - 0.05 < found < best + 4 * math.sqrt(best * (1 - best) / 800)


def test_a_wrong_spread_is_seen_at_equal_means():
    """No line tells these apart: the classifier is not linear. Of radii r^2 = 9 : 1 in 5 dimensions it errs rarely."""
    assert c2st(3 * normal(200, 5), normal(200, 5, 1)) > 0.85


def test_the_unit_of_each_coordinate_does_not_matter():
    """Powers of two scale floating-point numbers exactly, so every step of the training is the same."""
    x, y, unit = normal(100, 3) + 0.5, normal(100, 3, 1), np.array([2.0**20, 1.0, 2.0**-20])

    assert c2st(x * unit, y * unit, folds=2) == c2st(x, y, folds=2)


def test_a_coordinate_that_is_constant_in_the_reference_is_looked_at():
    x, y = normal(100, 2), normal(100, 2, 1)
    x[:, 0], y[:, 0] = 6.0, 5.0

    assert c2st(x, y, folds=3) > 0.9


def test_differences_of_rounding_are_not_seen():
    """The mean of equal values is not always that value to the last bit, which leaves a deviation of 1e-16 as unit."""
    x, y = normal(100, 2), normal(100, 2, 1)
    x[:, 0], y[:, 0] = 0.1 * (1 + 1e-14), 0.1

    assert y[:, 0].std() > 0
    assert c2st(x, y, folds=3) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(200))


def test_one_sample_far_off_does_not_hide_the_others():
    """The unit is the reference's deviation: that of both sets would be 700, and the shift of 4 less than 0.01."""
    x, y = normal(100, 1) + 4, normal(100, 1, 1)
    x[0] = 10_000

    assert c2st(x, y, folds=3) > 0.9


def test_it_is_the_same_for_a_seed_and_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()
    x, y = normal(50, 2), normal(50, 2, 1)

    assert c2st(x, y, seed=3, folds=2) == c2st(x, y, seed=3, folds=2)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_sets_of_unlike_size_are_refused():
    with pytest.raises(ValueError, match="equally large, or guessing the larger one"):
        c2st(normal(20, 2), normal(30, 2))


def test_too_few_samples_for_the_folds_are_refused():
    with pytest.raises(ValueError, match="10 samples of each are needed"):
        c2st(normal(9, 2), normal(9, 2))
