"""Files people have: NumPy arrays, pictures, HDF5, NIfTI and DICOM.

One vocabulary for all: `key` names an array in a file with several, `slice` counts along `axis`. Values come as the
file has them, with the scaling that the format itself declares (NIfTI, DICOM) applied. Nothing is unpickled, and
nothing larger than `LARGEST` is decoded.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from scoreplug.data._file import LARGEST as LARGEST
from scoreplug.data._file import ArrayFile as ArrayFile
from scoreplug.data._file import DataError as DataError
from scoreplug.data._file import begins_as_dicom, unreadable

FORMATS = {
    ".npy": "_numpy:open_npy",
    ".npz": "_numpy:open_npz",
    ".png": "_picture:open_picture",
    ".jpg": "_picture:open_picture",
    ".jpeg": "_picture:open_picture",
    ".bmp": "_picture:open_picture",
    ".tif": "_tiff:open_tiff",
    ".tiff": "_tiff:open_tiff",
    ".h5": "_hdf5:open_hdf5",
    ".hdf5": "_hdf5:open_hdf5",
    ".nii": "_nifti:open_nifti",
    ".nii.gz": "_nifti:open_nifti",
    ".dcm": "_dicom:open_dicom",
}
"""The reader of each suffix. A folder, and a file that begins as DICOM does, are DICOM whatever they are called."""


def open_array(path: Path, *, key: str | None = None, names: Iterable[str] = ()) -> ArrayFile:
    """Open one array of a file, or the series of a folder, without reading it.

    Args:
        path: of a file of a known suffix, or of a folder with the files of a DICOM series.
        key: name of the array in a file with several (.npz, HDF5), or the SeriesInstanceUID in a folder with several.
        names: the array that is meant without a key, if there are several: the first of these that is there.

    Raises:
        DataError: if there is nothing, the format is not known, or the file cannot be read.
    """
    try:
        if not path.is_file() and not path.is_dir():
            raise DataError(f"there is no file {str(path)!r}")
        module, _, function = _reader(path).partition(":")
        reader = getattr(importlib.import_module(f"scoreplug.data.{module}"), function)
        opened: ArrayFile = reader(path, key, tuple(names))
    except Exception as error:  # each format's reader has errors of its own
        raise unreadable(str(path), error) from error
    if opened.dtype.kind not in "iubfc":
        raise DataError(f"{str(path)!r} holds {opened.dtype}, not numbers")
    return opened


def read_array(
    path: Path, *, key: str | None = None, number: int | None = None, axis: int | None = None, names: Iterable[str] = ()
) -> np.ndarray:
    """Read an array, or its slice `number` along `axis`. The other arguments are those of `open_array`.

    Raises:
        DataError: if it cannot be read.
    """
    return open_array(path, key=key, names=names).read(number, axis)


def readable(path: Path) -> bool:
    """Whether a file is of a known format, by its name or, for DICOM, its first bytes."""
    return path.is_file() and (_suffix(path) is not None or begins_as_dicom(path))


def _suffix(path: Path) -> str | None:
    name = path.name.lower()
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), None)


def _reader(path: Path) -> str:
    if path.is_dir():
        return "_dicom:open_series"
    suffix = _suffix(path)
    if suffix is not None:
        return FORMATS[suffix]
    if begins_as_dicom(path):
        return FORMATS[".dcm"]
    raise DataError(
        f"cannot read {str(path)!r}: files end in {', '.join(FORMATS)}, or are DICOM; convert it to one of these"
    )
