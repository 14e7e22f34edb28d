"""TMPD: the posterior's score where A C_t A^T is diagonal, the paper's formula and a known law elsewhere."""

import math

import pytest
import torch

from scoreplug import Measurement, registry
from scoreplug.operator import from_function
from scoreplug.run.cost import Cost, counted_model
from scoreplug.testing import affine_moments
from scoreplug_builtin.conditioners.tmpd import TMPD

SDES = ["vp", "ve", "subvp"]
SHAPE, EYE = (1, 2, 4), torch.eye(8, dtype=torch.float64)
T = torch.tensor(0.4, dtype=torch.float64)
SIGMA_Y = 0.3


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


STATES = random(5, *SHAPE, seed=3)
ROOT = random(8, 8, seed=4)
SMOOTH = ROOT @ ROOT.T + EYE
AVERAGES = torch.kron(EYE[:4, :4], torch.tensor([[0.5, 0.5]], dtype=torch.float64))
ORTHOGONAL = torch.linalg.qr(random(8, 8, seed=5))[0][:4] * torch.tensor([[0.5], [1.0], [2.0], [3.0]])
GENERAL, DATA = random(4, 8, seed=1) * torch.tensor([[1.0], [-1.0], [1.0], [1.0]]), random(4, seed=2)


def gaussian(covariance, sde="vp"):
    return registry.get_model("gaussian", image_shape=SHAPE, covariance=covariance, sde=sde)


def matrix(rows):
    return registry.get_operator("matrix", image_shape=SHAPE, matrix=rows)


def condition(prior, rows, data=DATA, sigma_y=SIGMA_Y):
    return TMPD().condition(prior, Measurement(matrix(rows), data, sigma_y))


DIAGONAL = {
    "independent pixels": (torch.diag(torch.linspace(0.2, 2.0, 8, dtype=torch.float64)), EYE[[0, 2, 5, 7]]),
    "averages of them": (torch.diag(torch.linspace(0.2, 2.0, 8, dtype=torch.float64)), AVERAGES),
    "orthogonal rows": (0.49 * EYE, ORTHOGONAL),
    "one value": (SMOOTH, GENERAL[:1]),
}


@pytest.mark.parametrize("case", DIAGONAL)
@pytest.mark.parametrize("sde", SDES)
def test_where_the_covariance_is_diagonal_it_is_the_posteriors_score(sde, case):
    covariance, rows = DIAGONAL[case]
    prior, data = gaussian(covariance, sde), DATA[: len(rows)]
    posterior = condition(prior, rows, data)
    K = covariance @ rows.T @ torch.linalg.inv(rows @ covariance @ rows.T + SIGMA_Y**2 * EYE[: len(rows), : len(rows)])
    m, V = K @ data, covariance - K @ rows @ covariance

    for t in torch.tensor([0.05, 0.4, 0.9], dtype=torch.float64):
        alpha, sigma = prior.sde.alpha(t), prior.sde.sigma(t)
        exact = -torch.linalg.solve(alpha**2 * V + sigma**2 * EYE, (STATES.flatten(1) - alpha * m).T).T
        # Tweedie: 1e-16 |x0| / sigma^2, and sigma is .03 at the earliest time of subvp
        torch.testing.assert_close(posterior.score(STATES, t), exact.reshape(STATES.shape), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sde", SDES)
def test_elsewhere_it_is_the_papers_formula_with_negative_row_sums_taken_as_zero(sde):
    prior = gaussian(SMOOTH, sde)
    alpha, sigma = prior.sde.alpha(T), prior.sde.sigma(T)
    C = sigma**2 * SMOOTH @ torch.linalg.inv(alpha**2 * SMOOTH + sigma**2 * EYE)
    row_sums = (GENERAL @ C @ GENERAL.T).sum(1)
    assert (row_sums > 0).any()
    assert (row_sums < -(SIGMA_Y**2)).any()

    estimate = condition(prior, GENERAL).denoise(STATES, T)

    x0 = prior.denoise(STATES, T)
    weighted = (DATA - x0.flatten(1) @ GENERAL.T) / (SIGMA_Y**2 + row_sums.clamp_min(0))
    torch.testing.assert_close(estimate, x0 + (weighted @ GENERAL @ C).reshape(x0.shape), rtol=1e-9, atol=1e-9)


def test_a_row_sum_of_zero_pulls_like_dps():
    """A pixel, and its negative: the rows of A C A^T are (c, -c) and (-c, c)."""
    prior = gaussian(SMOOTH)
    measurement = Measurement(matrix(torch.stack([EYE[0], -EYE[0]])), DATA[:2], SIGMA_Y)

    ours = TMPD().condition(prior, measurement).score(STATES, T)

    dps = registry.get_conditioner("dps", form="likelihood").condition(prior, measurement).score(STATES, T)
    torch.testing.assert_close(ours, dps, rtol=1e-9, atol=1e-9)


def test_the_sign_of_a_value_matters_unless_the_covariance_is_diagonal():
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64)

    def change(covariance, rows):
        prior = gaussian(covariance)
        one, other = condition(prior, rows), condition(prior, signs[:, None] * rows, signs * DATA)
        return float((one.score(STATES, T) - other.score(STATES, T)).abs().max())

    assert change(*DIAGONAL["orthogonal rows"]) < 1e-10
    assert change(SMOOTH, GENERAL) > 0.1


