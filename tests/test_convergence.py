"""Orders of convergence on a Gaussian, against the exact flow, and every sampler's way to the posterior.

The probability flow of N(m, V) is known: with P_t = V + level_t^2 in xbar = x / alpha,

    xbar_s = m + (P_s / P_t)^{1/2} (xbar_t - m)
"""

import itertools
import math

import attrs
import pytest
import torch

from scoreplug import Noise, registry
from scoreplug.testing import affine_moments

MEAN, VARIANCE = 0.7, 1.7


def gaussian(sde, mean=MEAN, variance=VARIANCE):
    return registry.get_model("gaussian", image_shape=(1, 1, 1), mean=mean, covariance=variance, sde=sde)


def exact_flow(model, t):
    """x at the times t on the curve that starts from xbar = m + 2 level at t = 1."""
    level, first = model.sde.level(t), model.sde.level(torch.ones_like(t))
    xbar = MEAN + ((VARIANCE + level**2) / (VARIANCE + first**2)).sqrt() * 2 * first
    return model.sde.alpha(t) * xbar


def placed(state, x):
    """The state at another x, history included."""
    x = x.reshape(1, 1, 1, 1)
    carry = state.carry and state.carry._replace(x=x)
    return attrs.evolve(state, x=x, carry=carry)


def flow_error(sampler, model, *, exact_steps=0):
    """Distance in xbar from the exact flow at t_min; the first steps are taken exactly, if so told, which gives a
    multistep method the history that it works with."""
    noise = Noise(0, (0,), dtype=torch.float64, device=torch.device("cpu"))
    state = sampler.begin(model, torch.zeros(1, 1, 1, 1, dtype=torch.float64), noise)
    exact = exact_flow(model, state.times)
    state = placed(state, exact[0])
    while not state.last:
        state = sampler.step(model, state, noise.at(state.index))
        if state.index <= exact_steps:
            state = placed(state, exact[state.index])
    return abs(float(state.x - exact[-1])) / float(model.sde.alpha(state.t))


ORDERS = [
    ("ode", {"method": "euler"}, 1, 64),
    ("ancestral", {"eta": 0.0}, 1, 64),
    ("dpm-solver", {"order": 1}, 1, 64),
    ("ode", {"method": "heun"}, 2, 64),
    ("dpm-solver", {"order": 2}, 2, 128),
    ("dpm-solver", {"order": 3}, 3, 128),
    ("dpm-solver", {"order": 3, "compat": "authors"}, 2, 256),
    ("ode", {"method": "rk4"}, 4, 32),
]


@pytest.mark.parametrize("sde", ["vp", "edm", "flow"])
@pytest.mark.parametrize(("name", "params", "order", "steps"), ORDERS, ids=lambda p: str(p))
def test_the_order_of_convergence_is_the_methods(name, params, order, steps, sde):
    """Twice the steps, 2^-order of the error; the next term of the error is of relative size 1/steps."""
    model, sampler = gaussian(registry.get_sde(sde)), registry.get_sampler(name, grid="rho", final="sample", **params)
    errors = [
        flow_error(attrs.evolve(sampler, steps=n), model, exact_steps=params.get("order", 1) - 1)
        for n in (steps, 2 * steps, 4 * steps)
    ]

    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert slopes[1] == pytest.approx(order, abs=0.2)
    assert abs(slopes[1] - order) <= abs(slopes[0] - order) + 0.02  # and approaches it


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("sde", ["vp", "edm", "flow"])
def test_rk45_reaches_its_tolerance(sde, tolerance):
    """The error of one step is below the tolerance; some dozens of them are passed on along nearly straight lines, and
    those made at large levels are scaled down with xbar itself."""
    model = gaussian(registry.get_sde(sde))
    sampler = registry.get_sampler("ode", method="rk45", steps=1, rtol=tolerance, atol=tolerance, final="sample")

    error = flow_error(sampler, model)

    assert error < 30 * tolerance
    assert error > tolerance / 100  # nor is work wasted on more


# Reference problem: prior N(0, 1.7), y = .8 x_0 + .6 n = 1.3.
PRIOR, A, NOISE, Y = 1.7, 0.8, 0.6, 1.3
GAIN = PRIOR * A / (A**2 * PRIOR + NOISE**2)
M, V = GAIN * Y, PRIOR - GAIN * A * PRIOR


def exact_posterior(sde):
    """The oracle among conditioners: the posterior of a Gaussian prior is a Gaussian model."""
    return gaussian(sde, mean=M, variance=V)


def limit(sde, share):
    """Mean and variance of the samples for infinitely many steps, from the start N(0, prior_std^2).

    The equation d xbar = (1 + share) (xbar - x0) d level / level + (share d level^2)^{1/2} dw is the flow for share =
    0, the reverse SDE for share = 1, and takes a deviation from p_t down by (P_s / P_t)^{(1 + share) / 2}. At the end
    comes E[x_0 | x_t], which takes a deviation from the mean down by V / P.
    """
    ends = torch.tensor([1.0, sde.t_min], dtype=torch.float64)
    (P_T, P), alpha = (V + sde.level(ends) ** 2).tolist(), float(sde.alpha(ends[0]))
    kept = (P / P_T) ** ((1 + share) / 2)
    mean, variance = M - kept * M, P + kept**2 * ((sde.prior_std / alpha) ** 2 - P_T)
    return M + V / P * (mean - M), (V / P) ** 2 * variance


