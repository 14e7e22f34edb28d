"""SDEs against the reference implementation, and against what alpha and sigma imply."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scoreplug import registry
from scoreplug.sde import BaseSDE

GOLDEN = load_file(Path(__file__).parents[2] / "golden" / "score_sde.safetensors")
NAMES = [spec.name for spec in registry.list("sde")]
PUBLISHED = ["vp", "subvp", "ve"]
PROCESSES = [
    *((name, {}) for name in NAMES),
    ("ddpm", {"schedule": "cosine"}),
    ("ddpm", {"chain_steps": 40}),
    ("cosine", {"offset": 0.05, "level_max": 30.0}),
    ("edm", {"rho": 3.0, "sigma_min": 0.1, "sigma_max": 9.0}),
    ("flow", {"level_max": 20.0}),
]

# The reference computes in float32: 1.2e-7 relative per operation, some ten operations.
FLOAT32 = {"rtol": 2e-5, "atol": 2e-6}


def golden(name):
    return GOLDEN[name].double()


def rows(coefficient):
    return coefficient.reshape(-1, 1, 1, 1)


def identify(value):
    return "-".join(map(str, value.values())) if isinstance(value, dict) else value


@pytest.fixture
def t():
    return golden("t")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_kernel_and_the_coefficients_are_those_of_score_sde(name, t):
    sde, x = registry.get_sde(name), golden("x")

    torch.testing.assert_close(rows(sde.alpha(t)) * x, golden(f"{name}.marginal_prob.mean"), **FLOAT32)
    torch.testing.assert_close(rows(sde.drift(t)) * x, golden(f"{name}.sde.drift"), **FLOAT32)
    # score_sde takes 1 - exp(2 log alpha) in float32; at t = 1e-5 that is 1e-6 with an error of 6e-8, or 3 % of sigma
    sharp = t > 1e-4 if name != "ve" else t >= 0
    torch.testing.assert_close(sde.sigma(t)[sharp], golden(f"{name}.marginal_prob.std")[sharp], rtol=5e-4, atol=1e-6)
    torch.testing.assert_close(sde.diffusion(t)[sharp], golden(f"{name}.sde.diffusion")[sharp], rtol=5e-4, atol=1e-5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_reverse_processes_are_those_of_score_sde(name, t):
    """Reverse drift f x - g^2 score, and half the score term for the probability flow."""
    sde, x, score = registry.get_sde(name), golden("x"), golden("score")
    f, g = rows(sde.drift(t)) * x, rows(sde.diffusion(t))
    bounds = {"rtol": 1e-3, "atol": 1e-3}  # g^2 score reaches 1e4 under VE and cancels against f x under VP

    torch.testing.assert_close(f - g**2 * score, golden(f"{name}.reverse_sde.sde.drift"), **bounds)
    torch.testing.assert_close(f - g**2 * score / 2, golden(f"{name}.reverse_ode.sde.drift"), **bounds)
    assert golden(f"{name}.reverse_ode.sde.diffusion").abs().max() == 0


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_prior_density_is_that_of_score_sde(name):
    torch.testing.assert_close(
        registry.get_sde(name).prior_log_density(golden("z")), golden(f"{name}.prior_logp"), rtol=1e-5, atol=1e-3
    )


def test_the_levels_of_the_discrete_chains_are_those_of_score_sde():
    """Its VP chain is DDPM's with linear betas, its VE chain the SDE at uniform times. (Their steps are compared where
    they are taken, in the tests of reverse-diffusion.)"""
    ddpm, ve = registry.get_sde("ddpm"), registry.get_sde("ve")
    t = torch.arange(0, 1001, dtype=torch.float64) / 1000

    alpha = ddpm.alpha(t[1:])
    betas = 1 - (alpha[1:] / alpha[:-1]) ** 2
    torch.testing.assert_close(betas, golden("vp.discrete_betas")[1:], rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(alpha, golden("vp.sqrt_alphas_cumprod"), rtol=1e-5, atol=0)
    # float32: 1 - alpha_bar is 1e-4 with an error of 6e-8 at the first step
    torch.testing.assert_close(ddpm.sigma(t[1:]), golden("vp.sqrt_1m_alphas_cumprod"), rtol=5e-4, atol=0)
    sigma = ve.sigma(torch.arange(1000, dtype=torch.float64) / 999)
    torch.testing.assert_close(sigma, golden("ve.discrete_sigmas"), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("name", "params"), PROCESSES, ids=identify)
def test_drift_and_diffusion_follow_from_the_kernel(name, params):
    """f = d log alpha / dt and g^2 = alpha^2 d(level^2)/dt, by the base class's automatic differentiation."""
    sde = registry.get_sde(name, **params)
    t = torch.linspace(sde.t_min, 1, 17, dtype=torch.float64)

    # 1 - alpha^2 keeps 1e-16 / sigma^2 of relative accuracy; sigma^2 >= 1e-10 at t_min
    torch.testing.assert_close(sde.drift(t), BaseSDE.drift(sde, t), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(sde.diffusion(t), BaseSDE.diffusion(sde, t), rtol=1e-7, atol=0)


@pytest.mark.parametrize(("name", "params"), PROCESSES, ids=identify)
def test_time_of_inverts_the_noise_level(name, params):
    sde = registry.get_sde(name, **params)
    t = torch.linspace(sde.t_min, 1, 17, dtype=torch.float64)

    torch.testing.assert_close(sde.time_of(sde.level(t)), t, rtol=1e-9, atol=1e-12)
    # the generic inverse bisects t in [0, 1] to 2^-60
    torch.testing.assert_close(BaseSDE.time_of(sde, sde.level(t)), t, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "params"), PROCESSES, ids=identify)
