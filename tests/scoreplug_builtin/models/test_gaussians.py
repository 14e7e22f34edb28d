"""The closed-form priors: score, denoiser and density are one distribution's, under every SDE."""

import functools

import pytest
import torch

from scoreplug import Noise, registry
from scoreplug.model import BaseModel
from scoreplug.protocols import HasLogDensity

SDES = [spec.name for spec in registry.list("sde")]
SHAPE = (1, 2, 3)
EYE = torch.eye(6, dtype=torch.float64)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spd(seed):
    root = random(6, 6, seed=seed)
    return root @ root.T + 0.3 * EYE


def gaussian(sde):
    return registry.get_model("gaussian", image_shape=SHAPE, mean=random(6, seed=1), covariance=spd(2), sde=sde)


def mixture(sde):
    return registry.get_model(
        "gaussian-mixture",
        image_shape=SHAPE,
        means=2 * random(3, 6, seed=3),
        weights=(0.2, 0.5, 0.3),
        covariances=torch.stack([spd(4), spd(5), spd(6)]),
        sde=sde,
    )


@pytest.fixture(params=SDES)
def sde(request):
    return request.param


@pytest.fixture(params=[gaussian, mixture], ids=["gaussian", "mixture"])
def model(request, sde):
    return request.param(sde)


TIMES = torch.tensor([1e-3, 0.1, 0.5, 1.0], dtype=torch.float64)


def test_the_score_is_the_gradient_of_the_log_density(model):
    for t in TIMES:
        x = (model.sde.sigma(t) + 1) * random(4, *SHAPE)
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(model.log_density(x, t).sum(), x)

        torch.testing.assert_close(model.score(x.detach(), t), gradient, rtol=1e-9, atol=1e-12)
    assert isinstance(model, HasLogDensity)


def test_the_denoiser_is_tweedies_formula(model):
    for t in TIMES:
        x = (model.sde.sigma(t) + 1) * random(4, *SHAPE)

        # (x + sigma^2 score) / alpha cancels: 1e-16 |x| / alpha with alpha >= 6e-3 and |x| up to 200
        torch.testing.assert_close(model.denoise(x, t), BaseModel.denoise(model, x, t), rtol=1e-9, atol=1e-9)


def test_the_log_density_is_that_of_the_perturbed_normal(sde):
    """By torch's own multivariate normal."""
    model, t = gaussian(sde), torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = model.sde.alpha(t), model.sde.sigma(t)
    reference = torch.distributions.MultivariateNormal(alpha * random(6, seed=1), alpha**2 * spd(2) + sigma**2 * EYE)
    x = random(5, *SHAPE)

    torch.testing.assert_close(model.log_density(x, t), reference.log_prob(x.flatten(1)), rtol=1e-10, atol=1e-10)


def test_the_mixtures_log_density_is_that_of_its_components(sde):
    model, t = mixture(sde), torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = model.sde.alpha(t), model.sde.sigma(t)
    x, means = random(5, *SHAPE), 2 * random(3, 6, seed=3)
    parts = [
        torch.distributions.MultivariateNormal(alpha * means[k], alpha**2 * spd(4 + k) + sigma**2 * EYE).log_prob(
            x.flatten(1)
        )
        + torch.tensor(w, dtype=torch.float64).log()
        for k, w in enumerate((0.2, 0.5, 0.3))
    ]

    expected = torch.stack(parts).logsumexp(0)
    torch.testing.assert_close(model.log_density(x, t), expected, rtol=1e-10, atol=1e-10)


def test_the_posterior_covariance_is_the_denoisers_jacobian(model):
    """C_t = (sigma^2 / alpha) d x0 / d x is symmetric and positive: Cov[x_0 | x_t]."""
    t, x = torch.tensor(0.3, dtype=torch.float64), random(1, *SHAPE)
    x0, vjp = model.denoise_with_vjp(x, t)
    rows = [vjp(unit.reshape(1, *SHAPE)).flatten() for unit in torch.eye(6, dtype=torch.float64)]
    C = model.sde.sigma(t) ** 2 / model.sde.alpha(t) * torch.stack(rows)

    torch.testing.assert_close(C, C.T, rtol=1e-9, atol=1e-12)
    assert torch.linalg.eigvalsh(C).min() > 0
    torch.testing.assert_close(x0, model.denoise(x, t), rtol=0, atol=0)


