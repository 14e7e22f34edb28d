"""The kit against deliberately wrong components: each is caught by the check that is named for it.

Every mutant is a right component with one thing wrong. The named check passes on the right one, so that it is the one
thing that it catches.
"""

import attrs
import numpy as np
import pytest
import torch

from scoreplug import Noise, registry
from scoreplug.model import ConditionedModel, tweedie
from scoreplug.operator import SVD, dense_svd, matrix_of
from scoreplug.sampler import Transition
from scoreplug.testing import Subject, iter_checks


def factory(kind, name):
    return registry.find(kind, name).factory()


EM, Ancestral, Langevin, MALA, HMC, ODE = (
    factory("sampler", name) for name in ("em", "ancestral", "langevin", "mala", "hmc", "ode")
)
VP, VE = factory("sde", "vp"), factory("sde", "ve")
Gaussian = factory("model", "gaussian")
Inpainting, Blur, Matrix, HDR = (factory("operator", name) for name in ("inpainting", "blur", "matrix", "hdr"))
GaussianProblem = factory("problem", "gaussian")
Jalal, DPS, Song = (factory("conditioner", name) for name in ("jalal", "dps", "song"))


# Samplers


@attrs.frozen(kw_only=True)
class DoubledNoise(EM):
    def transition(self, model, x, t, s, noise):
        x_s, x0, gain = super().transition(model, x, t, s, noise)
        extra = model.sde.diffusion(t) * (t - s).sqrt() * noise.at("more").normal(model.shape)
        return Transition(x_s + extra, x0, gain)


@attrs.frozen(kw_only=True)
class SwappedDrift(EM):
    def transition(self, model, x, t, s, noise):
        dt, f, g = t - s, model.sde.drift(t), model.sde.diffusion(t)
        score = model.score(x, t)
        x_s = x + (f * x + g**2 * score) * dt + g * dt.sqrt() * noise.at("z").normal(model.shape)
        return Transition(x_s, tweedie(model, x, t, score), g**2 * dt)


@attrs.frozen(kw_only=True)
class HalfScore(EM):
    """The probability flow's score with the SDE's noise."""

    def transition(self, model, x, t, s, noise):
        dt, f, g = t - s, model.sde.drift(t), model.sde.diffusion(t)
        score = model.score(x, t)
        x_s = x - (f * x - g**2 * score / 2) * dt + g * dt.sqrt() * noise.at("z").normal(model.shape)
        return Transition(x_s, tweedie(model, x, t, score), g**2 * dt / 2)


@attrs.frozen(kw_only=True)
class WrongGain(EM):
    def transition(self, model, x, t, s, noise):
        x_s, x0, gain = super().transition(model, x, t, s, noise)
        return Transition(x_s, x0, gain / 2)


@attrs.frozen(kw_only=True)
class AsksTwice(EM):
    def transition(self, model, x, t, s, noise):
        result = super().transition(model, x, t, s, noise)
        return result._replace(x0=model.denoise(x, t))


@attrs.frozen(kw_only=True)
class BatchNorm(Langevin):
    """score_sde's norms over the batch."""

    def move(self, model, x, t, noise):
        z, score = noise.at("z").normal(model.shape), model.score(x, t)
        e = 2 * (self.snr * z.norm() / score.norm()) ** 2
        return x + e * score + (2 * e).sqrt() * z


@attrs.frozen(kw_only=True)
class GlobalNoise(EM):
    def transition(self, model, x, t, s, noise):
        result = super().transition(model, x, t, s, noise)
        return result._replace(x=result.x + 0.01 * torch.randn_like(x))


@attrs.frozen(kw_only=True)
class NumpyNoise(EM):
    def transition(self, model, x, t, s, noise):
        np.random.rand()
        return super().transition(model, x, t, s, noise)


@attrs.frozen(kw_only=True)
class SharedNoise(Ancestral):
    """One start and one draw for the whole batch."""

    def init(self, model, x, noise):
        return super().init(model, x[:1].expand_as(x), noise)

    def transition(self, model, x, t, s, noise):
        return super().transition(model, x, t, s, attrs.evolve(noise, samples=(0,) * len(x)))


