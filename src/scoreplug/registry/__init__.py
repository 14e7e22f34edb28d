"""Names to components: `registry.get_sampler("pc", steps=200)`, `registry.list("conditioner")`.

The functions here ask one `Registry`, made at the first question; make a `Registry` of your own for an isolated one.
"""

from __future__ import annotations

from typing import Any

from scoreplug.registry._plugin import Origin as Origin
from scoreplug.registry._plugin import Plugin as Plugin
from scoreplug.registry._registry import Component as Component
from scoreplug.registry._registry import Registry as Registry
from scoreplug.registry._selection import Selection as Selection
from scoreplug.registry.errors import AmbiguousComponentError as AmbiguousComponentError
from scoreplug.registry.errors import PluginError as PluginError
from scoreplug.registry.errors import UnknownComponentError as UnknownComponentError
from scoreplug.registry.errors import UnknownKindError as UnknownKindError
from scoreplug.registry.specs import ComponentSpec

__all__ = [
    "AmbiguousComponentError",
    "Component",
    "Origin",
    "Plugin",
    "PluginError",
    "Registry",
    "Selection",
    "UnknownComponentError",
    "UnknownKindError",
    "components",
    "default",
    "find",
    "get",
    "get_conditioner",
    "get_model",
    "get_operator",
    "get_problem",
    "get_sampler",
    "get_sde",
    "list",
    "plugins",
    "search",
    "spec",
    "use",
]

_default: Registry | None = None


def default() -> Registry:
    """The registry that the functions of this module ask."""
    global _default
    if _default is None:
        _default = Registry()
    return _default


def use(registry: Registry | None) -> None:
    """Make `registry` the default; None makes a fresh one at the next question."""
    global _default
    _default = registry


def plugins() -> tuple[Plugin, ...]:
    """Every plugin that was found, loaded or not."""
    return default().plugins


def components(kind: str | None = None) -> tuple[Component, ...]:
    """Every component, also those whose short name leads elsewhere."""
    return default().components(kind)


def list(kind: str | None = None) -> tuple[ComponentSpec, ...]:
    """The specs that their own names lead to, of one kind or of all. Raises UnknownKindError."""
    return default().list(kind)


def find(kind: str, name: str) -> Component:
    """The component behind a name, an alias or a full id `dist:name`. Raises LookupError."""
    return default().find(kind, name)


def spec(kind: str, name: str) -> ComponentSpec:
    """The spec behind a name, an alias or a full id `dist:name`. Raises LookupError."""
    return default().spec(kind, name)


def search(name: str) -> tuple[Component, ...]:
    """The components of all kinds that answer to a name. Raises UnknownComponentError."""
    return default().search(name)


def get(kind: str, name: str, /, **params: Any) -> Any:
    """Build a component from its kind, name and parameters.

    Raises:
        LookupError: if the name is unknown or ambiguous.
        ParameterError: naming every parameter that is unknown, missing or illegal.
        PluginError: if the component's code cannot be imported.
    """
    return default().get(kind, name, **params)


def get_model(name: str, /, **params: Any) -> Any:
    """Build a score model. Raises as `get` does."""
    return get("model", name, **params)


def get_sde(name: str, /, **params: Any) -> Any:
    """Build a forward process. Raises as `get` does."""
    return get("sde", name, **params)


def get_operator(name: str, /, **params: Any) -> Any:
    """Build a forward operator. Raises as `get` does."""
    return get("operator", name, **params)


def get_conditioner(name: str, /, **params: Any) -> Any:
    """Build a conditioner. Raises as `get` does."""
    return get("conditioner", name, **params)


def get_sampler(name: str, /, **params: Any) -> Any:
    """Build a sampler. Raises as `get` does."""
    return get("sampler", name, **params)


def get_problem(name: str, /, **params: Any) -> Any:
    """Build a problem with a known posterior. Raises as `get` does."""
    return get("problem", name, **params)
