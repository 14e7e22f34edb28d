"""The training loop: Adam, averaged weights, checkpoints from which a killed run goes on as if nothing had happened.

Every random choice of a step (which images, levels, noise) is addressed by the numbers of its images, not drawn from a
state. So a checkpoint holds no generator, and with a length given in images the resumed run ends in the same weights as
an undisturbed one, bit for bit on one machine.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from scoreplug.data import ImageSource
from scoreplug.model import NetworkModel
from scoreplug.noise import Noise
from scoreplug.training.config import Optimiser, TrainingConfig
from scoreplug.training.evaluation import Point, Spectrum, denoising_curve
from scoreplug.training.loss import check_levels, denoising_loss
from scoreplug.training.weights import stored_weights, write_weights

STATE = "state.pt"
WEIGHTS = "model.safetensors"
LOG = "log.jsonl"

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_REFERENCE_IMAGES = 512  # training images from which the linear reference is estimated


class TrainingError(RuntimeError):
    """Training cannot go on: the loss is not finite, or a checkpoint belongs to another run."""


@attrs.frozen(kw_only=True)
class Report:
    """One line of the log.

    Attributes:
        images: seen so far.
        seconds: trained so far, over all resumptions.
        progress: share of the whole training, 0 to 1.
        loss: mean since the last line; None in a line with a curve.
        rate: learning rate of the next step.
        curve: held-out denoising curve of the averaged weights.
    """

    images: int
    seconds: float
    progress: float
    rate: float
    loss: float | None = None
    curve: tuple[Point, ...] | None = None


class Trainer:
    """One training run in one folder.

    Args:
        config: everything that decides what comes out.
        model: the network to be trained, fresh; its module is changed in place.
        average: a second one, which takes the averaged weights.
        source: the images.
        out: folder for checkpoint, log and weights.
        minutes: overrides the config's length in time; it is no part of the run's identity.
    """

    def __init__(
        self,
        config: TrainingConfig,
        model: NetworkModel,
        average: NetworkModel,
        source: ImageSource,
        out: Path,
        *,
        minutes: float | None = None,
    ) -> None:
        if tuple(source.shape) != tuple(model.shape):
            raise TrainingError(f"the images are {tuple(source.shape)} and the model is for {tuple(model.shape)}")
        check_levels(config.levels, model.sde)
        self.config = config
        self.model = model
        self.average = average
        self.source = source
        self.out = out
        self.length = config.optimiser if minutes is None else attrs.evolve(config.optimiser, minutes=minutes)
        self.images = 0
        self.seconds = 0.0
        self.module.requires_grad_().train()
        settings = config.optimiser
        self.adam = torch.optim.Adam(self.module.parameters(), lr=settings.rate, betas=(settings.beta1, settings.beta2))

    @property
    def module(self) -> nn.Module:
        return self.model.module

    @property
    def progress(self) -> float:
        """Share of the training that is done, by images or by time, whichever ends first."""
        by_images = self.images / self.length.images if self.length.images else 0.0
        by_time = self.seconds / (60 * self.length.minutes) if self.length.minutes else 0.0
        return min(1.0, max(by_images, by_time))

    def fit(self, report: Callable[[Report], None], *, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, or until `stop` says so; the checkpoint is written either way.

        Args:
            report: called with every line of the log.
            stop: asked after every step.

        Returns:
            Whether the training is complete.

        Raises:
            TrainingError: if the loss is not finite; the last checkpoint stays as it was.
        """
        output, evaluation = self.config.output, self.config.evaluation
        losses: list[Tensor] = []
        logged = saved = self.seconds
        evaluated = self.seconds if self.images else -math.inf
        while self.progress < 1.0 and not stop():
            if self.seconds - evaluated >= 60 * evaluation.minutes:
                evaluated = self.seconds
                self._write(self._evaluate(), report)
            start = time.perf_counter()
            losses.append(self.step())
            self.seconds += time.perf_counter() - start
            if self.seconds - logged >= output.log_seconds:
                logged = self.seconds
                self._write(self._line(losses), report)
                losses = []
            if self.seconds - saved >= output.checkpoint_seconds:
                saved = self.seconds
                self.save()
        if losses:
            self._write(self._line(losses), report)
        self.save()
        if self.progress < 1.0:
            return False
        self._write(self._evaluate(), report)
        return True

    def step(self) -> Tensor:
        """One step of Adam. Returns the loss before it."""
        settings = self.config.optimiser
        numbers = range(self.images, self.images + settings.batch)
        noise = Noise(settings.seed, numbers, dtype=self.model.dtype, device=self.model.device).at("training")
        for group in self.adam.param_groups:
            group["lr"] = learning_rate(settings, self.images, self.progress)
        self.adam.zero_grad()
        with _seeded_dropout(self.module, settings.seed, self.images):
            loss = denoising_loss(self.model, self._images(numbers), self.config.levels, noise)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), settings.clip)
        if not torch.isfinite(norm):
            raise TrainingError(
                f"the gradient is not finite after {self.images} images (loss {loss.item()}); lower [optimiser] rate, "
                "and look at the images for NaN"
            )
        self.adam.step()
        self.images += settings.batch
        self._update_average()
        return loss.detach()

    def save(self) -> None:
        """Write the checkpoint, so that it is always whole: the old one, or the new one."""
        state = {
            "config": json.dumps(self.config.table, sort_keys=True),
            "images": self.images,
            "seconds": self.seconds,
            "module": self.module.state_dict(),
            "average": self.average.module.state_dict(),
            "adam": self.adam.state_dict(),
        }
        temporary = self.out / (STATE + ".new")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.out / STATE)

    def load(self) -> None:
        """Go on from the checkpoint in the folder, and drop the lines of the log that came after it.

        Raises:
            TrainingError: if it cannot be read, or belongs to another config.
        """
        path = self.out / STATE
        try:
            state = torch.load(path, map_location=self.model.device, weights_only=True)
        except Exception as error:
            raise TrainingError(f"the checkpoint {path} cannot be read ({error}); --no-resume starts anew") from error
        theirs, ours = json.loads(state["config"]), json.loads(json.dumps(self.config.table))
        if changed := _differences(theirs, ours):
            raise TrainingError(
                f"{path} belongs to another training: {'; '.join(changed)}. Take another --out, or --no-resume to "
                "start anew"
            )
        self.module.load_state_dict(state["module"])
        self.average.module.load_state_dict(state["average"])
        self.adam.load_state_dict(state["adam"])
        self.images, self.seconds = state["images"], state["seconds"]
        log = self.out / LOG
        if log.exists():
            lines = [line for line in log.read_text().splitlines() if self._is_past(json.loads(line))]
            log.write_text("".join(line + "\n" for line in lines))

    def _is_past(self, entry: dict[str, Any]) -> bool:
        """Whether a line of the log was written before the checkpoint; a curve of the same images comes after it."""
        return bool(entry["images"] < self.images or (entry["images"] == self.images and "curve" not in entry))

    def curve(self) -> tuple[Point, ...]:
        """The held-out denoising curve of the averaged weights, rounded as they are stored."""
        exact = {name: tensor.clone() for name, tensor in self.average.module.state_dict().items()}
        self.average.module.load_state_dict(stored_weights(self.average.module, self.config.output.weights))
        try:
            levels = self.config.evaluation.levels
            return denoising_curve(self.average, self._held_out, levels, spectrum=self._spectrum)
        finally:
            self.average.module.load_state_dict(exact)

    @functools.cached_property
    def _held_out(self) -> Tensor:
        held_out = self.source.held_out
        count = min(self.config.evaluation.images, held_out.count or self.config.evaluation.images)
        return self._tensor(held_out.batch(range(count)))

    @functools.cached_property
    def _spectrum(self) -> Spectrum:
        return Spectrum.of(
            self._tensor(self.source.batch(range(min(_REFERENCE_IMAGES, self.source.count or _REFERENCE_IMAGES))))
        )

    def _images(self, numbers: range) -> Tensor:
        """The images of those draws: an endless source never repeats, any other is shuffled anew in each epoch."""
        count = self.source.count
        if count is None:
            return self._tensor(self.source.batch(numbers))
        return self._tensor(
            self.source.batch([int(_order(self.config.optimiser.seed, n // count, count)[n % count]) for n in numbers])
        )

    def _tensor(self, images: np.ndarray) -> Tensor:
        return torch.from_numpy(images).to(dtype=self.model.dtype, device=self.model.device)

    @torch.no_grad()
    def _update_average(self) -> None:
        """a <- d a + (1 - d) w; the half-life in images is short at first, so that the start is forgotten."""
        settings = self.config.optimiser
        half_life = min(settings.average_images, settings.average_rampup * self.images)
        decay = 0.5 ** (settings.batch / half_life)
        weights = self.module.state_dict()
        for name, averaged in self.average.module.state_dict().items():
            if averaged.is_floating_point():
                averaged.lerp_(weights[name], 1 - decay)
            else:
                averaged.copy_(weights[name])

    def _line(self, losses: list[Tensor]) -> Report:
        return self._report(loss=torch.stack(losses).mean().item())

    def _evaluate(self) -> Report:
        curve = self.curve()
        write_weights(self, self.out / WEIGHTS, curve)
        return self._report(curve=curve)

    def _report(self, **what: Any) -> Report:
        rate = learning_rate(self.config.optimiser, self.images, self.progress)
        return Report(images=self.images, seconds=self.seconds, progress=self.progress, rate=rate, **what)

    def _write(self, line: Report, report: Callable[[Report], None]) -> None:
        entry = {k: v for k, v in attrs.asdict(line).items() if v is not None}
        entry = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in entry.items()}
        with (self.out / LOG).open("a") as file:
            file.write(json.dumps(entry) + "\n")
        report(line)


def learning_rate(settings: Optimiser, images: int, progress: float) -> float:
    """The rate after so many images: a linear rise, times half a cosine over the whole training."""
    rise = min(1.0, (images + settings.batch) / settings.warmup_images) if settings.warmup_images else 1.0
    return settings.rate * rise * 0.5 * (1 + math.cos(math.pi * progress))


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


@contextlib.contextmanager
def _seeded_dropout(module: nn.Module, seed: int, images: int) -> Iterator[None]:
    """Dropout draws from PyTorch's global generators only: seed them for this step, then put them back."""
    if not any(isinstance(layer, _DROPOUTS) and layer.p > 0 for layer in module.modules()):
        yield
        return
    device = next(module.parameters()).device
    step_seed = int(np.random.SeedSequence((seed, images)).generate_state(1)[0])
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(step_seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(step_seed)
        yield


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    return [
        f"[{part}] {key} was {theirs.get(part, {}).get(key)!r}, is {ours.get(part, {}).get(key)!r}"
        for part in sorted(theirs.keys() | ours.keys())
        for key in sorted(theirs.get(part, {}).keys() | ours.get(part, {}).keys())
        if theirs.get(part, {}).get(key) != ours.get(part, {}).get(key)
    ]
