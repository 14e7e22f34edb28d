"""Counting: it finds every call, once, and changes nothing."""

import attrs
import pytest
import torch

from scoreplug import Measurement, registry
from scoreplug.operator import from_function
from scoreplug.protocols import HasLogDensity, HasPinv, HasSVD, LinearOperator
from scoreplug.run.cost import Cost, counted_model, counted_operator
from scoreplug.sde import BaseSDE

SHAPE = (1, 4, 4)
T = torch.tensor(0.4, dtype=torch.float64)


def image(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *SHAPE, generator=generator, dtype=torch.float64)


@pytest.fixture
def cost():
    return Cost()


@pytest.fixture
def model(cost):
    return counted_model(registry.get_model("gaussian", image_shape=SHAPE), cost)


@pytest.fixture
def operator(cost):
    return counted_operator(registry.get_operator("radon", image_shape=SHAPE, angles=3), cost)


def counts(cost):
    return {key: n for key, n in cost.as_dict().items() if n}


@pytest.mark.parametrize("method", ["score", "denoise"])
def test_an_evaluation_is_counted_once_whichever_of_the_two_is_derived_from_the_other(model, cost, method):
    getattr(model, method)(image(3), T)

    assert counts(cost) == {"evaluations": 3, "evaluation_calls": 1}


def test_the_estimate_and_its_vjps_are_counted_apart(model, cost):
    x0, vjp = model.denoise_with_vjp(image(3), T)
    vjp(x0)
    vjp(x0)

    assert counts(cost) == {"evaluations": 3, "evaluation_calls": 1, "vjps": 6, "vjp_calls": 2}


@pytest.mark.parametrize("method", ["score", "denoise"])
def test_differentiation_past_the_protocol_is_counted_too(model, cost, method):
    x = image(3).requires_grad_()
    getattr(model, method)(x, T).sum().backward()

    assert counts(cost) == {"evaluations": 3, "evaluation_calls": 1, "vjps": 3, "vjp_calls": 1}


def test_the_model_under_another_process_counts_as_well(model, cost):
    model.under(registry.get_sde("ve")).denoise(image(2), T)

    assert counts(cost) == {"evaluations": 2, "evaluation_calls": 1}


def test_an_evaluation_that_fails_leaves_the_counter_ready_for_the_next(model, cost):
    with pytest.raises(RuntimeError):
        model.denoise(image(2)[..., :3], T)
    model.denoise(image(2), T)

    assert cost.evaluation_calls == 2


def test_forward_and_adjoint_are_counted(operator, cost):
    y, adjoint = operator.linearize(image(2))
    adjoint(y)

    assert counts(cost) == {"forwards": 2, "forward_calls": 1, "adjoints": 2, "adjoint_calls": 1}


def test_a_solver_inside_the_operator_is_counted(operator, cost):
    operator.solve(operator(image(1)), a=1.0, b=1.0)

    assert cost.adjoint_calls > 1
    assert cost.forward_calls == cost.adjoint_calls + 1  # (a A A^T + b) v takes one of each, and y above one more


def test_the_gradient_of_a_nonlinear_operator_counts_as_its_adjoint(cost):
    operator = counted_operator(from_function(lambda x: x**2, SHAPE), cost)
    y, transposed = operator.linearize(image(2))
    transposed(y)

    assert counts(cost) == {"forwards": 2, "forward_calls": 1, "adjoints": 2, "adjoint_calls": 1}


def test_capabilities_and_parameters_stay():
    cost, model = Cost(), registry.get_model("gaussian", image_shape=SHAPE)
    blur = registry.get_operator("downsampling", image_shape=SHAPE, factor=2)

    twin, counted = counted_model(model, cost), counted_operator(blur, cost)

    assert isinstance(twin, type(model))
    assert isinstance(twin, HasLogDensity)
    assert all(isinstance(counted, kind) for kind in (type(blur), LinearOperator, HasPinv, HasSVD))
    assert counted.image_shape == SHAPE
    assert type(counted).__name__ == type(blur).__name__


