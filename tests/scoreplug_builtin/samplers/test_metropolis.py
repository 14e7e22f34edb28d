"""ula, mala, hmc: what they leave invariant, what they do not, and by how much."""

import math

import attrs
import pytest
import torch

from scoreplug import WrappedModel, registry
from scoreplug.testing import BatchNoise, affine_moments
from scoreplug_builtin.samplers._hamiltonian import ApproximateAcceptanceWarning, evaluate, squared

N = 10_000
MEANS, WEIGHTS = ((0.0, 0.0), (2.5, 1.0), (-2.0, 1.5)), (0.5, 0.3, 0.2)
T = torch.tensor(0.7, dtype=torch.float64)


def mixture(sde=None):
    """Three modes of standard deviation .5 at level .6, between which chains do travel."""
    sde = registry.get_sde("ve", sigma_min=0.01, sigma_max=3.5) if sde is None else sde
    return registry.get_model(
        "gaussian-mixture", image_shape=(1, 1, 2), means=MEANS, weights=WEIGHTS, covariances=0.25, sde=sde
    )


def make_noise(samples, seed=0):
    return BatchNoise(seed, samples, dtype=torch.float64, device=torch.device("cpu"))


def exact_samples(model, n, t):
    """From p_t: a mode by its weight, then its normal distribution."""
    g = torch.Generator().manual_seed(1)
    k = torch.multinomial(torch.tensor(WEIGHTS, dtype=torch.float64), n, replacement=True, generator=g)
    alpha, sigma = model.sde.alpha(t), model.sde.sigma(t)
    means = torch.tensor(MEANS, dtype=torch.float64)[k]
    z = torch.randn(n, 2, generator=g, dtype=torch.float64)
    return (alpha * means + (alpha**2 * 0.25 + sigma**2).sqrt() * z).reshape(n, 1, 1, 2)


def features(x):
    """Numbers that a wrong law changes: moments, and the share near each mode."""
    x = x.flatten(1)
    near = torch.cdist(x, torch.tensor(MEANS, dtype=torch.float64)).argmin(1)
    return torch.stack(
        [x[:, 0], x[:, 1], x[:, 0] ** 2, x[:, 0] * x[:, 1], x[:, 1] ** 2, *(near == k for k in range(3))]
    )


def worst_deviation(before, after):
    """Largest change of a feature's mean, in its standard errors. The chains start in the law itself, so that only the
    difference of two correlated means of n samples is random; its variance is at most 2 V/n each."""
    before, after = features(before), features(after)
    error = ((before.var(1) + after.var(1)) / before.shape[1]).sqrt()
    return float(((after.mean(1) - before.mean(1)).abs() / error).max())


@attrs.frozen(kw_only=True, eq=False)
class WrongDrift(WrappedModel):
    """The right density with a score that is not its gradient."""

    base: object

    def score(self, x, t):
        return 0.6 * self.base.score(x, t) + 0.3

    def log_density(self, x, t):
        return self.base.log_density(x, t)


CHAINS = [
    ("mala", {"step_size": 0.5, "moves": 6}),
    ("mala", {"step_size": 2.0, "moves": 6}),
    ("hmc", {"step_size": 0.8, "leapfrogs": 3, "moves": 4}),
    ("hmc", {"step_size": 1.5, "leapfrogs": 2, "persistence": 0.0, "moves": 4}),
    ("hmc", {"step_size": 1.2, "leapfrogs": 1, "persistence": 0.9, "moves": 8}),
]


@pytest.mark.parametrize("drift", ["right", "wrong"])
@pytest.mark.parametrize(("name", "params"), CHAINS, ids=lambda p: str(p))
def test_the_target_is_left_invariant_whatever_the_drift(name, params, drift):
    model = mixture()
    x = exact_samples(model, N, T)
    target = model if drift == "right" else WrongDrift(base=model)

    after = registry.get_sampler(name, **params).correct(target, x, T, make_noise(range(N)))

    assert float((after - x).abs().mean()) > 0.1  # they moved
    assert worst_deviation(x, after) < 5


def test_the_authors_denominator_does_not_leave_it_invariant():
    """2 e^2 in the place of 4 e: the same chain, with the acceptance of the torch code."""
    model, e = mixture(), 2.0 * float(mixture().sde.sigma(T)) ** 2
    x = start = exact_samples(model, N, T)
    noise = make_noise(range(N))
    for k in range(6):
        s, here = model.score(x, T), noise.at(k)
        new = x + e * s + math.sqrt(2 * e) * here.at("z").normal((1, 1, 2))
        back, forth = x - new - e * model.score(new, T), new - x - e * s
        log_a = model.log_density(new, T) - model.log_density(x, T) - (squared(back) - squared(forth)) / (2 * e**2)
        accept = here.at("accept").uniform().log() < log_a
        x = torch.where(accept.reshape(-1, 1, 1, 1), new, x)

    assert worst_deviation(start, x) > 10


def test_without_acceptance_the_same_step_does_not_leave_it_invariant():
    x = exact_samples(mixture(), N, T)

    after = registry.get_sampler("ula", step_size=1.5, moves=6).correct(mixture(), x, T, make_noise(range(N)))

    assert worst_deviation(x, after) > 10


