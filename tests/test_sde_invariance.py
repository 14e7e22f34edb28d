"""The process is a choice of coordinates: the same noise gives the same samples under every SDE.

In xbar = x / alpha over level = sigma / alpha every process is xbar = x_0 + level z. So a conditioner, and a sampler
that is written in these coordinates, whatever they compute, must give the same samples from the same levels, the same
start xbar and the same draws, through `under(sde)` of one model. What may differ is rounding. Two samplers are not
written so:

* em steps dx = (f x - g^2 score) dt + g dw with f and g as they are at t: how much of the change of level that is
  depends on the clock, and on alpha as well.
* reverse-diffusion has no clock, but xbar_s = (1 - (1 - a)^2) xbar_t + ... with a = alpha_t / alpha_s: it agrees among
  processes whose alpha is the same function of the level.

Neither is the variant compat="authors" of song and mcg: x at the level s gets a measurement scaled by the alpha of t.
"""

import functools
import itertools
import warnings

import pytest
import torch

from scoreplug import Noise, registry, simulate
from scoreplug.param import parameters
from scoreplug.run.compatibility import verdict
from scoreplug.sampler import BaseSampler

SHAPE = (1, 4, 4)
LEVELS = torch.tensor([30.0, 4.0, 0.9, 0.25, 0.06], dtype=torch.float64)  # every process reaches them
SDES = [spec.name for spec in registry.list("sde")]
UNLIKE = ["vp", "ve", "edm", "flow"]  # three functions alpha of the level, and two clocks for one of them

# The table: samplers with coordinates of their own. Any other one, from whatever plugin, has to be free of them.
NOT_FREE = ("em", "reverse-diffusion")
SAME_ALPHA = [("vp", "cosine", "ddpm"), ("ve", "edm")]  # alpha^2 = 1 / (1 + level^2), and alpha = 1

GENTLE = {name: {"scale": 0.02} for name in ("dps", "pigdm", "mcg")}  # four steps instead of a thousand
SECOND_ORDER = ("mmps", "tmpd")
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
    "decoupled": [{"form": "mean"}, {"form": "split-gibbs"}],
    "ddnm": [{"form": "plus"}],
    "pigdm": [{"prior_std": 0.5}, {"compat": "authors", "spread": "published"}],
    "dmps": [{"scale": 0.5}],
    "fps": [{"kappa": 0.3, "path": "drawn"}],
    "ddrm": [{"eta": 1.0, "eta_b": 0.5}, {"compat": "authors"}],
}

CONDITIONERS, SAMPLERS = registry.list("conditioner"), [s for s in registry.list("sampler") if s.name not in NOT_FREE]
MATRIX = [
    ((c.name, GENTLE.get(c.name, {})), (s.name, {}))
    for c, s in itertools.product(CONDITIONERS, SAMPLERS)
    if verdict(c, s).state != "refused"
]
VARIED = [
    *(
        (("none", {}), (s.name, variant))
        for s in SAMPLERS
        if verdict(registry.spec("conditioner", "none"), s).state != "refused"
        for variant in ({}, *VARIANTS.get(s.name, ()))
    ),
    *(((c.name, variant), ("ancestral", {})) for c in CONDITIONERS for variant in VARIANTS.get(c.name, ())),
]


def identify(value):
    return "-".join([value[0], *map(str, value[1].values())])


@pytest.fixture(autouse=True)
def same_levels(monkeypatch):
    """Every process steps through the same levels, at its own times."""
    monkeypatch.setattr(BaseSampler, "times", lambda self, sde: sde.time_of(LEVELS))


def process(name):
    """An SDE that ends at the last level, since some step sizes are relative to that one."""
    return registry.get_sde(name, t_min=float(registry.get_sde(name).time_of(LEVELS[-1])))


def make_sampler(name, params):
    """Few moves at each level, and a sampler made of samplers with parts that are free if it is to be free itself."""
    ours = parameters(type(registry.get_sampler(name)))
    moves = {p.name: 2 for p in ours if p.name == "moves"}
    parts = {p.name: "ancestral" for p in ours if p.component == "sampler" and p.default in NOT_FREE}
    return registry.get_sampler(name, **{"steps": len(LEVELS) - 1, **moves, **parts, **params})


