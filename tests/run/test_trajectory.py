"""Following samples: what is seen is what the sampler saw, and nothing changes because it is seen."""

import pickle
from concurrent.futures import Executor, Future

import numpy as np
import pytest
import torch

from scoreplug import registry
from scoreplug.run.plan import execute, plan
from scoreplug.run.resolve import resolve
from scoreplug.run.runner import RunError, run
from scoreplug.run.setup import build, forget
from scoreplug.run.trajectory import LEVELS, VALUES, Follower, execute_and_follow, followed, heard, joined
from scoreplug.sampler import State

TABLE = {
    "samples": 4,
    "batch": 4,
    "model": {"name": "gaussian", "image_shape": [1, 4, 4], "covariance": 0.1},
    "operator": "inpainting",
    "conditioner": "jalal",
    "sampler": {"name": "ancestral", "steps": 6},
    "input": {"source": "ellipses", "noise_std": 0.1},
}


def config(**changes):
    return resolve({**TABLE, **changes})


def seen(chosen, levels=LEVELS, samples=4):
    return joined([execute_and_follow(task, None, samples, levels)[1] for task in plan(chosen, {})])


@pytest.mark.parametrize("sampler", ["ancestral", "em", "pc", "dpm-solver", "hmc", "smc", "decoupled", "langevin"])
def test_neither_samples_nor_cost_change_by_being_seen(sampler):
    conditioner = {"smc": "mmps", "decoupled": "diffpir", "hmc": "none"}.get(sampler, "dps")
    (task,) = plan(config(sampler={"name": sampler, "steps": 6}, conditioner=conditioner), {})
    execute(task)  # what a posterior computes once is there now

    alone = execute(task)
    chunk, trajectory = execute_and_follow(task, None, 4, LEVELS)

    np.testing.assert_array_equal(chunk.samples, alone.samples)
    assert chunk.facts["cost"] == alone.facts["cost"]
    assert trajectory.frames.shape[:2] == (4, 7)
    np.testing.assert_array_equal(trajectory.frames[:, -1], alone.samples.astype(np.float32))


def test_frames_are_the_estimates_at_the_states():
    """One evaluation per step, at the state that it starts from."""
    chosen = config()
    setup, states = build(chosen), []
    setup.sampler.sample(setup.posterior, 4, seed=chosen.seed, callback=states.append)

    found = seen(chosen)

    sde = setup.prior.sde
    for i in range(6):
        x0 = setup.posterior.denoise(states[i].x, states[i].t)
        np.testing.assert_allclose(found.frames[:, i], x0.numpy(), rtol=1e-5, atol=1e-6)  # float32
        assert found.levels[i] == float(sde.sigma(states[i].t) / sde.alpha(states[i].t))
    assert found.levels[-1] == 0
    assert found.denoised.all()


def test_what_a_posterior_computes_once_is_computed_once():
    """mmps keeps A^T y: chunks that are followed find it where the others look for it, and leave it there."""

    def adjoints(task, follow):
        chunk = execute_and_follow(task, None, 4, LEVELS)[0] if follow else execute(task)
        return chunk.facts["cost"]["adjoint_calls"]

    first, second = plan(config(sampler={"name": "smc", "steps": 3}, conditioner="mmps"), {}) * 2
    forget()

    assert adjoints(first, follow=True) == adjoints(second, follow=False) + 1
    assert adjoints(second, follow=True) == adjoints(second, follow=False)


def test_a_model_is_what_it_was_afterwards():
    model = gaussian()
    kind, follower = type(model), Follower(rows=1, levels=2, sde=model.sde)
    seen_inside = []

    def fails():
        with heard(model, follower):
            seen_inside.append(type(model))
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert issubclass(seen_inside[0], kind)
    assert seen_inside[0] is not kind
    assert type(model) is kind


def test_long_runs_are_seen_at_some_levels_with_both_ends():
    chosen = config(sampler={"name": "ancestral", "steps": 50})
    some, every = seen(chosen, levels=5), seen(chosen, levels=51)

    # steps 0, 49/3, 98/3 and 49, rounded, and the samples
    np.testing.assert_array_equal(some.frames, every.frames[:, [0, 16, 33, 49, 50]])