def test_without_the_flip_partial_refreshment_is_wrong():
    """On reject the momentum has to turn round: else the chain goes on into what was rejected."""
    model, sampler = mixture(), registry.get_sampler("hmc", step_size=1.9, leapfrogs=1, persistence=0.9)
    x = start = exact_samples(model, N, T)
    h, noise = sampler.length(model.sde.sigma(T)), make_noise(range(N))
    point, v = evaluate(model, x, T, exact=True), noise.at("v").normal((1, 1, 2))
    for k in range(40):
        here = noise.at(k)
        v = 0.9 * v + math.sqrt(1 - 0.81) * here.at("z").normal((1, 1, 2))
        new, v_new, work = sampler.leapfrog(model, point, v, T, h, exact=True)
        accept = here.at("accept").uniform().log() < work + (squared(v) - squared(v_new)) / 2
        wide = accept.reshape(-1, 1, 1, 1)
        v = torch.where(wide, v_new, v)  # not flipped
        point = evaluate(model, torch.where(wide, new.x, point.x), T, exact=True)

    flipped = registry.get_sampler("hmc", step_size=1.9, leapfrogs=1, persistence=0.9, moves=40)
    assert worst_deviation(start, flipped.correct(model, start, T, noise)) < 5
    assert worst_deviation(start, point.x) > 5


def test_one_leapfrog_step_is_malas_proposal_with_its_textbook_acceptance():
    """x' = x + e s + sqrt(2 e) z, and the ratio of the textbooks, to rounding."""
    model, sampler = mixture(), registry.get_sampler("mala", step_size=0.7)
    x, v = exact_samples(model, 50, T), make_noise(range(50)).normal((1, 1, 2))
    h = sampler.length(model.sde.sigma(T))
    e = h**2 / 2

    new, v_new, work = sampler.leapfrog(model, evaluate(model, x, T, exact=True), v, T, h, exact=True)

    proposal = x + e * model.score(x, T) + (2 * e).sqrt() * v
    torch.testing.assert_close(new.x, proposal, rtol=1e-12, atol=1e-12)
    back, forth = x - proposal - e * model.score(proposal, T), proposal - x - e * model.score(x, T)
    log_a = model.log_density(proposal, T) - model.log_density(x, T) - (squared(back) - squared(forth)) / (4 * e)
    torch.testing.assert_close(work + (squared(v) - squared(v_new)) / 2, log_a, rtol=1e-10, atol=1e-10)
    assert float(e) == pytest.approx(0.7 * float(model.sde.sigma(T)) ** 2)


@pytest.mark.parametrize("P", [0.4, 1.0])
@pytest.mark.parametrize("ratio", [0.1, 0.5])
def test_the_unadjusted_chain_has_its_known_inflation(P, ratio):
    """Stationary variance P / (1 - e / (2 P)), exactly: the recursion V = (1 - e/P)^2 V + 2 e, run to its end."""
    sde = registry.get_sde("ve", sigma_min=0.1, sigma_max=0.5, t_min=0.5)
    sigma2 = float(sde.sigma(torch.tensor(0.5, dtype=torch.float64))) ** 2
    model = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=P - sigma2, sde=sde)
    sampler = registry.get_sampler("ula", steps=1, moves=3000, step_size=ratio, final="sample")

    mean, variance = affine_moments(sampler, model)

    e = ratio * sigma2
    assert float(variance) == pytest.approx(P / (1 - e / (2 * P)), rel=1e-9)
    assert float(mean) == pytest.approx(0, abs=1e-9)


def test_the_unadjusted_leapfrog_has_its_known_inflation():
    """With full refreshment P / (1 - h^2 / (4 P)) for any number of steps; the map is linear in (x, v)."""
    P, h = 0.8, 0.875
    model = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=P - 0.04, sde="ve")
    t = model.sde.time_of(torch.tensor(0.2, dtype=torch.float64))
    for leapfrogs in (1, 3):
        sampler = registry.get_sampler("hmc", leapfrogs=leapfrogs)
        unit = torch.eye(2, dtype=torch.float64)
        x, v = unit[:, 0].reshape(2, 1, 1, 1), unit[:, 1].reshape(2, 1, 1, 1)
        new, _, _ = sampler.leapfrog(
            model, evaluate(model, x, t, exact=False), v, t, torch.tensor(h).double(), exact=False
        )
        a, b = new.x.flatten().tolist()  # x' = a x + b v with v ~ N(0, 1)
        assert b**2 / (1 - a**2) == pytest.approx(P / (1 - h**2 / (4 * P)), rel=1e-9)


