"""ode: its tables, its steps against hand-written ones, what it evaluates, and what a projection may rely on."""

import itertools
import math

import attrs
import pytest
import torch
from scipy.integrate import solve_ivp

from scoreplug import BaseModel, Noise, registry, simulate
from scoreplug.sampler import DivergenceError
from scoreplug.testing import affine_moments
from scoreplug_builtin.samplers._runge_kutta import DORMAND_PRINCE, EULER, HEUN, RK4, integrate

SDES = [spec.name for spec in registry.list("sde")]
MEAN, VARIANCE = 0.7, 1.7


def gaussian(sde, shape=(1, 1, 1), **params):
    return registry.get_model("gaussian", image_shape=shape, mean=MEAN, covariance=VARIANCE, sde=sde, **params)


def mixture(sde):
    """Two modes and two pixels: a flow that is neither affine nor the same for all."""
    return registry.get_model(
        "gaussian-mixture", image_shape=(1, 1, 2), means=((-1.5, 0.0), (1.0, 2.0)), covariances=0.1, sde=sde
    )


def make_noise(samples=range(1), seed=0):
    return Noise(seed, samples, dtype=torch.float64, device=torch.device("cpu"))


def draw(sampler, model, samples, seed=0):
    *_, state = sampler.trajectory(model, make_noise(samples, seed))
    return state.x


@attrs.frozen(kw_only=True, eq=False)
class Wrapped(BaseModel):
    """A model that records what it is asked and told."""

    base: BaseModel
    shift: float = 0.0
    asked: list = attrs.field(factory=list)
    told: list = attrs.field(factory=list)

    sde = property(lambda self: self.base.sde)
    shape = property(lambda self: self.base.shape)
    dtype = property(lambda self: self.base.dtype)
    device = property(lambda self: self.base.device)

    def score(self, x, t):
        self.asked.append((x.clone(), t.expand(len(x)).clone()))
        return self.base.score(x, t) + self.shift

    def project(self, x, step):
        self.told.append(step)
        return x

    def points(self):
        """Every (x, t) of one sample that was asked, as hashable tuples."""
        return [(*row.flatten().tolist(), float(t)) for x, ts in self.asked for row, t in zip(x, ts, strict=True)]


@attrs.frozen(kw_only=True, eq=False)
class Moving(Wrapped):
    """Draws in its projection, as replacement and DDRM do."""

    def project(self, x, step):
        super().project(x, step)
        return x + 0.1 * self.sde.sigma(step.s) * step.noise.normal(self.shape)


# The tables.

TABLES = [("euler", EULER, 1), ("heun", HEUN, 2), ("rk4", RK4, 4), ("dormand-prince", DORMAND_PRINCE, 5)]


@pytest.mark.parametrize(("tableau", "order"), [row[1:] for row in TABLES], ids=[row[0] for row in TABLES])
def test_the_tables_fulfil_the_conditions_of_their_order(tableau, order):
    """sum_j a_ij = c_i, and sum_i b_i c_i^{q-1} = 1/q for q up to the order: polynomials are integrated exactly."""
    assert [sum(row) for row in tableau.a] == pytest.approx(tableau.c, abs=1e-14)
    for q in range(1, order + 1):
        assert sum(b * c ** (q - 1) for b, c in zip(tableau.b, tableau.c, strict=True)) == pytest.approx(1 / q)


def test_the_embedded_method_is_of_order_four_and_the_last_stage_is_the_next_ones_first():
    moments = [sum(e * c**q for e, c in zip(DORMAND_PRINCE.e, DORMAND_PRINCE.c, strict=True)) for q in range(5)]

    assert moments[:4] == pytest.approx([0] * 4, abs=1e-15)
    assert abs(moments[4]) > 1e-4
    assert (*DORMAND_PRINCE.a[-1], 0) == pytest.approx(DORMAND_PRINCE.b)


# The fixed steps, written anew for a scalar Gaussian: x0 = m + V / (V + l^2) (xbar - m) at level l.


def slope(xbar, level):
    return (xbar - (MEAN + VARIANCE / (VARIANCE + level**2) * (xbar - MEAN))) / level


