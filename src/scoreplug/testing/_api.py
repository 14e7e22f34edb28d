"""Checks of tiny instances: shapes, types, batches, noise, and nothing touched that is not theirs."""

from __future__ import annotations

import random
import tomllib
import warnings
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import tomli_w
import torch
from torch import Tensor

from scoreplug.param import ParameterError, parameters
from scoreplug.protocols import HasLikelihood, HasLogDensity, HasPinv, HasRefine, HasSVD, HasTwist, LinearOperator
from scoreplug.sampler import DivergenceError, KernelSampler
from scoreplug.testing._problems import (
    SMALL,
    Wrapped,
    close,
    draw,
    instance,
    instances,
    measured,
    mixture,
    posterior,
    sampler,
    short,
    source,
    target,
    time,
)
from scoreplug.testing.kit import Subject, skip, states

MEMBERS = {
    "model": ("sde", "shape", "dtype", "device", "score", "denoise", "project", "under", "denoise_with_vjp"),
    "sde": ("t_min", "prior_std", "alpha", "sigma", "drift", "diffusion", "time_of"),
    "operator": ("input_shape", "output_shape", "__call__", "linearize"),
    "conditioner": ("condition",),
    "sampler": ("init", "step", "trajectory", "sample"),
    "problem": ("prior", "measurement", "truth"),
}


# Parameters


@states("Every parameter is declared with param(...), with a type and a text that says what it means.", level="api")
def parameters_are_documented(subject: Subject) -> None:
    cls: Any = subject.factory()
    assert attrs.has(cls), f"{subject.spec.factory} is not an attrs class"
    declared = {p.name: p for p in parameters(cls)}
    for field in attrs.fields(cls):
        if not field.init or field.name.startswith("_"):
            continue
        assert field.name in declared, f"field {field.name!r} is not declared with param(...)"
        parameter = declared[field.name]
        assert len(parameter.doc.split()) >= 2, f"parameter {field.name!r} has no text"
        assert parameter.type is not None, f"parameter {field.name!r} has no type"


@states("Values of the wrong type, outside the bounds or not among the choices are refused by name.", level="api")
def illegal_parameters_are_refused(subject: Subject) -> None:
    cls: Any = subject.factory()
    for p in parameters(cls):
        illegal: list[Any] = [{"neither": "this"}] if p.component is None else [17]
        illegal += [below for below in (p.ge,) if below is not None for below in (below - 1,)]
        illegal += [p.gt] if p.gt is not None else []
        illegal += [p.le + 1] if p.le is not None else []
        illegal += [p.lt] if p.lt is not None else []
        illegal += ["no such choice"] if p.choices and not p.component and _only_choices(p) else []
        for value in illegal:
            said = _refusal(subject, p.name, value)
            assert said is not None, f"{p.name}={value!r} is accepted"
            assert p.name in said, f"the refusal of {p.name}={value!r} does not name it: {said}"


def _refusal(subject: Subject, name: str, value: Any) -> str | None:
    """What the class itself says of a parameter's value; None if it accepts it."""
    cls: Any = subject.factory()
    params = {**subject.spec.example, **subject.params}
    if subject.takes("image_shape"):
        params["image_shape"] = tuple(instance(subject).image_shape)
    try:
        cls(**{**params, name: value})
    except (ParameterError, ValueError, TypeError) as error:
        return str(error)
    return None


def _only_choices(p: Any) -> bool:
    return " or " not in str(p.type).replace("typing.", "") and "|" not in str(p.type)


@states("Defaults survive a round trip through TOML.", level="api")
def defaults_are_toml(subject: Subject) -> None:
    cls: Any = subject.factory()
    plain = {
        p.name: p.default for p in parameters(cls) if not p.required and isinstance(p.default, bool | int | float | str)
    }
    assert tomllib.loads(tomli_w.dumps(plain)) == plain


KNOWN = {
    "samples": "exact_samples",
    "evidence": "log_evidence",
    "oracle": "oracle",
    "moments": "moments",
    "modes": "mode_weights",
    "log-posterior": "log_posterior",
}
"""The member by which a problem has what its spec calls by these names."""