def test_a_nonlinear_operator_does_not_become_linear(cost):
    assert not isinstance(counted_operator(from_function(torch.sin, SHAPE), cost), LinearOperator)


def test_what_was_computed_once_is_not_computed_again():
    model = registry.get_model("gaussian", image_shape=SHAPE)

    assert counted_model(model, Cost()).normals is model.normals


def test_the_original_counts_nothing(cost):
    model = registry.get_model("gaussian", image_shape=SHAPE)
    counted_model(model, cost)
    model.denoise(image(2), T)

    assert counts(cost) == {}


@attrs.frozen(slots=True, eq=False)
class Bare:
    """An operator of somebody who uses no base class."""

    gain: float
    input_shape: tuple[int, ...] = SHAPE
    output_shape: tuple[int, ...] = SHAPE

    def __call__(self, x):
        return self.gain * x

    def linearize(self, x):
        return self(x), lambda v: self.gain * v


def test_an_operator_without_our_base_class_is_counted(cost):
    assert torch.equal(counted_operator(Bare(2.0), cost)(image(2)), 2 * image(2))
    assert cost.forwards == 2


@pytest.mark.parametrize("conditioner", [spec.name for spec in registry.list("conditioner")])
@pytest.mark.parametrize("sampler", ["em", "pc"])
def test_a_counted_run_equals_an_uncounted_one_bit_for_bit(conditioner, sampler):
    prior = registry.get_model("gaussian", image_shape=SHAPE, covariance=0.1)
    operator = registry.get_operator("downsampling", image_shape=SHAPE, factor=2)
    y = Measurement(operator, operator(image(1, seed=1))[0], 0.1)
    cost = Cost()
    counted = Measurement(counted_operator(operator, cost), y.data, y.noise_std)
    method, loop = registry.get_conditioner(conditioner), registry.get_sampler(sampler, steps=4)

    plain = loop.sample(method.condition(prior, y), 3)
    same = loop.sample(method.condition(counted_model(prior, cost), counted), 3)

    assert torch.equal(plain, same)
    # one evaluation per stage: the predictor's, in pc also the corrector's, and the last estimate
    assert cost.evaluations == 3 * ({"em": 4, "pc": 8}[sampler] + 1)


def test_a_model_of_somebody_who_defines_only_a_score_is_counted_once(cost):
    class Process(BaseSDE):
        t_min = 1e-3

        def alpha(self, t):
            return torch.ones_like(t)

        def sigma(self, t):
            return t

    from scoreplug.model import BaseModel

    class Mine(BaseModel):
        sde, shape, dtype, device = Process(), SHAPE, torch.float64, torch.device("cpu")

        def score(self, x, t):
            return -x / (1 + t**2)

    counted_model(Mine(), cost).denoise(image(2), T)

    assert counts(cost) == {"evaluations": 2, "evaluation_calls": 1}


@pytest.mark.parametrize("method", ["log_density", "score_and_log_density"])
def test_a_density_counts_as_an_evaluation_alone_or_together_with_the_score(model, cost, method):
    getattr(model, method)(image(3), T)

    assert counts(cost) == {"evaluations": 3, "evaluation_calls": 1}


def test_a_density_through_a_network_counts_once_with_its_derivative_for_guidance(cost):
    """dps of an energy: one evaluation of the energy, and the derivative that guidance takes of it."""
    energy = counted_model(registry.get_model("energy", base=registry.get_model("gaussian", image_shape=SHAPE)), cost)
    A = registry.get_operator("identity", image_shape=SHAPE)
    posterior = registry.get_conditioner("dps").condition(energy, Measurement(A, image(1)[0], 0.1))

    posterior.score_and_log_density(image(3), T)

    assert counts(cost) == {"evaluations": 3, "evaluation_calls": 1, "vjps": 3, "vjp_calls": 1}


def test_a_model_without_a_density_does_not_get_one_by_being_counted(cost):
    assert not isinstance(counted_model(registry.get_model("digits-32"), cost), HasLogDensity)
