"""RED-diff: its gradient is the authors', its step is Adam's, its fixed point is the closed form, and what it reports
is a point."""

import itertools
import math

import attrs
import pytest
import torch

from scoreplug import Measurement, Noise, WrappedModel, registry, simulate
from scoreplug.operator import from_function, with_dense_svd
from scoreplug.run.cost import Cost, counted_model, counted_operator
from scoreplug_builtin.conditioners.diffpir import DiffPIR
from scoreplug_builtin.samplers.reddiff import REDDiff

S, GAIN, SIGMA_Y, Y = 1.7, 0.8, 0.6, 1.3
SHAPE = (1, 2, 3)
CPU = torch.device("cpu")


class Silence(Noise):
    """Noise without noise: what is affine in the draws has its mean."""

    def normal(self, shape):
        return torch.zeros(len(self.samples), *shape, dtype=self.dtype)


def source(samples=(0, 1, 2), kind=Noise):
    return kind(5, samples, dtype=torch.float64, device=CPU)


def scalar(sde="vp"):
    prior = registry.get_model("gaussian", image_shape=(1, 1, 1), covariance=S, sde=sde)
    A = with_dense_svd(from_function(lambda x: GAIN * x, (1, 1, 1), linear=True))
    return DiffPIR().condition(prior, Measurement(A, torch.full((1, 1, 1), Y, dtype=torch.float64), SIGMA_Y))


def mixture(sde="vp"):
    i = torch.arange(6, dtype=torch.float64)
    means = torch.stack([0.5 * (i + 1).sin(), 0.3 - 0.8 * (i + 1).cos()])
    return registry.get_model("gaussian-mixture", image_shape=SHAPE, means=means, covariances=0.2, sde=sde)


def operator_of(linear=True):
    rows = ((1.0, 0.5, 0.0, 0.2, 0.0, -0.4), (0.0, 1.0, -0.3, 0.0, 0.7, 0.0))
    if linear:
        return registry.get_operator("matrix", image_shape=SHAPE, matrix=rows)
    return from_function(lambda x: (x + 0.1 * x**2)[..., :2], SHAPE)


def posterior_of(prior, linear=True, operator=None):
    image = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(SHAPE)
    return DiffPIR().condition(prior, simulate(operator or operator_of(linear), image, 0.2))


@pytest.mark.parametrize("linear", [True, False], ids=["linear", "nonlinear"])
@pytest.mark.parametrize("sigma_x0", [0.0, 0.3])
@pytest.mark.parametrize("sde", ["vp", "ve", "flow"])
def test_the_gradient_is_the_authors(sde, sigma_x0, linear):
    """v A^T (A x_0 - y) / sigma_y^2 + w level (eps_theta - eps), eps_theta = -sigma score."""
    model, noise = posterior_of(mixture(sde), linear), source()
    sampler = REDDiff(v=0.7, w=0.3, sigma_x0=sigma_x0)
    t, mu = torch.tensor(0.4, dtype=torch.float64), noise.at("mu").normal(SHAPE)

    found = sampler.gradient(model, mu, t, noise)

    alpha, sigma = model.sde.alpha(t), model.sde.sigma(t)
    eps, x0 = noise.at("eps").normal(SHAPE), mu + sigma_x0 * noise.at("x0").normal(SHAPE)
    eps_theta = -sigma * model.prior.score(alpha * x0 + sigma * eps, t)
    Ax0, adjoint = model.measurement.operator.linearize(x0)
    data = adjoint(Ax0 - model.measurement.data) / 0.2**2
    # eps_theta and eps agree to few digits where sigma is small: 1e-16 over 1e-2, times the terms' size
    torch.testing.assert_close(found, 0.7 * data + 0.3 * sigma / alpha * (eps_theta - eps), rtol=1e-9, atol=1e-10)


