"""DMPS: the paper's score, exact for a flat prior, with a known law elsewhere; the network is not differentiated."""

import math

import pytest
import torch

from scoreplug import Measurement, registry
from scoreplug.operator import from_function
from scoreplug.run.cost import Cost, counted_model
from scoreplug.testing import affine_moments
from scoreplug_builtin.conditioners.dmps import DMPS

SDES = ["vp", "ve", "subvp"]
SHAPE, EYE = (1, 2, 3), torch.eye(6, dtype=torch.float64)
T = torch.tensor(0.4, dtype=torch.float64)
S, GAIN, SIGMA_Y, Y = 1.7, 0.8, 0.6, 1.3  # the scalar problem


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


A, DATA, STATES = random(4, 6, seed=1), random(4, seed=2), random(5, *SHAPE, seed=3)


def smooth_prior(sde="vp"):
    root = random(6, 6, seed=4)
    return registry.get_model("gaussian", image_shape=SHAPE, covariance=root @ root.T + EYE, sde=sde)


def decomposed(rows=A):
    return registry.get_operator("matrix", image_shape=SHAPE, matrix=rows)


def solved_iteratively(rows=A):
    return from_function(lambda v: v.flatten(1) @ rows.T, SHAPE, linear=True)


def paper_guidance(sde, t, sigma_y):
    """A^T (level^2 A A^T + sigma_y^2 I)^{-1} (y - A x / alpha) / alpha at STATES."""
    alpha, level = sde.alpha(t), sde.level(t)
    M = level**2 * A @ A.T + sigma_y**2 * torch.eye(4, dtype=torch.float64)
    pull = torch.linalg.solve(M, (DATA - STATES.flatten(1) @ A.T / alpha).T).T @ A / alpha
    return pull.reshape(STATES.shape)


@pytest.mark.parametrize(
    ("make", "sigma_y"),
    [(decomposed, 0.3), (solved_iteratively, 0.3), (decomposed, 0.0)],
    ids=["decomposed", "iterative", "exact-data"],
)
@pytest.mark.parametrize("sde", SDES)
def test_score_and_estimate_are_the_papers(sde, make, sigma_y):
    prior = smooth_prior(sde)
    posterior = DMPS(scale=0.7, tolerance=1e-12).condition(prior, Measurement(make(), DATA, sigma_y))

    for t in torch.tensor([0.05, 0.4, 0.9], dtype=torch.float64):
        g = 0.7 * paper_guidance(prior.sde, t, sigma_y)
        torch.testing.assert_close(posterior.score(STATES, t), prior.score(STATES, t) + g, rtol=1e-8, atol=1e-8)
        x0 = prior.denoise(STATES, t) + prior.sde.sigma(t) ** 2 / prior.sde.alpha(t) * g
        torch.testing.assert_close(posterior.denoise(STATES, t), x0, rtol=1e-8, atol=1e-8)


