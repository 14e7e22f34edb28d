"""MCG: replacement around a guided prior, whose gradient is the formula's and does not see the measurement."""

import pytest
import torch

from scoreplug import Measurement, Noise, State, Step, registry, simulate
from scoreplug.operator import from_function
from scoreplug.run.compatibility import verdict
from scoreplug.testing import affine_moments

# mala and hmc say so; other tests look at that
pytestmark = pytest.mark.filterwarnings("ignore:.*acceptance is approximate")

SDES = ["vp", "ve", "subvp"]
SAMPLERS = [
    s.name for s in registry.list("sampler") if verdict(registry.spec("conditioner", "mcg"), s).state != "refused"
]
SHAPE = (1, 6, 6)
CPU = torch.device("cpu")
T = torch.tensor(0.4, dtype=torch.float64)
STATES = Noise(1, range(3), dtype=torch.float64, device=CPU).at("x").normal(SHAPE)
GENTLE = 0.02  # four steps instead of a thousand: the authors' scale would overshoot


def operators():
    """By name; "blur" alone leaves nothing unmeasured, so that its gradient vanishes."""
    generator = torch.Generator().manual_seed(0)
    return {
        "inpainting": registry.get_operator("inpainting", image_shape=SHAPE, mask="random", fraction=0.4),
        "downsampling": registry.get_operator("downsampling", image_shape=SHAPE, factor=2),
        "fourier": registry.get_operator("fourier", image_shape=SHAPE, acceleration=2.0, center_fraction=0.2),
        "blur": registry.get_operator("blur", image_shape=SHAPE, std=0.5),  # condition number 5
        "matrix": registry.get_operator(
            "matrix", image_shape=SHAPE, matrix=torch.randn(12, 36, generator=generator, dtype=torch.float64)
        ),
    }


OPERATORS = operators()


def smooth_prior(sde="vp", precision="float64"):
    i = torch.arange(36, dtype=torch.float64)
    covariance = 0.3 * (-(i[:, None] - i).abs() / 4).exp()
    return registry.get_model(
        "gaussian", image_shape=SHAPE, mean=0.2, covariance=covariance, sde=sde, precision=precision
    )


def image(dtype=torch.float64):
    return (torch.arange(36, dtype=torch.float64).reshape(SHAPE) / 10).sin().to(dtype)


def posterior_of(operator, sde="vp", precision="float64", name="mcg", **params):
    prior = smooth_prior(sde, precision)
    return registry.get_conditioner(name, **params).condition(prior, simulate(operator, image(prior.dtype), 0.0))


def weighted_norms(prior, operator, y, x, t, weighting):
    """|W (y - A E[x_0 | x_t])| of each sample, by autograd's graph."""
    r = (y - operator(prior.denoise(x, t))).flatten(1)
    if weighting == "pinv":
        r = operator.pinv(r.reshape(-1, *operator.output_shape)).flatten(1)
    return r.norm(dim=1)


@pytest.mark.parametrize("weighting", ["identity", "pinv"])
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("sde", SDES)
def test_the_guidance_is_the_unmeasured_part_of_the_norms_gradient(sde, name, weighting):
    operator = OPERATORS[name]
    posterior, prior = posterior_of(operator, sde, scale=0.3, weighting=weighting), smooth_prior(sde)
    y = posterior.measurement.data

    x = STATES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(weighted_norms(prior, operator, y, x, T, weighting).sum(), x)
    gradient = gradient - operator.pinv(operator(gradient))

    chain = registry.get_sde("vp")
    b = chain.beta(chain.time_of(prior.sde.level(T))) / 1000
    unit = operator.norm if weighting == "identity" else 1.0
    expected = prior.score(STATES, T) - 0.3 * (1 - b).sqrt() / b * gradient / unit
    # the score comes back from x0 by Tweedie, 1e-16 |x| / sigma^2, and the rate is 1e2 to 1e4
    torch.testing.assert_close(posterior.score(STATES, T), expected, rtol=1e-9, atol=1e-9)
    shift = posterior.denoise(STATES, T) - prior.denoise(STATES, T)
    assert float(operator(shift).abs().max()) < 1e-9  # the measurement does not see it
    assert (float(shift.abs().max()) > 1e-3) == (name != "blur")


