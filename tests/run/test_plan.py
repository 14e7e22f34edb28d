"""Chunks: what a sample is does not depend on who computes it with whom."""

import json
import pickle

import numpy as np
import pytest

from scoreplug.run.plan import SerialExecutor, Task, execute, plan
from scoreplug.run.provenance import checksums
from scoreplug.run.resolve import resolve

TABLE = {
    "samples": 8,
    "model": {"name": "gaussian", "image_shape": [1, 8, 8], "covariance": 0.1},
    "operator": "inpainting",
    "conditioner": "dps",
    "sampler": {"name": "pc", "steps": 5},
    "input": {"source": "ellipses", "noise_std": 0.1},
}


def tasks(**changes):
    config = resolve({**TABLE, **changes})
    return plan(config, checksums(config))


@pytest.mark.parametrize(("batch", "ranges"), [(8, [(0, 8)]), (3, [(0, 3), (3, 6), (6, 8)]), (100, [(0, 8)])])
def test_every_sample_is_in_one_chunk(batch, ranges):
    assert [(task.start, task.stop) for task in tasks(batch=batch)] == ranges


@pytest.mark.parametrize("sampler", ["em", "ancestral", "pc", "langevin"])
def test_the_batch_size_does_not_change_a_sample(sampler):
    """The noise is the same bit for bit; sums over a batch may round differently, by far less than 1e-10 in float64."""

    def samples(batch):
        chunks = [execute(task) for task in tasks(batch=batch, sampler={"name": sampler, "steps": 5})]
        return np.concatenate([chunk.samples for chunk in chunks])

    whole = samples(8)

    assert np.abs(whole).max() < 1000  # a relative 1e-13, 500 roundings
    np.testing.assert_allclose(samples(1), whole, rtol=0, atol=1e-10)
    np.testing.assert_allclose(samples(3), whole, rtol=0, atol=1e-10)


def test_another_seed_gives_other_samples_of_the_same_posterior():
    (first,), (second,) = tasks(seed=0), tasks(seed=1)

    assert first.problem == second.problem
    assert np.abs(execute(first).samples - execute(second).samples).min() > 0


def test_a_task_is_small_and_plain():
    (task,) = tasks()

    assert Task(**json.loads(json.dumps({name: getattr(task, name) for name in Task.__slots__[:-1]}))) == task
    assert len(pickle.dumps(task)) < 4000


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"samples": 7}, {"conditioner": {"name": "dps", "scale": 0.5}}], ids=lambda c: next(iter(c))
)
def test_the_address_changes_with_what_is_asked(change):
    assert tasks(**change)[0].key != tasks()[0].key


def test_the_address_does_not_depend_on_how_many_samples_come_after():
    assert tasks(batch=4)[0].key == tasks(batch=4, samples=100)[0].key


def test_the_address_changes_with_the_content_of_a_file(tmp_path):
    path, keys = tmp_path / "x.npy", []
    for value in (0.0, 1.0):
        np.save(path, np.full((1, 8, 8), value))
        keys.append(tasks(input={"image": str(path), "noise_std": 0.1})[0].key)

    assert keys[0] != keys[1]


def test_a_file_that_changed_since_the_plan_is_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((1, 8, 8)))
    (task,) = tasks(input={"image": str(path), "noise_std": 0.1})
    np.save(path, np.ones((1, 8, 8)))

    with pytest.raises(ValueError, match=r"files have changed since the run was planned: '.*x.npy'"):
        execute(task)


def test_a_chunk_knows_what_it_cost_also_after_others():
    first, second = tasks(batch=4)

    costs = [execute(task).facts["cost"] for task in (first, second)]

    # 5 steps of corrector and predictor, and the last estimate: 11 evaluations, each with a vjp
    assert [cost["evaluations"] for cost in costs] == [44, 44]
    assert [cost["vjps"] for cost in costs] == [44, 44]
    assert [cost["evaluation_calls"] for cost in costs] == [11, 11]


def test_the_watch_sees_every_state():
    seen = []
    execute(tasks()[0], lambda state: seen.append(state.index))

    assert seen == [0, 1, 2, 3, 4, 5, 5]  # the last one is the estimate at the last level


def test_the_serial_executor_hands_on_results_and_errors():
    executor = SerialExecutor()

    assert executor.submit(divmod, 7, 2).result() == (3, 1)
    with pytest.raises(ZeroDivisionError):
        executor.submit(divmod, 7, 0).result()


def test_a_coupled_population_is_one_chunk(monkeypatch):
    import attrs

    from scoreplug import registry

    config = resolve({**TABLE, "batch": 2})
    coupled = attrs.evolve(registry.spec("sampler", "pc"), couples=True)
    monkeypatch.setattr(registry, "spec", lambda kind, name: coupled)

    assert [(task.start, task.stop) for task in plan(config, {})] == [(0, 8)]
