"""DDS: its iterates are those of the paper's conjugate gradients, its limits and its collapse are the known ones."""

import itertools

import pytest
import torch

from scoreplug import Measurement, Noise, Step, registry, simulate
from scoreplug.operator import from_function, matrix_of, with_dense_svd
from scoreplug.protocols import HasLogDensity
from scoreplug.run.cost import Cost, counted_operator
from scoreplug.testing import affine_moments
from scoreplug_builtin.conditioners.dds import DDS

SHAPE = (1, 4, 4)
ROWS = tuple(tuple(0.3 * ((3 * i + j * j) % 7 - 3) for j in range(16)) for i in range(6))


def source(samples=(0, 1)):
    return Noise(3, samples, dtype=torch.float64, device=torch.device("cpu"))


def make_operator():
    return registry.get_operator("matrix", image_shape=SHAPE, matrix=ROWS)


def posterior_of(operator=None, sde="vp", noise_std=0.1, **params):
    prior = registry.get_model("gaussian", image_shape=SHAPE, mean=0.2, covariance=0.5, sde=sde)
    image = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(SHAPE)
    return prior, DDS(**params).condition(prior, simulate(operator or make_operator(), image, noise_std))


def published_conjugate_gradients(M, b, x, steps):
    """Hestenes and Stiefel, one sample, from x on the system M x = b."""
    r = b - M @ x
    p = r
    for _ in range(steps):
        a = (r @ r) / (p @ M @ p)
        x, r_next = x + a * p, r - a * (M @ p)
        p = r_next + (r_next @ r_next) / (r @ r) * p
        r = r_next
    return x


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_estimate_moves_to_the_papers_iterate(steps):
    """CG_k on (I + gamma A^T A) x = x0 + gamma A^T y from x0, in each sample on its own."""
    prior, posterior = posterior_of(gamma=7.0, cg_steps=steps)
    t, s = torch.tensor([0.6, 0.5], dtype=torch.float64)
    x, x0 = (source().at(label).normal(SHAPE) for label in ("x", "x0"))

    moved = posterior.project(x, Step(t=t, s=s, x0=x0, gain=0.0, phase="predict", noise=source()))

    A, y = matrix_of(make_operator()), posterior.measurement.data
    gamma = 7.0 / float(torch.linalg.matrix_norm(A, 2)) ** 2
    M = torch.eye(16, dtype=torch.float64) + gamma * A.T @ A
    for i in range(2):
        start = x0[i].flatten()
        iterate = published_conjugate_gradients(M, start + gamma * A.T @ y, start, steps)
        expected = x[i].flatten() + prior.sde.alpha(s) * (iterate - start)
        # condition number 8, a few iterations
        torch.testing.assert_close(moved[i].flatten(), expected, rtol=1e-10, atol=1e-11)


def test_converged_it_is_the_regularised_least_squares_solution():
    _, posterior = posterior_of(gamma=7.0, cg_steps=16)
    x = source().at("x").normal(SHAPE)
    t = torch.tensor(0.01, dtype=torch.float64)

    finished = posterior.project(x, Step(t=t, s=t, x0=x, gain=0.0, phase="finish", noise=source()))

    A, y = matrix_of(make_operator()), posterior.measurement.data
    gamma = 7.0 / float(torch.linalg.matrix_norm(A, 2)) ** 2
    M = torch.eye(16, dtype=torch.float64) + gamma * A.T @ A
    expected = torch.linalg.solve(M, (x.flatten(1) + gamma * y @ A).T).T
    torch.testing.assert_close(finished.flatten(1), expected, rtol=1e-8, atol=1e-9)  # CG stops at 1e-10 of the residual


def test_with_a_large_gamma_exact_data_are_met():
    A = registry.get_operator("inpainting", image_shape=SHAPE)
    _, posterior = posterior_of(A, noise_std=0.0, gamma=1e12, cg_steps=1)  # A A^T = I: one step converges

    x = registry.get_sampler("ancestral", steps=4, eta=0.2).sample(posterior, 2)

    y = posterior.measurement.data
    assert float((A(x) - y).norm()) <= 1e-10 * float(y.norm())  # 1 / gamma, and rounding


@pytest.mark.parametrize("eta", [0.2, 1.0])
@pytest.mark.parametrize("steps", [3, 20])
def test_moments_on_a_gaussian_follow_the_methods_own_recursion(steps, eta):
    """The scalar problem, in which one conjugate-gradient step converges: x0' = (x0 + g y/a) / (1 + g)."""
    S, a, y, g = 1.7, 0.8, 1.3, 2.0
    A = with_dense_svd(from_function(lambda x: a * x, (1, 1, 1), linear=True))
    prior = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=S, sde="ve")
    posterior = DDS(gamma=g).condition(prior, Measurement(A, torch.full((1, 1, 1), y, dtype=torch.float64), 0.6))
    sampler = registry.get_sampler("ancestral", eta=eta, steps=steps, grid="rho")

    found = affine_moments(sampler, posterior)

    sigma = prior.sde.sigma(sampler.times(prior.sde)).tolist()
    M, V = 0.0, sigma[0] ** 2
    for l_t, l_s in itertools.pairwise(sigma):
        d = S / (S + l_t**2)
        c = eta * l_s * (1 - (l_s / l_t) ** 2) ** 0.5
        B = (l_s**2 - c**2) ** 0.5
        L = d / (1 + g) + B * (1 - d) / l_t  # x0 moved, eps kept
        M, V = L * M + g * y / a / (1 + g), L**2 * V + c**2
    d = S / (S + sigma[-1] ** 2) / (1 + g)
    expected = d * M + g * y / a / (1 + g), d**2 * V
    assert [float(moment) for moment in found] == pytest.approx(expected, rel=1e-8)