def euler(x, t, s):
    return x + (s - t) * slope(x, t)


def heun(x, t, s):
    """Karras et al. 2022, algorithm 1."""
    d = slope(x, t)
    d_prime = slope(x + (s - t) * d, s)
    return x + (s - t) * (d / 2 + d_prime / 2)


def rk4(x, t, s):
    h = s - t
    k1 = slope(x, t)
    k2 = slope(x + h / 2 * k1, t + h / 2)
    k3 = slope(x + h / 2 * k2, t + h / 2)
    k4 = slope(x + h * k3, s)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def recursion(sde, times, method, *, churn=0.0, low=0.0, high=math.inf, inflate=1.0):
    """Mean and variance of xbar at the end, the churn being that of algorithm 2 of Karras et al. 2022."""
    levels = sde.level(times).tolist()
    mean, variance = 0.0, (sde.prior_std / float(sde.alpha(times[0]))) ** 2
    for t, s in itertools.pairwise(levels):
        gamma = min(churn / (len(levels) - 1), math.sqrt(2) - 1) if low <= t <= high else 0.0
        t_hat = min(t * (1 + gamma), levels[0])
        variance += (t_hat**2 - t**2) * inflate**2
        k = method(0.0, t_hat, s)
        L = method(1.0, t_hat, s) - k
        mean, variance = L * mean + k, L**2 * variance
    alpha = float(sde.alpha(times[-1]))
    return alpha * mean, alpha**2 * variance


@pytest.mark.parametrize("grid", ["uniform", "rho"])
@pytest.mark.parametrize("method", [euler, heun, rk4], ids=lambda m: m.__name__)
@pytest.mark.parametrize("sde_name", SDES)
def test_the_moments_are_those_of_the_hand_written_steps(sde_name, method, grid):
    sde = registry.get_sde(sde_name, t_min=1e-3)
    sampler = registry.get_sampler("ode", method=method.__name__, steps=7, grid=grid, final="sample")

    mean, variance = affine_moments(sampler, gaussian(sde))

    # a dozen float64 operations per step, and time_of's rounding in the levels between
    assert (float(mean), float(variance)) == pytest.approx(recursion(sde, sampler.times(sde), method), rel=1e-8)


@pytest.mark.parametrize("method", [euler, heun], ids=lambda m: m.__name__)
@pytest.mark.parametrize("sde_name", ["vp", "edm", "flow"])
@pytest.mark.parametrize(
    ("churn", "low", "high", "inflate"),
    [(2.0, 0.0, None, 1.0), (40.0, 0.05, 50.0, 1.003)],
    ids=["everywhere", "imagenet-64"],
)
def test_the_churned_moments_are_those_of_algorithm_2(sde_name, method, churn, low, high, inflate):
    sde = registry.get_sde(sde_name)
    params = {"churn": churn, "churn_min": low, "churn_max": high, "churn_noise": inflate}
    sampler = registry.get_sampler("ode", method=method.__name__, steps=9, final="sample", **params)

    mean, variance = affine_moments(sampler, gaussian(sde))

    expected = recursion(
        sde, sampler.times(sde), method, churn=churn, low=low, high=math.inf if high is None else high, inflate=inflate
    )
    assert (float(mean), float(variance)) == pytest.approx(expected, rel=1e-8)  # float64, as above


def test_churn_outside_its_range_does_nothing_and_never_leaves_the_process():
    model, plain = Wrapped(base=mixture("vp")), registry.get_sampler("ode", steps=6)

    churned = attrs.evolve(plain, churn=1e3)
    outside = attrs.evolve(churned, churn_min=1e6)

    assert torch.equal(draw(outside, model, range(2)), draw(plain, model, range(2)))
    model.asked.clear()
    assert not torch.allclose(draw(churned, model, range(2)), draw(plain, model, range(2)))
    assert max(float(t.max()) for _, t in model.asked) <= 1 + 1e-12


@pytest.mark.parametrize("sde", SDES)
def test_eulers_step_is_deterministic_ddim(sde):
    options = {"steps": 8, "grid": "rho"}

    ours = registry.get_sampler("ode", method="euler", **options).sample(mixture(sde), 3)

    ddim = registry.get_sampler("ancestral", eta=0.0, **options).sample(mixture(sde), 3)
    torch.testing.assert_close(ours, ddim, rtol=1e-9, atol=1e-9)  # starts of size 1e2 over 8 steps in float64


