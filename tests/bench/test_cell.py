"""A cell's key, and what specs alone refuse."""

import json

import attrs
import pytest

from scoreplug.bench.cell import Row, canonical, cells, refusal
from scoreplug.bench.suite import parse

DPS = {"conditioner": "dps", "sampler": "em"}


def test_every_problem_seed_method_and_budget_is_a_cell(cells_of):
    found = cells_of({"sampler": "exact"}, DPS, seeds=2, budgets=[20, 100])

    assert [(c.problem["seed"], c.seed, c.method_label, c.budget) for c in found] == [
        (seed, seed, *rest) for seed in (0, 1) for rest in (("exact", None), ("dps / em", 20), ("dps / em", 100))
    ]


def test_the_key_is_that_of_the_content_not_of_labels(cells_of):
    (one,), (other,) = cells_of(DPS), cells_of({**DPS, "label": "another name"})

    assert one.key == other.key
    assert len(one.key) == 64


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("problem", {"name": "tiny", "size": 3}),
        ("conditioner", {"name": "dps", "scale": 0.5}),
        ("sampler", {"name": "ode"}),
        ("sde", {"name": "ve"}),
        ("seed", 1),
        ("n", 21),
        ("budget", 20),
        ("c2st", True),
        ("versions", {"scoreplug": "another"}),
        ("files", {"x": "0"}),
    ],
)
def test_the_key_changes_with_whatever_changes_the_result(cells_of, name, value):
    (cell,) = cells_of(DPS)

    assert attrs.evolve(cell, **{name: value}).key != cell.key


def test_versions_are_those_of_packages_and_of_the_plugins_in_use(cells_of):
    (cell,) = cells_of(DPS)

    assert set(cell.versions) == {"numpy", "scoreplug", "torch", "tiny_plugin.py"}


def test_a_file_that_a_component_names_goes_into_the_key_by_its_content(tiny, tmp_path):
    path = tmp_path / "weights.npy"
    table = {
        "problems": [{"problem": {"name": "tiny", "measured": 1}}],
        "methods": [{"conditioner": {"name": "dps", "form": str(path)}, "sampler": "em"}],
        "seeds": 1,
    }
    keys = []
    for content in (b"1", b"2"):
        path.write_bytes(content)
        keys.append(cells(parse(table, name="s"))[0].key)

    assert keys[0] != keys[1]


def test_a_row_survives_json(cells_of):
    (cell,) = cells_of({**DPS, "conditioner": {"name": "dps", "scale": 0.1}})
    row = Row(cell=cell, metrics={"a": 0.1, "b": None}, ranks={"r": 3}, cost={"evaluations": 4.0}, warnings=["w"])

    assert Row.from_table(json.loads(canonical(row.table))) == row


def test_json_has_no_infinity(cells_of):
    (cell,) = cells_of(DPS)

    assert json.loads(canonical(Row(cell=cell, metrics={"psnr": float("inf")}).table))["metrics"] == {"psnr": None}


def test_a_row_whose_cell_was_changed_is_refused(cells_of):
    (cell,) = cells_of(DPS)
    table = json.loads(canonical(Row(cell=cell).table))
    table["cell"]["seed"] = 99

    with pytest.raises(ValueError, match="key is not that of its cell"):
        Row.from_table(table)


def test_specs_refuse_what_cannot_run_with_the_reason(cells_of):
    reasons = [refusal(cell) for cell in cells_of({"conditioner": ["jalal", "oracle"], "sampler": ["em", "needy"]})]

    assert [reason is None for reason in reasons] == [True, False, True, True]  # an oracle is asked at run time
    assert "sampler 'needy' needs a conditioner with twist; 'jalal' gives its posterior" in reasons[1]


def test_what_a_problem_does_not_know_is_refused(tiny):
    table = {"problems": [{"problem": "bare"}], "methods": [{"sampler": "exact"}, {**DPS, "conditioner": "oracle"}]}
    exact, oracle = cells(parse({**table, "seeds": 1}, name="s"))

    assert refusal(exact) == "problem 'bare' has no exact samples to draw"
    assert "the score of the posterior of problem 'bare' is not known" in refusal(oracle)


def test_a_sweep_over_many_methods_asks_for_the_packages_versions_once(suite_of, monkeypatch):
    asked = []
    monkeypatch.setattr("scoreplug.bench.cell.version", lambda name: asked.append(name) or "1")
    samplers = [{"name": "em", "rho": 5.0 + i} for i in range(20)]

    found = cells(suite_of({"conditioner": "dps", "sampler": samplers}))

    assert len(found) == 20
    assert sorted(asked) == ["numpy", "scoreplug", "torch"]


def test_the_key_of_a_cell_is_computed_once(cells_of, monkeypatch):
    (cell,) = cells_of({"conditioner": "dps", "sampler": "em"})
    key = cell.key
    monkeypatch.setattr("scoreplug.bench.cell.canonical", lambda value: 1 / 0)

    assert cell.key == key
    assert attrs.evolve(cell) == cell
