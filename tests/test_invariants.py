"""What must hold for every combination of the registry. The tests enumerate it: a new component is tested unasked."""

import itertools

import attrs
import numpy as np
import pytest
import torch

from scoreplug import Noise, WrappedModel, registry, simulate
from scoreplug.run.compatibility import verdict
from scoreplug.run.cost import Cost, counted_model, counted_operator
from scoreplug.sampler import DivergenceError

# what approximates says so, which other tests look at
pytestmark = pytest.mark.filterwarnings("ignore:.*acceptance is approximate")

SHAPE = (2, 8, 8)
REQUIRED = {
    "matrix": {"matrix": tuple(tuple(float(i == j) + 0.1 * (i - j == 5) for j in range(128)) for i in range(48))}
}
ADJUST = {
    "downsampling": {"factor": 2},
    "radon": {"angles": 5, "pinv_tolerance": 1e-12},
    "fourier": {"acceleration": 2.0},
    "multi-coil-fourier": {"image": "complex", "coils": 3, "acceleration": 2.0},
    "blur": {"std": 0.8},
}
# a handful of steps instead of a thousand: larger pulls would overshoot and amplify rounding
GENTLE = {name: {"scale": 0.02} for name in ("dps", "pigdm", "mcg")} | {"mmps": {"dense": 512}}  # which solves exactly
ONE_MOVE = {name: {"moves": 1} for name in ("ula", "mala", "hmc")}
PROJECTING = ("song", "mcg", "ddrm", "ddnm", "dds")
EXACT = ("song", "mcg", "ddnm")
ITERATIVE = ("radon", "multi-coil-fourier")  # solves to a tolerance of 1e-10, in float32 of 1e-5
EVERYTHING = ("identity", "blur")  # operators that leave nothing open: exact data give every sample the same value

SDES, OPERATORS, CONDITIONERS, SAMPLERS = (
    [spec.name for spec in registry.list(kind)] for kind in ("sde", "operator", "conditioner", "sampler")
)
# Every pair of kinds, the others being fixed; that every combination runs is test_orthogonality's.
FITTING = [
    (operator, conditioner)
    for operator, conditioner in itertools.product(OPERATORS, CONDITIONERS)
    if verdict(registry.spec("conditioner", conditioner), registry.spec("operator", operator)).state != "refused"
]


def runs(conditioner, sampler):
    return verdict(registry.spec("conditioner", conditioner), registry.spec("sampler", sampler)).state != "refused"


COUPLED = [spec.name for spec in registry.list("sampler") if spec.couples]  # a population is their unit
OF_PRIORS = [sampler for sampler in SAMPLERS if runs("none", sampler)]
PAIRS = [pair for pair in itertools.product(CONDITIONERS, SAMPLERS) if runs(*pair)]
COMBINATIONS = sorted(
    {("vp", "downsampling", *pair) for pair in PAIRS if pair[1] not in COUPLED}
    | {("vp", operator, conditioner, "ancestral") for operator, conditioner in FITTING}
    | {(sde, "inpainting", conditioner, "pc") for sde in SDES for conditioner in CONDITIONERS}
    | {(sde, "downsampling", "dps", sampler) for sde in SDES for sampler in SAMPLERS if sampler in OF_PRIORS}
)


def make_operator(name):
    return registry.get_operator(name, image_shape=SHAPE, **REQUIRED.get(name, {}), **ADJUST.get(name, {}))


def make_prior(sde, precision="float64"):
    """Two correlated components, so that the denoiser is not linear."""
    i = torch.arange(128, dtype=torch.float64)
    covariance = 0.05 * (-(i[:, None] - i).abs() / 4).exp()
    means = torch.stack([0.3 * (i / 8).sin(), 0.5 + 0 * i])
    return registry.get_model(
        "gaussian-mixture",
        image_shape=SHAPE,
        means=means,
        covariances=covariance.repeat(2, 1, 1),
        sde=sde,
        precision=precision,
    )


def make_posterior(sde, operator, conditioner, precision="float64"):
    prior = make_prior(sde, precision)
    image = (torch.arange(128).reshape(SHAPE) / 128).to(prior.dtype)
    measurement = simulate(make_operator(operator), image, 0.1)
    return registry.get_conditioner(conditioner, **GENTLE.get(conditioner, {})).condition(prior, measurement)


