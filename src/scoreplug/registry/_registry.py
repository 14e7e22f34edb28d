"""From a kind and a name to a component."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, Literal

import attrs
import pluggy

from scoreplug.param import ParameterError, check
from scoreplug.registry import hooks
from scoreplug.registry._discovery import Selection
from scoreplug.registry._loader import load
from scoreplug.registry._plugin import BUILTIN, Plugin
from scoreplug.registry.errors import AmbiguousComponentError, PluginError, UnknownComponentError, UnknownKindError
from scoreplug.registry.specs import KINDS, ComponentSpec


@attrs.frozen(kw_only=True)
class Component:
    """A spec, the plugin that provides it, and whether its short name leads to it.

    Attributes:
        state: ok; shadowed, if a built-in has the short name; ambiguous, if another third party uses it too.
    """

    spec: ComponentSpec
    plugin: Plugin
    state: Literal["ok", "shadowed", "ambiguous"] = "ok"

    @property
    def id(self) -> str:
        """The name that always works, `dist:name`."""
        return f"{self.plugin.name}:{self.spec.name}"

    @property
    def name(self) -> str:
        """The shortest name that leads here."""
        return self.spec.name if self.state == "ok" else self.id

    def factory(self) -> Callable[..., Any]:
        """Import the class.

        Raises:
            PluginError: if its module cannot be imported, or does not have it.
        """
        module, _, attribute = self.spec.factory.partition(":")
        try:
            factory = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise PluginError(
                self.plugin.name,
                f"{self.spec.kind} {self.spec.name!r} of plugin {self.plugin.name!r} cannot be imported from "
                f"{self.spec.factory!r}: {type(error).__name__}: {error}",
                component=self.spec.name,
            ) from error
        if not callable(factory):
            raise PluginError(
                self.plugin.name,
                f"{self.spec.factory!r} of plugin {self.plugin.name!r} is not a class (got {factory!r})",
                component=self.spec.name,
            )
        return factory  # type: ignore[no-any-return]


class Registry:
    """All plugins and their components. Plugins load at the first question, once."""

    def __init__(self, selection: Selection | None = None) -> None:
        self.selection = Selection.from_environment() if selection is None else selection
        self._manager = pluggy.PluginManager(hooks.PROJECT)
        self._manager.add_hookspecs(hooks)

    @functools.cached_property
    def plugins(self) -> tuple[Plugin, ...]:
        """Every plugin that was found, loaded or not, in the order (distribution, entry point)."""
        return load(self.selection, self._manager)

    @functools.cached_property
    def _components(self) -> dict[str, tuple[Component, ...]]:
        found = [Component(spec=spec, plugin=plugin) for plugin in self.plugins for spec in plugin.components]
        return {kind: _settled([c for c in found if c.spec.kind == kind]) for kind in KINDS}

    def components(self, kind: str | None = None) -> tuple[Component, ...]:
        """Every component, also those whose short name leads elsewhere, in the order of declaration."""
        return tuple(c for k in ([_known_kind(kind)] if kind else KINDS) for c in self._components[k])

    def list(self, kind: str | None = None) -> tuple[ComponentSpec, ...]:
        """The specs that their own names lead to, of one kind or of all, in the order of declaration.

        Raises:
            UnknownKindError: if there is no such kind.
        """
        return tuple(c.spec for c in self.components(kind) if c.state == "ok")

    def spec(self, kind: str, name: str) -> ComponentSpec:
        """The spec behind a name, an alias or a full id `dist:name`. Raises as `find` does."""
        return self.find(kind, name).spec

    def find(self, kind: str, name: str) -> Component:
        """The component behind a name, an alias or a full id `dist:name`.

        Raises:
            UnknownKindError: if there is no such kind.
            UnknownComponentError: if nothing of that kind answers to the name.
            AmbiguousComponentError: if several third parties use the name.
        """
        components = self._components[_known_kind(kind)]
        by_id = [c for c in components if c.id == name]
        by_name = [c for c in components if c.spec.name == name and c.state != "shadowed"]
        by_alias = _preferred([c for c in components if name in c.spec.aliases])
        found = by_id or by_name or by_alias
        if len(found) > 1:
            raise AmbiguousComponentError(kind, name, [c.id for c in found])
        if not found:
            raise self._unknown(kind, name)
        return found[0]

    def get(self, kind: str, name: str, /, **params: Any) -> Any:
        """Build a component.

        Args:
            kind: "model", "sde", "operator", "conditioner", "sampler" or "problem".
            name: its name, an alias, or its full id `dist:name`.
            **params: its parameters.

        Raises:
            LookupError: as `find`.
            ParameterError: naming every parameter that is unknown, missing or illegal.
            PluginError: if the component's code cannot be imported.
        """
        component = self.find(kind, name)
        factory, label = component.factory(), f"{kind} {component.name!r}"
        if inspect.isclass(factory) and attrs.has(factory):
            check(factory, params, name=label)
        else:
            _check_call(factory, params, name=label)
        try:
            return factory(**params)
        except ParameterError as error:
            if error.component != getattr(factory, "__name__", None):
                raise  # it names a component inside this one
            raise ParameterError(label, error.problems) from error

    def get_model(self, name: str, /, **params: Any) -> Any:
        return self.get("model", name, **params)

    def get_sde(self, name: str, /, **params: Any) -> Any:
        return self.get("sde", name, **params)

    def get_operator(self, name: str, /, **params: Any) -> Any:
        return self.get("operator", name, **params)

    def get_conditioner(self, name: str, /, **params: Any) -> Any:
        return self.get("conditioner", name, **params)

    def get_sampler(self, name: str, /, **params: Any) -> Any:
        return self.get("sampler", name, **params)

    def get_problem(self, name: str, /, **params: Any) -> Any:
        return self.get("problem", name, **params)

    def _unknown(self, kind: str, name: str) -> UnknownComponentError:
        components = self._components[kind]
        names = [c.name for c in components]
        aliases = [alias for c in components for alias in c.spec.aliases]
        elsewhere = [
            k for k in KINDS if k != kind and any(name in (c.spec.name, *c.spec.aliases) for c in self._components[k])
        ]
        return UnknownComponentError(
            kind,
            name,
            known=names,
            suggestions=difflib.get_close_matches(name, dict.fromkeys(names + aliases), n=2),
            other_kinds=elsewhere,
            note=self.trouble() or "",
        )

    def trouble(self) -> str | None:
        """One line on plugins that did not load, or None."""
        if not any(plugin.builtin for plugin in self.plugins):
            return "the built-in plugin was not found: scoreplug is not installed in this environment"
        broken = sum(plugin.broken for plugin in self.plugins)
        return f"{broken} plugin{'s' * (broken > 1)} failed to load; see `scoreplug plugins`" if broken else None


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise UnknownKindError(kind, known=KINDS, suggestions=difflib.get_close_matches(kind, KINDS, n=1))
    return kind


def _settled(components: list[Component]) -> tuple[Component, ...]:
    """Decide who owns each short name: a built-in always, a third party if it is alone."""
    settled = []
    for component in components:
        rivals = [c for c in components if c.spec.name == component.spec.name and c is not component]
        if not rivals or component.plugin.builtin:
            state: Literal["ok", "shadowed", "ambiguous"] = "ok"
        else:
            state = "shadowed" if any(c.plugin.builtin for c in rivals) else "ambiguous"
        settled.append(attrs.evolve(component, state=state))
    return tuple(settled)


def _preferred(components: list[Component]) -> list[Component]:
    """Of several with one alias the built-in ones, as with names."""
    return [c for c in components if c.plugin.name == BUILTIN] or components


def _check_call(factory: Callable[..., Any], params: dict[str, Any], *, name: str) -> None:
    try:
        inspect.signature(factory).bind(**params)
    except TypeError as error:
        raise ParameterError(name, [str(error)]) from error
