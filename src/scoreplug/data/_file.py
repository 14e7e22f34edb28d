"""One array in a file: what is known before it is read, and the reading of it or of one slice."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from scoreplug.foreign import LINE, one_line, shown

LARGEST = 4 * 2**30
"""Bytes that one reading may take in memory. A small file can declare, or unpack to, any size."""


class DataError(ValueError):
    """A file or its images cannot be used. The message names the file, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


@attrs.frozen(kw_only=True, eq=False)
class ArrayFile:
    """An array in a file, opened but not read.

    Args:
        path: of the file, or of the folder of a series.
        shape: of the whole array.
        dtype: of the numbers as they are stored.
        take: reads the array at an index, of which () is everything.
        axis: along which the slices lie; None if the format does not say.
        scaled: whether the format's own scaling makes float64 of them.
        volume: whether the file holds several images, of which one has to be chosen.
        whole: whether even a slice costs the memory of the whole array.
        facts: what the file says of its values, in JSON's types: affine, rescaling, unit.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    take: Callable[[tuple[Any, ...]], np.ndarray]
    axis: int | None = 0
    scaled: bool = False
    volume: bool = False
    whole: bool = False
    facts: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def counted(self) -> bool:
        """Whether the stored numbers are integers, which have no unit of their own."""
        return self.dtype.kind in "iub"

    def read(self, number: int | None = None, axis: int | None = None) -> np.ndarray:
        """Read the whole array, or slice `number` along `axis`.

        Raises:
            DataError: if there is no such slice, or it cannot be read or is too large.
        """
        where: tuple[Any, ...] = ()
        shape = self.shape
        if number is not None:
            axis = self.slice_axis(axis)
            if not 0 <= number < shape[axis]:
                last = shape[axis] - 1
                raise DataError(f"{self.path!r} has slices 0 to {last} along axis {axis} of {shape} (got {number})")
            where = (*[slice(None)] * axis, number)
            shape = shape[:axis] + shape[axis + 1 :]
        shape = self.shape if self.whole else shape
        fits(self.path, shape, np.result_type(self.dtype, np.float64) if self.scaled else self.dtype)
        try:
            return np.array(self.take(where))
        except Exception as error:  # each format's reader has errors of its own
            raise unreadable(self.path, error) from error

    def slice_axis(self, axis: int | None) -> int:
        """The axis along which slices are counted: the one that is stated, or else the format's.

        Raises:
            DataError: if the array has no such axis, or none is known.
        """
        axis = self.axis if axis is None else axis
        if axis is None:
            raise DataError(
                f"{self.path!r} holds a volume {self.shape}; say along which axis its slices lie by `axis`, which is "
                "2 for the third"
            )
        if axis >= len(self.shape):
            raise DataError(f"{self.path!r} has shape {self.shape}, and no axis {axis}; axes count from 0")
        return axis


def fits(path: str, shape: Iterable[int], dtype: np.dtype[Any]) -> None:
    """Refuse what would take too much memory, before anything is decoded.

    Raises:
        DataError: if it would.
    """
    shape = tuple(shape)
    needed = math.prod(shape) * max(dtype.itemsize, 1)
    if needed > LARGEST:
        size = f"{needed / 2**30:.1f}" if needed < 2**100 else "over 2^70"
        raise DataError(
            f"{path!r} declares {dtype} {shown(shape)}, {size} GiB, and at most {LARGEST / 2**30:.1f} GiB are "
            "read at once; choose one slice, or cut it out first"
        )
    if any(length < 0 for length in shape):
        raise DataError(f"{path!r} declares {dtype} {shown(shape)}, which no array can have")


def unreadable(path: str, error: Exception) -> DataError:
    """The error of a reader, in one line that names the file."""
    if isinstance(error, DataError):
        return error
    words = " ".join(str(error)[:LINE].split())
    return DataError(f"cannot read {path!r}: {type(error).__name__}{': ' if words else ''}{words}")


def chosen(path: str, key: str | None, names: Iterable[str], arrays: Mapping[str, str]) -> str:
    """The name of the array that is meant: `key`, or the only one, or the first of the usual `names` that is there.

    Args:
        arrays: those in the file: their names and, in words, what they are.

    Raises:
        DataError: if it is not there, or cannot be told.
    """
    listed = ", ".join(f"{name} {what}".strip() for name, what in arrays.items()) or "no arrays"
    if key is not None:
        if key not in arrays:
            raise DataError(f"{path!r} holds no array {shown(key)}; it holds {listed}")
        return key
    usual = [name for name in names if name in arrays]
    if len(arrays) != 1 and not usual:
        raise DataError(f"{path!r} holds {listed}; say which array is meant by `key`")
    return next(iter(arrays)) if len(arrays) == 1 else usual[0]


def begins_as_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its first bytes; many have no suffix."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def only_array(path: str, key: str | None) -> None:
    """Refuse the name of an array where a file has but one.

    Raises:
        DataError: if there is a name.
    """
    if key is not None:
        raise DataError(f"{path!r} holds one array without a name; leave out `key` (got {key!r})")


def package(name: str, path: str) -> Any:
    """Import a package that only one format needs.

    Raises:
        DataError: if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(f"reading {path!r} needs {name.partition('.')[0]}: pip install 'scoreplug[medical]'") from error