def make_sampler(name, steps=4, **params):
    """Heun's few steps would amplify rounding by the ratio of their levels."""
    short = {"repeats": 2, "jump": 2} if name == "time-travel" else {}
    return registry.get_sampler(name, steps=2 * steps if name == "ode" else steps, **short, **params)


def draw(sampler, model, indices, seed=0):
    noise = Noise(seed, indices, dtype=model.dtype, device=model.device)
    *_, state = sampler.trajectory(model, noise)
    return state.x


def identify(combination):
    return "-".join(combination)


@pytest.mark.parametrize("combination", COMBINATIONS, ids=identify)
def test_a_sample_does_not_depend_on_its_batch_mates(combination):
    """Sample i alone, in a batch of 3, in one of 8: the same up to the rounding of sums over another batch shape."""
    sde, operator, conditioner, sampler_name = combination
    steps = 16 if sampler_name == "pc" else 4  # of every SDE: four overshoot a thousandfold under edm and flow
    model, sampler = make_posterior(sde, operator, conditioner), make_sampler(sampler_name, steps)

    eight = sampler.sample(model, 8, seed=5)

    assert eight.shape == (8, *SHAPE)
    assert eight.dtype == torch.float64
    scale = float(eight.abs().max())
    bound = (1e-8 if operator in ITERATIVE else 1e-10) * scale
    torch.testing.assert_close(sampler.sample(model, 3, seed=5), eight[:3], rtol=0, atol=bound)
    torch.testing.assert_close(draw(sampler, model, (6,), seed=5), eight[6:7], rtol=0, atol=bound)
    exact = conditioner in EXACT and operator in EVERYTHING
    assert exact or not torch.allclose(eight[0], eight[1])  # each has its own noise


@pytest.mark.parametrize("combination", [c for c in COMBINATIONS if c[0] == "vp"], ids=identify)
def test_float32_samples_do_not_depend_on_their_batch_mates_beyond_rounding(combination):
    sde, operator, conditioner, sampler_name = combination
    model, sampler = make_posterior(sde, operator, conditioner, "float32"), make_sampler(sampler_name)

    eight = sampler.sample(model, 8)

    assert eight.dtype == torch.float32
    # Some tens of roundings of 6e-8, which four large steps amplify. Elsewhere a decision hangs on a rounding: in hdr
    # whether a pixel at the edge of the range is pulled, and in radon's pseudoinverse the last step, at a residual of
    # 1e-5 in float32, which singular values down to a hundredth multiply.
    iterative = conditioner in (*EXACT, "fps", "diffpir") and operator in ITERATIVE
    # And a covariance of y that comes from derivatives multiplies their rounding by its condition.
    bound = 2e-3 if iterative else 1e-3 if conditioner in ("mmps", "tmpd") else 1e-4 if operator == "hdr" else 2e-5
    torch.testing.assert_close(sampler.sample(model, 1), eight[:1], rtol=0, atol=bound * float(eight.abs().max()))


@pytest.mark.parametrize("combination", [c for c in COMBINATIONS if c[0] == "vp"], ids=identify)
def test_inputs_and_the_global_generators_are_left_alone(combination):
    sde, operator, conditioner, sampler_name = combination
    model, sampler = make_posterior(sde, operator, conditioner), make_sampler(sampler_name)
    measurement = getattr(model, "measurement", None)
    data = None if measurement is None else measurement.data.clone()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()

    first = sampler.sample(model, 2, seed=0)

    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert data is None or torch.equal(measurement.data, data)
    assert torch.equal(sampler.sample(model, 2, seed=0), first)  # 0 is a seed
    exact = conditioner in EXACT and operator in EVERYTHING
    assert exact or not torch.equal(sampler.sample(model, 2, seed=1), first)
    assert torch.is_grad_enabled()
    assert not first.requires_grad


@pytest.mark.parametrize("sampler_name", OF_PRIORS)
@pytest.mark.parametrize("sde", SDES)
def test_no_measurement_gives_the_priors_samples_bit_for_bit(sde, sampler_name):
    prior, posterior = make_prior(sde), make_posterior(sde, OPERATORS[0], "none")
    sampler = make_sampler(sampler_name)

    assert torch.equal(sampler.sample(posterior, 2), sampler.sample(prior, 2))


