"""A suite's table: what it says, and how every mistake in it is named."""

import sys

import pytest

from scoreplug.bench.check import check, seed_parameter
from scoreplug.bench.suite import built_in, load, parse
from scoreplug.run.config import ComponentConfig, ConfigError

PROBLEM = {"problem": {"name": "tiny", "size": 2, "measured": 1}}
DPS = {"conditioner": "dps", "sampler": "ancestral"}


def suite(problems=(PROBLEM,), methods=(DPS,), **head):
    return parse({"problems": list(problems), "methods": list(methods), **head}, name="s", source="s.toml")


def problems_of(error):
    return list(error.value.problems)


def test_lists_in_a_method_stand_for_all_their_combinations():
    found = suite(methods=[{"conditioner": ["dps", {"name": "dps", "scale": 0.2}], "sampler": ["em", "ode"]}])

    assert [m.label for m in found.methods] == [
        "dps / em",
        "dps / ode",
        "dps(scale=0.2) / em",
        "dps(scale=0.2) / ode",
    ]


def test_a_component_in_a_component_is_part_of_the_label():
    sampler = {"name": "pc", "corrector": {"name": "langevin", "snr": 0.1}}

    assert suite(methods=[{"conditioner": "dps", "sampler": sampler}]).methods[0].label == (
        "dps / pc(corrector=langevin(snr=0.1))"
    )


def test_numbers_hold_for_every_entry_unless_it_has_its_own():
    found = suite(
        problems=[PROBLEM, {**PROBLEM, "label": "other", "seeds": [7, 3]}],
        methods=[DPS, {**DPS, "label": "few", "n": 5, "budgets": []}],
        n=9,
        seeds=2,
        budgets=[20, 100],
    )

    assert [case.seeds for case in found.problems] == [(0, 1), (7, 3)]
    assert [(m.n, m.budgets) for m in found.methods] == [(9, (20, 100)), (5, (None,))]


def test_steps_that_are_given_are_kept_instead_of_a_budget():
    samplers = [{"name": "em", "steps": 7}, "ode"]

    found = suite(methods=[{"conditioner": "dps", "sampler": samplers}], budgets=[20, 100])

    assert [m.budgets for m in found.methods] == [(None,), (20, 100)]


