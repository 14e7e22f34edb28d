"""Reading images and measurements: exactly what the file says, or a reason."""

import numpy as np
import pytest
import torch
from skimage.io import imsave

from scoreplug import registry
from scoreplug.run.config import ConfigError, InputConfig
from scoreplug.run.inputs import read_subject

GRAY = np.arange(64, dtype=np.float64).reshape(8, 8) / 63


def model(channels=1):
    return registry.get_model("gaussian", image_shape=(channels, 8, 8))


def identity(channels=1):
    return registry.get_operator("identity", image_shape=(channels, 8, 8))


def read(channels=1, operator=None, **config):
    return read_subject(InputConfig(**{"noise_std": 0.1, **config}), model(channels), operator or identity(channels))


def saved(path, array):
    np.save(path, array)
    return str(path)


@pytest.mark.parametrize("array", [GRAY, GRAY[None], GRAY.astype(np.float32)], ids=["2-d", "3-d", "float32"])
def test_an_array_is_taken_as_it_is(tmp_path, array):
    truth = read(image=saved(tmp_path / "x.npy", array)).truth

    assert truth.dtype == torch.float64
    np.testing.assert_array_equal(truth.numpy(), array.reshape(1, 8, 8).astype(np.float64))


def test_without_a_declared_range_psnr_takes_that_of_the_image(tmp_path):
    subject = read(image=saved(tmp_path / "x.npy", 2 * GRAY - 1))

    assert subject.data_range == (-1.0, 1.0)
    assert subject.range_origin == "truth"


