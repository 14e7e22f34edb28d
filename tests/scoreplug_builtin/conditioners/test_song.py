"""Projection: the formula is that of the papers, the data are met exactly, and the bias is the known one."""

import itertools
import math

import pytest
import scipy.integrate
import torch

from scoreplug import Measurement, Noise, Step, registry, simulate
from scoreplug.operator import from_function
from scoreplug.run.compatibility import verdict
from scoreplug.testing import affine_moments

SDES = ["vp", "ve", "subvp"]
SAMPLERS = [
    s.name for s in registry.list("sampler") if verdict(registry.spec("conditioner", "song"), s).state != "refused"
]
SHAPE = (1, 8, 8)
CPU = torch.device("cpu")


def symmetric_columns():
    """Columns 2 to 6 of k-space, whose origin is column 4: the mask is the same at k and -k."""
    mask = torch.zeros(8)
    mask[2:7] = 1
    return mask


def operators():
    """By name; all but "blur" leave something unmeasured, all but "fourier" have full row rank."""
    generator = torch.Generator().manual_seed(0)
    return {
        "inpainting": registry.get_operator("inpainting", image_shape=SHAPE, mask="random", fraction=0.4),
        "downsampling": registry.get_operator("downsampling", image_shape=SHAPE, factor=2),
        "fourier": registry.get_operator("fourier", image_shape=SHAPE, acceleration=2.0),
        "blur": registry.get_operator("blur", image_shape=SHAPE, std=0.5),  # condition number 5
        "matrix": registry.get_operator(
            "matrix", image_shape=SHAPE, matrix=torch.randn(20, 64, generator=generator, dtype=torch.float64)
        ),
    }


OPERATORS = operators()


def smooth_prior(sde="vp", precision="float64"):
    i = torch.arange(64, dtype=torch.float64)
    covariance = 0.3 * (-(i[:, None] - i).abs() / 4).exp()
    return registry.get_model(
        "gaussian", image_shape=SHAPE, mean=0.2, covariance=covariance, sde=sde, precision=precision
    )


def image(dtype=torch.float64):
    return (torch.arange(64, dtype=torch.float64).reshape(SHAPE) / 20).sin().to(dtype)


def posterior_of(operator, sde="vp", precision="float64", **params):
    prior = smooth_prior(sde, precision)
    return registry.get_conditioner("song", **params).condition(prior, simulate(operator, image(prior.dtype), 0.0))


def source(n=3, dtype=torch.float64):
    return Noise(3, range(n), dtype=dtype, device=CPU)


def step_of(phase, t=0.6, s=0.5, noise=None):
    s = s if phase == "predict" else t
    t, s = (torch.tensor(v, dtype=torch.float64) for v in (t, s))
    return Step(t=t, s=s, x0=None, gain=0.0, phase=phase, noise=source() if noise is None else noise)


def centred_fft(x):
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))


def centred_ifft(k):
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(k, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))


@pytest.mark.parametrize("weight", [1.0, 0.841, 0.3])
@pytest.mark.parametrize("sde", SDES)
def test_an_mri_is_mixed_in_k_space(sde, weight):
    """T^-1 [lam Lam P^T y_t + (1 - lam) Lam T x + (I - Lam) T x] with T = F on complex images."""
    shape = (2, 8, 8)
    operator = registry.get_operator("fourier", image="complex", image_shape=shape, acceleration=2.0)
    prior = registry.get_model("gaussian", image_shape=shape, sde=sde)
    truth, x = source(1).at("truth").normal(shape), source().at("x").normal(shape)
    measurement = simulate(operator, truth[0], 0.0)
    posterior = registry.get_conditioner("song", weight=weight).condition(prior, measurement)
    step = step_of("predict")

    projected = posterior.project(x, step)

    alpha, sigma = prior.sde.alpha(step.s), prior.sde.sigma(step.s)
    z = step.noise.at("y").normal(shape)
    k_truth, k_z, k_x = (centred_fft(torch.complex(v[:, 0], v[:, 1])) for v in (truth, z, x))
    k_t = alpha * k_truth + sigma * k_z
    Lam = operator.measured.to(torch.float64)
    merged = centred_ifft(weight * Lam * k_t + (1 - weight) * Lam * k_x + (1 - Lam) * k_x)
    # two FFTs of values of size one (VE: 50)
    torch.testing.assert_close(projected, torch.stack([merged.real, merged.imag], 1), rtol=1e-11, atol=1e-11)


