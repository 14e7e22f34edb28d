"""Rows on disk: one file each while cells are computed, and all of them in one sorted file afterwards.

OUT/rows/<key>.json     written atomically as cells finish; what a run that was stopped takes up again
OUT/rows.jsonl          one row per line in a fixed order: two such files merge line by line
OUT/rows.csv            the same for a spreadsheet
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from scoreplug.bench.cell import Cell, Row, canonical
from scoreplug.foreign import check_file, one_line
from scoreplug.run.store import write_atomic


@attrs.frozen
class RowStore:
    """The rows of a folder."""

    folder: Path = attrs.field(converter=Path)

    @property
    def merged(self) -> Path:
        return self.folder / "rows.jsonl"

    def open(self) -> None:
        """Make the folder.

        Raises:
            OSError: if that is not possible, with the folder's name.
        """
        try:
            (self.folder / "rows").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            name, why = str(self.folder), error.strerror or error
            raise type(error)(f"cannot make the output folder {name!r}: {why}; choose another --out") from error

    def save(self, row: Row) -> None:
        """Write a row where its key says."""
        write_atomic(self._path(row.key), f"{canonical(row.table)}\n".encode())

    def load(self, cells: Iterable[Cell]) -> dict[str, Row]:
        """The rows that are there already, by key, under the cells' present labels; a damaged file is not there."""
        merged = {row.key: row for row in read_rows(self.merged)} if self.merged.is_file() else {}
        found = {}
        for cell in cells:
            row = self._read(self._path(cell.key)) or merged.get(cell.key)
            if row is not None:
                found[cell.key] = attrs.evolve(row, cell=cell)
        return found

    def merge(self, rows: Iterable[Row]) -> list[Row]:
        """Write rows.jsonl and rows.csv with the given rows and all others of the folder.

        Returns:
            All rows, in the order of the files.
        """
        found = {row.key: row for row in read_rows(self.merged)} if self.merged.is_file() else {}
        given = {row.key: row for row in rows}
        for path in sorted((self.folder / "rows").glob("*.json")):
            row = None if path.stem in given else self._read(path)
            if row is not None:
                found[row.key] = row
        found |= given
        ordered = sorted(found.values(), key=_place)
        write_atomic(self.merged, "".join(f"{canonical(row.table)}\n" for row in ordered).encode())
        write_atomic(self.folder / "rows.csv", to_csv(ordered).encode())
        return ordered

    def _path(self, key: str) -> Path:
        return self.folder / "rows" / f"{key}.json"

    def _read(self, path: Path) -> Row | None:
        try:
            return Row.from_table(json.loads(path.read_bytes()))
        except (OSError, ValueError, AttributeError, RecursionError):
            return None


def read_rows(path: Path) -> list[Row]:
    """The rows of a rows.jsonl.

    Raises:
        ValueError: with the line that is no row.
        OSError: if the file cannot be read.
    """
    check_file(path)
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            rows.append(Row.from_table(json.loads(line)))
        except (ValueError, AttributeError, RecursionError) as error:
            why = f"line {number} of {str(path)!r} is no row of a benchmark: {error}"
            raise ValueError(one_line(why)) from error
    return rows


def find_row(path: Path, key: str) -> Row:
    """The row of a folder or of a rows.jsonl whose key begins with `key`.

    Raises:
        LookupError: if there is none, or more than one.
        ValueError, OSError: as `read_rows`.
    """
    file = RowStore(path).merged if path.is_dir() else path
    found = [row for row in read_rows(file) if row.key.startswith(key)]
    if len(found) != 1:
        which = "no row" if not found else f"{len(found)} rows"
        more = "" if not found else f", {', '.join(row.key[:12] for row in found)}; give more of the key"
        raise LookupError(f"{str(file)!r} has {which} whose key begins with {key!r}{more}")
    return found[0]


def to_csv(rows: Sequence[Row]) -> str:
    """Rows as a table; what a row does not have is empty."""
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(column for line in flat for column in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    cell = row.cell
    return {
        "problem": cell.problem_label,
        "method": cell.method_label,
        "seed": cell.seed,
        "n": cell.n,
        "budget": cell.budget,
        "status": row.status,
        "reason": row.reason,
        "steps": row.steps,
        **{f"cost_{name}": value for name, value in row.cost.items()},
        **row.metrics,
        **{f"rank_{name.replace(' ', '_')}": value for name, value in row.ranks.items()},
        **{f"report_{name}": value for name, value in row.report.items()},
        "key": row.key,
    }


def _place(row: Row) -> tuple[Any, ...]:
    cell = row.cell
    return cell.problem_label, cell.method_label, cell.n, cell.budget or 0, cell.seed, row.key