def difference_of_two(rho, sigma_y):
    """Mean over y's and variance of the normalised difference by the reverse SDE, with D that of the sum."""
    S, total = 1 - rho, 1 + rho
    C = torch.linspace(0, S, 20001, dtype=torch.float64)
    r2 = C * S * total / (C * S + total * (S - C))  # level^2 total / (level^2 + total) where the variance is C
    K = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(1 / (r2 + sigma_y**2), C)])
    return 1 - math.exp(-float(K[-1])), float(torch.trapezoid((-2 * K).exp(), C))


@pytest.mark.parametrize(("rho", "golden"), [(0.8, (0.29896, 0.13297)), (-0.8, (0.96880, 0.22365))])
@pytest.mark.parametrize("sde", ["vp", "ve"])
def test_two_correlated_pixels_get_the_law_of_the_docstring(sde, rho, golden):
    """The scheme is of first order, so twice the value at 2 N steps less that at N is second order."""
    process = (
        registry.get_sde("vp", t_min=1e-5) if sde == "vp" else registry.get_sde(sde, sigma_min=1e-3, sigma_max=1e3)
    )
    covariance = torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64)
    prior = registry.get_model("gaussian", image_shape=(1, 1, 2), covariance=covariance, sde=process)
    operator = registry.get_operator("identity", image_shape=(1, 1, 2))
    y = torch.tensor([[[1.5, -0.5]]], dtype=torch.float64)
    posterior = TMPD().condition(prior, Measurement(operator, y, 0.6))
    Q = torch.tensor([[1, 1], [1, -1]], dtype=torch.float64) / math.sqrt(2)

    def moments(steps):
        mean, variance = affine_moments(registry.get_sampler("em", steps=steps, grid="rho"), posterior)
        return torch.cat([Q @ mean / (Q @ y.flatten()), (Q @ variance @ Q.T).diagonal()])

    limit = (2 * moments(200) - moments(100)).tolist()
    exact = [(s / (s + 0.36), 0.36 * s / (s + 0.36)) for s in (1 + rho, 1 - rho)]

    assert difference_of_two(rho, 0.6) == pytest.approx(golden, abs=1e-5)
    assert (limit[0], limit[2]) == pytest.approx(exact[0], abs=4e-3)  # the sum
    assert (limit[1], limit[3]) == pytest.approx(golden, abs=4e-3)  # the difference
    assert (limit[3] > exact[1][1]) == (rho > 0)


def test_an_evaluation_costs_two_vjps():
    cost = Cost()
    posterior = condition(counted_model(gaussian(SMOOTH), cost), GENERAL)

    estimate = posterior.denoise(STATES, T)

    assert (cost.evaluations, cost.vjps) == (5, 2 * 5)
    assert not estimate.requires_grad


def test_without_signal_the_run_is_the_priors():
    prior, sampler = gaussian(SMOOTH), registry.get_sampler("ancestral", steps=6)

    assert torch.equal(sampler.sample(condition(prior, 0 * GENERAL), 3), sampler.sample(prior, 3))


def test_the_unit_of_the_measurement_does_not_matter():
    prior = gaussian(SMOOTH)

    metres, millimetres = (
        condition(prior, unit * GENERAL, unit * DATA, unit * SIGMA_Y).score(STATES, T) for unit in (1.0, 1000.0)
    )

    torch.testing.assert_close(millimetres, metres, rtol=1e-9, atol=1e-9)


def test_the_estimate_does_not_depend_on_the_sde():
    """At the same noise level the denoised estimate under y is the same, whatever process the model is asked under."""
    vp = condition(gaussian(SMOOTH), GENERAL)
    ve = vp.under(registry.get_sde("ve"))
    s = ve.sde.time_of(vp.sde.level(T))

    there = ve.denoise(STATES * ve.sde.alpha(s) / vp.sde.alpha(T), s)

    torch.testing.assert_close(there, vp.denoise(STATES, T), rtol=1e-9, atol=1e-9)


def test_a_sample_does_not_depend_on_its_batch_mates():
    """Row sums are each sample's own: a mixture's covariance depends on x."""
    means = torch.stack([random(8, seed=6), random(8, seed=7)])
    prior = registry.get_model("gaussian-mixture", image_shape=SHAPE, means=means, covariances=0.3)
    posterior = condition(prior, GENERAL)
    times = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)

    together = posterior.score(STATES, times)

    # nothing but the order of sums
    apart = torch.cat([posterior.score(x[None], t) for x, t in zip(STATES, times, strict=True)])
    torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-9)


def test_what_it_cannot_do_is_refused():
    squared = Measurement(from_function(lambda v: v**2, SHAPE), torch.ones(SHAPE), 0.1)
    with pytest.raises(TypeError, match=r"'tmpd' needs a linear operator .*; use dps with form='norm' or 'likelihood'"):
        TMPD().condition(gaussian(SMOOTH), squared)

    with pytest.raises(ValueError, match=r"which may be 0: noise_std must be > 0; use pigdm or dmps for exact data"):
        condition(gaussian(SMOOTH), GENERAL, sigma_y=0.0)
