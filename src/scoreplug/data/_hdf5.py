"""HDF5: one array by its name, of which only the wanted slice is read.

fastMRI's files hold `kspace` (slices, coils, height, width), complex, and `reconstruction_rss` or `reconstruction_esc`
(slices, height, width).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scoreplug.data._file import ArrayFile, DataError, chosen, package


def open_hdf5(path: Path, key: str | None, names: tuple[str, ...]) -> ArrayFile:
    """One dataset; a key may name groups, as in "scan/kspace"."""
    h5py = package("h5py", str(path))
    with h5py.File(path, "r") as file:
        arrays: dict[str, str] = {}

        def note(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset) and node.shape and node.dtype.kind in "iubfc":
                arrays[name] = f"{node.dtype} {node.shape}"

        file.visititems(note)  # follows no link out of the file
        name = chosen(str(path), key.strip("/") if key else key, names, arrays)
        if file[name].is_virtual or file[name].external:
            raise DataError(
                f"{str(path)!r} keeps the values of {name!r} in other files, which are not opened; save them in one"
            )
        shape, dtype = tuple(file[name].shape), np.dtype(file[name].dtype)

    def take(where: tuple[Any, ...]) -> np.ndarray:
        with h5py.File(path, "r") as file:
            return np.asarray(file[name][where])

    return ArrayFile(path=str(path), shape=shape, dtype=dtype, take=take, facts={"array": name})