@states("It has the members of its protocol.", level="api")
def members_are_there(subject: Subject) -> None:
    made = instance(subject)
    missing = [member for member in MEMBERS[subject.spec.kind] if not hasattr(made, member)]
    assert not missing, f"{type(made).__name__} lacks {', '.join(missing)}"


@states(
    "What the spec says that it provides, it has; what it does not say, it has not.",
    level="api",
    kinds=["operator", "model", "conditioner", "problem"],
)
def spec_tells_the_truth(subject: Subject) -> None:
    provides = getattr(subject.spec, "provides", ())
    if subject.spec.kind == "problem":  # of the class: asking an instance would compute the answers
        cls: Any = subject.factory()
        for name, member in KNOWN.items():
            has = hasattr(cls, member)
            assert has == (name in provides), f"the spec says {name}: {name in provides}, the class: {has}"
        return
    made = posterior(subject, mixture()) if subject.spec.kind == "conditioner" else instance(subject)
    capabilities: dict[str, type] = {"linear": LinearOperator, "pinv": HasPinv, "svd": HasSVD}
    if subject.spec.kind == "model":
        capabilities = {"log-density": HasLogDensity}
    elif subject.spec.kind == "conditioner":
        capabilities = {"likelihood": HasLikelihood, "twist": HasTwist, "refine": HasRefine}
    for name, capability in capabilities.items():
        has = isinstance(made, capability)
        assert has == (name in provides), f"the spec says {name}: {name in provides}, the instance: {has}"


# What every component leaves alone


