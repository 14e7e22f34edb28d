"""One cell: its numbers are those of the library, its cost is counted, and what goes wrong is a row."""

import warnings

import attrs
import pytest
import torch

from scoreplug import registry
from scoreplug.bench import metrics
from scoreplug.bench.cell import Row, cells
from scoreplug.bench.evaluate import References, evaluate, ranks_of
from scoreplug.bench.execute import REFERENCES, execute, reported
from scoreplug.bench.suite import parse
from scoreplug.sampler import State

EM = {"name": "em", "steps": 8}


def test_the_samples_are_those_that_the_library_draws(cells_of):
    (cell,) = cells_of({"conditioner": {"name": "dps", "form": "predictive"}, "sampler": EM}, seeds=[3])
    problem = registry.get_problem("tiny", size=2, measured=1, seed=3)
    posterior = registry.get_conditioner("dps", form="predictive").condition(problem.prior, problem.measurement)
    x = registry.get_sampler("em", steps=8).sample(posterior, 20, seed=3)

    row = execute(cell)

    assert row.status == "ok"
    sets = [problem.exact_samples(20, seed=seed) for seed in REFERENCES]
    assert row.metrics["sliced_wasserstein"] == pytest.approx(
        sum(metrics.sliced_wasserstein(x, each) for each in sets) / len(sets)
    )
    assert row.metrics["crps"] == metrics.crps(x, problem.truth)
    assert row.ranks == ranks_of(problem, x, seed=3)


def test_the_cost_per_sample_is_counted(cells_of):
    (cell,) = cells_of({"conditioner": {"name": "dps", "form": "norm"}, "sampler": EM})

    cost = execute(cell).cost

    # 8 steps and the last estimate, each with one evaluation, one A, one A^T and one vjp
    assert [cost[name] for name in ("evaluations", "vjps", "forwards", "adjoints")] == [9, 9, 9, 9]
    assert cost["total_seconds"] >= cost["seconds"] > 0
    assert cost["peak_memory_bytes"] > 1e6


def test_the_oracle_is_the_problems_own_score(cells_of):
    (cell,) = cells_of({"conditioner": "oracle", "sampler": EM})
    problem = registry.get_problem("tiny", size=2, measured=1, seed=0)
    x = registry.get_sampler("em", steps=8).sample(problem.oracle, 20, seed=0)

    assert execute(cell).metrics["crps"] == metrics.crps(x, problem.truth)


def test_another_process_changes_the_samples_and_is_that_of_under(cells_of):
    own, other = cells_of(
        {"conditioner": "oracle", "sampler": EM}, {"conditioner": "oracle", "sampler": EM, "sde": "ve"}
    )
    problem = registry.get_problem("tiny", size=2, measured=1, seed=0)
    x = registry.get_sampler("em", steps=8).sample(problem.oracle.under(registry.get_sde("ve")), 20, seed=0)

    assert execute(other).metrics["crps"] == metrics.crps(x, problem.truth) != execute(own).metrics["crps"]


def test_exact_samples_cost_nothing_and_are_neither_the_reference_nor_the_floor(cells_of):
    (cell,) = cells_of({"sampler": "exact"})

    row = execute(cell)

    assert row.cost["evaluations"] == 0
    assert row.metrics["sliced_wasserstein"] > 0
    assert row.metrics["sliced_wasserstein"] != row.metrics["sliced_wasserstein_floor"]
    assert len(set(REFERENCES)) == len(REFERENCES)


@pytest.mark.parametrize(
    ("sampler", "steps", "evaluations"),
    [("em", 19, 20), ("ode", 9, 19), ({"name": "pc", "corrector": {"name": "langevin", "moves": 2}}, 6, 19)],
    ids=["em", "heun", "pc with two moves"],
)
def test_a_budget_of_20_is_met(cells_of, sampler, steps, evaluations):
    """em: s + 1. Heun: 2 s + 1. pc with two moves: 3 s + 1."""
    (cell,) = cells_of({"conditioner": "dps", "sampler": sampler}, budgets=[20])

    row = execute(cell)

    assert (row.status, row.steps, row.cost["evaluations"]) == ("ok", steps, evaluations)
    assert row.cell == cell


