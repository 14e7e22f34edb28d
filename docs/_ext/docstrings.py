"""Docstrings of the API pages: what they say in plain text becomes reStructuredText before napoleon reads them."""

from __future__ import annotations

from typing import Any

from plain_text import google_lines
from sphinx.application import Sphinx


def _plain(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    del app, what, name, obj, options
    lines[:] = google_lines(lines)


def _no_constructor(app: Sphinx, what: str, name: str, obj: Any, *rest: Any) -> tuple[str, str] | None:
    """A protocol is not built, so that its arguments are nobody's."""
    del app, name, rest
    return ("", "") if what == "class" and getattr(obj, "_is_protocol", False) else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _plain, priority=400)  # napoleon's is 500
    app.connect("autodoc-process-signature", _no_constructor)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
