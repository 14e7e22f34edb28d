"""From what a user calls a plugin to the distribution that has it. No plugin's code runs here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

import attrs

from scoreplug.registry._candidate import candidates, identity
from scoreplug.registry._installed import distributions
from scoreplug.registry._plugin import BUILTIN


def third_parties() -> list[str]:
    """The identities of the installed plugins but the built-in one."""
    return [candidate.name for candidate in candidates() if candidate.name != BUILTIN]


@attrs.frozen(kw_only=True)
class Installed:
    """All distributions on the path: when and as what each was installed, and which come from a URL or folder."""

    stamps: dict[str, tuple[str | None, int]]
    direct: frozenset[str]

    @classmethod
    def now(cls) -> Installed:
        """Look at the folders of metadata."""
        stamps, direct = {}, set()
        for name, version, info in distributions():
            try:
                stamps[name] = (version, info.stat().st_mtime_ns)
            except OSError:
                continue  # uninstalled since the folder was listed
            if Path(info, "direct_url.json").is_file():
                direct.add(name)
        return cls(stamps=stamps, direct=frozenset(direct))


def resolve(name: str, *, also: Iterable[str] = ()) -> str:
    """The identity of an installed plugin, or the distribution that has several of them.

    Args:
        name: in any spelling.
        also: names that are known beside the installed ones.

    Raises:
        LookupError: if it is the built-in plugin, or no plugin at all; with near misses, and with the plugin that
            has a component of that name.
    """
    known = list(dict.fromkeys(n for plugin in third_parties() for n in (plugin, plugin.partition(":")[0])))
    known += [extra for extra in also if extra not in known]
    found = identity(name)
    if found in known:
        return found
    if found.partition(":")[0] == BUILTIN:
        raise LookupError(f"{name!r} is the built-in plugin, a part of scoreplug itself; -p no:{BUILTIN} leaves it out")
    raise LookupError(f"no plugin {name!r} is installed; {_hint(name, found, known)}")


def _hint(name: str, found: str, known: list[str]) -> str:
    if owners := _owners(name):
        return f"{name!r} is a component of {' and of '.join(map(repr, owners))}"
    if near := difflib.get_close_matches(found, known, n=1):
        return f"did you mean {near[0]!r}?"
    return f"the installed plugins are {', '.join(known)}" if known else "there is none beside the built-in one"


def _owners(name: str) -> list[str]:
    """The plugins that have a component of that name, as another process sees them: here none of them is loaded."""
    from scoreplug.cli._snapshot import Snapshot, SnapshotError

    try:
        seen = Snapshot.take()
    except SnapshotError:
        return []
    return list(dict.fromkeys(c.plugin for c in seen.components if name in (c.id, c.name, *c.aliases)))
