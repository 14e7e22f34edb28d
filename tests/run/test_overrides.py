"""Layers of a config: which one wins, and what it drops."""

import pytest

from scoreplug.run.config import ConfigError, demo, structure
from scoreplug.run.overrides import layered, overridden, parse_assignment


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sampler.steps=100", 100),
        ("sampler.steps = 100", 100),
        ("sampler.rho=7.0", 7.0),
        ("sampler.rho=1e-3", 1e-3),
        ("sampler.flag=true", True),
        ("sampler.flag=True", "True"),
        ("sampler.grid=rho", "rho"),
        ("sampler.grid='rho'", "rho"),
        ('sampler.grid="a # b"', "a # b"),
        ("operator.angles=[0.0, 90.0]", [0.0, 90.0]),
        ("operator.mask=my masks/a=b.npy", "my masks/a=b.npy"),
        ("model.name=2020-01-01", "2020-01-01"),
    ],
)
def test_values_are_toml_literals_and_bare_words_are_strings(text, value):
    path, found = parse_assignment(text)

    assert found == value
    assert type(found) is type(value)
    assert path == tuple(text.partition("=")[0].strip().split("."))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps", "takes role.key=value"),
        ("=3", "takes role.key=value"),
        ("sampler..steps=3", "takes role.key=value"),
        ("sampler.steps=", "one line of printable text"),
        ("sampler.steps=3\nseed=4", "one line of printable text"),
        ("sampler.steps=3 # or 4", "would begin a comment"),
        ("sampler.grid=a#b", "would begin a comment"),
        ("operator.angles=[1, 2", "is not a TOML value"),
        ("operator.mask='a", "is not a TOML value"),
        ("operator.box={a = 1", "is not a TOML value"),
    ],
)
def test_what_is_no_assignment_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_assignment(text)


def test_one_assignment_cannot_smuggle_in_another():
    """A value is parsed by itself, so whatever TOML makes of it ends up under the one key."""
    path, value = parse_assignment("sampler.grid=x', seed='3")

    assert (path, value) == (("sampler", "grid"), "x', seed='3")


def test_naming_another_component_drops_the_parameters_of_the_one_before():
    table = overridden(demo(), [(("operator", "name"), "inpainting")])

    assert table["operator"] == {"name": "inpainting"}


def test_naming_the_same_component_keeps_its_parameters():
    assert overridden(demo(), [(("operator", "name"), "radon")])["operator"] == {"name": "radon", "angles": 30}


def test_set_reaches_the_component_named_on_the_same_line_in_any_order():
    assignments = [(("operator", "mask"), "random"), (("operator", "name"), "inpainting")]

    assert overridden(demo(), assignments)["operator"] == {"name": "inpainting", "mask": "random"}


def test_a_nested_key_makes_tables_and_keeps_the_name_that_was_there():
    table = {"sampler": {"name": "pc", "corrector": "mala"}}

    found = overridden(table, [(("sampler", "corrector", "snr"), 0.1), (("sampler", "predictor", "steps"), 3)])

    assert found["sampler"]["corrector"] == {"name": "mala", "snr": 0.1}
    assert found["sampler"]["predictor"] == {"steps": 3}


def test_a_component_given_by_its_name_alone_takes_parameters():
    assert overridden({"sampler": "pc"}, [(("sampler", "steps"), 3)])["sampler"] == {"name": "pc", "steps": 3}


def test_an_image_replaces_the_demos_phantom_and_keeps_its_noise():
    subject = overridden(demo(), [(("input", "image"), "x.npy")])["input"]

    assert subject == {"image": "x.npy", "relative_noise": 0.02}


def test_a_measurement_replaces_image_and_relative_noise():
    assignments = [(("input", "measurement"), "y.npy"), (("input", "noise_std"), 0.1)]

    assert overridden(demo(), assignments)["input"] == {"measurement": "y.npy", "noise_std": 0.1}


def test_an_image_and_a_measurement_on_one_line_contradict_each_other():
    table = overridden(demo(), [(("input", "image"), "x.npy"), (("input", "measurement"), "y.npy")])

    with pytest.raises(ConfigError, match="got image and measurement"):
        structure(table)


def test_a_table_of_a_file_replaces_the_demos_table_as_a_whole():
    table = layered(demo(), {"operator": {"name": "radon"}, "samples": 2})

    assert table["operator"] == {"name": "radon"}
    assert table["samples"] == 2
    assert table["sampler"] == demo()["sampler"]


def test_another_model_runs_under_its_own_process():
    """The demo's [sde] is its prior's; a file that names a model and no process means the model's."""
    assert "sde" not in layered(demo(), {"model": {"name": "digits-32"}})
    assert layered(demo(), {"model": {"name": "digits-32"}, "sde": {"name": "edm"}})["sde"] == {"name": "edm"}
    assert layered(demo(), {"samples": 2})["sde"] == demo()["sde"]


def test_layers_are_not_modified():
    base, file = demo(), {"sampler": {"name": "em"}}

    overridden(layered(base, file), [(("sampler", "steps"), 3), (("input", "image"), "x"), (("model", "a"), 1)])

    assert base == demo()
    assert file == {"sampler": {"name": "em"}}
