"""Loading plugins, each in isolation: whatever one of them does, the others and the command line go on.

pluggy's own `load_setuptools_entrypoints` stops at the first plugin that raises, accepts misspelt hook names in silence and skips a
second distribution that reuses an entry point's name; hence this loader.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution

import attrs
import pluggy

from scoreplug.registry import hooks
from scoreplug.registry._discovery import Candidate, Selection, candidates
from scoreplug.registry._plugin import BUILTIN, Phase, Plugin
from scoreplug.registry.errors import PluginError
from scoreplug.registry.specs import API, SPECS, ComponentSpec

HEAVY = ("torch", "numpy", "scipy", "skimage", "matplotlib")
"""Imports that a plugin's spec module does without, so that `scoreplug list` stays quick."""


def load(selection: Selection, manager: pluggy.PluginManager) -> tuple[Plugin, ...]:
    """Load every plugin of the selection into `manager`.

    Raises:
        PluginError: for the first plugin that does not load, if the selection is strict.
    """
    plugins = []
    for candidate in candidates(selection.files):
        plugin = _load(candidate, selection, manager)
        if selection.strict and plugin.broken:
            raise PluginError(plugin.name, f"plugin {plugin.name!r} did not load: {plugin.reason}\n{plugin.traceback}")
        plugins.append(plugin)
    return tuple(plugins)


@attrs.define
class _Progress:
    phase: Phase = "import"


def _load(candidate: Candidate, selection: Selection, manager: pluggy.PluginManager) -> Plugin:
    plugin = Plugin(
        name=candidate.name, version=candidate.version, value=candidate.value, distribution=candidate.distribution
    )
    if reason := selection.refusal(candidate):
        return attrs.evolve(plugin, state="blocked", reason=reason)

    present = set(sys.modules)
    at = _Progress()
    try:
        # A requirement that cannot be parsed is a failure of the plugin, hence inside the try.
        if requirement := _unmet_requirement(candidate):
            return _incompatible(plugin, requirement)
        with contextlib.redirect_stdout(sys.stderr):  # a plugin that prints must not end up in `--json`
            components = _components(candidate, manager, at)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  SystemExit included: a plugin's import must not end the program
        manager.unregister(name=candidate.name) if manager.has_plugin(candidate.name) else None
        return attrs.evolve(
            plugin,
            state="failed",
            phase=at.phase,
            reason=_one_line(error),
            traceback="".join(traceback.format_exception(error)),
        )
    newer = [spec for spec in components if spec.api > API]
    if newer:
        manager.unregister(name=candidate.name)
        return _incompatible(plugin, f"plugin contract {newer[0].api} (this is {API})")
    return attrs.evolve(
        plugin, components=components, heavy=tuple(m for m in HEAVY if m in sys.modules and m not in present)
    )


def _components(candidate: Candidate, manager: pluggy.PluginManager, at: _Progress) -> tuple[ComponentSpec, ...]:
    """Import, register, check and ask one plugin; `at` tells the caller how far it came."""
    plugin = candidate.load()
    at.phase = "register"
    manager.register(plugin, name=candidate.name)
    at.phase = "hooks"
    _check_hooks(plugin, manager)
    at.phase = "components"
    return tuple(_checked(_ask(plugin, manager)))


def _check_hooks(plugin: object, manager: pluggy.PluginManager) -> None:
    """A hook that the host does not know, or a hook's name without the marker, would be ignored in silence."""
    known = [name for name in vars(hooks) if name.startswith(f"{hooks.PROJECT}_")]
    for attribute in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, attribute)
        if options is None:
            if attribute in known:
                raise TypeError(f"{attribute} lacks the decorator @hookimpl of scoreplug, so it would never be called")
            continue
        name = options.get("specname") or attribute
        if name not in known and not options.get("optionalhook"):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"the hooks are {', '.join(known)}"
            raise TypeError(f"there is no hook {name!r}; {hint}")


def _ask(plugin: object, manager: pluggy.PluginManager) -> Iterator[object]:
    """Call this plugin's own implementation: in a joint call, one that raises loses the answers of all."""
    for implementation in manager.hook.scoreplug_components.get_hookimpls():
        if implementation.plugin is plugin:
            answer = implementation.function()
            if not isinstance(answer, Iterable) or isinstance(answer, str):
                raise TypeError(
                    f"scoreplug_components yields component specs, or returns a list of them (got {answer!r})"
                )
            yield from answer


def _checked(answers: Iterable[object]) -> Iterator[ComponentSpec]:
    seen = set()
    for spec in answers:
        if not isinstance(spec, tuple(SPECS.values())):
            kinds = ", ".join(cls.__name__ for cls in SPECS.values())
            raise TypeError(f"scoreplug_components yields {kinds} (got {spec!r})")
        if (spec.kind, spec.name) in seen:
            raise ValueError(f"{spec.kind} {spec.name!r} is declared twice by this plugin; rename one of the two")
        seen.add((spec.kind, spec.name))
        yield spec


def _incompatible(plugin: Plugin, requirement: str) -> Plugin:
    return attrs.evolve(plugin, state="incompatible", requirement=requirement, reason=f"needs {requirement}")


def _unmet_requirement(candidate: Candidate) -> str | None:
    """What the distribution asks of scoreplug, if the installed version does not meet it."""
    if candidate.distribution is None or candidate.name == BUILTIN:
        return None
    for line in candidate.distribution.requires or ():
        if re.match(rf"{hooks.PROJECT}(?![\w.-])", line, flags=re.IGNORECASE):
            from packaging.requirements import Requirement

            requirement = Requirement(line)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            core = Distribution.from_name(hooks.PROJECT).version
            if applies and not requirement.specifier.contains(core, prereleases=True):
                return f"scoreplug{requirement.specifier} (this is {core})"
    return None


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
