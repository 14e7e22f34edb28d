"""DDRM: its transition is the paper's branch by branch, its moments are those of the paper's recursion, and exact data
are met exactly."""

import math

import pytest
import torch

from scoreplug import Measurement, Noise, Step, registry, simulate
from scoreplug.operator import from_function, with_dense_svd
from scoreplug.protocols import HasLogDensity
from scoreplug.run.compatibility import verdict
from scoreplug.testing import affine_moments

S, GAIN, SIGMA_Y, Y = 1.7, 0.8, 0.6, 1.3
SDES = ["vp", "ve", "flow"]
SHAPE = (1, 4, 8)
OPERATORS = {
    "inpainting": {},
    "downsampling": {"factor": 2},
    "blur": {"std": 0.6},
    "fourier": {"acceleration": 2.0},
    "wide": {"matrix": tuple(tuple(math.sin(i * j + i) + (i == j) for j in range(32)) for i in range(12))},
    "tall": {"matrix": tuple(tuple(math.cos(i * j + 1) + 2 * (i == j) for j in range(32)) for i in range(40))},
    "radon": {"angles": 2},  # thin: V has fewer columns than x has entries
    "identity": {},
}
SPECTRAL = [spec for spec in registry.list("operator") if "svd" in spec.provides]
SAMPLERS = [s for s in registry.list("sampler") if verdict(registry.spec("conditioner", "ddrm"), s).state != "refused"]


def make_noise(samples=(0, 1)):
    return Noise(3, samples, dtype=torch.float64, device=torch.device("cpu"))


def make_operator(name):
    return registry.get_operator("matrix" if name in ("wide", "tall") else name, image_shape=SHAPE, **OPERATORS[name])


def image(shape=SHAPE):
    return torch.linspace(-1, 1, math.prod(shape), dtype=torch.float64).sin().reshape(shape)


def posterior_of(measurement, sde="vp", **params):
    shape = measurement.operator.input_shape
    prior = registry.get_model("gaussian", image_shape=shape, mean=0.2, covariance=0.5, sde=sde)
    return prior, registry.get_conditioner("ddrm", **params).condition(prior, measurement)


def scalar_transition(xbar, m, s, Uty, level, sigma_y, z, *, eta, eta_b, strict=False):
    """One spectral coordinate after an update to `level`, typed from the paper's eq. 8, in VE coordinates."""
    if s == 0:
        return xbar
    ybar = Uty / s
    if s * level > sigma_y or (s * level == sigma_y and not strict):
        return (1 - eta_b) * m + eta_b * ybar + math.sqrt(max(level**2 - eta_b**2 * sigma_y**2 / s**2, 0)) * z
    if s * level < sigma_y:
        return m + math.sqrt(1 - eta**2) * level * (ybar - m) / (sigma_y / s) + eta * level * z
    return xbar


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize("level", [2.0, 0.3, 0.02])
def test_the_transition_is_the_papers_coordinate_by_coordinate(level, sde, operator):
    """Three levels at noise .1: data cleaner than the state, about as noisy, and noisier."""
    A, eta, eta_b = make_operator(operator), 0.7, 0.9
    prior, posterior = posterior_of(simulate(A, image(), 0.1), sde, eta=eta, eta_b=eta_b)
    t, s_time = torch.ones((), dtype=torch.float64), prior.sde.time_of(torch.tensor(level, dtype=torch.float64))
    noise, alpha = make_noise(), prior.sde.alpha(s_time)
    x, x0 = (noise.at(label).normal(SHAPE) for label in ("x", "x0"))

    moved = posterior.project(x, Step(t=t, s=s_time, x0=x0, gain=0.0, phase="predict", noise=noise))

    svd, z = A.svd, noise.at("ddrm").normal(tuple(A.svd.singular_values.shape)).flatten(1)
    before, after, m = (svd.Vt(v).flatten(1) for v in (x / alpha, moved / alpha, x0))
    Uty = svd.Ut(posterior.measurement.data[None]).flatten()
    for k, s in enumerate(svd.singular_values.flatten().tolist()):
        for i in range(2):
            expected = scalar_transition(
                float(before[i, k]), float(m[i, k]), s, float(Uty[k]), level, 0.1, float(z[i, k]), eta=eta, eta_b=eta_b
            )
            # 1/s reaches 1e3 in the blur, times rounding of the transforms
            assert float(after[i, k]) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    unreached, unreached_before = (v - svd.V(svd.Vt(v)) for v in (moved, x))
    torch.testing.assert_close(unreached, unreached_before, rtol=0, atol=1e-12)  # x is of order 1


