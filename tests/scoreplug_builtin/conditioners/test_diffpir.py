"""DiffPIR: the proximal point is a Gaussian's posterior mean, its refinement a draw of that posterior, and with the
paper's sampler the moments are those of the closed form."""

import math

import pytest
import torch

from scoreplug import Measurement, Noise, Step, registry, simulate
from scoreplug.operator import from_function, matrix_of, with_dense_svd
from scoreplug.protocols import HasRefine
from scoreplug.run.cost import Cost, counted_model
from scoreplug.testing import BatchNoise, affine_moments
from scoreplug_builtin.conditioners._predictive import likelihood_pull
from scoreplug_builtin.conditioners.diffpir import DiffPIR

SHAPE = (1, 2, 3)
ROWS = ((1.0, 0.5, 0.0, 0.2, 0.0, -0.4), (0.0, 1.0, -0.3, 0.0, 0.7, 0.0), (0.4, 0.0, 1.0, 1.0, 0.0, 0.1))
SIGMA_Y = 0.3
S, GAIN, Y = 1.7, 0.8, 1.3
CPU = torch.device("cpu")


def source(samples=(0, 1)):
    return Noise(3, samples, dtype=torch.float64, device=CPU)


def make_operator():
    return registry.get_operator("matrix", image_shape=SHAPE, matrix=ROWS)


def measured(noise_std=SIGMA_Y, operator=None):
    image = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(SHAPE)
    return simulate(operator or make_operator(), image, noise_std)


def posterior_of(measurement=None, sde="vp", **params):
    prior = registry.get_model("gaussian", image_shape=SHAPE, mean=0.2, covariance=0.5, sde=sde)
    return prior, DiffPIR(**params).condition(prior, measurement or measured())


def level(prior, value):
    return prior.sde.time_of(torch.tensor(value, dtype=torch.float64))


def gaussian_posterior(x0, y, r2, sigma_y=SIGMA_Y):
    """Mean and covariance of v given y = A v + sigma_y n under N(x0, r2 I), in information form."""
    A = torch.tensor(ROWS, dtype=torch.float64)
    precision = torch.eye(6, dtype=torch.float64) / r2 + A.T @ A / sigma_y**2
    covariance = torch.linalg.inv(precision)
    return (x0.flatten(1) / r2 + y @ A / sigma_y**2) @ covariance, covariance


@pytest.mark.parametrize("weight", [1.0, 4.0])
@pytest.mark.parametrize("noise_level", [20.0, 0.5, 0.02])
@pytest.mark.parametrize("sde", ["vp", "ve", "subvp", "flow"])
def test_the_estimate_is_the_posterior_mean_around_the_priors(sde, noise_level, weight):
    prior, posterior = posterior_of(sde=sde, weight=weight)
    t, x = level(prior, noise_level), source().at("x").normal(SHAPE)

    found = posterior.denoise(x, t)

    x0 = prior.denoise(x, t)
    expected, _ = gaussian_posterior(x0, posterior.measurement.data, noise_level**2 / weight)
    # the condition number of the reference is (r / sigma_y)^2, at most 5e3
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-8, atol=1e-9)
    assert torch.equal(found, posterior.denoise(x, t.expand(2)))  # one time for each sample


def test_the_solve_may_be_iterative():
    """An operator without decomposition goes by conjugate gradients."""
    A = torch.tensor(ROWS, dtype=torch.float64)
    plain = from_function(lambda x: x.flatten(1) @ A.T, SHAPE, linear=True)
    (prior, exact), (_, iterative) = posterior_of(), posterior_of(Measurement(plain, measured().data, SIGMA_Y))
    t, x = level(prior, 20.0), source().at("x").normal(SHAPE)

    # conjugate gradients stop at a relative residual of 1e-10
    torch.testing.assert_close(iterative.denoise(x, t), exact.denoise(x, t), rtol=1e-7, atol=1e-7)


