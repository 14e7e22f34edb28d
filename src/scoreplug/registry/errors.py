"""What can go wrong between a name and a component. Each error carries its facts."""

from __future__ import annotations

from collections.abc import Iterable


class UnknownKindError(LookupError):
    """There are models, operators, samplers, ..., but not what was asked for."""

    def __init__(self, kind: str, *, known: Iterable[str], suggestions: Iterable[str] = ()) -> None:
        self.kind = kind
        self.known = tuple(known)
        self.suggestions = tuple(suggestions)
        hint = _did_you_mean(self.suggestions) or f"the kinds are {', '.join(self.known)}"
        super().__init__(f"unknown kind {kind!r}; {hint}")


class UnknownComponentError(LookupError):
    """No component answers to this name.

    Attributes:
        kind, name: what was asked for.
        known: the names of that kind.
        suggestions: near misses among names and aliases.
        other_kinds: the kinds under which the name does exist.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        *,
        known: Iterable[str] = (),
        suggestions: Iterable[str] = (),
        other_kinds: Iterable[str] = (),
        note: str = "",
    ) -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(known)
        self.suggestions = tuple(suggestions)
        self.other_kinds = tuple(other_kinds)
        parts = [f"unknown {kind} {name!r}"]
        parts += [f"{name!r} is a name of kind {' and '.join(self.other_kinds)}"] if self.other_kinds else []
        if self.suggestions:
            parts.append(_did_you_mean(self.suggestions))
        elif not self.other_kinds:
            parts.append(f"the known ones are {', '.join(self.known)}" if self.known else f"no {kind} is registered")
        parts += [note] if note else []
        super().__init__("; ".join(parts))


class AmbiguousComponentError(LookupError):
    """Several plugins use one name. `ids` are the full ids, each of which works."""

    def __init__(self, kind: str, name: str, ids: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.ids = tuple(ids)
        super().__init__(f"{kind} {name!r} is ambiguous; use one of the full ids {', '.join(map(repr, self.ids))}")


class PluginError(RuntimeError):
    """A plugin did not load, or one of its components could not be imported. `plugin` is its identity."""

    def __init__(self, plugin: str, message: str, *, component: str | None = None) -> None:
        self.plugin = plugin
        self.component = component
        super().__init__(message)


def _did_you_mean(suggestions: tuple[str, ...]) -> str:
    return f"did you mean {' or '.join(map(repr, suggestions))}?" if suggestions else ""
