"""Images to train on, and to try things with: `open_source("ellipses").held_out.batch([0])`."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from scoreplug.data._source import ImageSource as ImageSource
from scoreplug.param import check

SOURCES = {
    "ellipses": "scoreplug.data.ellipses:Ellipses",
    "digits": "scoreplug.data.digits:Digits",
    "folder": "scoreplug.data.folder:Folder",
}


def open_source(name: str, /, **params: Any) -> ImageSource:
    """A source of images, by name.

    Args:
        name: ellipses, digits or folder.
        **params: its parameters.

    Raises:
        LookupError: if there is no such source.
        ParameterError: naming every parameter that is unknown, missing or illegal.
    """
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(SOURCES)}"
        raise LookupError(f"no image source {name!r}; {hint}")
    module, _, attribute = SOURCES[name].partition(":")
    cls = getattr(importlib.import_module(module), attribute)
    check(cls, params, name=f"image source {name!r}")
    source: ImageSource = cls(**params)
    return source
