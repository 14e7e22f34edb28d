"""Time travel: its journey is the published one, going up keeps the law, and repeats lessen the bias of replacement."""

import itertools
import math
from typing import NamedTuple

import attrs
import pytest
import torch

from scoreplug import Measurement, Noise, registry, simulate
from scoreplug.run.cost import Cost, counted_model
from scoreplug.sampler import BaseSampler
from scoreplug.testing import affine_moments
from scoreplug_builtin.conditioners.ddnm import DDNM
from scoreplug_builtin.samplers.time_travel import TimeTravel, raised

MEAN, VARIANCE = 0.7, 1.7
SHAPE = (1, 2, 3)
CPU = torch.device("cpu")
FRESH = {"name": "ancestral", "noise": "fresh", "eta": 0.85}


def gaussian(sde="vp"):
    return registry.get_model("gaussian", image_shape=(1, 1, 1), mean=MEAN, covariance=VARIANCE, sde=sde)


def mixture(sde="vp"):
    i = torch.arange(6, dtype=torch.float64)
    means = torch.stack([0.5 * (i + 1).sin(), 0.3 - 0.8 * (i + 1).cos()])
    return registry.get_model("gaussian-mixture", image_shape=SHAPE, means=means, covariances=0.2, sde=sde)


def replaced(prior):
    """With the measured pixels replaced after every update."""
    A = registry.get_operator("inpainting", image_shape=SHAPE, mask="random", fraction=0.5)
    image = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(SHAPE)
    return registry.get_conditioner("song").condition(prior, simulate(A, image, 0.0))


def source(samples=(0, 1, 2)):
    return Noise(5, samples, dtype=torch.float64, device=CPU)


@pytest.mark.parametrize(
    ("steps", "jump", "repeats", "journey"),
    [
        (3, 1, 2, [0, 1, 0, 1, 2, 1, 2, 3, 2, 3]),
        (4, 2, 2, [0, 1, 2, 0, 1, 2, 3, 4, 2, 3, 4]),
        (3, 2, 3, [0, 1, 0, 1, 0, 1, 2, 3, 1, 2, 3, 1, 2, 3]),  # stretches end at t_min: the first one is short
        (2, 10, 2, [0, 1, 2, 0, 1, 2]),
        (4, 2, 1, [0, 1, 2, 3, 4]),
    ],
)
def test_every_stretch_is_walked_down_as_often_as_asked(steps, jump, repeats, journey):
    sampler = TimeTravel(steps=steps, jump=jump, repeats=repeats)
    grid = sampler.times(registry.get_sde("vp"))

    assert torch.equal(sampler.travelled(grid), grid[journey])
    state = sampler.init(mixture(), torch.zeros(1, *SHAPE, dtype=torch.float64), source())
    assert torch.equal(state.times, grid[journey])


@pytest.mark.parametrize("sde_name", ["vp", "ve", "subvp", "flow"])
def test_going_up_is_the_forward_process(sde_name):
    """From N(m, V) at a level it makes p_t of the higher one: alpha m and alpha^2 V + sigma^2."""
    model = gaussian(sde_name)
    t, s = torch.tensor([0.7, 0.3], dtype=torch.float64)
    sampler = TimeTravel(steps=1)
    state = attrs.evolve(
        sampler.init(model, torch.zeros(1, 1, 1, 1, dtype=torch.float64), source()), times=torch.stack([s, t])
    )
    at = [model.sde.alpha(s) * MEAN, model.sde.alpha(s) * MEAN + 1.0]

    class Fixed(Noise):
        def normal(self, shape):
            return torch.full((1, *shape), float(self.seed), dtype=torch.float64)

    images = [
        float(raised(model, attrs.evolve(state, x=x.reshape(1, 1, 1, 1)), Fixed(z, (0,), dtype=x.dtype, device=CPU)))
        for x, z in ((at[0], 0), (at[1], 0), (at[0], 1))
    ]

    P = model.sde.alpha(s) ** 2 * VARIANCE + model.sde.sigma(s) ** 2
    L, n = images[1] - images[0], images[2] - images[0]
    assert images[0] == pytest.approx(float(model.sde.alpha(t)) * MEAN, rel=1e-12)
    assert L**2 * float(P) + n**2 == pytest.approx(float(model.sde.alpha(t) ** 2 * VARIANCE + model.sde.sigma(t) ** 2))


