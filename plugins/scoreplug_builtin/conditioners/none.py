"""No measurement: the posterior is the prior."""

from __future__ import annotations

import attrs

from scoreplug.measurement import Measurement
from scoreplug.protocols import ScoreModel


@attrs.frozen(kw_only=True)
class NoMeasurement:
    """Returns the prior itself, so that samples are the prior's bit for bit."""

    def condition(self, prior: ScoreModel, measurement: Measurement) -> ScoreModel:
        del measurement
        return prior
