"""Training configs."""

from __future__ import annotations

import json

import pytest

from scoreplug.param import ParameterError
from scoreplug.training import TrainingConfig, open_training

GOOD = {"model": {"name": "openai-unet"}, "data": {"name": "ellipses"}, "optimiser": {"images": 10}}


def test_the_table_of_a_config_makes_it_again():
    config = TrainingConfig.from_table(GOOD | {"evaluation": {"levels": [0.1, 1.0]}})

    assert TrainingConfig.from_table(json.loads(json.dumps(config.table))) == config


def test_everything_that_is_wrong_is_said_at_once():
    table = {
        "modle": {"name": "openai-unet"},
        "data": {"size": 8},
        "levels": {"distribution": "log-normal", "low": -1.0},
        "optimiser": {"batch": 1.5, "rat": 1e-3},
    }

    with pytest.raises(ParameterError) as caught:
        TrainingConfig.from_table(table)

    expected = [
        "unknown table [modle]; did you mean [model]?",
        "[model] is required",
        "[data] needs a name (got None)",
        "[levels] distribution must be one of 'lognormal', 'loguniform', 'uniform-t' (got 'log-normal'); "
        "did you mean 'lognormal'?",
        "[levels] low must be > 0 (got -1.0)",
        "[optimiser] batch must be int (got 1.5)",
        "[optimiser] unknown parameter 'rat'; did you mean 'rate'?",
    ]
    assert list(caught.value.problems) == expected


def test_a_training_needs_a_length():
    with pytest.raises(ParameterError, match="needs images or minutes"):
        TrainingConfig.from_table(GOOD | {"optimiser": {}})


def test_levels_have_an_order():
    with pytest.raises(ParameterError, match=r"low must be below high \(got 1.0 and 0.5\)"):
        TrainingConfig.from_table(GOOD | {"levels": {"low": 1.0, "high": 0.5}})


def test_a_part_is_a_table():
    with pytest.raises(ParameterError, match=r"levels must be a table \(got 3\)"):
        TrainingConfig.from_table(GOOD | {"levels": 3})


def test_a_file_that_is_not_toml_is_named(tmp_path):
    (tmp_path / "bad.toml").write_text("[model\n")

    with pytest.raises(ParameterError, match=r"bad\.toml is not TOML"):
        TrainingConfig.read(tmp_path / "bad.toml")


def test_a_model_without_a_network_cannot_be_trained(tmp_path):
    config = TrainingConfig.from_table(GOOD | {"model": {"name": "gaussian"}})

    with pytest.raises(ParameterError, match="model 'gaussian' has no network to train; those that have: openai-unet"):
        open_training(config, tmp_path / "run")
