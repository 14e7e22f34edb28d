"""Which plugins the user wants."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from scoreplug.registry._candidate import Candidate, identity
from scoreplug.registry._plugin import BUILTIN


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
            blocked={identity(name): "named in SCOREPLUG_BLOCK" for name in names if name},
            autoload=not _is_on("SCOREPLUG_DISABLE_AUTOLOAD", environ),
            strict=_is_on("SCOREPLUG_STRICT", environ),
        )

    def with_options(self, options: Iterable[str]) -> Selection:
        """Add what was given to `scoreplug -p`: `no:NAME` blocks a plugin, `FILE.py` loads one that is not installed.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: for anything else.
        """
        blocked, files = dict(self.blocked), list(self.files)
        for option in options:
            if option.startswith("no:") and option != "no:":
                blocked[identity(option.removeprefix("no:"))] = f"blocked by -p {option}"
            elif option.endswith(".py"):
                if not Path(option).is_file():
                    raise FileNotFoundError(f"there is no plugin file {option!r}")
                files.append(Path(option).absolute())
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
        installed_by_others = candidate.name != BUILTIN and candidate.info is not None
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


def _is_on(variable: str, environ: Mapping[str, str]) -> bool:
    value = environ.get(variable, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{variable} is 1 (on) or 0 (off) (got {value!r})")
    return value == "1"
