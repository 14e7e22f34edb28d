from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import attrs
import diffusers
import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    ScoreSdeVePipeline,
    ScoreSdeVeScheduler,
)
from diffusers.schedulers.deprecated.scheduling_karras_ve import KarrasVeScheduler
from scoreplug_diffusers.schedulers import CHAINS

from scoreplug import Noise, registry, testing

CPU = torch.device("cpu")
# float32 networks twice, with sums in another order: some 1e-6 of values of order one
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def prior_of(path: str, **params):
    return registry.get_model("diffusers", path=path, **params)


def images(n: int = 2, channels: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, channels, 8, 8, generator=torch.Generator().manual_seed(seed))


def at_level(model, level: float) -> torch.Tensor:
    return model.sde.time_of(torch.tensor(level, dtype=torch.float64))


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_denoise_is_ddims_original_sample_at_every_step(save, schedule, prediction):
    scheduler = DDIMScheduler(beta_schedule=schedule, prediction_type=prediction, clip_sample=False)
    path, network = save(scheduler, pipeline=DDIMPipeline)
    model, x = prior_of(path), images()
    scheduler.set_timesteps(1000)
    for step in (0, 1, 500, 990):
        output = network(x, step).sample
        expected = scheduler.step(output, step, x).pred_original_sample
        t = torch.tensor((step + 1) / 1000, dtype=torch.float64)
        assert float(model.sde.alpha(t)) == pytest.approx(float(scheduler.alphas_cumprod[step].sqrt()), rel=1e-4)
        # at high noise x0 = (x - sigma F) / alpha is as large as 1 / alpha, and so is its rounding
        torch.testing.assert_close(model.denoise(x, t), expected, rtol=1e-3, atol=1e-4)


def test_ancestral_with_eta_0_on_the_chains_grid_is_ddim(save):
    scheduler = DDIMScheduler(num_train_timesteps=20, clip_sample=False)
    path, network = save(scheduler)
    model = prior_of(path)
    noise = Noise(0, range(2), dtype=torch.float32, device=CPU)
    *states, last = registry.get_sampler("ancestral", eta=0.0, steps=19).trajectory(model, noise)

    x = states[0].x
    scheduler.set_timesteps(20)
    for step in scheduler.timesteps:
        x = scheduler.step(network(x, step).sample, step, x, eta=0.0).prev_sample
    torch.testing.assert_close(last.x, x, **CLOSE)


def test_ddim_with_few_steps_of_a_long_chain_takes_the_same_steps(save):
    scheduler = DDIMScheduler(clip_sample=False)
    path, network = save(scheduler)
    model, kernel = prior_of(path), registry.get_sampler("ancestral", eta=0.0)
    scheduler.set_timesteps(10)
    steps = scheduler.timesteps.tolist()
    assert steps[0] == 900
    x = ours = images()
    noise = Noise(0, range(2), dtype=torch.float32, device=CPU)
    for step, to in itertools.pairwise(steps):
        x = scheduler.step(network(x, step).sample, step, x, eta=0.0).prev_sample
        t, s = (torch.tensor((k + 1) / 1000, dtype=torch.float64) for k in (step, to))
        ours = kernel.transition(model, ours, t, s, noise).x
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-3 * float(x.abs().max()))


def test_a_step_of_ancestral_has_ddpms_mean_and_small_variance(save):
    scheduler = DDPMScheduler(clip_sample=False, variance_type="fixed_small")
    path, network = save(scheduler)
    model, x, z = prior_of(path), images(seed=1), Noise(0, range(2), dtype=torch.float32, device=CPU)
    for step in (1, 400, 999):
        t, s = (torch.tensor((k + 1) / 1000, dtype=torch.float64) for k in (step, step - 1))
        found = registry.get_sampler("ancestral").transition(model, x, t, s, z).x
        std = float(scheduler._get_variance(step)) ** 0.5
        output = scheduler.step(network(x, step).sample, step, x)
        coefficients = _posterior_coefficients(scheduler, step)
        mean = coefficients[0] * output.pred_original_sample + coefficients[1] * x
        torch.testing.assert_close(found, mean + std * z.at("z").normal((1, 8, 8)), rtol=1e-3, atol=1e-4)


def _posterior_coefficients(scheduler, step: int) -> tuple[float, float]:
    """Of x0 and x in the mean of q(x_{t-1} | x_t, x_0), Ho et al. 2020, eq. 7."""
    a, before = float(scheduler.alphas_cumprod[step]), float(scheduler.alphas_cumprod[step - 1])
    beta = float(scheduler.betas[step])
    return math.sqrt(before) * beta / (1 - a), math.sqrt(1 - beta) * (1 - before) / (1 - a)