def test_a_budget_below_one_step_is_a_refused_row(cells_of):
    (cell,) = cells_of({"conditioner": "dps", "sampler": "ode"}, budgets=[2])

    row = execute(cell)

    assert row.status == "refused"
    assert row.reason == "one step costs 3 network evaluations per sample, more than the budget of 2"


def test_a_sampler_that_took_more_than_its_budget_is_refused_afterwards(cells_of, monkeypatch):
    """As adaptive ones may, whose rehearsal says little of the run."""
    monkeypatch.setattr("scoreplug.bench.execute.steps_within", lambda budget, evaluations: 25)
    (cell,) = cells_of({"conditioner": "dps", "sampler": "em"}, budgets=[20])

    row = execute(cell)

    assert (row.status, row.metrics) == ("refused", {})
    assert row.reason.startswith("it took 26 network evaluations per sample, more than the budget of 20")


def bent(conditioner, sampler="em"):
    table = {
        "problems": [{"problem": {"name": "bent", "operator": "square"}}],
        "methods": [{"conditioner": conditioner, "sampler": {"name": sampler, "steps": 4}}],
    }
    (cell,) = cells(parse({**table, "n": 5, "seeds": 1}, name="s"))
    return cell


def test_a_conditioner_that_cannot_use_the_measurement_is_refused_with_its_reason(tiny):
    row = execute(bent("ddrm"))

    assert row.status == "refused"
    assert "needs" in row.reason


def test_a_sampler_that_cannot_use_the_posterior_is_refused_with_its_reason(cells_of, monkeypatch):
    from scoreplug_builtin.samplers.em import EulerMaruyama

    def init(self, model, x, noise):
        raise TypeError("this sampler needs a posterior with a twist")

    monkeypatch.setattr(EulerMaruyama, "init", init)
    (cell,) = cells_of({"conditioner": "oracle", "sampler": EM})
    row = execute(cell)

    assert (row.status, row.reason) == ("refused", "this sampler needs a posterior with a twist")


def test_what_specs_refuse_is_not_even_built(cells_of, monkeypatch):
    monkeypatch.setattr("scoreplug.bench.execute.pose", None)
    (cell,) = cells_of({"conditioner": "jalal", "sampler": "needy"})

    assert execute(cell).status == "refused"


def test_a_divergence_is_a_row_with_the_place(cells_of):
    (cell,) = cells_of({"conditioner": {"name": "dps", "form": "norm", "scale": 1e308}, "sampler": EM})

    row = execute(cell)

    assert row.status == "diverged"
    assert "became NaN or infinite in step" in row.reason
    assert row.metrics == {}


def test_whatever_else_goes_wrong_is_a_failed_row_with_its_kind(cells_of):
    (cell,) = cells_of({"conditioner": "dps", "sampler": EM})
    row = execute(attrs.evolve(cell, problem={"name": "tiny", "size": 2, "measured": 5}))

    assert row.status == "failed"
    assert row.reason.startswith("ValueError: measured must be at most")


def test_warnings_are_kept_each_once(cells_of):
    (cell,) = cells_of({"conditioner": "dps", "sampler": EM})

    def noisy(*args, **kwargs):
        for _ in range(2):
            warnings.warn("be careful", stacklevel=1)
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scoreplug.bench.execute.evaluate", noisy)
        row = execute(cell)

    assert row.warnings == ("be careful",)


def test_a_cell_has_one_thread_and_torch_gets_its_own_back(cells_of, monkeypatch):
    (cell,) = cells_of({"conditioner": "dps", "sampler": EM})
    inside = []

    def stand_in(cell):
        inside.append(torch.get_num_threads())
        return Row(cell=cell)

    monkeypatch.setattr("scoreplug.bench.execute._measured", stand_in)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        execute(cell)
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)

    assert (inside, after) == ([1], 2)


def test_a_sampler_reports_the_numbers_of_its_last_state():
    from typing import NamedTuple

    class Carry(NamedTuple):
        log_evidence: torch.Tensor
        resampled: int
        weights: torch.Tensor
        name: str

    carry = Carry(torch.tensor(-1.5), 3, torch.zeros(2), "x")
    state = State(x=torch.zeros(1, 1), times=torch.ones(2), carry=carry)

    assert reported(state) == {"log_evidence": -1.5, "resampled": 3.0}
    assert reported(attrs.evolve(state, carry=None)) == {}


