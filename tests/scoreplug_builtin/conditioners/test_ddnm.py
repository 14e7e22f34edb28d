"""DDNM: its step is the paper's, exact data are met exactly, and DDNM+ is DDRM with eta_b = 1."""

import itertools
import math

import pytest
import torch

from scoreplug import Measurement, Noise, Step, registry, simulate
from scoreplug.operator import from_function
from scoreplug.protocols import HasLogDensity
from scoreplug.testing import affine_moments
from scoreplug_builtin.conditioners.ddnm import DDNM

SHAPE = (1, 4, 8)
CPU = torch.device("cpu")
OPERATORS = {"inpainting": {}, "downsampling": {"factor": 2}, "blur": {"std": 0.6}, "radon": {"angles": 2}}


def source(samples=(0, 1)):
    return Noise(3, samples, dtype=torch.float64, device=CPU)


def make_operator(name):
    return registry.get_operator(name, image_shape=SHAPE, **OPERATORS[name])


def image():
    return torch.linspace(-1, 1, 32, dtype=torch.float64).sin().reshape(SHAPE)


def posterior_of(operator, noise_std=0.0, sde="vp", **params):
    prior = registry.get_model("gaussian", image_shape=SHAPE, mean=0.2, covariance=0.5, sde=sde)
    return prior, DDNM(**params).condition(prior, simulate(operator, image(), noise_std))


def levels(prior, *values):
    return prior.sde.time_of(torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sde", ["vp", "ve", "flow"])
def test_a_step_is_the_papers(sde, operator):
    """x_s = alpha_s x0' + sigma_s (eta z + sqrt(1 - eta^2) eps), with x0' = A^+ y + (I - A^+ A) x0 and eps the
    network's own."""
    A, eta = make_operator(operator), 0.85
    prior, posterior = posterior_of(A, sde=sde)
    t, s = levels(prior, 2.0, 0.3)
    x, noise = source().at("x").normal(SHAPE), source().at("kernel")

    moved, x0, gain = registry.get_sampler("ancestral", noise="fresh", eta=eta).transition(posterior, x, t, s, noise)
    found = posterior.project(moved, Step(t=t, s=s, x0=x0, gain=gain, phase="predict", noise=source()))

    eps = (x - prior.sde.alpha(t) * prior.denoise(x, t)) / prior.sde.sigma(t)
    completed = A.pinv(posterior.measurement.data[None]) + x0 - A.pinv(A(x0))
    z = noise.at("z").normal(SHAPE)
    expected = prior.sde.alpha(s) * completed + prior.sde.sigma(s) * (eta * z + math.sqrt(1 - eta**2) * eps)
    # rounding times the condition number, below 1e3
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sampler", ["ancestral", "em", "ode", "pc", "dpm-solver"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_exact_data_are_met_exactly(operator, sampler):
    A = make_operator(operator)
    _, posterior = posterior_of(A)

    x = registry.get_sampler(sampler, steps=4).sample(posterior, 2)

    y = posterior.measurement.data
    assert float((A(x) - y).norm()) <= 1e-10 * float(y.norm())
    assert not torch.allclose(x[0], x[1]) or operator == "blur"  # blur leaves nothing open


def test_the_start_and_the_null_space_are_left_alone():
    A = make_operator("inpainting")
    prior, posterior = posterior_of(A)
    x, x0 = (source().at(label).normal(SHAPE) for label in ("x", "x0"))
    t, s = levels(prior, 2.0, 0.3)

    begun = posterior.project(x, Step(t=t, s=t, x0=None, gain=0.0, phase="start", noise=source()))
    moved = posterior.project(x, Step(t=t, s=s, x0=x0, gain=0.0, phase="predict", noise=source()))

    assert torch.equal(begun, x)
    assert torch.equal(moved[:, ~A.observed], x[:, ~A.observed])
    assert not torch.equal(moved[:, A.observed], x[:, A.observed])


@pytest.mark.parametrize("level", [2.0, 0.3, 0.02])
@pytest.mark.parametrize("eta", [0.0, 0.5, 0.85, 1.0])
@pytest.mark.parametrize("operator", ["downsampling", "blur"])
def test_ddnm_plus_is_ddrm_with_eta_b_1(operator, eta, level):
    """After every update, with the same draws, whatever the noise of y; only the start differs."""
    A, noise = make_operator(operator), source()
    prior, plus = posterior_of(A, 0.1, form="plus", eta=eta)
    ddrm = registry.get_conditioner("ddrm", eta=eta, eta_b=1.0).condition(prior, plus.measurement)
    t, s = levels(prior, 3.0, level)
    x, x0 = (noise.at(label).normal(SHAPE) for label in ("x", "x0"))
    step = Step(t=t, s=s, x0=x0, gain=0.0, phase="predict", noise=noise)
    start = Step(t=t, s=t, x0=None, gain=0.0, phase="start", noise=noise)

    assert torch.equal(plus.project(x, step), ddrm.project(x, step))
    assert not torch.equal(plus.project(x, step), x)
    assert torch.equal(plus.project(x, start), x)
    assert not torch.equal(ddrm.project(x, start), x)


@pytest.mark.parametrize(("eta", "same"), [(1.0, True), (0.85, False)])
def test_the_two_forms_agree_on_exact_data_only_if_all_noise_is_new(eta, same):
    """In law, the mean and the covariance of a whole run. The plain form keeps a share of eps where plus draws anew."""
    A = registry.get_operator("matrix", image_shape=(1, 1, 2), matrix=((1.0, 0.5),))
    prior = registry.get_model(
        "gaussian", image_shape=(1, 1, 2), mean=0.3, covariance=((1.0, 0.4), (0.4, 0.8)), sde="ve"
    )
    measurement = Measurement(A, torch.ones(1, dtype=torch.float64), 0.0)
    sampler = registry.get_sampler("ancestral", noise="fresh", eta=eta, steps=6, grid="rho", final="sample")

    plain, plus = (
        affine_moments(sampler, DDNM(form=form, eta=eta).condition(prior, measurement)) for form in ("plain", "plus")
    )

    close = [torch.allclose(a, b, rtol=0, atol=1e-9) for a, b in zip(plain, plus, strict=True)]
    assert close == [same, same]


@pytest.mark.parametrize(("steps", "mean", "variance"), [(20, 0.3071, 0.5124), (100, 0.4367, 0.5599)])
def test_the_bias_on_two_correlated_variables_is_the_documented_one(steps, mean, variance):
    """Typed anew, in the coordinates x_1 (measured) and x_2, with the prior's exact denoiser."""
    rho, eta = 0.5, 0.85
    prior = registry.get_model("gaussian", image_shape=(1, 1, 2), covariance=((1.0, rho), (rho, 1.0)), sde="ve")
    A = registry.get_operator("matrix", image_shape=(1, 1, 2), matrix=((1.0, 0.0),))
    posterior = DDNM().condition(prior, Measurement(A, torch.ones(1, dtype=torch.float64), 0.0))
    sampler = registry.get_sampler("ancestral", noise="fresh", eta=eta, steps=steps, grid="rho")

    found = affine_moments(sampler, posterior)

    sigma = prior.sde.sigma(sampler.times(prior.sde))
    S, q = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64), math.sqrt(1 - eta**2)
    eye, unseen = torch.eye(2, dtype=torch.float64), torch.diag(torch.tensor([0.0, 1.0], dtype=torch.float64))
    y = torch.tensor([1.0, 0.0], dtype=torch.float64)
    M, V = torch.zeros(2, dtype=torch.float64), float(sigma[0]) ** 2 * eye
    for l_t, l_s in itertools.pairwise(sigma):
        D = S @ torch.linalg.inv(S + l_t**2 * eye)
        L = unseen @ D + l_s * q / l_t * (eye - D)
        M, V = L @ M + y, L @ V @ L.T + (eta * l_s) ** 2 * eye
    D = unseen @ S @ torch.linalg.inv(S + sigma[-1] ** 2 * eye)
    M, V = D @ M + y, D @ V @ D.T
    torch.testing.assert_close(found[0], M, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found[1], V, rtol=1e-8, atol=1e-8)
    # four decimals in the docstring's source
    assert [float(M[1]), float(V[1, 1])] == pytest.approx([mean, variance], abs=6e-5)