@pytest.mark.parametrize("jump", [1, 2])
@pytest.mark.parametrize("sde_name", ["vp", "ve"])
def test_moments_equal_the_samplers_own_recursion(sde_name, jump):
    """DDPM down, the forward kernel up."""
    sde, model = registry.get_sde(sde_name), gaussian(sde_name)
    sampler = TimeTravel(steps=5, repeats=3, jump=jump)

    mean, variance = affine_moments(sampler, model)

    M, V = 0.0, sde.prior_std**2
    journey = sampler.travelled(sampler.times(sde))
    for t, s in itertools.pairwise(journey):
        a_t, s_t, a_s, s_s = (float(f(u)) for u in (t, s) for f in (sde.alpha, sde.sigma))
        if s > t:
            M, V = a_s / a_t * M, (a_s / a_t) ** 2 * V + s_s**2 - (a_s / a_t * s_t) ** 2
            continue
        c2 = s_s**2 * (1 - (a_t * s_s / (a_s * s_t)) ** 2)
        d = a_t * VARIANCE / (a_t**2 * VARIANCE + s_t**2)
        shrink = math.sqrt(s_s**2 - c2) / s_t
        L = a_s * d + shrink * (1 - a_t * d)
        M, V = a_s * MEAN + L * (M - a_t * MEAN), L**2 * V + c2
    a, s = float(sde.alpha(journey[-1])), float(sde.sigma(journey[-1]))
    d = a * VARIANCE / (a**2 * VARIANCE + s**2)
    assert float(mean) == pytest.approx(MEAN + d * (M - a * MEAN), rel=1e-8)
    assert float(variance) == pytest.approx(d**2 * V, rel=1e-8)


def test_many_steps_keep_the_law_however_often_they_are_repeated():
    """The bias stays of first order in the step."""
    errors = {}
    for steps in (50, 100):
        for repeats in (1, 4):
            sampler = TimeTravel(steps=steps, repeats=repeats, jump=5, grid="rho")
            errors[steps, repeats] = float(affine_moments(sampler, gaussian("ve"))[1]) / VARIANCE - 1

    # -.16 and -.17 of the variance for 50 steps; half of it for 100, up to the second order
    for repeats in (1, 4):
        assert errors[50, repeats] / errors[100, repeats] == pytest.approx(2, abs=0.4)
    assert abs(errors[100, 4]) < 2 * abs(errors[100, 1])


def correlated(conditioner):
    """Two unit normal variables of correlation .5; x_1 = 1 without noise."""
    prior = registry.get_model("gaussian", image_shape=(1, 1, 2), covariance=((1.0, 0.5), (0.5, 1.0)), sde="ve")
    A = registry.get_operator("matrix", image_shape=(1, 1, 2), matrix=((1.0, 0.0),))
    return conditioner.condition(prior, Measurement(A, torch.ones(1, dtype=torch.float64), 0.0))


@pytest.mark.parametrize(
    ("method", "inner", "jump", "expected"),
    [
        ("song", "ancestral", 1, [0.2605, 0.3446, 0.4255]),
        ("song", "ancestral", 10, [0.2605, 0.3373, 0.4110]),
        ("ddnm", FRESH, 1, [0.4367, 0.4644, 0.4841]),
    ],
    ids=["song-1", "song-10", "ddnm-1"],
)
def test_the_bias_of_projection_shrinks_with_the_repeats(method, inner, jump, expected):
    """x_2 has the mean .5 given x_1; replacement alone gives .268 in the limit. The docstring's numbers."""
    posterior = correlated(DDNM() if method == "ddnm" else registry.get_conditioner("song"))

    means = [
        float(affine_moments(TimeTravel(steps=100, grid="rho", inner=inner, repeats=r, jump=jump), posterior)[0][1])
        for r in (1, 2, 5)
    ]

    assert means == pytest.approx(expected, abs=6e-5)  # four decimals
    assert means == sorted(means)
    assert means[-1] < 0.5


