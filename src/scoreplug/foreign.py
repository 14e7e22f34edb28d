"""What comes from outside, and what may be done with it: shown in a message, parsed, opened.

A file or a config may be anybody's. Its text reaches a terminal only as printable characters and in bounded length; its
tables are no deeper, and its numbers no larger, than what this package computes with; and what is opened is a file.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LINE = 1200
"""Characters of one line of a message."""

VALUE = 200
"""Characters of one value in a message."""

TOML = 2**20
"""Bytes of a TOML file. What holds more numbers than that belongs into a .npy file."""

DEEPEST = 24
"""Tables and lists within each other."""

# From key to key without a look at what stands between: strings with as many dots are refused with them.
_DEEP_KEY = re.compile(rf"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{DEEPEST},}}""")


def printable(text: str) -> str:
    """The text with escapes for all that does not print, such as a terminal's control sequences; lines stay lines."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(text: str) -> str:
    """The text in one line that prints, shortened in its middle if it is longer than `LINE`."""
    return _shortened(printable(re.sub(r"\s*[\n\r\t]\s*", " ", text[: 4 * LINE] + text[4 * LINE :][-LINE:])), LINE)


def shown(value: object) -> str:
    """The `repr` of a foreign value for a message, shortened in its middle if it is longer than `VALUE`."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"  # Python refuses to print the largest ones
    try:
        return _shortened(printable(repr(value)), VALUE)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that is too large to print"


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - most // 4 - 5]} ... {text[len(text) - most // 4 :]}"


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        OSError: if it cannot be read, or is no file.
        ValueError: if it is not TOML, or not of this package's size; the reason, without the file's name.
    """
    check_file(path)
    with path.open("rb") as file:
        content = file.read(TOML + 1)
    if len(content) > TOML:
        raise ValueError(f"it has more than {TOML // 2**10} KiB; keep arrays in .npy files of their own")
    table = parse_toml(content.decode("utf-8"))
    if wrong := objection(table):
        raise ValueError(wrong)
    return table


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML of a depth that the parser can take.

    Raises:
        ValueError: if it is not TOML, or deeper than that.
    """
    if _DEEP_KEY.search(text):  # for whose length the parser takes quadratic time
        raise ValueError(f"a key has more than {DEEPEST} parts")
    import tomllib  # a command that reads no TOML does not pay for it

    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(f"its lists and tables lie deeper than {DEEPEST} in each other") from error


def objection(value: object, depth: int = 0) -> str | None:
    """What in a table from outside cannot be a parameter of anything; None if nothing is."""
    if depth > DEEPEST:
        return f"lists and tables lie deeper than {DEEPEST} in each other"
    if isinstance(value, Mapping):
        inner = (objection(part, depth + 1) for pair in value.items() for part in pair)
        return next((found for found in inner if found), None)
    if isinstance(value, list | tuple):
        return next((found for found in (objection(v, depth + 1) for v in value) if found), None)
    if isinstance(value, int) and abs(value) > 2**64:
        return f"{shown(value)} is beyond 2^64, which no parameter takes"
    if type(value).__module__ == "datetime":
        return f"{value} is a date or time, which no parameter takes; put it in quotes"
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        return f"{shown(value)} has half a character (a lone surrogate)"
    return None


def check_file(path: Path) -> None:
    """Refuse pipes and devices, which may give bytes without end, or none and wait. A folder passes.

    Raises:
        OSError: if it is one, or there is nothing.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # a NUL character
        raise FileNotFoundError(errno.ENOENT, f"no file can have this name ({error})", str(path)) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file; save its content first", str(path))
