"""PiGDM: the posterior's score for a white prior, the known law elsewhere, and the paper's step that keeps eps."""

import math

import attrs
import pytest
import torch

from scoreplug import Measurement, Noise, registry
from scoreplug.operator import from_function
from scoreplug.run.cost import Cost, counted_model
from scoreplug.testing import affine_moments
from scoreplug_builtin.conditioners.pigdm import PiGDM

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


def white_prior(sde="vp", tau=0.7):
    return registry.get_model("gaussian", image_shape=SHAPE, mean=0.2, covariance=tau**2, sde=sde)


def matrix(rows=A):
    return registry.get_operator("matrix", image_shape=SHAPE, matrix=rows)


def solved_iteratively(rows=A):
    return from_function(lambda v: v.flatten(1) @ rows.T, SHAPE, linear=True)


def exact_score(prior, mean, covariance, rows, data, sigma_y, x, t):
    """Of N(mean, covariance) given the data, which may be exact."""
    alpha, sigma = prior.sde.alpha(t), prior.sde.sigma(t)
    M = rows @ covariance @ rows.T + sigma_y**2 * torch.eye(len(rows), dtype=torch.float64)
    K = covariance @ rows.T @ torch.linalg.pinv(M, rtol=1e-12)
    m, V = mean + K @ (data - rows @ mean), covariance - K @ rows @ covariance
    return -torch.linalg.solve(alpha**2 * V + sigma**2 * EYE, (x.flatten(1) - alpha * m).T).T.reshape(x.shape)


def scalar(conditioner, sde="vp"):
    prior = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=S, sde=sde)
    operator = from_function(lambda x: GAIN * x, (1, 1, 1), linear=True)
    return conditioner.condition(prior, Measurement(operator, torch.full((1, 1, 1), Y, dtype=torch.float64), SIGMA_Y))


def law(r2):
    """Mean and variance of the reverse SDE with the spread r2(C), by the trapezoidal rule."""
    C = torch.linspace(0, S, 20001, dtype=torch.float64)
    K = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(GAIN**2 / (GAIN**2 * r2(C) + SIGMA_Y**2), C)])
    return Y / GAIN * (1 - math.exp(-float(K[-1]))), float(torch.trapezoid((-2 * K).exp(), C))


def white_r2(tau):
    """level^2 tau^2 / (level^2 + tau^2) at the level where the variance of x_0 given x_t is C."""
    return lambda C: C * S * tau**2 / (C * S + tau**2 * (S - C))


