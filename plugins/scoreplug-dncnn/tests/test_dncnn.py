"""The port against SCICO itself, against the layers in numpy, and what the model states."""

import hashlib
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from skimage import data

from scoreplug import registry
from scoreplug.testing import parametrize_with_checks

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "src" / "scoreplug_dncnn" / "weights"
GOLDEN = json.loads((ROOT / "tests" / "golden.json").read_text())


def make(**params):
    return registry.get_model("dncnn", **{"image_shape": (1, 10, 12), **params})


def time_of(model, level):
    return model.sde.time_of(torch.tensor(level, dtype=torch.float64))


def image():
    i, j = np.meshgrid(np.arange(10), np.arange(12), indexing="ij")
    return 0.5 + 0.3 * np.sin(0.9 * i) * np.cos(0.5 * j) + 0.05 * np.sin(7.1 * i + 3.3 * j)


def by_hand(x, level, weights):
    """The network in numpy, float64: a convolution is nine shifted products, the shifts circular."""
    tensors = {k: v.astype(np.float64) for k, v in load_file(WEIGHTS / f"dncnn{weights}.safetensors").items()}
    depth = int(weights[:-1])
    h = np.stack([x, np.full_like(x, level)])
    for k in range(depth):
        W = tensors[f"layers.{k}.weight"]
        shifted = (
            np.tensordot(W[:, :, a, b], np.roll(h, (1 - a, 1 - b), (1, 2)), 1) for a in range(3) for b in range(3)
        )
        h = sum(shifted) + tensors.get(f"layers.{k}.bias", np.zeros(len(W)))[:, None, None]
        h = h if k == depth - 1 else np.maximum(h, 0)
    return x - h[0]


@parametrize_with_checks("dncnn")
def test_conforms(check, subject):
    check(subject)