@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_denoise_under_ve_is_eulers_denoised_between_the_steps_too(save, prediction, karras):
    scheduler = EulerDiscreteScheduler(prediction_type=prediction, use_karras_sigmas=karras)
    path, network = save(scheduler)
    model = prior_of(path).under(registry.get_sde("ve", sigma_min=0.001, sigma_max=200.0))
    scheduler.set_timesteps(7)
    for i, step in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[i])
        x = sigma * images(seed=i)
        output = network(scheduler.scale_model_input(x, step), step).sample
        expected = scheduler.step(output, step, x).pred_original_sample
        found = model.denoise(x, at_level(model, sigma))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * max(sigma, 1))


def test_v_and_sample_predictions_are_epsilon_by_algebra(save):
    path, _ = save(DDPMScheduler(num_train_timesteps=20))
    x, level = images(), 0.3
    alpha, sigma = 1 / math.sqrt(1 + level**2), level / math.sqrt(1 + level**2)
    models = {}
    for prediction in ("epsilon", "v_prediction", "sample"):
        _edit(path, "scheduler/scheduler_config.json", prediction_type=prediction)
        models[prediction] = prior_of(path)
    t = at_level(models["epsilon"], level)
    x0 = {name: model.denoise(x, t) for name, model in models.items()}
    F = x0["sample"]  # one network: each estimate is a combination of its input and this output
    torch.testing.assert_close(x0["epsilon"], (x - sigma * F) / alpha, **CLOSE)
    torch.testing.assert_close(x0["v_prediction"], alpha * x - sigma * F, **CLOSE)


def test_score_of_a_ve_network_is_its_output(save):
    scheduler = ScoreSdeVeScheduler(sigma_min=0.01, sigma_max=50.0)
    path, network = save(scheduler, pipeline=ScoreSdeVePipeline, time_embedding_type="fourier")
    model, x = prior_of(path), images()
    assert (model.sde.sigma_min, model.sde.sigma_max, model.data_range) == (0.01, 50.0, (0.0, 1.0))
    for i in (0, 1000, 1999):
        sigma, t = scheduler.sigmas[i], scheduler.timesteps[i].double()
        assert float(model.sde.sigma(t)) == pytest.approx(float(sigma), rel=1e-5)
        expected = network(x, sigma * torch.ones(2)).sample
        # the score is x0 - x over sigma^2, so that float32 rounding of x0 comes back divided by sigma^2
        tolerance = 1e-5 + 1e-6 / float(sigma) ** 2
        torch.testing.assert_close(model.score(x, t), expected, rtol=1e-3, atol=tolerance)


def test_a_predictor_step_of_score_sde_is_reverse_diffusion_in_the_mean(save):
    scheduler = ScoreSdeVeScheduler(num_train_timesteps=10, sigma_max=50.0)
    path, network = save(scheduler, pipeline=ScoreSdeVePipeline, time_embedding_type="fourier")
    model, x = prior_of(path), images()
    scheduler.set_timesteps(10)
    scheduler.set_sigmas(10)
    t = scheduler.timesteps[3]
    high, low = scheduler.discrete_sigmas[6], scheduler.discrete_sigmas[5]
    output = network(x, high * torch.ones(2)).sample
    expected = scheduler.step_pred(output, t, x).prev_sample_mean
    score = model.score(x, at_level(model, float(high)))
    torch.testing.assert_close(x + (high**2 - low**2) * score, expected, **CLOSE)


def test_karras_ve_shows_the_network_images_in_0_1(save):
    scheduler = KarrasVeScheduler()
    path, network = save(DDPMScheduler(), time_embedding_type="fourier")
    scheduler.save_pretrained(Path(path) / "scheduler")  # diffusers no longer saves whole pipelines of this kind
    model, x, sigma = prior_of(path), images(), 0.6
    output = sigma / 2 * network((x + 1) / 2, torch.full((2,), sigma / 2)).sample
    expected = scheduler.step(output, sigma, 0.0, x).pred_original_sample
    torch.testing.assert_close(model.denoise(x, at_level(model, sigma)), expected, **CLOSE)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_denoise_is_edms_preconditioned_output(save, prediction):
    scheduler = EDMEulerScheduler(prediction_type=prediction, sigma_data=0.7)
    path, network = save(scheduler)
    model = prior_of(path)
    for sigma in (0.01, 0.6, 30.0):
        x = (1 + sigma) * images()
        level = torch.tensor([sigma])
        output = network(scheduler.precondition_inputs(x, level), scheduler.precondition_noise(level)).sample
        expected = scheduler.precondition_outputs(x, output, level)
        torch.testing.assert_close(model.denoise(x, at_level(model, sigma)), expected, **CLOSE)


