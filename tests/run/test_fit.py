"""The batch that fits a memory budget: measured, written down, and without influence on a sample."""

import json
import sys
import tomllib
import warnings

import attrs
import numpy as np
import pytest
import tomli_w
from click.testing import CliRunner

from scoreplug import registry
from scoreplug.cli import main
from scoreplug.run import fit
from scoreplug.run.config import ConfigError, structure
from scoreplug.run.fit import Fit, choose, fitted
from scoreplug.run.overrides import layered, overridden
from scoreplug.run.plan import Chunk, execute, plan
from scoreplug.run.resolve import resolve
from scoreplug.run.runner import RunError, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its peak")

TABLE = {
    "samples": 16,
    "model": {"name": "gaussian", "image_shape": [1, 8, 8], "covariance": 0.1},
    "operator": "inpainting",
    "conditioner": "dps",
    "sampler": {"name": "pc", "steps": 5},
    "input": {"source": "ellipses", "noise_std": 0.1},
}
MB = 10**6


def config(**changes):
    return resolve({**TABLE, "memory": "8GB", **changes})


@pytest.fixture
def affine(monkeypatch):
    """A process of 100 MB that takes 10 MB for each sample. Which batches were measured?"""
    asked = []

    def peak(config, files, batch):
        asked.append(batch)
        return 100 * MB + 10 * MB * batch

    monkeypatch.setattr(fit, "_peak", peak)
    monkeypatch.setattr(fit, "now_on", lambda device: 100 * MB)
    return asked


def test_the_largest_batch_that_fits_is_taken(affine):
    """100 + 1.25 * 10 b MB and the samples, 16 * 64 * 8 bytes, must stay within the budget."""
    found = choose(config(memory="200MB"), {})

    assert (found.base, found.per_sample, found.kept) == (100 * MB, 10 * MB, 16 * 64 * 8)
    assert found.batch == 7
    assert found.need(7) <= 200 * MB < found.need(8)


def test_a_batch_is_no_larger_than_the_run(affine):
    assert choose(config(memory="10GB"), {}).batch == 16


def test_a_budget_is_not_passed_by_measuring(affine):
    """110 MB at one sample, 100 before it: two samples would take 120."""
    found = choose(config(memory="115MB"), {})

    assert found.batch == 1
    assert set(affine) == {1}


def test_a_slope_that_does_not_stand_out_is_looked_for_in_larger_batches(monkeypatch):
    """Half a megabyte for each sample under a budget of 1 GB: 50 MB show at a batch of 128 at the earliest."""
    asked = []

    def peak(config, files, batch):
        asked.append(batch)
        return 100 * MB + MB // 2 * batch

    monkeypatch.setattr(fit, "_peak", peak)
    monkeypatch.setattr(fit, "now_on", lambda device: 100 * MB)
    found = choose(config(memory="1GB", samples=10_000), {})

    assert asked[-1] >= 128
    assert (found.base, found.per_sample) == (100 * MB, MB // 2)


def test_a_slope_that_grows_counts_as_it_is_at_the_end(monkeypatch):
    """Convolutions of one image may take another algorithm: 1 MB for the first sample, 10 MB for all others."""
    monkeypatch.setattr(fit, "_peak", lambda config, files, batch: 101 * MB + 10 * MB * (batch - 1))
    monkeypatch.setattr(fit, "now_on", lambda device: 100 * MB)

    assert choose(config(memory="1GB"), {}).per_sample == 10 * MB


def test_without_room_for_one_sample_the_numbers_are_said(affine):
    message = (
        r"memory = '105MB' does not hold a single sample: it takes 11\d MB \(100 MB without samples, 10 MB for each, "
        r"and 25% of that to spare\); allow that, or take a smaller image or network"
    )
    with pytest.raises(ConfigError, match=message):
        choose(config(memory="105MB"), {})


def test_a_population_fits_as_a_whole_or_is_refused(affine):
    smc = {"conditioner": "mmps", "sampler": {"name": "smc", "steps": 3}}

    assert choose(config(memory="400MB", **smc), {}).batch == 16
    with pytest.raises(ConfigError, match=r"does not hold the 16 samples that sampler 'smc' draws as one population"):
        choose(config(memory="200MB", **smc), {})


def test_where_memory_cannot_be_measured_a_batch_is_asked_for(monkeypatch):
    monkeypatch.setattr(fit, "unmeasurable", lambda device: "nobody knows")

    with pytest.raises(ConfigError, match="memory: nobody knows; state a batch instead"):
        choose(config(), {})


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_a_batch_of_any_size_and_one_that_is_measured_give_the_same_samples(tmp_path, precision, tolerance):
    model = {**TABLE["model"], "precision": precision}

    def samples(chosen):
        return np.concatenate([execute(task).samples for task in plan(chosen, {})])

    chosen, found = fitted(config(model=model), {}, tmp_path)
    whole = samples(chosen)

    assert chosen.batch == found.batch == 16
    assert np.isfinite(whole).all()
    for batch in (1, 4, 16):
        stated = resolve({**TABLE, "model": model, "batch": batch})
        np.testing.assert_allclose(samples(stated), whole, rtol=0, atol=tolerance * np.abs(whole).max())


def test_the_runs_own_config_states_the_batch_and_its_cost_why(tmp_path):
    result = run(config(memory="4GB"), tmp_path / "run")

    written = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    cost = json.loads((tmp_path / "run" / "cost.json").read_text())
    assert written["batch"] == result.config.batch == cost["memory"]["batch"] == 16
    assert "memory" not in written
    assert cost["memory"]["budget_bytes"] == 4 * 10**9
    assert cost["memory"]["held"] is True
    assert cost["memory"]["peak_bytes"] == cost["peak_memory_bytes"]
    assert not (tmp_path / "run" / "memory.json").exists()
    assert cost["evaluations"] == 16 * 11  # measuring is not counted


def test_a_run_that_is_taken_up_keeps_its_batch(tmp_path, monkeypatch):
    """The second measurement would say 2, and the chunks of 4 would be of no use."""
    said = iter([4, 2])
    monkeypatch.setattr(fit, "choose", lambda *asked: a_fit(asked=asked[-1], budget=8000 * MB, batch=next(said)))
    broken = {"left": 2}

    def breaks(task, *more):
        broken["left"] -= 1
        if broken["left"] < 0:
            raise KeyboardInterrupt
        return follow(task, *more)

    from scoreplug.run import runner

    follow = runner.execute_and_follow
    monkeypatch.setattr(runner, "execute_and_follow", breaks)
    with pytest.raises(RunError, match=r"\(2\) are kept"):
        run(config(), tmp_path / "run")
    monkeypatch.setattr(runner, "execute_and_follow", follow)
    result = run(config(), tmp_path / "run")

    assert (result.cost["chunks"], result.cost["chunks_reused"]) == (4, 2)
    assert result.cost["memory"]["batch"] == 4


def test_another_question_is_measured_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "choose", lambda config, files, asked: a_fit(asked=asked, budget=8000 * MB, batch=3))
    _, first = fitted(config(), {}, tmp_path)
    (tmp_path / fit.FILE).write_text(json.dumps(attrs.evolve(first, batch=5).table))

    assert fitted(config(), {}, tmp_path)[0].batch == 5
    assert fitted(config(memory="9GB"), {}, tmp_path)[0].batch == 3
    assert fitted(config(conditioner="song"), {}, tmp_path)[0].batch == 3


