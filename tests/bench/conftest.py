"""Fixtures for the benchmark."""

from pathlib import Path

import pytest

from scoreplug import registry
from scoreplug.bench.cell import cells
from scoreplug.bench.check import check
from scoreplug.bench.suite import parse

PLUGIN = Path(__file__).with_name("tiny_plugin.py")


@pytest.fixture
def tiny():
    """The registry with the problems of `tiny_plugin`."""
    registry.use(registry.Registry(registry.Selection(files=(PLUGIN,))))
    yield
    registry.use(None)


@pytest.fixture
def suite_of(tiny):
    """A checked suite of one tiny problem and the given methods."""

    def make(*methods, **head):
        problem = {"problem": {"name": "tiny", "size": 2, "measured": 1}}
        table = {"n": 20, "seeds": 1, "problems": [problem], "methods": list(methods), **head}
        suite = parse(table, name="test")
        check(suite)
        return suite

    return make


@pytest.fixture
def cells_of(suite_of):
    """The cells of such a suite."""
    return lambda *methods, **head: cells(suite_of(*methods, **head))
