"""Posterior sampling with score-based priors: a posterior is just another score model.

Specs, hooks and the registry are here at once; whatever holds a tensor is imported at its first use, so that
`import scoreplug` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from scoreplug import registry as registry
from scoreplug.param import param as param
from scoreplug.registry.hooks import hookimpl as hookimpl
from scoreplug.registry.specs import ComponentSpec as ComponentSpec
from scoreplug.registry.specs import ConditionerSpec as ConditionerSpec
from scoreplug.registry.specs import ModelSpec as ModelSpec
from scoreplug.registry.specs import OperatorSpec as OperatorSpec
from scoreplug.registry.specs import ProblemSpec as ProblemSpec
from scoreplug.registry.specs import SamplerSpec as SamplerSpec
from scoreplug.registry.specs import SDESpec as SDESpec

if TYPE_CHECKING:
    from scoreplug.measurement import Measurement as Measurement
    from scoreplug.measurement import simulate as simulate
    from scoreplug.model import BaseModel as BaseModel
    from scoreplug.model import BasePrior as BasePrior
    from scoreplug.model import ConditionedModel as ConditionedModel
    from scoreplug.model import NetworkModel as NetworkModel
    from scoreplug.model import ProjectedModel as ProjectedModel
    from scoreplug.model import WrappedModel as WrappedModel
    from scoreplug.noise import Noise as Noise
    from scoreplug.operator import SVD as SVD
    from scoreplug.operator import BaseLinearOperator as BaseLinearOperator
    from scoreplug.operator import BaseOperator as BaseOperator
    from scoreplug.operator import SpectralOperator as SpectralOperator
    from scoreplug.protocols import SDE as SDE
    from scoreplug.protocols import Conditioner as Conditioner
    from scoreplug.protocols import Operator as Operator
    from scoreplug.protocols import Sampler as Sampler
    from scoreplug.protocols import ScoreModel as ScoreModel
    from scoreplug.protocols import Step as Step
    from scoreplug.sampler import BaseSampler as BaseSampler
    from scoreplug.sampler import KernelSampler as KernelSampler
    from scoreplug.sampler import State as State
    from scoreplug.sampler import Transition as Transition
    from scoreplug.sde import BaseSDE as BaseSDE

    __version__: str

_HOMES = {
    "Measurement": "measurement",
    "simulate": "measurement",
    "BaseModel": "model",
    "BasePrior": "model",
    "ConditionedModel": "model",
    "NetworkModel": "model",
    "ProjectedModel": "model",
    "WrappedModel": "model",
    "Noise": "noise",
    "BaseLinearOperator": "operator",
    "BaseOperator": "operator",
    "SVD": "operator",
    "SpectralOperator": "operator",
    "Conditioner": "protocols",
    "Operator": "protocols",
    "SDE": "protocols",
    "Sampler": "protocols",
    "ScoreModel": "protocols",
    "Step": "protocols",
    "BaseSampler": "sampler",
    "KernelSampler": "sampler",
    "State": "sampler",
    "Transition": "sampler",
    "BaseSDE": "sde",
}

__all__ = [
    "ComponentSpec",
    "ConditionerSpec",
    "ModelSpec",
    "OperatorSpec",
    "ProblemSpec",
    "SDESpec",
    "SamplerSpec",
    "__version__",
    "hookimpl",
    "param",
    "registry",
    *_HOMES,
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("scoreplug")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