@pytest.mark.parametrize("inner", ["ancestral", "pc", "dpm-solver", "ode", "langevin"])
def test_once_is_the_inner_sampler(inner):
    sampler = TimeTravel(steps=6, repeats=1, jump=2, inner=inner)
    alone = registry.get_sampler(inner, steps=6, grid="uniform")
    model = replaced(mixture())

    assert torch.equal(sampler.sample(model, 2), alone.sample(model, 2))


class Count(NamedTuple):
    """How many steps the sampler has taken since it began."""

    steps: int


@attrs.frozen(kw_only=True)
class Counting(BaseSampler):
    """Stays where it is, and counts."""

    def init(self, model, x, noise):
        return attrs.evolve(super().init(model, x, noise), carry=Count(0))

    def step(self, model, state, noise):
        return state.next(state.x, carry=Count(state.carry.steps + 1))


def test_a_history_begins_anew_after_a_jump():
    sampler = TimeTravel(steps=4, repeats=2, jump=2, inner=Counting())

    states = list(sampler.trajectory(mixture(), source()))

    assert [state.carry.steps for state in states[:-1]] == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2]


@pytest.mark.parametrize("inner", ["ancestral", "pc", FRESH], ids=["ancestral", "pc", "fresh"])
def test_exact_data_are_met_after_any_journey(inner):
    model = replaced(mixture())

    x = TimeTravel(steps=4, repeats=2, jump=2, inner=inner).sample(model, 2)

    y = model.measurement.data
    assert float((model.measurement.operator(x) - y).norm()) <= 1e-10 * float(y.norm())


@pytest.mark.parametrize(("inner", "per_step"), [("ancestral", 1), ("pc", 2)])
@pytest.mark.parametrize("jump", [1, 3])
def test_the_cost_is_that_of_the_inner_sampler_for_each_repeat(jump, inner, per_step):
    cost = Cost()
    model = replaced(counted_model(mixture(), cost))

    TimeTravel(steps=6, repeats=4, jump=jump, inner=inner).sample(model, 3)

    assert cost.evaluation_calls == 6 * 4 * per_step + 1  # going up is free
    assert cost.evaluations == 3 * cost.evaluation_calls
    assert cost.vjps == 0


@pytest.mark.parametrize("inner", ["ancestral", "pc", "dpm-solver"])
def test_a_sample_does_not_depend_on_its_batch_mates(inner):
    model, sampler = replaced(mixture()), TimeTravel(steps=4, repeats=3, jump=2, inner=inner)

    five = sampler.sample(model, 5, seed=2)

    *_, alone = sampler.trajectory(model, Noise(2, (3,), dtype=torch.float64, device=CPU))
    torch.testing.assert_close(alone.x, five[3:4], rtol=1e-10, atol=1e-11)
    assert not torch.allclose(five[0], five[1])


@pytest.mark.parametrize("index", [0, 2], ids=["down", "up"])
def test_a_step_is_pure(index):
    model, sampler, noise = replaced(mixture()), TimeTravel(steps=4, repeats=2, jump=2), source()
    x = noise.at("x").normal(SHAPE)
    state, kept = attrs.evolve(sampler.init(model, x, noise), index=index), x.clone()

    first = sampler.step(model, state, noise).x

    assert torch.equal(first, sampler.step(model, state, noise).x)
    assert torch.equal(x, kept)
    assert not torch.equal(first, sampler.step(model, state, attrs.evolve(noise, seed=6)).x)


@pytest.mark.parametrize("sde_name", ["ve", "flow"])
def test_the_process_does_not_matter(sde_name):
    """The journey through the same levels, with the same draws, gives the same x_0."""
    levels, results = torch.tensor([20.0, 2.0, 0.5, 0.1], dtype=torch.float64), []
    sampler, noise = TimeTravel(steps=3, repeats=2, jump=1), source()
    for name in ("vp", sde_name):
        model = replaced(mixture("vp")).under(registry.get_sde(name))
        times = sampler.travelled(model.sde.time_of(levels))
        x = model.sde.alpha(times[0]) * 20 * noise.at("x").normal(SHAPE)
        state = attrs.evolve(sampler.init(model, x, noise), times=times)
        while not state.last:
            state = sampler.step(model, state, noise.at("step", state.index))
        results.append(sampler.finish(model, state, noise.at("finish")).x)

    torch.testing.assert_close(results[1], results[0], rtol=1e-8, atol=1e-8)
