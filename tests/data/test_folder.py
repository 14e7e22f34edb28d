"""A user's own images."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import io

from scoreplug.data.folder import DataError, Folder

RNG = np.random.default_rng(0)


@pytest.fixture
def photos(tmp_path):
    """Five 8-bit images, b.png the second."""
    for name in "abcde":
        image = RNG.integers(0, 256, (6, 5), dtype=np.uint8)
        io.imsave(tmp_path / f"{name}.png", image, check_contrast=False)
    return tmp_path


def test_image_files_are_taken_in_the_order_of_their_names_with_their_values(photos):
    images = Folder(path=str(photos), data_range=(0, 255)).batch([0, 1])

    np.testing.assert_array_equal(images[1, 0], io.imread(photos / "b.png"))
    assert images.shape == (2, 1, 6, 5)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colour_becomes_the_first_dimension(tmp_path, suffix):
    image = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    for name in "ab":
        io.imsave(tmp_path / f"{name}.{suffix}", image, check_contrast=False)

    batch = Folder(path=str(tmp_path), data_range=(0, 255)).batch([0])

    np.testing.assert_array_equal(batch[0], image.transpose(2, 0, 1))


def test_the_last_images_are_held_out(photos):
    source = Folder(path=str(photos), data_range=(0, 255), held_out_share=0.4)

    assert (source.count, source.held_out.count) == (3, 2)
    np.testing.assert_array_equal(source.held_out.batch([1])[0, 0], io.imread(photos / "e.png"))


@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 2, 6, 5)], ids=["gray", "channels"])
def test_a_stack_in_one_file(tmp_path, shape):
    stack = RNG.random(shape)
    np.save(tmp_path / "s.npy", stack)
    np.savez(tmp_path / "s.npz", other=np.zeros(3), images=stack)

    one = Folder(path=str(tmp_path / "s.npy"), data_range=(0, 1)).batch([2])
    other = Folder(path=str(tmp_path / "s.npz"), key="images", data_range=(0, 1)).batch([2])

    expected = stack[2] if len(shape) == 4 else stack[2][None]
    np.testing.assert_array_equal(one[0], expected.astype(np.float32))
    np.testing.assert_array_equal(other, one)


def test_crop_takes_the_central_part(tmp_path):
    stack = RNG.random((3, 7, 6))
    np.save(tmp_path / "s.npy", stack)

    images = Folder(path=str(tmp_path / "s.npy"), data_range=(0, 1), crop=4).batch([0])

    np.testing.assert_array_equal(images[0, 0], stack[0, 1:5, 1:5].astype(np.float32))


def stack_of(folder, array, name="s.npy"):
    np.save(folder / name, array)
    return str(folder / name)


def test_crop_makes_images_of_several_sizes_usable(tmp_path):
    stack_of(tmp_path, RNG.random((6, 5)), "a.npy")
    stack_of(tmp_path, RNG.random((5, 7)), "b.npy")

    assert Folder(path=str(tmp_path), data_range=(0, 1), crop=5).shape == (1, 5, 5)
    with pytest.raises(DataError, match=r"b\.npy: the shape is \(1, 5, 7\) and that of the first image \(1, 6, 5\)"):
        Folder(path=str(tmp_path), data_range=(0, 1), held_out_share=0.5).held_out.batch([0])


def test_values_outside_the_declared_range_are_refused_not_rescaled(photos):
    with pytest.raises(
        DataError, match=r"a\.png: values from .* are not all in data_range \(0, 1\); nothing is rescaled"
    ):
        Folder(path=str(photos), data_range=(0, 1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_naming_the_image(tmp_path, bad):
    stack = RNG.random((4, 6, 5))
    stack[1, 2, 3] = bad

    source = Folder(path=stack_of(tmp_path, stack), data_range=(0, 1))

    with pytest.raises(DataError, match=r"s\.npy, image 1: 1 values are NaN or infinite"):
        source.batch([1])


def test_a_file_that_is_no_image_is_named(photos):
    (photos / "a.png").write_text("not a picture")

    with pytest.raises(DataError, match=r"cannot read '.*a\.png': UnidentifiedImageError"):
        Folder(path=str(photos), data_range=(0, 255))


def test_a_damaged_array_is_named(tmp_path):
    (tmp_path / "s.npy").write_bytes(b"\x93NUMPY\x01\x00")

    with pytest.raises(DataError, match=r"cannot read '.*s\.npy': ValueError"):
        Folder(path=str(tmp_path / "s.npy"), data_range=(0, 1))


def test_a_pickle_in_an_array_is_not_run(tmp_path):
    np.save(tmp_path / "s.npy", np.array([[{}]], dtype=object), allow_pickle=True)

    with pytest.raises(DataError, match=r"s\.npy': ValueError: it holds Python objects, which are pickled"):
        Folder(path=str(tmp_path / "s.npy"), data_range=(0, 1))


def test_complex_values_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"values must be real numbers \(got complex128\)"):
        Folder(path=stack_of(tmp_path, RNG.random((3, 4, 4)) + 1j), data_range=(0, 1))


def test_an_npz_file_with_several_arrays_needs_the_name_of_one(tmp_path):
    np.savez(tmp_path / "s.npz", a=np.zeros((2, 3, 3)), b=np.zeros((2, 3, 3)))

    with pytest.raises(DataError, match=r"s\.npz' holds a, b; say which array is meant by `key`"):
        Folder(path=str(tmp_path / "s.npz"), data_range=(0, 1))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 4)), r"a stack is \(N, height, width\) or \(N, channels, height, width\) \(got \(5, 4\)\)"),
        (np.zeros((1, 5, 4)), "has one image; at least two are needed"),
    ],
    ids=["one image", "stack of one"],
)
def test_a_stack_needs_several_images(tmp_path, array, message):
    with pytest.raises(DataError, match=message):
        Folder(path=stack_of(tmp_path, array), data_range=(0, 1))


def test_an_image_smaller_than_the_crop_is_named(tmp_path):
    with pytest.raises(DataError, match=r"image 0: 4 x 4 pixels are too few for crop 5"):
        Folder(path=stack_of(tmp_path, np.zeros((3, 4, 4))), data_range=(0, 1), crop=5)


def test_a_missing_or_empty_folder_is_said_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder or file"):
        Folder(path=str(tmp_path / "nothing"), data_range=(0, 1))
    with pytest.raises(DataError, match=r"has no images; those are files ending in \.npy"):
        Folder(path=str(tmp_path), data_range=(0, 1))


def test_a_single_picture_is_no_set(photos):
    with pytest.raises(DataError, match="for images in files of their own give their folder"):
        Folder(path=str(photos / "a.png"), data_range=(0, 255))


def test_a_range_has_two_ends(photos):
    with pytest.raises(ValueError, match=r"data_range is \(low, high\) with low < high \(got \(1, 0\)\)"):
        Folder(path=str(photos), data_range=(1, 0))


VOLUMES = {"ct-1": RNG.integers(-1000, 1000, (4, 6, 5)), "ct-2": RNG.integers(-1000, 1000, (3, 6, 5))}


def volumes(folder, suffix, axis):
    """Two volumes whose slices lie along `axis`."""
    import h5py
    import nibabel

    for name, slices in VOLUMES.items():
        array = np.moveaxis(slices, 0, axis).astype(np.int16)
        path = folder / f"{name}{suffix}"
        if suffix == ".h5":
            with h5py.File(path, "w") as file:
                file["reconstruction_rss"], file["mask"] = array, np.ones(5)
        elif suffix == ".npy":
            np.save(path, array)
        else:
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    return str(folder)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("suffix", [".npy", ".h5", ".nii", ".nii.gz"])
def test_the_slices_of_volumes_follow_one_another(tmp_path, suffix, axis):
    path = volumes(tmp_path, suffix, axis)
    key = "reconstruction_rss" if suffix == ".h5" else None

    source = Folder(path=path, data_range=(-1000, 1000), axis=axis, key=key, held_out_share=0.4)

    expected = np.concatenate(list(VOLUMES.values()))[:, None]
    assert (source.shape, source.count, source.held_out.count) == ((1, 6, 5), 4, 3)
    np.testing.assert_array_equal(source.batch(range(4)), expected[:4])
    np.testing.assert_array_equal(source.held_out.batch(range(3)), expected[4:])


def test_a_value_of_a_volume_outside_the_range_names_the_slice(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(4.0)[:, None, None] * np.ones((4, 3, 3)))

    with pytest.raises(DataError, match=r"a\.npy, slice 2: values from 2 to 2 are not all in data_range"):
        Folder(path=str(tmp_path), data_range=(0, 1.5), axis=0).batch([2])


def test_volumes_without_an_axis_are_not_taken_for_channels(tmp_path):
    with pytest.raises(DataError, match=r"it holds a volume \(4, 6, 5\); say by `axis`"):
        Folder(path=volumes(tmp_path, ".nii", 0), data_range=(-1000, 1000))


def test_one_volume_is_a_stack_along_its_axis(tmp_path):
    path = volumes(tmp_path, ".nii.gz", 2) + "/ct-1.nii.gz"

    source = Folder(path=path, data_range=(-1000, 1000), axis=2)

    np.testing.assert_array_equal(source.batch([1])[0, 0], VOLUMES["ct-1"][1])
    with pytest.raises(DataError, match="say along which axis its slices lie by `axis`"):
        Folder(path=path, data_range=(-1000, 1000))


def test_dicom_files_are_images_in_hounsfield_units(tmp_path):
    import shutil

    import pydicom

    path = pydicom.data.get_testdata_file("CT_small.dcm", download=False)
    for name in ("IM1", "IM2.dcm"):
        shutil.copy(path, tmp_path / name)

    source = Folder(path=str(tmp_path), data_range=(-1024, 3071))

    assert source.shape == (1, 128, 128)
    np.testing.assert_array_equal(source.batch([0])[0, 0], pydicom.dcmread(path).pixel_array - 1024.0)


def test_a_picture_with_alpha_is_not_taken_for_four_channels(tmp_path):
    for name in "ab":
        io.imsave(tmp_path / f"{name}.png", np.zeros((6, 5, 4), dtype=np.uint8), check_contrast=False)

    with pytest.raises(DataError, match=r"a\.png' has an alpha channel"):
        Folder(path=str(tmp_path), data_range=(0, 255))
