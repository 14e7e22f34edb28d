"""Model x SDE x operator x conditioner x sampler: every combination of the registry runs, or is refused with the reason
that `scoreplug list --matrix` gives."""

import contextlib
import functools
import itertools
import warnings

import pytest
import torch

from scoreplug import registry, simulate
from scoreplug.divergence import DivergenceError
from scoreplug.registry.specs import OF_POSTERIORS
from scoreplug.run import compatibility

SHAPE = (2, 4, 4)
PARAMS = {
    "matrix": {"matrix": tuple(tuple(float(i == j) + 0.1 * (i - j == 5) for j in range(32)) for i in range(12))},
    "downsampling": {"factor": 2},
    "radon": {"angles": 3},
    "fourier": {"acceleration": 2.0},
    "multi-coil-fourier": {"image": "complex", "coils": 2, "acceleration": 2.0, "pinv_tolerance": 1e-3},
    "blur": {"std": 0.6},
    "dps": {"scale": 0.02},  # one step instead of a thousand: larger pulls would overshoot
    "mcg": {"scale": 0.02},
    "mmps": {"dense": 128},
}
SHORT = {name: {"moves": 1} for name in ("ula", "mala", "hmc")} | {"time-travel": {"repeats": 2, "jump": 1}}
SDES, OPERATORS, CONDITIONERS, SAMPLERS, MODELS = (
    registry.list(kind) for kind in ("sde", "operator", "conditioner", "sampler", "model")
)


@functools.cache
def prior():
    means = torch.stack([torch.linspace(0, 1, 32, dtype=torch.float64), torch.full((32,), 0.3, dtype=torch.float64)])
    return registry.get_model("gaussian-mixture", image_shape=SHAPE, means=means, covariances=0.05)


@functools.cache
def measurement(operator):
    A = registry.get_operator(operator, image_shape=SHAPE, **PARAMS.get(operator, {}))
    return simulate(A, torch.linspace(0, 1, 32, dtype=torch.float64).reshape(SHAPE), 0.1)


def identify(spec):
    return spec.name


@pytest.mark.parametrize("sampler", SAMPLERS, ids=identify)
@pytest.mark.parametrize("conditioner", CONDITIONERS, ids=identify)
def test_every_combination_runs_or_is_refused_with_the_matrixs_reason(conditioner, sampler):
    method = registry.get_conditioner(conditioner.name, **PARAMS.get(conditioner.name, {}))
    integrator = registry.get_sampler(sampler.name, steps=1, **SHORT.get(sampler.name, {}))
    pair = compatibility.verdict(conditioner, sampler)

    for sde, operator in itertools.product(SDES, OPERATORS):
        model = prior().under(registry.get_sde(sde.name))
        if compatibility.verdict(conditioner, operator).state == "refused":
            with pytest.raises(TypeError, match=f"conditioner '{conditioner.name}' needs"):
                method.condition(model, measurement(operator.name))
            continue
        posterior = method.condition(model, measurement(operator.name))
        if pair.state == "refused":
            with pytest.raises(TypeError, match=f"sampler '{sampler.name}' needs"):
                integrator.sample(posterior, 1)
            continue
        try:
            with labelled(approximate=pair.state == "approximate"):
                x = integrator.sample(posterior, 1)
        except DivergenceError as error:  # one step through all levels may be too long: it ran, and stayed finite
            if "grew without bound" in str(error):
                continue
            raise

        assert bool(x.isfinite().all()), (sde.name, operator.name)


@contextlib.contextmanager
def labelled(*, approximate):
    """What approximates must say so; what does not must not."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert any("approximate" in str(warning.message) for warning in caught) == approximate


TINY = {
    "gaussian": {"image_shape": (1, 8, 8), "precision": "float32"},
    "gaussian-mixture": {"image_shape": (1, 8, 8), "means": ((0.1,) * 64, (0.9,) * 64), "precision": "float32"},
    "energy": {"base": {"name": "digits-32"}},
    "openai-unet": {
        "image_shape": (1, 8, 8),
        "model_channels": 32,
        "num_res_blocks": 1,
        "channel_mult": (1, 2),
        "attention_resolutions": (),
    },
}


@functools.cache
def make_model(name):
    return registry.get_model(name, **TINY.get(name, {}))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=identify)
@pytest.mark.parametrize("model", MODELS, ids=identify)
def test_every_model_goes_with_every_sampler(model, sampler):
    prior = make_model(model.name).under(registry.get_sde("ve", sigma_max=20.0))
    if set(sampler.needs) & set(OF_POSTERIORS):
        pytest.skip("a prior has no measurement, which this sampler needs")
    integrator = registry.get_sampler(sampler.name, steps=1, **SHORT.get(sampler.name, {}))

    with labelled(approximate=compatibility.verdict(model, sampler).state == "approximate"):
        x = integrator.sample(prior, 1)

    assert x.shape == (1, *prior.shape)
    assert bool(x.isfinite().all())


def test_every_kind_of_pair_is_in_the_matrix():
    pairs = {(v.first.kind, v.first.name, v.second.name) for v in compatibility.matrix()}

    assert len(pairs) == len(CONDITIONERS) * (len(SAMPLERS) + len(OPERATORS)) + len(MODELS) * len(SAMPLERS)
    assert all(v.reason for v in compatibility.matrix() if v.state in ("approximate", "refused"))


def test_every_canonical_sampler_exists():
    names = {spec.name for spec in SAMPLERS}

    assert all(set(spec.canonical) <= names for spec in CONDITIONERS)
    assert all(spec.canonical for spec in CONDITIONERS if spec.name != "none")