@attrs.frozen(kw_only=True)
class ZeroIsNoSeed(EM):
    def sample(self, model, n, *, seed=0, callback=None):
        return super().sample(model, n, seed=seed or int(torch.randint(2**31, ())), callback=callback)


@attrs.frozen(kw_only=True)
class InPlace(EM):
    def transition(self, model, x, t, s, noise):
        x *= 1.0001
        return super().transition(model, x, t, s, noise)


@attrs.frozen(kw_only=True)
class Implicit(EM):
    """A tensor without device."""

    def transition(self, model, x, t, s, noise):
        result = super().transition(model, x, t, s, noise)
        return result._replace(x=result.x * torch.ones(1, dtype=x.dtype))


@attrs.frozen(kw_only=True)
class Float32(EM):
    def finish(self, model, state, noise):
        return attrs.evolve(state, x=super().finish(model, state, noise).x.float())


@attrs.frozen(kw_only=True)
class SwallowsNaN(EM):
    def transition(self, model, x, t, s, noise):
        result = super().transition(model, x, t, s, noise)
        return result._replace(x=result.x.nan_to_num())

    def finish(self, model, state, noise):
        return attrs.evolve(state, x=state.x.nan_to_num())


@attrs.frozen(kw_only=True)
class Clips(EM):
    """Samples in [-1, 1], whatever the target."""

    def transition(self, model, x, t, s, noise):
        result = super().transition(model, x, t, s, noise)
        return result._replace(x=result.x.clamp(-1, 1))


@attrs.frozen(kw_only=True)
class WrongRatio(MALA):
    """The proposal's ratio with twice its weight: 2 e where 4 e belongs."""

    def leapfrog(self, model, start, v, t, h, *, exact):
        point, v_new, work = super().leapfrog(model, start, v, t, h, exact=exact)
        return point, v_new, work + ((v**2).flatten(1).sum(1) - (v_new**2).flatten(1).sum(1)) / 2


@attrs.frozen(kw_only=True)
class AlwaysAccepts(HMC):
    def leapfrog(self, model, start, v, t, h, *, exact):
        point, v_new, work = super().leapfrog(model, start, v, t, h, exact=exact)
        return point, v_new, 0 * work + 1e6


@attrs.frozen(kw_only=True)
class LoudLangevin(Langevin):
    """sqrt(4 e) where sqrt(2 e) belongs."""

    def move(self, model, x, t, noise):
        z, score = noise.at("z").normal(model.shape), model.score(x, t)
        e = 2 * (self.snr * model.sde.sigma(t)) ** 2
        return x + e * score + (4 * e).sqrt() * z


@attrs.frozen(kw_only=True)
class NoText(EM):
    strength: float = attrs.field(default=1.0)


@attrs.frozen(kw_only=True)
class NoBounds(EM):
    steps: int = attrs.field(default=10, metadata=attrs.fields_dict(EM)["steps"].metadata)


# SDEs


@attrs.frozen(kw_only=True)
class LoudDiffusion(VP):
    def diffusion(self, t):
        return super().diffusion(t) * 2**0.5


@attrs.frozen(kw_only=True)
class WrongDrift(VP):
    def drift(self, t):
        return -self.beta(t)


@attrs.frozen(kw_only=True)
class WrongInverse(VE):
    def time_of(self, level):
        return super().time_of(level) ** 1.01


@attrs.frozen(kw_only=True)
class NarrowStart(VE):
    @property
    def prior_std(self):
        return 1.0


# Models


@attrs.frozen(kw_only=True, eq=False)
class ForgetsAlpha(Gaussian):
    """A score for x_0 + sigma z, under a process that also shrinks."""

    def score(self, x, t):
        return super().score(x / self.sde.alpha(t), t)


@attrs.frozen(kw_only=True, eq=False)
class WrongDensity(Gaussian):
    def log_density(self, x, t):
        return -super().log_density(x, t)