def stages(name, conditioner, steps, moves=1):
    """Network evaluations that the method is made of: one per step, one per corrector move, one at the end."""
    per_step = {
        **dict.fromkeys(("em", "reverse-diffusion", "ancestral", "dpm-solver"), 1),
        **{
            "smc": 1,
            "reddiff": 1,
            "decoupled": 6,
            "time-travel": 2,
            "ode": 2 * 2,
            "langevin": moves,
            "pc": 1 + moves,
            "ula": 5,
            "mala": 1 + 3,
            "hmc": 1 + 3 * 3,
        },
    }
    known = name in ("mala", "hmc") and conditioner not in PROJECTING  # at the end, from the last move
    return steps * per_step[name] + (0 if known else 1)


@pytest.mark.parametrize(("conditioner", "sampler_name"), PAIRS)
def test_a_stage_costs_one_evaluation(sampler_name, conditioner):
    """And a conditioner that declares no vjp takes none."""
    cost, prior = Cost(), make_prior("vp")
    operator = counted_operator(make_operator("inpainting"), cost)
    measurement = simulate(operator, torch.zeros(SHAPE, dtype=torch.float64), 0.1)
    params = GENTLE.get(conditioner, {})
    model = registry.get_conditioner(conditioner, **params).condition(counted_model(prior, cost), measurement)

    make_sampler(sampler_name, steps=4).sample(model, 3)

    expected = stages(sampler_name, conditioner, 4)
    assert cost.evaluation_calls == expected
    assert cost.evaluations == 3 * expected
    if conditioner in ("dps", "mcg") and sampler_name != "smc":
        assert cost.vjp_calls == expected
    else:  # others take several from one evaluation
        assert (cost.vjp_calls > 0) == registry.spec("conditioner", conditioner).vjp


@pytest.mark.parametrize("conditioner", [spec.name for spec in registry.list("conditioner") if not spec.vjp])
def test_a_conditioner_without_vjp_builds_no_graph(conditioner):
    prior = make_prior("vp")
    seen = []

    @attrs.frozen(kw_only=True, eq=False)
    class Watched(WrappedModel):
        base: object = prior

        def denoise(self, x, t):
            seen.append(torch.is_grad_enabled())
            return prior.denoise(x, t)

    measurement = simulate(make_operator("identity"), torch.zeros(SHAPE, dtype=torch.float64), 0.1)
    model = registry.get_conditioner(conditioner).condition(Watched(), measurement)
    for name in SAMPLERS:
        if runs(conditioner, name) and name not in COUPLED:
            make_sampler(name).sample(model, 1)

    assert seen
    assert not any(seen)


@attrs.frozen(kw_only=True, eq=False)
class Failing(WrappedModel):
    """Returns NaN for the second sample below a noise level."""

    base: object
    below: float

    def denoise(self, x, t):
        x0 = self.base.denoise(x, t)
        if self.sde.sigma(t) < self.below:
            x0[1] = float("nan")
        return x0


@pytest.mark.parametrize("sampler_name", OF_PRIORS)
def test_nan_stops_the_run_and_says_where(sampler_name):
    sampler = make_sampler(sampler_name, steps=10)
    model = Failing(base=make_prior("vp"), below=0.9)
    states = []

    with pytest.raises(
        DivergenceError, match=r"samples \[1\] became NaN or infinite in step \d+ of \d+, at noise level"
    ) as caught:
        sampler.sample(model, 3, callback=states.append)

    assert all(bool(state.x.isfinite().all()) for state in states)  # it never came out
    assert caught.value.step == states[-1].index + 1
    assert caught.value.norms["x"][0] == (pytest.approx(float(states[-1].x[1].norm())),)


@pytest.mark.parametrize(("conditioner", "sampler_name"), [pair for pair in PAIRS if pair[1] not in COUPLED])
def test_a_networks_samples_do_not_depend_on_their_batch_mates(sampler_name, conditioner):
    """The shipped network in float32: convolutions of another batch shape may round differently, no more.

    Networks take time: one move per level. Samplers with several are above, on the mixture.
    """
    prior = registry.get_model("digits-32")
    operator = registry.get_operator("downsampling", image_shape=prior.shape, factor=16)
    measurement = simulate(operator, torch.full(prior.shape, 0.3), 0.1)
    model = registry.get_conditioner(conditioner, **GENTLE.get(conditioner, {})).condition(prior, measurement)
    sampler = make_sampler(sampler_name, steps=3, **ONE_MOVE.get(sampler_name, {}))

    eight = sampler.sample(model, 8)

    scale = float(eight.abs().max())
    torch.testing.assert_close(sampler.sample(model, 3), eight[:3], rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(draw(sampler, model, (5,)), eight[5:6], rtol=0, atol=1e-5 * scale)
