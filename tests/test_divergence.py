import math
import pickle
from collections import Counter

import attrs
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scoreplug import ConditionedModel, Measurement, Noise, WrappedModel, registry, simulate
from scoreplug.divergence import FACTOR, DivergenceError, bound, check
from scoreplug.sampler import State

SHAPE, STEPS = (1, 8, 8), 20

# Each conditioner with the strength of its pull times 1e6: the parameter, what the run then says of it, or why it
# cannot diverge. Those without such a parameter get an operator times 1e6, which is data with a millionth of the noise.
DIVERGES = [
    ("dps", {"scale": 1e6}, "Lower conditioner.scale (now 1e+06)"),
    ("dps", {"form": "likelihood", "scale": 1e6}, "Lower conditioner.scale (now 1e+06)"),
    ("dps", {"form": "predictive", "scale": 1e6}, "Lower conditioner.scale (now 1e+06)"),
    ("mcg", {"scale": 1e6}, "Lower conditioner.scale (now 1e+06)"),
    ("pigdm", {"scale": 1e6}, "Lower conditioner.scale (now 1e+06)"),
    ("pigdm", {"compat": "authors", "scale": 1e6}, "Lower conditioner.scale (now 1e+06)"),
    ("dmps", {"scale": 1e6}, "Lower conditioner.scale (now 1e+06)"),
    ("jalal", {"gamma": 1e-6}, "Raise conditioner.gamma (now 1e-06)"),  # gamma is what keeps the pull small
    ("jalal", {"form": "implicit", "ratio": 5e6}, "Lower conditioner.ratio (now 5e+06)"),
    ("fps", {"kappa": 1e-6}, "Raise conditioner.kappa (now 1e-06)"),  # as gamma
    ("tmpd", {}, "'tmpd' has no strength to lower"),  # row sums below 0 leave sigma_y^2 alone against the pull
]
STAYS = [
    ("none", {}, "no measurement, no pull"),
    ("song", {}, "a projection, and weight is at most 1"),
    ("ddnm", {}, "a projection of x0"),
    ("ddnm", {"form": "plus"}, "weights of a convex combination"),
    ("ddrm", {}, "weights of a convex combination"),
    ("dds", {"gamma": 1e7}, "an infinite gamma is least squares, which conjugate gradients approach from below"),
    ("diffpir", {"weight": 1e-6}, "r^2 = infinity is least squares in closed form"),
    ("mmps", {}, "the posterior mean in closed form, which is exact for this prior"),
    ("snips", {}, "exact data replace the coordinates that they measure"),
]
SCALED = ("tmpd", "mmps", "snips")


def identify(case):
    return "-".join([case[0], *map(str, case[1].values())])


def gaussian(sde="vp"):
    i = torch.arange(64, dtype=torch.float64)
    return registry.get_model(
        "gaussian",
        image_shape=SHAPE,
        mean=torch.full(SHAPE, 0.3, dtype=torch.float64),
        covariance=0.05 * (-(i[:, None] - i).abs() / 4).exp(),
        sde=sde,
        precision="float64",
    )


