from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file

from scoreplug import registry


@pytest.fixture
def folder(save) -> Path:
    return Path(save(DDPMScheduler())[0])


def refused(path: Path | str, match: str, **params) -> None:
    with pytest.raises(ValueError, match=match):
        registry.get_model("diffusers", path=str(path), **params)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_missing_folder_is_refused_and_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("the hub was asked"))
    refused(tmp_path / "nowhere", "is no folder on this machine")


def test_without_download_only_the_hubs_cache_is_looked_at(monkeypatch):
    asked = []

    def missing(name, **how):
        asked.append((name, how["local_files_only"], how["revision"]))
        raise FileNotFoundError(name)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", missing)
    refused("google/ddpm-cifar10-32", "download=true fetches it", revision="abc")
    refused("google/ddpm-cifar10-32", "cannot be downloaded: google/ddpm-cifar10-32", download=True)
    assert asked == [("google/ddpm-cifar10-32", True, "abc"), ("google/ddpm-cifar10-32", False, None)]


def test_a_repository_of_the_hub_is_read_from_where_the_hub_puts_it_and_no_pickle_is_fetched(folder, monkeypatch):
    def found(name, *, allow_patterns, **how):
        assert not any(pattern.endswith((".bin", ".pt", "*")) for pattern in allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", found)
    assert registry.get_model("diffusers", path="somebody/pipeline").shape == (1, 8, 8)


def test_early_repositories_with_all_files_in_one_folder_are_read(folder):
    expected = registry.get_model("diffusers", path=str(folder))
    for name in ("unet", "scheduler"):
        for file in (folder / name).iterdir():
            shutil.move(file, folder / file.name)
        (folder / name).rmdir()
    model = registry.get_model("diffusers", path=str(folder))
    x, t = torch.zeros(1, 1, 8, 8), torch.tensor(0.5, dtype=torch.float64)
    assert torch.equal(model.denoise(x, t), expected.denoise(x, t))


def test_a_single_network_is_refused_since_its_scheduler_is_not_known(folder):
    refused(folder / "unet", "this is a single network: save the pipeline")
    refused(folder / "scheduler", "no model_index.json")


def test_a_network_conditioned_on_text_is_refused(folder):
    edit(folder / "model_index.json", unet=["diffusers", "UNet2DConditionModel"])
    refused(folder, "UNet2DConditionModel, which is conditioned on text")


def test_another_network_is_refused(folder):
    edit(folder / "model_index.json", unet=["diffusers", "UNet1DModel"])
    refused(folder, "UNet1DModel, only unconditional UNet2DModel")
    edit(folder / "model_index.json", unet=["diffusers", "UNet2DModel"])
    edit(folder / "unet/config.json", _class_name="UNet1DModel")
    refused(folder, "is that of a UNet1DModel")


def test_a_latent_pipeline_is_refused(folder):
    edit(folder / "model_index.json", vqvae=["diffusers", "VQModel"])
    refused(folder, "also needs vqvae: its network does not work on images alone")


def test_a_part_that_a_pipeline_leaves_empty_is_no_part_of_it(folder):
    edit(folder / "model_index.json", safety_checker=[None, None], requires_safety_checker=False)
    assert registry.get_model("diffusers", path=str(folder)).shape == (1, 8, 8)


def test_a_class_conditional_network_is_refused(save):
    refused(save(DDPMScheduler(), num_class_embeds=10)[0], "conditioned on a class")


def test_a_network_of_other_outputs_is_refused(save):
    refused(save(DDPMScheduler(), in_channels=1, out_channels=3)[0], "3 channels of 1")


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_a_damaged_config_is_refused_by_its_name(folder, name):
    (folder / name).write_text('{"_class_name": ')
    refused(folder, f"{Path(name).name}' is not readable JSON")
    (folder / name).write_text("[1]")
    refused(folder, "is not a table of settings")


def test_an_incomplete_folder_is_refused(folder):
    (folder / "scheduler/scheduler_config.json").unlink()
    refused(folder, "the pipeline is not complete")


def test_a_config_that_diffusers_cannot_build_is_refused(folder):
    edit(folder / "unet/config.json", down_block_types=["DownBlock2D"])
    refused(folder, "diffusers cannot build the network")


def test_an_unknown_prediction_scheduler_or_schedule_is_refused(folder):
    config = folder / "scheduler/scheduler_config.json"
    edit(config, prediction_type="flow_prediction")
    refused(folder, "prediction_type is 'flow_prediction'; known are 'epsilon'")
    edit(config, prediction_type="epsilon", beta_schedule="parabolic")
    refused(folder, "parabolic")
    edit(config, beta_schedule="linear", beta_end=2.0)
    refused(folder, "betas are not")
    edit(config, beta_end=0.02, _class_name="FlowMatchEulerDiscreteScheduler")
    refused(folder, "FlowMatchEulerDiscreteScheduler, of which no prior is known; known are DDPMScheduler")


def test_a_scheduler_that_tells_levels_to_a_network_of_steps_is_refused(folder):
    config = folder / "scheduler/scheduler_config.json"
    edit(config, _class_name="EulerDiscreteScheduler", timestep_type="continuous")
    refused(folder, "timestep_type")
    edit(config, _class_name="ScoreSdeVeScheduler", sigma_max="large")
    refused(folder, "sigma_max must be a number > 0")


def test_time_embeddings_that_do_not_fit_the_scheduler_are_refused(save):
    refused(save(DDPMScheduler(), time_embedding_type="fourier")[0], "log of a noise level")


def test_pickled_weights_are_not_opened(folder):
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    refused(folder, "are a pickle .* not opened")
    weights.with_suffix(".bin").unlink()
    refused(folder, "there are no weights")


def test_damaged_weights_and_those_of_another_network_are_refused(folder):
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused(folder, "diffusers cannot build the network")
    weights.write_bytes(whole)
    edit(folder / "unet/config.json", block_out_channels=[8, 24])
    refused(folder, "diffusers cannot build the network .* size mismatch for")
    edit(folder / "unet/config.json", block_out_channels=[8, 16])
    tensors = load_file(weights)
    save_file({name: value for name, value in tensors.items() if name != "conv_in.bias"}, weights, {"format": "pt"})
    refused(folder, "1 missing keys, among them conv_in.bias")
    save_file({**tensors, "extra": tensors["conv_in.bias"].clone()}, weights, {"format": "pt"})
    refused(folder, "1 unexpected keys, among them extra")


def test_image_shapes_that_the_network_does_not_take_are_refused(folder):
    refused(folder, r"image_shape is \(1, height, width\)", image_shape=(3, 8, 8))
    refused(folder, "multiples of 2", image_shape=(1, 9, 8))
    edit(folder / "unet/config.json", sample_size=None)
    refused(folder, "give image_shape")


def test_the_path_is_required():
    with pytest.raises(ValueError, match="path is required"):
        registry.get_model("diffusers")
