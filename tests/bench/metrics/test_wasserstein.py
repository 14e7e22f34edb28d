"""Sliced Wasserstein distance, against closed forms in one dimension and exact identities in more."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from scoreplug.bench.metrics import sliced_wasserstein, wasserstein_floor


def normal(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("order", [1, 2])
def test_a_shift_on_the_line_is_its_length(order):
    x = normal(50, 1)

    assert sliced_wasserstein(x + 0.7, x, order=order) == pytest.approx(0.7, rel=1e-12)  # rounding


def test_shifted_normals_are_as_far_apart_as_their_means():
    """W_1(N(0, 1), N(3, 1)) = 3. The difference of two sample means deviates by (2 / n)^{1/2} = 0.022."""
    found = sliced_wasserstein(normal(4000, 1, 0) + 3, normal(4000, 1, 1))

    assert found == pytest.approx(3, abs=4 * 0.022)


def test_a_wider_normal_is_as_far_as_its_quantiles():
    """W_1(N(0, s^2), N(0, 1)) = |s - 1| (2 / pi)^{1/2}; exact quantiles of a grid of levels leave 1 / n of it."""
    level = (np.arange(20_000) + 0.5) / 20_000
    x = stats.norm.ppf(level)[:, None]

    assert sliced_wasserstein(3 * x, x) == pytest.approx(2 * math.sqrt(2 / math.pi), rel=1e-3)


def test_a_shift_by_v_has_mean_square_v2_over_d():
    """SW_2^2 = E (theta^T v)^2 = |v|^2 / d, whose average over P slices varies by (2 (d - 1) / (d + 2) / P)^{1/2}."""
    d, slices = 10, 4000
    x, v = normal(20, d), normal(1, d, 1)

    found = sliced_wasserstein(x + v, x, order=2, projections=slices) ** 2

    relative = math.sqrt(2 * (d - 1) / (d + 2) / slices)
    assert found == pytest.approx((v**2).sum() / d, rel=4 * relative)


@pytest.mark.parametrize("order", [1, 2])
def test_sets_of_unlike_size_count_as_their_copies(order):
    """Two and three points are the distributions of their three and two copies."""
    x, y = normal(2, 4), normal(3, 4, 1)

    copies = sliced_wasserstein(np.repeat(x, 3, 0), np.repeat(y, 2, 0), order=order)

    assert sliced_wasserstein(x, y, order=order) == pytest.approx(copies, rel=1e-12)


def test_on_the_line_it_is_scipys():
    x, y = normal(31, 1), normal(47, 1, 1) * 2

    assert sliced_wasserstein(x, y) == pytest.approx(stats.wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-12)


def test_it_is_a_distance_between_sets():
    """Symmetric, zero on itself, homogeneous, and blind to the order of the samples."""
    x, y = normal(20, 3), normal(30, 3, 1)
    value = sliced_wasserstein(x, y)

    assert sliced_wasserstein(y, x) == pytest.approx(value, rel=1e-12)
    assert sliced_wasserstein(x, x[::-1]) == 0
    assert sliced_wasserstein(5 * x, 5 * y) == pytest.approx(5 * value, rel=1e-12)


def test_slices_are_those_of_the_seed():
    x, y = normal(20, 3), normal(20, 3, 1)

    assert sliced_wasserstein(x, y, seed=0) == sliced_wasserstein(x, y)
    assert sliced_wasserstein(x, y, seed=1) != sliced_wasserstein(x, y)


def test_tensors_of_any_shape_count_as_rows():
    x, y = normal(6, 12), normal(6, 12, 1)
    tensor = torch.from_numpy(x).reshape(6, 3, 2, 2).requires_grad_()

    assert sliced_wasserstein(tensor, torch.from_numpy(y)) == sliced_wasserstein(x, y)


def test_the_floor_falls_with_the_size_of_the_sets():
    """The expected W_1 between n exact samples falls like n^{-1/2}: from 100 to 1600 samples by 4.

    Each floor averages 20 pairs, each off by about 0.2 of itself: the ratio varies by 0.2 (2 / 20)^{1/2} = 6 %.
    """
    small = wasserstein_floor((normal(100, 5, 2 * b), normal(100, 5, 2 * b + 1)) for b in range(20))
    large = wasserstein_floor((normal(1600, 5, 2 * b), normal(1600, 5, 2 * b + 1)) for b in range(20))

    assert small.mean / large.mean == pytest.approx(4, rel=4 * 0.06)
    assert 0 < small.quantile(0.05) < small.mean < small.quantile(0.95)


def test_the_floor_ranks_a_distance():
    floor = wasserstein_floor((normal(50, 2, 2 * b), normal(50, 2, 2 * b + 1)) for b in range(19))

    assert floor.p_value(sliced_wasserstein(normal(50, 2) + 5, normal(50, 2, 1))) == 1 / 20
    assert floor.p_value(floor.values[9]) == 11 / 20  # ten of the nineteen are at least the median
    assert floor.p_value(0.0) == 1


def test_exact_samples_are_rejected_as_often_as_the_rank_says():
    """One of B + 1 exchangeable distances is the largest in one case of B + 1: 10 %, +- 4 (0.09 / 200)^{1/2}."""
    pairs = [
        [(normal(20, 2, 20 * b + 2 * i), normal(20, 2, 20 * b + 2 * i + 1)) for i in range(10)] for b in range(200)
    ]

    p = [wasserstein_floor(rest).p_value(sliced_wasserstein(*first)) for first, *rest in pairs]

    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 200))


@pytest.mark.parametrize(
    ("x", "y", "options", "reason"),
    [
        (normal(5, 2), normal(5, 3), {}, "samples have 2 dimensions, the reference has 3"),
        (normal(5, 2) * np.nan, normal(5, 2), {}, "10 values of samples are NaN or infinite"),
        (normal(5, 2), np.full((5, 2), np.inf), {}, "of reference are NaN or infinite"),
        (normal(5, 2), normal(5, 2), {"order": 0.5}, "at least 1"),
        (normal(5, 2), normal(5, 2), {"projections": 0}, "at least one direction"),
        (np.zeros((0, 2)), normal(5, 2), {}, "nothing to measure"),
    ],
    ids=["dimensions", "nan", "infinite", "order", "no slices", "empty"],
)
def test_what_has_no_distance_is_refused(x, y, options, reason):
    with pytest.raises(ValueError, match=reason):
        sliced_wasserstein(x, y, **options)


def test_a_floor_of_no_pairs_is_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        wasserstein_floor([])
