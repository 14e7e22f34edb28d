"""The prior `digits-32`."""

from __future__ import annotations

from typing import ClassVar

import attrs

from scoreplug_builtin.models._packaged import PackagedPrior


@attrs.frozen(kw_only=True, eq=False)
class Digits32(PackagedPrior):
    """Small prior on handwritten digits, 28 x 28 zero-padded to 32 x 32, values in [0, 1]."""

    weights: ClassVar[str] = "digits-32"