def test_a_batch_of_times_is_each_sample_at_its_own(model):
    x = random(4, *SHAPE)
    each = torch.cat([model.denoise(x[i : i + 1], t) for i, t in enumerate(TIMES)])

    torch.testing.assert_close(model.denoise(x, TIMES), each, rtol=1e-12, atol=1e-12)
    scores = torch.cat([model.score(x[i : i + 1], t) for i, t in enumerate(TIMES)])
    torch.testing.assert_close(model.score(x, TIMES), scores, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [gaussian, mixture], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("other", SDES)
def test_a_model_under_another_sde_is_the_model_made_under_it(make, sde, other):
    """`under` rescales x and finds the time of the same noise level; the closed form knows the answer."""
    moved, direct = make(sde).under(registry.get_sde(other)), make(other)
    x = random(4, *SHAPE)

    for t in TIMES[1:3]:  # levels that both processes reach
        torch.testing.assert_close(moved.denoise(x, t), direct.denoise(x, t), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(moved.score(x, t), direct.score(x, t), rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(moved.log_density(x, t), direct.log_density(x, t), rtol=1e-8, atol=1e-8)
    assert moved.under(registry.get_sde(sde)).sde == registry.get_sde(sde)


def test_the_posterior_score_of_a_gaussian_is_prior_score_plus_guidance(sde):
    """s + g_y = s_y, g_y by Jacobian and predictive covariance: the identity that exact conditioners rest on."""
    model, A, sigma_y = gaussian(sde), random(2, 6, seed=9), 0.3
    y, eye = random(2, seed=10), EYE
    mu, S = random(6, seed=1), spd(2)
    K = S @ A.T @ torch.linalg.inv(A @ S @ A.T + sigma_y**2 * torch.eye(2))
    m_y, S_y = mu + K @ (y - A @ mu), S - K @ A @ S
    posterior = registry.get_model("gaussian", image_shape=SHAPE, mean=m_y, covariance=(S_y + S_y.T) / 2, sde=sde)
    x = random(3, *SHAPE)

    for t in TIMES[1:3]:
        alpha, sigma = model.sde.alpha(t), model.sde.sigma(t)
        C = torch.linalg.inv(torch.linalg.inv(S) + (alpha / sigma) ** 2 * eye)
        r = y - model.denoise(x, t).flatten(1) @ A.T
        g = (alpha / sigma**2) * r @ torch.linalg.inv(sigma_y**2 * torch.eye(2) + A @ C @ A.T) @ A @ C
        torch.testing.assert_close(model.score(x, t) + g.reshape(x.shape), posterior.score(x, t), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mean": (0.0, 1.0)}, r"1 or 6 means and a variance or a 6 x 6 covariance \(got 2 means"),
        ({"covariance": torch.zeros(6, 6, dtype=torch.float64)}, "covariance must be positive definite"),
        ({"covariance": torch.triu(torch.ones(6, 6, dtype=torch.float64))}, "covariance must be symmetric"),
        ({"covariance": -1.0}, "covariance must be positive definite"),
    ],
)
def test_impossible_gaussians_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        registry.get_model("gaussian", image_shape=SHAPE, **params)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"means": ((0.0, 1.0),)}, r"means must have the shape \(K, 6\)"),
        ({"means": (tuple(range(6)),) * 2, "weights": (1.0,)}, "weights must be 2 positive numbers"),
        (
            {"means": (tuple(range(6)),) * 2, "covariances": (1.0, 1.0, 1.0)},
            r"covariances must have the shape \(\), \(2,\)",
        ),
    ],
)
def test_impossible_mixtures_are_refused(params, message):
    params["means"] = tuple(tuple(map(float, row)) for row in params["means"])
    with pytest.raises(ValueError, match=message):
        registry.get_model("gaussian-mixture", image_shape=SHAPE, **params)