def test_the_start_is_drawn_around_the_data():
    """N(ybar, level_T^2 - sigma_y^2 / s^2) where the data are cleaner than the start, the start itself elsewhere."""
    A = registry.get_operator("matrix", image_shape=(1, 1, 3), matrix=((2.0, 0.0, 0.0), (0.0, 1e-3, 0.0)))
    y = torch.tensor([1.0, 0.5], dtype=torch.float64)
    prior = registry.get_model("gaussian", image_shape=(1, 1, 3), sde="vp")
    posterior = registry.get_conditioner("ddrm").condition(prior, Measurement(A, y, 0.4))
    t, noise = torch.ones((), dtype=torch.float64), make_noise((0,))
    x = noise.at("x").normal((1, 1, 3))

    begun = posterior.project(x, Step(t=t, s=t, x0=None, gain=0.0, phase="start", noise=noise))

    alpha, level = prior.sde.alpha(t), prior.sde.level(t)
    coordinates = A.svd.Vt(begun / alpha).flatten()
    z = noise.at("ddrm").normal(tuple(A.svd.singular_values.shape)).flatten()
    first = int(A.svd.singular_values.argmax())
    ybar = A.svd.Ut(y[None]).flatten()[first] / 2
    torch.testing.assert_close(coordinates[first], ybar + (level**2 - 0.4**2 / 4).sqrt() * z[first])
    rest = [k for k in range(3) if k != first]  # sigma_y / s = 400 > 152, and s = 0
    torch.testing.assert_close(coordinates[rest], A.svd.Vt(x / alpha).flatten()[rest], rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(
    ("eta", "steps", "mean", "variance"),
    [
        (0.85, 20, 1.1351, 0.1422),
        (0.85, 100, 1.4406, 0.0430),
        (0.85, 1000, 1.5995, 0.0050),
        (1.0, 20, 0.6357, 0.4882),
        (1.0, 1000, 0.0000, 0.8442),
    ],
)
def test_moments_on_a_gaussian_are_those_of_the_published_recursion(eta, steps, mean, variance):
    """Geometric levels 100 -> 1e-4 -> 0, eta_b = 1: `steps` levels, the last of which the final step goes to 0 from."""
    sde = registry.get_sde("ve", sigma_min=1e-4, sigma_max=100.0, t_min=1e-12)
    prior = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=S, sde=sde)
    A = with_dense_svd(from_function(lambda x: GAIN * x, (1, 1, 1), linear=True))
    measurement = Measurement(A, torch.full((1, 1, 1), Y, dtype=torch.float64), SIGMA_Y)
    posterior = registry.get_conditioner("ddrm", eta=eta).condition(prior, measurement)
    sampler = registry.get_sampler("ancestral", noise="fresh", eta=eta, steps=steps - 1)

    found = affine_moments(sampler, posterior)

    # the table has four decimals
    assert [float(moment) for moment in found] == pytest.approx([mean, variance], abs=6e-5)


def test_an_unmeasured_coordinate_gets_the_variance_of_fresh_noise():
    """(1 + q) S / 2 in the limit; 1000 levels are .7 % below."""
    sde = registry.get_sde("ve", sigma_min=1e-4, sigma_max=100.0, t_min=1e-12)
    prior = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=S, sde=sde)
    A = registry.get_operator("matrix", image_shape=(1, 1, 1), matrix=((0.0,),))
    posterior = registry.get_conditioner("ddrm").condition(prior, Measurement(A, torch.zeros(1).double(), SIGMA_Y))

    _, variance = affine_moments(registry.get_sampler("ancestral", noise="fresh", eta=0.85, steps=999), posterior)

    # the bias is of first order: .075 at 100 levels, .0089 at 1000
    assert float(variance) == pytest.approx((1 + math.sqrt(1 - 0.85**2)) / 2 * S, abs=0.01)


