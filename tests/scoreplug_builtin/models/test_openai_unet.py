"""The component openai-unet: what it computes, where it has attention, and which files it takes."""

import gzip
import json
import math
import typing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from scoreplug import Measurement, registry
from scoreplug.checkpoint import CheckpointError, write_checkpoint
from scoreplug.param import ParameterError
from scoreplug_builtin.models._openai_checkpoints import PRESETS, attention_levels, disagreements, read_flags
from scoreplug_builtin.models._unet import Attention, UNet
from scoreplug_builtin.models.openai_unet import OpenAIUNet, Preset

GOLDEN = Path(__file__).parents[2] / "golden"
PUBLISHED = {path.name[5:-8]: path for path in sorted(GOLDEN.glob("keys_*.json.gz"))}

SMALL = {"model_channels": 32, "num_res_blocks": 1, "channel_mult": (1, 1, 2), "num_head_channels": 32}


def randomise(network: nn.Module, *, seed: int = 0) -> dict[str, Tensor]:
    """Weights with nothing zero, since a fresh network returns 0."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64)
        / math.sqrt(value[0].numel() if value.ndim > 1 else 10)
        for name, value in network.state_dict().items()
    }


def make(**params: object) -> OpenAIUNet:
    return OpenAIUNet(**{"image_shape": (1, 12, 12), "sde": "vp", "precision": "float64"} | SMALL | params)


def random_model(**params: object) -> OpenAIUNet:
    """A small model with random weights in float64."""
    model = make(**params)
    model.module.load_state_dict(randomise(model.module))
    return model


def image(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def levels_with_attention(model: OpenAIUNet) -> set[int]:
    """Levels, by counting the down-samplers before each block of the network itself."""
    blocks = model.architecture["num_res_blocks"] + 1
    return {
        (i - 1) // blocks
        for i, block in enumerate(model.module.input_blocks)
        if any(isinstance(layer, Attention) for layer in block)
    }


TIME = torch.tensor(0.4, dtype=torch.float64)


# What it computes -----------------------------------------------------------------------------------------------------


def test_edm_denoiser_is_the_paper_s_formula():
    model = random_model(prediction="edm", data_mean=0.3, data_std=0.2)
    x, (alpha, sigma) = image(2, 1, 12, 12), (model.sde.alpha(TIME), model.sde.sigma(TIME))
    level, s = (sigma / alpha).item(), 0.2
    scaled = (x / alpha - 0.3) / math.sqrt(level**2 + s**2)
    network = model.module(scaled, torch.tensor(25 * math.log(level), dtype=torch.float64))

    expected = 0.3 + s**2 / (level**2 + s**2) * (x / alpha - 0.3) + level * s / math.sqrt(level**2 + s**2) * network

    # the same float64 operations; the network may amplify the rounding of its input tenfold
    torch.testing.assert_close(model.denoise(x, TIME), expected, rtol=0, atol=1e-12)


def test_edm_denoiser_of_a_fresh_network_is_the_best_linear_one():
    """F = 0 leaves the posterior mean of the prior N(mean, s^2): (s^2 x + level^2 mean) / (level^2 + s^2)."""
    model = make(prediction="edm", data_mean=0.3, data_std=0.2)
    x, alpha = image(1, 1, 12, 12), model.sde.alpha(TIME)
    level = model.sde.sigma(TIME) / alpha

    expected = (0.04 * x / alpha + level**2 * 0.3) / (level**2 + 0.04)

    torch.testing.assert_close(model.denoise(x, TIME), expected, rtol=1e-13, atol=1e-14)  # float64, five operations


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("index", [0, 137, 998])
def test_at_a_level_of_the_chain_it_is_the_network_at_that_index(schedule, prediction, index):
    model = random_model(prediction=prediction, schedule=schedule, learn_sigma=True)
    chain, x = model.chain, image(2, 1, 12, 12)
    alpha_bar = chain.alpha_bar[index]
    t = model.sde.time_of(((1 - alpha_bar) / alpha_bar).sqrt())

    output = model.module(x, torch.tensor(float(index)))[:, :1]
    expected = {
        "epsilon": (x - (1 - alpha_bar).sqrt() * output) / alpha_bar.sqrt(),
        "x0": output,
        "v": alpha_bar.sqrt() * x - (1 - alpha_bar).sqrt() * output,
    }[prediction]

    # x is on the chain's scale, and vp at that time has the chain's alpha. The embedding is computed in float64 from an
    # index that is right to 1e-8 (12 digits of 1 - alpha_bar), and 1 / alpha is up to 1e5 for the last cosine steps.
    torch.testing.assert_close(model.denoise(x, t), expected, rtol=1e-6, atol=1e-6)


def test_the_process_it_is_asked_under_makes_no_difference():
    """At equal levels, and x scaled alike, the estimate is the same under VP and VE."""
    x = image(1, 1, 12, 12)
    level = torch.tensor(0.7, dtype=torch.float64)
    estimates = []
    for sde in ("vp", "ve"):
        model = random_model(sde=sde, prediction="v")
        t = model.sde.time_of(level)
        estimates.append(model.denoise(model.sde.alpha(t) * x, t))

    torch.testing.assert_close(*estimates, rtol=0, atol=1e-9)  # time_of is exact to 1e-12, and the network amplifies


@pytest.mark.parametrize("prediction", ["epsilon", "edm"])
def test_a_time_per_sample_is_that_time_for_each(prediction):
    model = random_model(prediction=prediction)
    x, t = image(3, 1, 12, 12), torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)

    together = model.denoise(x, t)
    alone = torch.cat([model.denoise(x[i : i + 1], t[i]) for i in range(3)])

    # float64 sums of 1e3 terms in another order, divided by alpha = 0.01 at most
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-11)


def test_label_selects_the_class():
    model = random_model(num_classes=3, label=2)
    alpha, x = model.sde.alpha(TIME), image(1, 1, 12, 12)
    level = model.sde.sigma(TIME) / alpha
    index, scaled = model.chain.index_of_level(level), x / alpha / (1 + level**2).sqrt()

    outputs = [model.module(scaled, index, torch.tensor([label])) for label in range(3)]
    output = (scaled * (1 + level**2).sqrt() - model.denoise(x, TIME)) / level  # epsilon

    # float64 rounding, divided by a level of 1
    errors = [(output - of_label).abs().max().item() for of_label in outputs]
    assert errors[2] < 1e-12
    assert min(errors[:2]) > 1e-3


def test_precision_is_that_of_the_weights():
    x = image(1, 1, 12, 12)
    double, single = random_model(), random_model(precision="float32")

    low = single.denoise(x.float(), TIME)

    assert low.dtype == torch.float32
    # float32 rounding through ten layers, divided by alpha = 0.4
    torch.testing.assert_close(low.double(), double.denoise(x, TIME), rtol=0, atol=1e-4)


def test_guidance_differentiates_the_frozen_network():
    model = random_model(attention_levels=(2,))
    x0, vjp = model.denoise_with_vjp(image(1, 1, 9, 7), TIME)

    assert not any(p.requires_grad for p in model.module.parameters())
    assert vjp(torch.ones_like(x0)).abs().min() > 0


@pytest.mark.parametrize("params", [{}, {"num_classes": 3, "label": 1}], ids=["plain", "classes"])
def test_embeddings_of_a_level_are_made_once_and_again_for_other_weights(params):
    model = random_model(**params)
    made: list[int] = []
    model.module.time_embed.register_forward_hook(lambda *_: made.append(1))
    x = image(2, 1, 12, 12)

    first, again = model.denoise(x, TIME), model.denoise(x, TIME)
    assert torch.equal(first, again)
    assert len(made) == 1

    model.module.load_state_dict(randomise(model.module, seed=1))
    changed = model.denoise(x, TIME)
    other = make(**params)
    other.module.load_state_dict(randomise(model.module, seed=1))
    assert torch.equal(changed, other.denoise(x, TIME))
    assert len(made) == 2


def test_embeddings_are_not_kept_while_they_are_trained():
    model = random_model()
    model.denoise(image(1, 1, 12, 12), TIME)
    model.module.requires_grad_()

    model.denoise(image(1, 1, 12, 12), TIME).sum().backward()

    assert model.module.time_embed[0].weight.grad.abs().max() > 0


def test_embeddings_made_in_inference_mode_can_be_differentiated_later():
    model, x = random_model(), image(1, 1, 12, 12)
    with torch.inference_mode():
        expected = model.denoise(x, TIME)

    x0, vjp = model.denoise_with_vjp(x, TIME)

    torch.testing.assert_close(x0, expected.clone(), rtol=0, atol=1e-12)  # float64 rounding
    assert vjp(torch.ones_like(x0)).abs().max() > 0


def test_recomputing_activations_gives_the_same_samples():
    samples = []
    for use_checkpoint in (False, True):
        model = random_model(model_channels=64, use_checkpoint=use_checkpoint, precision="float32")
        operator = registry.get_operator("inpainting", image_shape=model.shape)
        data = operator(image(1, 1, 12, 12, dtype=torch.float32))[0]
        posterior = registry.get_conditioner("dps").condition(model, Measurement(operator, data, noise_std=0.1))
        samples.append(registry.get_sampler("ancestral", steps=3).sample(posterior, n=2, seed=0))

    assert torch.equal(*samples)


def test_levels_are_those_of_the_chain():
    low, high = make(prediction="epsilon").level_range

    assert low == pytest.approx(0.99 * 0.01, rel=1e-3)  # sqrt(beta_0), beta_0 = 1e-4
    assert high == pytest.approx(1.01 * math.sqrt(1 / 4.036e-5 - 1), rel=1e-3)  # the chain's last alpha_bar
    assert make(prediction="edm").level_range is None


# Any size, attention where it was asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(50, 50), (33, 47)])
@pytest.mark.parametrize("resblock_updown", [True, False])
def test_any_size_is_denoised_and_has_a_gradient(height, width, resblock_updown):
    model = random_model(image_shape=(1, height, width), attention_resolutions=(12,), resblock_updown=resblock_updown)

    x0, vjp = model.denoise_with_vjp(image(1, 1, height, width), TIME)

    assert levels_with_attention(model) == {2}
    assert x0.shape == (1, 1, height, width)
    assert vjp(x0).abs().min() > 0


def test_501_pixels_with_attention_at_32_and_64():
    """62.6 and 31.3 pixels are the resolutions nearest to 64 and 32: levels 3 and 4."""
    model = OpenAIUNet(
        image_shape=(1, 501, 501), model_channels=32, num_res_blocks=1, channel_mult=(1, 1, 1, 1, 1), prediction="edm",
        attention_resolutions="32,64", num_heads=1, resblock_updown=True,
    )  # fmt: skip

    with torch.no_grad():
        x0 = model.denoise(image(1, 1, 501, 501, dtype=torch.float32), TIME)

    assert levels_with_attention(model) == {3, 4}
    assert x0.shape == (1, 1, 501, 501)
    assert x0.isfinite().all()


@pytest.mark.parametrize(
    ("size", "resolutions", "levels", "expected"),
    [
        (256, (32, 16, 8), 6, (3, 4, 5)),
        (512, (32, 16, 8), 7, (4, 5, 6)),
        (64, (64,), 4, (0,)),
        (320, (16,), 6, (4,)),  # 20 rather than 10
        (384, (16,), 6, (5,)),  # 12 rather than 24: 16 / 12 < 24 / 16
        (500, (32,), 6, (4,)),
        (33, (16, 17), 3, (1,)),
    ],
    ids=str,
)
def test_resolutions_name_the_nearest_level(size, resolutions, levels, expected):
    assert attention_levels(resolutions, size, levels) == expected


@pytest.mark.parametrize("size", [64, 128, 256, 512])
@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_powers_of_two_are_the_original_s_rule(size, resolution):
    """The original has attention where size // resolution is 2^level."""
    (level,) = attention_levels((resolution,), size, 7)

    assert 2**level == size // resolution


