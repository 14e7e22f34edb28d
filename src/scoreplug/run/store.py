"""The run directory: written beside its place, and renamed when it is complete.

    NAME.partial/                a run on its way
        config.toml              what is run
        plan.json                versions and files that its chunks were computed with
        memory.json              the batch that its memory budget allows, and why
        SHA256SUMS               checksums of the files beside it
        lock                     held by the process that writes here
        chunks/KEY.npy .json     samples of a chunk; what they cost, and the checksums
        chunks/KEY.npz           how the first samples came about
        diverged.npz             what was finite of a chunk that diverged
    NAME/                        a run that is complete; `sha256sum -c SHA256SUMS` checks it

Files are written whole or not at all, so that a run may be killed at any moment: what is finished is taken up again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import socket
import uuid
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

SUMS = "SHA256SUMS"
"""Checksums of the files of a folder, as `sha256sum` writes them."""

_ON_THE_WAY = ("plan.json", "memory.json", "diverged.npz", "lock")
"""Files that a complete run does not have."""

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}")


@attrs.define
class RunFolder:
    """A run directory that is being made."""

    path: Path = attrs.field(converter=Path)
    _lock: int | None = attrs.field(default=None, init=False)

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
        if "\0" in str(self.path) or self.path.name == "..":
            raise FileNotFoundError(f"the output folder cannot be {str(self.path)!r}; choose another --out")
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"the output folder {str(self.path)!r} is a file; choose another --out")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise FileExistsError(f"the output folder {str(self.path)!r} is not empty; choose another --out")
        above = next(folder for folder in self.partial.parents if folder.exists())
        if not above.is_dir():
            raise NotADirectoryError(f"cannot make the output folder {str(self.path)!r}: {str(above)!r} is a file")
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(
                f"cannot make the output folder {str(self.path)!r}: no permission to write in {str(above)!r}, "
                "or it is read-only"
            )

    def open(self) -> None:
        """Make the partial folder, and keep others from writing to it until `leave` or `complete`.

        Raises:
            BlockingIOError: if another run writes there.
            OSError: if it cannot be made, with the folder's name.
        """
        self.check()
        try:
            self._lock = _locked(self.partial / "lock")
            if self.path.is_dir() and any(self.path.iterdir()):  # whoever held the lock is done
                self.leave()
                self.check()
            self.chunks.mkdir(exist_ok=True)
            for folder in (self.partial, self.chunks):
                for file in folder.iterdir():
                    if _UNFINISHED.fullmatch(file.name):  # of a process that was killed
                        file.unlink()
        except BlockingIOError as error:
            raise BlockingIOError(
                f"a run is under way in {str(self.partial)!r} ({error}); wait for it, or choose another --out"
            ) from error
        except OSError as error:
            self._release()
            if error.errno is None:  # a refusal of `check`
                raise
            raise type(error)(f"cannot make the output folder {str(self.path)!r}: {error.strerror or error}") from error

    def begin(self, contents: Mapping[str, bytes]) -> None:
        """Write what the chunks will belong to, and its checksums."""
        for name, content in contents.items():
            write_atomic(self.partial / name, content)
        write_sums(self.partial, contents)

    def leave(self) -> str:
        """End a run that is not complete: keep what is finished, or remove the folder if nothing is.

        Returns:
            What is kept, in a sentence.
        """
        try:
            if not self.partial.exists() and (self.path / SUMS).exists():
                return f"The run in {str(self.path)!r} is complete"
            finished = len(list(self.chunks.glob("*.json")))
            if not finished and not (self.partial / "diverged.npz").exists():
                shutil.rmtree(self.partial, ignore_errors=True)
                return "Nothing was finished, so nothing is kept"
            return f"Finished chunks ({finished}) are kept in {str(self.chunks)!r}; `{self.command}` goes on from there"
        finally:
            self._release()

    @property
    def command(self) -> str:
        """What to type for the rest of an interrupted run."""
        return f"scoreplug run --resume {shlex.quote(str(self.path))}"

    def complete(self) -> Path:
        """Give the folder its name, and drop the chunks, whose samples are in the arrays now.

        In this order: a process that is killed between the two has lost nothing.
        """
        if self.path.is_dir():
            self.path.rmdir()  # empty, or `open` would have refused it
        if os.name == "nt":
            self._release()  # a folder with an open file cannot be renamed there
        self.partial.rename(self.path)
        _sync(self.path.absolute().parent)
        self.tidy()
        self._release()
        return self.path

    def tidy(self) -> None:
        """Remove from a complete run what belongs to one on its way."""
        shutil.rmtree(self.path / "chunks", ignore_errors=True)
        for name in _ON_THE_WAY:
            (self.path / name).unlink(missing_ok=True)

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@attrs.frozen(kw_only=True, eq=False)
class Stored:
    """The result of a chunk as it was stored.

    Args:
        samples: (n, *shape).
        facts: what they cost.
        frames: arrays of what was seen on the way, or None.
    """

    samples: np.ndarray
    facts: dict[str, Any]
    frames: dict[str, np.ndarray] | None


class DamageWarning(UserWarning):
    """A stored result is not what was written; it is computed again."""


@attrs.frozen
class ChunkStore:
    """Results of chunks, addressed by the hash of what was asked."""

    folder: Path

    def save(
        self,
        key: str,
        samples: np.ndarray,
        facts: dict[str, Any],
        frames: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write arrays and facts. The record comes last: it vouches for the arrays, and for itself, by checksums."""
        contents = {} if frames is None else {"npz": to_npz(frames)}
        contents["npy"] = _to_npy(samples)
        for ending, content in contents.items():
            write_atomic(self.folder / f"{key}.{ending}", content)
        record = {"facts": facts, "files": {ending: _sha256(content) for ending, content in contents.items()}}
        write_atomic(self.folder / f"{key}.json", json.dumps(record | {"sha256": _of_record(record)}).encode())

    def load(self, key: str) -> Stored | None:
        """A result, or None if it is missing; damage is told by a warning, and counts as missing."""
        if not (self.folder / f"{key}.json").exists():
            return None
        try:
            record = self._record(key)
            contents = {ending: self._content(f"{key}.{ending}", sha) for ending, sha in record["files"].items()}
        except _Damage as damage:
            path, why = str(self.folder / damage.name), damage.why
            warnings.warn(f"{path!r} is damaged ({why}); its chunk is computed again", DamageWarning, stacklevel=2)
            return None
        return Stored(
            samples=np.load(io.BytesIO(contents["npy"]), allow_pickle=False),
            facts=record["facts"],
            frames=from_npz(contents["npz"]) if "npz" in contents else None,
        )

    def clear(self) -> int:
        """Remove every result. Returns how many there were."""
        count = len(list(self.folder.glob("*.json")))
        for file in self.folder.iterdir():
            file.unlink()
        return count

    def _record(self, key: str) -> dict[str, Any]:
        name = f"{key}.json"
        try:
            record: dict[str, Any] = json.loads(self._content(name))
            checksum = record.pop("sha256")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _Damage(name, "it is no record") from error
        if checksum != _of_record(record):
            raise _Damage(name, _OTHER)
        return record

    def _content(self, name: str, checksum: str | None = None) -> bytes:
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise _Damage(name, error.strerror or str(error)) from error
        if checksum is not None and _sha256(content) != checksum:
            raise _Damage(name, _OTHER)
        return content