@attrs.frozen(kw_only=True, eq=False)
class OneTime(Gaussian):
    def denoise(self, x, t):
        return super().denoise(x, t if t.ndim == 0 else t[0])


# Operators


@attrs.frozen(kw_only=True, eq=False)
class WrongAdjoint(Blur):
    def transpose(self, y):
        return self.forward(y).roll(1, -1)


@attrs.frozen(kw_only=True, eq=False)
class ScaledAdjoint(Inpainting):
    def transpose(self, y):
        return 1.01 * super().transpose(y)


@attrs.frozen(kw_only=True, eq=False)
class AdjointForPinv(Matrix):
    def pinv(self, y):
        return self.adjoint(y)


@attrs.frozen(kw_only=True, eq=False)
class SkewedBasis(Matrix):
    @property
    def svd(self):
        right = dense_svd(matrix_of(self), self.input_shape, self.output_shape)
        return SVD(
            singular_values=right.singular_values,
            V=lambda c: 1.1 * right.V(c),
            Vt=right.Vt,
            U=right.U,
            Ut=right.Ut,
        )


@attrs.frozen(kw_only=True, eq=False)
class SmallNorm(Matrix):
    @property
    def norm(self):
        return 0.5 * float(torch.linalg.matrix_norm(matrix_of(self), 2))


@attrs.frozen(kw_only=True, eq=False)
class Offset(Inpainting):
    def forward(self, x):
        return super().forward(x) + 0.1


@attrs.frozen(kw_only=True, eq=False)
class WrongSolve(Matrix):
    def solve(self, r, *, a, b):
        return super().solve(r, a=a, b=2 * b)


@attrs.frozen(kw_only=True, eq=False)
class WrongJacobian(HDR):
    def linearize(self, x):
        value, vjp = super().linearize(x)
        return value, lambda v: 2 * vjp(v)


# Conditioners


def conditioner(base):
    """A decorator: a class of that conditioner whose posterior is the decorated one."""

    def decorate(posterior):
        @attrs.frozen(kw_only=True)
        class Mutant(base):
            def condition(self, prior, measurement):
                right = super().condition(prior, measurement)
                return posterior(prior=prior, measurement=measurement, right=right)

        return Mutant

    return decorate


@attrs.frozen(kw_only=True, eq=False)
class Around(ConditionedModel):
    """A posterior around the right one."""

    right: object

    def score(self, x, t):
        return self.right.score(x, t)

    def project(self, x, step):
        return self.right.project(x, step)

    def under(self, sde):
        return attrs.evolve(self, prior=self.prior.under(sde), right=self.right.under(sde))


@conditioner(Jalal)
@attrs.frozen(kw_only=True, eq=False)
class WrongSign(Around):
    def score(self, x, t):
        return 2 * self.prior.score(x, t) - self.right.score(x, t)


@conditioner(Jalal)
@attrs.frozen(kw_only=True, eq=False)
class DependsOnTheProcess(Around):
    """Guidance multiplied by sigma_t."""

    def score(self, x, t):
        prior = self.prior.score(x, t)
        return prior + self.sde.sigma(t) * (self.right.score(x, t) - prior)


@conditioner(Jalal)
@attrs.frozen(kw_only=True, eq=False)
class TwoFacts(Around):
    """denoise knows nothing of the measurement."""

    def denoise(self, x, t):
        return self.prior.denoise(x, t)


@conditioner(Jalal)
@attrs.frozen(kw_only=True, eq=False)
class BuildsGraph(Around):
    """A derivative through the prior that the spec does not declare."""

    def score(self, x, t):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0 = self.prior.denoise(x, t)
            r = self.measurement.residual(x0).square().sum()
            (g,) = torch.autograd.grad(r, x)
        return (self.sde.alpha(t) * x0.detach() - x.detach()) / self.sde.sigma(t) ** 2 - 0.01 * g