def _exercise(subject: Subject, n: int = 2, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """What the component does, on n samples: tensors of batch size n."""
    kind, precision = subject.spec.kind, str(dtype).removeprefix("torch.")
    if kind == "sde":
        t = torch.linspace(0.2, 0.8, n, dtype=dtype, device="cpu")
        made = instance(subject)
        return [
            made.alpha(t),
            made.sigma(t),
            made.drift(t),
            made.diffusion(t),
            made.time_of(made.sigma(t) / made.alpha(t)),
        ]
    if kind == "operator":
        made = instance(subject)
        x = source(n, "x", dtype=dtype).normal(tuple(made.input_shape))
        y, vjp = made.linearize(x)
        return [made(x), vjp(y)]
    if kind == "model":
        made = instance(subject)
        x = source(n, "x", dtype=made.dtype).normal(tuple(made.shape))
        t = time(made, 0.7)
        with torch.no_grad():
            return [made.score(x, t), made.denoise(x, t)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*acceptance is approximate")
        if kind == "sampler":
            return [short(subject).sample(target(subject, mixture(precision=precision)), n, seed=seed)]
        if kind == "conditioner":
            model = posterior(subject, mixture(precision=precision))
            return [sampler(name, steps=3).sample(model, n, seed=seed) for name in ("ancestral", "pc")]
    skip(f"a {kind} is checked by what it is made of")


@states(
    "Shapes, floating-point type and device are those of the input.",
    level="api",
    kinds=["sde", "operator", "model", "conditioner", "sampler"],
)
def type_and_batch_are_kept(subject: Subject) -> None:
    for dtype in (torch.float64, torch.float32):
        if subject.spec.kind == "model" and instance(subject).dtype != dtype:
            continue
        for out in _exercise(subject, 3, dtype):
            assert out.shape[0] == 3, f"a batch of 3 became {tuple(out.shape)}"
            assert out.dtype == dtype, f"{dtype} became {out.dtype}"
            assert out.device.type == "cpu", f"cpu became {out.device}"
            assert bool(out.isfinite().all()), "the result is not finite"


@states("Every number of channels that it takes gives results of its own shapes.", level="api", kinds=["operator"])
def shapes_are_its_own(subject: Subject) -> None:
    for made in instances(subject):
        for n in (1, 3):
            x = source(n, "x").normal(tuple(made.input_shape))
            assert tuple(made(x).shape) == (n, *made.output_shape), f"{tuple(x.shape)} became {tuple(made(x).shape)}"
        try:
            made(source(1, "x").normal(tuple(made.input_shape))[0])
        except (ValueError, RuntimeError):
            pass
        else:
            raise AssertionError("an image without batch dimension is accepted")


@states(
    "The same seed gives the same samples, another seed others, and 0 is a seed.",
    level="api",
    kinds=["sampler", "conditioner"],
)
def seeds_are_kept(subject: Subject) -> None:
    first, again, other = (_exercise(subject, seed=seed) for seed in (0, 0, 1))
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a, b), "the same seed gave other samples"
        assert not torch.equal(a, c), "another seed gave the same samples"


@states("Samples of one batch differ from one another.", level="api", kinds=["sampler"])
def samples_have_noise_of_their_own(subject: Subject) -> None:
    (x,) = _exercise(subject, 3)
    assert not torch.allclose(x[0], x[1]), "samples 0 and 1 are the same"


@states(
    "The generators of torch, numpy and random are as they were.",
    level="api",
    kinds=["sde", "operator", "model", "conditioner", "sampler"],
)
def global_generators_stand_still(subject: Subject) -> None:
    before: Any = torch.get_rng_state(), np.random.get_state(legacy=True)[1].copy(), random.getstate()  # type: ignore[index]
    _exercise(subject)
    assert torch.equal(torch.get_rng_state(), before[0]), "torch's global generator moved"
    now: Any = np.random.get_state(legacy=True)
    assert np.array_equal(now[1], before[1]), "numpy's global generator moved"
    assert random.getstate() == before[2], "random's generator moved"


@states("What it is given is not written to.", level="api", kinds=["operator", "model", "conditioner", "sampler"])
def inputs_are_not_modified(subject: Subject) -> None:
    kind = subject.spec.kind
    if kind == "operator":
        made = instance(subject)
        x, y = source(2, "x").normal(tuple(made.input_shape)), source(2, "y").normal(tuple(made.output_shape))
        calls: list[Callable[[], Any]] = [lambda: made(x), lambda: made.linearize(x)[1](y)]
        calls += [lambda: made.pinv(y)] if isinstance(made, HasPinv) else []
        _unchanged(calls, x, y)
    elif kind == "model":
        made = instance(subject)
        x, t = source(2, "x", dtype=made.dtype).normal(tuple(made.shape)), time(made, 0.7)
        _unchanged([lambda: made.score(x, t), lambda: made.denoise(x, t)], x, t)
    elif kind == "sampler":
        made, model = short(subject), target(subject, mixture())
        noise = source(2, "noise")
        x = noise.at("x").normal(SMALL)
        state = made.init(model, x, noise)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.filterwarnings("ignore", message=".*acceptance is approximate")
            _unchanged([lambda: made.step(model, state, noise)], x, state.times)
    else:
        model = posterior(subject, mixture())
        x, t = source(2, "x").normal(SMALL), time(model, 0.7)
        measurement = getattr(model, "measurement", None)
        data = measured().data if measurement is None else measurement.data
        _unchanged([lambda: model.score(x, t), lambda: sampler("ancestral", steps=2).sample(model, 2)], x, data)


def _unchanged(calls: list[Callable[[], Any]], *inputs: Tensor) -> None:
    kept = [value.clone() for value in inputs]
    for call in calls:
        call()
    for value, was in zip(inputs, kept, strict=True):
        assert torch.equal(value, was), "an input was modified in place"


@states(
    "Sample i is the same alone, among others, and in another batch, up to rounding.",
    level="api",
    kinds=["operator", "model", "conditioner", "sampler"],
)
def batch_mates_do_not_matter(subject: Subject) -> None:
    if getattr(subject.spec, "couples", False):
        skip("the spec says that a population is coupled")
    many, few = _exercise(subject, 5), _exercise(subject, 2)
    tolerance = 1e-9 if many[0].dtype == torch.float64 else 1e-4
    for a, b in zip(many, few, strict=True):
        close(a[:2], b, tolerance=tolerance, what="samples 0 and 1 in a batch of 5 and of 2")
    if subject.spec.kind == "sampler":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*acceptance is approximate")
            alone = draw(short(subject), target(subject, mixture()), (3,))
        close(alone, many[0][3:4], tolerance=tolerance, what="sample 3 alone and in a batch")


@states(
    "Tensors are made with the type and device of the input, whatever torch's defaults are.",
    level="api",
    kinds=["sde", "operator", "conditioner", "sampler"],
)
def defaults_of_torch_do_not_matter(subject: Subject) -> None:
    expected, default = _exercise(subject), torch.get_default_dtype()
    prior: Any = mixture()
    operator: Any = measured().operator
    _ = prior.normals, prior.log_weights, operator.svd  # made before, as a user's would be
    try:
        torch.set_default_dtype(torch.float32)
        with torch.device("meta"):
            found = _exercise(subject)
    finally:
        torch.set_default_dtype(default)
    for a, b in zip(found, expected, strict=True):
        assert a.device == b.device, f"a tensor is on {a.device}: it was made without device="
        close(a, b, tolerance=1e-6, what="the result under other defaults")


# Evaluations


@states("Each step asks the model equally often, and never twice for the same x and t.", level="api", kinds=["sampler"])
def evaluations_are_not_wasted(subject: Subject) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    @attrs.frozen(kw_only=True, eq=False)
    class Watched(Wrapped):
        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            seen.append((x.detach().clone(), t.detach().clone()))
            return self.base.denoise(x, t)

    model = target(subject, Watched(base=mixture(), after=lambda x0, t: x0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*acceptance is approximate")
        short(subject).sample(model, 1)
    for i, (x, t) in enumerate(seen):
        for x_other, t_other in seen[:i]:
            twice = x.shape == x_other.shape and torch.equal(t, t_other) and torch.equal(x, x_other)
            assert not twice, f"evaluation {i} repeats an earlier one at the same x and t"


@states(
    "One evaluation of the prior for each of its own, no graph without a declared vjp.",
    level="api",
    kinds=["conditioner"],
)
def evaluations_are_as_declared(subject: Subject) -> None:
    graphs: list[bool] = []

    @attrs.frozen(kw_only=True, eq=False)
    class Watched(Wrapped):
        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            graphs.append(torch.is_grad_enabled() and x.requires_grad)
            return self.base.denoise(x, t)

    model = posterior(subject, Watched(base=mixture(), after=lambda x0, t: x0))
    x, t = source(2, "x").normal(SMALL), time(model, 0.7)
    for method in (model.score, model.denoise):
        graphs.clear()
        with torch.no_grad():
            method(x, t)
        assert len(graphs) == 1, f"{method.__name__} evaluates the prior {len(graphs)} times"
        vjp = bool(getattr(subject.spec, "vjp", False))
        assert vjp or not any(graphs), "a graph is built, but the spec does not declare vjp=True"


@states("A value that is not finite stops the run with where it happened.", level="api", kinds=["sampler"])
def divergence_is_reported(subject: Subject) -> None:
    def poison(x0: Tensor, t: Tensor) -> Tensor:
        return torch.where(t < 0.5, float("nan"), 1.0).to(x0) * x0

    model = target(subject, Wrapped(base=mixture(), after=poison))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*acceptance is approximate")
        try:
            x = short(subject).sample(model, 2)
        except DivergenceError:
            return
    assert bool(x.isfinite().all()), "samples that are not finite came out"
    raise AssertionError("NaN from the model became finite samples")


@states("The samples are floating point, not a part of a graph.", level="api", kinds=["sampler"])
def samples_are_detached(subject: Subject) -> None:
    (x,) = _exercise(subject, 2)
    assert not x.requires_grad, "samples require a gradient"
    assert torch.is_grad_enabled(), "gradients are left disabled"


@states(
    "The gain that a transition reports is how far a unit of score moves it, to first order.",
    level="api",
    kinds=["sampler"],
)
def gain_is_the_shift_per_score(subject: Subject) -> None:
    made = short(subject)
    if not isinstance(made, KernelSampler):
        skip("it has no transition of its own")
    base = mixture("ve")
    t, s = time(base, 1.0), time(base, 0.9)
    x, noise = source(1, "x").normal(SMALL), source(1, "noise")
    g = 1e-3

    def shifted(x0: Tensor, at: Tensor) -> Tensor:  # a score moved by g moves x0 by g sigma^2 / alpha
        return x0 + g * base.sde.sigma(at) ** 2 / base.sde.alpha(at)

    plain = made.transition(base, x, t, s, noise)
    moved = made.transition(Wrapped(base=base, after=shifted), x, t, s, noise)
    shift = float((moved.x - plain.x).mean()) / g
    gain = float(torch.as_tensor(plain.gain).mean())
    assert abs(shift - gain) <= 1e-6 * abs(shift), f"a unit of score moves x by {shift:.6g}, the gain says {gain:.6g}"