@pytest.mark.parametrize("operator", SPECTRAL, ids=lambda spec: spec.name)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda spec: spec.name)
def test_exact_data_are_met_exactly(operator, sampler):
    A = registry.get_operator(operator.name, **({"image_shape": (2, 4, 4)} | dict(operator.example)))
    _, posterior = posterior_of(simulate(A, image(A.input_shape), 0.0))

    x = registry.get_sampler(sampler.name, steps=4).sample(posterior, 2)

    y = posterior.measurement.data
    # rounding of the start, sigma_1 / alpha_1 = 152, times the largest condition number, 5e3 (radon)
    assert float((A(x) - y).norm()) <= 1e-10 * float(y.norm())


def test_the_authors_inequality_does_not_meet_exact_data():
    """At level 0 with sigma_y = 0 both sides are 0: their code takes the coordinate as unmeasured."""
    A = make_operator("inpainting")
    measurement = simulate(A, image(), 0.0)
    _, authors = posterior_of(measurement, compat="authors")

    x = registry.get_sampler("ancestral", noise="fresh", eta=0.85, steps=5).sample(authors, 2)

    assert float((A(x) - measurement.data).norm()) > 1e-3 * float(measurement.data.norm())


def test_a_tie_is_measured_for_the_paper_and_unmeasured_for_the_code():
    t = torch.tensor(0.5, dtype=torch.float64)
    tie = float(registry.get_sde("ve").sigma(t))
    measurement = Measurement(registry.get_operator("identity", image_shape=SHAPE), image(), tie)
    (_, paper), (_, code) = posterior_of(measurement, "ve"), posterior_of(measurement, "ve", compat="authors")
    noise = make_noise()
    x, x0 = noise.at("x").normal(SHAPE), noise.at("x0").normal(SHAPE)
    step = Step(t=t, s=t, x0=x0, gain=0.0, phase="predict", noise=noise)

    torch.testing.assert_close(paper.project(x, step), image().expand(2, *SHAPE), rtol=1e-12, atol=1e-7)
    assert torch.equal(code.project(x, step), x)


def ddnm_plus(m, xbar_t, s, y, level_t, level_s, sigma_y, z, eta):
    """DDNM+ of Wang et al. 2023 with the SVD, one coordinate: x0' = m + lam (ybar - m), then noise by its case."""
    q = math.sqrt(1 - eta**2)
    if s == 0:
        eps = (xbar_t - m) / level_t
        return m + level_s * (eta * z + q * eps)
    if level_s >= sigma_y / s:
        return m + (y / s - m) + math.sqrt(max(level_s**2 - sigma_y**2 / s**2, 0)) * z
    lam = s * level_s * q / sigma_y
    return m + lam * (y / s - m) + eta * level_s * z