def test_exact_samples_have_no_budget():
    assert suite(methods=[{"sampler": "exact"}], budgets=[20]).methods[0].budgets == (None,)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sedes": 3}, "s.toml: unknown parameter 'sedes'; did you mean 'seeds'?"),
        ({"n": True}, "s.toml: n must be int (got True)"),
        ({"n": 1}, "s.toml: n must be >= 2 (got 1)"),
        ({"seeds": 0}, "s.toml: problems 1: seeds must be at least one, each once (got [])"),
        ({"seeds": [1, 1]}, "s.toml: problems 1: seeds must be at least one, each once (got [1, 1])"),
        ({"problems": []}, "s.toml: problems must be a list of tables, [[problems]], with at least one"),
        ({"problems": ["tiny"]}, "s.toml: problems 1: must be a table (got 'tiny')"),
        (
            {"problems": [{"problem": {"nam": "tiny"}}]},
            "s.toml: problems 1: problem must be a name, or a table with `name` and parameters (got {'nam': 'tiny'})",
        ),
        (
            {"methods": [{**DPS, "condtioner": "dps"}]},
            "s.toml: methods 1: unknown parameter 'condtioner'; did you mean 'conditioner'?",
        ),
        ({"methods": [{"sampler": "em"}]}, "s.toml: methods 1: conditioner is missing: name one, or 'oracle'"),
        ({"methods": [{"conditioner": [], "sampler": "em"}]}, "s.toml: methods 1: conditioner names nothing"),
        (
            {"methods": [{"conditioner": "dps", "sampler": "exact"}]},
            "s.toml: methods 1: the sampler 'exact' takes neither conditioner nor sde: leave them out",
        ),
        (
            {"methods": [{"conditioner": {"name": "oracle", "scale": 1.0}, "sampler": "em"}]},
            "s.toml: methods 1: 'oracle' takes no parameters",
        ),
        (
            {"methods": [{"conditioner": ["dps", "song"], "sampler": "em", "label": "x"}]},
            "s.toml: methods 1: label names one method, and this table has 2; leave it out",
        ),
        (
            {"methods": [{"conditioner": "dps", "sampler": {"name": "em", "steps": 7}, "budgets": [20]}]},
            "s.toml: methods 1: 'em' has its `steps`, which budgets would choose: leave out one of them",
        ),
        ({"methods": [DPS, DPS]}, "s.toml: methods: 'dps / ancestral' is there 2 times; give each a label of its own"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_mistake_is_told_with_its_file_and_key(table, message):
    with pytest.raises(ConfigError) as error:
        parse({"problems": [PROBLEM], "methods": [DPS], **table}, name="s", source="s.toml")

    assert problems_of(error) == [message]


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        suite(problems=[{"problem": 3}], methods=[{"sampler": "em"}, {**DPS, "n": 0}])

    assert len(problems_of(error)) == 3


def test_a_suite_that_is_not_there_is_answered_with_a_near_one(tmp_path):
    with pytest.raises(ConfigError, match="no suite 'quik'; did you mean 'quick'"):
        load("quik")
    with pytest.raises(ConfigError, match=r"cannot read the config .*absent\.toml"):
        load(str(tmp_path / "absent.toml"))


@pytest.mark.parametrize("name", built_in())
def test_the_suites_that_ship_can_be_read(name):
    found = parse(load(name)[1], name=name)

    assert found.summary
    assert len(found.problems) * len(found.methods) > 1


@pytest.mark.parametrize("name", built_in())
def test_the_suites_that_ship_name_what_is_there(name):
    check(parse(load(name)[1], name=name))


def test_unknown_components_are_told_before_torch_is_needed(tiny):
    with pytest.raises(ConfigError) as error:
        check(suite(problems=[{"problem": "tny"}], methods=[{"conditioner": "dsp", "sampler": "em", "sde": "vpp"}]))

    assert [problem.partition("; did you mean")[0] for problem in problems_of(error)] == [
        "s.toml: problems 'tny': unknown problem 'tny'",
        "s.toml: methods 'dsp / em / vpp': unknown conditioner 'dsp'",
        "s.toml: methods 'dsp / em / vpp': unknown sde 'vpp'",
    ]


def test_parameters_are_checked_before_anything_runs(tiny):
    method = {"label": "m", "conditioner": {"name": "dps", "scael": 1.0}, "sampler": {"name": "em", "steps": 0}}
    with pytest.raises(ConfigError) as error:
        check(suite(problems=[{"label": "p", "problem": {"name": "tiny", "size": 0.5}}], methods=[method]))

    assert problems_of(error) == [
        "s.toml: problems 'p': problem 'tiny': size must be int (got 0.5)",
        "s.toml: methods 'm': conditioner 'dps': unknown parameter 'scael'; did you mean 'scale'?",
        "s.toml: methods 'm': sampler 'em': steps must be >= 1 (got 0)",
    ]


def test_a_component_that_cannot_be_imported_is_told_before_anything_runs(tiny):
    with pytest.raises(ConfigError, match=r"'gone' of plugin 'tiny_plugin\.py' is not usable"):
        check(suite(methods=[{"conditioner": "gone", "sampler": "em"}]))


@pytest.mark.parametrize(
    ("params", "expected"), [({}, "seed"), ({"seed": 4}, "draw"), ({"draw": 4}, "seed"), ({"seed": 4, "draw": 4}, None)]
)
def test_a_seed_chooses_what_the_problem_leaves_open(tiny, params, expected):
    assert seed_parameter(ComponentConfig(name="tiny", params=params)) == expected


def test_reading_a_suite_imports_no_torch():
    import subprocess

    code = (
        "import sys; from scoreplug.bench.suite import load, parse; from scoreplug.bench import cell, check, flags, "
        "table; parse(load('quick')[1], name='quick'); print('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