def test_levels_beyond_the_process_have_times_beyond_it(name, params):
    """Models are asked there under other processes."""
    sde = registry.get_sde(name, **params)
    lowest, highest = sde.level(torch.tensor([sde.t_min, 1.0], dtype=torch.float64))
    beyond = torch.stack([lowest / 2, 1.5 * highest])

    t = sde.time_of(beyond)
    assert float(t[0]) < sde.t_min < 1 < float(t[1])
    torch.testing.assert_close(sde.level(t), beyond, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["vp", "subvp", "cosine"])
def test_small_noise_is_not_lost_beside_the_signal(name):
    """sigma^2 = int g^2 + 2 f sigma^2 by the rule of the midpoint, whose error is t^2; 1 - alpha^2 would lose 1e-16 of
    1e-10."""
    sde, t = registry.get_sde(name), torch.tensor(1e-9, dtype=torch.float64)

    slope = sde.diffusion(t / 2) ** 2 + 2 * sde.drift(t / 2) * sde.sigma(t / 2) ** 2
    torch.testing.assert_close(sde.sigma(t) ** 2, slope * t, rtol=1e-7, atol=0)
    assert float(sde.alpha(torch.zeros_like(t))) == 1


@pytest.mark.parametrize(("name", "params"), PROCESSES, ids=identify)
def test_every_function_has_the_shape_and_type_of_its_argument(name, params):
    sde = registry.get_sde(name, **params)
    for t in (torch.tensor(0.4, dtype=torch.float64), torch.tensor([0.2, 0.4, 0.9], dtype=torch.float32)):
        for function in (sde.alpha, sde.sigma, sde.drift, sde.diffusion, sde.level, sde.time_of):
            assert (function(t).shape, function(t).dtype) == (t.shape, t.dtype), function


def test_a_process_that_gives_only_its_kernel_gets_the_rest():
    class Flow(BaseSDE):
        t_min = 1e-3

        def alpha(self, t):
            return 1 - t

        def sigma(self, t):
            return t

    sde, t = Flow(), torch.tensor(0.3, dtype=torch.float64)

    assert math.isclose(sde.drift(t), -1 / 0.7, rel_tol=1e-12)
    assert math.isclose(sde.diffusion(t) ** 2, 2 * 0.3 / 0.7, rel_tol=1e-12)
    assert math.isclose(sde.time_of(sde.level(t)), 0.3, rel_tol=1e-12)


