"""BibTeX entries of a component's references.

A plugin ships them in `references.bib` beside the module of its specs. They are printed as they stand there, so that
all that has to be read are where an entry ends and what identifies it; the BibTeX parsers rewrite an entry.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from scoreplug.registry import Component, Plugin

FILE = "references.bib"

_START = re.compile(r"@(\w+)\s*\{\s*([^,\s{}]+)\s*,")
_IDENTIFIER = re.compile(r'^\s*(eprint|doi|url)\s*=\s*[{"](.+?)["}]\s*,?\s*$', re.IGNORECASE | re.MULTILINE)


def entries(component: Component) -> list[str]:
    """One BibTeX entry for each reference: that of the plugin, or one made of the identifier."""
    shipped = _shipped(component.plugin)
    return [shipped.get(identifier(reference)) or minimal(reference) for reference in component.spec.references]


def identifier(reference: str) -> str:
    """One spelling of a reference: that of "arXiv:2209.14687v2" and of its URL is "arxiv:2209.14687"."""
    text = reference.strip().lower()
    if found := re.fullmatch(
        r"(?:https?://arxiv\.org/(?:abs|pdf)/|arxiv:)?\s*(\d{4}\.\d{4,5}|[a-z.-]+/\d{7})(v\d+)?", text
    ):
        return f"arxiv:{found[1]}"
    if found := re.fullmatch(r"(?:https?://(?:dx\.)?doi\.org/|doi:)?\s*(10\.\d{4,9}/.+)", text):
        return f"doi:{found[1]}"
    return text


def minimal(reference: str) -> str:
    """An entry of which only the identifier is known."""
    scheme, _, name = identifier(reference).partition(":")
    key = re.sub(r"[^a-z0-9]+", "-", identifier(reference)).strip("-")
    if scheme == "arxiv":
        fields = {"eprint": name, "archiveprefix": "arXiv", "url": f"https://arxiv.org/abs/{name}"}
    elif scheme == "doi":
        fields = {"doi": reference.strip().partition("10.")[1] + reference.strip().partition("10.")[2]}
    elif scheme in ("http", "https"):
        fields = {"url": reference.strip()}
    else:
        fields = {"note": reference.strip()}
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@misc{{{key},", *lines, "}"])


def parse(text: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """`(key, entry, identifiers)` of each entry, an entry ending where its braces balance.

    Raises:
        ValueError: if one does not end.
    """
    for start in _START.finditer(text):
        depth = 0
        for end in range(start.end(2), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth < 0:
                break
        else:
            raise ValueError(f"the entry {start[2]!r} does not end: its braces do not balance")
        entry = text[start.start() : end + 1]
        yield start[2], entry, tuple(identifier(value) for _, value in _IDENTIFIER.findall(entry))


def _shipped(plugin: Plugin) -> dict[str, str]:
    """The entries of a plugin's file by identifier; none if there is no file, or if it is damaged."""
    file = plugin.value if plugin.info is None else getattr(_module(plugin), "__file__", None)
    try:
        text = Path(file or "").with_name(FILE).read_text(encoding="utf-8")
        return {name: entry for _, entry, names in parse(text) for name in names}
    except (OSError, ValueError):
        return {}


def _module(plugin: Plugin) -> object:
    return sys.modules.get(plugin.value.partition(":")[0])
