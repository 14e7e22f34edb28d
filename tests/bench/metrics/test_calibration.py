"""Calibration, on a Gaussian problem whose posterior is known: uniform where it should be, and not where not."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from scoreplug.bench.metrics import hpd_coverage, project, rank_uniformity, references_near, sbc_ranks, tarp

DRAWS = 39
SIZE = 400


def simulate(kind, *, d=2, size=SIZE, draws=DRAWS, seed=0):
    """x* ~ N(0, I), y = x* + n of standard deviation 1/2, and draws: N(4 y / 5, I / 5) is the posterior."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((size, d))
    y = truth + 0.5 * rng.standard_normal((size, d))
    z = rng.standard_normal((size, draws, d))
    mean, std = 0.8 * y[:, None], math.sqrt(0.2)
    samples = {
        "exact": mean + std * z,
        "narrow": mean + std * math.sqrt(0.5) * z,
        "wide": mean + std * math.sqrt(2) * z,
        "biased": mean + std * (z + 1),
        "prior": z,
    }[kind]
    return samples, truth, y


def log_posterior(x, y):
    return -((x - 0.8 * y) ** 2).sum(-1) / 0.4


def test_ranks_count_the_draws_below_the_truth():
    ranks = sbc_ranks(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]), np.array([2.5, 0.0]))

    np.testing.assert_array_equal(ranks, [2, 0])


def test_each_coordinate_has_its_ranks():
    samples, truth, _ = simulate("exact", d=6)

    ranks = sbc_ranks(torch.from_numpy(samples.reshape(SIZE, DRAWS, 2, 3)), torch.from_numpy(truth.reshape(SIZE, 2, 3)))

    np.testing.assert_array_equal(ranks[:, 1, 0], sbc_ranks(samples[..., 3], truth[:, 3]))


def test_ties_are_broken_at_random():
    """All of L = 3 draws equal to the truth: each rank in a quarter of cases, +- 4 (3 / 16 / 4000)^{1/2}."""
    ranks = sbc_ranks(np.zeros((4000, 3)), np.zeros(4000))

    share = np.bincount(ranks, minlength=4) / 4000

    assert share == pytest.approx(np.full(4, 0.25), abs=4 * math.sqrt(3 / 16 / 4000))


def test_projections_are_the_same_for_truth_and_draws():
    samples, truth, _ = simulate("exact", d=6)
    images = samples.reshape(SIZE, DRAWS, 2, 3)

    np.testing.assert_allclose(project(images, 4, axes=2)[:, 5], project(images[:, 5], 4), rtol=0, atol=1e-12)
    assert project(truth, 4).shape == (SIZE, 4)


@pytest.mark.parametrize(
    ("kind", "uniform"), [("exact", True), ("narrow", False), ("wide", False), ("biased", False), ("prior", True)]
)
def test_sbc_of_a_coordinate(kind, uniform):
    """Passes the exact posterior and, as documented, the prior; a variance off by 2 and a shift do not pass.

    A p-value below 1e-3 in a test that should pass has that chance for each seed, and the seed is fixed.
    """
    samples, truth, _ = simulate(kind)

    found = rank_uniformity(sbc_ranks(samples[..., 0], truth[:, 0]), DRAWS)

    assert (found.chi2_p_value > 1e-3) is uniform
    assert (found.ecdf_p_value > 1e-3) is uniform
    assert found.inside is uniform


def test_the_tests_of_uniformity_keep_their_level():
    """Uniform ranks of L = 9 are rejected at 10 % in at most that share of cases, and not in far fewer.

    +- 4 (0.09 / 300)^{1/2} = 0.07; both statistics are discrete, so that the level is met from below.
    """
    rng = np.random.default_rng(1)
    found = [rank_uniformity(rng.integers(0, 10, 60), 9, level=0.9, simulations=200, seed=i) for i in range(300)]

    for rejected in (
        [f.chi2_p_value <= 0.1 for f in found],
        [f.ecdf_p_value <= 0.1 for f in found],
        [not f.inside for f in found],
    ):
        assert 0.1 - 0.07 < np.mean(rejected) < 0.1 + 0.07


def test_the_band_is_one_of_binomial_counts():
    """With one level (L = 1) the simultaneous band is the pointwise one: counts whose two tails exceed 5 %."""
    found = rank_uniformity(np.repeat([0, 1], 20), 1, simulations=4000)

    assert found.levels == pytest.approx([0.5])
    assert found.ecdf == pytest.approx([0.5])
    assert (found.lower[0] * 40, found.upper[0] * 40) == pytest.approx(stats.binom.interval(0.95, 40, 0.5))
    assert found.deviation == 0


def test_uneven_bins_have_uneven_expectations():
    """L + 1 = 7 ranks, each 3 times, in 4 bins of 1 and 2 ranks: Pearson's statistic is 0."""
    assert rank_uniformity(np.repeat(np.arange(7), 3), 6).chi2_p_value == pytest.approx(1)


@pytest.mark.parametrize("kind", ["exact", "narrow", "wide", "biased", "prior"])
def test_tarp_with_references_near_the_data_finds_what_is_wrong(kind):
    samples, truth, y = simulate(kind)

    found = tarp(samples, truth, references_near(y, 0.3, seed=1))

    assert (rank_uniformity(found.ranks, DRAWS).ecdf_p_value > 1e-3) is (kind == "exact")


