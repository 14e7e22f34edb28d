"""Two run directories of one config: where their arrays differ, and what else does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from scoreplug.run.store import from_npz

TOLERANCE = 1e-6
"""Difference that a repetition may have, in units of an array's largest value: rounding, on another machine."""


@attrs.frozen(kw_only=True)
class Comparison:
    """One array of both runs.

    Args:
        name: in arrays.npz.
        values: how many there are; 0 if the arrays cannot be compared value by value.
        differing: how many are not the same to the bit.
        largest: difference, in units of the array's largest value; infinite where one is NaN or missing.
        first: index of the first value that differs, or None.
        note: why they cannot be compared, or "".
    """

    name: str
    values: int = 0
    differing: int = 0
    largest: float = 0.0
    first: tuple[int, ...] | None = None
    note: str = ""

    def within(self, tolerance: float) -> bool:
        """Whether the two are equal, up to so much."""
        return not self.note and self.largest <= tolerance


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a run directory.

    Raises:
        ValueError, OSError: if they cannot be read, with the file's name.
    """
    path = folder / "arrays.npz"
    try:
        return from_npz(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error


def compare(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> list[Comparison]:
    """Every array of either run, in the order of the first."""
    return [_compared(name, before.get(name), after.get(name)) for name in {**before, **after}]


def _compared(name: str, one: np.ndarray | None, other: np.ndarray | None) -> Comparison:
    if one is None or other is None:
        return Comparison(name=name, largest=np.inf, note=f"only {'now' if one is None else 'before'}")
    if one.shape != other.shape or one.dtype != other.dtype:
        note = f"{one.dtype} {one.shape} before, {other.dtype} {other.shape} now"
        return Comparison(name=name, largest=np.inf, note=note)
    bits = f"V{one.dtype.itemsize}"  # NaN equals NaN, and 0 is not -0
    differs = np.ascontiguousarray(one).view(bits) != np.ascontiguousarray(other).view(bits)
    places = np.argwhere(differs)
    if not len(places):
        return Comparison(name=name, values=one.size)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(one.astype(np.float64) - other.astype(np.float64))[differs]
        size = np.nanmax(np.abs(one), initial=0.0, where=np.isfinite(one))
    gap = np.where(np.isnan(gap), np.inf, gap)
    return Comparison(
        name=name,
        values=one.size,
        differing=len(places),
        largest=float(gap.max() / size if size > 0 else np.where(gap.max() > 0, np.inf, 0.0)),
        first=tuple(map(int, places[0])),
    )


def circumstances(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two provenances, of what could change a number; in words."""
    one, other = _flat(before), _flat(after)
    for name in {**one, **other}:
        if one.get(name) != other.get(name):
            yield f"{name}: {one.get(name, 'none')} before, {other.get(name, 'none')} now"


def _flat(provenance: Mapping[str, Any]) -> dict[str, str]:
    plugins = {str(p.get("name")): p for p in provenance.get("plugins", ())}
    versions = {f"plugin {name}": f"{p.get('version')} {p.get('commit') or ''}".strip() for name, p in plugins.items()}
    packages = {f"package {name}": str(version) for name, version in provenance.get("packages", {}).items()}
    files = {f"file {path!r}": f"{checksum[:12]}..." for path, checksum in provenance.get("sha256", {}).items()}
    machine = {key: str(provenance[key]) for key in ("python", "platform", "threads") if key in provenance}
    return {**packages, **versions, **files, **machine}
