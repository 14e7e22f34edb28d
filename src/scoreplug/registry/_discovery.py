"""Which plugins there are, and which of them the user wants. No plugin's code runs here."""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

import attrs

from scoreplug.registry._plugin import BUILTIN, canonical
from scoreplug.registry.hooks import PROJECT


@attrs.frozen(kw_only=True)
class Candidate:
    """A plugin before any of its code has run. `load` imports it and returns the object that holds its hooks."""

    name: str
    value: str
    load: Callable[[], object]
    version: str | None = None
    distribution: Distribution | None = attrs.field(default=None, eq=False, repr=False)

    @property
    def names(self) -> tuple[str, str]:
        """What blocks it: its identity, or the distribution as a whole."""
        return self.name, self.name.partition(":")[0]


@attrs.frozen(kw_only=True)
class Selection:
    """Which plugins to load.

    Args:
        blocked: identities of plugins to leave out, each with the reason.
        autoload: load installed third-party plugins; the built-in one and `files` load in any case.
        files: unpackaged plugins, each one Python file.
        strict: raise at the first plugin that does not load, instead of going on without it.
    """

    blocked: Mapping[str, str] = attrs.field(factory=dict)
    autoload: bool = True
    files: tuple[Path, ...] = ()
    strict: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Selection:
        """Read SCOREPLUG_BLOCK (names, comma separated), SCOREPLUG_DISABLE_AUTOLOAD=1 and SCOREPLUG_STRICT=1.

        Raises:
            ValueError: if a switch is neither 0 nor 1.
        """
        environ = os.environ if environ is None else environ
        names = [name.strip() for name in environ.get("SCOREPLUG_BLOCK", "").split(",")]
        return cls(
            blocked={canonical(name): "named in SCOREPLUG_BLOCK" for name in names if name},
            autoload=not _is_on("SCOREPLUG_DISABLE_AUTOLOAD", environ),
            strict=_is_on("SCOREPLUG_STRICT", environ),
        )

    def with_options(self, options: Iterable[str]) -> Selection:
        """Add what was given to `scoreplug -p`: `no:NAME` blocks a plugin, `FILE.py` loads one that is not installed.

        Raises:
            ValueError: for anything else.
        """
        blocked, files = dict(self.blocked), list(self.files)
        for option in options:
            if option.startswith("no:") and option != "no:":
                blocked[canonical(option.removeprefix("no:"))] = f"blocked by -p {option}"
            elif option.endswith(".py"):
                files.append(Path(option))
            else:
                raise ValueError(
                    "-p takes no:NAME, to block a plugin, or the path of a Python file, to load it "
                    f"(got {option!r}); an installed plugin loads by itself"
                )
        return attrs.evolve(self, blocked=blocked, files=tuple(files))

    def refusal(self, candidate: Candidate) -> str | None:
        """The reason to leave a plugin out, or None."""
        for name in candidate.names:
            if name in self.blocked:
                return self.blocked[name]
        installed_by_others = candidate.name != BUILTIN and candidate.distribution is not None
        return "installed plugins are switched off" if installed_by_others and not self.autoload else None

    def misses(self, names: Iterable[str]) -> tuple[str, ...]:
        """One line on each blocked name that no plugin has: a typing error would block nothing, in silence."""
        present = dict.fromkeys(n for name in names for n in (name, name.partition(":")[0]))
        lines = []
        for name in self.blocked:
            if name not in present:
                near = difflib.get_close_matches(name, present, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                lines.append(f"no plugin {name!r} is installed, so nothing is blocked by that name{hint}")
        return tuple(lines)


def candidates(files: Iterable[Path] = ()) -> list[Candidate]:
    """All plugins: the installed ones in the order (distribution, entry point), then `files` as given."""
    found = sorted(_installed(), key=lambda entry: (entry[0], entry[2].name))
    declared = Counter(name for name, *_ in found)
    installed = [
        Candidate(
            name=_identity(name, point, alone=declared[name] == 1),
            value=point.value,
            load=point.load,
            version=version,
            distribution=distribution,
        )
        for name, version, point, distribution in found
    ]
    return installed + [_file(path) for path in files]


def _installed() -> Iterable[tuple[str, str | None, EntryPoint, Distribution]]:
    for point in importlib.metadata.entry_points(group=PROJECT):
        if point.dist is not None:
            metadata = point.dist.metadata  # parsed anew at every access
            yield canonical(metadata["Name"] or point.name), metadata["Version"], point, point.dist


def _identity(distribution: str, point: EntryPoint, *, alone: bool) -> str:
    is_builtin = distribution == BUILTIN and point.name == "builtin"
    return distribution if alone or is_builtin else f"{distribution}:{point.name}"


def _file(path: Path) -> Candidate:
    return Candidate(name=path.name, value=str(path), load=lambda: _import_file(path))


def _import_file(path: Path) -> object:
    """Import a file under its own name, so that its specs can refer to it as "file:Class"."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    name = path.stem
    if name in sys.modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "").resolve() == path.resolve():
            return sys.modules[name]
        raise ImportError(f"another module {name!r} is already imported; rename {path.name!r}")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{str(path)!r} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_on(variable: str, environ: Mapping[str, str]) -> bool:
    value = environ.get(variable, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{variable} is 1 (on) or 0 (off) (got {value!r})")
    return value == "1"