@conditioner(Jalal)
@attrs.frozen(kw_only=True, eq=False)
class AsksThePriorTwice(Around):
    def score(self, x, t):
        return self.right.score(x, t) + 0 * self.prior.denoise(x, t)


@conditioner(Jalal)
@attrs.frozen(kw_only=True, eq=False)
class BatchGuidance(Around):
    def score(self, x, t):
        guidance = self.right.score(x, t) - self.prior.score(x, t)
        return self.prior.score(x, t) + guidance / guidance.norm()


@conditioner(Jalal)
@attrs.frozen(kw_only=True, eq=False)
class IgnoresNoise(Around):
    """Its pull grows where the measurement says nothing."""

    def score(self, x, t):
        return self.right.score(x, t) + self.measurement.noise_std * 1e-6


@conditioner(Song)
@attrs.frozen(kw_only=True, eq=False)
class ReusedNoise(Around):
    """One y_t for all steps."""

    def project(self, x, step):
        return self.right.project(x, attrs.evolve(step, noise=attrs.evolve(step.noise, path=())))


@conditioner(Song)
@attrs.frozen(kw_only=True, eq=False)
class UnfrozenNoise(Around):
    """Another y_t for every call."""

    def project(self, x, step):
        noise = step.noise.at(int(torch.randint(2**31, ())))
        return self.right.project(x, attrs.evolve(step, noise=noise))


@conditioner(Song)
@attrs.frozen(kw_only=True, eq=False)
class CoupledProjection(Around):
    def project(self, x, step):
        moved = self.right.project(x, step)
        return moved + 0.1 * moved.mean(0)


@conditioner(Jalal)
@attrs.frozen(kw_only=True, eq=False)
class ShiftsData(Around):
    """The measurement is scaled in place."""

    def score(self, x, t):
        self.measurement.data.mul_(1.001)
        return self.right.score(x, t)


# (mutant, the right component's kind and name, the check that catches it)
# Problems


@attrs.frozen(kw_only=True, eq=False)
class PriorsSamples(GaussianProblem):
    """As if nothing had been measured."""

    def exact_samples(self, n, *, seed=0):
        noise = Noise(seed, range(n), dtype=torch.float64, device=torch.device("cpu"))
        return noise.normal(self.prior.shape)  # the prior's mean is 0


@attrs.frozen(kw_only=True, eq=False)
class OneSeed(GaussianProblem):
    def exact_samples(self, n, *, seed=0):
        return super().exact_samples(n)


@attrs.frozen(kw_only=True, eq=False)
class PriorsScore(GaussianProblem):
    @property
    def oracle(self):
        return self.prior


