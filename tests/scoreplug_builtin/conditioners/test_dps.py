"""DPS: its guidance is the formula's, its limits are closed forms other than the posterior, its scale means one
thing."""

import math

import pytest
import torch

from scoreplug import Measurement, Noise, registry
from scoreplug.operator import from_function
from scoreplug.testing import affine_moments

# Reference problem R1: prior N(0, S), y = a x + N(0, sigma_y^2).
S, GAIN, SIGMA_Y, Y = 1.7, 0.8, 0.6, 1.3
SDES = ["vp", "ve", "subvp"]


def r1(sde, *, form="likelihood", scale=1.0, unit=1.0):
    """The posterior by DPS, with the measurement expressed in a unit of choice."""
    prior = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=S, sde=sde)
    operator = from_function(lambda x: unit * GAIN * x, (1, 1, 1), linear=True)
    data = torch.full((1, 1, 1), unit * Y, dtype=torch.float64)
    conditioner = registry.get_conditioner("dps", form=form, scale=scale)
    return prior, conditioner.condition(prior, Measurement(operator, data, unit * SIGMA_Y))


# kap = scale a^2 S / sigma_y^2.  Reverse SDE: mean (y/a)(1 - e^-kap), variance S (1 - e^-2kap)/(2 kap).
# Probability flow: variance S e^-kap, mean (kap y / 2a) int_0^1 (1 - z)^-1/2 e^(-kap z/2) dz, here by numbers.
LIMITS = [
    ("em", {}, 0.5, 1.26642, 0.53511),
    ("em", {}, 1.0, 1.54587, 0.28058),
    ("em", {}, 2.0, 1.62115, 0.14062),
    ("ancestral", {"eta": 1.0}, 1.0, 1.54587, 0.28058),
    ("pc", {"corrector": {"name": "langevin", "snr": 1e-6}}, 1.0, 1.54587, 0.28058),
    ("ancestral", {"eta": 0.0}, 0.5, 1.52368, 0.37513),
    ("ancestral", {"eta": 0.0}, 1.0, 2.00039, 0.08278),
    ("ancestral", {"eta": 0.0}, 2.0, 2.04771, 0.00403),
]


@pytest.mark.parametrize("sde", ["vp", "ve"])
@pytest.mark.parametrize(("sampler", "kwargs", "scale", "mean", "variance"), LIMITS)
def test_the_likelihood_form_tends_to_its_own_limit_not_to_the_posterior(sde, sampler, kwargs, scale, mean, variance):
    """The schemes are of first order, so twice the value at 2 N steps less that at N is second order."""
    process = registry.get_sde(sde, t_min=1e-5) if sde == "vp" else registry.get_sde(sde, sigma_min=1e-3, sigma_max=1e3)
    _, posterior = r1(process, scale=scale)

    def moments(steps):
        sampler_ = registry.get_sampler(sampler, steps=steps, grid="rho", **kwargs)
        return torch.stack([m.flatten() for m in affine_moments(sampler_, posterior)]).flatten()

    extrapolated = 2 * moments(400) - moments(200)

    # the start N(0, prior_std^2) is not p_1: in the flow the mean is off by sqrt(S) |m| alpha_1 / sigma_1 = 0.02 (VP)
    flow = kwargs.get("eta") == 0.0
    assert extrapolated.tolist() == pytest.approx([mean, variance], abs=2e-2 if flow else 2e-3)
    posterior_variance = S / (1 + GAIN**2 * S / SIGMA_Y**2)
    assert scale != 1.0 or abs(variance - posterior_variance) > 0.1


@pytest.mark.parametrize("sde", SDES)
def test_the_likelihood_form_is_the_gradient_of_the_log_likelihood_at_the_denoised_estimate(sde):
    prior, posterior = r1(sde, scale=0.7)
    x = torch.tensor([-1.0, 0.2, 3.0], dtype=torch.float64).reshape(3, 1, 1, 1).requires_grad_()
    t = torch.tensor(0.4, dtype=torch.float64)

    log_likelihood = -((Y - GAIN * prior.denoise(x, t)) ** 2) / (2 * SIGMA_Y**2)
    (gradient,) = torch.autograd.grad(log_likelihood.sum(), x)

    expected = prior.score(x, t) + 0.7 * gradient
    # the score comes back from x0 by Tweedie: 1e-16 |x| / sigma^2
    torch.testing.assert_close(posterior.score(x.detach(), t), expected.detach(), rtol=1e-10, atol=1e-10)


