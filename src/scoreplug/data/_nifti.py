"""NIfTI volumes, with the scaling of their header applied; axes are those of the file, not turned."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from scoreplug.data._file import ArrayFile, DataError, fits, only_array, package
from scoreplug.foreign import shown


def open_nifti(path: Path, key: str | None, names: tuple[str, ...]) -> ArrayFile:
    """The volume of a .nii or .nii.gz file, (X, Y, Z) and perhaps time."""
    del names
    nibabel = package("nibabel", str(path))
    only_array(str(path), key)
    _check_offset(path)
    try:
        image = nibabel.load(path)
    except nibabel.filebasedimages.ImageFileError as error:
        raise DataError(f"cannot read {str(path)!r}: {str(error).replace(str(path), 'the file')}") from error
    dtype, shape = np.dtype(image.get_data_dtype()), tuple(int(n) for n in image.shape)
    _check_length(path, image.dataobj.offset + math.prod(shape) * dtype.itemsize)
    slope, intercept = (getattr(image.dataobj, part, default) for part, default in (("slope", 1.0), ("inter", 0.0)))

    def take(where: tuple[Any, ...]) -> np.ndarray:
        return np.asarray(image.dataobj[where] if where else image.dataobj)

    return ArrayFile(
        path=str(path),
        shape=shape,
        dtype=dtype,
        take=take,
        scaled=True,
        volume=len(image.shape) > 2,
        axis=None,  # slices lie along any axis, and the header's word for it is rarely filled in
        facts={
            "affine": [[float(value) for value in row] for row in image.affine],
            "slope": float(slope),
            "intercept": float(intercept),
        },
    )


def _check_length(path: Path, declared: int) -> None:
    """Refuse a file that is shorter than its header says, before room is made for what it says.

    Raises:
        DataError: if it is.
    """
    there = path.stat().st_size
    if path.suffix.lower() == ".nii" and there < declared:  # of .nii.gz it shows on the way
        raise DataError(
            f"{str(path)!r} has {there} bytes, and its header declares {shown(declared)}; it is damaged or cut off"
        )


def _check_offset(path: Path) -> None:
    """Refuse a volume that begins so late in the file that unpacking it to there would take for ever.

    Raises:
        DataError: if it does.
    """
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        start = file.read(176)
    for order in "<>":
        (size,) = struct.unpack_from(f"{order}i", start.ljust(4, b"\0"))
        if size in _OFFSETS:
            place, kind = _OFFSETS[size]
            (offset,) = struct.unpack_from(order + kind, start.ljust(176, b"\0"), place)
            fits(str(path), (int(min(abs(offset), 2**62)) if offset == offset else 0,), np.dtype(np.uint8))


_OFFSETS = {348: (108, "f"), 540: (168, "q")}
"""Place and type of vox_offset, by the first number of the file: NIfTI-1 and NIfTI-2."""
