"""From a budget of evaluations to steps."""

import pytest

from scoreplug.bench.budget import Refusal, steps_within


@pytest.mark.parametrize("budget", [7, 8, 9, 100, 1000])
@pytest.mark.parametrize(("start", "per_step"), [(0, 1), (1, 1), (-1, 2), (1, 5), (2, 0.5)])
def test_the_steps_are_the_most_that_the_budget_allows(budget, start, per_step):
    cost = lambda steps: start + per_step * steps  # noqa: E731

    steps = steps_within(budget, cost)

    assert cost(steps) <= budget < cost(steps + 1)


def test_one_step_may_be_all_there_is():
    assert steps_within(6, lambda steps: 1 + 5 * steps) == 1


def test_a_budget_below_one_step_is_refused():
    with pytest.raises(Refusal, match="one step costs 6 network evaluations per sample, more than the budget of 5"):
        steps_within(5, lambda steps: 1 + 5 * steps)


def test_steps_that_cost_nothing_meet_no_budget():
    with pytest.raises(Refusal, match=r"do not grow with its steps \(3 for 4, 3 for 8\)"):
        steps_within(100, lambda steps: 3)
