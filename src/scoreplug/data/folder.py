"""A user's own images: a folder of files, each with an image or a volume, or one file with a stack."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np

from scoreplug.data._source import Split, check_indices
from scoreplug.data.files import FORMATS, ArrayFile, open_array, readable
from scoreplug.data.files import DataError as DataError
from scoreplug.param import param


@attrs.frozen(kw_only=True)
class Folder:
    """Images from `path`, in the order of their names; the last ones are held out.

    A file of the folder holds one image, (height, width) or (channels, height, width), channels first whatever the
    format; with an `axis` it holds a volume, and each slice along the axis is an image. A single file instead of a
    folder holds a stack, (N, height, width) or (N, channels, height, width), along its first axis or the one stated.
    What can be read is in `scoreplug.data.files`: NumPy, pictures, HDF5, NIfTI and DICOM.

    Only the slices that a batch needs are read. A compressed volume is unpacked for each of them, so unpack it once
    (.nii.gz to .nii) before a long training. Slices of one volume can be on both sides of the split; give the volumes
    names, and `held_out_share` a value, that part them.

    Values are used as they are: none is scaled, shifted or clipped. `data_range` says between which values they lie,
    and a value outside is an error; 8-bit files have data_range (0, 255), and so will the model's samples.

    Raises:
        DataError: if a file cannot be read, its shape differs from that of the first, or a value is not finite or
            outside the range.
        FileNotFoundError: if there is nothing at `path`.
    """

    path: str = param(doc="folder with files, or one file with a stack of images")
    data_range: tuple[float, float] = param(unit="of the files", doc="(low, high), between which all values lie")
    crop: int | None = param(None, ge=1, unit="pixel", doc="take the central crop x crop pixels of each image")
    held_out_share: float = param(
        0.1, gt=0.0, lt=1.0, doc="share of the images, the last ones, that training never sees"
    )
    key: str | None = param(None, doc="name of the array in files with several (.npz, HDF5)")
    axis: int | None = param(
        None, ge=0, doc="axis along which the slices of each file are images; none: a file of a folder is one image"
    )
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
        files = tuple(sorted(f for f in path.iterdir() if readable(f)))
        if not files:
            raise DataError(f"the folder {self.path!r} has no images; those are files ending in {', '.join(FORMATS)}")
        return files

    @functools.cached_property
    def _stack(self) -> np.ndarray | None:
        """The images of a single file, (N, ...); None for a folder."""
        if not Path(self.path).is_file():
            return None
        file = open_array(Path(self.path), key=self.key)
        if self.axis is None and file.axis is None and not file.volume:
            raise DataError(f"{self.path!r} holds one image; for images in files of their own give their folder")
        axis = file.slice_axis(self.axis)
        if len(file.shape) not in (3, 4) or file.shape[axis] == 0:
            raise DataError(
                f"{self.path}: a stack is (N, height, width) or (N, channels, height, width) (got {file.shape})"
            )
        return np.moveaxis(file.read(), axis, 0)

    @functools.cached_property
    def _counts(self) -> tuple[int, ...]:
        """How many images each file of the folder has."""
        if self.axis is None:
            return (1,) * len(self._files)
        files = [self._open(file) for file in self._files]
        return tuple(file.shape[file.slice_axis(self.axis)] for file in files)

    @functools.cached_property
    def _total(self) -> int:
        total = sum(self._counts) if self._stack is None else len(self._stack)
        if total < 2:
            raise DataError(f"{self.path!r} has one image; at least two are needed, one of them to be held out")
        return total

    def _open(self, path: Path) -> ArrayFile:
        return open_array(path, key=self.key)

    def _place(self, number: int) -> tuple[Path, int | None]:
        """The file of an image, and its slice in it."""
        if self.axis is None:
            return self._files[number], None
        ends = np.cumsum(self._counts)
        file = int(np.searchsorted(ends, number, side="right"))
        return self._files[file], number - int(ends[file]) + self._counts[file]

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
        name = self._name(number)
        image = self._raw(number)
        if image.ndim == 2:
            image = image[None]
        if image.ndim != 3:
            raise DataError(
                f"{name}: one image is (height, width) or (channels, height, width) (got {image.shape}); say by `axis` "
                "along which axis of a volume its slices lie"
            )
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

    def _raw(self, number: int) -> np.ndarray:
        if self._stack is not None:
            return self._stack[number]
        path, slice_number = self._place(number)
        file = self._open(path)
        if file.volume and self.axis is None:
            raise DataError(f"{path}: it holds a volume {file.shape}; say by `axis` along which axis its slices lie")
        return file.read(slice_number, self.axis)

    def _name(self, number: int) -> str:
        if self._stack is not None:
            return f"{self.path}, image {number}"
        path, slice_number = self._place(number)
        return str(path) if slice_number is None else f"{path}, slice {slice_number}"


def _central(image: np.ndarray, crop: int, name: str) -> np.ndarray:
    height, width = image.shape[-2:]
    if min(height, width) < crop:
        raise DataError(f"{name}: {height} x {width} pixels are too few for crop {crop}")
    top, left = (height - crop) // 2, (width - crop) // 2
    return image[..., top : top + crop, left : left + crop]
