"""The registry as a fresh process sees it, before and after a change of what is installed.

This process has looked at the installed plugins already, and has imported some of them: it would not see what
changed. And a plugin that ends the process while it is imported ends the other one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import click


class SnapshotError(click.ClickException):
    """The fresh process did not answer."""


@attrs.frozen(kw_only=True)
class SeenComponent:
    """One component, as `scoreplug list --json` has it."""

    kind: str
    name: str
    id: str
    state: str
    plugin: str
    aliases: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.name if self.state == 'ok' else self.id}  (plugin {self.plugin})"


@attrs.frozen(kw_only=True)
class SeenPlugin:
    """One plugin."""

    name: str
    version: str | None
    state: str
    reason: str


@attrs.frozen(kw_only=True)
class Snapshot:
    """All plugins by name, all components by kind and id."""

    plugins: dict[str, SeenPlugin]
    components: tuple[SeenComponent, ...]

    @classmethod
    def take(cls) -> Snapshot:
        """Ask `scoreplug` in a process of its own. Raises SnapshotError."""
        plugins, components = _ask("plugins"), _ask("list")
        return cls(
            plugins={p["name"]: _made(SeenPlugin, p) for p in plugins},
            components=tuple(_made(SeenComponent, {**c, "aliases": tuple(c["aliases"])}) for c in components),
        )

    @classmethod
    def take_or_none(cls) -> Snapshot | None:
        """As `take`, but a registry that cannot be read must not keep anybody from repairing it."""
        try:
            return cls.take()
        except SnapshotError:
            return None

    def distributions(self) -> set[str]:
        """The distributions that have plugins."""
        return {name.partition(":")[0] for name in self.plugins}


def difference(before: Snapshot | None, after: Snapshot) -> Iterator[str]:
    """What changed, one line each: what is new, what is gone, what is broken, and which short names lead elsewhere."""
    if before is None:
        yield f"the plugins can be read again: {len(after.plugins)} plugins, {len(after.components)} components"
        return
    old = {(c.kind, c.id): c for c in before.components}
    new = {(c.kind, c.id): c for c in after.components}
    yield from _plugins(before, after)
    yield from (f"new: {new[key]}" for key in new if key not in old)
    yield from (f"gone: {old[key]}" for key in old if key not in new)
    yield from _names(before, after)


def _plugins(before: Snapshot, after: Snapshot) -> Iterator[str]:
    for name, plugin in after.plugins.items():
        earlier = before.plugins.get(name)
        if earlier == plugin:
            continue
        version = f" {plugin.version}" if plugin.version else ""
        if plugin.state in ("failed", "incompatible"):
            yield f"{plugin.state}: plugin {name}{version}: {plugin.reason}; `scoreplug plugins -v` shows more"
        elif plugin.state == "blocked":
            yield f"blocked: plugin {name}{version}: {plugin.reason}"
        elif earlier is None:
            yield f"plugin {name}{version} is installed"
        elif earlier.version != plugin.version:
            yield f"plugin {name} is now at{version}, from {earlier.version}"
        else:
            yield f"plugin {name}{version} loads now"
    for name in before.plugins:
        if name not in after.plugins:
            yield f"plugin {name} is no longer installed"


def _names(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """Short names that have become ambiguous, or are so no longer, and those that a built-in keeps."""
    was, now = _ambiguous(before), _ambiguous(after)
    for kind, name in now:
        if now[kind, name] != was.get((kind, name)):
            ids = " or ".join(now[kind, name])
            yield f"ambiguous: several plugins have a {kind} {name!r}; its full ids work: {ids}"
    for kind, name in was:
        if (kind, name) not in now:
            left = [c for c in after.components if c.kind == kind and c.name == name]
            yield from (f"no longer ambiguous: {kind} {name!r} is that of {c.plugin}" for c in left)
    shadowed_before = {(c.kind, c.id) for c in before.components if c.state == "shadowed"}
    for c in after.components:
        if c.state == "shadowed" and (c.kind, c.id) not in shadowed_before:
            yield f"shadowed: {c.kind} {c.name!r} stays the built-in one; the new one is {c.id}"


def _ambiguous(seen: Snapshot) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for c in seen.components:
        if c.state == "ambiguous":
            found.setdefault((c.kind, c.name), []).append(c.id)
    return found


def _ask(verb: str) -> list[dict[str, Any]]:
    # -P: whatever lies in the current folder is not what is installed. A strict selection would stop at the failure
    # that is to be shown.
    command = [sys.executable, "-P", "-m", "scoreplug", verb, "--json"]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"SCOREPLUG_STRICT": "0"})
    try:
        answer = json.loads(result.stdout)
    except ValueError as error:
        last = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SnapshotError(
            f"the plugins cannot be read: `scoreplug {verb}` ended with exit code {result.returncode} ({last}); if it "
            "ends so with a plugin and not with `scoreplug --no-plugins`, disable or uninstall that plugin"
        ) from error
    return answer if isinstance(answer, list) else []


def _made(cls: type[Any], table: dict[str, Any]) -> Any:
    return cls(**{field.name: table[field.name] for field in attrs.fields(cls)})
