"""Pictures: PNG, JPEG and BMP, as stored, one channel or three."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from scoreplug.data._file import ArrayFile, DataError, fits, only_array

_TYPES = {"1": "bool", "L": "uint8", "RGB": "uint8", "I;16": "uint16", "I;16B": "uint16", "I": "int32", "F": "float32"}
"""NumPy's type of a pixel, by Pillow's mode of an image."""

_FORMATS = ("PNG", "JPEG", "BMP")
"""Pillow would also open, under any suffix, formats that are programs, and run them: PostScript, by ghostscript."""


def open_picture(path: Path, key: str | None, names: tuple[str, ...]) -> ArrayFile:
    """A picture, (H, W) or (3, H, W)."""
    del names
    from PIL import Image

    name = str(path)
    only_array(name, key)
    fits(name, (path.stat().st_size,), np.dtype(np.uint8))
    content = path.read_bytes()  # some readers leave a file open when they give up
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a file that is read with doubts is not read
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    _refuse(name, image, content)
    width, height = image.size
    shape = (3, height, width) if image.mode == "RGB" else (height, width)

    def take(where: tuple[Any, ...]) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pixels = np.asarray(image)
        return (np.moveaxis(pixels, -1, 0) if image.mode == "RGB" else pixels)[where]

    return ArrayFile(path=name, shape=shape, dtype=np.dtype(_TYPES[image.mode]), take=take, axis=None, whole=True)


def _refuse(name: str, image: Any, content: bytes) -> None:
    """Refuse pixels that are no numbers, or that Pillow would change without a word."""
    if image.mode in ("P", "PA"):
        raise DataError(f"{name!r} has a palette: its numbers are no brightness; convert it to gray or RGB first")
    if "A" in image.mode.upper() or "transparency" in image.info:
        raise DataError(f"{name!r} has an alpha channel; lay it on a background, or remove it, first")
    if image.mode not in _TYPES:
        raise DataError(f"{name!r} has the colours {image.mode}; convert it to gray or RGB first")
    # Byte 24 of a PNG is its bit depth. Of 16 bits Pillow keeps 8 in colour.
    if image.format == "PNG" and image.mode == "RGB" and content[24] == 16:
        raise DataError(f"{name!r} has 16 bits per colour, of which 8 would be lost; save it as .tif or .npy")
    if getattr(image, "n_frames", 1) != 1:
        raise DataError(f"{name!r} is an animation of {image.n_frames} pictures; save the one that is meant")
