"""Projection of the state onto a noised measurement, which several methods do after every update.

x <- x + weight A^+ (y_t - A x),    y_t = alpha_t y + sigma_t A z,    z ~ N(0, I), an image
"""

from __future__ import annotations

from typing import Any, Literal

import attrs
from torch import Tensor

from scoreplug.model import PriorDensity, ProjectedModel
from scoreplug.protocols import HasLogDensity, HasPinv, LinearOperator, Operator, ScoreModel, Step


def require_pinv(name: str, operator: Operator) -> None:
    """Refuse an operator that a projection cannot work with.

    Raises:
        TypeError: if the operator is not linear or has no pseudoinverse; it names what would do.
    """
    kind = type(operator).__name__
    if not isinstance(operator, LinearOperator):
        raise TypeError(
            f"conditioner {name!r} needs a linear operator with a pseudoinverse (got {kind}); "
            "use dps, which takes any operator"
        )
    if not isinstance(operator, HasPinv):
        raise TypeError(
            f"conditioner {name!r} needs an operator with a pseudoinverse, pinv(y), which {kind} does not have; "
            "use scoreplug.operator.with_dense_svd if it is small, or a conditioner without that need (dps, jalal)"
        )


def projected(prior: ScoreModel, **kwargs: Any) -> Projected:
    """The projected model, which has a log density if the prior has one: that of the prior, since its score is."""
    return (ProjectedDensity if isinstance(prior, HasLogDensity) else Projected)(prior=prior, **kwargs)


@attrs.frozen(kw_only=True, eq=False)
class Projected(ProjectedModel):
    """The score of `prior`; the state is moved towards the noised measurement after every update.

    Args:
        weight: how far, in [0, 1]; 1 replaces the measured part.
        finish: what is done to the estimate of x_0. "exact" replaces its measured part by y itself, "soft" moves it by
            `weight` towards y, "noised" towards y_t of the last level, "none" leaves it.
        data_level: the level of y_t: s, which the update went to, or t, which it came from.
    """

    weight: float
    finish: Literal["exact", "soft", "noised", "none"] = "exact"
    data_level: Literal["s", "t"] = "s"

    def project(self, x: Tensor, step: Step) -> Tensor:
        x = self.prior.project(x, step)
        if step.phase == "finish" and self.finish != "noised":
            return self._finished(x)
        t = step.s if self.data_level == "s" else step.t
        # Conditioners around one another draw this same z: one noised image, measured by each of their operators.
        z = step.noise.at("y").normal(self.shape)
        return x + self.weight * self._gap(x, alpha=self.sde.alpha(t), noise=self.sde.sigma(t) * z)

    def _finished(self, x0: Tensor) -> Tensor:
        if self.finish == "none":
            return x0
        weight = self.weight if self.finish == "soft" else 1.0
        return x0 + weight * self._gap(x0, alpha=1.0, noise=0.0)

    def _gap(self, x: Tensor, *, alpha: Tensor | float, noise: Tensor | float) -> Tensor:
        """A^+ (alpha y + A noise - A x), (B, *shape)."""
        A: Any = self.measurement.operator
        return A.pinv(alpha * self.measurement.data.to(x) - A(x - noise))


class ProjectedDensity(PriorDensity, Projected):
    """The same, of a prior whose log density is known."""
