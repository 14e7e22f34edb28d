"""Where a result comes from: versions, plugins, checksums."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from scoreplug import registry
from scoreplug.run.config import ROLES, RunConfig

_PACKAGES = ("scoreplug", "torch", "numpy", "scipy", "scikit-image")


def provenance(
    files: Mapping[str, str], *, started: datetime, finished: datetime, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What made the run.

    Args:
        files: checksums of the files that went in, by path.
        facts: what the input file says of itself: affine, rescaling, unit.
        started, finished: with their time zone.
    """
    return {
        "started": started.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in _PACKAGES},
        "plugins": [_plugin(plugin) for plugin in registry.plugins()],
        "sha256": dict(files),
        "input": dict(facts or {}),
    }


def versions(config: RunConfig) -> dict[str, str]:
    """Versions of what the samples are computed with: scoreplug, torch, and the plugins whose components take part."""
    roles = {role: getattr(config, role) for role in ROLES}
    plugins = [registry.find(role, component.name).plugin for role, component in roles.items() if component is not None]
    found = {plugin.name: plugin.version or "without a version" for plugin in plugins}
    return {"scoreplug": version("scoreplug"), "torch": version("torch"), **dict(sorted(found.items()))}


def checksums(config: RunConfig) -> dict[str, str]:
    """SHA-256 of every file that the config names, by path; of an input folder, of the files in it."""
    paths = {text for text in _strings(config.table) if _is_file(text)}
    given = config.table.get("input", {})  # a file by what it is for, whatever its name looks like
    for path in (Path(given[role]) for role in ("image", "measurement") if role in given):
        paths |= {str(file) for file in (path.iterdir() if path.is_dir() else [path]) if file.is_file()}
    return {path: sha256(path) for path in sorted(paths)}


def sha256(path: str) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plugin(plugin: registry.Plugin) -> dict[str, Any]:
    origin = plugin.origin()
    facts: dict[str, Any] = {"name": plugin.name, "version": plugin.version, "state": plugin.state}
    if origin is not None:
        facts |= {"commit": origin.commit, "editable": origin.editable}
    return facts


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(inner)


def _is_file(text: str) -> bool:
    # "radon" may be the name of a component and, by chance, of a file here; only what looks like a path is one.
    try:
        return Path(text).suffix != "" and Path(text).is_file()
    except (OSError, ValueError):  # too long for a path, or with a null character
        return False
