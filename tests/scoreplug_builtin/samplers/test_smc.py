"""Sequential Monte Carlo: unbiased evidence of the discretised chain for any twist, and its posterior as K grows."""

import itertools
import math

import attrs
import numpy as np
import pytest
import torch

from scoreplug import Noise, registry, simulate
from scoreplug.model import WrappedModel
from scoreplug.protocols import Twist
from scoreplug.testing import BatchNoise, affine_moments
from scoreplug_builtin.conditioners.mmps import MMPS, MatchedMoments
from scoreplug_builtin.samplers._resampling import BITS, _distance_along, along_a_curve, offspring
from scoreplug_builtin.samplers.smc import SMC

MEAN, VARIANCE, A, SIGMA_Y, Y = 0.7, 1.7, 0.8, 0.6, 1.3
SIGMAS = 5.0


@attrs.frozen(kw_only=True, eq=False)
class Wrong(MatchedMoments):
    """A twist that is off in value and direction."""

    def twist(self, x, t):
        right = super().twist(x, t)
        return right._replace(log=0.8 * right.log - 0.1 * x.flatten(1).sum(1).tanh(), gradient=0.6 * right.gradient)


def prior(sde="ve", **params):
    sde = registry.get_sde(sde, **params)
    return registry.get_model("gaussian", image_shape=(1, 1, 1), mean=MEAN, covariance=VARIANCE, sde=sde)


def posterior(kind=Wrong, sde="ve", **params):
    operator = registry.get_operator("matrix", image_shape=(1, 1, 1), matrix=((A,),))
    y = attrs.evolve(simulate(operator, torch.zeros(1, 1, 1).double(), SIGMA_Y), data=torch.tensor([Y]).double())
    return kind(prior=prior(sde, **params), measurement=y, method=MMPS())


def run(sampler, model, n, seed=0):
    *_, state = sampler.trajectory(model, BatchNoise(seed, range(n), dtype=torch.float64, device=torch.device("cpu")))
    return state


