"""Decoupled samplers: each turn is the papers', and on a Gaussian the law is that of the closed forms."""

import itertools
import math

import attrs
import pytest
import torch

from scoreplug import Measurement, Noise, WrappedModel, registry, simulate
from scoreplug.operator import from_function, with_dense_svd
from scoreplug.param import ParameterError
from scoreplug.run.cost import Cost, counted_model
from scoreplug.sampler import time_grid
from scoreplug.testing import affine_moments
from scoreplug_builtin.conditioners.diffpir import DiffPIR
from scoreplug_builtin.samplers.decoupled import Decoupled, grid_below

S, GAIN, SIGMA_Y, Y = 1.7, 0.8, 0.6, 1.3
SHAPE = (1, 2, 3)
FORMS = ["daps", "mean", "split-gibbs"]
CPU = torch.device("cpu")
EXACT_FLOW = {"name": "ode", "method": "rk4", "steps": 3, "grid": "uniform"}


def scalar(sde, gain=GAIN):
    prior = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=S, sde=sde)
    A = with_dense_svd(from_function(lambda x: gain * x, (1, 1, 1), linear=True))
    return DiffPIR().condition(prior, Measurement(A, torch.full((1, 1, 1), Y, dtype=torch.float64), SIGMA_Y))


def geometric():
    """Uniform steps are geometric levels from 100 to 1e-4."""
    return registry.get_sde("ve", sigma_min=1e-4, sigma_max=100.0, t_min=1e-12)


def mixture(sde="vp"):
    i = torch.arange(6, dtype=torch.float64)
    means = torch.stack([0.5 * (i + 1).sin(), 0.3 - 0.8 * (i + 1).cos()])
    return registry.get_model("gaussian-mixture", image_shape=SHAPE, means=means, covariances=0.2, sde=sde)


def posterior_of(prior, linear=True):
    rows = ((1.0, 0.5, 0.0, 0.2, 0.0, -0.4), (0.0, 1.0, -0.3, 0.0, 0.7, 0.0))
    A = registry.get_operator("matrix", image_shape=SHAPE, matrix=rows)
    if not linear:
        A = from_function(lambda x: (x + 0.1 * x**2)[..., :2], SHAPE)
    image = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(SHAPE)
    return DiffPIR(moves=5).condition(prior, simulate(A, image, 0.2))


def source(samples=(0, 1, 2)):
    return Noise(5, samples, dtype=torch.float64, device=CPU)


# One turn.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sde", ["vp", "ve", "flow"])
def test_a_step_is_an_estimate_a_refinement_and_new_noise(sde, form):
    model = posterior_of(mixture(sde))
    sampler = Decoupled(form=form, steps=5, inner={"name": "ancestral", "steps": 3, "grid": "rho"})
    noise = source()
    state = attrs.evolve(sampler.init(model, noise.at("x").normal(SHAPE), noise), index=2)

    found = sampler.step(model, state, noise.at("step"))

    t, s, here = state.t, state.s, noise.at("step")
    if form == "mean":
        x0 = model.prior.denoise(state.x, t)
    else:  # three DDPM transitions down from t, and the estimate at the end
        x0, inside = state.x, here.at("inner")
        times = grid_below(sampler.inner, model.sde, t)
        for k, (a, b) in enumerate(itertools.pairwise(times)):
            x0 = sampler.inner.transition(model.prior, x0, a, b, inside.at("step", k)).x
        x0 = model.prior.denoise(x0, times[-1])
    if form == "split-gibbs":
        expected = model.sde.alpha(s) * model.refine(x0, s, here.at("refine"))
    else:
        refined = model.refine(x0, t, here.at("refine"))
        expected = model.sde.alpha(s) * refined + model.sde.sigma(s) * here.at("z").normal(SHAPE)
    torch.testing.assert_close(found.x, expected, rtol=1e-12, atol=1e-12)
    assert found.index == 3


