"""NumPy's own files: .npy, and .npz with several arrays."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from scoreplug.data._file import ArrayFile, DataError, chosen, fits, only_array

_HEADER = 10_000
"""Bytes of the text that describes an array; more is refused by NumPy too, since parsing it is not safe."""


def open_npy(path: Path, key: str | None, names: tuple[str, ...]) -> ArrayFile:
    """The array of a .npy file, of which a slice is read without the rest."""
    del names
    only_array(str(path), key)
    with path.open("rb") as file:
        shape, dtype = _header(file)
    return ArrayFile(
        path=str(path),
        shape=shape,
        dtype=dtype,
        take=lambda where: np.load(path, mmap_mode="r" if 0 not in shape else None, allow_pickle=False)[where],
    )


def open_npz(path: Path, key: str | None, names: tuple[str, ...]) -> ArrayFile:
    """One array of an .npz file."""
    with zipfile.ZipFile(path) as archive:
        arrays = {name.removesuffix(".npy"): "" for name in archive.namelist()}
        name = chosen(str(path), key, names, arrays)
        member = f"{name}.npy"
        with archive.open(member) as file:
            shape, dtype = _header(file)
        size = archive.getinfo(member).file_size

    def take(where: tuple[Any, ...]) -> np.ndarray:
        fits(str(path), (size,), np.dtype(np.uint8))  # the whole member is unpacked, whatever its header says
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive[name][where])

    return ArrayFile(path=str(path), shape=shape, dtype=dtype, take=take, whole=True)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that a .npy file declares; nothing of the array is read."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"cannot read {getattr(file, 'name', '')!r}: version {version} of .npy, which is for records")
    length = file.read(2 if version == (1, 0) else 4)
    if int.from_bytes(length, "little") > _HEADER:  # NumPy would read it all before it looks at its length
        raise DataError(f"cannot read {getattr(file, 'name', '')!r}: its header declares more than {_HEADER} bytes")
    file.seek(-len(length), os.SEEK_CUR)
    shape, _, dtype = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are pickled code and not loaded; save numbers")
    return shape, dtype
