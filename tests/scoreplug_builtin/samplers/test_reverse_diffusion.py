"""reverse-diffusion: score_sde's predictor on score_sde's grid, the forward transition's coefficients on any other."""

import itertools
import math
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from scoreplug import BaseModel, Noise, registry
from scoreplug.testing import affine_moments

GOLDEN = load_file(Path(__file__).parents[2] / "golden" / "score_sde.safetensors")
SDES = [spec.name for spec in registry.list("sde")]
MEAN, VARIANCE = 0.7, 1.7


def golden(name):
    return GOLDEN[name].double()


def times(*values):
    return torch.tensor(values, dtype=torch.float64)


@attrs.frozen(kw_only=True, eq=False)
class Given(BaseModel):
    """A model with a score that is given."""

    sde: object
    value: torch.Tensor
    shape = property(lambda self: tuple(self.value.shape[1:]))
    dtype = property(lambda self: self.value.dtype)
    device = property(lambda self: self.value.device)

    def score(self, x, t):
        return self.value


def step(sde, x, score, t, s):
    """x_s and the draw z that went into it, for one sample."""
    model = Given(sde=sde, value=score[None])
    noise = Noise(0, (0,), dtype=model.dtype, device=model.device)
    moved = registry.get_sampler("reverse-diffusion").transition(model, x[None], t, s, noise)
    return moved.x[0], noise.at("z").normal(model.shape)[0]


# score_sde's chains have the steps i = floor(999 t) of the golden times. The VP chain is DDPM's with linear betas, at
# the levels t = (i + 1) / 1000 of `ddpm`; the VE chain has the levels of the SDE at t = i / 999.
CHAINS = [("vp", "ddpm", lambda i: (i + 1) / 1000), ("ve", "ve", lambda i: i / 999)]


@pytest.mark.parametrize(("chain", "name", "clock"), CHAINS, ids=["vp", "ve"])
@pytest.mark.parametrize("row", range(8))
def test_on_score_sdes_grid_it_is_score_sdes_predictor(chain, name, clock, row):
    i = math.floor(999 * float(golden("t")[row]))
    x, score = golden("x")[row], golden("score")[row]
    reverse, G = golden(f"{chain}.reverse_sde.discretize.f")[row], golden(f"{chain}.reverse_sde.discretize.G")[row]
    sde = registry.get_sde(name)
    # the reference is float32, and sqrt(1 - b) x - x cancels; G^2 score reaches 100 under VE
    bounds = {"rtol": 1e-4, "atol": 1e-4}

    if i == 0:  # the chain's last step is to clean data, noise-free where it returns the mean: the end of our samplers
        end = Given(sde=sde, value=score[None]).denoise(x[None], times(clock(0))[0])[0]
        torch.testing.assert_close(x - reverse, end, **bounds)
        return
    moved, z = step(sde, x, score, *times(clock(i), clock(i - 1)))
    torch.testing.assert_close(moved, x - reverse + G * z, **bounds)


@pytest.mark.parametrize("row", range(2, 8))
def test_under_subvp_it_is_score_sdes_euler_step_up_to_its_second_order(row):
    """score_sde has no chain for this process and takes f dt and g sqrt(dt), dt = 1/1000, instead of the transition."""
    t, x, score = golden("t")[row], golden("x")[row], golden("score")[row]
    reverse, G = golden("subvp.reverse_sde.discretize.f")[row], golden("subvp.reverse_sde.discretize.G")[row]

    moved, z = step(registry.get_sde("subvp"), x, score, t, t - 1e-3)

    # d log g^2 / dt times dt / 2: 30 * 5e-4 at t = .05, the earliest, and less later; half of that for G
    torch.testing.assert_close(moved - x, -reverse + G * z, rtol=0, atol=0.015 * float(reverse.abs().max() + 3 * G))


@pytest.mark.parametrize("sde_name", SDES)
def test_its_coefficients_are_those_of_the_forward_process_between_the_levels(sde_name):
    """x_t given x_s of dx = f x dt + g dw: 1 + f = exp int f, and G^2 = int (alpha_t / alpha_u)^2 g_u^2 du over [s, t],
    here by Gauss's rule. `ddpm` is smooth between the steps of its chain only: the interval is one of these."""
    sde = registry.get_sde(sde_name)
    s, t = times(0.6, 0.601)
    zero, one = torch.zeros(1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, dtype=torch.float64)
    places, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(8))
    u, du = s + (t - s) * (1 + places) / 2, weights * (t - s) / 2

    f = torch.expm1((sde.drift(u) * du).sum())
    G2 = ((sde.alpha(t) / sde.alpha(u)) ** 2 * sde.diffusion(u) ** 2 * du).sum()
    # the library takes both from differences, of 1 and of sigma^2: 1e-16 over 1e-3
    by_x, z = step(sde, one, zero, t, s)
    torch.testing.assert_close(by_x, (1 - f) * one + G2.sqrt() * z, rtol=1e-11, atol=1e-13)
    by_score, z = step(sde, zero, one, t, s)
    torch.testing.assert_close(by_score, G2 * one + G2.sqrt() * z, rtol=1e-10, atol=1e-12)


