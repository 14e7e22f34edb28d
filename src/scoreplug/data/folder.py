"""A user's own images: a folder of image files, or a stack in one .npy or .npz file."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import attrs
import numpy as np

from scoreplug.data._source import Split, check_indices
from scoreplug.param import param

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")


class DataError(ValueError):
    """Images cannot be used. The message names the file."""


@attrs.frozen(kw_only=True)
class Folder:
    """Images from `path`, in the order of their names; the last ones are held out.

    A file of the folder holds one image: (height, width) or (height, width, channels) for image files, (height, width)
    or (channels, height, width) for .npy. A single .npy or .npz file instead of a folder holds a stack,
    (N, height, width) or (N, channels, height, width).

    Values are used as they are: none is scaled, shifted or clipped. `data_range` says between which values they lie,
    and a value outside is an error; 8-bit files have data_range (0, 255), and so will the model's samples.

    Raises:
        DataError: if a file cannot be read, its shape differs from that of the first, or a value is not finite or
            outside the range.
        FileNotFoundError: if there is nothing at `path`.
    """

    path: str = param(doc="folder with images, or a .npy or .npz file with a stack of them")
    data_range: tuple[float, float] = param(unit="of the files", doc="(low, high), between which all values lie")
    crop: int | None = param(None, ge=1, unit="pixel", doc="take the central crop x crop pixels of each image")
    held_out_share: float = param(
        0.1, gt=0.0, lt=1.0, doc="share of the images, the last ones, that training never sees"
    )
    key: str | None = param(None, doc="name of the array in an .npz file with several")
    licence: str = param("not stated", doc="the terms of the images, for the model card")
    split: Split = param("train", doc="'train' or 'held-out'")

    def __attrs_post_init__(self) -> None:
        low, high = self.data_range
        if not low < high:
            raise ValueError(f"data_range is (low, high) with low < high (got {self.data_range!r})")
        _ = self.shape  # an unusable folder is found now, not after an hour

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._first.shape)

    @property
    def count(self) -> int:
        train = self._total - self._held_out_count
        return self._held_out_count if self.split == "held-out" else train

    @property
    def held_out(self) -> Folder:
        return attrs.evolve(self, split="held-out")

    def batch(self, indices: Sequence[int]) -> np.ndarray:
        """Images number `indices`, (B, channels, height, width) float32."""
        check_indices(indices, self.count)
        first = self._total - self._held_out_count if self.split == "held-out" else 0
        return np.stack([self._image(first + i) for i in indices])

    @functools.cached_property
    def _files(self) -> tuple[Path, ...]:
        path = Path(self.path)
        if not path.exists():
            raise FileNotFoundError(f"there is no folder or file {self.path!r} to take images from")
        if path.is_file():
            return (path,)
        files = tuple(sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES))
        if not files:
            raise DataError(f"the folder {self.path!r} has no images; those are files ending in {', '.join(SUFFIXES)}")
        return files

    @functools.cached_property
    def _stack(self) -> np.ndarray | None:
        """The array of a single file, (N, C, H, W); None for a folder."""
        path = Path(self.path)
        if not path.is_file():
            return None
        if path.suffix.lower() not in (".npy", ".npz"):
            raise DataError(
                f"a single file is a stack in .npy or .npz; for image files give their folder (got {self.path!r})"
            )
        array = _load_array(path, self.key)
        if array.ndim not in (3, 4) or len(array) == 0:
            raise DataError(
                f"{path}: a stack is (N, height, width) or (N, channels, height, width) (got {array.shape})"
            )
        return array[:, None] if array.ndim == 3 else array

    @functools.cached_property
    def _total(self) -> int:
        total = len(self._files) if self._stack is None else len(self._stack)
        if total < 2:
            raise DataError(f"{self.path!r} has one image; at least two are needed, one of them to be held out")
        return total

    @property
    def _held_out_count(self) -> int:
        return min(self._total - 1, max(1, round(self.held_out_share * self._total)))

    @functools.cached_property
    def _first(self) -> np.ndarray:
        _ = self._total
        return self._read(0)

    def _image(self, number: int) -> np.ndarray:
        image = self._read(number)
        if image.shape != self.shape:
            raise DataError(
                f"{self._name(number)}: the shape is {image.shape} and that of the first image {self.shape}; "
                "all must be the same: make them so, or take a common central part with `crop`"
            )
        return image

    def _read(self, number: int) -> np.ndarray:
        image = _load_image(self._files[number]) if self._stack is None else self._stack[number]
        name = self._name(number)
        if not np.isrealobj(image) or image.dtype.kind not in "fiub":
            raise DataError(f"{name}: values must be real numbers (got {image.dtype})")
        if self.crop is not None:
            image = _central(image, self.crop, name)
        if not np.isfinite(image).all():
            raise DataError(f"{name}: {int((~np.isfinite(image)).sum())} values are NaN or infinite")
        low, high = self.data_range
        if image.min() < low or image.max() > high:
            raise DataError(
                f"{name}: values from {image.min():g} to {image.max():g} are not all in data_range ({low:g}, "
                f"{high:g}); nothing is rescaled: state the range of the files"
            )
        return image.astype(np.float32)

    def _name(self, number: int) -> str:
        return str(self._files[number]) if self._stack is None else f"{self._files[0]}, image {number}"


def _load_image(path: Path) -> np.ndarray:
    """One image, (C, H, W)."""
    order: Literal["channels first", "channels last"]
    if path.suffix.lower() == ".npy":
        image, order = _load_array(path, None), "channels first"
    else:
        import imageio.v3 as imageio

        try:
            # from bytes, since a reader that gives up on a path may leave the file open
            image, order = imageio.imread(path.read_bytes(), extension=path.suffix.lower()), "channels last"
        except Exception as error:  # each format's reader has errors of its own
            raise DataError(f"{path}: cannot be read as an image ({error})") from error
    if image.ndim == 2:
        return image[None]
    if image.ndim != 3:
        raise DataError(f"{path}: one image has two dimensions, or three with {order} (got {image.shape})")
    return image if order == "channels first" else np.moveaxis(image, -1, 0)


def _load_array(path: Path, key: str | None) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files if key in (None, name)}
            names = loaded.files
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as an array ({error})") from error
    if len(arrays) != 1:
        raise DataError(f"{path}: give the name of the array as `key`, one of {', '.join(names)} (got {key!r})")
    return next(iter(arrays.values()))


def _central(image: np.ndarray, crop: int, name: str) -> np.ndarray:
    height, width = image.shape[-2:]
    if min(height, width) < crop:
        raise DataError(f"{name}: {height} x {width} pixels are too few for crop {crop}")
    top, left = (height - crop) // 2, (width - crop) // 2
    return image[..., top : top + crop, left : left + crop]