def smooth_problem(sde):
    """Correlated pixels, so that J is not a multiple of the identity, and more than one measurement."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    prior = registry.get_model("gaussian", image_shape=(1, 2, 3), covariance=root @ root.T + torch.eye(6), sde=sde)
    A = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(4, generator=generator, dtype=torch.float64)
    x = torch.randn(5, 1, 2, 3, generator=generator, dtype=torch.float64)
    return prior, A, y, x


@pytest.mark.parametrize("sde", SDES)
def test_the_norm_form_is_the_gradient_of_the_residuals_norm_over_the_operators(sde):
    prior, A, y, x = smooth_problem(sde)
    operator = from_function(lambda v: v.flatten(1) @ A.T, (1, 2, 3), linear=True)
    posterior = registry.get_conditioner("dps", scale=0.3).condition(prior, Measurement(operator, y, 0.1))
    t = torch.tensor(0.4, dtype=torch.float64)

    x = x.requires_grad_()
    norms = (y - prior.denoise(x, t).flatten(1) @ A.T).norm(dim=1)  # one per sample
    (gradient,) = torch.autograd.grad(norms.sum(), x)

    level = prior.sde.level(t)
    chain = registry.get_sde("vp")
    b = chain.beta(chain.time_of(level)) / 1000
    expected = prior.score(x, t) - 0.3 * (1 - b).sqrt() / b * gradient / torch.linalg.matrix_norm(A, 2)
    # the operator's norm comes from power iteration, good to 1e-4
    torch.testing.assert_close(posterior.score(x.detach(), t), expected.detach(), rtol=2e-4, atol=1e-6)


def test_a_thousand_ddpm_steps_are_the_authors_steps():
    """x_s = x'_s - zeta grad_x |y - A x0|, the authors' algorithm 1 with |A| = 1 (a mask)."""
    prior, _, _, x = smooth_problem("vp")
    operator = from_function(lambda v: v[..., :2], (1, 2, 3), linear=True)
    y = torch.ones(operator.output_shape, dtype=torch.float64)
    zeta = 0.3
    posterior = registry.get_conditioner("dps", scale=zeta).condition(prior, Measurement(operator, y, 0.1))
    ddpm = registry.get_sampler("ancestral", eta=1.0, steps=1000)
    noise = Noise(0, range(5), dtype=torch.float64, device=x.device)
    times = ddpm.times(prior.sde)

    for index in (10, 500, 900):
        t, s = times[index], times[index + 1]
        moved = ddpm.transition(posterior, x, t, s, noise).x
        v = x.clone().requires_grad_()
        norms = (y - operator(prior.denoise(v, t))).flatten(1).norm(dim=1)
        (gradient,) = torch.autograd.grad(norms.sum(), v)

        shift = moved - ddpm.transition(prior, x, t, s, noise).x
        # the chain's b is the integral of beta over the step; at t = 0.1 beta' dt / (2 beta) is 0.5 %
        torch.testing.assert_close(shift, -zeta * gradient, rtol=2e-2, atol=1e-6)


@pytest.mark.parametrize("form", ["norm", "likelihood"])
def test_the_scale_does_not_depend_on_the_unit_of_the_measurement(form):
    """Measuring in millimetres instead of metres (A, y and sigma_y times 1000) changes nothing."""
    t, x = torch.tensor(0.4, dtype=torch.float64), torch.ones(2, 1, 1, 1, dtype=torch.float64)
    _, metres = r1("vp", form=form)
    _, millimetres = r1("vp", form=form, unit=1000.0)

    torch.testing.assert_close(millimetres.score(x, t), metres.score(x, t), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", ["norm", "likelihood"])
@pytest.mark.parametrize("sde", ["ve", "subvp"])
def test_the_scale_does_not_depend_on_the_sde(form, sde):
    """At the same noise level the denoised estimate under y is the same, whatever process the model is asked under."""
    vp, other = r1("vp", form=form)[1], r1("vp", form=form)[1].under(registry.get_sde(sde))
    t = torch.tensor(0.4, dtype=torch.float64)
    s = other.sde.time_of(vp.sde.level(t))
    x = torch.tensor([0.3, -2.0], dtype=torch.float64).reshape(2, 1, 1, 1)

    there = other.denoise(x * other.sde.alpha(s) / vp.sde.alpha(t), s)

    torch.testing.assert_close(there, vp.denoise(x, t), rtol=1e-9, atol=1e-9)


def test_an_exact_fit_gives_the_prior_not_nan():
    prior, posterior = r1("vp", form="norm")
    t, x = torch.tensor(0.4, dtype=torch.float64), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    fitted = Measurement(posterior.measurement.operator, GAIN * prior.denoise(x, t)[0], SIGMA_Y)

    at_fit = registry.get_conditioner("dps").condition(prior, fitted)

    torch.testing.assert_close(at_fit.score(x, t), prior.score(x, t), rtol=1e-10, atol=1e-10)


def test_the_likelihood_form_refuses_exact_data():
    prior, posterior = r1("vp")
    exact = Measurement(posterior.measurement.operator, posterior.measurement.data, 0.0)

    with pytest.raises(ValueError, match="divides by sigma_y\\^2: noise_std must be > 0, or use form='norm'"):
        registry.get_conditioner("dps", form="likelihood").condition(prior, exact)


def test_scale_zero_is_the_prior():
    prior, posterior = r1("vp", scale=0.0)
    sampler = registry.get_sampler("em", steps=10)

    torch.testing.assert_close(sampler.sample(posterior, 3), sampler.sample(prior, 3), rtol=1e-10, atol=1e-10)


def test_the_closed_forms_in_the_docstring_are_those_of_the_table():
    kap = GAIN**2 * S / SIGMA_Y**2

    assert math.isclose(kap, 3.02222, rel_tol=1e-5)
    assert math.isclose(Y / GAIN * (1 - math.exp(-kap)), 1.54587, rel_tol=1e-5)
    assert math.isclose(S * (1 - math.exp(-2 * kap)) / (2 * kap), 0.28058, rel_tol=1e-4)
    assert math.isclose(S * math.exp(-kap), 0.08278, rel_tol=1e-3)


@pytest.mark.parametrize("sde", SDES)
def test_the_predictive_form_is_exact_for_a_white_prior(sde):
    """For N(mu, tau^2 I) the covariance of x_0 given x_t is r_t^2 I, so the score is that of the Gaussian posterior."""
    _, A, y, x = smooth_problem(sde)
    tau, sigma_y, mu = 0.7, 0.3, 0.2
    prior = registry.get_model("gaussian", image_shape=(1, 2, 3), mean=mu, covariance=tau**2, sde=sde)
    operator = from_function(lambda v: v.flatten(1) @ A.T, (1, 2, 3), linear=True)
    conditioner = registry.get_conditioner("dps", form="predictive")

    posterior = conditioner.condition(prior, Measurement(operator, y, sigma_y))

    K = tau**2 * A.T @ torch.linalg.inv(tau**2 * A @ A.T + sigma_y**2 * torch.eye(4, dtype=torch.float64))
    mean = mu + K @ (y - mu * A.sum(1))
    covariance = tau**2 * (torch.eye(6, dtype=torch.float64) - K @ A)
    exact = registry.get_model(
        "gaussian", image_shape=(1, 2, 3), mean=mean, covariance=(covariance + covariance.T) / 2, sde=sde
    )
    for t in torch.tensor([0.05, 0.4, 0.9], dtype=torch.float64):
        # the solve stops at 1e-10 of the residual
        torch.testing.assert_close(posterior.score(x, t), exact.score(x, t), rtol=1e-7, atol=1e-8)


def test_the_predictive_form_asks_the_prior_for_its_spread_or_takes_the_users():
    prior, A, y, x = smooth_problem("vp")
    operator = from_function(lambda v: v.flatten(1) @ A.T, (1, 2, 3), linear=True)
    t = torch.tensor(0.4, dtype=torch.float64)

    def score(**params):
        conditioner = registry.get_conditioner("dps", form="predictive", **params)
        return conditioner.condition(prior, Measurement(operator, y, 0.1)).score(x, t)

    C = prior.sde.sigma(t) ** 2 / prior.sde.alpha(t) * jacobian(prior, t)  # Cov[x_0 | x_t], by Tweedie
    own = float((C.trace() / 6).sqrt())
    assert float(prior.spread(t)) == pytest.approx(own, rel=1e-9)
    level = float(prior.sde.level(t))
    tau = own * level / (level**2 - own**2) ** 0.5  # the white prior with this r_t
    torch.testing.assert_close(score(), score(prior_std=tau), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(score(), score(prior_std=0.1))


def jacobian(prior, t):
    _, vjp = prior.denoise_with_vjp(torch.zeros(1, 1, 2, 3, dtype=torch.float64), t)
    return torch.stack([vjp(unit.reshape(1, 1, 2, 3)).flatten() for unit in torch.eye(6, dtype=torch.float64)])


@pytest.mark.parametrize("form", ["norm", "likelihood"])
def test_a_nonlinear_operator_is_guided_by_its_jacobian(form):
    prior, _, _, x = smooth_problem("vp")
    operator = from_function(lambda v: v**2, (1, 2, 3))
    measurement = Measurement(operator, torch.ones(1, 2, 3, dtype=torch.float64), 0.5)
    posterior = registry.get_conditioner("dps", form=form).condition(prior, measurement)
    t = torch.tensor(0.4, dtype=torch.float64)

    v = x.clone().requires_grad_()
    r = (1 - prior.denoise(v, t) ** 2).flatten(1)
    kappa = 1 / posterior.pull(torch.ones(1, 1, dtype=torch.float64), t) if form == "norm" else 1.0
    loss = (r.norm(dim=1) / kappa).sum() if form == "norm" else (r**2).sum() / (2 * 0.5**2)
    (gradient,) = torch.autograd.grad(loss, v)

    torch.testing.assert_close(posterior.score(x, t), prior.score(x, t) - gradient, rtol=1e-9, atol=1e-9)


def test_the_predictive_form_refuses_what_it_cannot_do():
    prior, _, _, _ = smooth_problem("vp")
    conditioner, data = registry.get_conditioner("dps", form="predictive"), torch.ones(1, 2, 3, dtype=torch.float64)
    squared = Measurement(from_function(lambda v: v**2, (1, 2, 3)), data, 0.1)
    with pytest.raises(TypeError, match=r"needs a linear operator .*use form='norm' or 'likelihood'"):
        conditioner.condition(prior, squared)

    class Silent:
        """A prior that does not state its spread."""

    doubled = Measurement(from_function(lambda v: 2 * v, (1, 2, 3), linear=True), data, 0.1)
    with pytest.raises(TypeError, match="needs the prior's spread, which Silent does not state; give prior_std"):
        conditioner.condition(Silent(), doubled)


@pytest.mark.parametrize("compat", ["fixed", "authors"])
@pytest.mark.parametrize("form", ["norm", "likelihood", "predictive"])
def test_the_log_density_is_the_one_whose_gradient_the_score_is(form, compat):
    """A mixture's x0 is not affine in x, so that the gradient has to go through the denoiser."""
    means = torch.tensor([[0.5, -0.3, 1.4], [-0.6, 0.2, 0.1]], dtype=torch.float64)
    prior = registry.get_model("gaussian-mixture", image_shape=(1, 1, 3), means=means, covariances=0.2)
    A = registry.get_operator("matrix", image_shape=(1, 1, 3), matrix=((1.0, 0.4, -0.7), (0.0, 2.0, 0.3)))
    measurement = Measurement(A, torch.tensor([0.7, -0.1], dtype=torch.float64), 0.3)
    posterior = registry.get_conditioner("dps", form=form, compat=compat).condition(prior, measurement)
    t = torch.tensor(0.2, dtype=torch.float64)
    x = torch.tensor([[0.4, 0.1, 1.9], [-0.5, 0.3, -0.2]], dtype=torch.float64).reshape(2, 1, 1, 3)

    score, log_density = posterior.score_and_log_density(x, t)

    numerical, h = torch.empty_like(x), 1e-5
    for k in range(3):
        step = torch.zeros_like(x)
        step[..., k] = h
        slope = (posterior.log_density(x + step, t) - posterior.log_density(x - step, t)) / (2 * h)
        numerical[..., k] = slope.reshape(2, 1, 1)
    torch.testing.assert_close(score, numerical, rtol=1e-6, atol=1e-6)  # rounding 1e-16 / h, curvature h^2
    torch.testing.assert_close(posterior.log_density(x, t), log_density, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(posterior.score(x, t), score, rtol=1e-9, atol=1e-9)  # Tweedie and back
    clipped = (prior.denoise(x, t).abs() > 1).any(dim=(1, 2, 3))
    assert clipped.tolist() == [True, False]


def test_compat_authors_clips_the_estimate_and_its_gradient():
    """x0 beyond [-1, 1] is measured as the end of the range, and pulls nowhere."""
    prior, fixed = r1("ve")
    measurement = fixed.measurement
    authors = registry.get_conditioner("dps", form="likelihood", compat="authors").condition(prior, measurement)
    t = torch.tensor(0.1, dtype=torch.float64)
    inside, outside = (torch.full((1, 1, 1, 1), v, dtype=torch.float64) for v in (0.5, 1.5))

    assert torch.equal(authors.score(inside, t), fixed.score(inside, t))
    torch.testing.assert_close(authors.score(outside, t), prior.score(outside, t), rtol=1e-9, atol=0)
    assert not torch.allclose(fixed.score(outside, t), prior.score(outside, t))
