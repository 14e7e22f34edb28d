"""`scoreplug train`, from a config to weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from scoreplug import registry
from scoreplug.checkpoint import load_state_dict, read_model_config
from scoreplug.training import LOG, STATE, WEIGHTS

# Without a level below the first, this is about the smallest network that the UNet allows.
CONFIG = """
[model]
name = "openai-unet"
image_shape = [1, 8, 8]
model_channels = 32
channel_mult = [1]
num_res_blocks = 1
attention_levels = []
num_head_channels = 32
prediction = "edm"
data_mean = 0.5
data_std = 0.3
dropout = 0.1

[data]
name = "folder"
path = "{path}"
data_range = [0.0, 1.0]
licence = "CC0"

[levels]
high = 20.0
data_std = 0.3

[optimiser]
images = 48
batch = 4
warmup_images = 8

[evaluation]
images = 2
levels = [0.1, 1.0]

[output]
title = "noise"
log_seconds = 1e-9
checkpoint_seconds = 0.1
"""


@pytest.fixture
def config(tmp_path):
    np.save(tmp_path / "stack.npy", np.random.default_rng(0).random((12, 8, 8), dtype=np.float32))
    path = tmp_path / "tiny.toml"
    path.write_text(CONFIG.format(path=(tmp_path / "stack.npy").as_posix()))
    return path


def test_a_config_becomes_weights_that_the_registry_opens(scoreplug, config, tmp_path):
    out = tmp_path / "out"

    result = scoreplug("train", str(config), "--out", str(out))

    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(out / WEIGHTS)
    assert "48 images" in result.stderr
    name, params = read_model_config(out / WEIGHTS)
    model = registry.get_model(name, **params, checkpoint=str(out / WEIGHTS))
    x = torch.zeros(1, 1, 8, 8)
    # a fresh network returns 0, which makes the denoised estimate c_skip x; these weights have left that point
    fresh = registry.get_model(name, **params)
    t = torch.tensor(0.3, dtype=torch.float64)
    assert not torch.equal(model.denoise(x, t), fresh.denoise(x, t))


def test_the_log_has_one_json_object_per_line(scoreplug, config, tmp_path):
    scoreplug("train", str(config), "--out", str(tmp_path / "out"))

    lines = [json.loads(line) for line in (tmp_path / "out" / LOG).read_text().splitlines()]

    assert [line["images"] for line in lines if "loss" in line] == list(range(4, 49, 4))
    assert [line["images"] for line in lines if "curve" in line] == [0, 48]
    assert lines[-1]["progress"] == 1.0


def test_values_of_the_config_can_be_set(scoreplug, config, tmp_path):
    result = scoreplug("train", str(config), "--out", str(tmp_path / "out"), "--set", "optimiser.images=8")

    assert result.exit_code == 0, result.stderr
    assert torch.load(tmp_path / "out" / STATE, weights_only=True)["images"] == 8


def test_the_length_in_time_can_be_given(scoreplug, config, tmp_path):
    result = scoreplug("train", str(config), "--out", str(tmp_path / "out"), "--minutes", "1e-9")

    assert result.exit_code == 0, result.stderr
    assert torch.load(tmp_path / "out" / STATE, weights_only=True)["images"] == 4


def test_a_finished_training_can_be_given_again(scoreplug, config, tmp_path):
    scoreplug("train", str(config), "--out", str(tmp_path / "out"))
    before, _ = load_state_dict(tmp_path / "out" / WEIGHTS)

    result = scoreplug("train", str(config), "--out", str(tmp_path / "out"))
    after, _ = load_state_dict(tmp_path / "out" / WEIGHTS)

    lines = [json.loads(line) for line in (tmp_path / "out" / LOG).read_text().splitlines()]

    assert "resumed after 48 images" in result.stderr
    assert [line["images"] for line in lines if "curve" in line] == [0, 48]
    assert all(torch.equal(before[name], after[name]) for name in before)


def start(*arguments: str, out: Path) -> subprocess.Popen[str]:
    """`scoreplug train` in a process of its own, with its first checkpoint written."""
    command = (sys.executable, "-c", "from scoreplug.cli import main; main()", "train", *arguments, "--out", str(out))
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    while not (out / STATE).exists() and process.poll() is None:
        time.sleep(0.01)
    return process


def test_a_killed_training_goes_on_as_if_nothing_had_happened(scoreplug, config, tmp_path):
    """The weights are those of an undisturbed run, bit for bit; dropout, epochs and half an epoch included."""
    arguments = (str(config), "--set", "optimiser.images=120")
    scoreplug("train", *arguments, "--out", str(tmp_path / "whole"), "--set", "output.checkpoint_seconds=1e9")
    expected, _ = load_state_dict(tmp_path / "whole" / WEIGHTS)

    process = start(*arguments, out=tmp_path / "killed")
    process.kill()
    _, errors = process.communicate()
    reached = torch.load(tmp_path / "killed" / STATE, weights_only=True)["images"]
    assert 0 < reached < 120, errors
    result = scoreplug("train", *arguments, "--out", str(tmp_path / "killed"))

    assert f"resumed after {reached} images" in result.stderr
    weights, _ = load_state_dict(tmp_path / "killed" / WEIGHTS)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(config, tmp_path):
    out = tmp_path / "out"

    process = start(str(config), "--set", "optimiser.images=1000000", out=out)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()

    assert process.returncode == 130
    reached = torch.load(out / STATE, weights_only=True)["images"]
    assert f"stopped after {reached} images; the same command goes on from {out}" in errors


def test_another_config_in_the_same_folder_is_refused_unless_asked_to_start_anew(scoreplug, config, tmp_path):
    out = str(tmp_path / "out")
    scoreplug("train", str(config), "--out", out)

    refused = scoreplug("train", str(config), "--out", out, "--set", "optimiser.seed=1")
    anew = scoreplug("train", str(config), "--out", out, "--set", "optimiser.seed=1", "--no-resume")

    assert refused.exit_code == 1
    assert "[optimiser] seed was 0, is 1" in refused.stderr
    assert anew.exit_code == 0
    assert "resumed" not in anew.stderr
    lines = [json.loads(line)["images"] for line in (tmp_path / "out" / LOG).read_text().splitlines()]
    assert lines[0] == 0
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optimiser.rat=1", "unknown parameter 'rat'; did you mean 'rate'?"),
        ("levels.high=1000.0", "high must be at most 152.2"),
        ("data.name=foldr", "no image source 'foldr'; did you mean 'folder'?"),
        ("data.path=nowhere", "there is no folder or file 'nowhere'"),
        ("data.crop=4", "the images are (1, 4, 4) and the model is for (1, 8, 8)"),
        ("model.name=gaussian", "model 'gaussian' has no network to train"),
        ("model.model_channels=33", "33"),
        ("optimiser", "--set takes"),
    ],
    ids=lambda value: value.split("=")[0] if "." in value.split(" ")[0] else None,
)
def test_what_is_wrong_is_said_in_one_line(scoreplug, config, tmp_path, assignment, message):
    result = scoreplug("train", str(config), "--out", str(tmp_path / "out"), "--set", assignment)

    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_config_that_is_not_toml_is_named(scoreplug, tmp_path):
    (tmp_path / "bad.toml").write_text("[model")

    result = scoreplug("train", str(tmp_path / "bad.toml"))

    assert result.exit_code == 2
    assert "bad.toml is not TOML" in result.stderr


def test_help_imports_no_torch():
    code = "import sys; from scoreplug.cli.train import command; assert 'torch' not in sys.modules, 'torch'"

    assert subprocess.run((sys.executable, "-c", code), check=False).returncode == 0