def recursion(sde, grid, *, final="denoise", target=(MEAN, VARIANCE)):
    """Mean and variance on a normal distribution from the published step, one scalar at a time."""

    def kernel(t):
        alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
        P = alpha**2 * target[1] + sigma**2
        return alpha, sigma, -1 / P, alpha * target[0] / P  # score = a x + b

    mean, variance = 0.0, sde.prior_std**2
    for t, s in itertools.pairwise(grid):
        (alpha_t, sigma_t, a, b), (alpha_s, sigma_s, *_) = kernel(t), kernel(s)
        if alpha_t == alpha_s == 1:  # ve, edm
            shrink, G2 = 1.0, sigma_t**2 - sigma_s**2
        elif abs(alpha_t**2 + sigma_t**2 - 1) < 1e-12:  # vp, cosine, ddpm
            G2 = 1 - (alpha_t / alpha_s) ** 2
            shrink = 2 - math.sqrt(1 - G2)
        else:
            shrink, G2 = 2 - alpha_t / alpha_s, alpha_t**2 * ((sigma_t / alpha_t) ** 2 - (sigma_s / alpha_s) ** 2)
        L = shrink + G2 * a
        mean, variance = L * mean + G2 * b, L**2 * variance + G2
    if final == "denoise":
        alpha, sigma, a, b = kernel(grid[-1])
        c = (1 + sigma**2 * a) / alpha
        mean, variance = c * mean + sigma**2 * b / alpha, c**2 * variance
    return mean, variance


@pytest.mark.parametrize("final", ["denoise", "sample"])
@pytest.mark.parametrize("grid", ["uniform", "quadratic", "rho"])
@pytest.mark.parametrize("sde_name", SDES)
def test_moments_equal_its_own_recursion(sde_name, grid, final):
    sde = registry.get_sde(sde_name, t_min=1e-3)
    model = registry.get_model("gaussian", image_shape=(1, 1, 1), mean=MEAN, covariance=VARIANCE, sde=sde)
    sampler = registry.get_sampler("reverse-diffusion", steps=7, grid=grid, final=final)

    mean, variance = affine_moments(sampler, model)

    expected = recursion(sde, sampler.times(sde), final=final)
    # a dozen float64 operations per step, relative to terms of the size prior_std and 1 / sigma^2, sigma >= 1e-2
    assert (float(mean), float(variance)) == pytest.approx(expected, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize(
    ("sde_name", "target", "mean", "variance"),
    [
        ("vp", (0.0, 1.7), 0.0, 1.7026),
        ("ve", (0.0, 1.7), 0.0, 1.7144),
        ("vp", (1.2209945, 0.4226519), 1.2200, 0.4245),
        ("ve", (1.2209945, 0.4226519), 1.2208, 0.4262),
    ],
)
def test_the_bias_of_a_thousand_steps_is_the_documented_one(sde_name, target, mean, variance):
    sde = registry.get_sde(sde_name)
    grid = registry.get_sampler("reverse-diffusion", steps=1000).times(sde)

    assert recursion(sde, grid, target=target) == pytest.approx((mean, variance), abs=5e-5)


def test_a_thousand_steps_of_the_vp_chain_give_the_published_variance():
    """1.7028 for N(0, 1.7): 999 steps between the chain's levels, and the last one, to clean data, with its noise."""
    sde = registry.get_sde("ddpm")
    model = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=1.7, sde=sde)
    sampler = registry.get_sampler("reverse-diffusion", steps=999, grid="uniform", final="sample")

    _, variance = affine_moments(sampler, model)

    b, P = 1e-4, (1 - 1e-4) * 1.7 + 1e-4
    last = (2 - math.sqrt(1 - b) - b / P) ** 2 * float(variance) + b
    assert last == pytest.approx(1.7028, abs=5e-5)  # the digits it is published with
    # and step by step with the published betas, to the rounding of a thousand steps
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    expected, levels = 1.0, zip(betas.tolist(), (1 - betas).cumprod(0).tolist(), strict=True)
    for b, abar in reversed(list(levels)):
        expected = (2 - math.sqrt(1 - b) - b / (abar * 1.7 + 1 - abar)) ** 2 * expected + b
    assert last == pytest.approx(expected, rel=1e-10)