def test_a_thousand_ddpm_steps_are_the_authors_inpainting():
    """x_s = (1 - M) (x'_s - w grad |M (y - x0)|) + M (alpha_s y + sigma_s z), x' a step of DDPM."""
    operator, w = OPERATORS["inpainting"], 0.5
    posterior, prior = posterior_of(operator, scale=w), smooth_prior()
    known = operator.observed
    ddpm = registry.get_sampler("ancestral", eta=1.0, steps=1000)
    times = ddpm.times(prior.sde)

    for index in (10, 500, 900):
        t, s = times[index], times[index + 1]
        noise = Noise(0, range(3), dtype=torch.float64, device=CPU).at("step", index)
        x = STATES.clone().requires_grad_()
        norms = ((image() - prior.denoise(x, t)) * known).flatten(1).norm(dim=1)
        (gradient,) = torch.autograd.grad(norms.sum(), x)
        noised = prior.sde.alpha(s) * image() + prior.sde.sigma(s) * noise.at("project").at("y").normal(SHAPE)

        x_s = ddpm.step(posterior, State(x=STATES, times=times, index=index), noise).x

        torch.testing.assert_close(x_s[:, known], noised[:, known], rtol=1e-12, atol=1e-12)
        shift = x_s - ddpm.transition(prior, STATES, t, s, noise).x
        # the chain's b is the integral of beta over the step; at t = 0.1 beta' dt / (2 beta) is 0.5 %
        torch.testing.assert_close(shift[:, ~known], -w * gradient[:, ~known], rtol=2e-2, atol=1e-6)
        assert float(gradient[:, ~known].abs().max()) > 1e-3


@pytest.mark.parametrize("phase", ["predict", "finish"])
def test_the_authors_measurement_is_of_the_level_that_the_update_came_from_even_at_the_end(phase):
    operator = OPERATORS["inpainting"]
    posterior = posterior_of(operator, compat="authors")
    t, s = (torch.tensor(v, dtype=torch.float64) for v in ((0.4, 0.3) if phase == "predict" else (1e-3, 1e-3)))
    noise = Noise(0, range(3), dtype=torch.float64, device=CPU)

    projected = posterior.project(STATES, Step(t=t, s=s, x0=STATES, gain=0.0, phase=phase, noise=noise))

    noised = posterior.sde.alpha(t) * image() + posterior.sde.sigma(t) * noise.at("y").normal(SHAPE)
    expected = torch.where(operator.observed, noised, STATES)
    torch.testing.assert_close(projected, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weighting", ["identity", "pinv"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", OPERATORS)
def test_the_samples_agree_with_exact_data(name, sampler, weighting):
    operator = OPERATORS[name]
    posterior = posterior_of(operator, scale=GENTLE, weighting=weighting)

    samples = registry.get_sampler(sampler, steps=4).sample(posterior, 2)

    y = posterior.measurement.data
    assert float((operator(samples) - y).flatten(1).norm(dim=1).max()) <= 1e-10 * float(y.norm())


@pytest.mark.parametrize("name", ["inpainting", "downsampling", "matrix"])
def test_the_state_has_the_noised_measurement_after_every_step(name):
    operator, seen = OPERATORS[name], []
    posterior = posterior_of(operator, scale=GENTLE)
    registry.get_sampler("em", steps=4).sample(posterior, 2, callback=seen.append)
    run = Noise(0, range(2), dtype=torch.float64, device=CPU)

    for state in seen[1:5]:
        z = run.at("step", state.index - 1).at("project").at("y").normal(SHAPE)
        alpha, sigma = posterior.sde.alpha(state.t), posterior.sde.sigma(state.t)
        y_s = alpha * posterior.measurement.data + sigma * operator(z)

        assert float((operator(state.x) - y_s).norm()) <= 1e-10 * float(y_s.norm())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_scale_zero_is_replacement_bit_for_bit(sampler):
    operator, sampler = OPERATORS["inpainting"], registry.get_sampler(sampler, steps=4)

    replaced = sampler.sample(posterior_of(operator, name="song", weight=1.0), 2)

    assert torch.equal(sampler.sample(posterior_of(operator, scale=0.0), 2), replaced)
    gentle = sampler.sample(posterior_of(operator, scale=GENTLE), 2)
    assert not torch.allclose(gentle, replaced, rtol=0, atol=1e-6)


def test_it_is_song_around_dps_but_for_the_measured_part_of_the_gradient():
    operator = OPERATORS["matrix"]
    measurement = simulate(operator, image(), 0.0)
    mcg = registry.get_conditioner("mcg", scale=0.3).condition(smooth_prior(), measurement)
    dps = registry.get_conditioner("dps", scale=0.3).condition(smooth_prior(), measurement)

    x0, shift = smooth_prior().denoise(STATES, T), dps.denoise(STATES, T) - smooth_prior().denoise(STATES, T)

    unseen = shift - operator.pinv(operator(shift))
    torch.testing.assert_close(mcg.denoise(STATES, T), x0 + unseen, rtol=1e-10, atol=1e-10)
    assert float(operator(shift).abs().max()) > 1e-2  # dps alone does move the measured part


def two_variables(scale, y=1.0, rho=0.5):
    prior = registry.get_model("gaussian", image_shape=(1, 1, 2), covariance=torch.tensor([[1.0, rho], [rho, 1.0]]))
    operator = registry.get_operator("matrix", image_shape=(1, 1, 2), matrix=((1.0, 0.0),))
    measurement = Measurement(operator, torch.tensor([y], dtype=torch.float64), 0.0)
    return registry.get_conditioner("mcg", scale=scale).condition(prior, measurement)