def test_many_steps_collapse_onto_the_data_whatever_the_noise():
    A = with_dense_svd(from_function(lambda x: 0.8 * x, (1, 1, 1), linear=True))
    prior = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=1.7, sde="ve")
    posterior = DDS().condition(prior, Measurement(A, torch.full((1, 1, 1), 1.3, dtype=torch.float64), 0.6))

    mean, variance = affine_moments(registry.get_sampler("ancestral", eta=0.2, steps=20, grid="rho"), posterior)

    # documented: y / a, and a variance below 1e-7, where the posterior has 1.221 and .423
    assert float(mean) == pytest.approx(1.3 / 0.8, abs=1e-4)
    assert float(variance) < 1e-7


def test_the_units_of_the_data_do_not_matter():
    """c A and c y, for the same gamma: it counts in units of 1 / |A|^2."""
    image = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(SHAPE)
    prior, results = registry.get_model("gaussian", image_shape=SHAPE, covariance=0.5), []
    for c in (1.0, 1000.0):
        rows = tuple(tuple(c * value for value in row) for row in ROWS)
        A = registry.get_operator("matrix", image_shape=SHAPE, matrix=rows)
        posterior = DDS().condition(prior, Measurement(A, A(image[None])[0], 0.1 * c))
        results.append(registry.get_sampler("ancestral", eta=0.2, steps=4).sample(posterior, 2))

    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", ["no weight", "no measurement"])
def test_without_data_it_is_the_same_samplers_unconditional_run(case):
    A = registry.get_operator("inpainting", image_shape=SHAPE, mask="random", fraction=0.5)
    prior = registry.get_model("gaussian", image_shape=SHAPE, mean=0.2, covariance=0.5)
    if case == "no measurement":
        method, A = DDS(), from_function(lambda x: 0 * x[..., :1], SHAPE, linear=True)
    else:
        method = DDS(gamma=0.0)
    posterior = method.condition(prior, Measurement(A, torch.zeros(A.output_shape, dtype=torch.float64), 0.1))
    sampler = registry.get_sampler("ancestral", eta=0.2, steps=4)

    assert torch.equal(sampler.sample(posterior, 2), sampler.sample(prior, 2))


def test_a_sample_stops_on_its_own():
    """One that fits exactly from the start stands still, beside one that does not."""
    A, image = make_operator(), torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(SHAPE)
    _, posterior = posterior_of(noise_std=0.0)
    x = torch.stack([image, -image])
    t = torch.tensor(0.01, dtype=torch.float64)
    end = Step(t=t, s=t, x0=x, gain=0.0, phase="finish", noise=source())

    finished = posterior.project(x, end)

    torch.testing.assert_close(finished[0], image, rtol=0, atol=1e-12)
    assert float(posterior.measurement.residual(finished[1:]).norm()) < 0.5 * float(A(-2 * image[None]).norm())
    alone = posterior.project(x[1:], Step(t=t, s=t, x0=x[1:], gain=0.0, phase="finish", noise=source((1,))))
    torch.testing.assert_close(alone, finished[1:], rtol=0, atol=1e-12)


def test_an_update_costs_k_plus_one_pairs_of_a_and_its_adjoint():
    cost = Cost()
    _, posterior = posterior_of(counted_operator(make_operator(), cost), cg_steps=3)
    x, t = source().at("x").normal(SHAPE), torch.tensor(0.5, dtype=torch.float64)
    step = Step(t=t, s=t, x0=x, gain=0.0, phase="predict", noise=source())
    posterior.project(x, step)  # the operator's norm is computed once
    before = cost.forward_calls, cost.adjoint_calls

    posterior.project(x, step)

    assert (cost.forward_calls - before[0], cost.adjoint_calls - before[1]) == (4, 4)


def test_between_projections_the_density_is_the_priors():
    prior, posterior = posterior_of()
    t, x = torch.tensor(0.4, dtype=torch.float64), source().at("x").normal(SHAPE)

    assert isinstance(posterior, HasLogDensity)
    assert torch.equal(posterior.log_density(x, t), prior.log_density(x, t))
    assert torch.equal(posterior.score(x, t), prior.score(x, t))


def test_a_nonlinear_operator_is_refused_with_what_to_use():
    prior = registry.get_model("gaussian", image_shape=SHAPE)
    A = from_function(lambda x: x**2, SHAPE)

    with pytest.raises(TypeError, match=r"'dds' needs a linear operator .*use dps or diffpir"):
        DDS().condition(prior, Measurement(A, torch.zeros(SHAPE, dtype=torch.float64), 0.1))
