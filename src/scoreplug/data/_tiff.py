"""TIFF pictures of one page or many."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from scoreplug.data._file import ArrayFile, DataError, fits, only_array


def open_tiff(path: Path, key: str | None, names: tuple[str, ...]) -> ArrayFile:
    """A page (H, W) or (channels, H, W), or the pages one after the other along axis 0."""
    del names
    import tifffile

    name = str(path)
    only_array(name, key)
    fits(name, (path.stat().st_size,), np.dtype(np.uint8))
    content = path.read_bytes()  # tifffile leaves a file open when it gives up
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        if len(file.series) != 1:
            raise DataError(f"{name!r} holds {len(file.series)} series of pictures; save the one that is meant")
        series = file.series[0]
        _refuse(name, file.pages.first)
        shape, axes, dtype = tuple(series.shape), str(series.axes), np.dtype(series.dtype)
    last = axes.endswith("S")  # samples of a pixel, its colours
    if last:
        shape = (*shape[:-3], shape[-1], *shape[-3:-1])

    def take(where: tuple[Any, ...]) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a file that is read with doubts is not read
            values = tifffile.imread(io.BytesIO(content))
        return (np.moveaxis(values, -1, -3) if last else values)[where]

    volume = len(shape) > (3 if "S" in axes else 2)
    return ArrayFile(path=name, shape=shape, dtype=dtype, take=take, volume=volume, axis=0 if volume else None)


def _refuse(name: str, page: Any) -> None:
    """Refuse pixels that are no numbers, or mean the opposite."""
    if page.photometric == 3:
        raise DataError(f"{name!r} has a palette: its numbers are no brightness; convert it to gray or RGB first")
    if page.photometric == 0:
        raise DataError(f"{name!r} stores white as 0 (WhiteIsZero); save it with black as 0 first")
    if any(sample in (1, 2) for sample in page.extrasamples):
        raise DataError(f"{name!r} has an alpha channel; lay it on a background, or remove it, first")
