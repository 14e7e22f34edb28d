"""The run directory: written beside its place, and renamed when it is complete.

A run that is killed leaves `<name>.partial` with its finished chunks behind; the same run into the same folder takes
them up again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np


@attrs.frozen
class RunFolder:
    """A run directory that is being made."""

    path: Path = attrs.field(converter=Path)

    @property
    def partial(self) -> Path:
        return self.path.absolute().with_name(self.path.absolute().name + ".partial")

    @property
    def chunks(self) -> Path:
        return self.partial / "chunks"

    def check(self) -> None:
        """Refuse a folder that cannot become a run directory, without touching anything.

        Raises:
            FileExistsError: if it exists and is not an empty folder.
            NotADirectoryError, PermissionError: if it cannot be made.
        """
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"the output folder {str(self.path)!r} is a file; choose another --out")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise FileExistsError(f"the output folder {str(self.path)!r} is not empty; choose another --out")
        above = next(folder for folder in self.partial.parents if folder.exists())
        if not above.is_dir():
            raise NotADirectoryError(f"cannot make the output folder {str(self.path)!r}: {str(above)!r} is a file")
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(
                f"cannot make the output folder {str(self.path)!r}: no permission to write in {str(above)!r}"
            )

    def open(self) -> None:
        """Make the partial folder.

        Raises:
            OSError: if that is not possible, with the folder's name.
        """
        self.check()
        try:
            self.chunks.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise type(error)(f"cannot make the output folder {str(self.path)!r}: {error.strerror or error}") from error

    def leave(self) -> str:
        """End a run that is not complete: keep its finished chunks, or remove the folder if there are none.

        Returns:
            What is kept, in a sentence.
        """
        finished = len(list(self.chunks.glob("*.json")))
        if not finished:
            shutil.rmtree(self.partial, ignore_errors=True)
            return "Nothing was finished, so nothing is kept"
        return (
            f"Finished chunks ({finished}) are kept in {str(self.chunks)!r}; "
            f"the same run with --out {str(self.path)!r} goes on from there"
        )

    def complete(self) -> Path:
        """Drop the chunks, whose samples are in the arrays now, and give the folder its name."""
        shutil.rmtree(self.chunks)
        if self.path.is_dir():
            self.path.rmdir()  # empty, or `open` would have refused it
        self.partial.rename(self.path)
        return self.path


@attrs.frozen
class ChunkStore:
    """Results of chunks, addressed by the hash of what was asked."""

    folder: Path

    def save(self, key: str, samples: np.ndarray, facts: dict[str, Any]) -> None:
        """Write samples and facts; the facts come last, and vouch for the samples by their checksum."""
        buffer = io.BytesIO()
        np.save(buffer, samples, allow_pickle=False)
        content = buffer.getvalue()
        write_atomic(self.folder / f"{key}.npy", content)
        record = {"sha256": hashlib.sha256(content).hexdigest(), **facts}
        write_atomic(self.folder / f"{key}.json", json.dumps(record).encode())

    def save_frames(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write what was seen on the way to the samples. It comes before them, and no number depends on it."""
        write_atomic(self.folder / f"{key}.npz", to_npz(arrays))

    def load_frames(self, key: str) -> dict[str, np.ndarray] | None:
        """What was seen on the way, or None if it is missing or damaged."""
        try:
            content = (self.folder / f"{key}.npz").read_bytes()
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error):
            return None

    def load(self, key: str) -> tuple[np.ndarray, dict[str, Any]] | None:
        """Samples and facts, or None if they are missing or damaged."""
        try:
            record = json.loads((self.folder / f"{key}.json").read_bytes())
            content = (self.folder / f"{key}.npy").read_bytes()
        except (OSError, ValueError):
            return None
        if not isinstance(record, dict) or record.pop("sha256", None) != hashlib.sha256(content).hexdigest():
            return None
        return np.load(io.BytesIO(content), allow_pickle=False), record


def to_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as a compressed .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all, also after a crash."""
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
