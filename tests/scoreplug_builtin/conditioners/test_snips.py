"""SNIPS: a Langevin move is the paper's in each spectral coordinate, and its law is known where it is exact."""

import math

import pytest
import torch

from scoreplug import Measurement, Noise, registry, simulate
from scoreplug.operator import from_function
from scoreplug.protocols import HasLogDensity, HasMetric
from scoreplug.testing import affine_moments

SHAPE = (1, 4, 8)
OPERATORS = {
    "identity": {},
    "inpainting": {},
    "downsampling": {"factor": 2},
    "blur": {"std": 0.6},
    "fourier": {"acceleration": 2.0},
    "wide": {"matrix": tuple(tuple(math.sin(i * j + i) + (i == j) for j in range(32)) for i in range(12))},
    "tall": {"matrix": tuple(tuple(math.cos(i * j + 1) + 2 * (i == j) for j in range(32)) for i in range(40))},
    "radon": {"angles": 2},  # thin: V has fewer columns than x has entries
}


def make_noise(samples=(0, 1)):
    return Noise(3, samples, dtype=torch.float64, device=torch.device("cpu"))


def make_operator(name):
    return registry.get_operator("matrix" if name in ("wide", "tall") else name, image_shape=SHAPE, **OPERATORS[name])


def image():
    return torch.linspace(-1, 1, 32, dtype=torch.float64).sin().reshape(SHAPE)


def posterior_of(measurement, sde="vp", **params):
    """A prior with correlated pixels, whose score mixes the coordinates."""
    i = torch.arange(32, dtype=torch.float64)
    covariance = 0.5 * (-(i[:, None] - i).abs() / 3).exp()
    prior = registry.get_model("gaussian", image_shape=SHAPE, mean=0.2, covariance=covariance, sde=sde)
    return prior, registry.get_conditioner("snips", **params).condition(prior, measurement)


def scalar_move(xbar, score, s, y, level, sigma_y, tau, z):
    """One coordinate of algorithm 1: gradient, step e, and the move, typed from the paper."""
    if s == 0:
        gradient, e = score, tau * level**2
    elif s * level > sigma_y:
        gradient = s * (y - s * xbar) / (s**2 * level**2 - sigma_y**2)
        e = tau * (level**2 - sigma_y**2 / s**2)
    elif s * level < sigma_y:
        gradient = s * (y - s * xbar) / (sigma_y**2 - s**2 * level**2) + score
        e = tau * level**2 * (1 - s**2 * level**2 / sigma_y**2)
    else:
        gradient, e = 0.0, 0.0
    return xbar + e * gradient + math.sqrt(2 * e) * z


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sde", ["vp", "ve", "flow"])
@pytest.mark.parametrize("level", [1.3, 0.23, 0.03])
def test_a_langevin_move_is_the_papers_coordinate_by_coordinate(level, sde, operator):
    """With the step tau level^2, under every SDE; levels above, around and below the noise of .1 over s."""
    A = make_operator(operator)
    prior, posterior = posterior_of(simulate(A, image(), 0.1), sde)
    t = prior.sde.time_of(torch.tensor(level, dtype=torch.float64))
    alpha, noise, snr = prior.sde.alpha(t), make_noise(), 0.1
    x = alpha * noise.at("x").normal(SHAPE)

    moved = registry.get_sampler("langevin", snr=snr).move(posterior, x, t, noise)

    svd = A.svd
    z = svd.Vt(noise.at("z").normal(SHAPE)).flatten(1)
    before, after, score = (svd.Vt(v).flatten(1) for v in (x / alpha, moved / alpha, alpha * prior.score(x, t)))
    Uty = svd.Ut(posterior.measurement.data[None]).flatten()
    tau = 2 * snr**2  # e = 2 (snr level)^2
    for k, s in enumerate(svd.singular_values.flatten().tolist()):
        for i in range(2):
            expected = scalar_move(
                float(before[i, k]), float(score[i, k]), s, float(Uty[k]), level, 0.1, tau, float(z[i, k])
            )
            # rounding of the transforms, over differences of 1e-2 between the two variances
            assert float(after[i, k]) == pytest.approx(expected, rel=1e-8, abs=1e-8)
    plain = registry.get_sampler("langevin", snr=snr).move(prior, x, t, noise)
    unreached, unreached_plain = (v - svd.V(svd.Vt(v)) for v in (moved, plain))
    torch.testing.assert_close(unreached, unreached_plain, rtol=0, atol=1e-11)  # where A is 0 it is the prior's move