@pytest.mark.parametrize("sigma_y", [0.3, 0.0], ids=["noisy", "exact-data"])
@pytest.mark.parametrize("params", [{}, {"prior_std": 0.7}], ids=["own", "tau"])
@pytest.mark.parametrize("sde", SDES)
def test_a_white_prior_gets_the_posteriors_score(sde, params, sigma_y):
    """The covariance of x_0 given x_t is r_t^2 I then."""
    prior = white_prior(sde)
    posterior = PiGDM(**params).condition(prior, Measurement(matrix(), DATA, sigma_y))

    for t in torch.tensor([0.05, 0.4, 0.9], dtype=torch.float64):
        expected = exact_score(prior, 0.2 * torch.ones(6).double(), 0.49 * EYE, A, DATA, sigma_y, STATES, t)
        # Tweedie: 1e-16 |x0| / sigma^2, and sigma is .03 at the earliest time of subvp
        torch.testing.assert_close(posterior.score(STATES, t), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sde", SDES)
def test_exact_data_beyond_the_reach_of_a_do_not_pull(sde):
    """Two rows that say the same: their mean counts, their difference does not."""
    rows, prior = torch.stack([A[0], A[0]]), white_prior(sde)

    double = PiGDM().condition(prior, Measurement(matrix(rows), torch.tensor([0.4, 0.8], dtype=torch.float64), 0.0))
    single = PiGDM().condition(prior, Measurement(matrix(A[:1]), torch.tensor([0.6], dtype=torch.float64), 0.0))

    torch.testing.assert_close(double.score(STATES, T), single.score(STATES, T), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("params", [{}, {"prior_std": 0.4}, {"scale": 0.3}], ids=str)
def test_it_is_dps_in_its_predictive_form(params):
    prior, measurement = smooth_prior(), Measurement(solved_iteratively(), DATA, 0.3)

    ours = PiGDM(**params).condition(prior, measurement).score_and_log_density(STATES, T)
    dps = registry.get_conditioner("dps", form="predictive", **params).condition(prior, measurement)

    for one, other in zip(ours, dps.score_and_log_density(STATES, T), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_without_spread_it_is_dps_in_its_likelihood_form():
    prior, measurement = smooth_prior(), Measurement(solved_iteratively(), DATA, 0.3)

    ours = PiGDM(prior_std=0.0).condition(prior, measurement).score(STATES, T)
    dps = registry.get_conditioner("dps", form="likelihood").condition(prior, measurement).score(STATES, T)

    torch.testing.assert_close(ours, dps, rtol=1e-9, atol=1e-9)  # a solve with a multiple of I


@pytest.mark.parametrize("compat", ["fixed", "authors"])
def test_the_published_spread_is_that_of_unit_variance(compat):
    prior, measurement = smooth_prior("ve"), Measurement(matrix(), DATA, 0.3)
    sampler = registry.get_sampler("ancestral", steps=5)

    one, other = (
        sampler.sample(PiGDM(compat=compat, **params).condition(prior, measurement), 2)
        for params in ({"spread": "published"}, {"prior_std": 1.0})
    )

    assert torch.equal(one, other)


# parameters, r_t^2 as a function of C, mean and variance in the limit
LIMITS = {
    "the posterior": ({}, lambda C: C, (1.22099, 0.42265)),
    "published": ({"spread": "published"}, white_r2(1.0), (1.29418, 0.39904)),
    "dps": ({"prior_std": 0.0}, lambda C: 0 * C, (1.54587, 0.28058)),
    "tau = 2": ({"prior_std": 2.0}, white_r2(2.0), (1.12435, 0.45252)),
    "r_t = level": ({"prior_std": 1e4}, white_r2(1e4), (1.01254, 0.48627)),
}


@pytest.mark.parametrize(("sde", "case"), [*(("ve", case) for case in LIMITS), ("vp", "published")])
def test_the_reverse_sde_tends_to_the_law_of_the_docstring(sde, case):
    """The scheme is of first order, so twice the value at 2 N steps less that at N is second order."""
    params, r2, golden = LIMITS[case]
    ends = {"t_min": 1e-5} if sde == "vp" else {"sigma_min": 1e-3, "sigma_max": 1e3}
    posterior = scalar(PiGDM(**params), registry.get_sde(sde, **ends))

    def moments(steps):
        sampler = registry.get_sampler("em", steps=steps, grid="rho")
        return torch.cat([m.flatten() for m in affine_moments(sampler, posterior)])

    assert law(r2) == pytest.approx(golden, abs=1e-5)
    assert (2 * moments(200) - moments(100)).tolist() == pytest.approx(golden, abs=4e-3)  # em itself is off by .03


def test_a_spread_too_small_gives_too_small_a_variance_and_a_larger_one_too_large():
    """Ordered like r_t: dps, tau below that of the prior, the prior's own, above, level itself."""
    variances = [law(r2)[1] for r2 in (lambda C: 0 * C, white_r2(1.0), lambda C: C, white_r2(2.0), white_r2(1e4))]

    assert variances == sorted(variances)
    assert variances[2] == pytest.approx(S * SIGMA_Y**2 / (GAIN**2 * S + SIGMA_Y**2), rel=1e-6)


def paper_guidance(prior, t, sigma_y):
    """J^T r_t^2 A^T (r_t^2 A A^T + sigma_y^2 I)^{-1} (y - A x0) at STATES, with the published r_t."""
    x = STATES.clone().requires_grad_()
    x0, level = prior.denoise(x, t), prior.sde.level(t)
    r2 = level**2 / (1 + level**2)
    M = r2 * A @ A.T + sigma_y**2 * torch.eye(4, dtype=torch.float64)
    pull = r2 * torch.linalg.solve(M, (DATA - x0.detach().flatten(1) @ A.T).T).T @ A
    return torch.autograd.grad(x0, x, pull.reshape(x.shape))[0]


@pytest.mark.parametrize("sigma_y", [0.3, 0.0], ids=["noisy", "exact-data"])
@pytest.mark.parametrize("sde", SDES)
def test_the_authors_step_is_ddims_plus_alpha_s_alpha_t_times_the_guidance(sde, sigma_y):
    prior, method = smooth_prior(sde), PiGDM(compat="authors", spread="published", scale=0.7)
    posterior = method.condition(prior, Measurement(matrix(), DATA, sigma_y))
    sampler = registry.get_sampler("ancestral", steps=4, eta=0.6)
    noise = Noise(0, range(5), dtype=torch.float64, device=STATES.device)
    start = sampler.begin(prior, STATES, noise)
    t, s = start.t, start.s

    ours, plain = (sampler.step(model, start, noise).x for model in (posterior, prior))
    shift = 0.7 * prior.sde.alpha(s) * prior.sde.alpha(t) * paper_guidance(prior, t, sigma_y)
    # ve's states are of size 50 after the first step
    torch.testing.assert_close(ours - plain, shift, rtol=1e-9, atol=1e-13 * float(plain.abs().max()))

    last = attrs.evolve(start, index=4)
    ours, plain = (sampler.finish(model, last, noise).x for model in (posterior, prior))
    shift = 0.7 * prior.sde.alpha(last.t) * paper_guidance(prior, last.t, sigma_y)
    torch.testing.assert_close(ours - plain, shift, rtol=1e-8, atol=1e-12)


def collapse(sde, times):
    """Mean and variance after DDPM steps with the shift, as the paper writes them, for the scalar problem under vp."""
    alpha, sigma = [*sde.alpha(times).tolist(), 1.0], [*sde.sigma(times).tolist(), 0.0]
    M, V = 0.0, 1.0
    for a_t, s_t, a_s, s_s in zip(alpha, sigma, alpha[1:], sigma[1:], strict=False):
        c = s_s * math.sqrt(1 - (a_t * s_s / (a_s * s_t)) ** 2)
        J, r2 = a_t * S / (a_t**2 * S + s_t**2), s_t**2
        w = a_s * a_t * J * r2 * GAIN / (r2 * GAIN**2 + SIGMA_Y**2)
        L = a_s * J + math.sqrt(s_s**2 - c**2) * (1 - a_t * J) / s_t - w * GAIN * J
        M, V = L * M + w * Y, L**2 * V + c**2
    return M, V


@pytest.mark.parametrize(
    ("steps", "golden"), [(20, (1.24752, 0.20001)), (100, (1.62233, 0.06530)), (1000, (1.62500, 0.01641))]
)
def test_the_authors_steps_collapse_onto_the_data(steps, golden):
    posterior = scalar(PiGDM(compat="authors", spread="published"))
    sampler = registry.get_sampler("ancestral", steps=steps)
    recursion = collapse(posterior.sde, sampler.times(posterior.sde))

    assert recursion == pytest.approx(golden, abs=1e-5)
    if steps <= 100:  # the rest is the same, and takes its time
        assert [float(m) for m in affine_moments(sampler, posterior)] == pytest.approx(recursion, rel=1e-9)


def test_the_authors_steps_know_ddim_by_either_name():
    """Order 1 of dpm-solver is DDIM, and hands the guidance on as well."""
    posterior = PiGDM(compat="authors").condition(smooth_prior(), Measurement(matrix(), DATA, 0.3))

    ddim = registry.get_sampler("ancestral", steps=6, eta=0.0, grid="rho").sample(posterior, 2)
    solver = registry.get_sampler("dpm-solver", steps=6, order=1, grid="rho").sample(posterior, 2)

    torch.testing.assert_close(ddim, solver, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", ["em", "reverse-diffusion", "pc", "langevin"])
def test_the_authors_steps_refuse_a_sampler_that_does_not_hand_on_the_estimate(sampler):
    posterior = PiGDM(compat="authors").condition(smooth_prior(), Measurement(matrix(), DATA, 0.3))

    with pytest.raises(
        TypeError, match=r"hands on another one; use the sampler 'ancestral' \(DDIM\), or compat='fixed'"
    ):
        registry.get_sampler(sampler, steps=2).sample(posterior, 1)


@pytest.mark.parametrize("compat", ["fixed", "authors"])
def test_a_step_costs_one_evaluation_and_one_vjp(compat):
    cost = Cost()
    prior = counted_model(smooth_prior(), cost)
    posterior = PiGDM(compat=compat).condition(prior, Measurement(matrix(), DATA, 0.3))

    samples = registry.get_sampler("ancestral", steps=4).sample(posterior, 3)

    assert (cost.evaluations, cost.vjps) == (5 * 3, 5 * 3)  # four steps and the last estimate
    assert not samples.requires_grad


@pytest.mark.parametrize("compat", ["fixed", "authors"])
def test_without_weight_or_signal_the_run_is_the_priors(compat):
    prior, sampler = smooth_prior(), registry.get_sampler("ancestral", steps=6)
    plain = sampler.sample(prior, 3)

    weightless = PiGDM(scale=0.0, compat=compat).condition(prior, Measurement(matrix(), DATA, 0.3))
    deaf = PiGDM(compat=compat).condition(prior, Measurement(matrix(0 * A), DATA, 0.3))

    assert torch.equal(sampler.sample(deaf, 3), plain)
    assert weightless is prior


@pytest.mark.parametrize("sigma_y", [0.3, 0.0], ids=["noisy", "exact-data"])
@pytest.mark.parametrize("compat", ["fixed", "authors"])
def test_the_unit_of_the_measurement_does_not_matter(compat, sigma_y):
    prior, sampler = smooth_prior(), registry.get_sampler("ancestral", steps=6)

    metres, millimetres = (
        sampler.sample(
            PiGDM(compat=compat).condition(prior, Measurement(matrix(unit * A), unit * DATA, unit * sigma_y)), 2
        )
        for unit in (1.0, 1000.0)
    )

    torch.testing.assert_close(millimetres, metres, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("compat", ["fixed", "authors"])
@pytest.mark.parametrize("make", [matrix, solved_iteratively])
def test_a_sample_does_not_depend_on_its_batch_mates(make, compat):
    posterior = PiGDM(compat=compat).condition(smooth_prior(), Measurement(make(), DATA, 0.3))
    sampler = registry.get_sampler("ancestral", steps=6)

    # nothing but the order of sums
    torch.testing.assert_close(sampler.sample(posterior, 4)[:1], sampler.sample(posterior, 1), rtol=1e-9, atol=1e-9)


def test_a_time_for_each_sample_is_as_good_as_one_for_all():
    posterior = PiGDM().condition(smooth_prior(), Measurement(matrix(), DATA, 0.3))
    times = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)

    together = posterior.score(STATES, times)

    apart = torch.cat([posterior.score(x[None], t) for x, t in zip(STATES, times, strict=True)])
    torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sigma_y", [0.3, 0.0], ids=["noisy", "exact-data"])
def test_the_log_density_is_the_one_whose_gradient_the_score_is(sigma_y):
    means = torch.tensor([[0.5, -0.3, 1.4], [-0.6, 0.2, 0.1]], dtype=torch.float64)
    prior = registry.get_model("gaussian-mixture", image_shape=(1, 1, 3), means=means, covariances=0.2)
    operator = registry.get_operator("matrix", image_shape=(1, 1, 3), matrix=((1.0, 0.4, -0.7), (0.0, 2.0, 0.3)))
    measurement = Measurement(operator, torch.tensor([0.7, -0.1], dtype=torch.float64), sigma_y)
    posterior = PiGDM(scale=0.8).condition(prior, measurement)
    x = torch.tensor([[0.4, 0.1, 1.9], [-0.5, 0.3, -0.2]], dtype=torch.float64).reshape(2, 1, 1, 3)

    score, log_density = posterior.score_and_log_density(x, T)

    h = 1e-5
    steps = h * torch.eye(3, dtype=torch.float64).reshape(3, 1, 1, 1, 3)
    slopes = [(posterior.log_density(x + step, T) - posterior.log_density(x - step, T)) / (2 * h) for step in steps]
    # rounding 1e-16 / h, curvature h^2
    torch.testing.assert_close(score.flatten(1), torch.stack(slopes, dim=1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(posterior.log_density(x, T), log_density, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(posterior.score(x, T), score, rtol=1e-9, atol=1e-9)  # Tweedie and back


@pytest.mark.parametrize("compat", ["fixed", "authors"])
def test_what_it_cannot_do_is_refused(compat):
    prior, method = smooth_prior(), PiGDM(compat=compat)
    squared = Measurement(from_function(lambda v: v**2, SHAPE), torch.ones(SHAPE), 0.1)
    with pytest.raises(
        TypeError, match=r"'pigdm' needs a linear operator .*; use dps with form='norm' or 'likelihood'"
    ):
        method.condition(prior, squared)

    with pytest.raises(TypeError, match=r"'pigdm' with noise_std = 0 needs an operator with a pseudoinverse"):
        method.condition(prior, Measurement(solved_iteratively(), DATA, 0.0))

    class Silent:
        """A prior that does not state its spread."""

    with pytest.raises(TypeError, match=r"Silent does not state; give prior_std, .* or spread='published'"):
        method.condition(Silent(), Measurement(matrix(), DATA, 0.1))

    with pytest.raises(ValueError, match="give noise_std > 0 and compat='fixed', or prior_std > 0"):
        PiGDM(prior_std=0.0, compat=compat).condition(prior, Measurement(matrix(), DATA, 0.0))


def test_the_authors_steps_have_no_form_without_spread():
    with pytest.raises(ValueError, match="has no form that keeps eps"):
        PiGDM(prior_std=0.0, compat="authors").condition(smooth_prior(), Measurement(matrix(), DATA, 0.1))


def test_two_answers_to_the_same_question_are_refused():
    with pytest.raises(ValueError, match=r"spread='published' is prior_std=1, .* \(got 0.5\); leave one of them out"):
        PiGDM(spread="published", prior_std=0.5)
