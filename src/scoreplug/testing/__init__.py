"""Tools that tests of components share: ours, and those of plugins. Nothing here imports torch before it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from scoreplug.testing.isolation import isolated_registry as isolated_registry
from scoreplug.testing.kit import Check as Check
from scoreplug.testing.kit import Report as Report
from scoreplug.testing.kit import Result as Result
from scoreplug.testing.kit import Subject as Subject
from scoreplug.testing.kit import iter_checks as iter_checks
from scoreplug.testing.kit import parametrize_with_checks as parametrize_with_checks
from scoreplug.testing.kit import run_checks as run_checks

if TYPE_CHECKING:
    from scoreplug.testing.affine import affine_moments as affine_moments
    from scoreplug.testing.noise import BatchNoise as BatchNoise

_HOMES = {"BatchNoise": "noise", "affine_moments": "affine"}

__all__ = [
    "BatchNoise",
    "Check",
    "Report",
    "Result",
    "Subject",
    "affine_moments",
    "isolated_registry",
    "iter_checks",
    "parametrize_with_checks",
    "run_checks",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