def test_the_steps_are_adams():
    """Against torch's, on each sample of its own."""
    model, sampler, noise = posterior_of(mixture()), REDDiff(steps=6, lr=0.05, w=2.0), source()
    state = sampler.init(model, noise.at("x").normal(SHAPE), noise)
    theirs = [torch.nn.Parameter(mu.clone()) for mu in state.x]
    optimizers = [torch.optim.Adam([mu], lr=0.05, betas=(0.9, 0.99)) for mu in theirs]

    while not state.last:
        here = noise.at("step", state.index)
        g = sampler.gradient(model, torch.stack([mu.detach() for mu in theirs]), state.t, here)
        for mu, optimizer, gradient in zip(theirs, optimizers, g, strict=True):
            mu.grad = gradient.clone()
            optimizer.step()
        state = sampler.step(model, state, here)

    torch.testing.assert_close(state.x, torch.stack([mu.detach() for mu in theirs]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sde", ["vp", "ve"])
@pytest.mark.parametrize("w", [0.25, 5.0])
def test_the_mean_gradient_over_all_levels_vanishes_at_the_closed_form(w, sde):
    """mu = v a y / (v a^2 + w sigma_y^2 avg_t[sigma_t^2 / P_t])."""
    model, sampler, v = scalar(sde), REDDiff(steps=50, w=w, v=1.5), 1.5
    times = sampler.times(model.sde)
    P = model.sde.alpha(times) ** 2 * S + model.sde.sigma(times) ** 2
    pull = float((model.sde.sigma(times) ** 2 / P).mean())
    mu = v * GAIN * Y / (v * GAIN**2 + w * SIGMA_Y**2 * pull)
    at = torch.full((1, 1, 1, 1), mu, dtype=torch.float64)

    gradients = [float(sampler.gradient(model, at, t, source((0,), Silence))) for t in times]

    # the gradient is affine in eps, so that its mean is what it is for eps = 0; terms of size 1
    assert math.fsum(gradients) / 51 == pytest.approx(0, abs=1e-12)
    assert max(map(abs, gradients)) > 1e-3  # no single level has it


def test_a_small_step_size_ends_near_the_closed_form_and_a_large_one_near_the_data():
    """Without the noise, in expectation: slow steps average over the levels, fast ones end at the last."""
    model, w = scalar("vp"), 2.0
    ends = {}
    for lr, steps in ((0.002, 2000), (0.3, 400)):
        sampler, noise = REDDiff(steps=steps, w=w, lr=lr), source((0,), Silence)
        state = sampler.init(model, noise.normal((1, 1, 1)), noise)
        while not state.last:
            state = sampler.step(model, state, noise.at("step", state.index))
        ends[lr] = float(state.x)

    heaviest = GAIN * Y / (GAIN**2 + w * SIGMA_Y**2)  # the pull of the prior at the highest level
    assert heaviest < ends[0.002] < ends[0.3]
    assert ends[0.3] == pytest.approx(Y / GAIN, rel=0.02)


def test_the_start_is_the_middle_of_the_prior():
    model, noise = posterior_of(mixture("ve")), source()
    x = 50 * noise.normal(SHAPE)

    state = REDDiff().init(model, x, noise)

    torch.testing.assert_close(state.x, model.prior.denoise(x, torch.ones((), dtype=torch.float64)))
    assert float(state.x.abs().max()) < 2  # and not the noise


def test_it_reports_a_point():
    """The spread of the samples is the optimiser's noise; the posterior's standard deviation is .65."""
    x = REDDiff(steps=300, lr=0.05, w=1.0).sample(scalar("vp"), 32)

    assert 0 < float(x.std()) < 0.05 * math.sqrt(0.42265)


def test_the_samples_are_mu_or_on_request_its_denoised_version():
    model, noise = posterior_of(mixture()), source()
    sampler = REDDiff(steps=3)
    state = sampler.init(model, noise.normal(SHAPE), noise)
    state = attrs.evolve(state, index=3)

    assert sampler.finish(model, state, noise) is state
    denoised = attrs.evolve(sampler, final="denoise").finish(model, state, noise).x
    t = state.t
    torch.testing.assert_close(denoised, model.prior.denoise(model.sde.alpha(t) * state.x, t))


@pytest.mark.parametrize("sigma_x0", [0.0, 0.2])
@pytest.mark.parametrize("linear", [True, False], ids=["linear", "nonlinear"])
def test_a_sample_does_not_depend_on_its_batch_mates(linear, sigma_x0):
    model, sampler = posterior_of(mixture(), linear), REDDiff(steps=8, sigma_x0=sigma_x0)

    five = sampler.sample(model, 5, seed=2)

    *_, alone = sampler.trajectory(model, Noise(2, (3,), dtype=torch.float64, device=CPU))
    torch.testing.assert_close(alone.x, five[3:4], rtol=1e-9, atol=1e-10)
    assert not torch.allclose(five[0], five[1])


def test_a_step_is_pure():
    model, sampler, noise = posterior_of(mixture()), REDDiff(steps=4), source()
    state = sampler.step(model, sampler.init(model, noise.at("x").normal(SHAPE), noise), noise.at("first"))
    kept = [value.clone() for value in (state.x, *state.carry)]

    first, again = sampler.step(model, state, noise), sampler.step(model, state, noise)

    assert torch.equal(first.x, again.x)
    assert all(torch.equal(a, b) for a, b in zip(kept, (state.x, *state.carry), strict=True))
    assert not torch.equal(first.x, sampler.step(model, state, attrs.evolve(noise, seed=6)).x)
    assert not first.x.requires_grad


@pytest.mark.parametrize(("final", "extra"), [("sample", 1), ("denoise", 2)])
def test_a_step_costs_one_evaluation_and_one_gradient_of_the_likelihood(final, extra):
    cost = Cost()
    model = posterior_of(counted_model(mixture(), cost), operator=counted_operator(operator_of(), cost))
    before = cost.forward_calls

    REDDiff(steps=7, final=final).sample(model, 3)

    assert cost.evaluation_calls == 7 + extra  # the start, and the end on request
    assert cost.evaluations == 3 * cost.evaluation_calls
    assert cost.vjps == 0
    assert (cost.forward_calls - before, cost.adjoint_calls) == (7, 7)


def test_the_network_builds_no_graph():
    seen, prior = [], mixture()

    @attrs.frozen(kw_only=True, eq=False)
    class Watched(WrappedModel):
        base: object = prior

        def denoise(self, x, t):
            seen.append(torch.is_grad_enabled() and x.requires_grad)
            return prior.denoise(x, t)

    REDDiff(steps=3).sample(posterior_of(Watched()), 1)

    assert len(seen) == 4
    assert not any(seen)


def test_the_process_does_not_matter():
    """At the same levels with the same draws: E[x_0 | x_t] is all that it asks."""
    results, levels = [], torch.tensor([20.0, 2.0, 0.5, 0.1], dtype=torch.float64)
    for name in ("vp", "ve", "flow"):
        model, noise = posterior_of(mixture("vp")).under(registry.get_sde(name)), source()
        times = model.sde.time_of(levels)
        xbar, sampler = 20 * noise.at("x").normal(SHAPE), REDDiff(steps=3)
        mu = model.prior.denoise(model.sde.alpha(times[0]) * xbar, times[0])
        state = attrs.evolve(sampler.init(model, 0 * xbar, noise), x=mu, times=times)
        while not state.last:
            state = sampler.step(model, state, noise.at("step", state.index))
        results.append(state.x)

    for one, other in itertools.pairwise(results):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)


def test_what_it_cannot_do_is_refused_with_what_to_use():
    with pytest.raises(
        TypeError, match=r"'reddiff' needs a posterior that meets y in x_0 alone.*use the conditioner 'diffpir'"
    ):
        REDDiff(steps=2).sample(mixture(), 1)
    prior = registry.get_model("gaussian", image_shape=(1, 1, 1))
    A = with_dense_svd(from_function(lambda x: x, (1, 1, 1), linear=True))
    exact = DiffPIR().condition(prior, Measurement(A, torch.zeros(1, 1, 1, dtype=torch.float64), 0.0))
    with pytest.raises(ValueError, match="exact data have no likelihood"):
        REDDiff(steps=2).sample(exact, 1)