@pytest.mark.parametrize("sde", ["vp", "ve", "flow"])
def test_the_step_rule_of_ncsn_is_the_papers(sde):
    """tau = step_lr / level_L^2, level_L the last level: the move above with 2 snr^2 = tau."""
    A, tau = make_operator("downsampling"), 0.02
    prior, posterior = posterior_of(simulate(A, image(), 0.1), sde)
    times = torch.tensor([0.3, prior.sde.t_min], dtype=torch.float64)
    x, step_lr = make_noise().at("x").normal(SHAPE), tau * float(prior.sde.level(times[1])) ** 2

    moves = [
        registry.get_sampler("langevin", **rule).move(posterior, x, times[0], make_noise())
        for rule in ({"rule": "ncsn", "step_size": step_lr}, {"rule": "level", "snr": math.sqrt(tau / 2)})
    ]

    torch.testing.assert_close(*moves, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(moves[0], x)


def test_a_tie_stands_still():
    """Where s level = sigma_y there is no freedom left: neither gradient nor step."""
    t = torch.tensor(0.5, dtype=torch.float64)
    tie = float(registry.get_sde("ve").sigma(t))
    A = registry.get_operator("inpainting", image_shape=SHAPE)
    prior, posterior = posterior_of(Measurement(A, A(image()[None])[0], tie), "ve")
    noise = make_noise()
    x = noise.at("x").normal(SHAPE)

    moved = registry.get_sampler("langevin", snr=0.1).move(posterior, x, t, noise)

    torch.testing.assert_close(A(moved), A(x), rtol=0, atol=1e-7)  # the root of 1 - 1 to rounding, 1e-8
    torch.testing.assert_close(A(posterior.score(x, t)), torch.zeros_like(A(x)), rtol=0, atol=1e-14)
    hidden = ~A.observed
    plain = registry.get_sampler("langevin", snr=0.1).move(prior, x, t, noise)
    torch.testing.assert_close(moved[:, hidden], plain[:, hidden], rtol=1e-12, atol=1e-12)


def test_the_law_of_a_level_is_exact_where_the_data_are_noisier():
    """Langevin moves at a level with s level < sigma_y: N(b / Lam, 1 / Lam) with Lam = 1/(S + l^2) + a^2/(sigma_y^2 -
    a^2 l^2), the conditional law of xbar = x_0 + l z when the noise of y holds a l z; with unadjusted Langevin's known
    inflation 1 / (1 - e m Lam / 2). The numbers are those of the docstring."""
    S, a, sigma_y, y, level, snr = 1.7, 0.8, 0.6, 1.3, 0.5, 0.2
    A = registry.get_operator("matrix", image_shape=(1, 1, 1), matrix=((a,),))
    t_min = float(registry.get_sde("ve", sigma_max=2.0).time_of(torch.tensor(level, dtype=torch.float64)))
    sde = registry.get_sde("ve", sigma_max=2.0, t_min=t_min)
    prior = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=S, sde=sde)
    measurement = Measurement(A, torch.tensor([y], dtype=torch.float64), sigma_y)
    posterior = registry.get_conditioner("snips").condition(prior, measurement)
    sampler = registry.get_sampler("langevin", steps=1, moves=600, snr=snr, final="sample")

    mean, variance = (float(moment) for moment in affine_moments(sampler, posterior))

    left = sigma_y**2 - (a * level) ** 2
    Lam = 1 / (S + level**2) + a**2 / left
    e = 2 * (snr * level) ** 2 * left / sigma_y**2
    assert mean == pytest.approx(a * y / left / Lam, rel=1e-6)
    assert variance == pytest.approx(1 / Lam / (1 - e * Lam / 2), rel=1e-6)
    assert (a * y / left / Lam, 1 / Lam) == pytest.approx((1.401, 0.269), abs=5e-4)


