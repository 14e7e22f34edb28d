"""DICOM: a file, or a folder with the files of a series.

RescaleSlope and RescaleIntercept are applied, so that computed tomography comes in Hounsfield units. Slices of a series
are in the order of their position along the normal of the image plane. Padding stays what the file says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from scoreplug.data._file import ArrayFile, DataError, begins_as_dicom, fits, only_array, package
from scoreplug.foreign import shown

_DEFLATED = "1.2.840.10008.1.2.1.99"


@attrs.frozen(kw_only=True, eq=False)
class _Header:
    """What a file says of its pixels."""

    path: Path
    shape: tuple[int, ...]  # ([frames,] [3,] height, width)
    frames: int
    colour: bool
    dtype: np.dtype[Any]
    slope: float
    intercept: float
    unit: str
    series: str
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    number: int | None

    @property
    def depth(self) -> float | None:
        """Position along the normal of the image plane, in millimetres."""
        if self.orientation is None or self.position is None:
            return None
        return float(np.cross(self.orientation[:3], self.orientation[3:]) @ np.array(self.position))

    def pixels(self) -> np.ndarray:
        """The values, rescaled, of `shape`."""
        stored = package("pydicom", str(self.path)).dcmread(self.path).pixel_array
        stored = np.moveaxis(stored, -1, -3) if self.colour else stored
        if stored.shape != self.shape:
            raise DataError(f"cannot read {str(self.path)!r}: it declares {self.shape} and holds {stored.shape}")
        return self.slope * stored.astype(np.float64) + self.intercept

    @property
    def facts(self) -> dict[str, Any]:
        return {"rescale_slope": self.slope, "rescale_intercept": self.intercept, "unit": self.unit}


def open_dicom(path: Path, key: str | None, names: tuple[str, ...]) -> ArrayFile:
    """One file: (H, W), (3, H, W) in colour, or (frames, H, W)."""
    del names
    only_array(str(path), key)
    header = _header(path)
    return ArrayFile(
        path=str(path),
        shape=header.shape,
        dtype=header.dtype,
        scaled=True,
        take=lambda where: header.pixels()[where],
        volume=header.frames > 1,
        axis=0 if header.frames > 1 else None,
        whole=True,
        facts=header.facts,
    )


def open_series(path: Path, key: str | None, names: tuple[str, ...]) -> ArrayFile:
    """The series of a folder, (slices, H, W). `key` is the SeriesInstanceUID where there are several."""
    del names
    files = [file for file in sorted(path.iterdir()) if file.is_file() and _is_dicom(file)]
    if not files:
        raise DataError(f"{str(path)!r} is a folder without DICOM files; name a file, or the folder of a DICOM series")
    slices = _in_order(path, _one_series(path, [_header(file) for file in files], key))
    first = slices[0]

    def take(where: tuple[Any, ...]) -> np.ndarray:
        if where and isinstance(where[0], int):
            return slices[where[0]].pixels()[where[1:]]
        fits(str(path), (len(slices), *first.shape), np.dtype(np.float64))  # for a slice across them, too
        return np.stack([one.pixels() for one in slices])[where]

    return ArrayFile(
        path=str(path),
        shape=(len(slices), *first.shape),
        dtype=first.dtype,
        scaled=True,
        take=take,
        volume=True,
        facts={"series": first.series, **first.facts},
    )


def _is_dicom(path: Path) -> bool:
    return path.suffix.lower() == ".dcm" or begins_as_dicom(path)


def _header(path: Path) -> _Header:
    """Read and check what a file says of its pixels, without them."""
    name = str(path)
    pydicom = package("pydicom", name)
    if str(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")) == _DEFLATED:
        raise DataError(f"{name!r} is deflated as a whole, to an unknown size; save it without (dcmconv +te)")
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    missing = [tag for tag in ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation") if tag not in ds]
    if missing:
        raise DataError(f"{name!r} is DICOM without an image (no {', '.join(missing)})")
    colours, rows, columns = ds.PhotometricInterpretation, int(ds.Rows), int(ds.Columns)
    if colours == "MONOCHROME1":
        raise DataError(f"{name!r} stores white as its smallest value (MONOCHROME1); invert it to MONOCHROME2 first")
    if colours not in ("MONOCHROME2", "RGB"):
        raise DataError(f"{name!r} has the colours {colours}; convert it to MONOCHROME2 or RGB first")
    if "PerFrameFunctionalGroupsSequence" in ds or "ModalityLUTSequence" in ds:
        raise DataError(
            f"{name!r} scales its values frame by frame or by a table, which is not read; convert it to NIfTI or to "
            "one file per slice"
        )
    frames = int(ds.get("NumberOfFrames") or 1)
    shape: tuple[int, ...] = (3, rows, columns) if colours == "RGB" else (rows, columns)
    kind = "i" if ds.get("PixelRepresentation") else "u"
    slope, intercept = ds.get("RescaleSlope"), ds.get("RescaleIntercept")
    rescaled = slope is not None or intercept is not None
    number = ds.get("InstanceNumber")
    return _Header(
        path=path,
        shape=shape if frames == 1 else (frames, *shape),
        frames=frames,
        colour=colours == "RGB",
        dtype=np.dtype(f"{kind}{max(1, int(ds.BitsAllocated) // 8)}"),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        unit=str(ds.get("RescaleType") or ("HU" if rescaled and ds.get("Modality") == "CT" else "not stated")),
        series=str(ds.get("SeriesInstanceUID") or ""),
        orientation=_numbers(ds.get("ImageOrientationPatient"), 6),
        position=_numbers(ds.get("ImagePositionPatient"), 3),
        number=None if number is None else int(number),
    )


def _numbers(values: Sequence[Any] | None, count: int) -> tuple[float, ...] | None:
    return tuple(float(value) for value in values) if values is not None and len(values) == count else None


def _one_series(path: Path, headers: list[_Header], key: str | None) -> list[_Header]:
    """The files of the series that is meant."""
    counts: dict[str, int] = {}
    for header in headers:
        counts[header.series] = counts.get(header.series, 0) + 1
    listed = ", ".join(f"{series} ({count} files)" for series, count in counts.items())
    if key is not None and key not in counts:
        raise DataError(f"{str(path)!r} holds no series {shown(key)}; it holds {listed}")
    if key is None and len(counts) != 1:
        raise DataError(f"{str(path)!r} holds several series: {listed}; say which by `key`")
    return [header for header in headers if key in (None, header.series)]


def _in_order(path: Path, headers: list[_Header]) -> list[_Header]:
    """The slices by their position, or by their number where none has a position; refused if they are no stack."""
    first = headers[0]
    for header in headers:
        same = header.shape == first.shape and header.unit == first.unit
        if not same or not np.allclose(header.orientation or 0, first.orientation or 0, atol=1e-3):
            raise DataError(
                f"{str(path)!r} is no stack of slices: {header.path.name!r} and {first.path.name!r} differ in size, "
                "unit or orientation; put those that belong together in a folder of their own"
            )
    depths: list[float | None] = [header.depth for header in headers]
    if all(depth is None for depth in depths):
        depths = [None if header.number is None else float(header.number) for header in headers]
    keys = [round(depth, 3) for depth in depths if depth is not None]  # micrometres
    if len(headers) > 1 and len(set(keys)) != len(headers):
        raise DataError(
            f"{str(path)!r} has slices without a position of their own, so that their order is not known; put one "
            "stack in a folder of its own"
        )
    return [headers[i] for i in np.argsort(keys)] if len(headers) > 1 else headers