def test_an_evidence_that_a_sampler_reports_is_compared_with_the_problems(tiny):
    problem = registry.get_problem("tiny", size=2, measured=1)
    x = problem.exact_samples(10)

    found = evaluate(problem, x, None, report={"log_evidence": problem.log_evidence + 0.25}, c2st=False)

    assert found["log_evidence_error"] == pytest.approx(0.25)  # a difference of two doubles of order 1
    assert "log_evidence_error" not in evaluate(problem, x, None, report={}, c2st=False)


def test_a_metric_that_has_no_value_is_told_and_the_others_are_kept(tiny, monkeypatch):
    def no_value(*args, **kwargs):
        raise ValueError("a score is infinite")

    problem = registry.get_problem("tiny", size=2, measured=1)
    monkeypatch.setattr(metrics, "ksd", no_value)

    with pytest.warns(UserWarning, match="no metrics of log posterior for these samples: a score is infinite"):
        found = evaluate(problem, problem.exact_samples(10), None, report={}, c2st=False)

    assert {"crps", "mean_error"} <= set(found)
    assert "ksd_squared" not in found


def test_collapsed_samples_have_a_stein_discrepancy_with_the_length_of_exact_ones(tiny):
    problem = registry.get_problem("tiny", size=2, measured=1)
    exact = References(sets=(problem.exact_samples(10, seed=1), problem.exact_samples(10, seed=2)))

    found = evaluate(problem, problem.truth.expand(10, 1, 1, 2), exact, report={}, c2st=False)

    assert found["ksd_squared"] > 0
    assert found["spread_ratio"] == 0


def test_a_problem_that_knows_nothing_is_judged_by_its_truth_alone(tiny):
    known = registry.get_problem("tiny", size=2, measured=1)

    class Bare:
        prior, truth, measurement = known.prior, known.truth, known.measurement

    found = evaluate(Bare(), known.exact_samples(10), None, report={}, c2st=False)

    assert {"crps", "coverage_90", "residual"} <= set(found)
    assert not {"sliced_wasserstein", "mean_error", "ksd_squared"} & set(found)
    projections = {f"projection {i}" for i in (1, 2, 3, 4)}
    assert set(ranks_of(Bare(), known.exact_samples(10), seed=0)) == projections | {"distance"}


def test_an_outlier_has_a_distance_though_no_test_can_be_made(tiny):
    """Beside 1e100 all other samples are at distance 0 from each other, and the kernel's length is not to be had."""
    known = registry.get_problem("tiny", size=2, measured=1)
    exact = References(sets=(known.exact_samples(10, seed=1), known.exact_samples(10, seed=2)))
    x = known.exact_samples(10, seed=3).double()
    x[0] = 1e100

    with pytest.warns(UserWarning, match="no metrics of"):
        found = evaluate(known, x, exact, report={}, c2st=False)

    assert found["sliced_wasserstein"] > 1e97
    assert "mmd_squared" not in found


def test_samples_beyond_all_density_have_ranks(tiny):
    """1e200 squared is infinite: the truth is denser than each of them, and nearer to y."""
    known = registry.get_problem("tiny", size=2, measured=1)

    found = ranks_of(known, torch.full((10, *known.truth.shape), 1e200, dtype=torch.float64), seed=0)

    assert found["distance"] == 0
    assert found.get("log posterior", 10) == 10


def test_the_distance_is_to_a_reconstruction_from_y_alone(tiny):
    """Samples farther from A^+ y than the truth leave it rank 0, whatever the truth is; nearer ones the last."""
    known = registry.get_problem("tiny", size=2, measured=1)
    y = known.measurement
    reference = y.operator.pinv(y.data[None])
    truth = known.truth[None].to(reference)

    for factor, rank in ((2.0, 0), (0.5, 10)):
        x = (reference + factor * (truth - reference)).expand(10, *known.truth.shape)
        assert ranks_of(known, x, seed=0)["distance"] == rank
