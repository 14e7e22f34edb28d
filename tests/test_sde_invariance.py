"""The process is a choice of coordinates: the same noise gives the same samples under every SDE.

In xbar = x / alpha over level = sigma / alpha every process is x_0 + level z. So a conditioner, and a sampler that is
written in these coordinates, whatever it computes, must give the same samples from the same levels, the same start xbar
and the same draws, through `under(sde)` of one model. What may differ is rounding. Two samplers are not written so:

* em steps dx = (f x - g^2 score) dt + g dw with the values of f and g at t: how much of the change of level it sees
  depends on the clock as well as on alpha.
* reverse-diffusion takes x_s = (2 - a) x_t + ... with a = alpha_t / alpha_s, hence xbar_s = (1 - (1 - a)^2) xbar_t +
  ...: it has no clock, but it depends on alpha. It agrees among processes whose alpha is the same function of the
  level.

Neither is song or mcg with compat="authors": they give x at the level s a measurement scaled by the alpha of t.
"""

import itertools
import warnings

import pytest
import torch

from scoreplug import Noise, registry, simulate
from scoreplug.param import parameters
from scoreplug.run.compatibility import verdict
from scoreplug.sampler import BaseSampler

SDES, CONDITIONERS, SAMPLERS = (registry.list(kind) for kind in ("sde", "conditioner", "sampler"))
SHAPE = (1, 4, 4)
LEVELS = torch.tensor([30.0, 4.0, 0.9, 0.25, 0.06], dtype=torch.float64)  # every process reaches them
NOT_FREE = ("em", "reverse-diffusion")
FAMILIES = [("vp", "cosine", "ddpm"), ("ve", "edm")]  # alpha^2 = 1 / (1 + level^2), and alpha = 1

VARIANTS = {
    "ancestral": [{"eta": 0.4}, {"eta": 0.0}, {"eta": 0.85, "noise": "fresh"}],
    "ode": [{"method": "euler"}, {"method": "rk4"}, {"method": "rk45"}],
    "dpm-solver": [{"order": 1}, {"order": 3}, {"eta": 0.6}],
    "langevin": [{"rule": "norm"}, {"rule": "ncsn", "step_size": 1e-4}],
    "mala": [{"potential": "line-integral", "nodes": 3}],
    "hmc": [{"persistence": 0.0}],
    "dps": [{"form": "likelihood", "scale": 0.02}, {"form": "predictive"}, {"scale": 0.02, "compat": "authors"}],
    "jalal": [{"form": "implicit"}],
    "song": [{"weight": 0.6, "finish": "soft"}],
    "mcg": [{"weighting": "pinv", "scale": 0.02}],
    "ddrm": [{"eta": 1.0, "eta_b": 0.5}, {"compat": "authors"}],
}
GENTLE = {"dps": {"scale": 0.02}, "mcg": {"scale": 0.02}}  # four steps instead of a thousand


def parts(name):
    """A sampler made of samplers is as free as they are: those that are not are replaced."""
    fields = parameters(type(registry.get_sampler(name)))
    return {p.name: "ancestral" for p in fields if p.component == "sampler" and p.default in NOT_FREE}


PAIRS = [
    ((c.name, GENTLE.get(c.name, {})), (s.name, {}))
    for c, s in itertools.product(CONDITIONERS, SAMPLERS)
    if s.name not in NOT_FREE and verdict(c, s).state != "refused"
]
DETAILS = [
    *((("none", {}), (s.name, variant)) for s in SAMPLERS for variant in VARIANTS.get(s.name, ())),
    *(((c.name, variant), ("pc", {})) for c in CONDITIONERS for variant in VARIANTS.get(c.name, ())),
]


def identify(value):
    return "-".join([value[0], *map(str, value[1].values())]) if isinstance(value, tuple) else None


@pytest.fixture(autouse=True)
def same_levels(monkeypatch):
    """Every process steps through the same levels, at its own times."""
    monkeypatch.setattr(BaseSampler, "times", lambda self, sde: sde.time_of(LEVELS))


def process(name):
    """An SDE that ends at the last level: some step sizes are relative to it."""
    return registry.get_sde(name, t_min=float(registry.get_sde(name).time_of(LEVELS[-1])))


def make_model(conditioner, precision):
    """Two correlated components and five numbers measured with singular values between .3 and 1.5, so that spectral
    methods meet coordinates that are noisier than the data and cleaner ones."""
    i = torch.arange(16, dtype=torch.float64)
    covariance = 0.1 * (-(i[:, None] - i).abs() / 3).exp()
    prior = registry.get_model(
        "gaussian-mixture",
        image_shape=SHAPE,
        means=torch.stack([0.3 * (i / 4).sin(), 0.7 + 0 * i]),
        covariances=covariance.repeat(2, 1, 1),
        sde=process("vp"),
        precision=precision,
    )
    rows = [[0.3 * (k + 1) * float(k == j // 3) for j in range(16)] for k in range(5)]
    operator = registry.get_operator("matrix", image_shape=SHAPE, matrix=tuple(map(tuple, rows)))
    measurement = simulate(operator, (i / 16).reshape(SHAPE).to(prior.dtype), 0.1)
    name, params = conditioner
    return registry.get_conditioner(name, **params).condition(prior, measurement)


def samples(model, sampler, sde):
    """Two samples from the start xbar = level z, in the coordinates of the process."""
    name, params = sampler
    method = registry.get_sampler(name, steps=len(LEVELS) - 1, **parts(name), **params)
    model = model.under(process(sde))
    noise = Noise(4, (0, 1), dtype=model.dtype, device=model.device)
    alpha = model.sde.alpha(model.sde.time_of(LEVELS[0]))
    x = alpha * LEVELS[0] * noise.at("xbar").normal(SHAPE)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", ".*approximate")  # Metropolis without a log density, which says so
        state = method.begin(model, x, noise.at("start"))
        while not state.last:
            state = method.step(model, state, noise.at("step", state.index))
        return method.finish(model, state, noise.at("finish")).x


def largest_difference(model, sampler, sdes):
    """Between the samples of two processes, relative to the largest entry."""
    first, *others = (samples(model, sampler, sde) for sde in sdes)
    return max(float((other - first).abs().max() / first.abs().max()) for other in others)


ALL = [spec.name for spec in SDES]


@pytest.mark.parametrize(("conditioner", "sampler"), PAIRS + DETAILS, ids=identify)
def test_the_samples_do_not_depend_on_the_sde(conditioner, sampler):
    # time_of and alpha keep 1e-14; a few steps of unstable methods amplify it a thousandfold
    assert largest_difference(make_model(conditioner, "float64"), sampler, ALL) < 1e-8


@pytest.mark.parametrize(("conditioner", "sampler"), PAIRS, ids=identify)
def test_float32_samples_do_not_depend_on_the_sde(conditioner, sampler):
    # 6e-8 per operation, amplified like the above; the processes that differ most from one another
    assert largest_difference(make_model(conditioner, "float32"), sampler, ["vp", "ve", "flow"]) < 1e-5
