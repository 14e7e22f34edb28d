"""dpm-solver: its steps against the integral that they stand for, and when it remembers."""

import copy
import itertools

import attrs
import numpy as np
import pytest
import torch

from scoreplug import BaseModel, Noise, registry, simulate
from scoreplug.testing import affine_moments

SDES = [spec.name for spec in registry.list("sde")]
MEAN, VARIANCE = 0.7, 1.7


def gaussian(sde, shape=(1, 1, 1), **params):
    return registry.get_model("gaussian", image_shape=shape, mean=MEAN, covariance=VARIANCE, sde=sde, **params)


def mixture(sde):
    return registry.get_model(
        "gaussian-mixture", image_shape=(1, 1, 2), means=((-1.5, 0.0), (1.0, 2.0)), covariances=0.1, sde=sde
    )


def make_noise(samples=range(1), seed=0):
    return Noise(seed, samples, dtype=torch.float64, device=torch.device("cpu"))


def weights(order, k, u):
    """Weights of the estimates in int_0^1 k exp(-k (1 - v)) x0(v) dv, x0 being the polynomial through the estimates at
    the places u (0 for the present one, in units of the step): Lagrange's polynomials, by Gauss's rule."""
    nodes, mass = np.polynomial.legendre.leggauss(30)
    v, mass = (nodes + 1) / 2, mass / 2
    u = u[:order]
    basis = [
        np.prod([(v - u[j]) / (u[i] - u[j]) for j in range(len(u)) if j != i], axis=0) * np.ones_like(v)
        for i in range(len(u))
    ]
    return [float((mass * k * np.exp(-k * (1 - v)) * b).sum()) for b in basis]


def weights_2m(k, u):
    """Lu et al. 2022, algorithm 2: D = (1 + 1/(2r)) x0 - 1/(2r) x0_1, r = h_1 / h; the integral to second order."""
    if len(u) == 1:
        return [1 - np.exp(-k)]
    r = -u[1]
    return [(1 - np.exp(-k)) * (1 + 1 / (2 * r)), -(1 - np.exp(-k)) / (2 * r)]


def recursion(sde, times, order, eta, *, lower_order_final=False):
    """Mean and variance of x0 from a run on N(MEAN, VARIANCE), with xbar a vector of coefficients of (1, start, z_1,
    ..., z_N)."""
    level = sde.level(times).numpy()
    lam, n = -np.log(level), len(level) - 1
    unit = np.eye(n + 2)
    xbar = unit[1] * sde.prior_std / float(sde.alpha(times[0]))
    denoised = []
    for i in range(n):
        c = VARIANCE / (VARIANCE + level[i] ** 2)
        denoised.append(c * xbar + (1 - c) * MEAN * unit[0])
        h = lam[i + 1] - lam[i]
        allowed = min(order, n - i) if lower_order_final else order
        u = [(lam[i - j] - lam[i]) / h for j in range(min(allowed, i + 1))]
        k = (1 + eta) * h
        w = weights_2m(k, u) if len(u) <= 2 else weights(3, k, u)
        xbar = level[i + 1] / level[i] * np.exp(-eta * h) * xbar
        xbar = xbar + sum(a * denoised[i - j] for j, a in enumerate(w))
        xbar = xbar + level[i + 1] * np.sqrt(1 - np.exp(-2 * eta * h)) * unit[i + 2]
    c = VARIANCE / (VARIANCE + level[-1] ** 2)
    x0 = c * xbar + (1 - c) * MEAN * unit[0]
    return x0[0], (x0[1:] ** 2).sum()


@pytest.mark.parametrize("grid", ["uniform", "rho"])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("sde_name", ["vp", "ve", "subvp", "edm", "flow"])
def test_the_moments_are_those_of_the_integrated_polynomial(sde_name, order, eta, grid):
    sde = registry.get_sde(sde_name, t_min=1e-3)
    sampler = registry.get_sampler("dpm-solver", order=order, eta=eta, steps=7, grid=grid)

    mean, variance = affine_moments(sampler, gaussian(sde))

    # some dozens of float64 operations, and extrapolation weights of some tens
    expected = recursion(sde, sampler.times(sde), order, eta)
    assert (float(mean), float(variance)) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
@pytest.mark.parametrize("order", [2, 3])
def test_the_last_steps_can_be_of_lower_order(order, steps):
    """Order 2 in the last but one, 1 in the last."""
    sde = registry.get_sde("vp")
    sampler = registry.get_sampler("dpm-solver", order=order, steps=steps, lower_order_final=True)

    mean, variance = affine_moments(sampler, gaussian(sde))

    expected = recursion(sde, sampler.times(sde), order, 0.0, lower_order_final=True)
    assert (float(mean), float(variance)) == pytest.approx(expected, rel=1e-8)


