"""The training loop."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from scoreplug.checkpoint import METADATA_KEY, load_state_dict
from scoreplug.training import LOG, STATE, WEIGHTS, TrainingError
from scoreplug.training.trainer import learning_rate


def ignore(report) -> None:
    del report


def weights_of(trainer) -> list[torch.Tensor]:
    modules = (trainer.module, trainer.average.module)
    return [tensor.clone() for module in modules for tensor in module.state_dict().values()]


def test_training_finds_the_mean_and_deviation_of_gaussian_images(trainer):
    run = trainer(optimiser={"images": 16_000, "batch": 200, "average_images": 2000})

    assert run.fit(ignore)

    learned = run.average.module
    # 16000 images of 16 pixels give the mean to 0.5 / sqrt(256000) = 0.001 and log s to 0.0014; ten of these for noise
    assert learned.mean.item() == pytest.approx(0.3, abs=0.014)
    assert learned.log_std.item() == pytest.approx(np.log(0.5), abs=0.014)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_resumed_training_ends_in_the_same_weights(trainer, dropout):
    """Bit for bit, with Adam's moments, the average and the dropout masks."""
    whole = trainer("whole", dropout=dropout)
    whole.fit(ignore)

    first = trainer("parts", dropout=dropout)
    answers = iter([False, False, False, True])
    assert not first.fit(ignore, stop=lambda: next(answers))
    torch.rand(3)  # whatever happens to the global generator in between
    second = trainer("parts", dropout=dropout)
    second.load()
    assert second.images == 24
    assert second.fit(ignore)

    for one, other in zip(weights_of(whole), weights_of(second), strict=True):
        assert torch.equal(one, other)


def test_a_resumed_training_of_a_finite_set_sees_the_same_images(trainer, white_images):
    """The epochs of five images do not line up with the batches of eight."""
    whole = trainer("whole", source=white_images(count=5))
    whole.fit(ignore)

    first = trainer("parts", source=white_images(count=5))
    answers = iter([False, False, True])
    first.fit(ignore, stop=lambda: next(answers))
    second = trainer("parts", source=white_images(count=5))
    second.load()
    second.fit(ignore)

    for one, other in zip(weights_of(whole), weights_of(second), strict=True):
        assert torch.equal(one, other)


def test_an_epoch_of_a_finite_set_shows_every_image_once_in_a_new_order(trainer, white_images):
    seen = []

    class Watched:
        shape, count, data_range, licence = (1, 4, 4), 20, (-10.0, 10.0), ""
        held_out = white_images()

        def batch(self, indices):
            seen.extend(indices)
            return white_images().batch(indices)

    run = trainer(source=Watched(), optimiser={"batch": 5})
    for _ in range(8):
        run.step()

    assert sorted(seen[:20]) == sorted(seen[20:]) == list(range(20))
    assert seen[:20] != seen[20:]


def test_training_leaves_the_global_generator_alone(trainer):
    for dropout in (0.0, 0.2):
        before = torch.get_rng_state()
        trainer(f"dropout {dropout}", dropout=dropout).fit(ignore)

        assert torch.equal(torch.get_rng_state(), before)


def test_dropout_masks_differ_from_step_to_step(trainer):
    run = trainer(dropout=0.5, optimiser={"rate": 1e-30})  # the weights stay, so only images, noise and masks change
    masks = []
    run.module.dropout.register_forward_hook(lambda layer, args, out: masks.append(out == 0))
    run.step()
    run.step()

    assert not torch.equal(masks[0], masks[1])


def test_the_average_follows_its_recursion(trainer):
    """a <- d a + (1 - d) w with d = 2^(-batch / half-life), the half-life at most a share of the images seen."""
    run = trainer(optimiser={"average_images": 10, "average_rampup": 0.5})
    expected = run.average.module.mean.item()
    for _ in range(4):
        run.step()
        decay = 0.5 ** (8 / min(10, 0.5 * run.images))
        expected = decay * expected + (1 - decay) * run.module.mean.item()

    # float32
    assert run.average.module.mean.item() == pytest.approx(expected, rel=1e-5)


def test_the_rate_rises_linearly_and_falls_as_a_cosine(config):
    settings = config(optimiser={"rate": 2.0, "batch": 8, "warmup_images": 80}).optimiser

    assert learning_rate(settings, 0, 0.0) == pytest.approx(0.2)
    assert learning_rate(settings, 32, 0.0) == pytest.approx(1.0)
    assert learning_rate(settings, 800, 0.5) == pytest.approx(1.0)
    assert learning_rate(settings, 800, 1.0) == pytest.approx(0.0)


