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


def flow_error(sampler, model, *, skip=0):
    """Distance from the exact flow at t_min; the first `skip` steps are taken exactly, so that a multistep method has
    its history."""
    noise = Noise(0, (0,), dtype=torch.float64, device=torch.device("cpu"))
    state = sampler.begin(model, torch.zeros(1, 1, 1, 1, dtype=torch.float64), noise)
    exact = exact_flow(model, state.times)
    state = attrs.evolve(state, x=exact[0].reshape(1, 1, 1, 1))
    while not state.last:
        state = sampler.step(model, state, noise.at(state.index))
        if state.index <= skip:
            state = attrs.evolve(state, x=exact[state.index].reshape(1, 1, 1, 1))
    return abs(float(state.x - exact[-1])) / float(model.sde.alpha(state.t))


ORDERS = [
    ("ode", {"method": "euler"}, 1, 64),
    ("ancestral", {"eta": 0.0}, 1, 64),
    ("dpm-solver", {"order": 1}, 1, 64),
    ("ode", {"method": "heun"}, 2, 64),
    ("dpm-solver", {"order": 2}, 2, 128),
    ("dpm-solver", {"order": 3}, 3, 128),
    ("ode", {"method": "rk4"}, 4, 32),
]


@pytest.mark.parametrize("sde", ["vp", "edm", "flow"])
@pytest.mark.parametrize(("name", "params", "order", "steps"), ORDERS, ids=lambda p: str(p))
def test_the_order_of_convergence_is_the_methods(name, params, order, steps, sde):
    """Twice the steps, 2^-order of the error; the next term of the error is of relative size 1/steps. The third-order
    multistep method needs two steps of history: with less, its first step of order 1 leaves an error of order 2."""
    model = gaussian(registry.get_sde(sde))
    errors = [
        flow_error(
            registry.get_sampler(name, steps=n, grid="rho", final="sample", **params),
            model,
            skip=2 if order == 3 else 0,
        )
        for n in (steps, 2 * steps, 4 * steps)
    ]

    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert slopes[1] == pytest.approx(order, abs=0.2)
    assert abs(slopes[1] - order) <= abs(slopes[0] - order) + 0.02  # and approaches it


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("sde", ["vp", "edm"])
def test_rk45_reaches_its_tolerance(sde, tolerance):
    """The error of one step is below the tolerance; some dozens of them are passed on along nearly straight lines."""
    model = gaussian(registry.get_sde(sde))
    sampler = registry.get_sampler("ode", method="rk45", steps=1, rtol=tolerance, atol=tolerance, final="sample")

    assert flow_error(sampler, model) < 30 * tolerance


def posterior_moments(name, steps, sde, **params):
    sampler = registry.get_sampler(name, steps=steps, **params)
    mean, variance = affine_moments(sampler, gaussian(sde, mean=1.2209945, variance=0.4226519))
    return float(mean), float(variance)


FIRST_ORDER = [
    ("em", {}),
    ("reverse-diffusion", {}),
    ("ancestral", {"eta": 1.0}),
    ("ancestral", {"eta": 0.5}),
    ("pc", {"corrector": {"name": "langevin", "snr": 0.02}}),
]


@pytest.mark.parametrize(("name", "params"), FIRST_ORDER, ids=lambda p: str(p))
@pytest.mark.parametrize("sde", ["vp", "ve"])
def test_with_exact_guidance_every_stochastic_sampler_tends_to_the_posterior(sde, name, params):
    """Reference problem R1: mean 1.2209945, variance .4226519. Twice the steps, half the bias, and what is left after
    extrapolation is the start's: N(0, prior_std^2) has the mean 0 instead of alpha m, of which the process keeps (V /
    (V + level_T^2))^((1 + eta^2) / 2), eta being the share of noise (1 for the reverse SDE, 0 for the flow)."""
    process = registry.get_sde(sde, t_min=1e-5)
    m, V, level_T = 1.2209945, 0.4226519, float(process.level(torch.ones((), dtype=torch.float64)))
    biases = []
    for steps in (400, 800):
        mean, variance = posterior_moments(name, steps, process, grid="rho", **params)
        biases.append((mean - m, variance - V))

    extrapolated = [2 * b - a for a, b in zip(*biases, strict=True)]
    start = -m * (V / (V + level_T**2)) ** ((1 + params.get("eta", 1.0) ** 2) / 2)
    assert abs(biases[1][1]) < 0.02
    # second-order terms: 1 / 400^2 of the coefficients of a process over 10 units of log level
    assert extrapolated == pytest.approx([start, 0], abs=2e-3)


DETERMINISTIC = [("ode", {"method": "euler"}), ("ode", {"method": "heun"}), ("ode", {"method": "rk4"})]


@pytest.mark.parametrize(("name", "params"), DETERMINISTIC, ids=lambda p: str(p))
@pytest.mark.parametrize("sde", ["vp", "ve"])
def test_the_flows_bias_is_that_of_its_start(sde, name, params):
    """The start N(0, prior_std^2) instead of N(alpha m, P): the mean is off by -alpha_T sqrt(V/P_T) m, and the variance
    is V prior_std^2 / P_T; both exactly, as the flow is affine."""
    process = registry.get_sde(sde, t_min=1e-5)
    mean, variance = posterior_moments(name, 400, process, grid="rho", **params)
    finer = posterior_moments(name, 800, process, grid="rho", **params)
    order = {"euler": 1, "heun": 2, "rk4": 4}[params["method"]]
    limit = [b + (b - a) / (2**order - 1) for a, b in zip((mean, variance), finer, strict=True)]

    one = torch.ones((), dtype=torch.float64)
    alpha, sigma, m, V = float(process.alpha(one)), float(process.sigma(one)), 1.2209945, 0.4226519
    P = alpha**2 * V + sigma**2
    expected = [m - alpha * math.sqrt(V / P) * m, V * process.prior_std**2 / P]
    # the end: E[x_0 | x_t] at t_min = 1e-5 takes level^2 / V of the variance away, 1e-4 at sigma_min = .01
    assert limit == pytest.approx(expected, abs=3e-4)


@pytest.mark.parametrize("name", ["ula", "langevin"])
def test_many_langevin_moves_give_the_posterior_with_their_known_inflation(name):
    """At the last level, with small steps: variance P / (1 - e / (2 P)), then Tweedie's estimate of it."""
    process = registry.get_sde("ve", sigma_min=0.1, sigma_max=2.0)
    small = {"snr": 0.1} if name == "langevin" else {"step_size": 0.02}  # both e = 0.02 sigma^2
    mean, variance = posterior_moments(name, 4, process, moves=4000, final="sample", **small)

    level2, V = float(process.sigma(torch.tensor(process.t_min, dtype=torch.float64))) ** 2, 0.4226519
    e, P = 0.02 * level2, V + level2
    # what is left of the start after 4000 moves of e at variance P: (1 - e/P)^4000 = 0.16 of the last change of level
    assert variance == pytest.approx(P / (1 - e / (2 * P)), rel=0.01)
    assert mean == pytest.approx(1.2209945, rel=0.01)
