"""The hooks: what a plugin may implement, and the two markers that connect it to the host."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from scoreplug.registry.specs import ComponentSpec

PROJECT = "scoreplug"
"""Name of the entry-point group, and prefix of every hook."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def scoreplug_components() -> Iterable[ComponentSpec]:  # type: ignore[empty-body]
    """Name the components of this plugin.

    Called once, before anything is built, from a module that imports neither torch nor the methods themselves.

    Returns:
        Component specs, as a list or as a generator; no two of one kind share a name.
    """