def distance_to_the_posterior(variance, sde, sigma_y):
    """Largest difference from the score of N(0, variance I) given the data, relative to the largest score."""
    rows, data = random(7, 6, seed=6), random(7, seed=7)  # every pixel is measured: the posterior is proper
    prior = registry.get_model("gaussian", image_shape=SHAPE, covariance=variance, sde=sde)
    score = DMPS().condition(prior, Measurement(decomposed(rows), data, sigma_y)).score(STATES, T).flatten(1)
    alpha, sigma = prior.sde.alpha(T), prior.sde.sigma(T)
    V = torch.linalg.inv(EYE / variance + rows.T @ rows / sigma_y**2)
    m = V @ rows.T @ data / sigma_y**2
    exact = -torch.linalg.solve(alpha**2 * V + sigma**2 * EYE, (STATES.flatten(1) - alpha * m).T).T
    return float((score - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("sde", SDES)
def test_a_flat_prior_gets_the_posteriors_score(sde):
    """The error falls like one over the prior's variance."""
    errors = [distance_to_the_posterior(variance, sde, 0.3) for variance in (1e5, 1e6, 1e10)]

    assert errors[0] > 1e-8
    assert errors[1] / errors[0] == pytest.approx(0.1, rel=0.05)
    assert errors[2] < 1e-8


@pytest.mark.parametrize("sde", ["vp", "ve"])
def test_the_reverse_sde_tends_to_the_law_of_the_docstring(sde):
    """The scheme is of first order, so twice the value at 2 N steps less that at N is second order."""
    process = (
        registry.get_sde("vp", t_min=1e-5) if sde == "vp" else registry.get_sde(sde, sigma_min=1e-3, sigma_max=1e3)
    )
    prior = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=S, sde=process)
    operator = from_function(lambda x: GAIN * x, (1, 1, 1), linear=True)
    measurement = Measurement(operator, torch.full((1, 1, 1), Y, dtype=torch.float64), SIGMA_Y)
    posterior = DMPS().condition(prior, measurement)
    q = SIGMA_Y**2 / GAIN**2
    mean = Y / GAIN * S * q * (1 / (q * (S - q)) - math.log(S / q) / (S - q) ** 2)
    variance = S**2 * q**2 / (S - q) ** 2 * (1 / S + 1 / q - 2 * math.log(S / q) / (S - q))

    def moments(steps):
        sampler = registry.get_sampler("em", steps=steps, grid="rho")
        return torch.cat([m.flatten() for m in affine_moments(sampler, posterior)])

    assert (mean, variance) == pytest.approx((1.10034, 0.29781), abs=1e-5)
    assert (2 * moments(200) - moments(100)).tolist() == pytest.approx([mean, variance], abs=4e-3)
    assert mean < Y / GAIN * S / (S + q) - 0.1
    assert variance < S * q / (S + q) - 0.1


@pytest.mark.parametrize("sigma_y", [0.3, 0.0], ids=["noisy", "exact-data"])
def test_the_log_density_is_the_one_whose_gradient_the_score_is(sigma_y):
    means = torch.tensor([[0.5, -0.3, 1.4], [-0.6, 0.2, 0.1]], dtype=torch.float64)
    prior = registry.get_model("gaussian-mixture", image_shape=(1, 1, 3), means=means, covariances=0.2)
    operator = registry.get_operator("matrix", image_shape=(1, 1, 3), matrix=((1.0, 0.4, -0.7), (0.0, 2.0, 0.3)))
    measurement = Measurement(operator, torch.tensor([0.7, -0.1], dtype=torch.float64), sigma_y)
    posterior = DMPS(scale=0.8).condition(prior, measurement)
    x = torch.tensor([[0.4, 0.1, 1.9], [-0.5, 0.3, -0.2]], dtype=torch.float64).reshape(2, 1, 1, 3)

    score, log_density = posterior.score_and_log_density(x, T)

    h = 1e-5
    steps = h * torch.eye(3, dtype=torch.float64).reshape(3, 1, 1, 1, 3)
    slopes = [(posterior.log_density(x + step, T) - posterior.log_density(x - step, T)) / (2 * h) for step in steps]
    # rounding 1e-16 / h, curvature h^2
    torch.testing.assert_close(score.flatten(1), torch.stack(slopes, dim=1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(posterior.log_density(x, T), log_density, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(posterior.score(x, T), score, rtol=1e-12, atol=1e-12)


def test_a_prior_without_density_makes_a_posterior_without():
    """That of a network, say."""
    dense = DMPS().condition(smooth_prior(), Measurement(decomposed(), DATA, 0.3))
    guided = registry.get_conditioner("mcg").condition(smooth_prior(), Measurement(decomposed(), DATA, 0.3))

    assert hasattr(dense, "log_density")
    assert not hasattr(DMPS().condition(guided, dense.measurement), "log_density")


@pytest.mark.parametrize("sampler", ["ancestral", "em", "pc"])
def test_without_weight_or_signal_the_run_is_the_priors(sampler):
    prior, method = smooth_prior(), registry.get_sampler(sampler, steps=6)

    assert DMPS(scale=0.0).condition(prior, Measurement(decomposed(), DATA, 0.3)) is prior
    for make in (decomposed, solved_iteratively):
        deaf = DMPS().condition(prior, Measurement(make(0 * A), DATA, 0.3))
        assert torch.equal(method.sample(deaf, 3), method.sample(prior, 3))


def test_the_network_is_evaluated_once_and_not_differentiated():
    cost = Cost()
    posterior = DMPS().condition(counted_model(smooth_prior(), cost), Measurement(solved_iteratively(), DATA, 0.3))

    scores = [posterior.score(STATES, T), posterior.denoise(STATES, T), posterior.score_and_log_density(STATES, T)[0]]

    assert (cost.evaluations, cost.vjps) == (3 * 5, 0)
    assert not any(score.requires_grad for score in scores)


def ill_conditioned(make):
    """Singular values 1 to 1e-4: at large levels the system has a condition of nearly 1e8."""
    rows = torch.diag(torch.logspace(0, -4, 6, dtype=torch.float64))
    return rows, Measurement(make(rows), random(6, seed=5), 1e-3)


def test_conjugate_gradients_stop_at_the_tolerance_or_at_the_last_step():
    rows, measurement = ill_conditioned(solved_iteratively)
    prior = smooth_prior("ve")
    r = measurement.residual(STATES)
    b = measurement.noise_std**2
    M = 25.0 * rows @ rows.T + b * EYE

    loose = DMPS().condition(prior, measurement).solve(r, a=torch.tensor(25.0), b=b)
    single = DMPS(max_steps=1).condition(prior, measurement).solve(r, a=torch.tensor(25.0), b=b)

    residuals = (loose @ M - r).norm(dim=1) / r.norm(dim=1)
    assert 1e-9 < float(residuals.max()) <= 1e-3 * (1 + 1e-6)
    step = (r * r).sum(1, keepdim=True) / (r * (r @ M)).sum(1, keepdim=True)  # along the steepest descent
    torch.testing.assert_close(single, step * r, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("t", [0.1, 0.5, 1.0])
def test_a_decomposition_is_solved_exactly_at_every_level_even_in_single_precision(t):
    """Each singular value on its own: level up to 50 and a condition up to 1e9, of which nothing is felt."""
    rows, measurement = ill_conditioned(decomposed)
    posterior = DMPS(tolerance=0.5, max_steps=1).condition(smooth_prior("ve"), measurement)
    time = torch.tensor(t, dtype=torch.float64)

    gradient, _ = posterior.guidance(STATES.float(), time)

    s, level = rows.diagonal(), posterior.sde.level(time)
    expected = s * (measurement.data - s * STATES.flatten(1)) / (level**2 * s**2 + 1e-6)
    torch.testing.assert_close(gradient.flatten(1).double(), expected, rtol=1e-4, atol=1e-9)


def test_what_the_operator_cannot_reach_does_not_pull():
    """Two rows that say the same: their mean counts, their difference does not, with noise or without."""
    prior, both, one = smooth_prior(), decomposed(torch.stack([A[0], A[0]])), decomposed(A[:1])
    for sigma_y in (0.3, 0.0):
        double = DMPS().condition(prior, Measurement(both, torch.tensor([0.4, 0.8], dtype=torch.float64), sigma_y))
        mean = Measurement(one, torch.tensor([0.6], dtype=torch.float64), sigma_y / 2**0.5)
        single = DMPS().condition(prior, mean)

        # the mean of two values with independent noise has half their variance, and the same signal
        torch.testing.assert_close(double.score(STATES, T), single.score(STATES, T), rtol=1e-9, atol=1e-9)
        difference = double.log_density(STATES, T) - double.log_density(STATES[:1], T)
        expected = single.log_density(STATES, T) - single.log_density(STATES[:1], T)
        torch.testing.assert_close(difference, expected, rtol=1e-9, atol=1e-9)


def test_coils_are_conditioned_in_single_precision_from_the_largest_level():
    """No decomposition is known of them; a solve to the last digit is out of reach there."""
    i = torch.arange(256, dtype=torch.float64)
    covariance = 0.1 * (-(i[:, None] - i).abs() / 3).exp()
    prior = registry.get_model("gaussian", image_shape=(1, 16, 16), covariance=covariance, precision="float32")
    operator = registry.get_operator("multi-coil-fourier", image_shape=(1, 16, 16), coils=4, acceleration=2.0)
    truth = registry.get_sampler("ancestral", steps=20).sample(prior, 1, seed=3)
    measurement = Measurement(operator, operator(truth)[0], 0.01)

    sample = registry.get_sampler("ancestral", steps=60).sample(DMPS().condition(prior, measurement), 1)

    assert float(measurement.residual(sample).square().mean().sqrt()) < 0.1 * float(measurement.data.std())


@pytest.mark.parametrize("sigma_y", [0.3, 0.0], ids=["noisy", "exact-data"])
def test_the_unit_of_the_measurement_does_not_matter(sigma_y):
    prior = smooth_prior()

    metres, millimetres = (
        DMPS().condition(prior, Measurement(decomposed(unit * A), unit * DATA, unit * sigma_y)).score(STATES, T)
        for unit in (1.0, 1000.0)
    )

    torch.testing.assert_close(millimetres, metres, rtol=1e-9, atol=1e-9)


def test_the_weight_does_not_depend_on_the_sde():
    """At the same noise level the denoised estimate under y is the same, whatever process the model is asked under."""
    vp = DMPS(scale=0.6).condition(smooth_prior(), Measurement(decomposed(), DATA, 0.3))
    ve = vp.under(registry.get_sde("ve"))
    s = ve.sde.time_of(vp.sde.level(T))

    there = ve.denoise(STATES * ve.sde.alpha(s) / vp.sde.alpha(T), s)

    torch.testing.assert_close(there, vp.denoise(STATES, T), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [decomposed, solved_iteratively])
def test_a_sample_does_not_depend_on_its_batch_mates(make):
    posterior = DMPS().condition(smooth_prior(), Measurement(make(), DATA, 0.3))
    times = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)

    together = posterior.score(STATES, times)

    # nothing but the order of sums; conjugate gradients stop for each sample on its own
    apart = torch.cat([posterior.score(x[None], t) for x, t in zip(STATES, times, strict=True)])
    torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-9)


def test_it_can_be_differentiated_for_another_conditioner():
    """x0' is affine in x with a symmetric Jacobian, that of the prior's less level^2 A^T M^{-1} A / alpha."""
    prior = smooth_prior()
    posterior = DMPS().condition(prior, Measurement(decomposed(), DATA, 0.3))
    v, level, alpha = random(5, *SHAPE, seed=7), prior.sde.level(T), prior.sde.alpha(T)

    x0, vjp = posterior.denoise_with_vjp(STATES, T)

    M = level**2 * A @ A.T + 0.09 * torch.eye(4, dtype=torch.float64)
    less = (level**2 / alpha * v.flatten(1) @ A.T @ torch.linalg.inv(M) @ A).reshape(v.shape)
    torch.testing.assert_close(vjp(v), prior.denoise_with_vjp(STATES, T)[1](v) - less, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(x0, posterior.denoise(STATES, T), rtol=0, atol=0)


def test_what_it_cannot_do_is_refused():
    squared = Measurement(from_function(lambda v: v**2, SHAPE), torch.ones(SHAPE), 0.1)
    with pytest.raises(TypeError, match=r"'dmps' needs a linear operator .*; use dps with form='norm' or 'likelihood'"):
        DMPS().condition(smooth_prior(), squared)

    with pytest.raises(TypeError, match=r"'dmps' with noise_std = 0 needs an operator with a pseudoinverse"):
        DMPS().condition(smooth_prior(), Measurement(solved_iteratively(), DATA, 0.0))
