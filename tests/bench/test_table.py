"""Means over seeds, by hand; the floor, the best of a budget, the front."""

import math

import attrs
import numpy as np
import pytest

from scoreplug.bench.cell import Row
from scoreplug.bench.pareto import front
from scoreplug.bench.table import Estimate, best, relative, summaries, table

DPS = {"conditioner": "dps", "sampler": "em"}


def rows_of(cells, **values):
    """A row for each cell; each value is a list over cells, or one number."""
    listed = {k: v if isinstance(v, list) else [v] * len(cells) for k, v in values.items()}
    return [
        Row(
            cell=cell,
            metrics={k: v[i] for k, v in listed.items() if k != "evaluations"},
            cost={"evaluations": listed["evaluations"][i]} if "evaluations" in listed else {},
        )
        for i, cell in enumerate(cells)
    ]


def test_the_uncertainty_of_a_mean_is_196_standard_errors():
    """Of 1, 2, 3, 6: mean 3, sample variance (4 + 1 + 0 + 9) / 3."""
    found = Estimate.of([1.0, 2.0, 3.0, 6.0])

    assert found.mean == 3
    assert found.half == pytest.approx(1.96 * math.sqrt(14 / 3 / 4))
    assert str(found) == "3 ± 2.1"


def test_errors_of_any_size_have_an_uncertainty():
    """A method that explodes in one seed: squares of 1e200 are beyond float64, their root is not."""
    assert Estimate.of([0.0, 1e200]).half == pytest.approx(1.96 * 0.5e200)


def test_a_mean_over_survivors_does_not_win(cells_of):
    """One of two seeds gave no error: samples that overflowed, say."""
    rows = [
        *rows_of(cells_of(DPS, seeds=2), sliced_wasserstein=[0.1, None], evaluations=20.0),
        *rows_of(cells_of({**DPS, "label": "b"}, seeds=2), sliced_wasserstein=[1.0, 1.0], evaluations=20.0),
    ]

    assert [s.method for _, _, s in best(summaries(rows))] == ["b"]


def test_one_seed_has_no_uncertainty():
    assert str(Estimate.of([0.12345])) == "0.123"


def test_the_ratio_to_the_floor_is_one_of_means(cells_of):
    cells = cells_of(DPS, seeds=2)
    (found,) = summaries(rows_of(cells, sliced_wasserstein=[1.0, 5.0], sliced_wasserstein_floor=[1.0, 0.5]))

    assert found.ratio == 3 / 0.75  # the mean of the ratios would be 5.5


def test_seeds_are_put_together_and_nothing_else(cells_of):
    cells = cells_of(DPS, {**DPS, "label": "b", "n": 30}, seeds=2, budgets=[20, 100])

    found = summaries(rows_of(cells, crps=1.0))

    assert [(s.method, s.n, s.budget, s.state) for s in found] == [
        ("dps / em", 20, 20, "2 ok"),
        ("dps / em", 20, 100, "2 ok"),
        ("b", 30, 20, "2 ok"),
        ("b", 30, 100, "2 ok"),
    ]


def test_cells_that_gave_nothing_are_counted_and_left_out_of_the_mean(cells_of):
    cells = cells_of(DPS, seeds=4)
    rows = rows_of(cells, crps=[1.0, 3.0, 9.0, None])
    rows[2] = Row(cell=cells[2], status="diverged", reason="at level 3")

    (found,) = summaries(rows)

    assert (found.state, found.reasons) == ("3 ok, 1 diverged", ("at level 3",))
    assert (found.error.mean, found.error.count) == (2.0, 2)
    assert not found.complete


def test_methods_are_compared_by_the_distance_to_exact_samples_where_there_are_some(cells_of):
    cells = cells_of(DPS)

    assert summaries(rows_of(cells, crps=1.0, sliced_wasserstein=2.0))[0].criterion == "sliced_wasserstein"
    assert summaries(rows_of(cells, crps=1.0))[0].criterion == "crps"
    assert summaries([Row(cell=cells[0], status="failed")])[0].error is None


def test_the_best_of_a_budget_is_the_smallest_error_that_it_pays_for(cells_of):
    methods = [{**DPS, "label": name} for name in ("cheap", "dear", "worse", "dearest")]
    cells = cells_of(*methods)
    found = summaries(rows_of(cells, crps=[3.0, 1.0, 2.0, 0.5], evaluations=[20.0, 100.0, 101.0, 10001.0]))

    assert [(budget, s.method) for _, budget, s in best(found)] == [(20, "cheap"), (100, "dear")]


