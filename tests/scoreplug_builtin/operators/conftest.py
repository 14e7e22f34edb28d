"""Fixtures for the operators."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of stored decompositions, empty: neither read from the user's nor left there."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SCOREPLUG_CACHE", str(folder))
    return folder