def test_of_a_network_that_tells_a_variance_the_mean_is_used(save):
    path, network = save(DDPMScheduler(clip_sample=False, variance_type="learned_range"), out_channels=2)
    model, x = prior_of(path), images()
    t = torch.tensor(0.501, dtype=torch.float64)
    expected = (x - float(model.sde.sigma(t)) * network(x, 500).sample[:, :1]) / float(model.sde.alpha(t))
    torch.testing.assert_close(model.denoise(x, t), expected, **CLOSE)


def test_a_table_of_steps_is_read_at_the_nearest_step(save):
    path, network = save(DDPMScheduler(num_train_timesteps=20), time_embedding_type="learned", num_train_timesteps=20)
    model, x = prior_of(path), images()
    t = torch.tensor(11.3 / 20, dtype=torch.float64)  # step 10.3
    expected = (x - float(model.sde.sigma(t)) * network(x, 10).sample) / float(model.sde.alpha(t))
    torch.testing.assert_close(model.denoise(x, t), expected, **CLOSE)


def test_a_chain_that_ends_without_signal_is_cut_at_its_last_finite_level(save):
    scheduler = DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction", clip_sample=False)
    path, _ = save(scheduler)
    model = prior_of(path)
    assert model.sde.steps == 999
    t = torch.tensor(500 / 999, dtype=torch.float64)  # step 499 of the shorter chain is step 499 of the whole one
    assert float(model.sde.alpha(t)) == pytest.approx(float(scheduler.alphas_cumprod[499].sqrt()), rel=1e-5)
    assert bool(model.denoise(images(), torch.ones((), dtype=torch.float64)).isfinite().all())


def test_the_shape_is_the_networks_and_another_size_can_be_asked_for(save):
    path, network = save(DDPMScheduler(), in_channels=3, out_channels=3, sample_size=(8, 16))
    assert prior_of(path).shape == (3, 8, 16)
    model = prior_of(path, image_shape=(3, 12, 8))
    x = torch.zeros(1, 3, 12, 8)
    t = torch.tensor(0.5, dtype=torch.float64)
    expected = (x - float(model.sde.sigma(t)) * network(x, 499).sample) / float(model.sde.alpha(t))
    torch.testing.assert_close(model.denoise(x, t), expected, **CLOSE)


def test_another_process_given_by_name_is_the_same_prior(save):
    path, _ = save(DDPMScheduler())
    own, other = prior_of(path), prior_of(path, sde={"name": "ve", "sigma_max": 50.0})
    x, level = images(), 0.7
    t = at_level(own, level)
    torch.testing.assert_close(other.denoise(x / own.sde.alpha(t), at_level(other, level)), own.denoise(x, t), **CLOSE)


def test_weights_are_float64_if_asked_and_the_generator_stands_still(save):
    path, _ = save(DDPMScheduler())
    before = torch.get_rng_state()
    model = prior_of(path, precision="float64")
    assert torch.equal(torch.get_rng_state(), before)
    assert {p.dtype for p in model.module.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in model.module.parameters())
    t = torch.tensor(0.5, dtype=torch.float64)
    torch.testing.assert_close(
        model.denoise(images().double(), t).float(), prior_of(path).denoise(images(), t), **CLOSE
    )


def test_the_file_of_weights_is_known_to_provenance(save):
    path, _ = save(DDPMScheduler())
    assert prior_of(path).checkpoint == str(Path(path) / "unet" / "diffusion_pytorch_model.safetensors")


def test_spread_is_that_of_white_images(save):
    model = prior_of(save(DDPMScheduler())[0])
    assert float(model.spread(at_level(model, 0.5))) == pytest.approx(0.5 / math.sqrt(2))


def test_every_known_chain_is_a_class_of_diffusers_with_betas():
    for name in CHAINS:
        assert len(getattr(diffusers, name)(num_train_timesteps=30).betas) == 30


SCHEDULERS = {
    "ddpm": (DDPMScheduler, {}),
    "ve": (ScoreSdeVeScheduler, {"time_embedding_type": "fourier"}),
    "edm": (EDMEulerScheduler, {}),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_the_conformance_kit_passes(save, kind):
    make, network = SCHEDULERS[kind]
    path, _ = save(make(), **network)
    report = testing.run_checks("diffusers", "model", params={"path": path})
    assert report.ok, [attrs.asdict(result) for result in report.failures]
    assert sum(result.state == "pass" for result in report.results) >= 19


def _edit(path: str, file: str, **changes) -> None:
    target = Path(path) / file
    target.write_text(json.dumps({**json.loads(target.read_text()), **changes}))
