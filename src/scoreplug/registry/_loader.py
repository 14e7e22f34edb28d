"""Loading plugins, each in isolation: whatever one of them does, the others and the command line go on.

pluggy's own `load_setuptools_entrypoints` stops at the first plugin that raises, accepts misspelt hook names in silence
and skips a second distribution that reuses an entry point's name; hence this loader.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import sys
import traceback
from collections.abc import Iterable, Iterator

import attrs
import pluggy

from scoreplug.foreign import one_line, shown
from scoreplug.registry import hooks
from scoreplug.registry._candidate import Candidate
from scoreplug.registry._installed import requirements
from scoreplug.registry._plugin import BUILTIN, Phase, Plugin
from scoreplug.registry._selection import Selection
from scoreplug.registry.errors import PluginError
from scoreplug.registry.specs import API, SPECS, ComponentSpec

HEAVY = ("torch", "numpy", "scipy", "skimage", "matplotlib")
"""Imports that the module of a plugin's specs does without, so that `scoreplug list` stays quick."""

_HOOKS = tuple(name for name in vars(hooks) if name.startswith(f"{hooks.PROJECT}_"))


def load(candidates: Iterable[Candidate], selection: Selection, manager: pluggy.PluginManager) -> tuple[Plugin, ...]:
    """Load the candidates that `selection` wants into `manager`, one by one.

    Raises:
        PluginError: for the first plugin that does not load, if the selection is strict.
    """
    candidates = list(candidates)
    core = next((candidate.version for candidate in candidates if candidate.name == BUILTIN), None)
    plugins = []
    for candidate in candidates:
        plugin = _load(candidate, core, selection, manager)
        if selection.strict and plugin.broken:
            raise PluginError(plugin.name, f"did not load, and plugins are strict: {plugin.reason}")
        plugins.append(plugin)
    return tuple(plugins)


def _load(candidate: Candidate, core: str | None, selection: Selection, manager: pluggy.PluginManager) -> Plugin:
    plugin = Plugin(name=candidate.name, version=candidate.version, value=candidate.value, info=candidate.info)
    if reason := selection.refusal(candidate):
        return attrs.evolve(plugin, state="blocked", reason=reason)

    imported_before = set(sys.modules)
    try:
        with _phase("import"):
            if requirement := _unmet_requirement(candidate, core):
                return _incompatible(plugin, requirement)
            module = candidate.load()
        with _phase("register"):
            manager.register(module, name=candidate.name)
        with _phase("hooks"):
            _check_hooks(module, manager)
        with _phase("components"):
            components = tuple(_checked(_ask(module, manager)))
    except _Failed as failed:
        _forget(candidate, manager)
        return attrs.evolve(
            plugin,
            state="failed",
            phase=failed.phase,
            reason=_one_line(failed.error),
            traceback="".join(traceback.format_exception(failed.error)),
        )

    if newer := [spec for spec in components if spec.api > API]:
        _forget(candidate, manager)
        return _incompatible(plugin, f"plugin contract {shown(newer[0].api)} (this scoreplug has {API})")
    heavy = tuple(name for name in HEAVY if name in sys.modules and name not in imported_before)
    return attrs.evolve(plugin, components=components, heavy=heavy)


class _Failed(Exception):
    def __init__(self, phase: Phase, error: BaseException) -> None:
        super().__init__(phase, error)
        self.phase = phase
        self.error = error


@contextlib.contextmanager
def _phase(name: Phase) -> Iterator[None]:
    """Turn whatever a plugin raises into `_Failed`, and keep what it prints out of the output of `--json`."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except KeyboardInterrupt:
        raise  # the user's own
    except BaseException as error:
        raise _Failed(name, error) from error  # SystemExit too: a plugin's import must not end the program


def _forget(candidate: Candidate, manager: pluggy.PluginManager) -> None:
    if manager.has_plugin(candidate.name):
        manager.unregister(name=candidate.name)


def _check_hooks(module: object, manager: pluggy.PluginManager) -> None:
    """Refuse what pluggy would ignore in silence: a hook that does not exist, or a hook's name without its marker."""
    for attribute in dir(module):
        options = manager.parse_hookimpl_opts(module, attribute)
        if options is None:
            if attribute in _HOOKS:
                raise TypeError(f"{attribute} lacks the decorator @hookimpl of scoreplug, so it would never be called")
            continue
        name = options.get("specname") or attribute
        if name not in _HOOKS and not options.get("optionalhook"):
            near = difflib.get_close_matches(name, _HOOKS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the hooks are {', '.join(_HOOKS)}"
            raise TypeError(f"there is no hook {name!r}; {hint}")


def _ask(module: object, manager: pluggy.PluginManager) -> Iterator[object]:
    """Call this plugin's implementation alone: in a joint call, one that raises would lose the answers of all."""
    for implementation in manager.hook.scoreplug_components.get_hookimpls():
        if implementation.plugin is module:
            answer = implementation.function()
            if not isinstance(answer, Iterable) or isinstance(answer, str):
                raise TypeError(f"scoreplug_components yields specs, or returns a list of them (got {shown(answer)})")
            yield from answer


def _checked(answers: Iterable[object]) -> Iterator[ComponentSpec]:
    seen = set()
    for spec in answers:
        kind = getattr(spec, "kind", None)
        if kind not in SPECS or not isinstance(spec, SPECS[kind]):
            kinds = ", ".join(cls.__name__ for cls in SPECS.values())
            raise TypeError(f"a component is declared by one of {kinds} (got {shown(spec)})")
        if (spec.kind, spec.name) in seen:
            raise ValueError(f"{spec.kind} {spec.name!r} is declared twice by this plugin; rename one of the two")
        seen.add((spec.kind, spec.name))
        yield spec


def _unmet_requirement(candidate: Candidate, core: str | None) -> str | None:
    """What the distribution asks of scoreplug, if `core`, the installed version, does not meet it."""
    if candidate.info is None or candidate.name == BUILTIN or core is None:
        return None
    for line in requirements(candidate.info):
        if re.match(rf"{hooks.PROJECT}\s*([<>=!~(\[;]|$)", line, flags=re.IGNORECASE):
            if _plainly_met(line, core):
                continue
            from packaging.requirements import Requirement

            requirement = Requirement(line)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and not requirement.specifier.contains(core, prereleases=True):
                return f"{hooks.PROJECT}{requirement.specifier} (this is {core})"
    return None


def _plainly_met(line: str, core: str) -> bool:
    """Whether `line` is "scoreplug>=1.2" and met.

    That is what nearly every plugin asks for, and the import of packaging, which settles all other cases, takes a
    quarter of the start-up of every command.
    """
    wanted = re.fullmatch(rf"{hooks.PROJECT}\s*>=\s*([\d.]+)", line, flags=re.IGNORECASE)
    release = re.compile(r"\d+(\.\d+)*")
    if wanted is None or not release.fullmatch(wanted[1]) or not release.fullmatch(core):
        return False
    at_least, ours = ([int(part) for part in version.split(".")] for version in (wanted[1], core))
    length = max(len(at_least), len(ours))  # 1.2 is 1.2.0
    return ours + [0] * (length - len(ours)) >= at_least + [0] * (length - len(at_least))


def _incompatible(plugin: Plugin, requirement: str) -> Plugin:
    return attrs.evolve(plugin, state="incompatible", requirement=requirement, reason=f"needs {requirement}")


def _one_line(error: BaseException) -> str:
    try:
        text = one_line(str(error))
    except Exception:  # noqa: BLE001  an exception of the plugin's own, whose text raises in turn
        text = "(its text cannot be printed)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
