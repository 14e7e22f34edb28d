"""NIfTI volumes, with the scaling of their header applied; axes are those of the file, not turned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scoreplug.data._file import ArrayFile, DataError, only_array, package


def open_nifti(path: Path, key: str | None, names: tuple[str, ...]) -> ArrayFile:
    """The volume of a .nii or .nii.gz file, (X, Y, Z) and perhaps time."""
    del names
    nibabel = package("nibabel", str(path))
    only_array(str(path), key)
    try:
        image = nibabel.load(path)
    except nibabel.filebasedimages.ImageFileError as error:
        raise DataError(f"cannot read {str(path)!r}: {str(error).replace(str(path), 'the file')}") from error
    slope, intercept = (getattr(image.dataobj, part, default) for part, default in (("slope", 1.0), ("inter", 0.0)))

    def take(where: tuple[Any, ...]) -> np.ndarray:
        return np.asarray(image.dataobj[where] if where else image.dataobj)

    return ArrayFile(
        path=str(path),
        shape=tuple(int(n) for n in image.shape),
        dtype=np.dtype(image.get_data_dtype()),
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