MUTANTS = [
    (DoubledNoise, "sampler", "em", "target-is-reached"),
    (SwappedDrift, "sampler", "em", "target-is-reached"),
    (HalfScore, "sampler", "em", "target-is-reached"),
    (Clips, "sampler", "em", "target-is-reached"),
    (WrongGain, "sampler", "em", "gain-is-the-shift-per-score"),
    (AsksTwice, "sampler", "em", "evaluations-are-not-wasted"),
    (BatchNorm, "sampler", "langevin", "batch-mates-do-not-matter"),
    (GlobalNoise, "sampler", "em", "global-generators-stand-still"),
    (NumpyNoise, "sampler", "em", "global-generators-stand-still"),
    (SharedNoise, "sampler", "ancestral", "samples-have-noise-of-their-own"),
    (ZeroIsNoSeed, "sampler", "em", "seeds-are-kept"),
    (InPlace, "sampler", "em", "inputs-are-not-modified"),
    (Implicit, "sampler", "em", "defaults-of-torch-do-not-matter"),
    (Float32, "sampler", "em", "type-and-batch-are-kept"),
    (SwallowsNaN, "sampler", "em", "divergence-is-reported"),
    (WrongRatio, "sampler", "mala", "acceptance-is-right"),
    (AlwaysAccepts, "sampler", "hmc", "acceptance-is-right"),
    (LoudLangevin, "sampler", "langevin", "correct-leaves-the-target"),
    (NoText, "sampler", "em", "parameters-are-documented"),
    (NoBounds, "sampler", "em", "illegal-parameters-are-refused"),
    (LoudDiffusion, "sde", "vp", "diffusion-follows-from-the-level"),
    (WrongDrift, "sde", "vp", "drift-follows-from-alpha"),
    (WrongInverse, "sde", "ve", "time-of-is-the-inverse"),
    (NarrowStart, "sde", "ve", "start-is-as-wide-as-the-end"),
    (ForgetsAlpha, "model", "gaussian", "tweedie-holds"),
    (WrongDensity, "model", "gaussian", "density-has-this-score"),
    (OneTime, "model", "gaussian", "times-may-be-a-batch"),
    (WrongAdjoint, "operator", "blur", "adjoint-is-the-transpose"),
    (ScaledAdjoint, "operator", "inpainting", "adjoint-is-the-transpose"),
    (AdjointForPinv, "operator", "matrix", "pinv-is-moore-penrose"),
    (SkewedBasis, "operator", "matrix", "svd-is-a-decomposition"),
    (SmallNorm, "operator", "matrix", "norm-is-the-largest-singular-value"),
    (Offset, "operator", "inpainting", "operator-is-linear"),
    (WrongSolve, "operator", "matrix", "solve-inverts"),
    (WrongJacobian, "operator", "hdr", "linearize-is-the-derivative"),
    (WrongSign, "conditioner", "jalal", "measurement-is-heard"),
    (DependsOnTheProcess, "conditioner", "jalal", "posterior-is-the-same-under-every-process"),
    (TwoFacts, "conditioner", "jalal", "posterior-obeys-tweedie"),
    (BuildsGraph, "conditioner", "jalal", "evaluations-are-as-declared"),
    (AsksThePriorTwice, "conditioner", "jalal", "evaluations-are-as-declared"),
    (BatchGuidance, "conditioner", "jalal", "batch-mates-do-not-matter"),
    (IgnoresNoise, "conditioner", "jalal", "useless-measurement-leaves-the-prior"),
    (ReusedNoise, "conditioner", "song", "projection-draws-from-the-step"),
    (UnfrozenNoise, "conditioner", "song", "projection-draws-from-the-step"),
    (CoupledProjection, "conditioner", "song", "projection-is-per-sample"),
    (ShiftsData, "conditioner", "jalal", "inputs-are-not-modified"),
    (PriorsSamples, "problem", "gaussian", "posterior-is-one-law"),
    (OneSeed, "problem", "gaussian", "posterior-is-one-law"),
    (PriorsScore, "problem", "gaussian", "posterior-is-one-law"),
]
CHECKS = {check.name: check for check in iter_checks()}


@pytest.mark.parametrize(("mutant", "kind", "name", "check"), MUTANTS, ids=lambda v: getattr(v, "__name__", v))
def test_a_wrong_component_is_caught_by_the_check_that_is_named_for_it(mutant, kind, name, check):
    spec = registry.spec(kind, name)
    right = Subject(spec=spec, factory=lambda: factory(kind, name))
    wrong = Subject(spec=spec, factory=lambda: mutant)

    CHECKS[check](right)
    with pytest.raises((AssertionError, RuntimeError, TypeError, ValueError)):  # a skip is none of them
        CHECKS[check](wrong)


def test_every_check_of_behaviour_has_a_mutant_or_a_test_of_its_own():
    elsewhere = {
        *(check.name for check in iter_checks(level="spec")),
        *(
            "defaults-are-toml",
            "members-are-there",
            "spec-tells-the-truth",
            "shapes-are-its-own",
            "samples-are-detached",
        ),
        *("kernel-is-a-noising", "process-is-a-choice", "estimate-is-finite", "vjp-is-the-derivative"),
        *("exact-means-exact", "precision-is-the-models"),
    }
    caught = {check for *_, check in MUTANTS}

    assert set(CHECKS) == caught | elsewhere
    assert len(MUTANTS) >= 25
