"""log p(y | x_0) of a conditioned model."""

from __future__ import annotations

import math

from torch import Tensor

from scoreplug.measurement import Measurement
from scoreplug.model import ConditionedModel
from scoreplug.protocols import LinearOperator


def require_density(name: str, measurement: Measurement) -> None:
    """Refuse a measurement whose y has no density that solves with A A^T give.

    Raises:
        ValueError: if the data are exact.
        TypeError: if the operator is not linear.
    """
    if measurement.noise_std == 0:
        raise ValueError(
            f"conditioner {name!r} works with a density of y, which exact data lack: noise_std must be > 0"
        )
    if not isinstance(measurement.operator, LinearOperator):
        raise TypeError(
            f"conditioner {name!r} needs a linear operator (got {type(measurement.operator).__name__}); "
            "use 'dps', which takes any"
        )


class GaussianLikelihood(ConditionedModel):
    """Mixin for a posterior whose measurement has Gaussian noise, y = A x_0 + sigma_y n, for any A."""

    def log_likelihood(self, x0: Tensor) -> Tensor:
        """log N(y; A x0, sigma_y^2 I), (B,), in nats.

        Raises:
            ValueError: if the measurement is free of noise; it has no density then.
        """
        sigma_y = self.measurement.noise_std
        if sigma_y == 0:
            raise ValueError("exact data have no likelihood: noise_std must be > 0")
        r = self.measurement.residual(x0).flatten(1)
        return -0.5 * (r / sigma_y).square().sum(1) - r.shape[1] * math.log(sigma_y * math.sqrt(2 * math.pi))
