"""Fixtures for the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from scoreplug import registry
from scoreplug.cli import main


@pytest.fixture
def scoreplug() -> Iterator[Callable[..., Result]]:
    """Run `scoreplug ARGS` in this process; the registry that it put in use is dropped afterwards."""
    yield lambda *args, env=None: CliRunner().invoke(main, args, prog_name="scoreplug", env=env)
    registry.use(None)