@pytest.mark.parametrize("form", ["plain", "plus"])
def test_a_measurement_of_nothing_is_the_same_samplers_unconditional_run(form):
    A = registry.get_operator("matrix", image_shape=SHAPE, matrix=((0.0,) * 32,))
    prior = registry.get_model("gaussian", image_shape=SHAPE, mean=0.2, covariance=0.5)
    posterior = DDNM(form=form).condition(prior, Measurement(A, torch.zeros(1, dtype=torch.float64), 0.1))
    sampler = registry.get_sampler("ancestral", noise="fresh", eta=0.85, steps=5)

    assert torch.equal(sampler.sample(posterior, 2), sampler.sample(prior, 2))


@pytest.mark.parametrize("form", ["plain", "plus"])
def test_between_projections_the_density_is_the_priors(form):
    prior, posterior = posterior_of(make_operator("inpainting"), 0.1, form=form)
    t, x = torch.tensor(0.4, dtype=torch.float64), source().at("x").normal(SHAPE)

    assert isinstance(posterior, HasLogDensity)
    assert torch.equal(posterior.log_density(x, t), prior.log_density(x, t))
    assert torch.equal(posterior.score(x, t), prior.score(x, t))


def test_what_it_cannot_do_is_refused_with_what_to_use():
    prior = registry.get_model("gaussian", image_shape=SHAPE)
    linear = from_function(lambda x: 2 * x, SHAPE, linear=True)
    nonlinear = from_function(lambda x: x**2, SHAPE)

    with pytest.raises(TypeError, match="'ddnm' needs an operator with a pseudoinverse"):
        DDNM().condition(prior, Measurement(linear, image(), 0.0))
    with pytest.raises(TypeError, match="'ddnm' needs a linear operator"):
        DDNM().condition(prior, Measurement(nonlinear, image(), 0.0))
    with pytest.raises(TypeError, match="'ddnm' needs an operator with a singular value decomposition"):
        DDNM(form="plus").condition(prior, Measurement(linear, image(), 0.1))