def test_a_real_mri_is_the_real_part_of_the_mix_when_the_mask_is_symmetric():
    """The authors take the real part after the inverse transform: that is A^+ if k and -k are measured together."""
    operator = registry.get_operator("fourier", image_shape=SHAPE, mask=symmetric_columns())
    posterior = posterior_of(operator, weight=0.7)
    x, step = source().at("x").normal(SHAPE), step_of("correct")

    projected = posterior.project(x, step)

    alpha, sigma = posterior.sde.alpha(step.s), posterior.sde.sigma(step.s)
    k_t = centred_fft(alpha * image() + sigma * step.noise.at("y").normal(SHAPE))
    k_x, Lam = centred_fft(x), symmetric_columns().to(torch.float64)
    merged = centred_ifft(0.7 * Lam * k_t + 0.3 * Lam * k_x + (1 - Lam) * k_x).real
    torch.testing.assert_close(projected, merged, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("phase", ["start", "predict", "correct"])
@pytest.mark.parametrize("sde", SDES)
def test_inpainting_replaces_the_known_pixels_by_noised_ones(sde, phase):
    """Score-SDE's inpainting, x <- (1 - M) x + M (alpha y + sigma z), at the level that the state is at."""
    operator = OPERATORS["inpainting"]
    posterior, x, step = posterior_of(operator, sde), source().at("x").normal(SHAPE), step_of(phase)

    projected = posterior.project(x, step)

    level = torch.tensor(0.5 if phase == "predict" else 0.6, dtype=torch.float64)
    noised = posterior.sde.alpha(level) * image() + posterior.sde.sigma(level) * step.noise.at("y").normal(SHAPE)
    expected = torch.where(operator.observed, noised, x)
    torch.testing.assert_close(projected, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(projected[:, ~operator.observed], x[:, ~operator.observed])  # not touched at all


def test_the_authors_measurement_is_of_the_level_that_the_update_came_from():
    operator = OPERATORS["inpainting"]
    posterior, x = posterior_of(operator, compat="authors"), source().at("x").normal(SHAPE)
    step = step_of("predict")

    projected = posterior.project(x, step)

    noised = posterior.sde.alpha(step.t) * image() + posterior.sde.sigma(step.t) * step.noise.at("y").normal(SHAPE)
    torch.testing.assert_close(projected, torch.where(operator.observed, noised, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("phase", ["start", "predict", "correct"])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_state_has_the_noised_measurement_after_every_update(name, phase):
    operator, step = OPERATORS[name], step_of(phase)
    posterior, x = posterior_of(operator), source().at("x").normal(SHAPE)

    projected = posterior.project(x, step)

    y, z = posterior.measurement.data, step.noise.at("y").normal(SHAPE)
    y_s = posterior.sde.alpha(step.s) * y + posterior.sde.sigma(step.s) * operator(z)
    # condition numbers up to 5 times rounding, with room
    assert float((operator(projected) - y_s).norm()) <= 1e-10 * float(y_s.norm())
    # with the same z the projection is one: a second time changes nothing
    torch.testing.assert_close(posterior.project(projected, step), projected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", OPERATORS)
def test_the_samples_agree_with_exact_data(name, sampler):
    operator = OPERATORS[name]
    posterior = posterior_of(operator)

    samples = registry.get_sampler(sampler, steps=4).sample(posterior, 2)

    y = posterior.measurement.data
    assert float((operator(samples) - y).flatten(1).norm(dim=1).max()) <= 1e-10 * float(y.norm())


def test_contradicting_data_are_met_in_the_least_squares_sense():
    """Two detectors that see the same pixel and disagree: A A^+ y is their mean."""
    operator = registry.get_operator("matrix", image_shape=(1, 1, 2), matrix=((1.0, 0.0), (1.0, 0.0)))
    prior = registry.get_model("gaussian", image_shape=(1, 1, 2))
    measurement = Measurement(operator, torch.tensor([1.0, 2.0], dtype=torch.float64), 0.0)

    posterior = registry.get_conditioner("song").condition(prior, measurement)

    samples = registry.get_sampler("em", steps=4).sample(posterior, 2)
    torch.testing.assert_close(samples[:, 0, 0, 0], torch.full((2,), 1.5, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("finish", "share"), [("exact", 1.0), ("soft", 0.3), ("none", 0.0)])
def test_the_finish_moves_the_estimate_by_its_share_towards_the_data(finish, share):
    operator = OPERATORS["downsampling"]
    posterior, x0 = posterior_of(operator, weight=0.3, finish=finish), source().at("x").normal(SHAPE)

    finished = posterior.project(x0, step_of("finish"))

    # each block is shifted by a share of what its mean lacks
    shift = share * (posterior.measurement.data - operator(x0)).repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(finished, x0 + shift, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("finish", ["exact", "soft", "none"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_weight_zero_is_the_prior_bit_for_bit(sampler, finish):
    sampler = registry.get_sampler(sampler, steps=4)
    posterior = posterior_of(OPERATORS["inpainting"], weight=0.0, finish=finish)

    assert torch.equal(sampler.sample(posterior, 2), sampler.sample(smooth_prior(), 2))


def test_the_weight_is_continuous_at_zero():
    """The shortcut for weight 0 is the limit of the formula, but for an exact finish."""
    sampler = registry.get_sampler("pc", steps=4)
    nearly = posterior_of(OPERATORS["inpainting"], weight=1e-9, finish="soft")

    torch.testing.assert_close(sampler.sample(nearly, 2), sampler.sample(smooth_prior(), 2), rtol=0, atol=1e-7)


def two_variables(sde, S, y, sigma_y=0.0):
    """Two normal variables, the first measured."""
    prior = registry.get_model("gaussian", image_shape=(1, 1, 2), covariance=S, sde=sde)
    operator = registry.get_operator("matrix", image_shape=(1, 1, 2), matrix=((1.0, 0.0),))
    measurement = Measurement(operator, torch.tensor([y], dtype=torch.float64), sigma_y)
    return registry.get_conditioner("song").condition(prior, measurement)


def correlated(rho):
    return torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)


def fine(sde):
    """A process that starts and ends far beyond the prior's own scale."""
    params = {"t_min": 1e-5} if sde == "vp" else {"sigma_min": 1e-3, "sigma_max": 1e3}
    return registry.get_sde(sde, **params)


def many_steps(sampler, posterior):
    """Mean and variance of the unmeasured variable as the steps become many: from three step numbers, to third order
    in the step."""

    def moments(steps):
        mean, covariance = affine_moments(registry.get_sampler(sampler, steps=steps, grid="rho"), posterior)
        assert float(mean[0]) == pytest.approx(float(posterior.measurement.data), abs=1e-12)
        assert float(covariance[0].abs().max()) < 1e-14  # the measured one is y itself
        return torch.stack([mean[1], covariance[1, 1]])

    few, more, most = (moments(steps) for steps in (80, 160, 320))
    return (8 * most - 6 * more + few) / 3


@pytest.mark.parametrize("rho", [0.5, 0.8])
@pytest.mark.parametrize("sampler", ["em", "ancestral"])
@pytest.mark.parametrize("sde", ["vp", "ve"])
def test_replacement_tends_to_its_own_limit_not_to_the_posterior(sde, sampler, rho):
    y = 1.3
    mean, variance = many_steps(sampler, two_variables(fine(sde), correlated(rho), y)).tolist()

    # what is left is of third order in the step: at most 4e-4 here, and 7 times less with twice the steps
    assert mean == pytest.approx(y / rho * (1 - math.sqrt(1 - rho**2)), abs=5e-5)
    assert variance == pytest.approx((1 - rho**2) * math.atanh(rho) / rho, abs=5e-4)
    assert mean < 0.7 * rho * y
    assert variance > 1.09 * (1 - rho**2)


def test_the_limit_for_any_covariance_is_that_of_the_averaged_score():
    """With u = level^2 and K = (S + u I)^-1, averaging the score over y_t leaves dx = -(K_21 y + K_22 x) du + dw as u
    falls, so that the mean is -y int K_21 e^-G and the variance int e^-2G, G(u) = int_0^u K_22."""
    S, y = torch.tensor([[1.4, 0.9], [0.9, 0.8]], dtype=torch.float64), 0.9
    eigenvalues, Q = torch.linalg.eigh(S)

    def G(u):
        return float((Q[1] ** 2 * (1 + u / eigenvalues).log()).sum())

    def K_21(u):
        return float((Q[1] * Q[0] / (eigenvalues + u)).sum())

    expected_mean = -y * scipy.integrate.quad(lambda u: K_21(u) * math.exp(-G(u)), 0, math.inf)[0]
    expected_variance = scipy.integrate.quad(lambda u: math.exp(-2 * G(u)), 0, math.inf)[0]

    mean, variance = many_steps("em", two_variables(fine("vp"), S, y)).tolist()

    # as above
    assert mean == pytest.approx(expected_mean, abs=5e-5)
    assert variance == pytest.approx(expected_variance, abs=5e-4)
    assert abs(expected_mean - 0.9 / 1.4 * y) > 0.1  # the posterior's is another


@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_langevin_moves_at_every_level_lessen_the_bias(rho):
    posterior = two_variables(fine("ve"), correlated(rho), 1.0)

    def bias(moves):
        corrector = {"name": "langevin", "snr": 0.3, "moves": moves}
        name, params = ("pc", {"corrector": corrector}) if moves else ("em", {})
        mean, covariance = affine_moments(registry.get_sampler(name, steps=60, grid="rho", **params), posterior)
        return abs(float(mean[1]) - rho), abs(float(covariance[1, 1]) - (1 - rho**2))

    mean_bias, variance_bias = zip(*(bias(moves) for moves in (0, 1, 2, 4, 8, 16)), strict=True)

    for values in (mean_bias, variance_bias):  # exact recursions; from line to line they fall by 12 % or more
        assert all(later < 0.9 * earlier for earlier, later in itertools.pairwise(values))
        assert values[-1] < 0.3 * values[0]


def test_noise_in_the_data_is_reproduced():
    """sigma_y is not used: y is taken as exact."""
    S = correlated(0.5)
    sampler = registry.get_sampler("em", steps=4)

    exact, noisy = (sampler.sample(two_variables("vp", S, 1.3, sigma_y), 2) for sigma_y in (0.0, 0.6))

    assert torch.equal(exact, noisy)


@pytest.mark.parametrize("sde", ["ve", "subvp"])
def test_the_projection_is_the_same_under_every_sde(sde):
    """At the same noise level x/alpha is moved to the same place."""
    vp = posterior_of(OPERATORS["downsampling"], weight=0.6)
    other = vp.under(registry.get_sde(sde))
    x, step = source().at("x").normal(SHAPE), step_of("correct")
    s = other.sde.time_of(vp.sde.level(step.s))
    alpha, alpha_other = vp.sde.alpha(step.s), other.sde.alpha(s)

    there = other.project(alpha_other * x, Step(t=s, s=s, x0=None, gain=0.0, phase="correct", noise=step.noise))

    torch.testing.assert_close(there / alpha_other, vp.project(alpha * x, step) / alpha, rtol=1e-9, atol=1e-9)


def test_two_measurements_of_two_parts_are_one_measurement_of_both():
    """Around one another, the projections share the noised image z: both measurements hold at once."""
    left = registry.get_operator("inpainting", image_shape=SHAPE, mask="half", side="right")
    top = registry.get_operator("inpainting", image_shape=SHAPE, mask="half", side="bottom")
    both = registry.get_operator("inpainting", image_shape=SHAPE, mask=(left.observed | top.observed).float())
    song, sampler = registry.get_conditioner("song"), registry.get_sampler("pc", steps=4)

    inner = song.condition(smooth_prior(), simulate(left, image(), 0.0))
    nested = song.condition(inner, simulate(top, image(), 0.0))

    once = posterior_of(both)
    torch.testing.assert_close(sampler.sample(nested, 2), sampler.sample(once, 2), rtol=1e-10, atol=1e-10)


def test_it_projects_the_samples_of_another_conditioner():
    operator, song = OPERATORS["inpainting"], registry.get_conditioner("song")
    measurement = simulate(operator, image(), 0.1)
    guided = registry.get_conditioner("dps", scale=0.1).condition(smooth_prior(), measurement)
    x, t = source().at("x").normal(SHAPE), torch.tensor(0.4, dtype=torch.float64)

    posterior = song.condition(guided, measurement)

    assert torch.equal(posterior.score(x, t), guided.score(x, t))
    assert torch.equal(posterior.denoise(x, t), guided.denoise(x, t))
    _, vjp = song.condition(smooth_prior(), measurement).denoise_with_vjp(x, t)
    assert torch.equal(vjp(x), smooth_prior().denoise_with_vjp(x, t)[1](x))


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", OPERATORS)
def test_a_projected_sample_keeps_its_type_and_does_not_know_its_batch_mates(name, precision):
    posterior = posterior_of(OPERATORS[name], precision=precision)
    dtype = posterior.dtype
    x = source(3, dtype).at("x").normal(SHAPE)
    before = x.clone()

    three = posterior.project(x, step_of("predict", noise=source(3, dtype)))
    last = posterior.project(x[2:], step_of("predict", noise=Noise(3, (2,), dtype=dtype, device=CPU)))

    assert three.dtype == dtype
    assert torch.equal(x, before)
    # sums over another batch shape may round differently
    torch.testing.assert_close(last, three[2:], rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-13)


def test_it_refuses_operators_without_a_pseudoinverse():
    prior, data = smooth_prior(), torch.ones(SHAPE, dtype=torch.float64)
    song = registry.get_conditioner("song")
    squared = Measurement(from_function(lambda x: x**2, SHAPE), data, 0.0)
    with pytest.raises(TypeError, match=r"'song' needs a linear operator with a pseudoinverse .*; use dps"):
        song.condition(prior, squared)

    doubled = Measurement(from_function(lambda x: 2 * x, SHAPE, linear=True), data, 0.0)
    with pytest.raises(TypeError, match=r"pinv\(y\), which LinearFunctionOperator does not have; use .*with_dense_svd"):
        song.condition(prior, doubled)