def test_the_law_tends_to_the_posterior_as_the_level_goes_to_zero():
    """Two correlated pixels, one measurement of both: mean and covariance of p(x | y) at level .05, small steps."""
    S = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64)
    A, y, sigma_y, level = torch.tensor([[2.0, 0.5]], dtype=torch.float64), 1.1, 0.4, 0.05
    operator = registry.get_operator("matrix", image_shape=(1, 1, 2), matrix=A)
    prior = registry.get_model("gaussian", image_shape=(1, 1, 2), covariance=S, sde="ve")
    measurement = Measurement(operator, torch.tensor([y], dtype=torch.float64), sigma_y)
    posterior = registry.get_conditioner("snips").condition(prior, measurement)
    t = prior.sde.time_of(torch.tensor(level, dtype=torch.float64))

    # stationary law of dx = M s dt + (2 M)^{1/2} dw is N(-H^-1 s(0), -H^-1), H the Jacobian of the score, for every M
    basis = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double().reshape(3, 1, 1, 2)
    s = posterior.score(basis, t).flatten(1)
    H = (s[1:] - s[0]).T
    mean, covariance = -torch.linalg.solve(H, s[0]), -torch.linalg.inv(H)

    K = S @ A.T / (A @ S @ A.T + sigma_y**2)
    # the prior is blurred by level^2 = .0025, relative to eigenvalues of S from .29
    torch.testing.assert_close(mean, (K * y).flatten(), rtol=0, atol=0.01)
    torch.testing.assert_close(covariance, S - K @ A @ S, rtol=0, atol=0.01)


def scalar_problem(a, sigma_y, y, *, low, high):
    """The prior N(0, 1.7), measured as y = a x + sigma_y n, under levels from `high` to `low`."""
    sde = registry.get_sde("ve", sigma_min=low, sigma_max=high, t_min=1e-12)
    prior = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=1.7, sde=sde)
    A = registry.get_operator("matrix", image_shape=(1, 1, 1), matrix=((a,),))
    measurement = Measurement(A, torch.tensor([y], dtype=torch.float64), sigma_y)
    return registry.get_conditioner("snips").condition(prior, measurement)


def test_near_a_tie_the_last_level_is_right_and_tweedies_formula_is_not():
    """Noise correlated with the data's is not what Tweedie's formula removes. The numbers are those of the docstring:
    s level = .999 sigma_y at the last level, where the posterior has the variance 4.0e-4."""
    posterior = scalar_problem(0.999 * 5, 0.1, 1.3, low=0.02, high=5.0)

    variances = [
        float(affine_moments(registry.get_sampler("langevin", steps=100, moves=5, snr=0.3, final=final), posterior)[1])
        for final in ("sample", "denoise")
    ]

    assert variances == pytest.approx([9e-6, 2.24], rel=0.1)
    left = 0.02**2 * (1 - 0.999**2)  # what the coupling leaves of the noise in x: 8e-7
    assert left < variances[0] < 4.0e-4


def test_a_move_closes_the_gap_to_the_data_by_a_factor_without_the_metric():
    """1 - e / level^2 = 1 - 2 snr^2 where s level > sigma_y: gradient and metric cancel, even near a tie."""
    posterior = scalar_problem(5.0, 0.1, 1.3, low=0.01, high=5.0)
    for level in (4.0, 0.1, 0.0201):  # sigma_y / s = .02
        t, x = posterior.sde.time_of(torch.tensor(level).double()), torch.full((1, 1, 1, 1), 3.0).double()
        step = registry.get_sampler("langevin", snr=0.3).step_of(posterior, t, x, x)

        moved = x + step * posterior.metric(posterior.score(x, t), t, "one")

        # the difference of the two variances near the tie has lost two digits
        torch.testing.assert_close(moved - 0.26, (1 - 2 * 0.3**2) * (x - 0.26), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("snr", "std"), [(0.16, 0.604), (0.5, 0.456)])
def test_few_moves_follow_a_falling_level_only_with_large_steps(snr, std):
    """200 moves; the posterior has .467. The numbers are those of the docstring."""
    posterior = scalar_problem(1.0, 0.5, 1.3, low=0.01, high=50.0)

    _, variance = affine_moments(
        registry.get_sampler("langevin", steps=100, moves=2, snr=snr, final="sample"), posterior
    )

    assert float(variance) ** 0.5 == pytest.approx(std, abs=5e-4)  # three decimals


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_step_is_the_same_under_every_sde(operator):
    A, noise, results = make_operator(operator), make_noise(), []
    xbar = noise.at("x").normal(SHAPE)
    for sde in ("vp", "ve", "subvp", "flow", "edm", "cosine", "ddpm"):
        prior, posterior = posterior_of(simulate(A, image(), 0.1), sde)
        t = prior.sde.time_of(torch.tensor(0.3, dtype=torch.float64))
        alpha = prior.sde.alpha(t)
        results.append(registry.get_sampler("langevin").move(posterior, alpha * xbar, t, noise) / alpha)

    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-8, atol=1e-8)