def test_the_larger_edge_counts():
    assert levels_with_attention(make(image_shape=(1, 16, 48), attention_resolutions=(12,))) == {2}


@pytest.mark.parametrize(
    ("resolutions", "message"),
    [
        ((1,), r"no level is near 1; .* image of 12 pixels with 3 entries in channel_mult are 12, 6, 3 \(got \(1,\)\)"),
        ((24,), r"no level is near 24"),
    ],
)
def test_a_resolution_without_a_level_is_refused(resolutions, message):
    with pytest.raises(ParameterError, match=message):
        make(attention_resolutions=resolutions)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"attention_levels": (1,), "attention_resolutions": (6,)}, "two ways to say one thing"),
        ({"attention_levels": (3,)}, r"factors \[1, 2, 4\] \(got \[8\]\)"),
        ({"image_shape": (12,)}, r"\(channels, height, width\) \(got \(12,\)\)"),
        ({"preset": "ffhq_10m"}, "describes published weights: give their file as `checkpoint`"),
        ({"preset": "ffhq"}, "did you mean 'ffhq_10m'"),
        ({"num_classes": 3}, r"needs a `label` below 3 \(got None\)"),
        ({"num_classes": 3, "label": 3}, r"needs a `label` below 3 \(got 3\)"),
        ({"label": 0}, r"has no classes: leave `label` out \(got 0\)"),
        ({"prediction": "edm", "schedule": "cosine"}, "with prediction 'edm' schedule would have no effect"),
        ({"data_std": 0.2}, "with prediction 'epsilon' data_std would have no effect"),
        ({"channel_mult": (1, 1.25)}, "40 channels cannot be divided"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_contradictory_flags_are_refused(params, message):
    with pytest.raises(ParameterError, match=message):
        make(**params)


# Files ----------------------------------------------------------------------------------------------------------------


def test_presets_are_the_choices_of_the_parameter():
    assert set(typing.get_args(Preset)) == set(PRESETS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_the_published_networks(name):
    """All that the published state dicts tell agrees with the preset, and the rest with the published command lines."""
    golden, preset = json.loads(gzip.decompress(PUBLISHED[name].read_bytes())), PRESETS[name]
    seen, flags = read_flags(name, golden["state_dict"]), golden["flags"]

    assert seen.keys() >= {"num_res_blocks", "channel_mult", "attention_levels", "resblock_updown", "num_classes"}
    assert disagreements(preset, seen) == []
    for told in ("num_heads", "num_head_channels", "num_heads_upsample", "use_new_attention_order", "dropout"):
        assert preset[told] == flags[told]
    assert preset["learn_sigma"] == (seen["out_channels"] == 2 * seen["in_channels"])
    assert preset["schedule"] == ("cosine" if name == "64x64_diffusion" else "linear")


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"resblock_updown": True, "use_scale_shift_norm": True},
        {"conv_resample": False},
        {"conv_resample": False, "num_res_blocks": 2, "attention_resolutions": (2, 4)},
        {"num_res_blocks": 3, "attention_resolutions": (4,), "num_classes": 7},
        {"channel_mult": (1,)},
        {"channel_mult": (0.5, 1), "model_channels": 64},
        {"dims": 1},
        {"dims": 3, "in_channels": 2, "out_channels": 4},
    ],
    ids=str,
)
def test_a_state_dict_tells_the_flags(flags):
    flags = {
        **{"in_channels": 1, "out_channels": 1, "model_channels": 32, "num_res_blocks": 1, "channel_mult": (1, 1, 2)},
        **{"use_scale_shift_norm": False, "resblock_updown": False, "num_classes": None, "dims": 2},
        **flags,
    }
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in UNet(**flags).state_dict().items()}
    seen = read_flags("file", shapes)

    factors = flags.pop("attention_resolutions", ())
    assert seen.pop("attention_levels") == tuple(factor.bit_length() - 1 for factor in factors)
    if len(flags["channel_mult"]) == 1:
        del flags["resblock_updown"]  # nothing changes the size, so nothing tells how
    elif not flags["resblock_updown"]:
        flags.setdefault("conv_resample", True)
    assert seen == flags