def test_the_second_order_weights_are_the_integrals_to_second_order():
    """What the published method replaces phi_2 by, (1 - exp(-k)) / 2, differs in the order k^2 of the weight of D1."""
    for k, bound in ((0.1, 1e-3), (0.01, 1e-5)):
        exact, published = weights(2, k, [0.0, -1.3]), weights_2m(k, [0.0, -1.3])
        assert exact == pytest.approx(published, abs=bound)  # (k/2 - k^2/6) - (k/2 - k^2/4) = k^2/12, over r = 1.3


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("compat", ["fixed", "authors"])
def test_the_authors_third_order_step_has_half_the_second_difference(order, compat):
    """Their code: phi_1 = expm1(-h), phi_2 = phi_1 / h + 1, phi_3 = phi_2 / h - 1/2, and x_s = (sigma_s / sigma_t) x -
    alpha_s phi_1 x0 + alpha_s phi_2 D1 - alpha_s phi_3 D2."""
    h, h_1, h_2 = torch.tensor([0.3, 0.4, 0.7], dtype=torch.float64)
    x0, x0_1, x0_2 = make_noise(range(3)).normal((1, 1, 2))
    r_0, r_1 = h_1 / h, h_2 / h
    phi_1 = torch.expm1(-h)
    phi_2 = phi_1 / h + 1
    phi_3 = phi_2 / h - 0.5
    D1_0, D1_1 = (x0 - x0_1) / r_0, (x0_1 - x0_2) / r_1
    D1, D2 = D1_0 + r_0 / (r_0 + r_1) * (D1_0 - D1_1), (D1_0 - D1_1) / (r_0 + r_1)
    theirs = -phi_1 * x0 + phi_2 * D1 - phi_3 * D2

    sampler = registry.get_sampler("dpm-solver", order=order, compat=compat)
    weights = sampler.weights((0.3, 0.4, 0.7)[:order], 0.3)
    ours = sum(weight * estimate for weight, estimate in zip(weights, (x0, x0_1, x0_2), strict=False))

    same = order == 3 and compat == "authors"
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-14) == same
    if order == 3 and not same:
        torch.testing.assert_close(ours, theirs - phi_3 * D2, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("sde", SDES)
def test_order_one_is_ddim_or_ddpm(sde, eta):
    options = {"steps": 8, "grid": "rho", "eta": eta}

    ours = registry.get_sampler("dpm-solver", order=1, **options).sample(mixture(sde), 3)

    theirs = registry.get_sampler("ancestral", **options).sample(mixture(sde), 3)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)  # the same noise; starts of size 1e2 in float64


# When it remembers.


@attrs.frozen(kw_only=True, eq=False)
class Wrapped(BaseModel):
    """A model that records its evaluations, and whose projection returns x itself, or a copy at some steps."""

    base: BaseModel
    copies: tuple[int, ...] = ()
    shift: float = 0.0
    asked: list = attrs.field(factory=list)
    told: list = attrs.field(factory=list)

    sde = property(lambda self: self.base.sde)
    shape = property(lambda self: self.base.shape)
    dtype = property(lambda self: self.base.dtype)
    device = property(lambda self: self.base.device)

    def score(self, x, t):
        self.asked.append(float(t))
        return self.base.score(x, t) + self.shift

    def project(self, x, step):
        self.told.append(step)
        return x.clone() if len(self.told) - 1 in self.copies else x  # 0 is the start


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_step_costs_one_evaluation(order):
    model = Wrapped(base=mixture("vp"))

    registry.get_sampler("dpm-solver", order=order, steps=5).sample(model, 3)

    assert len(model.asked) == 6
    assert len(set(model.asked)) == 6


def run(model, order, steps=6, **params):
    return registry.get_sampler("dpm-solver", order=order, steps=steps, **params).sample(model, 3)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("order", [2, 3])
def test_history_is_dropped_after_a_projection_that_moves_and_kept_otherwise(order, eta):
    """A copy of x counts as moved; the orders are told apart by their samples."""
    everywhere, nowhere = (Wrapped(base=mixture("vp"), copies=copies) for copies in (tuple(range(7)), ()))
    first = run(Wrapped(base=mixture("vp")), 1, eta=eta)

    assert torch.equal(run(everywhere, order, eta=eta), first)
    assert not torch.allclose(run(nowhere, order, eta=eta), first, rtol=1e-3)


