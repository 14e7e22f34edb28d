"""The energy model: its score is its density's gradient, and for a Gaussian it is the Gaussian's."""

import attrs
import pytest
import torch

from scoreplug import BaseModel, Noise, registry, simulate
from scoreplug.protocols import HasLogDensity

SHAPE = (1, 2, 3)


def draw(n=2):
    return Noise(0, range(n), dtype=torch.float64, device=torch.device("cpu")).normal(SHAPE)


def gaussian(mean=0.0, sde="vp"):
    i = torch.arange(6, dtype=torch.float64)
    covariance = 0.7 * (-(i[:, None] - i).abs() / 2).exp()
    return registry.get_model("gaussian", image_shape=SHAPE, mean=mean, covariance=covariance, sde=sde)


@pytest.mark.parametrize("sde", ["vp", "ve"])
@pytest.mark.parametrize("t", [0.01, 0.3, 1.0])
def test_the_inner_form_of_a_centred_gaussian_is_that_gaussian(t, sde):
    base, t = gaussian(sde=sde), torch.tensor(t, dtype=torch.float64)
    energy, x = registry.get_model("energy", base=base), draw()

    # x - alpha x0 cancels at small noise: 1e-16 / sigma^2
    torch.testing.assert_close(energy.score(x, t), base.score(x, t), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(energy.denoise(x, t), base.denoise(x, t), rtol=1e-8, atol=1e-8)
    difference = energy.log_density(x, t) - base.log_density(x, t)
    torch.testing.assert_close(difference[0], difference[1], rtol=1e-8, atol=1e-8)  # a constant of t


def test_the_norm_form_of_a_gaussian_is_another_density():
    """-sigma x / P^2 instead of -x / P."""
    base, t, x = registry.get_model("gaussian", image_shape=SHAPE, covariance=0.7), torch.tensor(0.3).double(), draw()

    score = registry.get_model("energy", base=base, form="norm").score(x, t)

    P = base.sde.alpha(t) ** 2 * 0.7 + base.sde.sigma(t) ** 2
    torch.testing.assert_close(score, -base.sde.sigma(t) * x / P**2, rtol=1e-9, atol=0)


@pytest.mark.parametrize("form", ["inner", "norm"])
@pytest.mark.parametrize("base", ["mixture", "digits-32"])
def test_the_score_is_the_gradient_of_the_log_density(base, form):
    """Also where the denoiser is not linear; by central differences along a direction."""
    if base == "mixture":
        base = registry.get_model("gaussian-mixture", image_shape=SHAPE, means=((0.5,) * 6, (-0.2,) * 6))
    else:
        base = registry.get_model("digits-32", precision="float64")
    energy, t = registry.get_model("energy", base=base, form=form), torch.tensor(0.3, dtype=torch.float64)
    noise = Noise(0, (0, 1), dtype=torch.float64, device=torch.device("cpu"))
    x, u, h = noise.at("x").normal(energy.shape), noise.at("u").normal(energy.shape), 1e-5

    score, log_density = energy.score_and_log_density(x, t)
    with torch.no_grad():
        up, down = energy.log_density(x + h * u, t), energy.log_density(x - h * u, t)

    slope = (score * u).flatten(1).sum(1)
    torch.testing.assert_close(slope, (up - down) / (2 * h), rtol=1e-6, atol=1e-6 * float(slope.abs().max()))
    torch.testing.assert_close(log_density, energy.log_density(x, t).detach(), rtol=1e-12, atol=0)
    assert not score.requires_grad  # nobody asked


def test_it_keeps_its_density_under_another_process():
    """log p_t(x) = log p'_{t'}(x r) + n log r, whose gradient is r times the native score."""
    energy = registry.get_model("energy", base=gaussian()).under(registry.get_sde("ve"))
    base, t, x = gaussian(sde="ve"), torch.tensor(0.4, dtype=torch.float64), draw()

    assert isinstance(energy, HasLogDensity)
    score, log_density = energy.score_and_log_density(x, t)
    torch.testing.assert_close(score, base.score(x, t), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(log_density, energy.log_density(x, t), rtol=1e-12, atol=0)


def test_guidance_differentiates_through_it():
    """dps takes the derivative of x0, which is itself a derivative of the network."""
    base = gaussian()
    operator = registry.get_operator("inpainting", image_shape=SHAPE)
    measurement = simulate(operator, draw(1)[0], 0.1)
    method = registry.get_conditioner("dps", form="likelihood")
    t, x = torch.tensor(0.3, dtype=torch.float64), draw()

    through_energy = method.condition(registry.get_model("energy", base=base), measurement).score(x, t)

    torch.testing.assert_close(through_energy, method.condition(base, measurement).score(x, t), rtol=1e-8, atol=1e-8)


@attrs.frozen(kw_only=True, eq=False)
class Linear(BaseModel):
    """x0 = w x with a trainable w."""

    module: torch.nn.Linear
    sde = registry.get_sde("ve", sigma_max=2.0)
    shape = SHAPE
    dtype = torch.float64
    device = torch.device("cpu")

    def denoise(self, x, t):
        del t
        return self.module(x.flatten(1)).reshape(x.shape)


@pytest.mark.parametrize("form", ["inner", "norm"])
def test_the_networks_parameters_are_trained_through_the_score(form):
    base = Linear(module=torch.nn.Linear(6, 6, bias=False, dtype=torch.float64))
    energy = registry.get_model("energy", base=base, form=form)
    optimiser, t = torch.optim.Adam(energy.module.parameters(), lr=0.05), torch.tensor(0.9, dtype=torch.float64)
    x0 = draw(64)
    x = x0 + energy.sde.sigma(t) * Noise(1, range(64), dtype=torch.float64, device=x0.device).normal(SHAPE)

    losses = []
    for _ in range(30):
        loss = (energy.denoise(x, t) - x0).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))

    assert losses[-1] < 0.9 * losses[0]
