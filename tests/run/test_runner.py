"""A whole run, from config to directory."""

import hashlib
import json
import math
import tomllib

import numpy as np
import pytest
import torch

from scoreplug import __version__, registry
from scoreplug.run.config import structure
from scoreplug.run.plan import SerialExecutor, execute, plan
from scoreplug.run.rehearse import rehearse
from scoreplug.run.resolve import resolve
from scoreplug.run.runner import RunError, run
from scoreplug.run.setup import build
from scoreplug.sampler import DivergenceError

TABLE = {
    "samples": 4,
    "batch": 2,
    "model": {"name": "gaussian", "image_shape": [1, 8, 8], "covariance": 0.1},
    "operator": "inpainting",
    "conditioner": "dps",
    "sampler": {"name": "pc", "steps": 5},
    "input": {"source": "ellipses", "relative_noise": 0.1},
}


def config(**changes):
    return resolve({**TABLE, **changes})


def facts(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def sampled(chosen):
    """The samples of a run, without its directory."""
    return np.concatenate([execute(task).samples for task in plan(chosen, {})])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run directory and the result that it holds, to look at."""
    out = tmp_path_factory.mktemp("done") / "run"
    return out, run(config(), out)


def test_the_run_directory_is_complete(done):
    out, _ = done

    assert sorted(path.name for path in out.iterdir()) == [
        "SHA256SUMS",
        "arrays.npz",
        "config.toml",
        "cost.json",
        "figure.png",
        "metrics.json",
        "provenance.json",
        "report.html",
        "trajectory.npz",
    ]
    assert [path.name for path in out.parent.iterdir()] == ["run"]


def test_the_written_config_gives_the_same_samples(done):
    out, result = done
    again = resolve(tomllib.loads((out / "config.toml").read_text()))

    assert again == result.config
    np.testing.assert_array_equal(sampled(again), result.samples)


def test_the_arrays_are_what_was_computed(done):
    out, result = done

    with np.load(out / "arrays.npz") as arrays:
        assert set(arrays) == {"samples", "mean", "std", "truth", "measurement", "baseline"}
        np.testing.assert_array_equal(arrays["samples"], result.samples)
        np.testing.assert_array_equal(arrays["mean"], result.samples.mean(0))
        np.testing.assert_array_equal(arrays["std"], result.samples.std(0, ddof=1))
        np.testing.assert_array_equal(arrays["truth"], result.truth)
        assert arrays["measurement"].shape == result.subject.measurement.data.shape


def test_without_a_conditioner_the_samples_are_those_of_the_prior():
    prior = registry.get_model("gaussian", image_shape=(1, 8, 8), covariance=0.1)
    pc = registry.get_sampler("pc", steps=5)

    np.testing.assert_array_equal(sampled(config(conditioner="none", batch=4)), pc.sample(prior, 4).numpy())


def test_another_process_can_be_named():
    prior = registry.get_model("gaussian", image_shape=(1, 8, 8), covariance=0.1).under(registry.get_sde("ve"))

    expected = registry.get_sampler("pc", steps=5).sample(prior, 4).numpy()

    np.testing.assert_array_equal(sampled(config(conditioner="none", sde="ve", batch=4)), expected)


def test_cost_adds_up_over_chunks(done):
    cost = facts(done[0], "cost")

    # 5 steps with a corrector and a predictor, and the last estimate: 11 each
    assert cost["evaluations"] == 4 * 11
    assert cost["evaluation_calls"] == 2 * 11
    assert cost["evaluations_per_sample"] == cost["vjps_per_sample"] == 11
    assert cost["chunks"] == 2
    assert cost["wall_seconds"] >= cost["sampling_seconds"] > 0
    assert cost["peak_memory_bytes"] > 1e6


def test_provenance_names_versions_plugins_and_files(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((8, 8)))
    run(config(input={"image": str(path), "noise_std": 0.1}), tmp_path / "run")

    found = facts(tmp_path / "run", "provenance")
    assert found["packages"]["scoreplug"] == __version__
    assert {"torch", "numpy"} <= set(found["packages"])
    assert any(plugin["name"] == "scoreplug" and plugin["state"] == "ok" for plugin in found["plugins"])
    assert found["sha256"] == {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}


def test_an_infinite_psnr_is_null_in_json(tmp_path):
    """All of the image is measured without noise, so the pseudoinverse is exact, and JSON has no infinity."""
    result = run(config(operator="identity", input={"source": "ellipses", "noise_std": 0.0}), tmp_path / "run")

    assert result.metrics["baseline"]["psnr"] == math.inf
    assert facts(tmp_path / "run", "metrics")["baseline"]["psnr"] is None


def test_a_measurement_without_truth(tmp_path):
    y = tmp_path / "y.npy"
    np.save(y, np.full((8, 8), 0.5))
    run(config(operator="identity", input={"measurement": str(y), "noise_std": 0.1}), tmp_path / "run")

    found = facts(tmp_path / "run", "metrics")
    assert found["posterior_mean"]["psnr"] is None
    assert found["posterior_mean"]["residual"] > 0
    with np.load(tmp_path / "run" / "arrays.npz") as arrays:
        assert "truth" not in arrays


def test_progress_rises_to_one(tmp_path):
    seen = []
    run(config(), tmp_path / "run", progress=seen.append)

    assert seen == sorted(seen)
    assert seen[0] == 0
    assert seen[-1] == 1


def test_a_diverging_run_stops_with_the_reason_and_leaves_nothing(tmp_path):
    with pytest.raises(RunError, match=r"samples \[0, 1\] became NaN .* in step \d+ of \d+, .*[nN]othing is kept"):
        run(config(conditioner={"name": "dps", "scale": 1e308}), tmp_path / "run")

    assert list(tmp_path.iterdir()) == []


def _lost(message):
    return DivergenceError(message, step=7, steps=9, level=0.1, samples=(3,), survivors=(), x=torch.empty(0, 1, 8, 8))


class Fails(SerialExecutor):
    """Fails at its second task."""

    def __init__(self, error):
        self.error, self.count = error, 0

    def submit(self, fn, /, *args, **kwargs):
        self.count += 1
        if self.count == 2:
            raise self.error
        return super().submit(fn, *args, **kwargs)


@pytest.mark.parametrize(
    ("error", "message"),
    [(_lost("samples [3] became NaN"), r"samples \[3\] became NaN"), (KeyboardInterrupt(), "interrupted")],
    ids=["NaN", "Ctrl-C"],
)
def test_finished_chunks_are_kept_and_used_by_the_next_attempt(tmp_path, done, error, message):
    undisturbed = done[1]
    with pytest.raises(RunError, match=rf"{message}.*Finished chunks \(1\) are kept in '.*run.partial.chunks'"):
        run(config(), tmp_path / "run", executor=Fails(error))
    assert not (tmp_path / "run").exists()

    resumed = run(config(), tmp_path / "run")

    np.testing.assert_array_equal(resumed.samples, undisturbed.samples)
    assert resumed.cost["chunks_reused"] == 1
    assert resumed.cost["evaluations"] == undisturbed.cost["evaluations"]
    assert not (tmp_path / "run.partial").exists()


def test_an_unforeseen_error_keeps_finished_chunks_too(tmp_path):
    with pytest.raises(MemoryError):
        run(config(), tmp_path / "run", executor=Fails(MemoryError()))

    assert run(config(), tmp_path / "run").cost["chunks_reused"] == 1


def test_nothing_is_written_if_the_input_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        run(config(input={"image": str(tmp_path / "x.npy"), "noise_std": 0.1}), tmp_path / "run")

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_if_the_conditioner_refuses_the_measurement(tmp_path):
    exact = config(conditioner={"name": "dps", "form": "likelihood"}, input={"source": "ellipses", "noise_std": 0.0})

    with pytest.raises(ValueError, match="noise_std must be > 0"):
        run(exact, tmp_path / "run")

    assert list(tmp_path.iterdir()) == []


def test_an_operator_of_another_size_is_refused():
    table = structure({**TABLE, "operator": {"name": "identity", "image_shape": [1, 4, 4]}})

    with pytest.raises(ValueError, match=r"takes images \(1, 4, 4\), and model 'gaussian' makes \(1, 8, 8\)"):
        build(table)


@pytest.mark.parametrize("sampler", ["em", "ancestral", "pc", "langevin"])
@pytest.mark.parametrize("conditioner", ["none", "jalal", "dps"])
def test_a_rehearsal_foretells_the_cost_of_a_sample(sampler, conditioner):
    chosen = config(sampler={"name": sampler, "steps": 4}, conditioner=conditioner, samples=1)

    (task,) = plan(chosen, {})

    assert rehearse(build(chosen)).as_dict() == execute(task).facts["cost"]


def test_a_rehearsal_keeps_what_the_prior_can_do():
    """The predictive form asks the prior for its spread; its solves depend on the residuals, its evaluations do not."""
    chosen = config(conditioner={"name": "dps", "form": "predictive"}, samples=1)

    (task,) = plan(chosen, {})

    expected = execute(task).facts["cost"]
    found = rehearse(build(chosen)).as_dict()
    assert (found["evaluations"], found["vjps"]) == (expected["evaluations"], expected["vjps"])