def test_after_one_moving_projection_the_history_grows_anew():
    """Moved after step 3 of 6: steps 4, 5, 6 are those of a run that starts there."""
    plain, moved = Wrapped(base=mixture("vp")), Wrapped(base=mixture("vp"), copies=(3,))
    noise = make_noise(range(3))
    sampler = registry.get_sampler("dpm-solver", order=3, steps=6, final="sample")
    states = list(sampler.trajectory(moved, noise))

    again = attrs.evolve(states[3], carry=None)
    for index in (3, 4, 5):
        again = sampler.step(plain, again, noise.at("step", index))

    assert torch.equal(again.x, states[6].x)
    assert not torch.allclose(again.x, list(sampler.trajectory(plain, noise))[6].x)


def test_a_conditioner_that_replaces_drops_the_history_and_one_that_ignores_keeps_it():
    prior = gaussian("vp", shape=(1, 4, 4))
    operator = registry.get_operator("inpainting", image_shape=prior.shape)
    measurement = simulate(operator, torch.full(prior.shape, 0.5, dtype=torch.float64), 0.1)
    song, none = (registry.get_conditioner(name).condition(prior, measurement) for name in ("song", "none"))

    assert torch.equal(run(song, 2), run(song, 1))
    assert torch.equal(run(none, 2), run(prior, 2))
    assert not torch.allclose(run(none, 2), run(prior, 1))


def test_a_corrector_between_the_steps_drops_the_history():
    """pc moves x before each step: what was estimated for another x does not count."""
    pc = {"steps": 6, "corrector": {"name": "langevin", "snr": 0.1}}
    orders = [
        registry.get_sampler("pc", predictor={"name": "dpm-solver", "order": order}, **pc).sample(mixture("vp"), 3)
        for order in (1, 2)
    ]

    assert torch.equal(*orders)


def test_a_state_that_was_copied_goes_on_with_its_history():
    """As one that is written to a file and read again: x and its history stay together."""
    model, sampler, noise = mixture("vp"), registry.get_sampler("dpm-solver", order=3, steps=6), make_noise(range(2))
    states = list(itertools.islice(sampler.trajectory(model, noise), 5))

    resumed = sampler.step(model, copy.deepcopy(states[3]), noise.at("step", 3))

    assert torch.equal(resumed.x, states[4].x)


# What a projection is told.


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_the_gain_of_order_one_is_the_shift_per_unit_of_score(sde, eta):
    model, noise = Wrapped(base=gaussian(sde)), make_noise(range(2))
    sampler = registry.get_sampler("dpm-solver", order=1, eta=eta, steps=10)
    state = sampler.init(model, noise.at("x").normal(model.shape), noise)

    plain = sampler.step(model, state, noise).x
    shifted = sampler.step(attrs.evolve(model, shift=0.1), state, noise).x

    # differences of x of size 1e2 lose 1e2 * 2e-16 / (0.1 gain)
    torch.testing.assert_close(
        (shifted - plain) / 0.1, torch.full_like(plain, float(model.told[0].gain)), rtol=1e-7, atol=0
    )
    torch.testing.assert_close(model.told[0].x0, model.denoise(state.x, state.t), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [2, 3])
def test_the_gain_of_higher_orders_is_that_of_the_first_as_the_steps_become_small(order):
    """The same shift of the score at the earlier steps has shifted their estimates by alpha level^2 as well. Twice
    smaller the steps, twice smaller the relative difference."""
    differences = []
    for ratio in (0.96, 0.98):
        model, noise = Wrapped(base=gaussian("vp")), make_noise(range(2))
        times = model.sde.time_of(2.0 * ratio ** torch.arange(order + 1, dtype=torch.float64))
        sampler = registry.get_sampler("dpm-solver", order=order, steps=order)
        state = attrs.evolve(sampler.init(model, noise.at("x").normal(model.shape), noise), times=times)
        for _ in range(order - 1):
            state = sampler.step(model, state, noise)
        plain = sampler.step(model, state, noise).x

        per_unit = (model.sde.alpha(times) * model.sde.level(times) ** 2)[: order - 1].flip(0)
        x0s = tuple(x0 + 0.1 * shift for x0, shift in zip(state.carry.x0, per_unit, strict=True))
        state = attrs.evolve(state, carry=state.carry._replace(x0=x0s))
        shifted = sampler.step(attrs.evolve(model, shift=0.1), state, noise).x
        differences.append(float(((shifted - plain) / 0.1 / model.told[-1].gain - 1).abs().max()))

    assert differences[1] < 0.05  # the steps are .02 in log level
    assert differences[0] / differences[1] == pytest.approx(2, rel=0.1)  # and the next term .04 of it