# name, parameters, share of noise, order in the law
SAMPLERS = [
    ("em", {}, 1.0, 1),
    ("reverse-diffusion", {}, 1.0, 1),
    ("ancestral", {"eta": 1.0}, 1.0, 1),
    ("ancestral", {"eta": 0.5}, 0.25, 1),
    ("ancestral", {"eta": 0.0}, 0.0, 1),
    ("pc", {"corrector": {"name": "langevin", "snr": 0.01}}, 1.0, 1),
    ("ode", {"method": "euler"}, 0.0, 1),
    ("ode", {"method": "heun"}, 0.0, 2),
    ("ode", {"method": "rk4"}, 0.0, 4),
    ("dpm-solver", {"order": 1}, 0.0, 1),
    ("dpm-solver", {"order": 2}, 0.0, 2),
    ("dpm-solver", {"order": 1, "eta": 1.0}, 1.0, 1),
    ("dpm-solver", {"order": 2, "eta": 0.5}, 0.5, 2),
    ("dpm-solver", {"order": 2, "eta": 1.0}, 1.0, 2),
]
ELSEWHERE = {
    "langevin": "no predictor: converges in the moves, below",
    "ula": "no predictor: converges in the moves, below",
    "mala": "an accept decision is not affine: what it leaves invariant is test_metropolis's",
    "hmc": "an accept decision is not affine: what it leaves invariant is test_metropolis's",
    "smc": "particles with weights: test_smc",
    "decoupled": "needs a posterior: test_decoupled",
    "time-travel": "moves of another sampler: test_time_travel",
    "reddiff": "a point estimate: test_reddiff",
}


def test_every_sampler_of_the_registry_is_led_to_the_posterior_somewhere():
    ours = {spec.name for spec in registry.list("sampler") if spec.factory.startswith("scoreplug_builtin.")}

    assert ours == {name for name, *_ in SAMPLERS} | set(ELSEWHERE)


@pytest.mark.parametrize(("name", "params", "share", "order"), SAMPLERS, ids=lambda p: str(p))
@pytest.mark.parametrize("sde", ["vp", "ve"])
def test_with_exact_guidance_every_sampler_tends_to_the_posterior(sde, name, params, share, order):
    """Up to the bias of its start, in the mean -alpha_T (V / P_T)^{1/2} m for the flow and -alpha_T^2 (V / P_T) m for
    the reverse SDE; the error in the variance falls like steps^-order."""
    process, errors = registry.get_sde(sde, t_min=1e-5), []
    mean, variance = limit(process, share)
    for steps in (100, 200):
        sampler = registry.get_sampler(name, steps=steps, grid="rho", **params)
        moments = [float(moment) for moment in affine_moments(sampler, exact_posterior(process))]
        errors.append((moments[0] - mean, moments[1] - variance))

    # at 200 steps over 10 units of log level a step is 1/20 of a unit: the error is 1/20^order, times a number near 1
    assert errors[1] == pytest.approx((0, 0), abs=20.0**-order)
    if order < 4:  # of order 4, rounding is left; the next term is 1/20 of the first, and six times that for em in VE
        assert errors[0][1] / errors[1][1] == pytest.approx(2**order, rel=6 / 20)
    extrapolated = [b + (b - a) / (2**order - 1) for a, b in zip(*errors, strict=True)]
    # that next term; and pc's corrector inflates the variance by snr^2 = 1e-4
    assert extrapolated == pytest.approx([0, 0], abs=2 * 20.0 ** -(order + 1) + 1e-4 * (name == "pc"))


def test_the_limits_contain_the_biases_of_the_start():
    """The formulas of the flow and of the reverse SDE, for a process that goes down to level 0."""
    vp = registry.get_sde("vp", t_min=1e-9)
    alpha = float(vp.alpha(torch.ones((), dtype=torch.float64)))
    P_T = alpha**2 * V + 1 - alpha**2

    # level^2 at t_min is 1e-10, and VP's start has the variance 1, not P_T: alpha_T^2 = 4e-5 of the variance
    assert limit(vp, 0.0) == pytest.approx((M - alpha * math.sqrt(V / P_T) * M, V / P_T), abs=1e-9)
    assert limit(vp, 1.0) == pytest.approx((M - alpha**2 * V / P_T * M, V), abs=1e-8)
    assert limit(vp, 0.0)[0] - M == pytest.approx(-5.2e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["ula", "langevin"])
def test_many_langevin_moves_give_the_posterior_with_their_known_inflation(name):
    """At the last level the variance is P / (1 - e / (2 P)), and the mean the posterior's; Tweedie's estimate scales
    both deviations by V / P."""
    process = registry.get_sde("ve", sigma_min=0.5, sigma_max=2.0)
    P = V + float(process.sigma(torch.tensor(process.t_min, dtype=torch.float64))) ** 2
    e = 0.5 * (P - V)
    step = {"snr": 0.5} if name == "langevin" else {"step_size": 0.5}  # both e = 0.5 sigma^2
    sampler = registry.get_sampler(name, steps=3, moves=100, **step)

    mean, variance = affine_moments(sampler, exact_posterior(process))

    # of the change of level, (1 - e/P)^200 = .81^200 = 1e-18 is left
    assert float(variance) == pytest.approx((V / P) ** 2 * P / (1 - e / (2 * P)), rel=1e-9)
    assert float(mean) == pytest.approx(M, rel=1e-9)
