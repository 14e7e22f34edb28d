"""TIFF pictures of one page or many."""

from __future__ import annotations

import io
import struct
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
    _check_pages(name, content)
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
    axis = 0 if volume else None
    return ArrayFile(path=name, shape=shape, dtype=dtype, take=take, volume=volume, axis=axis, whole=True)


def _check_pages(name: str, content: bytes) -> None:
    """Refuse pages that follow each other in a circle, which tifffile would count to 2^32.

    Raises:
        DataError: if they do.
    """
    order = ">" if content[:2] == b"MM" else "<"
    big = content[2:4] in (b"+\0", b"\0+")  # 43, BigTIFF
    first, count, number, tag = (8, "Q", "Q", 20) if big else (4, "H", "I", 12)
    at, seen = first, set()
    while True:
        try:
            (page,) = struct.unpack_from(order + number, content, at)
            (tags,) = struct.unpack_from(order + count, content, page)
        except (struct.error, OverflowError):
            return  # the end of the pages, or of the file
        if page in seen:
            raise DataError(f"cannot read {name!r}: its pages follow each other in a circle")
        seen.add(page)
        at = page + struct.calcsize(order + count) + tag * tags


def _refuse(name: str, page: Any) -> None:
    """Refuse pixels that are no numbers, or mean the opposite."""
    if page.photometric == 3:
        raise DataError(f"{name!r} has a palette: its numbers are no brightness; convert it to gray or RGB first")
    if page.photometric == 0:
        raise DataError(f"{name!r} stores white as 0 (WhiteIsZero); save it with black as 0 first")
    if any(sample in (1, 2) for sample in page.extrasamples):
        raise DataError(f"{name!r} has an alpha channel; lay it on a background, or remove it, first")