def test_the_batch_size_does_not_matter():
    one, together = seen(config(batch=1)), seen(config(batch=4))

    np.testing.assert_array_equal(one.levels, together.levels)
    np.testing.assert_allclose(one.frames, together.frames, rtol=1e-5, atol=1e-6)  # the rounding of another batch


def test_only_the_first_samples_are_followed():
    assert seen(config(samples=6, batch=2), samples=3).frames.shape[0] == 3


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 256, 256), (1, 512, 512), (3, 2048, 2048)])
def test_memory_is_bounded(shape):
    samples, levels = followed(64, shape)

    assert samples >= 1
    assert levels >= 2
    assert samples * levels * np.prod(shape) <= max(VALUES, 2 * np.prod(shape))


def gaussian():
    return registry.get_model("gaussian", image_shape=(1, 2, 2))


def states(*xs):
    times = torch.linspace(1, 0.1, len(xs), dtype=torch.float64)
    return [State(x=x * torch.ones(2, 1, 2, 2, dtype=torch.float64), times=times, index=i) for i, x in enumerate(xs)]


def test_a_step_without_an_estimate_shows_its_state():
    model = gaussian()
    follower = Follower(rows=1, levels=3, sde=model.sde)
    first, second, third = states(1.0, 2.0, 3.0)
    follower(first)
    follower(second)
    with heard(model, follower):
        model.denoise(second.x, second.t)
        model.denoise(first.x[:1], first.t)  # of part of the batch: not the step's estimate
    follower(third)

    found = follower.trajectory

    assert found.denoised.tolist() == [False, True, True]
    np.testing.assert_array_equal(found.frames[0, 0], np.ones((1, 2, 2)))
    np.testing.assert_array_equal(found.frames[0, 1], model.denoise(second.x, second.t)[0].float().numpy())
    np.testing.assert_array_equal(found.frames[0, 2], np.full((1, 2, 2), 3.0))


def test_a_score_is_heard_as_the_estimate_that_it_stands_for():
    """Tweedie: (x + sigma^2 score) / alpha."""
    model = gaussian()
    follower = Follower(rows=2, levels=2, sde=model.sde)
    first, second = states(1.0, 2.0)
    follower(first)
    with heard(model, follower):
        model.score(first.x, first.t)
    follower(second)

    expected = model.denoise(first.x, first.t).float().numpy()
    np.testing.assert_allclose(follower.trajectory.frames[:, 0], expected, rtol=1e-6)


def test_the_run_directory_holds_the_frames(tmp_path):
    result = run(config(), tmp_path / "run")

    with np.load(tmp_path / "run" / "trajectory.npz") as arrays:
        assert set(arrays) == {"frames", "levels", "denoised"}
        np.testing.assert_array_equal(arrays["frames"], result.trajectory.frames)
    assert result.trajectory.frames.dtype == np.float32


class Stops(Executor):
    """Does its first task, and is interrupted in the second."""

    done = False

    def submit(self, fn, /, *args, **kwargs):
        if self.done:
            raise KeyboardInterrupt
        self.done = True
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_frames_of_finished_chunks_are_taken_up_again(tmp_path):
    chosen = config(batch=2)
    with pytest.raises(RunError, match="interrupted"):
        run(chosen, tmp_path / "run", executor=Stops())

    resumed = run(chosen, tmp_path / "run")

    assert resumed.cost["chunks_reused"] == 1
    np.testing.assert_array_equal(resumed.trajectory.frames, seen(chosen).frames)


def test_it_goes_to_another_process_and_back():
    (task,) = plan(config(), {})
    function = pickle.loads(pickle.dumps(execute_and_follow))

    chunk, trajectory = pickle.loads(pickle.dumps(function(task, None, 4, 3)))

    np.testing.assert_array_equal(trajectory.frames[:, -1], chunk.samples.astype(np.float32))