def test_the_gradient_moves_the_unmeasured_variable_beyond_the_posterior():
    """Towards y / rho, where the prior's guess of the measured variable is y; without it half as far as it should."""
    y, rho, n = 1.0, 0.5, 400
    ddpm = registry.get_sampler("ancestral", steps=100)

    x_2 = ddpm.sample(two_variables(0.1), n)[:, 0, 0, 1]
    without, _ = affine_moments(ddpm, two_variables(0.0))

    error = 5 * float(x_2.std()) / n**0.5
    assert abs(float(x_2.mean()) - rho * y) > 1.0 + error
    assert abs(float(x_2.mean()) - y / rho) < 0.35 + error
    assert float(without[1]) < 0.55 * rho * y  # an exact recursion


def test_the_gradient_has_one_length_whatever_the_residual():
    """It only turns round where the prior's guess passes the data: that is why the score is not affine."""
    guided, prior = two_variables(1.0), two_variables(0.0)
    x = torch.tensor([[-3.0, 0.0], [0.1, 0.4], [4.0, 2.0]], dtype=torch.float64).reshape(3, 1, 1, 2)

    shift = (guided.denoise(x, T) - prior.denoise(x, T)).flatten(1)

    assert float(shift[:, 0].abs().max()) < 1e-10
    # the guess of x_1 is below y = 1, below it, above it
    torch.testing.assert_close(shift[:, 1], shift[0, 1].abs() * torch.tensor([1.0, 1.0, -1.0]), check_dtype=False)


@pytest.mark.parametrize("weighting", ["identity", "pinv"])
def test_an_exact_fit_gives_the_prior_not_nan(weighting):
    prior, operator = smooth_prior(), OPERATORS["inpainting"]
    fitted = Measurement(operator, operator(prior.denoise(STATES[:1], T))[0], 0.0)

    posterior = registry.get_conditioner("mcg", weighting=weighting).condition(prior, fitted)

    torch.testing.assert_close(posterior.score(STATES[:1], T), prior.score(STATES[:1], T), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("weighting", ["identity", "pinv"])
def test_the_scale_does_not_depend_on_the_unit_of_the_measurement(weighting):
    def score(unit):
        operator = registry.get_operator("matrix", image_shape=(1, 1, 2), matrix=((unit, 0.5 * unit),))
        prior = registry.get_model("gaussian", image_shape=(1, 1, 2), covariance=((1.0, 0.5), (0.5, 2.0)))
        measurement = Measurement(operator, torch.tensor([unit * 1.3], dtype=torch.float64), 0.0)
        x = torch.tensor([[0.3, -2.0]], dtype=torch.float64).reshape(1, 1, 1, 2)
        return registry.get_conditioner("mcg", weighting=weighting).condition(prior, measurement).score(x, T)

    torch.testing.assert_close(score(1000.0), score(1.0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sde", ["ve", "subvp"])
def test_the_scale_does_not_depend_on_the_sde(sde):
    vp = posterior_of(OPERATORS["downsampling"])
    other = vp.under(registry.get_sde(sde))
    s = other.sde.time_of(vp.sde.level(T))

    there = other.denoise(STATES * other.sde.alpha(s) / vp.sde.alpha(T), s)

    torch.testing.assert_close(there, vp.denoise(STATES, T), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("weighting", ["identity", "pinv"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_sample_keeps_its_type_and_does_not_know_its_batch_mates(precision, weighting):
    """Times of the samples' own included."""
    posterior = posterior_of(OPERATORS["downsampling"], precision=precision, weighting=weighting)
    x, times = STATES.to(posterior.dtype), torch.tensor([0.2, 0.4, 0.7], dtype=torch.float64)
    before = x.clone()

    three = posterior.denoise(x, times)
    apart = torch.cat([posterior.denoise(x[i : i + 1], times[i]) for i in range(3)])

    assert three.dtype == posterior.dtype
    assert not three.requires_grad
    assert torch.equal(x, before)
    tolerance = 1e-4 if precision == "float32" else 1e-12  # a guidance of size 10, coefficients rounded to the type
    torch.testing.assert_close(apart, three, rtol=tolerance, atol=tolerance)


def test_it_refuses_operators_without_a_pseudoinverse():
    prior, data, mcg = smooth_prior(), torch.ones(SHAPE, dtype=torch.float64), registry.get_conditioner("mcg")
    squared = Measurement(from_function(lambda x: x**2, SHAPE), data, 0.0)
    with pytest.raises(TypeError, match=r"'mcg' needs a linear operator with a pseudoinverse .*; use dps"):
        mcg.condition(prior, squared)

    doubled = Measurement(from_function(lambda x: 2 * x, SHAPE, linear=True), data, 0.0)
    with pytest.raises(TypeError, match=r"pinv\(y\), which LinearFunctionOperator does not have; use .*with_dense_svd"):
        mcg.condition(prior, doubled)