def test_exact_data_replace_the_prior_in_what_they_measure():
    """sigma_y = 0: g = (ybar - x) / level^2 in every measured coordinate, with the full step."""
    A = registry.get_operator("inpainting", image_shape=SHAPE)
    prior, posterior = posterior_of(Measurement(A, A(image()[None])[0], 0.0), "ve")
    t, x = torch.tensor(0.5, dtype=torch.float64), make_noise().at("x").normal(SHAPE)

    score = posterior.score(x, t)

    level2 = prior.sde.sigma(t) ** 2
    torch.testing.assert_close(A(score), (posterior.measurement.data - A(x)) / level2, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(score[:, ~A.observed], prior.score(x, t)[:, ~A.observed], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(posterior.metric(x, t, "one"), x, rtol=1e-12, atol=1e-12)


def test_compat_authors_ignores_the_data_where_nothing_is_missing():
    """grad[:, :, -num_missing:] with num_missing = 0 is all of them."""
    measurement = Measurement(registry.get_operator("identity", image_shape=SHAPE), image(), 0.1)
    prior, authors = posterior_of(measurement, compat="authors")
    _, fixed = posterior_of(measurement)
    t, x = torch.tensor(0.5, dtype=torch.float64), make_noise().at("x").normal(SHAPE)

    assert torch.equal(authors.score(x, t), prior.score(x, t))
    assert not torch.allclose(fixed.score(x, t), prior.score(x, t))
    A = registry.get_operator("inpainting", image_shape=SHAPE)
    partial = Measurement(A, A(image()[None])[0], 0.1)
    (_, authors), (_, fixed) = posterior_of(partial, compat="authors"), posterior_of(partial)
    assert torch.equal(authors.score(x, t), fixed.score(x, t))
    thin = simulate(make_operator("radon"), image(), 0.1)  # all singular values are positive, and some are missing
    (_, authors), (_, fixed) = posterior_of(thin, compat="authors"), posterior_of(thin)
    assert torch.equal(authors.score(x, t), fixed.score(x, t))


def test_a_measurement_of_nothing_is_annealed_langevin_of_the_prior():
    A = registry.get_operator("matrix", image_shape=SHAPE, matrix=((0.0,) * 32,))
    prior, posterior = posterior_of(Measurement(A, torch.zeros(1, dtype=torch.float64), 0.1))
    sampler = registry.get_sampler("langevin", steps=4, moves=2)

    # score (alpha s) / alpha: one rounding per move
    torch.testing.assert_close(sampler.sample(posterior, 2), sampler.sample(prior, 2), rtol=1e-12, atol=1e-12)


def test_the_metric_is_symmetric_with_its_root():
    A = make_operator("blur")
    _, posterior = posterior_of(simulate(A, image(), 0.1))
    t, (u, v) = torch.tensor(0.3, dtype=torch.float64), make_noise().at("x").normal(SHAPE)[:, None]

    twice = posterior.metric(posterior.metric(v, t, "half"), t, "half")
    torch.testing.assert_close(twice, posterior.metric(v, t, "one"), rtol=1e-10, atol=1e-12)
    left, right = (u * posterior.metric(v, t, "one")).sum(), (v * posterior.metric(u, t, "one")).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    assert isinstance(posterior, HasMetric)
    assert not isinstance(posterior, HasLogDensity)


def test_an_operator_without_svd_is_refused_with_what_to_use():
    prior = registry.get_model("gaussian", image_shape=SHAPE)
    plain = from_function(lambda x: 2 * x, SHAPE, linear=True)

    with pytest.raises(TypeError, match="'snips' needs an operator with a singular value decomposition"):
        registry.get_conditioner("snips").condition(prior, Measurement(plain, image(), 0.1))
