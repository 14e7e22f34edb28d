"""The algebra that everything rests on, under every SDE: Bayes' rule on mixtures, the covariance behind the denoiser,
what a step does to guidance, and which samplers are one.

That the kernel gives drift and diffusion is in test_sdes, s + g_y = s_y on Gaussians in test_gaussians, that DDIM is an
Euler step in test_step_formulas, and that whole samplers are the same in x / alpha in test_sde_invariance.
"""

import warnings

import attrs
import pytest
import torch
from torch.distributions import MultivariateNormal

from scoreplug import BaseModel, Noise, registry
from scoreplug.registry.specs import OF_POSTERIORS
from scoreplug.sampler import KernelSampler

SDES = [spec.name for spec in registry.list("sde")]
SAMPLERS = [spec.name for spec in registry.list("sampler") if not set(spec.needs) & set(OF_POSTERIORS)]
SHAPE, N = (1, 1, 3), 3
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
TIMES = torch.tensor([0.08, 0.35, 0.7], dtype=torch.float64)
SIGMA_Y = 0.4
VARIANTS = {
    "ancestral": [{}, {"eta": 0.0}, {"eta": 0.6}, {"eta": 0.85, "noise": "fresh"}],
    "ode": [{"method": "euler"}, {"method": "heun"}, {"method": "rk4"}],
    "dpm-solver": [{"order": 1}, {"order": 3}, {"eta": 1.0}],
    "langevin": [{}, {"rule": "norm"}],
}
VARIED = [(name, variant) for name in SAMPLERS for variant in VARIANTS.get(name, [{}])]
KERNELS = [case for case in VARIED if isinstance(registry.get_sampler(case[0]), KernelSampler)]


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spd(seed):
    root = random(N, N, seed=seed)
    return root @ root.T + 0.3 * torch.eye(N, dtype=torch.float64)


MEANS, COVARIANCES = 1.5 * random(3, N, seed=1), torch.stack([spd(2), spd(3), spd(4)])
A, Y = random(2, N, seed=5), random(2, seed=6)


def mixture(sde, weights=WEIGHTS, means=MEANS, covariances=COVARIANCES):
    return registry.get_model(
        "gaussian-mixture", image_shape=SHAPE, weights=weights, means=means, covariances=covariances, sde=sde
    )


def draws(model, t, n=5):
    """Points where the mixture has mass at level t."""
    alpha, sigma = model.sde.alpha(t), model.sde.sigma(t)
    return (alpha * 2 * random(n, N, seed=7) + sigma * random(n, N, seed=8)).reshape(n, *SHAPE)


def noise_for(model, n=5):
    return Noise(2, range(n), dtype=model.dtype, device=model.device)


def components(model, x, t):
    """Responsibilities (B, K), denoised estimates (B, K, n) and covariances of x_0 (K, n, n) of the components."""
    alpha, sigma, x = model.sde.alpha(t), model.sde.sigma(t), x.flatten(1)
    eye = torch.eye(N, dtype=torch.float64)
    P = alpha**2 * COVARIANCES + sigma**2 * eye
    log_r = WEIGHTS.log() + MultivariateNormal(alpha * MEANS, P).log_prob(x[:, None])
    gain = alpha * COVARIANCES @ torch.linalg.inv(P)
    x0 = MEANS + torch.einsum("kij,bkj->bki", gain, x[:, None] - alpha * MEANS)
    C = torch.linalg.inv(torch.linalg.inv(COVARIANCES) + (alpha / sigma) ** 2 * eye)
    return log_r.softmax(1), x0, C


def log_likelihood(model, x, t):
    """log p(y | x_t) = log sum_k r_k N(y; A x0_k, sigma_y^2 I + A C_k A^T), (B,)."""
    r, x0, C = components(model, x, t)
    predicted = MultivariateNormal(x0 @ A.T, SIGMA_Y**2 * torch.eye(2, dtype=torch.float64) + A @ C @ A.T)
    return (r.log() + predicted.log_prob(Y)).logsumexp(1)


