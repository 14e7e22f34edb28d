"""Small denoisers here have fresh weights on purpose, and say so."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore:.*has fresh weights:UserWarning"))
