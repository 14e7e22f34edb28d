"""The prior `ellipses-64`."""

from __future__ import annotations

from typing import ClassVar

import attrs

from scoreplug_builtin.models._packaged import PackagedPrior


@attrs.frozen(kw_only=True, eq=False)
class Ellipses64(PackagedPrior):
    """Small prior on 64 x 64 phantoms of random ellipses, values in [0, 1]."""

    weights: ClassVar[str] = "ellipses-64"
