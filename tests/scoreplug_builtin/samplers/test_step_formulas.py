"""Facts about single steps: gains, identities between samplers, and what a Langevin step size is."""

import attrs
import pytest
import torch

from scoreplug import BaseModel, Noise, registry

SDES = [spec.name for spec in registry.list("sde")]


@attrs.frozen(kw_only=True, eq=False)
class Shifted(BaseModel):
    """A model whose score is shifted by a constant: a step's response to it is the step's gain."""

    base: BaseModel
    shift: float

    sde = property(lambda self: self.base.sde)
    shape = property(lambda self: self.base.shape)
    dtype = property(lambda self: self.base.dtype)
    device = property(lambda self: self.base.device)

    def score(self, x, t):
        return self.base.score(x, t) + self.shift


@attrs.frozen(kw_only=True, eq=False)
class Recorder(Shifted):
    steps: list = attrs.field(factory=list)

    def project(self, x, step):
        self.steps.append(step)
        return x


def gaussian(sde):
    return registry.get_model("gaussian", image_shape=(1, 2, 2), mean=0.3, covariance=0.5, sde=sde)


def noise_for(model, batch=2):
    return Noise(3, range(batch), dtype=model.dtype, device=model.device)


STEPPERS = [
    ("em", {}),
    ("ancestral", {"eta": 1.0}),
    ("ancestral", {"eta": 0.0}),
    ("ancestral", {"eta": 0.6, "noise": "fresh"}),
    ("langevin", {}),
]


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize(
    ("name", "kwargs"), STEPPERS, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values()))
)
def test_gain_is_the_shift_per_unit_of_score(sde, name, kwargs):
    """A step with score + h minus the step with score is gain * h, exactly, since every step is affine in the score."""
    model = gaussian(sde)
    sampler = registry.get_sampler(name, steps=20, **kwargs)
    noise = noise_for(model)
    x = noise.at("x").normal(model.shape)
    recorder = Recorder(base=model, shift=0.0)

    plain = sampler.step(recorder, sampler.init(model, x, noise), noise)
    shifted = sampler.step(Shifted(base=model, shift=0.1), sampler.init(model, x, noise), noise)

    gain = recorder.steps[0].gain
    # differences of x of size prior_std ~ 50 lose 50 * 2e-16 / (0.1 gain)
    torch.testing.assert_close((shifted.x - plain.x) / 0.1, torch.full_like(x, float(gain)), rtol=1e-7, atol=1e-10)
    x0 = recorder.steps[0].x0
    t = plain.times[0 if name != "langevin" else 1]
    start = x if name != "langevin" else x * model.sde.alpha(plain.times[1]) / model.sde.alpha(plain.times[0])
    torch.testing.assert_close(x0, model.denoise(start, t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sde", SDES)
def test_ddim_is_an_euler_step_of_the_probability_flow_in_level(sde):
    """In xbar = x/alpha over level = sigma/alpha the flow is d xbar / d level = (xbar - x0)/level (Karras 2022)."""
    model, sampler = gaussian(sde), registry.get_sampler("ancestral", eta=0.0, steps=10)
    noise = noise_for(model)
    x, t, s = noise.at("x").normal(model.shape), *torch.tensor([0.5, 0.4], dtype=torch.float64)

    moved = sampler.transition(model, x, t, s, noise).x

    process = model.sde
    xbar, x0 = x / process.alpha(t), model.denoise(x, t)
    euler = xbar + (process.level(s) - process.level(t)) * (xbar - x0) / process.level(t)
    torch.testing.assert_close(moved / process.alpha(s), euler, rtol=1e-10, atol=1e-10)


def test_ddpm_noise_has_the_variance_of_the_discrete_posterior():
    """eta = 1 has c^2 = beta~ = beta (1 - abar_s) / (1 - abar_t) with beta = 1 - abar_t / abar_s (Ho 2020, eq. 7)."""
    model, sampler = gaussian("vp"), registry.get_sampler("ancestral", eta=1.0)
    t, s = torch.tensor([0.5, 0.4], dtype=torch.float64)
    noise = noise_for(model)
    x = noise.at("x").normal(model.shape)

    moved = sampler.transition(model, x, t, s, noise).x
    mute = registry.get_sampler("ancestral", eta=0.0)

    abar_t, abar_s = model.sde.alpha(t) ** 2, model.sde.alpha(s) ** 2
    beta = 1 - abar_t / abar_s
    x0, z = model.denoise(x, t), noise.at("z").normal(model.shape)
    mean = abar_s.sqrt() * beta / (1 - abar_t) * x0 + (abar_t / abar_s).sqrt() * (1 - abar_s) / (1 - abar_t) * x
    expected = mean + (beta * (1 - abar_s) / (1 - abar_t)).sqrt() * z
    torch.testing.assert_close(moved, expected, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(mute.transition(model, x, t, s, noise).x, moved)


def test_the_norm_rule_is_per_sample():
    """e = 2 (snr |z| / |score|)^2 with the sample's own norms (Song et al. 2021, algorithm 4)."""
    model, sampler = gaussian("ve"), registry.get_sampler("langevin", rule="norm", snr=0.2)
    noise = noise_for(model, batch=3)
    x, t = noise.at("x").normal(model.shape), torch.tensor(0.3, dtype=torch.float64)

    moved = sampler.move(model, x, t, noise)

    z, score = noise.at("z").normal(model.shape), model.score(x, t)
    for i in range(3):
        e = 2 * (0.2 * z[i].norm() / score[i].norm()) ** 2
        torch.testing.assert_close(moved[i], x[i] + e * score[i] + (2 * e).sqrt() * z[i], rtol=1e-12, atol=1e-12)


def test_unadjusted_langevin_inflates_the_variance_by_the_known_factor():
    """At stationarity V = L^2 V + n^2 gives P / (1 - e / (2 P)) for a mode of variance P and step e."""
    P, snr = 2.0, 0.5
    sde = registry.get_sde("ve")
    t = sde.time_of(torch.tensor(P / 2, dtype=torch.float64).sqrt())  # sigma^2 = P/2, data variance P/2
    model = registry.get_model(
        "gaussian", image_shape=(1, 100, 200), covariance=P / 2, sde=sde
    )  # 20000 independent pixels
    sampler = registry.get_sampler("langevin", snr=snr, moves=30)  # (1 - e/P)^60 = 3e-8 is left of the start
    noise = Noise(0, (0,), dtype=model.dtype, device=model.device)

    x = sampler.correct(model, torch.zeros(1, *model.shape, dtype=torch.float64), t, noise)

    e = 2 * snr**2 * P / 2
    assert float(x.var()) == pytest.approx(P / (1 - e / (2 * P)), rel=5 * (2 / x.numel()) ** 0.5)  # five sigma


def test_a_corrector_without_moves_at_fixed_level_is_refused():
    with pytest.raises(ValueError, match="corrector must have moves at a fixed level, like 'langevin'"):
        registry.get_sampler("pc", corrector="em")