def test_exact_data_are_projected_onto():
    _, posterior = posterior_of(measured(0.0))
    x = registry.get_sampler("ancestral", noise="fresh", eta=0.3, steps=4).sample(posterior, 2)
    prior, t = posterior.prior, level(posterior.prior, 0.5)
    z = source().at("x").normal(SHAPE)

    A, y = make_operator(), posterior.measurement.data
    x0 = prior.denoise(z, t)
    torch.testing.assert_close(posterior.denoise(z, t), x0 + A.pinv(y - A(x0)), rtol=1e-10, atol=1e-11)
    assert float((A(x) - y).norm()) <= 1e-10 * float(y.norm())
    refined = posterior.refine(x0, t, source())
    assert float((A(refined) - y).norm()) <= 1e-10 * float(y.norm())


def scalar(method, sde):
    prior = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=S, sde=sde)
    A = with_dense_svd(from_function(lambda x: GAIN * x, (1, 1, 1), linear=True))
    return method.condition(prior, Measurement(A, torch.full((1, 1, 1), Y, dtype=torch.float64), 0.6))


def recursion(alpha, sigma, *, zeta, weight):
    """Mean and variance of the samples: x_s = alpha_s x0' + sigma_s (sqrt(1 - zeta) eps' + sqrt(zeta) z), eps' by x0',
    and x0' at the end."""

    def estimate(a_t, s_t):
        """x0' = D x + d."""
        r2 = (s_t / a_t) ** 2 / weight
        K = r2 * GAIN / (0.36 + r2 * GAIN**2)
        return (1 - K * GAIN) * a_t * S / (a_t**2 * S + s_t**2), K * Y

    M, V = 0.0, sigma[0] ** 2 if alpha[0] == 1 else 1.0  # the start has the process's prior_std
    for a_t, s_t, a_s, s_s in zip(alpha, sigma, alpha[1:], sigma[1:], strict=False):
        D, d = estimate(a_t, s_t)
        q = math.sqrt(1 - zeta) * s_s / s_t
        M = a_s * (D * M + d) + q * (M - a_t * (D * M + d))
        V = (a_s * D + q * (1 - a_t * D)) ** 2 * V + zeta * s_s**2
    D, d = estimate(alpha[-1], sigma[-1])
    return D * M + d, D**2 * V


@pytest.mark.parametrize("weight", [1.0, 3.0])
@pytest.mark.parametrize("zeta", [0.1, 1.0])
@pytest.mark.parametrize("name", ["vp", "ve"])
def test_moments_on_a_gaussian_follow_the_methods_own_recursion(name, zeta, weight):
    sde = registry.get_sde(name)
    sampler = registry.get_sampler("ancestral", noise="fresh", eta=math.sqrt(zeta), steps=9)

    found = affine_moments(sampler, scalar(DiffPIR(weight=weight), sde))

    times = sampler.times(sde)
    expected = recursion(sde.alpha(times).tolist(), sde.sigma(times).tolist(), zeta=zeta, weight=weight)
    assert [float(moment) for moment in found] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("zeta", "variance"), [(0.1, 0.41181), (0.7225, 0.32265), (1.0, 0.21133)])
def test_many_steps_have_the_right_mean_and_the_variance_of_the_closed_form(zeta, variance):
    """(1 + sqrt(1 - zeta)) / 2 times the posterior's .42265, at the mean 1.22099: the limit of the recursion above."""
    steps = 100_000
    levels = [100.0 * 1e-6 ** (k / steps) for k in range(steps + 1)]

    found = recursion([1.0] * (steps + 1), levels, zeta=zeta, weight=1.0)

    # of first order in the step: .01 and .006 off with 4000 steps and zeta = .1
    assert found == pytest.approx([1.22099, variance], abs=1e-3)


def test_under_the_posteriors_kernel_the_limit_does_not_depend_on_the_sampler():
    """It is guidance: DDPM and the reverse SDE have one limit."""
    posterior = scalar(DiffPIR(), registry.get_sde("ve", t_min=1e-4))
    limits = []
    for name in ("ancestral", "reverse-diffusion"):
        first, second = (
            affine_moments(registry.get_sampler(name, steps=n, grid="rho"), posterior)[1] for n in (60, 120)
        )
        limits.append(float(2 * second - first))

    # both are of first order, -.03 and .03 off .373 with 120 steps; the squares are left
    assert limits[0] == pytest.approx(limits[1], rel=1e-2)