def test_a_batch_that_was_chosen_before_is_known_by_its_reason(tmp_path, monkeypatch):
    """`--resume` reads the batch from the run's own config, and the reason beside it."""
    monkeypatch.setattr(fit, "choose", lambda config, files, asked: a_fit(asked=asked, batch=3))
    chosen, why = fitted(config(), {}, tmp_path)
    (tmp_path / fit.FILE).write_text(json.dumps(why.table))

    assert fitted(chosen, {}, tmp_path) == (chosen, why)
    assert fitted(attrs.evolve(chosen, batch=4), {}, tmp_path)[1] is None
    assert fitted(attrs.evolve(chosen, samples=17), {}, tmp_path)[1] is None


def test_a_chunk_that_takes_more_than_the_budget_is_told():
    def chunk(peak):
        return Chunk(samples=np.zeros(1), facts={"peak_memory_bytes": peak})

    with pytest.warns(UserWarning, match="a batch of 4 took 250 MB, more than the 200 MB that were allowed"):
        a_fit().check(chunk(250 * MB))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        a_fit().check(chunk(200 * MB))
    assert fit.held(a_fit(), [chunk(100 * MB), chunk(250 * MB)])["memory"]["held"] is False


def test_a_budget_and_a_batch_exclude_each_other_and_the_later_layer_wins():
    with pytest.raises(ConfigError, match="memory chooses the batch: leave out one of them"):
        structure({**TABLE, "memory": "2GB", "batch": 4})
    assert "batch" not in layered({"batch": 8}, {"memory": "2GB"})
    assert overridden({"batch": 8}, [(("memory",), "2GB")]) == {"memory": "2GB"}
    assert overridden({"memory": "2GB"}, [(("batch",), 3)]) == {"batch": 3}


def test_the_command_line_takes_a_budget_and_a_dry_run_says_what_it_gives(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(tomli_w.dumps(TABLE))
    asked = ["run", "c.toml", "--memory", "4 GB", "--set", "model.image_shape=[1,8,8]", "--dry-run", "--out", "out"]
    result = CliRunner().invoke(main, asked)
    registry.use(None)

    assert result.exit_code == 0, result.output
    assert tomllib.loads(result.stdout)["batch"] == 16
    assert "# 16 samples in 1 chunks, to out\n# batch of 16: " in result.stdout
    assert " of 4 GB: " in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


def test_a_config_with_a_budget_survives_a_round_trip():
    assert structure(tomllib.loads(config().to_toml())) == config()


def test_a_size_that_is_none_is_refused_with_the_others():
    with pytest.raises(ConfigError, match=r"memory cannot be 'plenty': a size is a number and a unit"):
        structure({**TABLE, "memory": "plenty"})


def a_fit(**changes):
    return attrs.evolve(
        Fit(asked="", budget=200 * MB, base=100 * MB, per_sample=10 * MB, kept=0, batch=4, measured={"1": 110 * MB}),
        **changes,
    )
