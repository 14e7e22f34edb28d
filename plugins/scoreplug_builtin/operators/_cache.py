"""Tensors that take long to compute, kept on disk between runs."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import platformdirs
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class CacheWarning(UserWarning):
    """A stored result could not be read or written; it is computed anew."""


def folder() -> Path:
    """Where results are kept: the environment's SCOREPLUG_CACHE, or the user's cache directory."""
    chosen = os.environ.get("SCOREPLUG_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("scoreplug")


def cached(kind: str, key: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that `compute` gives, from disk if they are there.

    Args:
        kind: start of the file's name.
        key: all that the result depends on, in words; the file is named by its hash, and holds it.
        compute: gives the tensors.
    """
    path = folder() / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    found = _read(path, key)
    if found is None:
        found = compute()
        _write(path, key, found)
    return found


def _read(path: Path, key: str) -> dict[str, Tensor] | None:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        warnings.warn(f"{path} cannot be read and is made anew: {error}", CacheWarning, stacklevel=4)
        return None
    if metadata.get("key") != key or metadata.get("sum") != _sum(tensors):
        warnings.warn(f"{path} does not hold what it should and is made anew", CacheWarning, stacklevel=4)
        return None
    return tensors


def _write(path: Path, key: str, tensors: dict[str, Tensor]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:  # the file appears whole, or not at all
            save_file(tensors, Path(scratch) / path.name, metadata={"key": key, "sum": _sum(tensors)})
            os.replace(Path(scratch) / path.name, path)
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"{path} cannot be written, so that the next run computes it again: {error}; SCOREPLUG_CACHE names another "
            "folder",
            CacheWarning,
            stacklevel=4,
        )


def _sum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()
