"""From a kind and a name to a component."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Literal

import attrs
import pluggy

from scoreplug.param import ParameterError, check
from scoreplug.registry import hooks
from scoreplug.registry._candidate import candidates
from scoreplug.registry._loader import load
from scoreplug.registry._plugin import Plugin
from scoreplug.registry._selection import Selection
from scoreplug.registry.errors import AmbiguousComponentError, PluginError, UnknownComponentError, UnknownKindError
from scoreplug.registry.specs import KINDS, ComponentSpec


@attrs.frozen(kw_only=True)
class Component:
    """A spec, the plugin that provides it, and whether its short name leads to it.

    Attributes:
        state: ok; shadowed, if a built-in has the short name; ambiguous, if several third parties use it.
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
            raise self._broken(f"cannot be imported ({type(error).__name__}: {error})") from error
        if not callable(factory):
            raise self._broken(f"is not a class (got {factory!r})")
        return factory

    def _broken(self, problem: str) -> PluginError:
        problem = f"is not usable: {self.spec.factory!r} {problem}"
        return PluginError(self.plugin.name, problem, f"{self.spec.kind} {self.spec.name!r}")


class Registry:
    """All plugins and their components. Plugins load at the first question, once."""

    def __init__(self, selection: Selection | None = None) -> None:
        self.selection = Selection.from_environment() if selection is None else selection
        self._manager = pluggy.PluginManager(hooks.PROJECT)
        self._manager.add_hookspecs(hooks)

    @functools.cached_property
    def plugins(self) -> tuple[Plugin, ...]:
        """Every plugin that was found, loaded or not, in the order (distribution, entry point).

        Raises:
            PluginError: for the first that does not load, if the selection is strict.
        """
        return load(candidates(self.selection.files), self.selection, self._manager)

    @property
    def loaded(self) -> bool:
        """Whether the plugins have been loaded already."""
        return "plugins" in vars(self)

    def trouble(self) -> tuple[str, ...]:
        """What a user should hear about the plugins, one line each; empty if all is well."""
        lines = []
        if broken := sum(plugin.broken for plugin in self.plugins):
            lines.append(f"{broken} plugin{'s' * (broken > 1)} failed to load; see `scoreplug plugins`")
        if not any(plugin.builtin for plugin in self.plugins):
            lines.append("the built-in methods were not found, since scoreplug is not installed in this environment")
        return (*lines, *self.selection.notes, *self.selection.misses(plugin.name for plugin in self.plugins))

    def components(self, kind: str | None = None) -> tuple[Component, ...]:
        """Every component, also those whose short name leads elsewhere; the built-in ones first.

        Raises:
            UnknownKindError: if there is no such kind.
        """
        return tuple(c for k in ([_known(kind)] if kind else KINDS) for c in self._components[k])

    @functools.cached_property
    def _components(self) -> dict[str, tuple[Component, ...]]:
        plugins = sorted(self.plugins, key=lambda plugin: not plugin.builtin)
        found = [Component(spec=spec, plugin=plugin) for plugin in plugins for spec in plugin.components]
        return {kind: _settled([c for c in found if c.spec.kind == kind]) for kind in KINDS}

    def list(self, kind: str | None = None) -> tuple[ComponentSpec, ...]:
        """The specs that their own names lead to, of one kind or of all; the built-in ones first.

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
        found = self._answering(_known(kind), name)
        if not found:
            raise self._unknown(kind, name)
        if len(found) > 1:
            raise AmbiguousComponentError(kind, name, tuple(c.id for c in found))
        return found[0]

    def search(self, name: str) -> tuple[Component, ...]:
        """The components of all kinds that answer to a name.

        Raises:
            UnknownComponentError: if there is none.
        """
        found = tuple(c for kind in KINDS for c in self._answering(kind, name))
        if not found:
            raise self._unknown("component", name)
        return found

    def _answering(self, kind: str, name: str) -> tuple[Component, ...]:
        """Full ids first, then names, then aliases: an alias never beats a name."""
        components = self._components[kind]
        by_id = tuple(c for c in components if c.id == name)
        by_name = tuple(c for c in components if c.spec.name == name and c.state != "shadowed")
        by_alias = tuple(c for c in components if name in c.spec.aliases)
        return by_id or by_name or tuple(c for c in by_alias if c.plugin.builtin) or by_alias

    def _unknown(self, kind: str, name: str) -> UnknownComponentError:
        components = self.components(kind if kind in KINDS else None)
        names = tuple(dict.fromkeys(c.name for c in components))
        aliases = [alias for c in components for alias in c.spec.aliases]
        return UnknownComponentError(
            kind,
            name,
            names,
            suggestions=tuple(difflib.get_close_matches(name, [*names, *aliases], n=2)),
            other_kinds=tuple(k for k in KINDS if self._answering(k, name)),
            notes=self.trouble(),
        )

    def get(self, kind: str, name: str, /, **params: Any) -> Any:
        """Build a component.

        Args:
            kind: "model", "sde", "operator", "conditioner", "sampler" or "problem".
            name: its name, an alias, or its full id `dist:name`.
            **params: its parameters.

        Raises:
            UnknownKindError, UnknownComponentError, AmbiguousComponentError: as `find`.
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
                raise  # it speaks of a component given as a parameter of this one
            raise ParameterError(label, error.problems) from error

    def get_model(self, name: str, /, **params: Any) -> Any:
        """Build a score model. Raises as `get` does."""
        return self.get("model", name, **params)

    def get_sde(self, name: str, /, **params: Any) -> Any:
        """Build a forward process. Raises as `get` does."""
        return self.get("sde", name, **params)

    def get_operator(self, name: str, /, **params: Any) -> Any:
        """Build a forward operator. Raises as `get` does."""
        return self.get("operator", name, **params)

    def get_conditioner(self, name: str, /, **params: Any) -> Any:
        """Build a conditioner. Raises as `get` does."""
        return self.get("conditioner", name, **params)

    def get_sampler(self, name: str, /, **params: Any) -> Any:
        """Build a sampler. Raises as `get` does."""
        return self.get("sampler", name, **params)

    def get_problem(self, name: str, /, **params: Any) -> Any:
        """Build a problem with a known posterior. Raises as `get` does."""
        return self.get("problem", name, **params)


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise UnknownKindError(kind, KINDS, tuple(difflib.get_close_matches(kind, KINDS, n=1)))
    return kind


def _settled(components: Iterable[Component]) -> tuple[Component, ...]:
    """Decide whom each short name belongs to: the built-in that has it, or else the only third party."""
    components = tuple(components)
    return tuple(attrs.evolve(c, state=_state(c, components)) for c in components)


def _state(component: Component, components: Iterable[Component]) -> Literal["ok", "shadowed", "ambiguous"]:
    rivals = [c for c in components if c.spec.name == component.spec.name and c is not component]
    if component.plugin.builtin or not rivals:
        return "ok"
    return "shadowed" if any(c.plugin.builtin for c in rivals) else "ambiguous"


def _check_call(factory: Callable[..., Any], params: dict[str, Any], *, name: str) -> None:
    """A factory that declares no parameters is at least called as its signature asks."""
    try:
        inspect.signature(factory).bind(**params)
    except TypeError as error:
        raise ParameterError(name, [str(error)]) from error
