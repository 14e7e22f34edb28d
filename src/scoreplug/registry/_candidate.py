"""Which plugins there are. None of their code runs here."""

from __future__ import annotations

import importlib
import importlib.util
import operator
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from scoreplug.registry._installed import EntryPoint, canonical, entry_points
from scoreplug.registry._plugin import BUILTIN
from scoreplug.registry.hooks import PROJECT


@attrs.frozen(kw_only=True)
class Candidate:
    """A plugin before any of its code has run.

    Attributes:
        name: its identity (see `Plugin`).
        value: what the entry point refers to, or the path of the file.
        load: imports it and returns the object that holds its hooks.
        info: the installed distribution's folder of metadata; None for a file.
    """

    name: str
    value: str
    load: Callable[[], object]
    version: str | None = None
    info: Path | None = None

    @property
    def names(self) -> tuple[str, str]:
        """What blocks it: its identity, or the distribution as a whole."""
        return self.name, self.name.partition(":")[0]


def candidates(files: Iterable[Path] = ()) -> list[Candidate]:
    """All plugins: the installed ones in the order (distribution, entry point), then `files` as given."""
    points = entry_points(PROJECT)
    declared = Counter(point.distribution for point in points)
    installed = [_installed(point, alone=declared[point.distribution] == 1) for point in points]
    return installed + [_file(path) for path in files]


def identity(name: str) -> str:
    """The spelling of a name that blocks a plugin; 'daps.py', a file, is its own spelling."""
    return name if name.endswith(".py") else canonical(name)


def _installed(point: EntryPoint, *, alone: bool) -> Candidate:
    is_builtin = (point.distribution, point.name) == (BUILTIN, "builtin")
    name = point.distribution if alone or is_builtin else f"{point.distribution}:{point.name}"
    return Candidate(
        name=name, value=point.value, load=lambda: _import(point.value), version=point.version, info=point.info
    )


def _import(value: str) -> object:
    """Import "package.module" or "package.module:object"."""
    module, _, attribute = value.partition(":")
    loaded = importlib.import_module(module)
    return operator.attrgetter(attribute)(loaded) if attribute else loaded


def _file(path: Path) -> Candidate:
    return Candidate(name=path.name, value=str(path), load=lambda: _import_file(path))


def _import_file(path: Path) -> object:
    """Import a file under its own name, so that its specs can refer to it as "file:Class"."""
    name = path.stem
    taken = importlib.util.find_spec(name)
    if taken is not None:
        if Path(taken.origin or "").resolve() == path.resolve():
            return importlib.import_module(name)
        raise ImportError(f"there is another module {name!r} ({taken.origin}); rename {path.name!r}")
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