@pytest.mark.parametrize("method", ["euler", "heun", "rk4", "rk45"])
def test_trajectories_are_the_same_under_every_process(method):
    """From the same xbar at level 3 to level .2: alpha appears nowhere in the equation."""
    ends = []
    for sde_name in SDES:
        model = mixture(sde_name)
        times = model.sde.time_of(torch.tensor([3.0, 1.0, 0.2], dtype=torch.float64))
        sampler, noise = registry.get_sampler("ode", method=method, steps=2), make_noise(range(3))
        x = model.sde.alpha(times[0]) * 3 * noise.at("x").normal(model.shape)
        state = attrs.evolve(sampler.init(model, x, noise), times=times)
        while not state.last:
            state = sampler.step(model, state, noise)
        ends.append(state.x / model.sde.alpha(state.t))

    for end in ends[1:]:
        # rounding; an accept decision of rk45 would have to lie within it to differ
        torch.testing.assert_close(end, ends[0], rtol=1e-8, atol=1e-8)


# What is evaluated.


@pytest.mark.parametrize(("method", "evaluations"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_a_step_costs_as_many_evaluations_as_the_method_has_stages(method, evaluations):
    model = Wrapped(base=mixture("vp"))

    draw(registry.get_sampler("ode", method=method, steps=5), model, range(3))

    assert len(model.asked) == 5 * evaluations + 1  # one for E[x_0 | x_t] at the end
    assert len(set(model.points())) == len(model.points())


def test_rk45_evaluates_no_point_twice_six_times_a_trial_and_only_samples_on_their_way():
    """The last stage is the first of the next step, also of the next interval, and the estimate at the end."""
    model, sampler = Wrapped(base=mixture("vp")), registry.get_sampler("ode", method="rk45", steps=4)

    *_, last, end = sampler.trajectory(model, make_noise(range(6)))

    assert len(set(model.points())) == len(model.points())
    assert [step.phase for step in model.told] == ["start", *["predict"] * 4, "finish"]
    # (x - level slope) / alpha at level .01 to .1 loses nothing but rounding
    torch.testing.assert_close(end.x, model.base.denoise(last.x, last.t), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.told[-1].x0, end.x, rtol=0, atol=0)
    assert (len(model.asked) - 1) % 6 == 0
    sizes = [len(x) for x, _ in model.asked]
    assert sizes[0] == 6
    assert min(sizes) < 6  # the others had arrived


def test_rk45_asks_again_where_a_projection_or_a_corrector_has_moved_x():
    steps = 3
    still, moving = Wrapped(base=mixture("vp")), Moving(base=mixture("vp"))
    sampler = registry.get_sampler("ode", method="rk45", steps=steps)

    draw(sampler, still, range(1))
    draw(sampler, moving, range(1))

    assert (len(still.asked) - 1) % 6 == 0
    assert (len(moving.asked) - 1) % 6 == steps  # each later interval's first stage, and the end's
    state = sampler.step(
        still, sampler.init(still, torch.ones(1, 1, 1, 2, dtype=torch.float64), make_noise()), make_noise()
    )
    moved = attrs.evolve(state, x=state.x + 0.1)
    fresh = attrs.evolve(moved, carry=None)
    assert torch.equal(sampler.step(still, moved, make_noise()).x, sampler.step(still, fresh, make_noise()).x)


@pytest.mark.parametrize("steps", [1, 4])
def test_rk45_agrees_with_an_independent_integration(steps):
    """scipy's DOP853 at 1e-12 on the mixture's flow, from three starts; the pair's own tolerance is 1e-6 a step."""
    model = mixture("edm")
    sampler = registry.get_sampler("ode", method="rk45", steps=steps, rtol=1e-6, atol=1e-6, final="sample")
    x, times = 80 * make_noise(range(3)).normal(model.shape), sampler.times(model.sde)
    state = sampler.init(model, x, make_noise(range(3)))

    while not state.last:
        state = sampler.step(model, state, make_noise(range(3)))

    def f(level, xbar):
        t = model.sde.time_of(torch.tensor(level, dtype=torch.float64))
        x0 = model.denoise(torch.from_numpy(xbar.copy()).reshape(1, 1, 1, 2), t)
        return (xbar - x0.flatten().numpy()) / level

    for i in range(3):
        solution = solve_ivp(
            f, model.sde.level(times[[0, -1]]).tolist(), x[i].flatten().numpy(), method="DOP853", rtol=1e-12, atol=1e-12
        )
        # some dozens of steps of error 1e-6 (1 + |xbar|) each; between modes the flow spreads them by a few
        torch.testing.assert_close(state.x[i].flatten(), torch.from_numpy(solution.y[:, -1].copy()), rtol=0, atol=2e-4)


def test_the_errors_measure_is_per_sample_and_per_pixel():
    """A sample of many pixels takes the steps of one of them, since the norm is a mean, and none of its mates."""
    model = Wrapped(base=gaussian("vp", shape=(1, 3, 3)))
    sampler = registry.get_sampler("ode", method="rk45", steps=1)

    easy, hard = torch.full((1, 1, 3, 3), 0.1, dtype=torch.float64), torch.full((1, 1, 3, 3), 30.0, dtype=torch.float64)
    alone = sampler.step(model, sampler.init(model, easy, make_noise()), make_noise()).x
    count = len(model.asked)
    model.asked.clear()
    both = sampler.step(
        model, sampler.init(model, torch.cat([easy, hard]), make_noise(range(2))), make_noise(range(2))
    ).x
    one = Wrapped(base=gaussian("vp"))
    sampler.step(one, sampler.init(one, easy[:, :, :1, :1], make_noise()), make_noise())

    assert torch.equal(both[:1], alone)
    assert sum(len(x) for x, _ in model.asked) > count + 6  # the other one was evaluated on its own account
    assert len(one.asked) == count


# What cannot be done is said.


@attrs.frozen(kw_only=True, eq=False)
class Jump(Wrapped):
    """x0 jumps at level 1: no step across it is accurate to 1e-12."""

    def denoise(self, x, t):
        return torch.where(self.sde.level(t).reshape(-1, 1, 1, 1) > 1, 0 * x, 1 + 0 * x)


def test_rk45_refuses_a_tolerance_that_cannot_be_kept():
    model = Jump(base=gaussian("vp"))
    sampler = registry.get_sampler("ode", method="rk45", steps=1, rtol=0.0, atol=1e-12)

    with pytest.raises(
        ArithmeticError, match=r"rk45 needs steps below 1e-10 of the interval, at noise level 1, to keep"
    ):
        sampler.sample(model, 2)


@attrs.frozen(kw_only=True, eq=False)
class Failing(Wrapped):
    """NaN for the second sample's values, which are negative, below a level."""

    below: float = 1.0

    def denoise(self, x, t):
        bad = (self.sde.level(t).reshape(-1, 1, 1, 1) < self.below) & (x < 0)
        return torch.where(bad, torch.nan, self.base.denoise(x, t))


@pytest.mark.parametrize("below", [1.0, 1e9], ids=["on-the-way", "from-the-start"])
def test_a_sample_that_becomes_nan_stops_rk45_and_is_named(below):
    model = Failing(base=gaussian("vp"), below=below)
    sampler = registry.get_sampler("ode", method="rk45", steps=3)
    starts = make_noise(range(8)).at("start").normal((1, 1, 1)).flatten()

    with pytest.raises(DivergenceError, match="became NaN or infinite in step") as caught:
        sampler.sample(model, 8)

    if below == 1e9:
        assert caught.value.samples == tuple((starts < 0).nonzero().flatten().tolist())


def test_a_trial_that_overflows_is_repeated_with_a_smaller_step():
    """dx / d level = x^3 from 1e3 at level 1, where a whole step is infinite; x = (x_1^-2 + 2 (1 - level))^{-1/2}."""
    one, x, asked = torch.ones((), dtype=torch.float64), torch.tensor([[1e3], [1.0]], dtype=torch.float64), []

    def f(x, level):
        del level
        asked.append(x)
        return x**3

    end, last = integrate(f, x, one, 0 * one, first=x**3, rtol=1e-6, atol=1e-6)

    assert not bool(asked[5][0].isfinite())
    torch.testing.assert_close(end, (2 + x**-2) ** -0.5, rtol=1e-4, atol=0)  # some dozens of steps of 1e-6
    torch.testing.assert_close(last, end**3, rtol=1e-12, atol=0)


# What a projection is told.


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize("method", ["euler", "heun", "rk4", "rk45"])
def test_the_gain_is_the_shift_per_unit_of_score_to_first_order_in_the_step(method, sde):
    """Twice smaller a step, twice smaller the relative difference; for Euler's there is none."""
    differences = []
    for ratio in (0.96, 0.98):
        model = Wrapped(base=gaussian(sde))
        level = 2.0 * torch.tensor([1.0, ratio], dtype=torch.float64)
        sampler = registry.get_sampler("ode", method=method, steps=1, rtol=1e-9, atol=1e-9)
        x = make_noise(range(2)).normal(model.shape)
        state = attrs.evolve(sampler.init(model, x, make_noise(range(2))), times=model.sde.time_of(level))
        plain = sampler.step(model, state, make_noise(range(2))).x
        shifted = sampler.step(attrs.evolve(model, shift=0.1), state, make_noise(range(2))).x
        differences.append(float(((shifted - plain) / 0.1 / model.told[0].gain - 1).abs().max()))
        torch.testing.assert_close(model.told[0].x0, model.denoise(x, state.t), rtol=1e-9, atol=1e-9)

    if method == "euler":
        assert max(differences) < 1e-8  # rounding over a shift of 1e-2
    else:
        assert differences[1] < 0.02  # the step is .02 of the level
        assert differences[0] / differences[1] == pytest.approx(2, rel=0.05)  # and the next term .04 of it


@pytest.mark.parametrize("method", ["heun", "rk45"])
def test_a_projection_comes_once_a_step_with_noise_that_its_substeps_do_not_touch(method):
    model, sampler = Moving(base=mixture("vp")), registry.get_sampler("ode", method=method, steps=4)

    first = draw(sampler, model, range(8), seed=3)

    assert [step.phase for step in model.told] == ["start", *["predict"] * 4, "finish"]
    paths = [step.noise.path for step in model.told]
    assert len(set(paths)) == 6
    finer = attrs.evolve(sampler, rtol=1e-8, atol=1e-8)  # more substeps, the same draws
    model.told.clear()
    draw(finer, model, range(8), seed=3)
    assert [step.noise.path for step in model.told] == paths
    assert torch.equal(draw(sampler, model, range(8), seed=3), first)
    assert not torch.allclose(draw(sampler, model, range(8), seed=4), first)


@pytest.mark.parametrize("conditioner", ["song", "ddrm"])
def test_rk45_with_a_projection_that_draws_gives_a_sample_alone_as_among_eight(conditioner):
    prior = gaussian("vp", shape=(1, 4, 4), precision="float64")
    operator = registry.get_operator("inpainting", image_shape=prior.shape)
    measurement = simulate(operator, torch.full(prior.shape, 0.5, dtype=torch.float64), 0.1)
    model = registry.get_conditioner(conditioner).condition(prior, measurement)
    sampler = registry.get_sampler("ode", method="rk45", steps=6)

    eight = draw(sampler, model, range(8), seed=2)

    assert torch.equal(draw(sampler, model, range(8), seed=2), eight)
    for i in (0, 5):  # up to the rounding of sums over another batch shape
        torch.testing.assert_close(draw(sampler, model, (i,), seed=2), eight[i : i + 1], rtol=0, atol=1e-10)


def test_float32_stays_float32():
    """rk45's bookkeeping is in float64; its samples are not."""
    model = registry.get_model("gaussian", image_shape=(1, 2, 2), sde="vp", precision="float32")

    for method in ("heun", "rk45"):
        x = registry.get_sampler("ode", method=method, steps=3, churn=1.0).sample(model, 2)
        assert x.dtype == torch.float32