@pytest.mark.parametrize("form", FORMS)
def test_the_samples_are_the_last_estimate_without_refinement(form):
    """Or, on request, the last state."""
    model, noise = posterior_of(mixture()), source()
    sampler = Decoupled(form=form, steps=3)
    state = attrs.evolve(sampler.init(model, noise.at("x").normal(SHAPE), noise), index=3)

    end = sampler.finish(model, state, noise.at("finish"))

    torch.testing.assert_close(end.x, sampler.estimated(model.prior, state, noise.at("finish", "inner")))
    assert attrs.evolve(sampler, final="sample").finish(model, state, noise) is state


@pytest.mark.parametrize("grid", ["uniform", "quadratic", "rho"])
@pytest.mark.parametrize("sde_name", ["vp", "ve", "edm", "flow", "ddpm", "cosine"])
def test_an_inner_sampler_makes_its_own_grid_below_the_level(sde_name, grid):
    sde, steps = registry.get_sde(sde_name), 6
    inner = registry.get_sampler("ancestral", steps=steps, grid=grid)
    start, stop = torch.tensor([0.6, sde.t_min], dtype=torch.float64)

    times = grid_below(inner, sde, start)

    r = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if grid == "uniform":
        expected = torch.lerp(start, stop, r)
    elif grid == "quadratic":
        expected = torch.lerp(start.sqrt(), stop.sqrt(), r) ** 2
    else:
        root = (sde.level(torch.stack([start, stop]))) ** (1 / 7)
        expected = sde.time_of(torch.lerp(root[0], root[1], r) ** 7)
    # a process without closed form inverts its levels by bisection, to the spacing of float64 at 1
    torch.testing.assert_close(times, expected, rtol=1e-7, atol=1e-12)
    assert float(times[0]) == 0.6
    assert float(times[-1]) >= sde.t_min
    assert torch.equal(grid_below(inner, sde, stop), stop[None])
    whole = grid_below(inner, sde, torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(whole, time_grid(sde, steps, grid), rtol=1e-12, atol=1e-15)


def test_the_levels_fall_to_the_last_one_and_stay():
    model = posterior_of(mixture("ve"))
    sampler = Decoupled(form="mean", steps=4, level_min=0.3, hold=2)

    times = sampler.init(model, torch.zeros(1, *SHAPE, dtype=torch.float64), source()).times

    levels = model.sde.level(times)
    roots = [50.0 ** (1 / 7) + k / 4 * (0.3 ** (1 / 7) - 50.0 ** (1 / 7)) for k in range(5)]
    assert levels[:5].tolist() == pytest.approx([root**7 for root in roots], rel=1e-9)
    torch.testing.assert_close(levels[4:], torch.full((3,), 0.3, dtype=torch.float64))
    below = Decoupled(steps=4, level_min=1e-9).init(model, torch.zeros(1, *SHAPE, dtype=torch.float64), source()).times
    assert float(below[-1]) == model.sde.t_min  # there is nothing below


# The law on a Gaussian, without Monte Carlo error.


def recursion(form, levels):
    """Mean and variance of the samples in the scalar problem under a VE process, with the exact flow for the inner
    sampler of "daps", the exact conditional for that of "split-gibbs"."""

    def estimate(M, V, level):
        """x0 = d x + noise of variance C."""
        d = math.sqrt(S / (S + level**2)) if form == "daps" else S / (S + level**2)
        C = S * level**2 / (S + level**2) if form == "split-gibbs" else 0.0
        return d * M, d**2 * V + C

    def refine(M, V, level):
        """Conditioning N(x0, level^2) on y: v = (1 - K a) x0 + K y, and a draw of what is left."""
        K = level**2 * GAIN / (SIGMA_Y**2 + GAIN**2 * level**2)
        return (1 - K * GAIN) * M + K * Y, (1 - K * GAIN) ** 2 * V + (1 - K * GAIN) * level**2

    M, V = 0.0, levels[0] ** 2
    for t, s in itertools.pairwise(levels):
        M, V = refine(*estimate(M, V, t), s if form == "split-gibbs" else t)
        V += 0.0 if form == "split-gibbs" else s**2
    return estimate(M, V, levels[-1])


@pytest.mark.parametrize(
    ("form", "inner", "tolerance"),
    [
        ("mean", None, 1e-8),  # nothing is approximated
        ("daps", {**EXACT_FLOW, "steps": 12}, 1e-3),  # rk4 in twelve steps from level 100 on
        ("split-gibbs", {"name": "dpm-solver", "eta": 1.0, "steps": 60}, 1e-2),  # 1 / 60^2, at six levels
    ],
    ids=FORMS[1:2] + FORMS[:1] + FORMS[2:],
)
def test_moments_on_a_gaussian_follow_the_methods_own_recursion(form, inner, tolerance):
    sde = registry.get_sde("ve", sigma_min=1e-3, sigma_max=100.0)
    sampler = Decoupled(form=form, steps=5, inner=inner, grid="uniform", level_min=0.05, hold=1)
    model = scalar(sde)

    mean, variance = affine_moments(sampler, model)

    times = sampler.init(model, torch.zeros(1, 1, 1, 1, dtype=torch.float64), source()).times
    expected = recursion(form, sde.sigma(times).tolist())
    assert (float(mean), float(variance)) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(
    ("form", "mean", "variance"), [("mean", 1.22099, 0.42265), ("daps", 1.39432, 0.48265)], ids=["mean", "daps"]
)
def test_many_levels_give_the_closed_form(form, mean, variance):
    """With x0 = E[x_0 | x_t] the posterior; with the end of the flow that of a prior of variance 2 S."""
    levels = [100 * 1e-6 ** (k / 50_000) for k in range(50_001)]

    found = recursion(form, levels)

    assert found == pytest.approx((mean, variance), abs=2e-4)  # of first order: .0025 with 800 levels
    V = S if form == "mean" else 2 * S
    k = GAIN**2 * V / SIGMA_Y**2
    assert (mean, variance) == pytest.approx((Y / GAIN * k / (1 + k), V / (1 + k)), abs=1e-5)


@pytest.mark.parametrize("level", [0.3, 1.0])
def test_a_held_level_of_the_split_gibbs_sampler_has_the_posterior_of_noisier_data(level):
    """x0 has the posterior for noise of variance sigma_y^2 + a^2 rho^2."""
    inner = {"name": "dpm-solver", "eta": 1.0, "steps": 40}
    sampler = Decoupled(form="split-gibbs", steps=3, hold=35, level_min=level, grid="uniform", inner=inner)

    mean, variance = affine_moments(sampler, scalar(registry.get_sde("ve")))

    k = GAIN**2 * S / (SIGMA_Y**2 + GAIN**2 * level**2)
    # a turn at level .3 leaves .82 of the distance to the fixed point, 35 turns 1e-3; the inner solver is of second
    # order, 2e-3 off with 40 steps
    assert float(mean) == pytest.approx(Y / GAIN * k / (1 + k), rel=2e-3)
    assert float(variance) == pytest.approx(S / (1 + k), rel=5e-3)


@pytest.mark.parametrize(("form", "expected"), [("mean", S), ("daps", 2 * S)])
def test_without_data_the_flow_counts_the_priors_spread_twice(form, expected):
    """A = 0: refinement adds r^2 to an estimate that either lacks its spread or has it."""
    model = scalar(registry.get_sde("ve", sigma_min=1e-2, sigma_max=30.0), gain=0.0)
    sampler = Decoupled(form=form, steps=120, grid="uniform", level_min=None, inner=EXACT_FLOW)

    _, variance = affine_moments(sampler, model)

    # of first order in the ratio of two levels, 1.07
    assert float(variance) == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sde", ["vp", "ve"])
def test_the_documented_defaults_are_near_their_limits(sde, form):
    mean, variance = affine_moments(Decoupled(form=form, steps=60), scalar(registry.get_sde(sde)))

    limit = {"mean": (1.22099, 0.42265), "daps": (1.39432, 0.48265), "split-gibbs": (1.22099, 0.42265)}[form]
    # 60 levels down to .1, and five Euler steps
    assert (float(mean), float(variance)) == pytest.approx(limit, rel=0.15)


# What holds for every run.


@pytest.mark.parametrize("linear", [True, False], ids=["linear", "nonlinear"])
@pytest.mark.parametrize("form", FORMS)
def test_a_sample_does_not_depend_on_its_batch_mates(form, linear):
    model, sampler = posterior_of(mixture(), linear), Decoupled(form=form, steps=4)

    five = sampler.sample(model, 5, seed=2)

    *_, alone = sampler.trajectory(model, Noise(2, (3,), dtype=torch.float64, device=CPU))
    torch.testing.assert_close(alone.x, five[3:4], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(sampler.sample(model, 2, seed=2), five[:2], rtol=1e-9, atol=1e-10)
    assert not torch.allclose(five[0], five[1])


@pytest.mark.parametrize("form", FORMS)
def test_a_step_is_pure(form):
    model, sampler, noise = posterior_of(mixture()), Decoupled(form=form, steps=4), source()
    x = noise.at("x").normal(SHAPE)
    state, kept = sampler.init(model, x, noise), x.clone()

    first, again = sampler.step(model, state, noise), sampler.step(model, state, noise)

    assert torch.equal(first.x, again.x)
    assert torch.equal(x, kept)
    assert torch.equal(model.measurement.data, posterior_of(mixture()).measurement.data)
    other = sampler.step(model, state, attrs.evolve(noise, seed=6))
    assert not torch.equal(first.x, other.x)


@pytest.mark.parametrize(
    ("form", "inner", "evaluations"),
    [("mean", None, 1), ("daps", None, 5), ("split-gibbs", None, 11), ("daps", {"name": "em", "steps": 2}, 3)],
)
def test_a_turn_costs_what_the_inner_sampler_does(form, inner, evaluations):
    cost = Cost()
    model = posterior_of(counted_model(mixture(), cost))

    Decoupled(form=form, steps=4, inner=inner).sample(model, 3)

    assert cost.evaluation_calls == 5 * evaluations  # four levels and the end
    assert cost.evaluations == 3 * cost.evaluation_calls
    assert cost.vjps == 0


def test_no_graph_is_built():
    seen, prior = [], mixture()

    @attrs.frozen(kw_only=True, eq=False)
    class Watched(WrappedModel):
        base: object = prior

        def denoise(self, x, t):
            seen.append(torch.is_grad_enabled())
            return prior.denoise(x, t)

    for form in FORMS:
        x = Decoupled(form=form, steps=2).sample(posterior_of(Watched(), linear=False), 1)
        assert not x.requires_grad

    assert seen
    assert not any(seen)


@pytest.mark.parametrize("form", FORMS)
def test_the_process_does_not_matter(form):
    """The same levels and draws give the same x_0: the inner sampler's grid is made of levels, too."""
    results = []
    for name in ("vp", "ve", "flow"):
        sde = registry.get_sde(name)
        t_min = float(sde.time_of(torch.tensor(0.02, dtype=torch.float64)))
        model = posterior_of(mixture("vp")).under(registry.get_sde(name, t_min=t_min))
        sampler, noise = Decoupled(form=form, steps=4), source()
        levels = torch.tensor([10.0, 2.0, 0.5, 0.1], dtype=torch.float64)
        times = model.sde.time_of(levels)
        xbar = 10 * noise.at("x").normal(SHAPE)
        state = sampler.init(model, model.sde.alpha(times[0]) * xbar, noise)
        state = attrs.evolve(state, times=times)
        while not state.last:
            state = sampler.step(model, state, noise.at("step", state.index))
        results.append(sampler.finish(model, state, noise.at("finish")).x)

    # bisection for time_of, to 1e-16 of t, through five levels
    torch.testing.assert_close(results[1], results[0], rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(results[2], results[0], rtol=1e-7, atol=1e-8)


def test_what_it_cannot_do_is_refused_with_what_to_use():
    with pytest.raises(TypeError, match=r"'decoupled' needs a posterior that refines .*use a conditioner .*'diffpir'"):
        Decoupled(steps=2).sample(mixture(), 1)
    with pytest.raises(ValueError, match="level_min = 60 is above the largest noise level of VE"):
        Decoupled(steps=2, level_min=60.0).sample(posterior_of(mixture("ve")), 1)
    with pytest.raises(ParameterError, match="inner must be built on BaseSampler"):
        Decoupled(inner=object())
