"""Docstrings to reStructuredText: prose, indented formulas, and sections such as "References:".

Our docstrings are written to be read in an editor: `x` is code, an indented block is a formula, and |r|, x_t and a*b
mean what they say. In reStructuredText the same signs mean something else, so they are escaped here, outside code.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

SECTION = re.compile(r"(Args|Returns|Raises|Yields|References|Examples?|Notes?):")
_AUTHORS = re.compile(r"[A-Z][\w'-]+( [A-Z][\w'-]+){0,3}(, [A-Z]|: | et al)")
_CODE = re.compile(r"(`+)(.+?)\1", re.S)
_LINK = re.compile(
    r"arXiv:(?P<arxiv>\d{4}\.\d{4,5})|doi:(?P<doi>10\.\S+?)(?=[,.;)]?(?:\s|$))|(?P<url>https?://\S+?)(?=[,.;)]?(?:\s|$))"
)


class Block(NamedTuple):
    """A piece of a docstring: prose, a formula, the head of a section, or one of its entries."""

    kind: Literal["prose", "formula", "section", "entry"]
    text: str


def blocks(docstring: str) -> Iterator[Block]:
    """The pieces of a docstring that `inspect.cleandoc` has dedented."""
    for paragraph in re.split(r"\n[ \t]*\n", docstring.strip("\n")):
        lines = paragraph.splitlines()
        if SECTION.fullmatch(lines[0].strip()) and not lines[0].startswith(" "):
            yield Block("section", lines[0].strip(": "))
            yield from (Block("entry", entry) for entry in _entries(lines[1:]))
            continue
        for indented, part in _stretches(lines):
            yield Block("formula", "\n".join(part)) if indented else Block("prose", "\n".join(part))


def _stretches(lines: list[str]) -> Iterator[tuple[bool, list[str]]]:
    """A paragraph's lines in runs that are indented or not."""
    part: list[str] = []
    for line in lines:
        if part and line.startswith("    ") != part[0].startswith("    "):
            yield part[0].startswith("    "), part
            part = []
        part.append(line)
    if part:
        yield part[0].startswith("    "), part


def _entries(lines: list[str]) -> Iterator[str]:
    """The entries of a section: each begins on a line of its own with the names of its authors."""
    entry: list[str] = []
    for line in (line.strip() for line in lines):
        if entry and entry[-1].endswith((".", ").")) and _AUTHORS.match(line):
            yield " ".join(entry)
            entry = []
        entry.append(line)
    if entry:
        yield " ".join(entry)


def escape(text: str) -> str:
    """Prose with what is no code made plain: `x` becomes a literal, signs lose their meaning, references get links."""
    parts, end = [], 0
    for match in _CODE.finditer(text):
        parts += [_plain(text[end : match.start()]), f"\\ ``{' '.join(match[2].split())}``\\ "]
        end = match.end()
    return "".join([*parts, _plain(text[end:])])


def _plain(text: str) -> str:
    parts, end = [], 0
    for match in _LINK.finditer(text):
        parts += [
            re.sub(r"([\\*|_`])", r"\\\1", text[end : match.start()]),
            f"\\ `{match[0]} <{_address(match)}>`__\\ ",
        ]
        end = match.end()
    return "".join([*parts, re.sub(r"([\\*|_`])", r"\\\1", text[end:])])


def _address(match: re.Match[str]) -> str:
    if match["arxiv"]:
        return f"https://arxiv.org/abs/{match['arxiv']}"
    doi = match["doi"] and match["doi"].replace("<", "%3C").replace(">", "%3E")
    return f"https://doi.org/{doi}" if doi else match["url"]


def prose(text: str) -> list[str]:
    """A paragraph, or the items of a list."""
    lines: list[str] = []
    for item in re.split(r"^(?=[*-] )", textwrap.dedent(text), flags=re.M):
        flat = " ".join(line.strip() for line in item.splitlines())
        if flat:
            lines += [f"* {escape(flat[2:])}" if item.startswith(("* ", "- ")) else escape(flat), ""]
    return lines


def formula(text: str) -> list[str]:
    """An indented formula as a literal block: it reads like the code."""
    lines = textwrap.dedent(text).splitlines()
    return [".. code-block:: text", "   :class: formula", "", *(f"   {line}".rstrip() for line in lines), ""]


def to_rest(docstring: str) -> list[str]:
    """A whole docstring as lines of reStructuredText."""
    lines: list[str] = []
    for kind, text in blocks(docstring):
        if kind == "prose":
            lines += prose(text)
        elif kind == "formula":
            lines += formula(text)
        elif kind == "section":
            lines += ["", f".. rubric:: {text}", ""]
        else:
            lines += [f"* {escape(text)}", ""]
    return lines


def google_lines(lines: Iterable[str]) -> list[str]:
    """The same for a docstring that napoleon reads next: sections stay as they are, their text is escaped."""
    out: list[str] = []
    for paragraph in re.split(r"\n[ \t]*\n", "\n".join(lines)):
        part = paragraph.strip("\n").splitlines()
        if not part:
            continue
        if SECTION.fullmatch(part[0].strip()) and not part[0].startswith(" "):
            out += [part[0], *(_escaped_entry(line) for line in part[1:]), ""]
            continue
        for indented, stretch in _stretches(part):
            out += formula("\n".join(stretch)) if indented else prose("\n".join(stretch))
    return out


def _escaped_entry(line: str) -> str:
    """A line of a section; a name before its colon stays a name."""
    name = re.match(r"(\s*)([\w, *]+:)(\s.*)?$", line)
    if name is None or "." in name[2]:
        indent = len(line) - len(line.lstrip())
        return line[:indent] + escape(line[indent:])
    return f"{name[1]}{name[2]}{escape(name[3] or '')}"
