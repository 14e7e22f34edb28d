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


@pytest.mark.parametrize(("kind", "low", "high"), [(np.uint8, 32, 300), (np.int16, -32000, 40000)])
def test_integers_below_the_low_end_do_not_wrap_around(tmp_path, kind, low, high):
    values = np.arange(64).reshape(8, 8).astype(kind)

    truth = read(image=saved(tmp_path / "x.npy", values), data_range=(low, high)).truth

    np.testing.assert_allclose(truth[0].numpy(), (np.arange(64.0).reshape(8, 8) - low) / (high - low), rtol=1e-14)


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

    with pytest.raises(ConfigError, match=r"holds a, b; say which array is meant by input\.key"):
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


def fastmri(path, image, maps, mask=None):
    """A file in fastMRI's layout: k-space (slices, coils, H, W) with its origin in the centre, orthonormal."""
    import h5py

    # numpy's own words for a centred, orthonormal transform, as fastMRI's fft2c has it
    axes = (-2, -1)
    seen = np.fft.ifftshift(maps * image[:, None], axes=axes)
    kspace = np.fft.fftshift(np.fft.fft2(seen, norm="ortho", axes=axes), axes=axes)
    kspace = kspace if mask is None else kspace * mask
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace.astype(np.complex64)
        file["reconstruction_rss"] = np.abs(image).astype(np.float32)
        file["ismrmrd_header"] = "<xml/>"
    return str(path)


SLICES = np.random.default_rng(1).standard_normal((3, 8, 6, 2)) @ [1, 1j]
MAPS = np.random.default_rng(2).standard_normal((4, 8, 6, 2)) @ [1, 1j]


def coils(tmp_path, **params):
    np.save(tmp_path / "maps.npy", np.stack([MAPS.real, MAPS.imag]))
    settings = {"image": "complex", "maps": str(tmp_path / "maps.npy"), **params}
    return registry.get_operator("multi-coil-fourier", image_shape=(2, 8, 6), **settings)


def complex_model():
    return registry.get_model("gaussian", image_shape=(2, 8, 6))


def test_a_slice_of_fastmri_is_what_the_coils_measure_of_the_image(tmp_path):
    """The operator's transform is fastMRI's: centred and orthonormal. complex64 keeps seven digits."""
    operator = coils(tmp_path, acceleration=2.0)
    config = InputConfig(measurement=fastmri(tmp_path / "f.h5", SLICES, MAPS), slice=1, noise_std=0.1)

    subject = read_subject(config, complex_model(), operator)

    x = torch.from_numpy(np.stack([SLICES[1].real, SLICES[1].imag]))[None]
    assert 0 < operator.output_shape[2] < 48  # k-space is whole in the file, and the mask takes a part
    np.testing.assert_allclose(subject.measurement.data.numpy(), operator(x)[0].numpy(), atol=1e-6 * 20)
    assert subject.facts == {"array": "kspace"}


def test_a_single_coil_has_no_axis_of_its_own(tmp_path):
    import h5py

    operator = registry.get_operator("fourier", image_shape=(2, 8, 6), image="complex", acceleration=2.0)
    fastmri(tmp_path / "f.h5", SLICES, np.ones((1, 8, 6)))
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        kspace = file["kspace"][:, 0]
        del file["kspace"]
        file["kspace"] = kspace
    config = InputConfig(measurement=str(tmp_path / "f.h5"), slice=2, noise_std=0.1)

    data = read_subject(config, complex_model(), operator).measurement.data

    x = torch.from_numpy(np.stack([SLICES[2].real, SLICES[2].imag]))[None]
    np.testing.assert_allclose(data.numpy(), operator(x)[0].numpy(), atol=1e-6 * 20)


@pytest.mark.parametrize(("lines", "shape"), [("columns", (1, 6)), ("rows", (8, 1))])
def test_zeros_that_the_mask_counts_as_measured_are_refused(tmp_path, lines, shape):
    """fastMRI's test files have zeros where nothing was measured; taken as data they would be believed."""
    mask = np.ones(shape)
    mask.flat[2] = 0
    path = fastmri(tmp_path / "f.h5", SLICES, MAPS, mask)
    config = InputConfig(measurement=path, slice=1, noise_std=0.1)
    np.save(tmp_path / "mask.npy", np.broadcast_to(mask, (8, 6)))

    with pytest.raises(ConfigError, match=rf"zeros in 1 {lines} of k-space .* number 2; give the mask .*operator.mask"):
        read_subject(config, complex_model(), coils(tmp_path, acceleration=1.0))
    operator = coils(tmp_path, mask=str(tmp_path / "mask.npy"))
    assert read_subject(config, complex_model(), operator).measurement.data.shape == operator.output_shape


def test_zeros_matter_where_the_mask_measures_part_of_a_column(tmp_path):
    measured, present = np.ones((8, 6)), np.ones((8, 6))
    measured[4:, 2], present[:4, 2] = 0, 0
    path = fastmri(tmp_path / "f.h5", SLICES, MAPS, present)
    np.save(tmp_path / "mask.npy", measured)
    config = InputConfig(measurement=path, slice=1, noise_std=0.1)

    with pytest.raises(ConfigError, match="zeros in 1 columns of k-space"):
        read_subject(config, complex_model(), coils(tmp_path, mask=str(tmp_path / "mask.npy")))