class _Damage(Exception):
    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name, self.why = name, why


_OTHER = "its checksum is another one"


def write_sums(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write the checksums of files, given by their contents; `sha256sum -c SHA256SUMS` reads them too."""
    lines = [f"{_sha256(content)}  {name}\n" for name, content in sorted(contents.items())]
    write_atomic(folder / SUMS, "".join(lines).encode())


def damaged(folder: Path) -> dict[str, str]:
    """The files of a folder that are not what its checksums say, and why, by name; empty if all is well."""
    try:
        text = (folder / SUMS).read_bytes().decode("utf-8", "replace")
    except OSError as error:
        return {SUMS: error.strerror or str(error)}
    *lines, end = text.split("\n")
    found = {} if lines and not end else {SUMS: "it is not what was written"}
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  ([^/\\]+)", line)
        if match is None:
            found[SUMS] = "it is not what was written"
            continue
        checksum, name = match.groups()
        try:
            if _sha256((folder / name).read_bytes()) != checksum:
                found[name] = _OTHER
        except OSError as error:
            found[name] = error.strerror or str(error)
    return found


def to_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as a compressed .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def from_npz(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an .npz file.

    Raises:
        ValueError: if it is none, or damaged.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except (zipfile.BadZipFile, zlib.error, OSError, LookupError, NotImplementedError) as error:
        raise ValueError(f"no .npz file, or a damaged one: {error}") from error


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all, also after a crash.

    Raises:
        OSError: with the file's name; what was there before is there still.
    """
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync(path.parent)
    except OSError as error:
        _forget(unfinished)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    except BaseException:
        _forget(unfinished)
        raise


def _forget(file: Path) -> None:
    with contextlib.suppress(OSError):  # the disk has its own trouble; what went wrong first is told
        file.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make a rename last, where the system lets folders be synchronised."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _to_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _of_record(record: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(record, sort_keys=True).encode())


def _locked(path: Path) -> int:
    """Lock a file until its descriptor is closed, or this process ends in whatever way.

    It is the system's lock: the file that a dead process leaves behind locks nobody out. What it says is for people.

    Raises:
        BlockingIOError: if another process has it, with what the file says.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock_now(descriptor)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return descriptor
            os.close(descriptor)  # whoever held it has removed or renamed the folder meanwhile
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode("utf-8", "replace")
            os.close(descriptor)
            raise BlockingIOError(holder or "another process has the lock") from None
        except BaseException:
            os.close(descriptor)
            raise


def _lock_now(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # beyond what is written, which others may read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            os.lseek(descriptor, 0, os.SEEK_SET)
        except PermissionError as error:
            raise BlockingIOError from error
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise BlockingIOError from error
        if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL):
            raise  # a file system without locks is used without