@pytest.mark.parametrize("name", ["ve", "edm"])
def test_levels_that_do_not_rise_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name}: sigma_max must be > sigma_min = 2\.0 \(got 1\.0\)"):
        registry.get_sde(name, sigma_min=2.0, sigma_max=1.0)


@pytest.mark.parametrize("name", NAMES)
def test_the_start_is_as_wide_as_the_process_ends(name):
    """x_1 of data with the variance 1: alpha^2 + sigma^2, of which N(0, prior_std^2) may miss the signal's share."""
    sde = registry.get_sde(name)
    one = torch.ones((), dtype=torch.float64)

    alpha, sigma = float(sde.alpha(one)), float(sde.sigma(one))
    assert abs(sde.prior_std / sigma - 1) <= 1.01 * alpha**2
    assert alpha / sigma <= 1 / 50


@pytest.mark.parametrize("name", ["cosine", "flow"])
def test_the_largest_level_is_the_one_asked_for(name):
    sde = registry.get_sde(name, level_max=42.0)

    assert float(sde.level(torch.ones((), dtype=torch.float64))) == pytest.approx(42, rel=1e-12)


def test_cosine_is_nichols_formula():
    """Eq. 17, where f(0) divides; the clock runs to the u at which the level is 150."""
    sde = registry.get_sde("cosine")
    t = torch.linspace(0, 1, 9, dtype=torch.float64)

    u = t * sde.width / (math.pi / 2 / 1.008)
    expected = (torch.cos((u + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
    torch.testing.assert_close(sde.alpha(t) ** 2, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(sde.sigma(t) ** 2, 1 - expected, rtol=1e-9, atol=1e-12)
    assert 0.99 < float(u[-1]) < 1


def test_uniform_steps_of_edm_are_karras_grid():
    """Eq. 5 with the defaults of table 1, 18 steps."""
    sde = registry.get_sde("edm")
    i = torch.arange(18, dtype=torch.float64)

    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(sde.sigma(1 - i / 17), expected, rtol=1e-9, atol=0)


def test_flow_is_a_straight_line():
    sde = registry.get_sde("flow")
    t = torch.linspace(0, 1, 5, dtype=torch.float64)

    torch.testing.assert_close(sde.alpha(t) + sde.sigma(t), torch.ones_like(t), rtol=1e-15, atol=0)
    # in the clock u = T t: f = -1/(1-u), g^2 = 2u/(1-u), each times du/dt = T
    u, T = t * sde.end, sde.end
    torch.testing.assert_close(sde.drift(t), -T / (1 - u), rtol=1e-12, atol=0)
    torch.testing.assert_close(sde.diffusion(t) ** 2, T * 2 * u / (1 - u), rtol=1e-12, atol=0)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ddpm_goes_through_every_step_of_its_chain(schedule):
    """alpha_bar of the reference tables at t = (i + 1)/N, and monotone levels between."""
    sde = registry.get_sde("ddpm", schedule=schedule)
    tables = load_file(Path(__file__).parents[2] / "golden" / f"diffusion_schedule_{schedule}.safetensors")
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000

    # 1 - alpha_bar = 1e-4 at the first step: 1e-16 / 1e-4 of relative rounding in its logarithm
    torch.testing.assert_close(sde.alpha(t) ** 2, tables["alphas_cumprod"].double(), rtol=1e-9, atol=0)
    torch.testing.assert_close(sde.alpha(t) ** 2 + sde.sigma(t) ** 2, torch.ones_like(t), rtol=1e-14, atol=0)
    fine = sde.level(torch.linspace(1e-4, 1, 5000, dtype=torch.float64))
    assert bool((fine.diff() > 0).all())