def test_a_volume_of_k_space_asks_for_its_slice(tmp_path):
    config = InputConfig(measurement=fastmri(tmp_path / "f.h5", SLICES, MAPS), noise_std=0.1)

    with pytest.raises(ConfigError, match=r"has shape \(3, 4, 8, 6\) complex.*; one slice .* by input\.slice"):
        read_subject(config, complex_model(), coils(tmp_path))


def test_the_scale_takes_a_measurement_and_its_noise_to_the_models_units(tmp_path):
    path = saved(tmp_path / "y.npy", GRAY * 1e-6)

    measurement = read(measurement=path, noise_std=1e-8, scale=1e6).measurement

    np.testing.assert_allclose(measurement.data[0].numpy(), GRAY, rtol=1e-15)  # two multiplications
    assert measurement.noise_std == pytest.approx(0.01, rel=1e-15)


def test_the_image_of_a_fastmri_file_is_its_reconstruction(tmp_path):
    fastmri(tmp_path / "f.h5", SLICES[:, :6, :6], MAPS[:, :6, :6])
    config = InputConfig(image=str(tmp_path / "f.h5"), slice=2, noise_std=0.1)

    subject = read_subject(
        config,
        registry.get_model("gaussian", image_shape=(1, 6, 6)),
        registry.get_operator("identity", image_shape=(1, 6, 6)),
    )

    np.testing.assert_array_equal(subject.truth[0].numpy(), np.abs(SLICES[2, :6, :6]).astype(np.float32))


def test_a_key_names_the_array(tmp_path):
    np.savez(tmp_path / "a.npz", x=GRAY, other=GRAY + 1)

    np.testing.assert_array_equal(read(image=str(tmp_path / "a.npz"), key="other").truth[0].numpy(), GRAY + 1)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_slice_of_nifti_with_a_declared_range(tmp_path, suffix):
    import nibabel

    volume = np.random.default_rng(0).integers(0, 1000, (8, 5, 8)).astype(np.int16)
    path = str(tmp_path / f"x.{suffix}")
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([2.0, 2.0, 3.0, 1.0])), path)

    subject = read(image=path, slice=3, axis=1, data_range=(0, 1000))

    np.testing.assert_allclose(subject.truth[0].numpy(), volume[:, 3] / 1000, rtol=1e-15)
    assert subject.facts["affine"][2] == [0.0, 0.0, 3.0, 0.0]
    with pytest.raises(ConfigError, match=r"int16 values from .*, which have no unit; .*input\.data_range"):
        read(image=path, slice=3, axis=1)
    with pytest.raises(
        ConfigError, match=r"volume \(8, 5, 8\); say which slice by input\.slice, and its axis by input"
    ):
        read(image=path)


def ct(channels=1):
    return registry.get_model("gaussian", image_shape=(channels, 128, 128))


def test_a_folder_of_dicom_is_a_series_in_hounsfield_units(tmp_path):
    import pydicom

    path = pydicom.data.get_testdata_file("CT_small.dcm", download=False)
    ds = pydicom.dcmread(path)
    expected = (ds.pixel_array.astype(float) - 1024 + 1024) / 4095
    for number, name in ((1, "b.dcm"), (0, "a.dcm"), (2, "c.dcm")):
        ds.ImagePositionPatient = [0, 0, -number]
        ds.RescaleIntercept = -1024 - number
        ds.save_as(tmp_path / name)
    operator = registry.get_operator("identity", image_shape=(1, 128, 128))
    config = {"image": str(tmp_path), "noise_std": 0.1}

    truth = read_subject(InputConfig(**config, slice=2, data_range=(-1024, 3071)), ct(), operator).truth

    # positions are 0, -1 and -2, so that the last slice is the one at 0, with the intercept -1024
    np.testing.assert_allclose(truth[0].numpy(), expected, rtol=1e-12)
    with pytest.raises(ConfigError, match=r"int16 values from -\d+ to \d+, rescaled, in HU; say which values"):
        read_subject(InputConfig(**config, slice=0), ct(), operator)
    with pytest.raises(ConfigError, match=r"volume \(3, 128, 128\); say which slice by input\.slice, from 0 to 2"):
        read_subject(InputConfig(**config, data_range=(-1024, 3071)), ct(), operator)


def test_the_pages_of_a_tif_are_not_its_channels(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "x.tif", np.zeros((3, 8, 8), np.float32), photometric="minisblack")

    with pytest.raises(ConfigError, match=r"holds a volume \(3, 8, 8\); say which slice by input\.slice, from 0 to 2"):
        read(3, image=str(tmp_path / "x.tif"))
    assert read(image=str(tmp_path / "x.tif"), slice=2).truth.shape == (1, 8, 8)


def test_a_missing_package_is_one_clear_line(tmp_path, monkeypatch):
    import sys

    (tmp_path / "scan.nii.gz").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "nibabel", None)

    with pytest.raises(ConfigError, match=r"reading '.*scan.nii.gz' needs nibabel: pip install 'scoreplug\[medical\]'"):
        read(image=str(tmp_path / "scan.nii.gz"))


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
