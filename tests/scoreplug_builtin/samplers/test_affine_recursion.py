"""Samplers on a Gaussian model, against their own affine recursion.

On N(m, V) the score is affine in x, so each step is x' = L x + k + n z. Mean and variance of the output then follow
the exact recursion M' = L M + k, V' = L^2 V + n^2, with no step-size error and no Monte Carlo error. The steps'
formulas are written here anew, from the papers, one scalar at a time; the samplers' maps are read off the samplers
(scoreplug.testing.affine_moments).
"""

import itertools
import math

import pytest
import torch

from scoreplug import registry
from scoreplug.testing import affine_moments

MEAN, VARIANCE = 0.7, 1.7
SDES = ["vp", "ve", "subvp"]
STEPS = 7


class Kernel:
    """Scalar coefficients of an SDE, and of the Gaussian model's score = a x + b."""

    def __init__(self, sde, t):
        t = torch.as_tensor(t, dtype=torch.float64)
        self.alpha, self.sigma = float(sde.alpha(t)), float(sde.sigma(t))
        self.f, self.g = float(sde.drift(t)), float(sde.diffusion(t))
        P = self.alpha**2 * VARIANCE + self.sigma**2
        self.a, self.b = -1 / P, self.alpha * MEAN / P
        # Tweedie: x0 = (x + sigma^2 score) / alpha = c x + d
        self.c = (1 + self.sigma**2 * self.a) / self.alpha
        self.d = self.sigma**2 * self.b / self.alpha


def em(sde, t, s, **_):
    """Song et al. 2021: x_s = x - (f x - g^2 score) dt + g sqrt(dt) z."""
    K, dt = Kernel(sde, t), t - s
    return [(1 - K.f * dt + K.g**2 * dt * K.a, K.g**2 * dt * K.b, K.g * math.sqrt(dt))]


def ancestral(sde, t, s, *, eta=1.0, noise="posterior"):
    """DDIM eq. 12 and 16: x_s = alpha_s x0 + B eps + c z."""
    K, S = Kernel(sde, t), Kernel(sde, s)
    c = eta * S.sigma
    if noise == "posterior":
        c *= math.sqrt(1 - (K.alpha * S.sigma / (S.alpha * K.sigma)) ** 2)
    B = math.sqrt(S.sigma**2 - c**2)
    L = S.alpha * K.c + B * (1 - K.alpha * K.c) / K.sigma
    return [(L, S.alpha * K.d - B * K.alpha * K.d / K.sigma, c)]


def langevin_move(sde, t, snr):
    """x + e score + sqrt(2 e) z with e = 2 (snr sigma)^2."""
    K = Kernel(sde, t)
    e = 2 * (snr * K.sigma) ** 2
    return 1 + e * K.a, e * K.b, math.sqrt(2 * e)


def langevin(sde, t, s, *, snr=0.16, moves=1):
    scale = Kernel(sde, s).alpha / Kernel(sde, t).alpha
    return [(scale, 0.0, 0.0)] + [langevin_move(sde, s, snr)] * moves


def pc(sde, t, s, *, predictor=em, moves=1, snr=0.16, **kwargs):
    return [langevin_move(sde, t, snr)] * moves + predictor(sde, t, s, **kwargs)


def tweedie(sde, t):
    K = Kernel(sde, t)
    return [(K.c, K.d, 0.0)]


def recursion(sde, times, steps_of, *, final):
    """Mean and variance at the end, from x ~ N(0, prior_std^2)."""
    mean, variance = 0.0, sde.prior_std**2
    moves = [move for t, s in itertools.pairwise(times) for move in steps_of(sde, t, s)]
    for L, k, n in moves + (tweedie(sde, times[-1]) if final == "denoise" else []):
        mean, variance = L * mean + k, L**2 * variance + n**2
    return mean, variance


CASES = [
    ("em", em, {}),
    *[
        ("ancestral", ancestral, {"eta": eta, "noise": noise})
        for eta in (0.0, 0.3, 0.85, 1.0)
        for noise in ("posterior", "fresh")
    ],
    ("langevin", langevin, {"snr": 0.3, "moves": 3}),
    ("pc", pc, {"moves": 1}),
    ("pc", pc, {"moves": 3, "snr": 0.3}),
]


def identify(case):
    return "-".join(map(str, (case[0], *case[2].values()))) if isinstance(case, tuple) else None


@pytest.mark.parametrize("final", ["denoise", "sample"])
@pytest.mark.parametrize("grid", ["uniform", "rho"])
@pytest.mark.parametrize("case", CASES, ids=identify)
@pytest.mark.parametrize("sde_name", SDES)
def test_moments_equal_the_samplers_own_recursion(sde_name, case, grid, final):
    name, steps_of, kwargs = case
    sde = registry.get_sde(sde_name, t_min=1e-3)
    model = registry.get_model("gaussian", image_shape=(1, 1, 1), mean=MEAN, covariance=VARIANCE, sde=sde)
    params = {"corrector": {"name": "langevin", **kwargs}} if name == "pc" else kwargs
    sampler = registry.get_sampler(name, steps=STEPS, grid=grid, final=final, **params)

    mean, variance = affine_moments(sampler, model)

    times = [float(t) for t in sampler.times(sde)]
    expected = recursion(sde, times, lambda *at: steps_of(*at, **kwargs), final=final)
    # relative to the size of the terms: a dozen float64 operations per step, and 1/sigma with sigma >= 1e-2
    assert float(mean) == pytest.approx(expected[0], rel=1e-8, abs=1e-8)
    assert float(variance) == pytest.approx(expected[1], rel=1e-8)


@pytest.mark.parametrize("sde_name", SDES)
def test_pc_takes_any_predictor(sde_name):
    sde = registry.get_sde(sde_name)
    model = registry.get_model("gaussian", image_shape=(1, 1, 1), mean=MEAN, covariance=VARIANCE, sde=sde)
    sampler = registry.get_sampler("pc", steps=STEPS, predictor={"name": "ancestral", "eta": 0.3})

    mean, variance = affine_moments(sampler, model)

    times = [float(t) for t in sampler.times(sde)]
    expected = recursion(sde, times, lambda *at: pc(*at, predictor=ancestral, eta=0.3), final="denoise")
    assert (float(mean), float(variance)) == pytest.approx(expected, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize(
    ("name", "kwargs", "published"),
    [("em", {}, 1.6994), ("ancestral", {"eta": 1.0}, 1.6871), ("ancestral", {"eta": 0.0}, 1.6943)],
    ids=["em", "ddpm", "ddim"],
)
def test_a_thousand_vp_steps_give_the_target_up_to_their_known_bias(name, kwargs, published):
    """Reference variances of N(0, 1.7) on score_sde's grid of 1000 VP steps; this grid's last step differs by t_min."""
    sde = registry.get_sde("vp")
    steps_of = {"em": em, "ancestral": ancestral}[name]
    times = [float(t) for t in registry.get_sampler(name, steps=1000).times(sde)]

    _, variance = recursion(sde, times, lambda *at: steps_of(*at, **kwargs), final="denoise")

    # the grids differ by t_min / N per step and by the last step's noise beta~, O(1e-3) of the variance
    assert variance == pytest.approx(published, abs=4e-3)