def stored(path: Path, model: OpenAIUNet, *, own: bool = False, dtype: torch.dtype = torch.float32) -> Path:
    """The model's weights in a file, with our metadata or, like a published one, without."""
    state = {name: value.to(dtype) for name, value in model.module.state_dict().items()}
    if path.suffix == ".pt":
        torch.save(state, path)
        return path
    params = model.architecture | {"image_shape": model.image_shape}
    metadata = {"scoreplug": json.dumps({"model": {"name": "openai-unet", "params": params}})} if own else {}
    write_checkpoint(path, state, metadata)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_published_file_needs_nothing_but_the_heads(tmp_path, suffix):
    """All other flags of this network can be seen in its tensors."""
    model = random_model(precision="float32", attention_levels=(1,), channel_mult=(1, 2), learn_sigma=True)
    path = stored(tmp_path / f"model{suffix}", model)
    x = image(1, 1, 12, 12, dtype=torch.float32)

    loaded = OpenAIUNet(image_shape=(1, 12, 12), checkpoint=str(path), num_head_channels=32)

    assert torch.equal(loaded.denoise(x, TIME), model.denoise(x, TIME))


def test_half_precision_files_are_cast_up_exactly(tmp_path):
    path = stored(tmp_path / "model.pt", random_model(), dtype=torch.float16)

    loaded = OpenAIUNet(image_shape=(1, 12, 12), checkpoint=str(path), num_heads=1)

    kept = torch.load(path, weights_only=True)
    assert all(torch.equal(value, kept[name].float()) for name, value in loaded.module.state_dict().items())


