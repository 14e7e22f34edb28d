"""The measurement y = A x + noise_std * n."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from scoreplug.noise import Noise
from scoreplug.protocols import Operator


@attrs.frozen(eq=False)
class Measurement:
    """A measurement y = A x + noise_std * n with n ~ N(0, I).

    Args:
        operator: A.
        data: y, of shape operator.output_shape.
        noise_std: standard deviation of the noise in y's units, >= 0; 0 means exact data.

    Raises:
        TypeError: if data is not a real floating-point tensor.
        ValueError: if the shapes disagree, data is not finite, or noise_std is negative or not finite.
    """

    operator: Operator
    data: Tensor
    noise_std: float = attrs.field(converter=float)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.data, Tensor) or not self.data.is_floating_point():
            kind = self.data.dtype if isinstance(self.data, Tensor) else type(self.data).__name__
            raise TypeError(
                f"data must be a real floating-point tensor (got {kind}); "
                "complex data is (2, ...): real and imaginary part"
            )
        if tuple(self.data.shape) != tuple(self.operator.output_shape):
            raise ValueError(
                f"data has shape {tuple(self.data.shape)}, but the operator gives {tuple(self.operator.output_shape)}; "
                "one measurement has no batch dimension"
            )
        if not bool(self.data.isfinite().all()):
            bad = int((~self.data.isfinite()).sum())
            raise ValueError(f"data has {bad} values that are NaN or infinite; mask them out in the operator instead")
        if not (math.isfinite(self.noise_std) and self.noise_std >= 0):
            raise ValueError(f"noise_std must be finite and >= 0 (got {self.noise_std!r})")

    def residual(self, x: Tensor) -> Tensor:
        """y - A x, (B, *output_shape)."""
        return self.data.to(x) - self.operator(x)


def simulate(operator: Operator, x: Tensor, noise_std: float, *, seed: int = 0) -> Measurement:
    """Measure an image: y = A x + noise_std * n.

    Args:
        operator: A.
        x: the image, of shape operator.input_shape.
        noise_std: standard deviation of the noise in y's units, >= 0.
        seed: of the noise.

    Returns:
        The measurement, without batch dimension.
    """
    clean = operator(x[None])
    n = Noise(seed, (0,), dtype=clean.dtype, device=clean.device).at("measurement").normal(tuple(operator.output_shape))
    with torch.no_grad():
        return Measurement(operator, (clean + noise_std * n)[0].detach(), noise_std)
