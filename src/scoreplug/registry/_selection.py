"""Which plugins the user wants."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from scoreplug.foreign import shown
from scoreplug.registry._candidate import Candidate, identity
from scoreplug.registry._plugin import BUILTIN
from scoreplug.registry._user_config import read_disabled, user_config


@attrs.frozen(kw_only=True)
class Selection:
    """Which plugins to load.

    Args:
        blocked: identities of plugins to leave out, each with the reason.
        disabled: identities of plugins that `scoreplug disable` left out until further notice.
        autoload: load installed third-party plugins; the built-in one and `files` load in any case.
        files: unpackaged plugins, each one Python file.
        strict: raise at the first plugin that does not load, instead of going on without it.
        notes: what the user should hear about the selection itself, one line each.
    """

    blocked: Mapping[str, str] = attrs.field(factory=dict)
    disabled: tuple[str, ...] = ()
    autoload: bool = True
    files: tuple[Path, ...] = ()
    strict: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Selection:
        """Read the environment, and what `scoreplug disable` has stored.

        SCOREPLUG_BLOCK has names, separated by commas; SCOREPLUG_PLUGINS has files, separated as PATH is;
        SCOREPLUG_DISABLE_AUTOLOAD and SCOREPLUG_STRICT are 1 or 0; SCOREPLUG_CONFIG_DIR is the folder of plugins.toml.
        A stored file that is damaged is a note, and disables nothing: no command is lost to it.

        Raises:
            FileNotFoundError: if there is no file of that name.
            ValueError: if a switch is neither 0 nor 1, or a file is no Python file.
        """
        environ = os.environ if environ is None else environ
        names = [name.strip() for name in environ.get("SCOREPLUG_BLOCK", "").split(",")]
        files = [name.strip() for name in environ.get("SCOREPLUG_PLUGINS", "").split(os.pathsep)]
        disabled, notes = _stored(environ)
        return cls(
            blocked={identity(name): "named in SCOREPLUG_BLOCK" for name in names if name},
            disabled=disabled,
            autoload=not _is_on("SCOREPLUG_DISABLE_AUTOLOAD", environ),
            files=tuple(dict.fromkeys(_plugin_file(name, "in SCOREPLUG_PLUGINS") for name in files if name)),
            strict=_is_on("SCOREPLUG_STRICT", environ),
            notes=notes,
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
                files.append(_plugin_file(option, "given to -p"))
            else:
                raise ValueError(
                    "-p takes no:NAME, to block a plugin, or the path of a Python file, to load it "
                    f"(got {shown(option)}); an installed plugin loads by itself"
                )
        return attrs.evolve(self, blocked=blocked, files=tuple(dict.fromkeys(files)))

    def refusal(self, candidate: Candidate) -> str | None:
        """The reason to leave a plugin out, or None."""
        for name in candidate.names:
            if name in self.blocked:
                return self.blocked[name]
            if name in self.disabled:
                return f"disabled by `scoreplug disable`; `scoreplug enable {name}` undoes it"
        installed_by_others = candidate.name != BUILTIN and candidate.info is not None
        return "installed plugins are switched off" if installed_by_others and not self.autoload else None

    def misses(self, names: Iterable[str]) -> tuple[str, ...]:
        """One line on each blocked name that no plugin has: a typing error would block nothing, in silence.

        `scoreplug disable` has looked for its names, and one of them may be uninstalled since.
        """
        present = dict.fromkeys(n for name in names for n in (name, name.partition(":")[0]))
        lines = []
        for name in self.blocked:
            if name not in present:
                near = difflib.get_close_matches(name, present, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                lines.append(f"no plugin {shown(name)} is installed, so nothing is blocked by that name{hint}")
        return tuple(lines)


def _stored(environ: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The plugins that are disabled, and what is wrong with the file that says so."""
    try:
        return tuple(map(identity, read_disabled(user_config(environ)))), ()
    except ValueError as error:
        return (), (str(error),)


def _plugin_file(name: str, where: str) -> Path:
    if not name.endswith(".py"):
        raise ValueError(f"a plugin file is a Python file (got {shown(name)}, {where})")
    if not os.path.isfile(name):  # for which a name that no file can have is none, and no error
        raise FileNotFoundError(f"there is no plugin file {shown(name)}, {where}")
    return Path(name).absolute()


def _is_on(variable: str, environ: Mapping[str, str]) -> bool:
    value = environ.get(variable, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{variable} is 1 (on) or 0 (off) (got {shown(value)})")
    return value == "1"
