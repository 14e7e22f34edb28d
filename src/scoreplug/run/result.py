"""What a run found."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from scoreplug.run.baseline import Baseline
from scoreplug.run.config import RunConfig
from scoreplug.run.inputs import Subject
from scoreplug.run.trajectory import Trajectory


@attrs.frozen(kw_only=True, eq=False)
class Result:
    """Samples and everything that is said about them.

    Args:
        config: resolved.
        subject: measurement, and truth if there is one.
        baseline: a reconstruction without a prior; None if A is not linear.
        samples: (n, C, H, W).
        metrics, cost, provenance: as their files hold them.
        trajectory: how the first samples came about; None if nothing was kept of it.
    """

    config: RunConfig
    subject: Subject
    baseline: Baseline | None
    samples: np.ndarray
    metrics: dict[str, Any]
    cost: dict[str, Any]
    provenance: dict[str, Any]
    trajectory: Trajectory | None = None

    @property
    def mean(self) -> np.ndarray:
        """Posterior mean, (C, H, W)."""
        return self.samples.mean(0, dtype=np.float64)

    @property
    def std(self) -> np.ndarray | None:
        """Standard deviation over samples, pixel by pixel, (C, H, W), with n - 1; None for one sample."""
        return self.samples.std(0, ddof=1, dtype=np.float64) if len(self.samples) > 1 else None

    @property
    def truth(self) -> np.ndarray | None:
        return None if self.subject.truth is None else self.subject.truth.double().cpu().numpy()

    @property
    def title(self) -> str:
        """The components, as one line."""
        c = self.config
        names = [c.model.name, *([c.sde.name] if c.sde else []), c.operator.name, c.conditioner.name, c.sampler.name]
        return " / ".join(names)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What goes into arrays.npz."""
        optional = {
            "std": self.std,
            "truth": self.truth,
            "baseline": None if self.baseline is None else self.baseline.x.double().cpu().numpy(),
        }
        return {
            "samples": self.samples,
            "mean": self.mean,
            "measurement": self.subject.measurement.data.double().cpu().numpy(),
            **{key: value for key, value in optional.items() if value is not None},
        }