def measurement_for(name):
    if name in SCALED:
        matrix = torch.randn(20, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 8
        operator = registry.get_operator("matrix", image_shape=SHAPE, matrix=1e6 * matrix)
    else:
        operator = registry.get_operator("inpainting", image_shape=SHAPE)
    return simulate(operator, torch.full(SHAPE, 0.5, dtype=torch.float64), 0.1)


def posterior(name, params):
    return registry.get_conditioner(name, **params).condition(gaussian(), measurement_for(name))


def noise_of(model, samples):
    return Noise(0, samples, dtype=model.dtype, device=model.device)


def test_every_conditioner_is_here():
    named = {case[0] for case in (*DIVERGES, *STAYS)}

    assert named == {spec.name for spec in registry.list("conditioner")}


@pytest.mark.parametrize("case", DIVERGES, ids=identify)
def test_a_pull_a_million_times_too_strong_stops_the_run_and_says_all(case):
    name, params, advice = case
    model, seen = posterior(name, params), []

    with pytest.raises(DivergenceError) as caught:
        registry.get_sampler("ancestral", steps=STEPS).sample(model, 3, callback=seen.append)

    error, text = caught.value, str(caught.value)
    limit = bound(model, seen[0].times)
    assert all(bool((state.x.flatten(1).norm(dim=1) <= limit).all()) for state in seen)  # what was handed out is sound
    assert (error.step, error.steps) == (seen[-1].index + 1, STEPS)
    assert error.t == float(seen[-1].s)
    assert error.level == pytest.approx(float(model.sde.sigma(seen[-1].s) / model.sde.alpha(seen[-1].s)), rel=1e-12)
    assert sorted(error.samples + error.survivors) == [0, 1, 2]
    assert error.x.shape == (len(error.survivors), *SHAPE)
    before, after = error.norms["x"]
    assert list(before) == pytest.approx([float(seen[-1].x[i].norm()) for i in error.samples], rel=1e-12)
    assert not any(norm <= limit for norm in after)
    assert set(error.norms) == {"x", "score", "guidance"}
    assert all(math.isfinite(norm) for norms, _ in error.norms.values() for norm in norms)
    assert f"samples {list(error.samples)} " in text
    assert f"in step {error.step} of {STEPS}, at noise level {error.level:.3g} (t = {error.t:.3g})" in text
    assert f"with sampler 'ancestral' and conditioner '{name}'" in text
    assert "Norms before and after: x " in text
    assert advice in text
    assert f"aise sampler.steps (now {STEPS})" in text


@pytest.mark.parametrize("case", STAYS, ids=identify)
def test_what_is_a_projection_or_a_closed_form_stays_in_the_range_of_the_data(case):
    """The prior's pixels are .3 +- .22, and the data .5 +- .1: 2 is more than five standard deviations away."""
    name, params, _ = case

    x = registry.get_sampler("ancestral", steps=STEPS).sample(posterior(name, params), 3)

    assert float(x.abs().max()) < 2


@attrs.frozen(kw_only=True, eq=False)
class Blown(WrappedModel):
    """The estimate of one sample of the batch is multiplied by something from a noise level on."""

    base: object
    row: int = 1
    by: float = 1e30
    below: float = 10.0

    def denoise(self, x, t):
        factor = torch.ones(len(x), *(1 for _ in SHAPE), dtype=x.dtype)
        if self.sde.sigma(t) / self.sde.alpha(t) < self.below:
            factor[self.row] = self.by
        return factor * self.base.denoise(x, t)


@pytest.mark.parametrize("by", [1e30, math.nan, math.inf], ids=str)
@pytest.mark.parametrize("name", ["ancestral", "em", "pc", "dpm-solver", "ode"])
def test_a_sample_is_lost_alone_and_the_others_are_handed_over(name, by):
    prior, sampler = gaussian(), registry.get_sampler(name, steps=STEPS)
    undisturbed = list(sampler.trajectory(Blown(base=prior, by=1.0), noise_of(prior, (4, 7, 9))))

    with pytest.raises(DivergenceError, match=r"The other 2 samples are sound\.") as caught:
        list(sampler.trajectory(Blown(base=prior, by=by), noise_of(prior, (4, 7, 9))))

    error = caught.value
    assert (error.samples, error.survivors) == ((7,), (4, 9))
    assert torch.equal(error.x, undisturbed[error.step].x[[0, 2]])
    assert ("grew without bound" if math.isfinite(by) else "became NaN or infinite") in str(error)


def test_a_prior_that_amplifies_stops_a_decoupled_loop():
    """Its turns go through an inner loop, which nobody watches but the outer one."""
    operator = registry.get_operator("inpainting", image_shape=SHAPE)
    measurement = simulate(operator, torch.zeros(SHAPE, dtype=torch.float64), 0.1)
    model = registry.get_conditioner("diffpir").condition(Blown(base=gaussian(), by=30.0, row=slice(None)), measurement)

    with pytest.raises(DivergenceError, match=r"samples .* grew without bound in step .*'decoupled'"):
        registry.get_sampler("decoupled", steps=STEPS).sample(model, 2)


def test_it_comes_back_from_another_process_as_it_is():
    with pytest.raises(DivergenceError) as caught:
        registry.get_sampler("em", steps=STEPS).sample(Blown(base=gaussian()), 3)
    error = caught.value
    error.add_note("found on node 3")

    found = pickle.loads(pickle.dumps(error))

    assert type(found) is DivergenceError
    assert (str(found), found.__notes__) == (str(error), error.__notes__)
    assert torch.equal(found.x, error.x)
    kept = ("step", "steps", "level", "t", "samples", "survivors", "norms")
    assert [getattr(found, name) for name in kept] == [getattr(error, name) for name in kept]


# The bound


@pytest.mark.parametrize(("sde", "level", "prior_std"), [("vp", 152.16697, 1.0), ("ve", 50.0, 50.0)])
def test_the_bound_knows_the_largest_noise_or_the_radius_of_the_data(sde, level, prior_std):
    prior = gaussian(sde)
    times = registry.get_sampler("em").times(prior.sde)

    class Known(WrappedModel):
        base, radius = prior, 2.5

    assert prior.radius is None
    assert bound(prior, times) == pytest.approx(FACTOR * (8 * level + 8 * prior_std), rel=1e-6)  # 8 = 64^{1/2}
    assert bound(Known(), times) == FACTOR * (2.5 + 8 * prior_std)


def state_of(norms, dtype=torch.float64):
    x = torch.zeros(len(norms), *SHAPE, dtype=dtype)
    x[:, 0, 3, 4] = torch.tensor(norms, dtype=dtype)
    return State(x=x, times=registry.get_sampler("em", steps=STEPS).times(registry.get_sde("vp")), index=3)


def judged(state, limit=100.0):
    sampler, prior = registry.get_sampler("em", steps=STEPS), gaussian()
    previous = attrs.evolve(state, x=torch.zeros_like(state.x), index=2)
    check(sampler, prior, previous, state, noise_of(prior, range(len(state.x))), limit=limit)


def test_the_bound_holds_for_each_sample_and_not_for_the_batch():
    judged(state_of([99.0] * 5))  # 221 together

    with pytest.raises(DivergenceError) as caught:
        judged(state_of([99.0, -101.0, 99.0]))

    assert caught.value.samples == (1,)


def test_a_norm_that_overflows_is_out_of_bounds_though_its_pixels_are_finite():
    with pytest.raises(DivergenceError, match=r"samples \[1\] grew without bound"):
        judged(state_of([1.0, 1e25], torch.float32))


def test_the_check_of_a_sound_state_is_one_norm_and_its_number():
    found = Counter()

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found[str(func)] += 1
            return func(*args, **(kwargs or {}))

    state = state_of([1.0, 2.0])
    with Count():
        check(None, None, state, state, None, limit=100.0)

    assert found == {"aten.linalg_vector_norm.default": 1, "aten._local_scalar_dense.default": 1}


# Where


@attrs.frozen(kw_only=True, eq=False)
class LostAt(ConditionedModel):
    """A projection that loses every sample in one phase, of a conditioner that does not say who it is."""

    phase: str

    def score(self, x, t):
        return self.prior.score(x, t)

    def project(self, x, step):
        return math.nan * x if step.phase == self.phase else x


@pytest.mark.parametrize(
    ("phase", "step", "where"),
    [
        ("start", 0, "in step 0 of 20, at noise level 152 (t = 1)"),
        ("predict", 1, "in step 1 of 20, at noise level 93.5 (t = 0.95)"),
        ("finish", 21, "in the last estimate, after step 20 of 20, at noise level 0.0105 (t = 0.001)"),
    ],
)
def test_the_start_and_the_last_estimate_are_looked_at_as_well(phase, step, where):
    prior = gaussian()
    measurement = Measurement(registry.get_operator("identity", image_shape=SHAPE), torch.zeros(SHAPE), 0.1)
    model = LostAt(prior=prior, measurement=measurement, phase=phase)

    with pytest.raises(DivergenceError) as caught:
        registry.get_sampler("ancestral", steps=STEPS).sample(model, 2)

    assert caught.value.step == step
    assert f"{where}, with sampler 'ancestral'. Norms" in str(caught.value)
    assert "No sample is left. Raise sampler.steps (now 20)" in str(caught.value)


# What to do


def test_parts_of_a_sampler_are_named_by_their_place_in_it():
    sampler = registry.get_sampler("pc", steps=STEPS, corrector={"name": "langevin", "rule": "ncsn", "step_size": 3.3})

    with pytest.raises(DivergenceError) as caught:
        sampler.sample(gaussian(), 2)

    assert str(caught.value).endswith(
        "Lower sampler.corrector.step_size (now 3.3), or raise sampler.steps (now 20)"
    )  # neither snr, which that rule does not ask, nor the predictor's steps, which pc does not


def test_a_diverging_conditioner_is_named_by_its_class_where_no_plugin_offers_it():
    @attrs.frozen
    class Mine:
        """Declares nothing."""

    @attrs.frozen(kw_only=True, eq=False)
    class MyScore(ConditionedModel):
        def score(self, x, t):
            return 1e30 * self.prior.score(x, t)

    measurement = Measurement(registry.get_operator("identity", image_shape=SHAPE), torch.zeros(SHAPE), 0.1)
    model = MyScore(prior=gaussian(), measurement=measurement, method=Mine())

    with pytest.raises(DivergenceError, match=r"conditioner 'Mine'.*since 'Mine' has no strength to lower"):
        registry.get_sampler("em", steps=STEPS).sample(model, 2)
