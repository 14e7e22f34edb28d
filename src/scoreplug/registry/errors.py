"""What can go wrong between a name and a component.

Each error keeps its facts as attributes, and as its `args`, so that it survives the way back from a worker process.
"""

from __future__ import annotations

from scoreplug.foreign import one_line, shown


class UnknownKindError(LookupError):
    """There is no such kind of component. `known` are the kinds, `suggestions` the near misses."""

    def __init__(self, kind: str, known: tuple[str, ...] = (), suggestions: tuple[str, ...] = ()) -> None:
        super().__init__(kind, known, suggestions)
        self.kind = kind
        self.known = known
        self.suggestions = suggestions

    def __str__(self) -> str:
        hint = _did_you_mean(self.suggestions) or f"the kinds are {', '.join(self.known)}"
        return f"unknown kind {shown(self.kind)}; {hint}"


class UnknownComponentError(LookupError):
    """No component answers to this name.

    Attributes:
        kind, name: what was asked for.
        known: the names of that kind.
        suggestions: near misses among names and aliases.
        other_kinds: the kinds under which the name does exist.
        notes: what may explain it, such as plugins that did not load.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        known: tuple[str, ...] = (),
        suggestions: tuple[str, ...] = (),
        other_kinds: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(kind, name, known, suggestions, other_kinds, notes)
        self.kind = kind
        self.name = name
        self.known = known
        self.suggestions = suggestions
        self.other_kinds = other_kinds
        self.notes = notes

    def __str__(self) -> str:
        parts = [f"unknown {self.kind} {shown(self.name)}"]
        if self.other_kinds:
            parts.append(f"{shown(self.name)} is the name of a {' and of a '.join(self.other_kinds)}")
        if self.suggestions:
            parts.append(_did_you_mean(self.suggestions))
        elif not self.other_kinds:
            parts.append(f"known are {', '.join(self.known)}" if self.known else f"no {self.kind} is registered")
        return one_line("; ".join([*parts, *self.notes]))


class AmbiguousComponentError(LookupError):
    """Several plugins use one name. `ids` are the full ids, each of which works."""

    def __init__(self, kind: str, name: str, ids: tuple[str, ...]) -> None:
        super().__init__(kind, name, ids)
        self.kind = kind
        self.name = name
        self.ids = ids

    def __str__(self) -> str:
        full = " or ".join(map(repr, self.ids))
        return one_line(
            f"{self.kind} {self.name!r} is ambiguous, since several plugins provide it; use the full id {full}"
        )


class PluginError(RuntimeError):
    """A plugin did not load, or one of its components cannot be built. `plugin` is its identity."""

    def __init__(self, plugin: str, problem: str, component: str | None = None) -> None:
        super().__init__(plugin, problem, component)
        self.plugin = plugin
        self.problem = problem
        self.component = component

    def __str__(self) -> str:
        where = f"{self.component} of plugin" if self.component else "plugin"
        return one_line(f"{where} {self.plugin!r} {self.problem}")


def _did_you_mean(suggestions: tuple[str, ...]) -> str:
    return f"did you mean {' or '.join(map(repr, suggestions))}?" if suggestions else ""