@pytest.mark.parametrize("eta", [0.0, 0.5, 0.85, 1.0])
@pytest.mark.parametrize("level_s", [0.05, 0.4])
def test_ddnm_plus_is_ddrm_with_eta_b_1(eta, level_s):
    """For noisy data, per step and coordinate, with the same draws."""
    A = make_operator("downsampling")
    prior, posterior = posterior_of(simulate(A, image(), 0.1), "ve", eta=eta)
    times = prior.sde.time_of(torch.tensor([1.0, level_s], dtype=torch.float64))
    noise = make_noise((0,))
    x = noise.at("x").normal(SHAPE)
    sampler = registry.get_sampler("ancestral", noise="fresh", eta=eta)

    moved, x0, gain = sampler.transition(posterior, x, times[0], times[1], noise.at("kernel"))
    step = Step(t=times[0], s=times[1], x0=x0, gain=gain, phase="predict", noise=noise)
    moved = posterior.project(moved, step)

    svd = A.svd
    z = noise.at("ddrm").normal(tuple(svd.singular_values.shape)).flatten()
    kernel = svd.Vt(noise.at("kernel").at("z").normal(SHAPE)).flatten()
    m, before, after = (svd.Vt(v).flatten() for v in (x0, x, moved))
    Uty = svd.Ut(posterior.measurement.data[None]).flatten()
    for k, s in enumerate(svd.singular_values.flatten().tolist()):
        draw = float(kernel[k] if s == 0 else z[k])
        expected = ddnm_plus(float(m[k]), float(before[k]), s, float(Uty[k]), 1.0, level_s, 0.1, draw, eta)
        assert float(after[k]) == pytest.approx(expected, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize(("eta", "same"), [(1.0, True), (0.85, False)])
def test_noise_free_ddnm_is_ddrm_only_if_all_noise_is_new(eta, same):
    """DDNM keeps eps in the measured coordinates, DDRM draws them anew: with eta = 1 neither keeps anything."""
    A = make_operator("downsampling")
    prior, posterior = posterior_of(simulate(A, image(), 0.0), "ve", eta=eta)
    t, s = prior.sde.time_of(torch.tensor([1.0, 0.4], dtype=torch.float64))
    noise, svd = make_noise((0,)), A.svd
    x = noise.at("x").normal(SHAPE)

    moved, x0, gain = registry.get_sampler("ancestral", noise="fresh", eta=eta).transition(
        posterior, x, t, s, noise.at("kernel")
    )
    ddrm = posterior.project(moved, Step(t=t, s=s, x0=x0, gain=gain, phase="predict", noise=noise))

    z = noise.at("ddrm").normal(tuple(svd.singular_values.shape))
    kernel = svd.Vt(noise.at("kernel").at("z").normal(SHAPE))
    z = svd.V(torch.where(svd.singular_values > 0, z, kernel))
    eps = (x - x0) / 1.0
    ddnm = x0 + A.pinv(posterior.measurement.data - A(x0)) + 0.4 * (eta * z + math.sqrt(1 - eta**2) * eps)
    assert torch.allclose(ddrm, ddnm, rtol=0, atol=1e-12) is same


def test_a_measurement_of_nothing_is_the_same_samplers_unconditional_run():
    A = registry.get_operator("matrix", image_shape=SHAPE, matrix=((0.0,) * 32,))
    prior, posterior = posterior_of(Measurement(A, torch.zeros(1, dtype=torch.float64), 0.1))
    sampler = registry.get_sampler("ancestral", noise="fresh", eta=0.85, steps=5)

    # V (c - c) is 0 exactly
    assert torch.equal(sampler.sample(posterior, 2), sampler.sample(prior, 2))


def test_the_priors_own_projection_comes_first():
    """Conditioned on a measurement of nothing, a posterior is what it was."""
    A = registry.get_operator("matrix", image_shape=SHAPE, matrix=((0.0,) * 32,))
    _, posterior = posterior_of(simulate(make_operator("inpainting"), image(), 0.1))
    again = registry.get_conditioner("ddrm").condition(posterior, Measurement(A, torch.zeros(1).double(), 0.1))
    t, noise = torch.tensor(0.4, dtype=torch.float64), make_noise()
    x, x0 = (noise.at(label).normal(SHAPE) for label in ("x", "x0"))
    step = Step(t=t, s=t, x0=x0, gain=0.0, phase="correct", noise=noise)

    assert torch.equal(again.project(x, step), posterior.project(x, step))
    assert not torch.equal(again.project(x, step), x)


@pytest.mark.parametrize("operator", ["inpainting", "blur"])
def test_the_transition_is_the_same_under_every_sde(operator):
    A = make_operator(operator)
    noise, results = make_noise(), []
    xbar, x0 = noise.at("x").normal(SHAPE), noise.at("x0").normal(SHAPE)
    for sde in ("vp", "ve", "subvp", "flow", "edm", "cosine", "ddpm"):
        prior, posterior = posterior_of(simulate(A, image(), 0.1), sde)
        t = prior.sde.time_of(torch.tensor(0.3, dtype=torch.float64))
        alpha = prior.sde.alpha(t)
        step = Step(t=t, s=t, x0=x0, gain=0.0, phase="predict", noise=noise)
        results.append(posterior.project(alpha * xbar, step) / alpha)

    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-8, atol=1e-8)


def test_between_projections_the_density_is_the_priors():
    prior, posterior = posterior_of(simulate(make_operator("inpainting"), image(), 0.1))
    t, x = torch.tensor(0.4, dtype=torch.float64), make_noise().at("x").normal(SHAPE)

    assert isinstance(posterior, HasLogDensity)
    assert torch.equal(posterior.log_density(x, t), prior.log_density(x, t))
    assert torch.equal(posterior.score(x, t), prior.score(x, t))


def test_an_operator_without_svd_is_refused_with_what_to_use():
    prior = registry.get_model("gaussian", image_shape=SHAPE)
    plain = from_function(lambda x: 2 * x, SHAPE, linear=True)

    with pytest.raises(TypeError, match="'ddrm' needs an operator with a singular value decomposition"):
        registry.get_conditioner("ddrm").condition(prior, Measurement(plain, image(), 0.1))