def test_a_refinement_is_a_draw_of_the_gaussian_posterior():
    """Affine in the draws: mean and covariance are read off, without Monte Carlo error."""
    _, posterior = posterior_of(weight=2.0)
    t, x0 = level(posterior.prior, 0.7), source((0,)).at("x0").normal(SHAPE)
    n = 9
    zero = torch.zeros(n + 1, *SHAPE, dtype=torch.float64)

    class Units(Noise):
        """Row k >= 1 has the unit k of (z, n), row 0 nothing."""

        def normal(self, shape):
            first = 0 if self.path[-1] == "z" else 6
            draw = torch.zeros(n + 1, math.prod(shape), dtype=torch.float64)
            for k in range(math.prod(shape)):
                draw[1 + first + k, k] = 1
            return draw.reshape(-1, *shape)

    noise = Units(0, range(n + 1), dtype=torch.float64, device=CPU)
    images = posterior.refine(zero + x0, t, noise).flatten(1)

    mean, covariance = gaussian_posterior(x0, posterior.measurement.data, 0.7**2 / 2)
    N = images[1:] - images[:1]
    torch.testing.assert_close(images[:1], mean, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(N.T @ N, covariance, rtol=1e-9, atol=1e-10)
    assert isinstance(posterior, HasRefine)


# Nonlinear operators.


def as_nonlinear():
    """The linear operator, of which nothing but its linearisation is known."""
    A = torch.tensor(ROWS, dtype=torch.float64)
    return from_function(lambda x: x.flatten(1) @ A.T, SHAPE)


def cubic():
    A = torch.tensor(ROWS, dtype=torch.float64)
    return from_function(lambda x: (x + 0.2 * x**3).flatten(1) @ A.T, SHAPE)


def test_one_gradient_step_without_a_bound_is_the_authors():
    """x0 - grad |y - A x0|^2 / (2 rho_t), rho_t = lam sigma_y^2 / level^2."""
    A = cubic()
    prior, posterior = posterior_of(measured(operator=A), weight=3.0, curvature=0.0)
    t, x = level(prior, 0.1), source().at("x").normal(SHAPE)

    found = posterior.denoise(x, t)

    x0 = prior.denoise(x, t).requires_grad_()
    loss = (posterior.measurement.data - A(x0)).square().sum()
    (gradient,) = torch.autograd.grad(loss, x0)
    rho = 3.0 * SIGMA_Y**2 / 0.1**2
    torch.testing.assert_close(found, x0.detach() - gradient / (2 * rho), rtol=1e-9, atol=1e-10)


def test_one_bounded_gradient_step_solves_orthonormal_measurements():
    """A A^T = I and curvature = 1: the step lands on the proximal point, at every level."""
    mask = registry.get_operator("inpainting", image_shape=SHAPE, mask="random", fraction=0.5)
    loose = from_function(lambda x: mask(x), SHAPE)
    y = mask(torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(1, *SHAPE))[0]
    for value in (100.0, 0.5, 0.01):
        (prior, exact), (_, step) = (posterior_of(Measurement(A, y, SIGMA_Y)) for A in (mask, loose))
        t, x = level(prior, value), source().at("x").normal(SHAPE)

        torch.testing.assert_close(step.denoise(x, t), exact.denoise(x, t), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("value", [20.0, 0.5])
def test_many_gradient_steps_reach_the_proximal_point(value):
    norm2 = float(torch.linalg.matrix_norm(torch.tensor(ROWS, dtype=torch.float64), 2)) ** 2
    steps = posterior_of(measured(operator=as_nonlinear()), gradient_steps=400, curvature=norm2)[1]
    prior, exact = posterior_of(Measurement(make_operator(), steps.measurement.data, SIGMA_Y))
    t, x = level(prior, value), source().at("x").normal(SHAPE)

    # the smallest singular value squared is .28 of norm2's: (1 - .28)^400 is nothing; at 20 the null space stays put
    torch.testing.assert_close(steps.denoise(x, t), exact.denoise(x, t), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("start", ["estimate", "draw"])
def test_langevin_moves_have_the_law_of_their_own_recursion(start):
    """For a linear A the moves are affine: v <- (I - e H) v + e b + sqrt(2 e) z, H the precision. The law after them
    is exact, and what the start was is still to be seen."""
    method = {"moves": 12, "step_size": 0.3, "curvature": 4.0, "start": start}
    _, posterior = posterior_of(measured(operator=as_nonlinear()), **method)
    t, x0, r2 = level(posterior.prior, 0.4), source((0,)).at("x0").normal(SHAPE), 0.4**2
    n = 20_000
    noise = BatchNoise(1, range(n), dtype=torch.float64, device=CPU)

    v = posterior.refine(x0.expand(n, *SHAPE), t, noise).flatten(1)

    A, y = torch.tensor(ROWS, dtype=torch.float64), posterior.measurement.data
    H = torch.eye(6, dtype=torch.float64) / r2 + A.T @ A / SIGMA_Y**2
    b = x0.flatten() / r2 + A.T @ y / SIGMA_Y**2
    e = 0.3 / (1 / r2 + 4.0 / SIGMA_Y**2)
    L = torch.eye(6, dtype=torch.float64) - e * H
    M, V = x0.flatten(), (r2 if start == "draw" else 0.0) * torch.eye(6, dtype=torch.float64)
    for _ in range(12):
        M, V = L @ M + e * b, L @ V @ L + 2 * e * torch.eye(6, dtype=torch.float64)
    # five standard errors of means and variances
    assert bool(((v.mean(0) - M).abs() <= 5 * (V.diagonal() / n).sqrt()).all())
    assert bool(((v.var(0) / V.diagonal() - 1).abs() <= 5 * math.sqrt(2 / n)).all())


@pytest.mark.parametrize("operator", ["linear", "nonlinear"])
def test_a_sample_refines_alone_as_in_a_batch(operator):
    measurement = measured() if operator == "linear" else measured(operator=cubic())
    _, posterior = posterior_of(measurement, moves=5)
    t, x0 = level(posterior.prior, 0.4), source(range(4)).at("x0").normal(SHAPE)
    kept = x0.clone()

    many = posterior.refine(x0, t, source(range(4)))

    torch.testing.assert_close(posterior.refine(x0[2:3], t, source((2,))), many[2:3], rtol=1e-12, atol=1e-13)
    assert torch.equal(many, posterior.refine(x0, t, source(range(4))))
    assert torch.equal(x0, kept)
    assert not many.requires_grad


# What it reduces to, costs and refuses.


def test_with_much_trust_in_the_network_it_is_the_unconditional_run():
    """lam -> infinity."""
    prior, posterior = posterior_of(weight=1e14)
    sampler = registry.get_sampler("ancestral", noise="fresh", eta=0.3, steps=4)

    # r^2 / sigma_y^2 is 2e-9 at the largest level
    torch.testing.assert_close(sampler.sample(posterior, 2), sampler.sample(prior, 2), rtol=0, atol=1e-6)


def test_a_measurement_of_nothing_is_the_same_samplers_unconditional_run():
    A = registry.get_operator("matrix", image_shape=SHAPE, matrix=((0.0,) * 6,))
    prior, posterior = posterior_of(Measurement(A, torch.zeros(1, dtype=torch.float64), SIGMA_Y))
    sampler = registry.get_sampler("ancestral", noise="fresh", eta=0.3, steps=4)

    assert torch.equal(sampler.sample(posterior, 2), sampler.sample(prior, 2))


def test_the_units_of_the_data_do_not_matter():
    prior, posterior = posterior_of()
    rows = tuple(tuple(1000 * value for value in row) for row in ROWS)
    A = registry.get_operator("matrix", image_shape=SHAPE, matrix=rows)
    _, scaled = posterior_of(Measurement(A, 1000 * posterior.measurement.data, 1000 * SIGMA_Y))
    t, x = level(prior, 0.5), source().at("x").normal(SHAPE)

    torch.testing.assert_close(scaled.denoise(x, t), posterior.denoise(x, t), rtol=1e-10, atol=1e-11)
    refined = [p.refine(x, t, source()) for p in (posterior, scaled)]
    torch.testing.assert_close(refined[1], refined[0], rtol=1e-10, atol=1e-11)


def test_one_evaluation_without_a_graph():
    cost, prior = Cost(), registry.get_model("gaussian", image_shape=SHAPE, covariance=0.5)
    posterior = DiffPIR().condition(counted_model(prior, cost), measured())
    t, x = level(prior, 0.5), source().at("x").normal(SHAPE)

    x0 = posterior.denoise(x, t)
    posterior.refine(x0, t, source())

    assert (cost.evaluation_calls, cost.vjp_calls) == (1, 0)
    assert not x0.requires_grad
    step = Step(t=t, s=t, x0=x0, gain=0.0, phase="correct", noise=source())
    assert posterior.project(x, step) is x  # it is guidance, not projection


def test_what_it_cannot_do_is_refused_with_what_to_do():
    prior, y = registry.get_model("gaussian", image_shape=SHAPE), torch.zeros(SHAPE, dtype=torch.float64)
    linear = from_function(lambda x: 2 * x, SHAPE, linear=True)
    nonlinear = from_function(lambda x: x**2, SHAPE)

    with pytest.raises(TypeError, match="'diffpir' with noise_std = 0 needs an operator with a pseudoinverse"):
        DiffPIR().condition(prior, Measurement(linear, y, 0.0))
    with pytest.raises(ValueError, match=r"'diffpir' divides by sigma_y\^2 for a nonlinear operator"):
        DiffPIR().condition(prior, Measurement(nonlinear, y, 0.0))


@pytest.mark.parametrize("r2", [1e-2, 1e6])
def test_a_sinogram_pulls_in_float32_as_it_does_in_float64(r2):
    """M has a condition of 1e9 at the higher level: conjugate gradients would stop, and the decomposition solves.

    It leaves out singular values below 1e-3 of the largest: compared on the rest, which 1e3 roundings of r blur.
    """
    operator = registry.get_operator("radon", image_shape=(1, 12, 12), angles=9)
    A = matrix_of(operator)
    x = source((0, 1)).at("x").normal((1, 12, 12))
    r = operator(x)

    v = torch.linalg.solve(r2 * A @ A.T + 0.01 * torch.eye(len(A), dtype=A.dtype), r.flatten(1).T).T
    measurement = Measurement(operator, torch.zeros(operator.output_shape), 0.1)
    pull, square = likelihood_pull(measurement, r.float(), variance=torch.tensor(r2, dtype=torch.float64))

    kept = operator.svd.Vt if r2 > 1 else torch.Tensor.contiguous
    expected = kept((r2 * v @ A).reshape(x.shape))
    torch.testing.assert_close(kept(r2 * pull.double()), expected, rtol=0, atol=1e-3)  # of an image of size 1
    if r2 <= 1:
        torch.testing.assert_close(square.double(), (r.flatten(1) * v).sum(1), rtol=1e-4, atol=0)


def test_a_sinogram_is_reconstructed_from_the_first_level_of_the_default_process():
    prior = registry.get_model("gaussian", image_shape=(1, 12, 12), covariance=0.5, precision="float32")
    operator = registry.get_operator("radon", image_shape=(1, 12, 12), angles=9)
    y = simulate(operator, torch.full((1, 12, 12), 0.3), 0.1)

    x = registry.get_sampler("ancestral", steps=20, grid="rho").sample(DiffPIR().condition(prior, y), 2)

    assert bool(x.isfinite().all())