def test_references_and_methods_with_missing_seeds_do_not_compete(cells_of):
    methods = [{"sampler": "exact"}, {"conditioner": "oracle", "sampler": "em"}, {**DPS, "label": "breaks"}, DPS]
    cells = cells_of(*methods, seeds=2)
    rows = rows_of(cells, crps=[0.1, 0.2, 0.3, 0.9] * 2, evaluations=10.0)
    rows[2] = Row(cell=cells[2], status="diverged")

    assert [(budget, s.method) for _, budget, s in best(summaries(rows))] == [(20, "dps / em")]


def test_without_a_floor_errors_are_in_units_of_the_smallest(cells_of):
    cells = cells_of(DPS, {**DPS, "label": "b"}, {**DPS, "label": "c"})
    rows = [*rows_of(cells[:2], crps=[0.5, 1.5]), Row(cell=cells[2], status="failed")]

    assert relative(summaries(rows)) == {0: 1.0, 1: 3.0}


def test_ranks_of_ten_seeds_or_more_are_tested_for_uniformity(cells_of):
    """100 truths that are larger than all samples are not uniform; ranks that take each value as often are."""
    cells = cells_of(DPS, seeds=105)
    even = [Row(cell=cell, ranks={"a": i % 21}) for i, cell in enumerate(cells)]
    high = [attrs.evolve(row, ranks={"a": i % 21, "b": 20}) for i, row in enumerate(even)]

    assert summaries(even)[0].calibration.p_value > 0.5
    # the p-value of 1000 simulations is at least 1 / 1001, for each of two statistics
    assert summaries(high)[0].calibration.p_value == pytest.approx(2 / 1001)
    assert summaries(even[:9])[0].calibration is None


def test_coverage_and_tarp_are_of_their_own_ranks(cells_of):
    """20 samples: truths of the 2 lowest of 21 densities are outside of the 90 % region of 19 ranks; the others inside.

    Truths nearer to the reference than all samples are inside of every ball: coverage 1, an area of 1/8 too wide.
    """
    cells = cells_of(DPS, seeds=20)
    rows = [Row(cell=cell, ranks={"log posterior": 1 if i < 5 else 2, "distance": 0}) for i, cell in enumerate(cells)]

    found = summaries(rows)[0].calibration

    assert found.hpd_90 == 0.75
    assert found.tarp == pytest.approx((1 / 8, 0.0))
    header, (line,) = table(summaries(rows))
    assert dict(zip(header, line, strict=True))["TARP"] == "+0.125 ± 0.000"
    assert summaries([attrs.evolve(row, ranks={"a": 1}) for row in rows])[0].calibration.tarp is None


def test_the_table_has_a_line_for_each_summary(cells_of):
    header, lines = table(summaries(rows_of(cells_of(DPS, seeds=2), sliced_wasserstein=[1.0, 2.0], evaluations=20.0)))

    line = dict(zip(header, lines[0], strict=True))
    assert (line["method"], line["SW"], line["evals"], line["mode TV"]) == ("dps / em", "1.5 ± 0.98", "20", "")


def test_the_front_is_what_nothing_beats_in_both():
    points = [(20.0, 3.0), (20.0, 2.0), (50.0, 2.0), (100.0, 1.0), (200.0, 4.0), (300.0, 0.5)]

    assert front(points) == [1, 3, 5]


def test_the_front_against_its_definition():
    rng = np.random.default_rng(0)
    points = [tuple(p) for p in rng.integers(0, 20, (60, 2)).astype(float)]

    beaten = {i for i, p in enumerate(points) if any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)}

    assert {points[i] for i in front(points)} == {p for i, p in enumerate(points) if i not in beaten}


def test_many_methods_on_one_problem_are_compared_in_one_pass(cells_of, monkeypatch):
    """A sweep of 10,000 methods would take 10^8 comparisons two by two."""
    methods = [{"conditioner": "dps", "sampler": {"name": "em", "rho": 5 + i}} for i in range(50)]
    found = summaries(rows_of(cells_of(*methods), sliced_wasserstein=[1.0 + i for i in range(50)]))
    asked = []

    def error(summary):
        asked.append(summary)
        return summary.error.mean

    monkeypatch.setattr("scoreplug.bench.table._error", error)

    assert relative(found) == {i: 1.0 + i for i in range(50)}
    assert len(asked) == 50
