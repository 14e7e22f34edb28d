"""MMD, energy distance and KSD: expectations in closed form, levels of their tests, and one discrepancy by autograd."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import pdist

from scoreplug.bench.metrics import energy_distance, gradient_of, ksd, mmd, sliced_wasserstein


def normal(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def standard_error(values):
    return np.std(values, ddof=1) / math.sqrt(len(values))


def test_mmd_of_two_and_two_points_by_hand():
    """x = {0, 1}, y = {0, 2}, bandwidth 1: k(0, 1) + k(0, 2) - (k(0, 0) + k(0, 2) + k(1, 0) + k(1, 2)) / 2."""
    k = [math.exp(-(r**2) / 2) for r in range(3)]

    found = mmd(np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]]), bandwidth=1.0)

    assert found.squared == pytest.approx(k[1] + k[2] - (k[0] + k[2] + k[1] + k[1]) / 2, rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_mmd_is_unbiased(shift):
    """E k(x, x') = h (h^2 + 2)^{-1/2} exp(-mu^2 / (2 (h^2 + 2))) for x - x' ~ N(mu, 2)."""
    h = 0.8
    expected = 2 * h / math.sqrt(h**2 + 2) * (1 - math.exp(-(shift**2) / (2 * (h**2 + 2))))

    values = [
        mmd(normal(6, 1, 2 * r) + shift, normal(9, 1, 2 * r + 1), bandwidth=h, permutations=1).squared
        for r in range(2000)
    ]

    assert np.mean(values) == pytest.approx(expected, abs=4 * standard_error(values))


def test_the_bandwidth_is_the_median_distance_of_the_reference():
    x, y = normal(30, 4), normal(21, 4, 1)

    assert mmd(x, y).scale == pytest.approx(np.median(pdist(y)), rel=1e-12)
    assert mmd(x, y).squared == mmd(x, y, bandwidth=mmd(x, y).scale).squared


def test_mmd_does_not_see_where_the_origin_is():
    """Distances come from inner products of centred samples; the shift by 1e6 itself rounds to 1e-10."""
    x, y = normal(20, 3), normal(20, 3, 1)

    assert mmd(x + 1e6, y + 1e6).squared == pytest.approx(mmd(x, y).squared, abs=1e-8)


def test_without_draws_there_is_no_test():
    x, y = normal(20, 3), normal(20, 3, 1)

    for tested, plain in [
        (mmd(x + 9, y), mmd(x + 9, y, permutations=0)),
        (ksd(x + 9, torch.neg), ksd(x + 9, torch.neg, bootstraps=0)),
    ]:
        assert plain.p_value == 1
        assert plain.squared == pytest.approx(tested.squared, rel=1e-12)


def test_the_permutation_test_keeps_its_level():
    """p <= 0.1 in 10 % of cases, +- 4 (0.09 / 300)^{1/2}: 19 relabellings make p a multiple of 1 / 20."""
    p = [mmd(normal(15, 2, 2 * r), normal(20, 2, 2 * r + 1), permutations=19, seed=r).p_value for r in range(300)]

    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 300))


@pytest.mark.parametrize("distance", ["mmd", "ksd"])
def test_what_is_far_has_the_smallest_p_value(distance):
    x, y = normal(100, 3) + 1, normal(100, 3, 1)

    found = mmd(x, y, permutations=99) if distance == "mmd" else ksd(x, torch.neg, bootstraps=99)

    assert found.p_value == 1 / 100
    assert found.squared > 0


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_energy_distance_is_unbiased(shift):
    """E|N(mu, 2)| = 2 pi^{-1/2} exp(-mu^2 / 4) + mu (1 - 2 Phi(-mu / 2^{1/2}))."""

    def absolute(mu):
        return 2 / math.sqrt(math.pi) * math.exp(-(mu**2) / 4) + mu * (1 - 2 * stats.norm.cdf(-mu / math.sqrt(2)))

    values = [energy_distance(normal(6, 1, 2 * r) + shift, normal(9, 1, 2 * r + 1)) for r in range(2000)]

    assert np.mean(values) == pytest.approx(2 * (absolute(shift) - absolute(0)), abs=4 * standard_error(values))


def test_energy_distance_is_scipys_without_the_pairs_of_a_sample_with_itself():
    x, y = normal(7, 1), normal(5, 1, 1)
    own, other = 2 * pdist(x).sum(), 2 * pdist(y).sum()
    biased = stats.energy_distance(x[:, 0], y[:, 0]) ** 2

    expected = biased + own / 49 + other / 25 - own / (7 * 6) - other / (5 * 4)

    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-9)  # of a square root of a difference


def test_ksd_is_the_stein_kernel_by_autograd():
    """h = s^T s' k + s^T d_x' k + s'^T d_x k + tr d_x d_x' k, each derivative taken by autograd."""
    x, c = torch.from_numpy(normal(4, 3)), 0.7
    score = gradient_of(lambda z: -(z**4).sum(1) / 4 + z[:, 0] * z[:, 1])
    s = score(x)

    def kernel(a, b):
        return (c**2 + (a - b).square().sum()) ** -0.5

    total = 0.0
    for i in range(4):
        for j in set(range(4)) - {i}:
            hessian = torch.autograd.functional.hessian(kernel, (x[i], x[j]))
            d_i, d_j = torch.autograd.functional.jacobian(kernel, (x[i], x[j]))
            total += s[i] @ s[j] * kernel(x[i], x[j]) + s[i] @ d_j + s[j] @ d_i + hessian[0][1].trace()

    assert ksd(x, score, scale=c).squared == pytest.approx(float(total) / 12, rel=1e-10)


def test_ksd_of_exact_samples_is_zero_on_average():
    values = [ksd(normal(10, 2, r), torch.neg, scale=1.0, bootstraps=1).squared for r in range(2000)]

    assert np.mean(values) == pytest.approx(0, abs=4 * standard_error(values))


@pytest.mark.parametrize(
    "wrong", [lambda x: x + 0.5, lambda x: 0.7 * x, lambda x: 1.4 * x], ids=["shift", "narrow", "wide"]
)
def test_ksd_sees_a_wrong_mean_and_a_wrong_spread(wrong):
    assert ksd(wrong(normal(300, 2)), torch.neg, bootstraps=99).p_value == 1 / 100


def test_the_wild_bootstrap_flips_pairs():
    """Of two samples beside each other h > 0 is left alone by half of the signs: p = 1/2, +- 4 (1/4 / 4000)^{1/2}."""
    found = ksd(np.array([[3.0], [3.1]]), torch.neg, scale=1.0, bootstraps=4000)

    assert found.p_value == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 4000))


def test_the_wild_bootstrap_keeps_its_level():
    """p <= 0.1 in 10 % of cases, +- 4 (0.09 / 300)^{1/2}, and some for a bootstrap of a finite sample."""
    p = [ksd(normal(60, 2, r), torch.neg, bootstraps=99, seed=r).p_value for r in range(300)]

    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 300))


def test_ksd_is_blind_to_the_weights_of_far_modes_and_the_distance_is_not():
    """Two modes at +-20 of weight 1/2 each: samples of one of them alone have the right score everywhere."""

    def log_density(x):
        return torch.logsumexp(-torch.stack([x - 20, x + 20]).square().sum(-1) / 2, 0)

    x = normal(200, 2) + 20
    both = np.concatenate([normal(100, 2, 1) + 20, normal(100, 2, 2) - 20])

    assert ksd(x, gradient_of(log_density), scale=1.0).p_value > 0.01
    assert sliced_wasserstein(x, both) > 10  # half the mass moves by 40, seen under an angle


def test_the_default_scale_of_ksd_is_the_median_distance():
    x = normal(20, 3)

    assert ksd(x, torch.neg).scale == pytest.approx(np.median(pdist(x)), rel=1e-12)


def test_the_score_is_asked_once_for_images_in_their_own_type():
    asked = []

    def score(x):
        asked.append((x.shape, x.dtype))
        return -x

    ksd(torch.from_numpy(normal(5, 12)).float().reshape(5, 3, 2, 2), score)

    assert asked == [((5, 3, 2, 2), torch.float32)]


def test_the_gradient_of_a_density_leaves_its_argument_alone():
    x = torch.from_numpy(normal(5, 2))

    with torch.no_grad():
        score = gradient_of(lambda z: -z.square().sum(1) / 2)(x)

    torch.testing.assert_close(score, -x, rtol=0, atol=0)
    assert not x.requires_grad
    assert not score.requires_grad


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: mmd(np.ones((3, 2)), np.ones((3, 2))), "bandwidth must be > 0"),
        (lambda: mmd(normal(1, 2), normal(3, 2)), "2 samples of each"),
        (lambda: energy_distance(normal(3, 2), normal(1, 2)), "2 samples of each"),
        (lambda: ksd(normal(1, 2), torch.neg), "needs 2 samples"),
        (lambda: ksd(normal(3, 2), lambda x: x[:, :1]), "scores have shape"),
        (lambda: ksd(normal(3, 2), lambda x: x / 0), "of scores are NaN or infinite"),
        (lambda: ksd(normal(3, 2), torch.neg, scale=0.0), "scale must be > 0"),
    ],
    ids=["equal samples", "one sample", "one exact", "one for ksd", "shape", "infinite", "scale"],
)
def test_what_has_no_discrepancy_is_refused(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
