"""An interrupted run, taken up from its folder alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from scoreplug.run.config import ConfigError, RunConfig, read
from scoreplug.run.provenance import checksums, versions
from scoreplug.run.resolve import resolve
from scoreplug.run.store import RunFolder, damaged


@attrs.frozen(kw_only=True)
class Record:
    """What the chunks of a run belong to.

    Args:
        versions: of what they were computed with, by name.
        files: checksums of the files that went in, by path.
    """

    versions: dict[str, str]
    files: dict[str, str]


def recorded(partial: Path) -> Record | None:
    """The record in a partial folder; None if there is none that can be read."""
    try:
        table = json.loads((partial / "plan.json").read_bytes())
        return Record(versions=dict(table["versions"]), files=dict(table["files"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def interrupted(path: Path) -> tuple[RunFolder, RunConfig]:
    """The run that stopped in a folder.

    Args:
        path: the run directory, or the `.partial` beside its place.

    Raises:
        ValueError, OSError: if there is nothing to go on from, or its chunks would not fit what is computed now.
    """
    path = path if path.name else path.absolute()
    folder = RunFolder(path.with_name(path.name.removesuffix(".partial")))
    partial = folder.partial
    if not partial.is_dir():
        raise FileNotFoundError(_why_not(folder))
    folder.check()
    broken = {
        name: why for name, why in damaged(partial).items() if (partial / name).exists() or _is_under_way(partial)
    }
    again = f"give its config or options again with --out {str(folder.path)!r}, and finished chunks are taken up"
    if broken:
        told = ", ".join(f"{name!r} is damaged ({why})" for name, why in broken.items())
        raise ValueError(f"the run in {str(partial)!r} cannot go on by itself: {told}; {again}")
    record = recorded(partial)
    if record is None or not (partial / "config.toml").is_file():
        raise FileNotFoundError(f"the run in {str(partial)!r} was stopped before anything was computed; {again}")
    try:
        config = resolve(read(partial / "config.toml"))
    except ConfigError as error:
        raise ConfigError([f"{str(partial / 'config.toml')!r}: {problem}" for problem in error.problems]) from error
    config_file, out = (shlex.quote(str(name)) for name in (partial / "config.toml", folder.path))
    anew = f"`scoreplug run {config_file} --out {out}` computes everything anew"
    if other := list(differing(record.versions, versions(config))):
        raise ValueError(f"the chunks in {str(partial)!r} are of other versions: {', '.join(other)}; {anew}")
    files = checksums(config)
    if changed := sorted(path for path in {*record.files, *files} if record.files.get(path) != files.get(path)):
        raise ValueError(
            f"files have changed since the run in {str(partial)!r} began: {', '.join(map(repr, changed))}; "
            f"put them back, or {anew}"
        )
    return folder, config


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """What differs between two tables, in words."""
    for name in sorted({*before, *now}):
        one, other = before.get(name, "none"), now.get(name, "none")
        if one != other:
            yield f"{name} {one}, now {other}"


def _is_under_way(partial: Path) -> bool:
    return any((partial / "chunks").glob("*.json"))


def _why_not(folder: RunFolder) -> str:
    name = str(folder.path)
    if (folder.path / "config.toml").is_file():
        folder.tidy()  # a run that was killed after its last file has its name, and leftovers
        return f"the run in {name!r} is complete; `scoreplug rerun {name}` computes it again and compares"
    if folder.path.is_dir():
        return f"{name!r} is no run directory: it has no config.toml"
    return f"there is no interrupted run in {str(folder.partial)!r}"
