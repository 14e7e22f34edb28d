"""A registry of its own for a test."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from scoreplug import registry
from scoreplug.registry import Registry, Selection


@contextlib.contextmanager
def isolated_registry(*files: str | Path) -> Iterator[Registry]:
    """A registry of the built-in methods and of these plugins alone, in use until the end of the block.

        @pytest.fixture
        def plugins():
            with isolated_registry("src/scoreplug_mine/plugin.py") as registry:
                yield registry

    Whatever else is installed is not seen: a test of names and collisions says the same on every machine.

    Args:
        files: modules with hook implementations, as `scoreplug -p FILE.py` takes them.

    Raises:
        FileNotFoundError: if there is no such file.
        PluginError: at the first question, for a file that does not load.
    """
    paths = tuple(Path(file).absolute() for file in files)
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"there is no plugin file {str(path)!r}")
    before = registry.default()
    made = Registry(Selection(autoload=False, files=paths, strict=True))
    registry.use(made)
    try:
        yield made
    finally:
        registry.use(before)
        for path in paths:  # another file of that name can follow
            if getattr(sys.modules.get(path.stem), "__file__", None) == str(path):
                del sys.modules[path.stem]