def test_double_precision_files_keep_their_digits(tmp_path):
    model = random_model()
    path = stored(tmp_path / "model.safetensors", model, dtype=torch.float64)

    loaded = OpenAIUNet(image_shape=(1, 12, 12), checkpoint=str(path), num_head_channels=32, precision="float64")

    kept = model.module.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in loaded.module.state_dict().items())


def test_our_own_file_needs_no_flags_at_any_size(tmp_path):
    model = random_model(
        precision="float32", prediction="edm", data_mean=0.2, data_std=0.3, attention_resolutions=(3,),
        odd_sizes="floor", resblock_updown=True,
    )  # fmt: skip
    path = stored(tmp_path / "model.safetensors", model, own=True)
    x = image(1, 1, 23, 30, dtype=torch.float32)

    loaded = registry.get_model("openai-unet", image_shape=(1, 23, 30), checkpoint=str(path))

    assert loaded.architecture == model.architecture
    assert torch.equal(loaded.denoise(x, TIME), model.denoise(x, TIME))


def test_resolutions_in_our_file_are_those_it_was_trained_at(tmp_path):
    """A file that was written with them, like the flags of a training, has attention at the same levels at any size."""
    model = random_model(attention_resolutions=(3,), prediction="edm")
    params = SMALL | {"prediction": "edm", "attention_resolutions": (3,)}
    metadata = {"scoreplug": json.dumps({"model": {"name": "openai-unet", "params": params}})}
    write_checkpoint(tmp_path / "model.safetensors", model.module.state_dict(), metadata)

    larger = {"image_shape": (1, 48, 48), "checkpoint": str(tmp_path / "model.safetensors")}
    assert OpenAIUNet(**larger, **params).architecture["attention_levels"] == (2,)
    assert OpenAIUNet(**larger).architecture["attention_levels"] == (2,)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"num_res_blocks": 2}, "num_res_blocks: 2 is asked for, the file has 1"),
        ({"channel_mult": (1, 1)}, r"model_channels and channel_mult: \(32, \(1, 1\)\)"),
        ({"model_channels": 64}, r"model_channels and channel_mult: \(64, "),
        ({"attention_resolutions": (6,)}, r"attention_resolutions\): \(1,\) is asked for, the file has \(2,\)"),
        ({"attention_levels": ()}, r"attention_levels .*: \(\) is asked for, the file has \(2,\)"),
        ({"use_scale_shift_norm": False}, "use_scale_shift_norm: False is asked for, the file has True"),
        ({"resblock_updown": True}, "resblock_updown: True is asked for, the file has False"),
        ({"conv_resample": False}, "conv_resample: False is asked for, the file has True"),
        ({"learn_sigma": True}, "learn_sigma: True is asked for, the file has False"),
        ({"num_classes": 4, "label": 1}, "num_classes: 4 is asked for, the file has None"),
        ({"image_shape": (3, 12, 12)}, "network is for images of 1 channels in 2 dimensions"),
        ({"image_shape": (1, 12)}, "network is for images of 1 channels in 2 dimensions"),
        ({"preset": "ffhq_10m"}, "resblock_updown: True is asked for, the file has False"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_flag_that_contradicts_the_file_is_named(tmp_path, params, message):
    path = stored(tmp_path / "model.pt", random_model(attention_levels=(2,)))
    flags = {"image_shape": (1, 12, 12), "num_head_channels": 32} | params

    with pytest.raises(CheckpointError, match=message):
        OpenAIUNet(checkpoint=str(path), **flags)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"num_head_channels": 16}, "num_head_channels: 16 is asked for, the file has 32"),
        ({"use_new_attention_order": True}, "use_new_attention_order: True is asked for, the file has False"),
        ({"prediction": "epsilon"}, "prediction: 'epsilon' is asked for, the file has 'edm'"),
        ({"data_mean": 0.1}, r"data_mean: 0\.1 is asked for, the file has 0\.25"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_flag_that_contradicts_our_metadata_is_named(tmp_path, params, message):
    model = random_model(prediction="edm", data_mean=0.25)
    path = stored(tmp_path / "model.safetensors", model, own=True)

    with pytest.raises(CheckpointError, match=message):
        OpenAIUNet(image_shape=(1, 12, 12), checkpoint=str(path), **params)


def test_heads_are_never_guessed(tmp_path):
    """Their number leaves no trace in the tensors, and a wrong one changes every value without an error."""
    path = stored(tmp_path / "model.pt", random_model())

    with pytest.raises(ParameterError, match="does not tell the number of attention heads: give num_heads"):
        OpenAIUNet(image_shape=(1, 12, 12), checkpoint=str(path))


def test_heads_that_would_be_ignored_are_refused(tmp_path):
    path = stored(tmp_path / "model.safetensors", random_model(num_head_channels=32), own=True)

    with pytest.raises(ParameterError, match="num_heads would have no effect, as there are 32 channels per head"):
        OpenAIUNet(image_shape=(1, 12, 12), checkpoint=str(path), num_heads=4)


def test_missing_superfluous_and_reshaped_tensors_are_counted(tmp_path):
    state = dict(random_model().module.state_dict())
    del state["middle_block.1.norm.bias"]
    state["ema"] = torch.zeros(1)
    state["out.0.weight"] = torch.zeros(64)
    save_file(state, tmp_path / "model.safetensors")

    message = (
        r"1 missing, among them 'middle_block\.1\.norm\.bias'; 1 superfluous, among them 'ema'; "
        r"1 of another shape, among them 'out\.0\.weight'"
    )
    with pytest.raises(CheckpointError, match=message):
        OpenAIUNet(image_shape=(1, 12, 12), checkpoint=str(tmp_path / "model.safetensors"), num_heads=1)


def test_another_network_s_file_is_refused(tmp_path):
    save_file({"conv.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")

    with pytest.raises(
        CheckpointError, match=r"not a guided-diffusion UNet: .*\(its tensors begin with conv\.weight\)"
    ):
        OpenAIUNet(image_shape=(1, 12, 12), checkpoint=str(tmp_path / "other.safetensors"))


def test_another_model_s_file_is_refused(tmp_path):
    model = random_model()
    metadata = {"scoreplug": json.dumps({"model": {"name": "other-net", "params": {}}})}
    write_checkpoint(tmp_path / "model.safetensors", model.module.state_dict(), metadata)

    with pytest.raises(CheckpointError, match="holds the weights of another model, 'other-net'"):
        OpenAIUNet(image_shape=(1, 12, 12), checkpoint=str(tmp_path / "model.safetensors"))


def test_fresh_weights_follow_the_seed():
    first, same, other = (make(seed=seed).module.state_dict()["time_embed.0.weight"] for seed in (1, 1, 2))

    assert torch.equal(first, same)
    assert not torch.equal(first, other)