def test_tarp_with_references_that_do_not_depend_on_y_misses_that_the_samples_are_the_priors():
    """Draws of the prior and x* have one distribution: so have their distances to a point that knows nothing of y."""
    samples, truth, _ = simulate("prior")
    elsewhere = np.random.default_rng(1).standard_normal(truth.shape)

    assert rank_uniformity(tarp(samples, truth, elsewhere).ranks, DRAWS).ecdf_p_value > 1e-3


def test_tarps_coverage_of_the_exact_posterior_is_the_diagonal_at_few_draws():
    """At alpha = k / (L + 1) there is no bias for L = 4: +- 4 (1/4 / 4000)^{1/2} = 0.032 at 4000 measurements."""
    samples, truth, y = simulate("exact", size=4000, draws=4)

    found = tarp(samples, truth, references_near(y, 0.3, seed=1))

    assert found.levels == pytest.approx(np.arange(6) / 5)
    assert found.coverage == pytest.approx(found.levels, abs=0.032)
    assert (found.coverage[0], found.coverage[-1]) == (0, 1)


@pytest.mark.parametrize(("kind", "sign"), [("narrow", -1), ("wide", 1)])
def test_the_sign_of_atc_tells_over_confident_from_too_wide(kind, sign):
    """References far from all draws: the truth of a narrow cloud is often beyond it, on either side."""
    samples, truth, _ = simulate(kind, d=1, size=2000)

    found = tarp(samples, truth, np.full_like(truth, 50.0))

    assert sign * found.atc > 4 * found.atc_std


def test_atc_is_the_area_over_the_upper_half():
    """All ranks 0: ECP(1 / 2) = 1, and the area is int_{1/2}^1 (1 - a) da = 1/8; all ranks L: ECP is 0 up to
    L / (L + 1) = 1/2, and then rises like 2 a - 1, which leaves int (a - 1) da = -1/8."""
    near, far = np.zeros((10, 1)), np.ones((10, 1))

    assert tarp(far[:, None], near, near).atc == pytest.approx(1 / 8, rel=1e-12)
    assert tarp(near[:, None], far, near).atc == pytest.approx(-1 / 8, rel=1e-12)


def test_tarps_band_is_as_wide_as_the_binomial_error():
    """The bootstrap of a share of 1/2 among S has the deviation (1/4 / S)^{1/2}; its 95 % band is 3.92 of these."""
    samples, truth, y = simulate("exact")

    found = tarp(samples, truth, references_near(y, 0.3, seed=1), bootstraps=2000)

    middle = len(found.levels) // 2
    width = found.upper[middle] - found.lower[middle]
    assert width == pytest.approx(3.92 * math.sqrt(0.25 / SIZE), rel=0.1)  # quantiles of 2000, in steps of 1 / 400


def test_references_are_estimates_plus_noise():
    """The deviation of 4000 differences varies by 1 / (2 * 4000)^{1/2} of it."""
    x = np.arange(4000.0).reshape(1000, 2, 2)

    off = references_near(x, 0.3) - x

    assert off.std() == pytest.approx(0.3, rel=4 / math.sqrt(8000))
    np.testing.assert_array_equal(references_near(x, 0.0), x)


@pytest.mark.parametrize(("kind", "side"), [("exact", 0), ("narrow", -1), ("wide", 1)])
def test_hpd_regions_cover_as_often_as_they_say(kind, side):
    samples, truth, y = simulate(kind, size=2000)

    found = hpd_coverage(log_posterior(samples, y[:, None]), log_posterior(truth, y))

    for region in found:
        error = math.sqrt(region.target * (1 - region.target) / 2000)
        off = (region.covered - region.target) / error
        assert abs(off) < 4 if side == 0 else side * off > 4
        assert region.lower < region.covered < region.upper


def test_hpd_levels_are_those_that_the_draws_can_give():
    """L = 39: 0.5 and 0.9 are 20 and 36 of 40. L = 4: 0.5 lies between, and three of five ranks are counted in."""
    flat = np.random.default_rng(0).standard_normal((50, 40))

    assert [c.target for c in hpd_coverage(flat[:, 1:], flat[:, 0])] == pytest.approx([0.5, 0.9])
    assert [c.target for c in hpd_coverage(flat[:, 1:5], flat[:, 0], levels=[0.5])] == pytest.approx([0.6])


def test_a_truth_of_the_highest_density_is_in_every_region():
    found = hpd_coverage(np.zeros((10, 99)), np.ones(10), levels=[0.01])

    assert found[0].covered == 1
    assert hpd_coverage(np.zeros((10, 99)), -np.ones(10), levels=[0.99])[0].covered == 0


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: sbc_ranks(np.zeros((3, 4)), np.zeros(4)), "do not belong together"),
        (lambda: rank_uniformity(np.array([0, 1]), 1), "at least 10 ranks"),
        (lambda: rank_uniformity(np.full(20, 5), 4), r"integers in \[0, 4\]"),
        (lambda: rank_uniformity(np.zeros((20, 2)), 4), "of one statistic"),
        (lambda: tarp(np.zeros((3, 4, 2)), np.zeros((3, 2)), np.zeros((3, 1))), "do not belong together"),
        (lambda: references_near(np.zeros((3, 2)), -1.0), "spread must be >= 0"),
        (lambda: hpd_coverage(np.zeros((3, 4, 2)), np.zeros((3, 2))), "one number for each sample"),
        (lambda: hpd_coverage(np.zeros((3, 4)), np.zeros(3), levels=[90]), r"in \(0, 1\) \(got 90\)"),
    ],
    ids=["shapes", "few", "range", "several", "references", "spread", "images", "percent"],
)
def test_what_does_not_fit_is_refused(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
