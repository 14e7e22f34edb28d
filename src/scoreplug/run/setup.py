"""The components of a run, built from its config."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping

import attrs

from scoreplug import registry
from scoreplug.measurement import Measurement
from scoreplug.protocols import Conditioner, Operator, Sampler, ScoreModel
from scoreplug.run.config import RunConfig, parse_problem
from scoreplug.run.cost import Cost, counted_model, counted_operator
from scoreplug.run.inputs import Subject, read_subject
from scoreplug.run.provenance import checksums
from scoreplug.run.resolve import takes


@attrs.frozen(kw_only=True, eq=False)
class Setup:
    """Everything that a sampler needs, with a counter on the prior and on the operator.

    Args:
        prior: under the process of the run.
        operator: A.
        subject: y, and x if it is known.
        conditioner: how y is used.
        sampler: how the reverse SDE is integrated.
        cost: what prior and operator have been asked since.
        weights: file of the prior's weights, if it has one.
    """

    prior: ScoreModel
    operator: Operator
    subject: Subject
    conditioner: Conditioner
    sampler: Sampler
    cost: Cost
    weights: str | None

    @functools.cached_property
    def posterior(self) -> ScoreModel:
        """The score model of p(x | y)."""
        prior, operator = counted_model(self.prior, self.cost), counted_operator(self.operator, self.cost)
        counted = Measurement(operator, self.subject.measurement.data, self.subject.measurement.noise_std)
        return self.conditioner.condition(prior, counted)


def build(config: RunConfig) -> Setup:
    """Build every component and read the input; nothing is sampled.

    Raises:
        ValueError: if a component cannot be built, or the input does not fit.
    """
    prior = registry.get_model(config.model.name, **config.model.params)
    checkpoint = getattr(prior, "checkpoint", None)
    weights = None if checkpoint is None else str(checkpoint)
    if config.sde is not None:
        prior = prior.under(registry.get_sde(config.sde.name, **config.sde.params))
    params = dict(config.operator.params)
    if "image_shape" not in params and takes("operator", config.operator.name, "image_shape"):
        params["image_shape"] = tuple(prior.shape)
    operator = registry.get_operator(config.operator.name, **params)
    if tuple(operator.input_shape) != tuple(prior.shape):
        raise ValueError(
            f"operator {config.operator.name!r} takes images {tuple(operator.input_shape)}, "
            f"and model {config.model.name!r} makes {tuple(prior.shape)}"
        )
    return Setup(
        prior=prior,
        operator=operator,
        subject=read_subject(config.input, prior, operator),
        conditioner=registry.get_conditioner(config.conditioner.name, **config.conditioner.params),
        sampler=registry.get_sampler(config.sampler.name, **config.sampler.params),
        cost=Cost(),
        weights=weights,
    )


def setup_of(problem: str, files: Mapping[str, str]) -> Setup:
    """The setup of a problem (`RunConfig.problem`), built once per thread.

    A setup counts what it is asked, and listens while it is followed: chunks that are computed side by side in threads
    of one process have one each, and nothing to share.

    Args:
        problem: in JSON.
        files: checksums of the files that it names.

    Raises:
        ValueError: if a file has changed.
    """
    asked = problem, tuple(sorted(files.items()))
    if getattr(_last, "asked", None) != asked:
        forget()
        _last.setup, _last.asked = _built(problem, files), asked
    setup: Setup = _last.setup
    return setup


def forget() -> None:
    """Let go of this thread's setup."""
    _last.setup = _last.asked = None


_last = threading.local()


def _built(problem: str, files: Mapping[str, str]) -> Setup:
    config = parse_problem(problem)
    found = checksums(config)
    changed = sorted(path for path in dict(files) | found if files.get(path) != found.get(path))
    if changed:
        raise ValueError(
            f"files have changed since the run was planned: {', '.join(map(repr, changed))}; start it anew"
        )
    return build(config)
