"""Files of weights: read without running what is in them, written whole or not at all.

Our own are safetensors files whose metadata entry "scoreplug" is JSON, {"model": {"name": ..., "params": {...}}, ...}:
enough to build the model again. State dicts saved by PyTorch are read too.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from scoreplug.foreign import check_file, objection, one_line, shown

if TYPE_CHECKING:
    from torch import Tensor

METADATA_KEY = "scoreplug"


class CheckpointError(ValueError):
    """A file of weights cannot be used. `path` says which, `reason` why."""

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = str(path)
        self.reason = one_line(reason)
        super().__init__(self.path, self.reason)  # the arguments as they came: it travels between processes

    def __str__(self) -> str:
        return f"checkpoint {shown(self.path)}: {self.reason}"


def load_state_dict(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file of weights. No code in it is run.

    Args:
        path: a safetensors file, or one that `torch.save` made of a state dict; which of them, the first bytes tell.

    Returns:
        The tensors by name, on the CPU and in the types of the file, and the file's metadata (empty for PyTorch's).

    Raises:
        CheckpointError: if there is no such file, it is damaged, or holds anything but tensors.
    """
    path = Path(path)
    if _is_safetensors(path):
        with _opened(path, framework="pt") as file:
            try:
                return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
            except Exception as error:  # a type that this torch does not know, and whatever else a header may say
                raise CheckpointError(path, f"damaged safetensors file: {error}") from error
    return _load_pickled(path), {}


def read_model_config(path: str | Path) -> tuple[str, dict[str, Any]]:
    """Which model a file of ours holds. The weights are not read, and torch is not imported.

    Returns:
        The model's registry name, and the parameters to build it with.

    Raises:
        CheckpointError: if the file cannot be read, or is not one of ours.
    """
    path = Path(path)
    if not _is_safetensors(path):
        raise CheckpointError(path, "not a safetensors file, so it does not say which model it is: name the model")
    with _opened(path, framework="np") as file:
        metadata = dict(file.metadata() or {})
    config = model_config(path, metadata)
    if config is None:
        raise CheckpointError(
            path, f"its metadata has no {METADATA_KEY!r} entry to say which model it is: name the model"
        )
    return config


def model_config(path: str | Path, metadata: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """The model that a file's metadata describes; None if they are not ours.

    Raises:
        CheckpointError: if the entry is there, but not of the form above.
    """
    if METADATA_KEY not in metadata:
        return None
    try:
        model = json.loads(metadata[METADATA_KEY])["model"]
        name, params = model["name"], model["params"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            path, f"its metadata entry {METADATA_KEY!r} does not describe a model: {error!r}"
        ) from error
    if not isinstance(name, str) or not isinstance(params, dict):
        raise CheckpointError(
            path, f"its metadata entry {METADATA_KEY!r} does not describe a model (got {shown(model)})"
        )
    if wrong := objection({"name": name, **params}):
        raise CheckpointError(path, f"its metadata entry {METADATA_KEY!r} does not describe a model: {wrong}")
    return name, params


def write_checkpoint(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file in one step: whoever reads `path` sees the old file or the new one, never a part.

    Args:
        path: the file; its folder exists.
        tensors: by name; copied to the CPU.
        metadata: strings to keep with them.

    Raises:
        OSError: if it cannot be written; an older file is then still there.
    """
    from safetensors.torch import save_file

    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    # clone: tensors that share memory cannot be stored
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    try:
        save_file(copies, temporary, metadata=dict(metadata))
        _sync(temporary)
        os.replace(temporary, path)
    except SafetensorError as error:  # its way to say that the disk is full
        raise OSError(f"cannot write {str(path)!r}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not every system can open a folder
        _sync(path.parent)


def _is_safetensors(path: Path) -> bool:
    """A safetensors file begins with the length of its header, 8 bytes, and the header, which is JSON."""
    try:
        check_file(path)
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError as error:
        raise CheckpointError(path, "there is no such file") from error
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror}") from error
    if not start:
        raise CheckpointError(path, "the file is empty")
    return path.suffix == ".safetensors" or start[8:] == b"{"


def _opened(path: Path, *, framework: str) -> safe_open:
    try:
        return safe_open(path, framework)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(path, f"damaged or not a safetensors file: {error}") from error


def _load_pickled(path: Path) -> dict[str, Tensor]:
    import torch

    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"  # the format since PyTorch 1.6, which can stay on disk until it is used
    if zipped:
        _check_archive(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a damaged pickle raises whatever its opcodes lead to
        if code := re.search(r"(?:Unsupported global: GLOBAL|GLOBAL|Unsupported class) (\S+)", str(error)):
            reason = f"holds code ({code[1]}), which is not run; save the state dict alone, or as safetensors"
        else:
            reason = f"damaged, or not a file of weights: {str(error).splitlines()[0] if str(error) else error!r}"
        raise CheckpointError(path, reason) from error
    tensors = isinstance(state, dict) and all(isinstance(value, torch.Tensor) for value in state.values())
    if not tensors or not state or not all(isinstance(name, str) for name in state):
        found: object = type(state).__name__
        if isinstance(state, dict):
            found = shown(sorted(name if isinstance(name, str) else type(name).__name__ for name in state)[:5])
        raise CheckpointError(path, f"is not a state dict, names to tensors: save that alone (found {found})")
    for name, value in state.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_nested:
            raise CheckpointError(path, f"{shown(name)} is no plain tensor: save it dense, and not quantized")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CheckpointError(
                path, f"{shown(name)} declares {shown(tuple(value.shape))}, more than is stored: save a copy of it"
            )
    return state


def _check_archive(path: Path) -> None:
    """Refuse a zipped checkpoint that unpacks to more than it is: torch writes its members as they are.

    Raises:
        CheckpointError: if it does, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # of a damaged directory, whatever its fields lead to
        raise CheckpointError(path, f"damaged, or not a file of weights: {error}") from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError(path, "its members are compressed, to a size that is not known: save it by torch.save")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise CheckpointError(path, "damaged, or made to deceive: its members overlap")


def _sync(path: Path) -> None:
    """Have it on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
