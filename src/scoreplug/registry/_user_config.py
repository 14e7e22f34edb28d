"""What `scoreplug disable` remembers: `disabled = ["scoreplug-daps"]` in plugins.toml of the user's config folder."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from scoreplug.foreign import one_line, read_toml, shown

FILE = "plugins.toml"


def user_config(environ: Mapping[str, str] | None = None) -> Path:
    """The file: in SCOREPLUG_CONFIG_DIR, or else where the platform keeps a user's configuration."""
    environ = os.environ if environ is None else environ
    return Path(environ.get("SCOREPLUG_CONFIG_DIR") or _folder(environ), FILE)


def _folder(environ: Mapping[str, str]) -> Path:
    # Every command asks this question, and the import of platformdirs takes a tenth of a command's start-up. On Linux
    # its answer is this line of the XDG specification; a test compares the two.
    if sys.platform.startswith("linux"):
        home = environ.get("XDG_CONFIG_HOME", "").strip() or os.path.expanduser("~/.config")
        return Path(home, "scoreplug")
    from platformdirs import user_config_path

    return user_config_path("scoreplug", appauthor=False)


def read_disabled(file: Path) -> tuple[str, ...]:
    """The plugins that the file disables; none if there is no file.

    Raises:
        ValueError: if it is not what `scoreplug disable` writes, in one line that names the file.
    """
    try:
        table = read_toml(file)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(file, f"cannot be read ({error})") from error
    except ValueError as error:
        raise _unusable(file, f"is not TOML ({error})") from error
    names = table.pop("disabled", [])
    if table:
        raise _unusable(file, f"has an unknown key {shown(next(iter(table)))}; the only one is 'disabled'")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _unusable(file, f"has a 'disabled' that is not a list of names (got {shown(names)})")
    return tuple(names)


def write_disabled(file: Path, names: Iterable[str]) -> None:
    """Replace the file as a whole, so that a crash leaves the old one or the new one.

    Raises:
        OSError: if the folder cannot be written to.
    """
    import tempfile

    import tomli_w

    text = "# Written by `scoreplug disable` and `scoreplug enable`.\n" + tomli_w.dumps({"disabled": sorted(names)})
    file.parent.mkdir(parents=True, exist_ok=True)
    number, unfinished = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with open(number, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(unfinished, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise


def _unusable(file: Path, problem: str) -> ValueError:
    return ValueError(f"{str(file)!r} {one_line(problem)}; repair or delete it: no plugin is disabled by it until then")
