"""The installed distributions that declare plugins.

`importlib.metadata` would tell the same, but its import takes as long as that of click, and every `scoreplug --help`
would pay for it. An installed distribution is a folder `name-version.dist-info` on the path, with the plugins in its
`entry_points.txt` and what it requires in the head of its `METADATA` (https://packaging.python.org, "Recording
installed projects"); that much is read here.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from scoreplug.foreign import check_file, printable


class EntryPoint(NamedTuple):
    """One line `name = value` in the group, with the distribution that has it; `info` is its folder of metadata."""

    distribution: str
    version: str | None
    name: str
    value: str
    info: Path


def canonical(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def entry_points(group: str) -> list[EntryPoint]:
    """The entry points of a group in the order (distribution, name).

    As in every import, the first on `sys.path` of several distributions of one name is the one that counts.
    """
    return sorted(
        EntryPoint(name, version, *line, info)
        for name, version, info in distributions()
        for line in _lines(info, group)
    )


def distributions() -> Iterator[tuple[str, str | None, Path]]:
    """Name, version and folder of metadata of each distribution; the first of a name on `sys.path`."""
    seen = set()
    for info in _infos():
        name, version = _identify(info)
        if name not in seen:
            seen.add(name)
            yield name, version, info


def _infos() -> Iterator[Path]:
    for folder in dict.fromkeys(sys.path):
        try:
            names = sorted(os.listdir(folder or "."))
        except OSError:
            continue  # not a folder, or gone: an entry of sys.path need not exist
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                yield Path(folder, name)


def _identify(info: Path) -> tuple[str, str | None]:
    """Name and version from 'name-1.0.dist-info'; an 'egg-info' may add the Python, or lack the version."""
    stem = printable(info.stem).replace("\n", "\\n")
    match = re.fullmatch(r"(.+?)(?:-(\d[^-]*))?(?:-py[\d.]+)?", stem)
    name, version = match.groups() if match else (stem, None)
    return canonical(name), version


def _lines(info: Path, group: str) -> Iterator[tuple[str, str]]:
    """`(name, value)` of each line in the group's section of entry_points.txt."""
    try:
        check_file(info / "entry_points.txt")
        text = Path(info, "entry_points.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return  # most distributions declare none
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[] ")
        elif section == group and line and not line.startswith(("#", ";")):
            name, _, value = printable(line).partition("=")
            yield name.strip(), value.partition("[")[0].strip()


def requirements(info: Path) -> list[str]:
    """The `Requires-Dist` lines of a distribution."""
    for name in ("METADATA", "PKG-INFO"):
        try:
            check_file(info / name)
            text = Path(info, name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        head = text.partition("\n\n")[0].splitlines()  # the description follows an empty line
        return [line.partition(":")[2].strip() for line in head if line.lower().startswith("requires-dist:")]
    return []