def test_an_eight_bit_picture_needs_a_declared_range(tmp_path):
    imsave(tmp_path / "x.png", np.arange(64, dtype=np.uint8).reshape(8, 8), check_contrast=False)

    with pytest.raises(ConfigError, match=r"uint8 values from 0 to 63.*data_range = \[low, high\]"):
        read(image=str(tmp_path / "x.png"))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("kind", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_a_declared_range_maps_to_the_models_units(tmp_path, suffix, kind, top):
    path = tmp_path / f"x.{suffix}"
    values = (np.arange(64).reshape(8, 8) * (top // 63)).astype(kind)
    imsave(path, values, check_contrast=False)

    truth = read(image=str(path), data_range=(0, top)).truth

    np.testing.assert_allclose(truth[0].numpy(), values / top, rtol=1e-15)  # one division


def test_a_colour_picture_fits_a_colour_model(tmp_path):
    values = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    imsave(tmp_path / "x.png", values)

    truth = read(3, image=str(tmp_path / "x.png"), data_range=(0, 255)).truth

    np.testing.assert_allclose(truth.numpy(), np.moveaxis(values, -1, 0) / 255, rtol=1e-15)


def test_a_colour_picture_is_not_made_gray(tmp_path):
    imsave(tmp_path / "x.png", np.arange(192, dtype=np.uint8).reshape(8, 8, 3))

    with pytest.raises(ConfigError, match=r"shape \(3, 8, 8\), and the model takes \(1, 8, 8\)"):
        read(image=str(tmp_path / "x.png"), data_range=(0, 255))


def test_a_complex_image_becomes_two_channels(tmp_path):
    truth = read(2, image=saved(tmp_path / "x.npy", GRAY + 2j * GRAY)).truth

    np.testing.assert_array_equal(truth.numpy(), np.stack([GRAY, 2 * GRAY]))


@pytest.mark.parametrize("shape", [(9, 8), (1, 8, 9), (8, 8, 1), (2, 8, 8), (64,)])
def test_another_size_is_not_resized(tmp_path, shape):
    with pytest.raises(ConfigError) as caught:
        read(image=saved(tmp_path / "x.npy", np.zeros(shape)))

    assert f"has shape {shape}, and the model takes (1, 8, 8)" in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("key", ["image", "measurement"])
def test_values_that_are_not_finite_are_refused(tmp_path, key, bad):
    array = GRAY.copy()
    array[2, 3] = bad

    with pytest.raises(ConfigError, match=rf"{key} '.*x.npy' has 1 values that are NaN or infinite"):
        read(**{key: saved(tmp_path / "x.npy", array)})


def test_the_only_array_of_an_archive_is_meant(tmp_path):
    np.savez(tmp_path / "x.npz", whatever=GRAY)

    np.testing.assert_array_equal(read(image=str(tmp_path / "x.npz")).truth[0].numpy(), GRAY)


@pytest.mark.parametrize(("key", "name"), [("image", "x"), ("measurement", "y")])
def test_of_several_arrays_the_one_with_the_known_name_is_meant(tmp_path, key, name):
    np.savez(tmp_path / "a.npz", **{name: GRAY, "other": GRAY + 1})

    subject = read(**{key: str(tmp_path / "a.npz")})

    found = subject.truth if key == "image" else subject.measurement.data
    np.testing.assert_array_equal(found[0].numpy(), GRAY)


def test_of_several_arrays_none_is_guessed(tmp_path):
    np.savez(tmp_path / "a.npz", a=GRAY, b=GRAY)

    with pytest.raises(ConfigError, match="holds the arrays a, b; name the one that is meant 'x'"):
        read(image=str(tmp_path / "a.npz"))


def cut(path, array):
    np.save(path, array)
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.npy", lambda path: path.write_bytes(b"")),
        ("x.npy", lambda path: path.write_bytes(b"text")),
        ("x.npy", lambda path: cut(path, GRAY)),
        ("x.npz", lambda path: path.write_bytes(b"PK\x03\x04")),
        ("x.png", lambda path: path.write_bytes(b"text")),
        ("x.tif", lambda path: path.write_bytes(b"II*\x00")),
        ("x.npy", lambda path: np.save(path, np.array([print], dtype=object), allow_pickle=True)),
    ],
    ids=["empty", "text", "cut", "half an archive", "no png", "half a tif", "code"],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, write):
    write(tmp_path / name)

    with pytest.raises(ConfigError, match=f"cannot read '.*{name}'"):
        read(image=str(tmp_path / name))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file '.*x.npy'"):
        read(image=str(tmp_path / "x.npy"))


def test_words_are_not_numbers(tmp_path):
    with pytest.raises(ConfigError, match="not numbers"):
        read(image=saved(tmp_path / "x.npy", np.full((8, 8), "a")))


def test_a_measurement_has_no_truth(tmp_path):
    subject = read(measurement=saved(tmp_path / "y.npy", GRAY))

    assert subject.truth is None
    assert subject.data_range is None
    assert subject.measurement.noise_std == 0.1
    np.testing.assert_array_equal(subject.measurement.data[0].numpy(), GRAY)


def test_complex_data_takes_the_operators_real_layout(tmp_path):
    operator = registry.get_operator("fourier", image_shape=(1, 8, 8), acceleration=2.0)
    y = np.random.default_rng(0).standard_normal((*operator.output_shape[1:], 2)) @ [1, 1j]

    data = read(operator=operator, measurement=saved(tmp_path / "y.npy", y)).measurement.data

    np.testing.assert_array_equal(data.numpy(), np.stack([y.real, y.imag]))


@pytest.mark.parametrize("kind", [float, complex])
def test_a_measurement_of_another_shape_names_both(tmp_path, kind):
    with pytest.raises(ConfigError, match=r"has shape \(4, 4\).*, and the operator gives \(1, 8, 8\)"):
        read(measurement=saved(tmp_path / "y.npy", np.zeros((4, 4), dtype=kind)))


def test_relative_noise_is_in_units_of_the_measurement():
    """rms of 2 x is twice that of x."""
    config = InputConfig(source="ellipses", relative_noise=0.5)
    double = registry.get_operator("matrix", image_shape=(1, 8, 8), matrix=2 * torch.eye(64, dtype=torch.float64))

    once, twice = (read_subject(config, model(), operator) for operator in (identity(), double))

    rms = float(once.truth.square().mean().sqrt())
    assert once.measurement.noise_std == pytest.approx(0.5 * rms, rel=1e-12)
    assert twice.measurement.noise_std == pytest.approx(rms, rel=1e-12)


def test_a_source_gives_its_held_out_images():
    from scoreplug.data import open_source

    source = open_source("ellipses", size=8)

    truth = read(source="ellipses", index=3).truth.numpy()

    np.testing.assert_array_equal(truth, source.held_out.batch([3])[0])
    assert np.abs(truth - source.batch([3])[0]).max() > 0


def test_the_noise_of_the_measurement_has_its_own_seed():
    first, same, other = (read(source="ellipses", seed=seed).measurement.data for seed in (0, 0, 1))

    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_models_range_is_used_where_it_declares_one(tmp_path):
    import attrs

    from scoreplug.model import BaseModel

    @attrs.frozen
    class Symmetric(BaseModel):
        shape: tuple = (1, 8, 8)
        dtype: torch.dtype = torch.float32
        device: torch.device = attrs.field(factory=lambda: torch.device("cpu"))
        data_range: tuple = (-1.0, 1.0)

    config = InputConfig(image=saved(tmp_path / "x.npy", 255 * GRAY), noise_std=0.1, data_range=(0, 255))

    subject = read_subject(config, Symmetric(), identity())

    assert subject.data_range == (-1.0, 1.0)
    assert subject.range_origin == "model"
    assert subject.truth.dtype == subject.measurement.data.dtype == torch.float32
    np.testing.assert_allclose(subject.truth[0].numpy(), 2 * GRAY - 1, atol=1e-7)  # float32
