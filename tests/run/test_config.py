"""The config: what a table may say, and that it says the same after a round trip."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreplug.run.config import ConfigError, demo, parse_problem, read, structure

MINIMAL = {
    "model": {"name": "gaussian", "image_shape": [1, 8, 8]},
    "operator": "identity",
    "conditioner": "dps",
    "sampler": {"name": "pc", "corrector": {"name": "langevin", "snr": 0.1}},
    "input": {"source": "ellipses", "noise_std": 0.1},
}


def with_input(**values):
    return {**MINIMAL, "input": values}


def problems_of(table):
    with pytest.raises(ConfigError) as caught:
        structure(table)
    return caught.value.problems


def test_the_demo_is_a_config():
    assert structure(demo()).model.name == "ellipses-64"


def test_a_bare_name_stands_for_a_table():
    assert structure(MINIMAL).operator == structure({**MINIMAL, "operator": {"name": "identity"}}).operator


def test_the_models_own_process_is_the_default():
    assert structure(MINIMAL).sde is None


values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    params=st.dictionaries(st.text(min_size=1, max_size=5).filter(lambda key: key != "name"), values, max_size=4),
    samples=st.integers(1, 10**7),
    seed=st.integers(0, 2**63 - 1),  # TOML's integers have 64 bits and a sign
    noise=st.floats(0, 1e300),
)
def test_toml_gives_back_the_config_that_it_was_written_from(params, samples, seed, noise):
    table = {
        **MINIMAL,
        "samples": samples,
        "seed": seed,
        "sde": {"name": "ve", **params},
        "input": {"image": "a b.png", "noise_std": noise, "data_range": [0, 255]},
    }
    config = structure(table)

    assert structure(tomllib.loads(config.to_toml())) == config


@pytest.mark.parametrize(
    "subject",
    [
        {"image": "x.nii.gz", "slice": 80, "axis": 2, "data_range": [0, 1200]},
        {"measurement": "f.h5", "key": "kspace", "slice": 0, "scale": 1e6},
    ],
    ids=["image", "measurement"],
)
def test_the_part_of_a_file_survives_a_round_trip(subject):
    config = structure(with_input(noise_std=0.1, **subject))

    table = tomllib.loads(config.to_toml())["input"]

    assert subject.items() <= table.items()
    assert structure(tomllib.loads(config.to_toml())) == config


def test_a_problem_leaves_out_what_does_not_change_a_sample():
    few, many = structure({**MINIMAL, "samples": 1, "batch": 2}), structure({**MINIMAL, "samples": 9, "seed": 5})

    assert few.problem == many.problem
    assert parse_problem(few.problem).sampler == few.sampler


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"smaples": 3}, "unknown key 'smaples'; did you mean 'samples'?"),
        ({"sampelr": "pc"}, "unknown key 'sampelr'; did you mean 'sampler'?"),
        ({"samples": "8"}, "samples must be int"),
        ({"samples": 1.0}, "samples must be int"),
        ({"samples": True}, "samples must be int"),
        ({"samples": 0}, "samples must be >= 1"),
        ({"seed": -1}, "seed must be >= 0"),
        ({"seed": 2**64}, "seed must be >= 0, <"),
        ({"model": 3}, r"[model] must be a table"),
        ({"model": {"image_shape": [1, 8, 8]}}, "[model] needs `name`"),
        ({"input": 3}, "[input] must be a table"),
        (
            {"input": {"sorce": "ellipses", "noise_std": 0.1}},
            "[input] unknown parameter 'sorce'; did you mean 'source'?",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_key_or_value_is_named(change, message):
    assert problems_of({**MINIMAL, **change})[0].startswith(message)


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ({"noise_std": 0.1}, "takes exactly one of source, image, measurement (got none)"),
        ({"source": "ellipses", "image": "x.npy", "noise_std": 0.1}, "exactly one of .* (got source and image)"),
        ({"source": "ellipses"}, "exactly one of noise_std, relative_noise (got none)"),
        ({"source": "ellipses", "noise_std": 0.1, "relative_noise": 0.1}, "(got noise_std and relative_noise)"),
        ({"measurement": "y.npy"}, "needs its noise_std"),
        ({"measurement": "y.npy", "noise_std": 0.1, "relative_noise": 0.1}, "for a simulated measurement"),
        ({"source": "ellipses", "noise_std": float("inf")}, "noise_std must be finite (got inf)"),
        ({"source": "ellipses", "noise_std": float("nan")}, "noise_std must not be NaN"),
        ({"source": "ellipses", "noise_std": -0.1}, "noise_std must be >= 0"),
        ({"source": "ellipses", "noise_std": 0.1, "data_range": [0, 1]}, "data_range belongs to an image file"),
        ({"image": "x.png", "noise_std": 0.1, "data_range": [1, 1]}, "low < high"),
        ({"source": "ellipses", "noise_std": 0.1, "slice": 2, "axis": 0}, "slice and axis belong to a file"),
        ({"source": "ellipses", "noise_std": 0.1, "key": "x"}, "key belong to a file"),
        ({"image": "x.nii", "noise_std": 0.1, "axis": 2}, "name one of them by slice"),
        ({"image": "x.nii", "noise_std": 0.1, "slice": -1}, "slice must be >= 0"),
        ({"image": "x.nii", "noise_std": 0.1, "scale": 2.0}, "scale belongs to a measurement file"),
        ({"measurement": "x.h5", "noise_std": 0.1, "scale": 0.0}, "scale must be > 0"),
        ({"measurement": "x.h5", "noise_std": 0.1, "scale": float("inf")}, "scale must be finite"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_an_input_that_contradicts_itself_is_refused(subject, message):
    found = problems_of(with_input(**subject))

    assert len(found) == 1
    head, _, tail = message.partition(".*")
    assert head.strip() in found[0]
    assert tail.strip() in found[0]


def test_all_problems_come_at_once():
    found = problems_of({"samples": 0, "batch": "many", "modle": "gaussian", "input": {"noise_std": 1}})

    for word in ("samples", "batch", "modle", "[model]", "[operator]", "[conditioner]", "[sampler]", "[input]"):
        assert any(word in problem for problem in found), word


def test_the_message_counts_the_problems_and_lists_them():
    with pytest.raises(ConfigError, match=r"2 problems:\n  - samples .*\n  - seed "):
        structure({**MINIMAL, "samples": 0, "seed": -1})


def test_a_file_that_is_not_toml_is_named(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("samples = \n")

    with pytest.raises(ConfigError, match=r"config\.toml' is not TOML"):
        read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.toml': No such file"):
        read(tmp_path / "nothing.toml")