@functools.cache
def make_prior(precision):
    """Two correlated components, so that the denoiser is not affine."""
    i = torch.arange(16, dtype=torch.float64)
    covariance = 0.1 * (-(i[:, None] - i).abs() / 3).exp()
    return registry.get_model(
        "gaussian-mixture",
        image_shape=SHAPE,
        means=torch.stack([0.3 * (i / 4).sin(), 0.7 + 0 * i]),
        covariances=covariance.repeat(2, 1, 1),
        sde=process("vp"),
        precision=precision,
    )


def make_model(conditioner, precision="float64"):
    """Singular values from .5 to 2.6: at the last levels some coordinates are cleaner than the data, some noisier."""
    rows = [[0.3 * (k + 1) * float(k == j // 3) for j in range(16)] for k in range(5)]
    operator = registry.get_operator("matrix", image_shape=SHAPE, matrix=tuple(map(tuple, rows)))
    prior = make_prior(precision)
    measurement = simulate(operator, (torch.arange(16) / 16).reshape(SHAPE).to(prior.dtype), 0.1)
    name, params = conditioner
    return registry.get_conditioner(name, **params).condition(prior, measurement)


def samples(model, sampler, sde):
    """Two samples, from the start xbar = level z in the coordinates of the process."""
    method, model = make_sampler(*sampler), model.under(process(sde))
    noise = Noise(4, (0, 1), dtype=model.dtype, device=model.device)
    alpha = model.sde.alpha(model.sde.time_of(LEVELS[0]))
    x = alpha * (LEVELS[0] * noise.at("xbar").normal(SHAPE))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", ".*approximate")  # Metropolis without a log density, which says so
        state = method.begin(model, x, noise.at("start"))
        while not state.last:
            state = method.step(model, state, noise.at("step", state.index))
        return method.finish(model, state, noise.at("finish")).x


def largest_difference(model, sampler, sdes):
    """Between the samples under the first process and the others, relative to their largest entry."""
    first, *others = (samples(model, sampler, sde) for sde in sdes)
    return max(float((other - first).abs().max() / first.abs().max()) for other in others)


@pytest.mark.parametrize(("conditioner", "sampler"), MATRIX, ids=identify)
def test_no_conditioner_in_no_free_sampler_knows_the_process(conditioner, sampler):
    # time_of and alpha keep some 1e-15; unstable steps amplify that, and a solver of linear systems stops at 1e-10
    assert largest_difference(make_model(conditioner), sampler, UNLIKE) < 1e-8


@pytest.mark.parametrize(("conditioner", "sampler"), VARIED, ids=identify)
def test_no_variant_knows_the_process(conditioner, sampler):
    assert largest_difference(make_model(conditioner), sampler, SDES) < 1e-8


@pytest.mark.parametrize(("conditioner", "sampler"), MATRIX, ids=identify)
def test_float32_samples_do_not_know_the_process_beyond_rounding(conditioner, sampler):
    # 6e-8 of a start of size 30 is 2e-6 of samples of size 1, of which four steps keep a part
    # where the covariance of y comes from the network's derivative, solving with it multiplies that by its condition
    bound = 1e-3 if conditioner[0] in SECOND_ORDER else 1e-5
    assert largest_difference(make_model(conditioner, "float32"), sampler, ["ve", "flow"]) < bound


@pytest.mark.parametrize("sdes", SAME_ALPHA, ids="-".join)
@pytest.mark.parametrize("conditioner", [(c.name, GENTLE.get(c.name, {})) for c in CONDITIONERS], ids=identify)
def test_reverse_diffusion_knows_alpha_but_no_clock(conditioner, sdes):
    assert largest_difference(make_model(conditioner), ("reverse-diffusion", {}), sdes) < 1e-8


@pytest.mark.parametrize(
    ("sampler", "sdes"),
    [("em", ("vp", "ve")), ("em", ("vp", "cosine")), ("em", ("ve", "edm")), ("reverse-diffusion", ("vp", "ve"))],
)
def test_the_exceptions_are_exceptions(sampler, sdes):
    """They converge to the same as the steps become small; with steps this large they are far from it."""
    assert largest_difference(make_model(("none", {})), (sampler, {}), sdes) > 0.05


@pytest.mark.parametrize("conditioner", ["song", "mcg"])
def test_the_authors_measurement_of_another_level_knows_the_process(conditioner):
    authors = make_model((conditioner, {**GENTLE.get(conditioner, {}), "compat": "authors"}))

    assert largest_difference(authors, ("ancestral", {}), ("ve", "edm")) < 1e-8
    assert largest_difference(authors, ("ancestral", {}), ("vp", "ve")) > 0.05