@pytest.mark.parametrize("weights", ["6N", "17N"])
@pytest.mark.parametrize("level", [0.01, 0.05, 0.1])
def test_is_what_scico_computes(weights, level):
    """Golden values by SCICO; it computes in float32, and seventeen layers of 576 terms leave some 1e-6."""
    model = make(weights=weights)

    x0 = model.denoise(torch.from_numpy(image()).float()[None, None], time_of(model, level))[0, 0]

    expected = torch.tensor(GOLDEN["outputs"][f"{weights}-{level:g}"])
    torch.testing.assert_close(x0[:4, :5], expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("weights", ["6N", "17N"])
def test_is_the_network_written_out(weights):
    model = make(weights=weights, precision="float64")

    x0 = model.denoise(torch.from_numpy(image())[None, None], time_of(model, 0.07))[0, 0]

    np.testing.assert_allclose(x0.numpy(), by_hand(image(), 0.07, weights), rtol=0, atol=1e-10)


def test_shifts_with_the_image():
    """Circular convolutions know no edges."""
    model = make(precision="float64")
    x = torch.from_numpy(image())[None, None]
    t = time_of(model, 0.05)

    torch.testing.assert_close(model.denoise(x.roll((3, 5), (2, 3)), t), model.denoise(x, t).roll((3, 5), (2, 3)))


def test_channels_and_samples_are_denoised_one_by_one_each_at_its_level():
    grey, colour = make(precision="float64"), make(image_shape=(3, 10, 12), precision="float64")
    x = torch.rand(2, 3, 10, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.stack([time_of(grey, 0.02), time_of(grey, 0.09)])

    found = colour.denoise(x, t)

    for i in range(2):
        expected = grey.denoise(x[i][:, None], t[i])[:, 0]
        torch.testing.assert_close(found[i], expected, rtol=1e-10, atol=1e-12)


def test_under_another_process_it_is_the_same_denoiser():
    """x_t = alpha x_0 + sigma z at the same sigma / alpha."""
    ve, vp = make(precision="float64"), make(precision="float64", sde="vp")
    x = torch.from_numpy(image())[None, None]
    t = vp.sde.time_of(torch.tensor(0.05, dtype=torch.float64))

    torch.testing.assert_close(vp.denoise(vp.sde.alpha(t) * x, t), ve.denoise(x, time_of(ve, 0.05)))


@pytest.mark.parametrize("weights", ["6N", "17N"])
@pytest.mark.parametrize("level", [0.02, 0.1])
def test_denoises_as_its_card_says(weights, level):
    """One of the six crops that the curve is the mean of; their errors differ by a factor of 1.5 either way."""
    model = make(image_shape=(1, 128, 128), weights=weights)
    x = torch.from_numpy(data.camera()[150:278, 150:278] / 255).float()[None, None]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    t = time_of(model, level)

    error = float((model.denoise(x + level * noise, t) - x).square().mean().sqrt())

    assert 1 / 1.6 < error / float(model.spread(t)) < 1.6
    assert error < 0.75 * level


def test_its_default_levels_are_within_its_range():
    model = make()
    low, high = model.level_range
    ends = model.sde.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()

    assert (low, high) == pytest.approx((0.005 / 1.02, 0.102))
    assert low < ends[0] < ends[1] < high
    assert model.data_range == (0.0, 1.0)


def test_a_process_beyond_its_range_is_warned_of():
    from scoreplug.sampler import LevelRangeWarning

    with pytest.warns(LevelRangeWarning, match=r"made for noise levels 0\.0049.* to 0\.102"):
        registry.get_sampler("em", steps=2).sample(make(sde={"name": "ve", "sigma_min": 0.01, "sigma_max": 0.5}), 1)


def test_the_file_tells_where_it_is_from():
    card = make().card

    assert card["source"] == "SCICO 0.0.7, scico/data/flax/dncnn6N.mpk"
    assert card["licence_text"] == (WEIGHTS / "LICENSE-scico").read_text()
    assert card["licence_text"].startswith("BSD 3-Clause License")
    curve = json.loads((ROOT / "benchmarks" / "curve.json").read_text())["curves"]
    assert card["curve"] == curve["6N"]


def test_conversion_folds_the_normalisation():
    """W x normalised, scaled and shifted is W' x + b'."""
    pytest.importorskip("msgpack")
    spec = importlib.util.spec_from_file_location("convert", ROOT / "tools" / "convert.py")
    convert = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(convert)
    draws = np.random.default_rng(0)
    kernel, scale, bias, mean = draws.normal(size=(3, 3, 4, 5)), *draws.normal(size=(3, 5))
    var = draws.random(5) + 0.1
    tree = {
        "params": {
            "conv_start": {"kernel": draws.normal(size=(3, 3, 2, 4))},
            "conv_end": {"kernel": draws.normal(size=(3, 3, 5, 2))},
            "ConvBNBlock_0": {"Conv_0": {"kernel": kernel}, "BatchNorm_0": {"scale": scale, "bias": bias}},
        },
        "batch_stats": {"ConvBNBlock_0": {"BatchNorm_0": {"mean": mean, "var": var}}},
    }
    patch = draws.normal(size=(3, 3, 4))

    found = convert.folded(tree, 3)

    expected = (np.einsum("abio,abi->o", kernel, patch) - mean) / np.sqrt(var + 1e-5) * scale + bias
    result = np.einsum("oiab,abi->o", found["layers.1.weight"], patch) + found["layers.1.bias"]
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)  # stored in single precision
    assert found["layers.2.weight"].shape == (1, 5, 3, 3)


def test_unknown_weights_are_refused():
    with pytest.raises(ValueError, match="weights must be one of '6N', '17N'"):
        make(weights="6M")


@pytest.mark.parametrize("weights", ["6N", "17N"])
def test_the_shipped_files_are_those_that_were_converted(weights):
    """Their tensors, by a checksum taken where they were compared with the wheel's."""
    digest = hashlib.sha256()
    for name, value in sorted(load_file(WEIGHTS / f"dncnn{weights}.safetensors").items()):
        digest.update(name.encode() + value.tobytes())

    assert digest.hexdigest()[:16] == {"6N": "860d441e2baf26d9", "17N": "e6acbb86029c30f3"}[weights]
    assert math.prod(load_file(WEIGHTS / f"dncnn{weights}.safetensors")["layers.0.weight"].shape) == 64 * 2 * 9