def test_the_gaussians_spread_is_the_root_mean_square_error_of_its_denoiser(sde):
    """tr C_t / n with C_t = (sigma^2 / alpha) d x0 / d x."""
    model = gaussian(sde)
    for t in TIMES[1:]:
        _, vjp = model.denoise_with_vjp(random(1, *SHAPE), t)
        J = torch.stack([vjp(unit.reshape(1, *SHAPE)).flatten() for unit in EYE])
        r2 = model.sde.sigma(t) ** 2 / model.sde.alpha(t) * J.trace() / 6
        torch.testing.assert_close(model.spread(t), r2.sqrt(), rtol=1e-10, atol=0)
    torch.testing.assert_close(model.spread(TIMES), torch.stack([model.spread(t) for t in TIMES]), rtol=1e-12, atol=0)


def test_the_mixtures_spread_is_that_of_the_gaussian_with_its_moments(sde):
    model, w = mixture(sde), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    means = 2 * random(3, 6, seed=3)
    second = sum(w[k] * (spd(4 + k) + torch.outer(means[k], means[k])) for k in range(3))
    mean = w @ means
    moments = registry.get_model(
        "gaussian", image_shape=SHAPE, mean=mean, covariance=second - torch.outer(mean, mean), sde=sde
    )

    torch.testing.assert_close(model.spread(TIMES), moments.spread(TIMES), rtol=1e-9, atol=0)
    # an upper bound of the mixture's own error, which is the average of tr C_t(x): here at 2000 draws of the mixture
    t = TIMES[2]
    k = torch.multinomial(w, 2000, replacement=True, generator=torch.Generator().manual_seed(1))
    roots = torch.stack([torch.linalg.cholesky(spd(4 + i)) for i in range(3)])
    x_0 = means[k] + torch.einsum("bij,bj->bi", roots[k], random(2000, 6, seed=11))
    x_t = model.sde.alpha(t) * x_0 + model.sde.sigma(t) * random(2000, 6, seed=12)
    error = (model.denoise(x_t.reshape(-1, *SHAPE), t).flatten(1) - x_0).square().mean().sqrt()
    assert float(error) < float(model.spread(t)) * (1 + 5 / (2 * 12000) ** 0.5)  # five sigma of a root mean square


@pytest.mark.parametrize("covariance", ["variance", "matrix"])
@pytest.mark.parametrize("sde", SDES)
def test_a_shared_covariance_gives_what_equal_ones_give(sde, covariance):
    """Matrix products in place of sums over components and pixels: density, score, estimate and derivative."""
    i = torch.arange(5.0).double()
    means, weights = torch.stack([i.sin(), 2 * i.cos(), 3 - i]), (0.2, 0.5, 0.3)
    one = torch.tensor(0.4).double() if covariance == "variance" else 0.3 * (-(i[:, None] - i).abs()).exp()
    many = one.expand(3) if covariance == "variance" else one.expand(3, 5, 5)
    make = functools.partial(
        registry.get_model, "gaussian-mixture", image_shape=(1, 1, 5), means=means, weights=weights, sde=sde
    )
    shared, separate = make(covariances=one), make(covariances=many.clone())
    assert shared.shared is not None
    assert separate.shared is None

    noise = Noise(0, range(7), dtype=torch.float64, device=torch.device("cpu"))
    v = noise.at("v").normal((1, 1, 5))
    for t in (0.95, 0.5, 0.05):
        t = torch.tensor(t).double()
        x = shared.sde.alpha(t) + shared.sde.sigma(t) * noise.at("x").normal((1, 1, 5))
        for ask in (lambda m, x=x, t=t: m.score(x, t), lambda m, x=x, t=t: m.denoise(x, t)):
            torch.testing.assert_close(ask(shared), ask(separate), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(shared.log_density(x, t), separate.log_density(x, t), rtol=1e-10, atol=1e-10)
        (x0, vjp), (expected, autograd) = shared.denoise_with_vjp(x, t), separate.denoise_with_vjp(x, t)
        torch.testing.assert_close(x0, expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(vjp(v), autograd(v), rtol=1e-9, atol=1e-9)
    assert float(shared.spread(t)) == pytest.approx(float(separate.spread(t)), rel=1e-10)
