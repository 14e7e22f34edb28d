"""Files people have: what every format gives, and how each of them is refused."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset

from scoreplug.data import _file
from scoreplug.data.files import FORMATS, DataError, open_array, read_array, readable

RNG = np.random.default_rng(0)
VOLUME = RNG.integers(-100, 100, (4, 6, 5)).astype(np.int16)
GRAY = RNG.integers(0, 256, (6, 5)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (6, 5, 3)).astype(np.uint8)
COMPLEX = (RNG.standard_normal((3, 2, 6, 5)) + 1j * RNG.standard_normal((3, 2, 6, 5))).astype(np.complex64)


def hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def nifti(path, array, slope=None, inter=None):
    image = nibabel.Nifti1Image(array, np.diag([2.0, 3.0, 4.0, 1.0]))
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
    nibabel.save(image, path)
    return path


def dicom(path, array, *, compress=None, **tags):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = pydicom.uid.CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = pydicom.uid.generate_uid()
    ds.Modality, ds.SeriesInstanceUID = "CT", "1.2.3"
    colour = array.shape[-1] == 3
    frames = array.ndim == (4 if colour else 3)
    ds.Rows, ds.Columns = array.shape[frames : frames + 2]
    if frames:
        ds.NumberOfFrames = array.shape[0]
    ds.SamplesPerPixel = 3 if colour else 1
    if colour:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8 * array.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(array.dtype.kind == "i")
    ds.PixelData = array.tobytes()
    for tag, value in tags.items():
        setattr(ds, tag, value)
    if compress:
        ds.compress(compress)
    ds.save_as(path, enforce_file_format=True)
    return path


def series(folder, order=(2, 0, 3, 1), **tags):
    """The slices of VOLUME under names that are not in their order, each with its own slope."""
    folder.mkdir()
    for name, k in enumerate(order):
        position = {"ImagePositionPatient": [0, 0, 5 * k], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        scaling = {"RescaleSlope": k + 1, "RescaleIntercept": -1024}
        dicom(folder / f"IM{name}", VOLUME[k], **{**position, **scaling, **tags})
    return folder


def tiff(path, array, **options):
    tifffile.imwrite(path, array, photometric="rgb" if array.shape[-1] == 3 else "minisblack", **options)


def picture(path, array, mode=None):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


# What is read is what was written.


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("x.npy", np.save, VOLUME),
        ("x.npy", np.save, COMPLEX),
        ("x.NPY", lambda path, array: path.write_bytes(npy(array)), VOLUME),
        ("x.npz", lambda path, array: np.savez(path, a=array), VOLUME),
        ("x.png", picture, GRAY),
        ("x.png", picture, GRAY.astype(np.uint16) * 257),
        ("x.bmp", picture, GRAY),
        ("x.tif", tiff, GRAY),
        ("x.tif", tiff, GRAY.astype(np.uint16) * 257),
        ("x.tiff", tiff, VOLUME),
        ("x.tiff", tiff, GRAY.astype(np.float32)),
        ("x.tif", lambda path, array: tiff(path, array, compression="zlib"), VOLUME),
        ("x.h5", lambda path, array: hdf5(path, a=array), COMPLEX),
        ("x.hdf5", lambda path, array: hdf5(path, a=array), VOLUME),
        ("x.nii", nifti, VOLUME),
        ("x.nii.gz", nifti, VOLUME.astype(np.float32)),
        ("x.dcm", dicom, VOLUME[0]),
        ("x.dcm", dicom, VOLUME[:3]),
        ("x.dcm", lambda path, array: dicom(path, array, compress=pydicom.uid.RLELossless), VOLUME[0]),
        ("IM0001", dicom, GRAY),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "dtype", None) and str(value.dtype),
)
def test_an_array_comes_back_with_its_values_and_knows_its_shape_before(tmp_path, name, write, expected):
    write(tmp_path / name, expected)

    file = open_array(tmp_path / name)

    assert (file.shape, file.dtype) == (expected.shape, expected.dtype)
    assert file.counted == (expected.dtype.kind in "iu")
    np.testing.assert_array_equal(file.read(), expected)


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize(("name", "write"), [("x.png", picture), ("x.bmp", picture), ("x.tif", tiff), ("x.dcm", dicom)])
def test_colour_is_the_first_axis(tmp_path, name, write):
    write(tmp_path / name, COLOUR)

    file = open_array(tmp_path / name)

    assert (file.shape, file.volume) == ((3, 6, 5), False)
    np.testing.assert_array_equal(file.read(), COLOUR.transpose(2, 0, 1))


def test_a_jpeg_is_read_as_pillow_decodes_it(tmp_path):
    picture(tmp_path / "x.jpg", COLOUR)

    expected = np.asarray(Image.open(tmp_path / "x.jpg")).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_array(tmp_path / "x.jpg"), expected)


@pytest.mark.parametrize(("name", "write"), [("x.tif", tiff), ("x.dcm", dicom)])
def test_pages_in_colour_have_it_behind_the_page(tmp_path, name, write):
    write(tmp_path / name, np.stack([COLOUR, 255 - COLOUR]))

    np.testing.assert_array_equal(read_array(tmp_path / name, number=1), (255 - COLOUR).transpose(2, 0, 1))


# One vocabulary for slices and arrays.

VOLUMES = {
    "x.npy": np.save,
    "x.npz": lambda path, array: np.savez(path, a=array),
    "x.tif": tiff,
    "x.h5": lambda path, array: hdf5(path, a=array),
    "x.nii": nifti,
    "x.nii.gz": nifti,
    "x.dcm": dicom,
}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", VOLUMES)
def test_a_slice_is_counted_along_the_axis(tmp_path, name, axis):
    VOLUMES[name](tmp_path / name, VOLUME)

    np.testing.assert_array_equal(read_array(tmp_path / name, number=3, axis=axis), VOLUME.take(3, axis))


@pytest.mark.parametrize("name", [name for name in VOLUMES if "nii" not in name])
def test_slices_lie_along_the_first_axis_by_default(tmp_path, name):
    VOLUMES[name](tmp_path / name, VOLUME)

    np.testing.assert_array_equal(read_array(tmp_path / name, number=2), VOLUME[2])


def test_the_axis_of_nifti_is_not_guessed(tmp_path):
    with pytest.raises(DataError, match=r"holds a volume \(4, 6, 5\); say along which axis its slices lie by `axis`"):
        read_array(nifti(tmp_path / "x.nii", VOLUME), number=2)


@pytest.mark.parametrize("name", VOLUMES)
@pytest.mark.parametrize(
    ("number", "axis", "message"),
    [(5, 2, r"has slices 0 to 4 along axis 2 of \(4, 6, 5\) \(got 5\)"), (0, 3, "and no axis 3; axes count from 0")],
    ids=["number", "axis"],
)
def test_a_slice_that_is_not_there_is_refused(tmp_path, name, number, axis, message):
    VOLUMES[name](tmp_path / name, VOLUME)

    with pytest.raises(DataError, match=message):
        read_array(tmp_path / name, number=number, axis=axis)


@pytest.mark.parametrize("name", ["x.npz", "x.h5"])
class TestNames:
    def write(self, path, **arrays):
        np.savez(path, **arrays) if path.suffix == ".npz" else hdf5(path, **arrays)
        return path

    def test_an_array_is_named_by_its_key(self, tmp_path, name):
        path = self.write(tmp_path / name, a=VOLUME, b=VOLUME + 1)

        np.testing.assert_array_equal(read_array(path, key="b"), VOLUME + 1)

    def test_of_several_none_is_guessed_and_all_are_listed(self, tmp_path, name):
        path = self.write(tmp_path / name, a=VOLUME, b=VOLUME)

        with pytest.raises(DataError, match=r"holds a.*, b.*; say which array is meant by `key`"):
            open_array(path)

    def test_a_key_that_is_not_there_lists_those_that_are(self, tmp_path, name):
        with pytest.raises(DataError, match=r"holds no array 'c'; it holds a"):
            open_array(self.write(tmp_path / name, a=VOLUME), key="c")

    def test_the_first_usual_name_is_meant(self, tmp_path, name):
        path = self.write(tmp_path / name, a=VOLUME, y=VOLUME + 1, z=VOLUME + 2)

        np.testing.assert_array_equal(read_array(path, names=("x", "y", "z")), VOLUME + 1)


def test_an_array_in_a_group_of_hdf5_is_named_by_its_path(tmp_path):
    path = hdf5(tmp_path / "x.h5", **{"scan/kspace": COMPLEX, "other": VOLUME, "header": "text"})

    np.testing.assert_array_equal(read_array(path, key="/scan/kspace", number=1), COMPLEX[1])
    with pytest.raises(DataError, match=r"holds other int16 \(4, 6, 5\), scan/kspace complex64 \(3, 2, 6, 5\); say"):
        open_array(path)


def test_only_the_wanted_slice_of_hdf5_is_read(tmp_path, monkeypatch):
    """One slice of 60 bytes fits where the volume of 240 does not."""
    path = hdf5(tmp_path / "x.h5", a=VOLUME)
    monkeypatch.setattr(_file, "LARGEST", 100)

    np.testing.assert_array_equal(read_array(path, number=1), VOLUME[1])
    with pytest.raises(DataError, match=r"choose one slice"):
        read_array(path)


@pytest.mark.parametrize("name", ["x.npy", "x.png", "x.tif", "x.nii", "x.dcm"])
def test_a_key_is_refused_where_there_is_one_array(tmp_path, name):
    array = GRAY if name != "x.nii" else VOLUME
    {**VOLUMES, "x.png": picture}[name](tmp_path / name, array)

    with pytest.raises(DataError, match=r"holds one array without a name; leave out `key` \(got 'a'\)"):
        open_array(tmp_path / name, key="a")


# The scaling of a format is applied, and said.


def test_nifti_is_scaled_by_its_header(tmp_path):
    file = open_array(nifti(tmp_path / "x.nii", VOLUME, slope=0.5, inter=3.0))

    np.testing.assert_array_equal(file.read(), nibabel.load(tmp_path / "x.nii").get_fdata())
    assert file.facts["slope"] == nibabel.load(tmp_path / "x.nii").dataobj.slope
    assert file.counted  # what is stored; the scaling gives it no unit
    np.testing.assert_array_equal(file.facts["affine"], np.diag([2.0, 3.0, 4.0, 1.0]))


def test_a_file_that_comes_with_nibabel_is_read():
    path = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
    expected = nibabel.load(path).get_fdata()

    np.testing.assert_array_equal(read_array(path, number=1, axis=3), expected[..., 1])


def test_a_file_that_comes_with_pydicom_is_in_hounsfield_units():
    path = Path(pydicom.data.get_testdata_file("CT_small.dcm", download=False))
    stored = pydicom.dcmread(path).pixel_array

    file = open_array(path)

    assert file.facts == {"rescale_slope": 1.0, "rescale_intercept": -1024.0, "unit": "HU"}
    np.testing.assert_array_equal(file.read(), stored.astype(float) - 1024)


def test_slices_of_a_series_are_ordered_by_position_and_each_is_rescaled(tmp_path):
    folder = series(tmp_path / "ct")
    expected = VOLUME * np.arange(1.0, 5.0)[:, None, None] - 1024

    file = open_array(folder)

    assert (file.shape, file.volume, file.facts["series"]) == ((4, 6, 5), True, "1.2.3")
    np.testing.assert_array_equal(file.read(), expected)
    np.testing.assert_array_equal(file.read(2), expected[2])
    np.testing.assert_array_equal(file.read(2, 1), expected[:, 2])


def test_oblique_slices_are_ordered_along_their_normal(tmp_path):
    """The normal of these is -x: the largest x comes first."""
    folder = tmp_path / "ct"
    folder.mkdir()
    for k in range(3):
        tags = {"ImagePositionPatient": [k, 9 - k, 0], "ImageOrientationPatient": [0, 0, 1, 0, 1, 0]}
        dicom(folder / f"{k}.dcm", VOLUME[k], **tags)

    np.testing.assert_array_equal(read_array(folder), VOLUME[2::-1])


def test_slices_without_a_position_are_ordered_by_their_number(tmp_path):
    folder = tmp_path / "ct"
    folder.mkdir()
    for k in range(3):
        dicom(folder / f"{k}.dcm", VOLUME[k], InstanceNumber=11 - k)

    np.testing.assert_array_equal(read_array(folder), VOLUME[2::-1])


def test_of_several_series_one_is_named(tmp_path):
    folder = series(tmp_path / "ct")
    dicom(folder / "scout.dcm", VOLUME[0] + 1, SeriesInstanceUID="1.2.4")

    with pytest.raises(
        DataError, match=r"several series: 1\.2\.3 \(4 files\), 1\.2\.4 \(1 files\); say which by `key`"
    ):
        open_array(folder)
    with pytest.raises(DataError, match=r"holds no series '9'; it holds 1\.2\.3 \(4 files\)"):
        open_array(folder, key="9")
    np.testing.assert_array_equal(read_array(folder, key="1.2.4", number=0), VOLUME[0] + 1)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ImagePositionPatient": [0, 0, 5]}, "slices without a position of their own"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, "differ in size, unit or orientation"),
        ({"RescaleType": "US"}, "differ in size, unit or orientation"),
    ],
    ids=["position", "orientation", "unit"],
)
def test_what_is_no_stack_is_refused(tmp_path, tags, message):
    folder = series(tmp_path / "ct", order=(0, 1, 3))
    place = {"ImagePositionPatient": [0, 0, 10], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    scaling = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    dicom(folder / "odd.dcm", VOLUME[2], **{**place, **scaling, **tags})

    with pytest.raises(DataError, match=message):
        open_array(folder)


# Pixels that are no numbers, or would be changed without a word.


def sixteen_bit_colour_png(path):
    rows = b"".join(b"\0" + bytes(30) for _ in range(6))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


DOUBTFUL = {
    "palette": ("x.png", lambda p: picture(p, COLOUR, "P"), "has a palette"),
    "alpha": ("x.png", lambda p: picture(p, COLOUR, "RGBA"), "has an alpha channel"),
    "gray alpha": ("x.png", lambda p: picture(p, GRAY, "LA"), "has an alpha channel"),
    "transparent colour": ("x.png", lambda p: Image.fromarray(GRAY).save(p, transparency=0), "has an alpha channel"),
    "print colours": ("x.jpg", lambda p: picture(p, COLOUR, "CMYK"), "has the colours CMYK; convert it"),
    "16-bit colour": ("x.png", sixteen_bit_colour_png, "16 bits per colour, of which 8 would be lost"),
    "animation": (
        "x.png",
        lambda p: Image.fromarray(GRAY).save(p, save_all=True, append_images=[Image.fromarray(255 - GRAY)]),
        "an animation of 2 pictures",
    ),
    "tif palette": ("x.tif", lambda p: picture(p, COLOUR, "P"), "has a palette"),
    "tif alpha": (
        "x.tif",
        lambda p: tifffile.imwrite(p, np.zeros((6, 5, 4), np.uint8), photometric="rgb", extrasamples=["unassalpha"]),
        "has an alpha channel",
    ),
    "tif white is 0": ("x.tif", lambda p: tifffile.imwrite(p, GRAY, photometric="miniswhite"), "stores white as 0"),
    "tif sizes": (
        "x.tif",
        lambda p: (tifffile.imwrite(p, GRAY), tifffile.imwrite(p, GRAY[:3], append=True)),
        "holds 2 series of pictures",
    ),
    "dicom white is 0": (
        "x.dcm",
        lambda p: dicom(p, GRAY, PhotometricInterpretation="MONOCHROME1"),
        "white as its smallest value",
    ),
    "dicom palette": (
        "x.dcm",
        lambda p: dicom(p, GRAY, PhotometricInterpretation="PALETTE COLOR"),
        "the colours PALET",
    ),
    "dicom table": (
        "x.dcm",
        lambda p: dicom(p, GRAY, ModalityLUTSequence=[Dataset()]),
        "by a table, which is not read",
    ),
    "nifti of colours": (
        "x.nii",
        lambda p: nifti(p, np.zeros((4, 4, 2), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))),
        "not numbers",
    ),
    "words": ("x.npy", lambda p: np.save(p, np.array(["a"])), "holds <U1, not numbers"),
    "words in hdf5": ("x.h5", lambda p: hdf5(p, a=["text"]), "holds no arrays"),
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_what_is_no_number_is_refused_with_the_reason(tmp_path, case):
    name, write, message = DOUBTFUL[case]
    write(tmp_path / name)

    with pytest.raises(DataError, match=message):
        read_array(tmp_path / name)


# Files that cannot be read.


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("content", [b"", b"text", bytes(5000)], ids=["empty", "text", "zeros"])
def test_a_file_of_another_kind_is_one_line_that_names_it(tmp_path, suffix, content):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)

    with pytest.raises(DataError) as caught:
        read_array(path)

    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


CUT = {
    **VOLUMES,
    "x.png": lambda path, array: picture(path, (array[0] + 100).astype(np.uint8)),
    "x.jpg": lambda path, array: picture(path, (array[0] + 100).astype(np.uint8)),
}


@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
@pytest.mark.parametrize("name", CUT)
def test_a_file_that_is_cut_off_is_named(tmp_path, name, part):
    path = tmp_path / name
    CUT[name](path, RNG.integers(-100, 100, (4, 60, 50)).astype(np.int16))
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])

    with pytest.raises(DataError, match=name):
        read_array(path)


def test_a_pickle_is_never_loaded(tmp_path):
    np.save(tmp_path / "x.npy", np.array([print], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", a=np.array([print], dtype=object))

    for name in ("x.npy", "x.npz"):
        with pytest.raises(DataError, match=f"cannot read '.*{name}': .*Python objects, which are pickled code"):
            open_array(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no file '.*x\.npy'"):
        open_array(tmp_path / "x.npy")


def test_a_folder_of_something_else_is_no_series(tmp_path):
    (tmp_path / "notes.txt").write_text("text")

    with pytest.raises(DataError, match="is a folder without DICOM files"):
        open_array(tmp_path)


def test_an_unknown_suffix_lists_the_known_ones(tmp_path):
    (tmp_path / "x.gif").write_bytes(b"GIF89a")

    with pytest.raises(DataError, match=r"cannot read '.*x\.gif': files end in \.npy, \.npz, .*\.dcm"):
        open_array(tmp_path / "x.gif")
    assert not readable(tmp_path / "x.gif")


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", GRAY)

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)

    with pytest.raises(DataError, match=r"cannot read '.*x\.npy': PermissionError: .*Permission denied"):
        open_array(tmp_path / "x.npy")


@pytest.mark.parametrize(("name", "package"), [("x.h5", "h5py"), ("x.nii.gz", "nibabel"), ("x.dcm", "pydicom")])
def test_a_missing_package_is_named_with_the_way_to_install_it(tmp_path, monkeypatch, name, package):
    VOLUMES[name](tmp_path / name, VOLUME)
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(DataError, match=rf"reading '.*{name}' needs {package}: pip install 'scoreplug\[medical\]'"):
        open_array(tmp_path / name)


def test_medical_packages_are_not_imported_for_other_formats(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", GRAY)
    for package in ("h5py", "nibabel", "pydicom"):
        monkeypatch.setitem(sys.modules, package, None)

    np.testing.assert_array_equal(read_array(tmp_path / "x.npy"), GRAY)


# A small file may declare any size.


def header_only_npy(shape):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return content.getvalue()


def npz_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header_only_npy((100, 100)) + bytes(80_000))


def lying_npz(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header_only_npy((3, 3)) + bytes(80_000))


def hdf5_bomb(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (2**20, 2**20), "f8", chunks=(8, 8), compression="gzip")


def dicom_bomb(path):
    dicom(path, GRAY, Rows=60_000, Columns=60_000)


def deflated_dicom(path):
    dicom(path, GRAY)
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    ds.save_as(path)


def nifti_bomb(path):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), None)
    image.header.set_data_shape((30_000, 30_000, 30_000))
    path.write_bytes(image.header.binaryblock + bytes(4))


def tiff_bomb(path):
    tifffile.imwrite(path, GRAY)
    content = bytearray(path.read_bytes())
    for tag in (256, 257):  # width and height
        at = content.index(struct.pack("<HHI", tag, 4, 1))
        content[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 100_000)
    path.write_bytes(content)


BOMBS = {
    "npy": ("x.npy", lambda p: p.write_bytes(header_only_npy((2**30, 2**30))), 2**32, "declares float64"),
    "npz": ("x.npz", npz_bomb, 50_000, "declares float64"),
    "npz that lies": ("x.npz", lying_npz, 50_000, "declares uint8"),
    "picture": ("x.png", lambda p: picture(p, np.zeros((300, 300), np.uint8)), 50_000, "declares uint8"),
    "tif": ("x.tif", tiff_bomb, 2**32, "declares uint8"),
    "hdf5": ("x.h5", hdf5_bomb, 2**32, "declares float64"),
    "nifti": ("x.nii", nifti_bomb, 2**32, "its header declares"),
    "dicom": ("x.dcm", dicom_bomb, 2**32, "declares float64"),
    "deflated dicom": ("x.dcm", deflated_dicom, 2**32, "is deflated as a whole"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_what_would_not_fit_is_refused_before_it_is_decoded(tmp_path, monkeypatch, case):
    name, write, limit, message = BOMBS[case]
    write(tmp_path / name)
    monkeypatch.setattr(_file, "LARGEST", limit)
    assert (tmp_path / name).stat().st_size < 50_000

    with pytest.raises(DataError, match=message):
        read_array(tmp_path / name)


def test_pillows_own_limit_is_an_error(tmp_path, monkeypatch):
    picture(tmp_path / "x.png", np.zeros((300, 300), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80_000)  # beyond it Pillow only warns

    with pytest.raises(DataError, match=r"cannot read '.*x\.png': DecompressionBombWarning"):
        read_array(tmp_path / "x.png")


def test_what_is_read_shares_nothing_with_the_file(tmp_path):
    """A memory map would keep the file open and change with it."""
    np.save(tmp_path / "x.npy", VOLUME)

    array = read_array(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", VOLUME + 1)

    assert type(array) is np.ndarray
    np.testing.assert_array_equal(array, VOLUME)


def test_a_volume_that_is_shorter_than_its_header_says_takes_no_room(tmp_path):
    """2 GiB are declared, which is allowed, and a page is there."""
    path = tmp_path / "cut.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), path)
    header = nibabel.load(path).header.copy()
    header.set_data_shape((2048, 1024, 1024))
    content = path.read_bytes()
    path.write_bytes(header.binaryblock + content[len(header.binaryblock) :])

    with pytest.raises(DataError, match=r"has \d+ bytes, and its header declares 2147483"):
        open_array(path)