def chain_evidence(sampler, model):
    """N(y; A m_0, A V_0 A^T + sigma_y^2) with the moments of the prior's discretised chain."""
    m, V = affine_moments(registry.get_sampler("ancestral", steps=sampler.steps, grid="rho", rho=sampler.rho), model)
    variance = A**2 * float(V) + SIGMA_Y**2
    return math.exp(-((Y - A * float(m)) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


@pytest.mark.parametrize("sde", ["ve", "vp"])
def test_one_particle_estimates_the_chains_evidence_without_bias(sde):
    """Clouds of one particle, all at once: without resampling the particles are independent."""
    sampler = SMC(steps=12, kernel="ancestral", resample_below=0.0)
    cloud = run(attrs.evolve(sampler), posterior(sde=sde), 40_000)
    estimates = last_weights(sampler, posterior(sde=sde), 40_000).exp()

    error = SIGMAS * float(estimates.std()) / math.sqrt(len(estimates))
    expected = chain_evidence(sampler, prior(sde))
    assert float(estimates.mean()) == pytest.approx(expected, abs=error)
    assert float(cloud.carry.log_evidence.exp()) == pytest.approx(float(estimates.mean()), rel=1e-9)
    continuum = math.exp(-((Y - A * MEAN) ** 2) / (2 * (A**2 * VARIANCE + SIGMA_Y**2))) / math.sqrt(
        2 * math.pi * (A**2 * VARIANCE + SIGMA_Y**2)
    )
    assert abs(continuum - expected) > 2 * error  # the chain is coarse enough to tell the two apart


def last_weights(sampler, model, n):
    """log w of every particle before the last resampling."""
    noise = BatchNoise(0, range(n), dtype=torch.float64, device=torch.device("cpu"))
    *_, state, _ = sampler.trajectory(model, noise)
    return state.carry.log_weights + model.log_likelihood(state.carry.twist.x0) - state.carry.twist.log


@pytest.mark.parametrize(("K", "resampling"), [(4, "systematic"), (32, "systematic"), (32, "multinomial")])
def test_the_evidence_is_unbiased_for_every_number_of_particles(K, resampling):
    sampler = SMC(steps=12, kernel="ancestral", resample_below=0.9, resampling=resampling)
    model, clouds = posterior(), 80
    states = [run(sampler, model, K, seed) for seed in range(clouds)]
    estimates = torch.stack([state.carry.log_evidence for state in states]).exp()

    error = SIGMAS * float(estimates.std()) / math.sqrt(clouds)
    assert sum(state.carry.resampled for state in states) > clouds  # resampling is part of what is tested
    assert float(estimates.mean()) == pytest.approx(chain_evidence(sampler, prior()), abs=error)


@pytest.mark.parametrize("kernel", ["ancestral", "second-order"])
def test_with_many_particles_the_law_is_the_posterior_of_the_chain_whatever_the_twist(kernel):
    sampler = SMC(steps=30, kernel=kernel, rho=7.0)
    n, model = 20_000, posterior()
    x = run(sampler, model, n).x.flatten()

    m, V = MEAN, chain_variance(sampler, prior(), kernel)
    if kernel == "ancestral":
        m, V = map(float, affine_moments(registry.get_sampler("ancestral", steps=30, grid="rho"), prior()))
    gain = A * V / (A**2 * V + SIGMA_Y**2)
    mean, variance = m + gain * (Y - A * m), V * (1 - gain * A)
    effective = 0.3 * n  # the twist costs more than half of the particles
    assert float(x.mean()) == pytest.approx(mean, abs=SIGMAS * math.sqrt(variance / effective))
    assert float(x.var()) == pytest.approx(variance, rel=SIGMAS * math.sqrt(2 / effective))


def chain_variance(sampler, model, kernel):
    """Variance of the prior's chain by its own recursion, with the second-order kernel's width c (1 + kappa J)."""
    times = sampler.times(model.sde)
    levels = (model.sde.sigma(times) / model.sde.alpha(times)).tolist()
    V = levels[0] ** 2
    for t, s in itertools.pairwise(levels):
        rho2, J = (s / t) ** 2, VARIANCE / (VARIANCE + t**2)
        width = 1 + (1 - rho2) / (2 * rho2) * J if kernel == "second-order" else 1.0
        V = (rho2 + (1 - rho2) * J) ** 2 * V + s**2 * (1 - rho2) * width**2
    return (VARIANCE / (VARIANCE + levels[-1] ** 2)) ** 2 * V  # the end is E[x_0 | x_t]


def test_the_second_order_kernel_keeps_the_variance_that_ddpm_loses():
    """Unit variance, 100 steps from 1800 to .001: 17 % short with DDPM's kernel, 1 % with Tweedie's covariance."""
    sde = registry.get_sde("edm", sigma_min=1e-3, sigma_max=1800.0)
    model = registry.get_model("gaussian", image_shape=(1, 1, 1), mean=0.0, covariance=1.0, sde=sde)
    found = {}
    for kernel in ("ancestral", "second-order"):
        x = run(SMC(steps=100, rho=7.0, kernel=kernel), Unmeasured(base=model), 40_000).x
        found[kernel] = float(x.var())
    chance = SIGMAS * math.sqrt(2 / 40_000)

    assert found["ancestral"] == pytest.approx(0.832, abs=chance)
    assert found["second-order"] == pytest.approx(1.0, abs=0.012 + chance)


@attrs.frozen(kw_only=True, eq=False)
class Unmeasured(WrappedModel):
    """A twist that is 1 everywhere."""

    base: object

    @property
    def prior(self):
        return self.base

    def denoise(self, x, t):
        return self.base.denoise(x, t)

    def log_likelihood(self, x0):
        return torch.zeros(len(x0), dtype=x0.dtype)

    def twist(self, x, t):
        x0, vjp = self.base.denoise_with_vjp(x, t)
        return Twist(x0=x0, log=self.log_likelihood(x0), gradient=torch.zeros_like(x0), vjp=vjp)


@attrs.frozen(kw_only=True, eq=False)
class WithoutDerivative(MatchedMoments):
    def twist(self, x, t):
        return super().twist(x, t)._replace(vjp=None)


def test_without_a_derivative_the_kernel_is_ddpms_or_refused():
    model = posterior(WithoutDerivative)
    assert torch.equal(
        SMC(steps=3).sample(model, 4), SMC(steps=3, kernel="ancestral").sample(posterior(MatchedMoments), 4)
    )
    with pytest.raises(TypeError, match="second-order' needs a twist that differentiates the network"):
        SMC(steps=3, kernel="second-order").sample(model, 4)


def test_a_prior_is_refused_and_so_are_impossible_data():
    with pytest.raises(TypeError, match="sampler 'smc' needs a posterior with a twist"):
        SMC(steps=3).sample(prior(), 4)

    class Impossible(MatchedMoments):
        def log_likelihood(self, x0):
            return torch.full((len(x0),), -math.inf, dtype=x0.dtype)

    with pytest.raises(ArithmeticError, match="weights of all particles are zero"):
        SMC(steps=3).sample(posterior(Impossible), 4)


def test_clouds_are_reproducible_and_depend_on_their_seed_alone():
    model, sampler = posterior(), SMC(steps=6, resample_below=1.0)
    first = sampler.sample(model, 8, seed=3)
    assert torch.equal(first, sampler.sample(model, 8, seed=3))
    assert not torch.isin(first, sampler.sample(model, 8, seed=4)).any()


def test_a_corrector_moves_the_particles_and_keeps_the_law():
    """MALA with the exact density of p_t psi_t, after every step: the posterior stays where it was."""
    mala = registry.get_sampler("mala", moves=2)
    plain = SMC(steps=20, resample_below=1.0, rho=7.0)
    n, model = 4000, posterior()
    a, b = (run(s, model, n).x.flatten() for s in (plain, attrs.evolve(plain, corrector=mala)))

    assert not torch.allclose(a, b)
    deviation = float(a.std())
    assert float(b.mean()) == pytest.approx(float(a.mean()), abs=SIGMAS * deviation * math.sqrt(2 / (0.3 * n)))
    assert float(b.var()) == pytest.approx(float(a.var()), rel=SIGMAS * math.sqrt(4 / (0.3 * n)))


# Resampling


@pytest.mark.parametrize("u", [0.0, 0.37, 0.999])
def test_systematic_resampling_rounds_the_expected_number_of_children(u):
    weights = torch.tensor([0.31, 0.07, 0.0, 0.42, 0.2]).double()
    points = (torch.arange(5) + u) / 5
    children = torch.bincount(offspring(weights, points), minlength=5)
    assert ((children - 5 * weights).abs() < 1).all()
    assert children[2] == 0


def test_resampling_keeps_the_mean():
    """The expected number of children is K W: systematic to the quadrature of u, multinomial up to chance."""
    rng = np.random.default_rng(0)
    weights = torch.from_numpy(rng.dirichlet(np.ones(7)))
    systematic = sum(
        torch.bincount(offspring(weights, (torch.arange(7) + (i + 0.5) / 4000) / 7), minlength=7) for i in range(4000)
    )
    torch.testing.assert_close(systematic / torch.tensor(4000.0).double(), 7 * weights, rtol=0, atol=1e-3)
    n = 70_000
    multinomial = torch.bincount(offspring(weights, torch.from_numpy(rng.random(n))), minlength=7)
    allowed = SIGMAS * (n * weights * (1 - weights)).sqrt()
    assert ((multinomial - n * weights).abs() <= allowed).all()


def test_the_curve_visits_every_cell_and_neighbours_are_neighbours():
    side = 2**BITS
    i, j = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    i, j = i.flatten(), j.flatten()
    order = _distance_along(i, j).argsort()
    assert torch.equal(_distance_along(i, j).sort().values, torch.arange(side * side))
    hops = i[order].diff().abs() + j[order].diff().abs()
    assert (hops == 1).all()


def test_the_order_keeps_clusters_together():
    """Three clusters in eight dimensions: a few stretches of the curve each; by chance 199 neighbours would differ."""
    noise = Noise(0, range(300), dtype=torch.float64, device=torch.device("cpu"))
    centres = torch.tensor([[0.0] * 8, [9.0] * 8, [-9.0, 9.0] * 4]).double()
    which = torch.arange(300) % 3
    x = centres[which] + 0.1 * noise.at("z").normal((8,))
    labels = which[along_a_curve(x)]
    assert int((labels.diff() != 0).sum()) <= 10


def test_the_mixture_problems_evidence_is_found():
    """Second-order twist and kernel, 500 particles, 100 steps: a single error is about .07 nats."""
    errors = []
    for seed in range(5):
        problem = registry.get_problem("gaussian-mixture", dimension=8, measured=2, seed=seed)
        model = registry.get_conditioner("mmps").condition(problem.prior, problem.measurement)
        state = run(SMC(), model, 500, seed)
        errors.append(float(state.carry.log_evidence) - problem.log_evidence)
    assert abs(np.mean(errors)) < SIGMAS * 0.07 / math.sqrt(5)
    assert np.std(errors) < 0.15
