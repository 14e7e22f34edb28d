"""What the command line changes in a suite."""

import pytest

from scoreplug.bench.flags import changed
from scoreplug.run.config import ConfigError

TABLE = {
    "n": 9,
    "problems": [{"problem": {"name": "tiny", "size": 2}, "seeds": 3}, {"problem": "bare"}],
    "methods": [
        {"sampler": "exact"},
        {"conditioner": ["dps", {"name": "song", "form": "score"}], "sampler": "em", "n": 5, "budgets": [20]},
        {"conditioner": "oracle", "sampler": {"name": "ode", "steps": 7}},
    ],
}


def test_without_flags_nothing_changes(tiny):
    assert changed(TABLE) == TABLE


def test_the_table_that_is_given_is_left_as_it_is(tiny):
    import copy

    before = copy.deepcopy(TABLE)
    changed(TABLE, n=3, settings=["sampler.steps=4"], problems=["bare"])

    assert before == TABLE


def test_problems_replace_the_problems(tiny):
    found = changed(TABLE, problems=["bare", '{name="tiny",size=4}'])

    assert found["problems"] == [{"problem": "bare"}, {"problem": {"name": "tiny", "size": 4}}]
    assert found["methods"] == TABLE["methods"]


def test_conditioners_and_samplers_replace_the_methods_by_their_combinations_and_exact_samples(tiny):
    found = changed(TABLE, conditioners=["dps", '{name="dps",scale=0.2}'], samplers=["em"], sdes=["ve"])

    assert found["methods"] == [
        {"sampler": "exact"},
        {"conditioner": ["dps", {"name": "dps", "scale": 0.2}], "sampler": ["em"], "sde": ["ve"]},
    ]


def test_what_is_not_named_has_a_default(tiny):
    assert changed(TABLE, conditioners=["dps"])["methods"][1] == {"conditioner": ["dps"], "sampler": "ancestral"}
    assert changed(TABLE, samplers=["em"])["methods"][1] == {"conditioner": "oracle", "sampler": ["em"]}


def test_exact_samples_are_left_out_where_no_problem_has_any(tiny):
    assert changed(TABLE, problems=["bare"], samplers=["em"])["methods"] == [
        {"conditioner": "oracle", "sampler": ["em"]}
    ]


def test_a_process_alone_goes_into_the_methods(tiny):
    found = changed(TABLE, sdes=["ve"])["methods"]

    assert [m.get("sde") for m in found] == [["ve"], ["ve"]]
    assert all(m["sampler"] != "exact" for m in found)


def test_numbers_hold_for_everything(tiny):
    found = changed(TABLE, n=3, seeds=2, budgets=(50,))

    assert (found["n"], found["seeds"], found["budgets"]) == (3, 2, (50,))
    assert not any({"n", "seeds", "budgets"} & set(entry) for entry in found["problems"] + found["methods"])


def test_a_parameter_goes_to_every_component_of_the_role_that_has_it(tiny):
    found = changed(TABLE, settings=["sampler.steps=4", "conditioner.scale=0.5", "problem.size=3"])

    assert [m["sampler"] for m in found["methods"]] == [
        "exact",
        {"name": "em", "steps": 4},
        {"name": "ode", "steps": 4},
    ]
    assert found["methods"][1]["conditioner"][0] == {"name": "dps", "scale": 0.5}
    assert found["methods"][2]["conditioner"] == "oracle"
    assert [p["problem"] for p in found["problems"]] == [{"name": "tiny", "size": 3}, {"name": "bare", "size": 3}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampler.stpes=4", "--set sampler.stpes: no sampler of this benchmark has a parameter 'stpes'"),
        ("model.size=4", "the role one of problem, conditioner, sampler, sde"),
        ("steps=4", "the role one of problem, conditioner, sampler, sde"),
        ("sampler.steps", "--set takes role.key=value"),
    ],
)
def test_a_setting_that_changes_nothing_is_refused(tiny, text, message):
    with pytest.raises(ConfigError) as error:
        changed(TABLE, settings=[text])

    assert message in str(error.value)


def test_every_bad_setting_is_told(tiny):
    with pytest.raises(ConfigError) as error:
        changed(TABLE, settings=["a=1", "b=2"])

    assert len(error.value.problems) == 2