def test_a_long_gradient_is_shortened(trainer):
    """Adam's first moment after one step is (1 - beta1) times the gradient it was given."""
    run = trainer(optimiser={"clip": 1e-3})
    run.step()
    moments = [run.adam.state[parameter]["exp_avg"] for parameter in run.module.parameters()]

    norm = torch.stack(moments).norm().item() / (1 - 0.9)

    # float32, and the 1e-6 that PyTorch adds to the norm
    assert norm == pytest.approx(1e-3, rel=1e-4)


def test_time_ends_the_training_as_images_do(trainer):
    run = trainer(minutes=1e-9)

    assert run.fit(ignore)
    assert run.images == 8
    assert run.progress == 1.0


def test_images_that_are_not_finite_stop_the_training_and_keep_the_checkpoint(trainer, white_images):
    class Broken:
        shape, count, data_range, licence = (1, 4, 4), None, (-10.0, 10.0), ""
        held_out = white_images()

        def batch(self, indices):
            images = white_images().batch(indices)
            return np.where(np.array(indices)[:, None, None, None] < 16, images, np.nan).astype(np.float32)

    run = trainer(source=Broken(), output={"checkpoint_seconds": 1e-9})

    with pytest.raises(TrainingError, match=r"gradient is not finite after 16 images \(loss nan\)"):
        run.fit(ignore)
    again = trainer(source=Broken(), output={"checkpoint_seconds": 1e-9})
    again.load()
    assert again.images == 16
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(again))


def test_a_checkpoint_of_another_config_is_refused_naming_the_difference(trainer):
    trainer().fit(ignore)

    with pytest.raises(
        TrainingError, match=r"\[optimiser\] rate was 0.05, is 0.1\. Take another --out, or --no-resume"
    ):
        trainer(optimiser={"rate": 0.1}).load()


def test_a_damaged_checkpoint_says_so(trainer, tmp_path):
    run = trainer()
    (tmp_path / "run" / STATE).write_bytes(b"PK\x03\x04")

    with pytest.raises(TrainingError, match=r"state\.pt cannot be read .*; --no-resume starts anew"):
        run.load()


def test_the_log_of_a_killed_run_loses_the_lines_after_its_checkpoint(trainer, tmp_path):
    run = trainer(output={"log_seconds": 1e-9})
    run.fit(ignore, stop=lambda: run.images >= 24)  # the checkpoint is written here
    log = tmp_path / "run" / LOG
    log.write_text(log.read_text() + json.dumps({"images": 32, "loss": 1.0}) + "\n")

    resumed = trainer(output={"log_seconds": 1e-9})
    resumed.load()
    resumed.fit(ignore)

    images = [json.loads(line)["images"] for line in log.read_text().splitlines() if "loss" in line]
    assert images == [8, 16, 24, 32, 40, 48, 56, 64]


def test_the_weights_say_how_they_came_to_be(trainer, tmp_path):
    run = trainer(output={"title": "two numbers"})
    run.fit(ignore)

    tensors, metadata = load_state_dict(tmp_path / "run" / WEIGHTS)
    told = json.loads(metadata[METADATA_KEY])

    assert torch.equal(tensors["mean"], run.average.module.mean)
    assert told["model"] == {"name": "test", "params": {}}
    assert told["training"] == run.config.table
    assert told["card"]["title"] == "two numbers"
    assert told["card"]["images_seen"] == 64
    assert told["card"]["level_range"] == [0.05, 5.0]
    assert told["card"]["progress"] == 1.0
    (point,) = run.curve()
    assert told["curve"] == [
        {"level": 0.5, "rmse": pytest.approx(point.rmse, rel=1e-4), "linear": pytest.approx(point.linear, rel=1e-4)}
    ]


def test_weights_stored_in_half_precision_are_the_ones_that_the_curve_is_of(trainer, tmp_path):
    run = trainer(output={"weights": "float16"})
    run.step()
    exact = weights_of(run)
    run.curve()
    for one, other in zip(exact, weights_of(run), strict=True):
        assert torch.equal(one, other)  # the curve gives the exact ones back
    run.fit(ignore)

    tensors, _ = load_state_dict(tmp_path / "run" / WEIGHTS)
    curve = run.curve()

    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    run.average.module.load_state_dict(tensors)
    assert run.curve() == curve


def test_images_of_another_shape_than_the_models_are_refused(trainer, white_images):
    with pytest.raises(TrainingError, match=r"the images are \(1, 5, 5\) and the model is for \(1, 4, 4\)"):
        trainer(source=white_images(shape=(1, 5, 5)))