@pytest.mark.parametrize("sde", SDES)
def test_bayes_rule_holds_on_mixtures_at_every_level(sde):
    """log p_t(x | y) = log p_t(x) + log p(y | x_t) - log p(y), and so do the gradients: the posterior is the mixture of
    the components' posteriors, weighted by how well each predicts y."""
    eye = torch.eye(2, dtype=torch.float64)
    predictive = A @ COVARIANCES @ A.T + SIGMA_Y**2 * eye
    K = COVARIANCES @ A.T @ torch.linalg.inv(predictive)
    evidence = WEIGHTS.log() + MultivariateNormal(MEANS @ A.T, predictive).log_prob(Y)
    S_y = COVARIANCES - K @ A @ COVARIANCES
    m_y = MEANS + torch.einsum("kij,kj->ki", K, Y - MEANS @ A.T)
    prior, posterior = mixture(sde), mixture(sde, evidence.softmax(0), m_y, (S_y + S_y.mT) / 2)

    for t in TIMES:
        x = draws(prior, t).requires_grad_()
        likelihood = log_likelihood(prior, x, t)
        (guidance,) = torch.autograd.grad(likelihood.sum(), x)
        x, likelihood = x.detach(), likelihood.detach()

        # some hundred operations on numbers of size 100, through inverses of condition up to 1e4
        expected = prior.log_density(x, t) + likelihood - evidence.logsumexp(0)
        torch.testing.assert_close(posterior.log_density(x, t), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(posterior.score(x, t), prior.score(x, t) + guidance, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sde", SDES)
def test_the_denoisers_jacobian_is_the_covariance_of_what_it_denoises(sde):
    """C_t = (sigma^2 / alpha) d x0 / d x = Cov[x_0 | x_t]: within the components and between them."""
    model = mixture(sde)
    for t in TIMES:
        x = draws(model, t, n=1)
        _, vjp = model.denoise_with_vjp(x, t)
        J = torch.stack([vjp(unit.reshape(1, *SHAPE)).flatten() for unit in torch.eye(N, dtype=torch.float64)])

        r, x0, C = components(model, x, t)
        mean = torch.einsum("bk,bki->bi", r, x0)
        second = torch.einsum("bk,bkij->bij", r, C + x0[..., None] * x0[..., None, :])
        expected = (second - mean[:, :, None] * mean[:, None, :])[0]
        # the second moment cancels against the squared mean, of size 10
        torch.testing.assert_close(model.sde.sigma(t) ** 2 / model.sde.alpha(t) * J, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sde", SDES)
def test_the_ddpm_step_is_the_ancestral_one_in_terms_of_the_score(sde):
    """Mean (x + G^2 score) / a and variance G^2 sigma_s^2 / sigma_t^2, with x_t = a x_s + G z the forward transition:
    (x + b score) / (1 - b)^{1/2} and beta~ under vp, x + (sigma_t^2 - sigma_s^2) score under ve."""
    model, ddpm = mixture(sde), registry.get_sampler("ancestral", eta=1.0)
    noise, process = noise_for(model), model.sde
    for t, s in [(TIMES[1], TIMES[0]), (TIMES[2], TIMES[1])]:
        x, z = draws(model, t), noise.at("z").normal(SHAPE)
        a = process.alpha(t) / process.alpha(s)
        G2 = process.sigma(t) ** 2 - a**2 * process.sigma(s) ** 2

        expected = (x + G2 * model.score(x, t)) / a + (G2 * process.sigma(s) ** 2 / process.sigma(t) ** 2).sqrt() * z
        torch.testing.assert_close(ddpm.transition(model, x, t, s, noise).x, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("sde", SDES)
def test_the_first_order_dpm_solver_is_ddim_without_noise_and_ddpm_with_all_of_it(sde, eta):
    model = mixture(sde)
    ours, theirs = registry.get_sampler("ancestral", steps=5, eta=eta), registry.get_sampler("dpm-solver", order=1)
    theirs = attrs.evolve(theirs, steps=5, grid=ours.grid, eta=eta)

    # a solution of some 5 steps; exp(-h) and level_s / level_t are the same number up to rounding
    torch.testing.assert_close(theirs.sample(model, 4), ours.sample(model, 4), rtol=1e-10, atol=1e-10)


@attrs.frozen(kw_only=True, eq=False)
class Guided(BaseModel):
    """A model and guidance of the score, x -> g(x, t), given in one of the two ways that class A allows."""

    base: BaseModel
    strength: float = 0.0
    constant: float = 0.0
    steps: list = attrs.field(factory=list)

    sde = property(lambda self: self.base.sde)
    shape = property(lambda self: self.base.shape)
    dtype = property(lambda self: self.base.dtype)
    device = property(lambda self: self.base.device)

    def guidance(self, x, t):
        """Of the size of a score at every level, and not affine in x."""
        alpha, sigma = (c.reshape(-1, 1, 1, 1) for c in (self.sde.alpha(t), self.sde.sigma(t)))
        return self.constant + self.strength * alpha / (alpha**2 + sigma**2) * torch.tanh(1 - x / alpha)

    def project(self, x, step):
        self.steps.append(step)
        return x


class GuidedScore(Guided):
    """score + g, from which Tweedie's formula gives x0."""

    def score(self, x, t):
        return self.base.score(x, t) + self.guidance(x, t)


class GuidedEstimate(Guided):
    """x0 + (sigma^2 / alpha) g, from which Tweedie's formula gives the score."""

    def denoise(self, x, t):
        alpha, sigma = (c.reshape(-1, 1, 1, 1) for c in (self.sde.alpha(t), self.sde.sigma(t)))
        return self.base.denoise(x, t) + sigma**2 / alpha * self.guidance(x, t)


def run(sampler, model, levels):
    """Three samples, from xbar = level z at the first of a few levels."""
    noise, times = noise_for(model, 3), model.sde.time_of(levels)
    x = model.sde.alpha(times[0]) * levels[0] * noise.at("xbar").normal(SHAPE)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", ".*approximate")  # Metropolis without a log density, which says so
        state = attrs.evolve(sampler.init(model, x, noise), times=times)
        while not state.last:
            state = sampler.step(model, state, noise.at(state.index))
        return sampler.finish(model, state, noise).x


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize(("name", "params"), VARIED, ids=str)
def test_guidance_of_the_score_is_guidance_of_the_estimate(name, params, sde):
    """Class A: by Tweedie's formula, in either direction, both are one model, whichever of them a sampler asks for."""
    prior, sampler = mixture(sde), registry.get_sampler(name, steps=3, **params)
    levels = torch.tensor([3.0, 1.0, 0.4, 0.2], dtype=torch.float64)

    by_score = run(sampler, GuidedScore(base=prior, strength=0.8), levels)
    by_estimate = run(sampler, GuidedEstimate(base=prior, strength=0.8), levels)

    # Tweedie's formula there and back: 1e-16 of x / sigma^2, sigma >= .1, in a dozen evaluations
    torch.testing.assert_close(by_estimate, by_score, rtol=0, atol=1e-10)
    assert float((by_score - run(sampler, GuidedScore(base=prior), levels)).abs().max()) > 0.01


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize(("name", "params"), KERNELS, ids=str)
def test_the_gain_of_a_kernel_is_its_shift_per_unit_of_score(name, params, sde):
    """Exactly, whatever the step: every kernel is affine in the score."""
    model, sampler = mixture(sde), registry.get_sampler(name, **params)
    noise = noise_for(model)
    for t, s in [(TIMES[1], TIMES[0]), (TIMES[2], TIMES[1])]:
        x = draws(model, t)
        unit = 1 / float(x.std())  # the size of a score

        plain = sampler.transition(GuidedScore(base=model), x, t, s, noise)
        shifted = sampler.transition(GuidedScore(base=model, constant=unit), x, t, s, noise)

        # two points of size |x| that differ by gain / |x|: 1e-16 |x|^2, |x| up to 40
        torch.testing.assert_close((shifted.x - plain.x) / unit, torch.full_like(x, plain.gain), rtol=1e-9, atol=1e-12)


FIRST_ORDER = [("ode", v) for v in VARIANTS["ode"]] + [("dpm-solver", {"order": 2}), ("dpm-solver", {"eta": 0.7})]


@pytest.mark.parametrize("sde", ["vp", "ve", "flow"])
@pytest.mark.parametrize(("name", "params"), FIRST_ORDER, ids=str)
def test_the_gain_of_a_solver_is_its_shift_to_first_order_in_the_step(name, params, sde):
    """Later stages see the shifted state: their share of the shift is of the size of the step."""
    model = mixture(sde)
    sampler, noise = registry.get_sampler(name, **params), noise_for(model)
    t = TIMES[1]
    errors = []
    for width in (1e-3, 5e-4):
        x, times = draws(model, t), torch.stack([t, t - width])
        recorder = GuidedScore(base=model)
        start = attrs.evolve(sampler.init(model, x, noise), times=times)
        plain = sampler.step(recorder, start, noise).x
        shifted = sampler.step(GuidedScore(base=model, constant=1.0), start, noise).x
        gain = recorder.steps[0].gain
        errors.append(float(((shifted - plain) / gain - 1).abs().max()))

    assert errors[0] < 0.05
    assert errors[1] < 1e-8 or errors[0] / errors[1] == pytest.approx(2, rel=0.1)