def test_trapezoids_along_the_leapfrog_leave_the_difference_of_the_squared_scores():
    """work - change of kinetic energy = h^2/8 (|s|^2 - |s'|^2), whatever lies between: exact for Gaussians only."""
    model, h = mixture(), torch.tensor(0.5, dtype=torch.float64)
    x, v = exact_samples(model, 50, T), make_noise(range(50)).normal((1, 1, 2))
    sampler = registry.get_sampler("hmc", leapfrogs=4, potential="line-integral")
    start = evaluate(model, x, T, exact=False)

    new, v_new, work = sampler.leapfrog(model, start, v, T, h, exact=False)

    expected = h**2 / 8 * (squared(start.score) - squared(new.score))
    torch.testing.assert_close(work + (squared(v) - squared(v_new)) / 2, expected, rtol=1e-10, atol=1e-12)


def test_gausss_rule_approaches_the_true_ratio_with_its_points():
    model, h = mixture(), torch.tensor(0.25, dtype=torch.float64)
    x, v = exact_samples(model, 500, T), make_noise(range(500)).normal((1, 1, 2))
    errors = []
    for nodes in (1, 2, 4, 8):
        sampler = registry.get_sampler("hmc", leapfrogs=2, nodes=nodes)
        new, _, work = sampler.leapfrog(model, evaluate(model, x, T, exact=False), v, T, h, exact=False)
        truth = model.log_density(new.x, T) - model.log_density(x, T)
        errors.append(float((work - truth).abs().max()))

    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4 * errors[0]


@attrs.frozen(kw_only=True, eq=False)
class ScoreOnly(WrappedModel):
    """A mixture that keeps its density to itself."""

    base: object

    def score(self, x, t):
        return self.base.score(x, t)


@pytest.mark.parametrize("name", ["mala", "hmc"])
def test_what_is_approximate_says_so_and_exactness_can_be_demanded(name):
    model, x = ScoreOnly(base=mixture()), exact_samples(mixture(), 3, T)

    with pytest.warns(ApproximateAcceptanceWarning, match=f"sampler '{name}'.*approximate"):
        registry.get_sampler(name).correct(model, x, T, make_noise(range(3)))
    registry.get_sampler(name, potential="line-integral").correct(model, x, T, make_noise(range(3)))  # no warning
    with pytest.raises(TypeError, match=f"sampler '{name}' with potential='log-density' needs"):
        registry.get_sampler(name, potential="log-density").correct(model, x, T, make_noise(range(3)))


@pytest.mark.parametrize("name", ["mala", "hmc"])
def test_four_points_of_the_line_integral_leave_the_mixture_invariant(name):
    x = exact_samples(mixture(), N, T)
    params = dict(CHAINS)[name] | {"potential": "line-integral", "nodes": 4}

    after = registry.get_sampler(name, **params).correct(ScoreOnly(base=mixture()), x, T, make_noise(range(N)))

    assert worst_deviation(x, after) < 5


@pytest.mark.parametrize(("name", "target"), [("mala", 0.574), ("hmc", 0.651)])
def test_the_step_size_moves_towards_its_acceptance_between_levels(name, target):
    """From far too large a step; each chain learns for itself, and a resumed run goes on as it would have."""
    i = torch.arange(36, dtype=torch.float64)
    covariance = 0.3 * (-(i[:, None] - i).abs()).exp()
    sde = registry.get_sde("ve", sigma_max=2.0)
    model = registry.get_model("gaussian", image_shape=(1, 6, 6), covariance=covariance, sde=sde)
    sampler = registry.get_sampler(name, steps=100, moves=5, step_size=4.0)
    noise = make_noise(range(4))

    states = list(sampler.trajectory(model, noise))
    level = states[-2].t
    h = sampler.length(sde.sigma(level)) * states[-2].carry.log_factor.exp()
    rates = torch.stack([sampler.block(model, states[-2].x, level, h, make_noise(range(4), k))[1] for k in range(20)])

    first = sampler.block(model, states[1].x, states[1].t, sampler.length(sde.sigma(states[1].t)), noise)[1]
    assert float(first.mean()) < target - 0.3
    assert float(rates.mean()) == pytest.approx(target, abs=0.2)  # the step follows a noisy mean of five moves
    resumed = sampler.step(model, states[20], noise.at("step", 20))
    assert torch.equal(resumed.x, states[21].x)
    assert torch.equal(resumed.carry.log_factor, states[21].carry.log_factor)


@pytest.mark.parametrize("name", ["mala", "hmc"])
def test_a_proposal_into_nowhere_is_rejected(name):
    """Steps so large that the density underflows, or is NaN: the chain stays, finite."""
    x = exact_samples(mixture(), 5, T)

    after = registry.get_sampler(name, step_size=1e160).correct(mixture(), x, T, make_noise(range(5)))

    assert torch.equal(after, x)


@pytest.mark.parametrize(("name", "evaluations"), [("mala", 1 + 3), ("hmc", 1 + 3 * 3)])
def test_a_block_costs_one_evaluation_per_leapfrog_step_and_one_at_its_start(name, evaluations):
    seen = []

    @attrs.frozen(kw_only=True, eq=False)
    class Counting(ScoreOnly):
        def score(self, x, t):
            seen.append(1)
            return self.base.score(x, t)

    sampler = registry.get_sampler(name, moves=3, potential="line-integral")
    sampler.correct(Counting(base=mixture()), exact_samples(mixture(), 2, T), T, make_noise(range(2)))

    assert len(seen) == evaluations
