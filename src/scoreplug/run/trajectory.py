"""How samples came about: the denoised estimates of a few of them, at a few levels of the run.

They are what the sampler asked for anyway: while it samples, the model's class is one that listens. No evaluation is
added, and no sample changes by a bit. A step in which the sampler asks for no estimate of the whole batch shows its
state x_t instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from scoreplug.model import tweedie
from scoreplug.protocols import SDE, ScoreModel
from scoreplug.run.plan import Chunk, Task, Watch, execute
from scoreplug.run.setup import setup_of
from scoreplug.sampler import State

SAMPLES = 4
"""Samples that are followed, at most: the first of the run."""

LEVELS = 24
"""Levels that are kept of each, at most; the last one holds the samples."""

VALUES = 4_000_000
"""Values that are kept, at most: large images are followed at fewer levels, and fewer of them."""


@attrs.frozen(kw_only=True, eq=False)
class Trajectory:
    """Frames of the first samples of a run, from noise to the samples.

    Args:
        frames: (samples, levels, C, H, W), float32.
        levels: noise level sigma/alpha at which each frame was estimated, (levels,); 0 for the samples.
        denoised: whether a frame is an estimate of x_0, (levels,); else it is x_t.
    """

    frames: np.ndarray
    levels: np.ndarray
    denoised: np.ndarray

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What goes into trajectory.npz."""
        return {"frames": self.frames, "levels": self.levels, "denoised": self.denoised}


def followed(samples: int, shape: Sequence[int]) -> tuple[int, int]:
    """How many samples of a run are followed, at how many levels."""
    size = max(int(np.prod(shape)), 1)
    levels = min(LEVELS, max(VALUES // size, 2))
    return min(SAMPLES, samples, max(VALUES // (size * levels), 1)), levels


def execute_and_follow(task: Task, watch: Watch | None, samples: int, levels: int) -> tuple[Chunk, Trajectory | None]:
    """Draw the samples of a task, and follow those below number `samples`.

    Raises:
        DivergenceError: if a sample becomes NaN or infinite.
    """
    rows = min(samples, task.stop) - task.start
    if rows <= 0:
        return execute(task, watch), None
    posterior = setup_of(task.problem, task.files).posterior
    follower = Follower(rows=rows, levels=levels, sde=posterior.sde, watch=watch)
    with heard(posterior, follower):
        chunk = execute(task, follower)
    return chunk, follower.trajectory


def joined(parts: Sequence[Trajectory | None]) -> Trajectory | None:
    """The frames of several chunks as one; a chunk whose levels are others than the first one's is left out."""
    found = [part for part in parts if part is not None]
    if not found:
        return None
    same = [part for part in found if np.array_equal(part.levels, found[0].levels)]
    return attrs.evolve(
        found[0],
        frames=np.concatenate([part.frames for part in same]),
        denoised=np.logical_and.reduce([part.denoised for part in same]),
    )


@contextlib.contextmanager
def heard(model: ScoreModel, follower: Follower) -> Iterator[None]:
    """For a while, let a model tell `follower` every estimate that it gives.

    It is the same object, so that what it stores for later (a cached property) is stored in it.
    """
    kind: Any = type(model)

    class Heard(kind):  # type: ignore[misc]
        __slots__ = ()

        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            x0: Tensor = super().denoise(x, t)
            follower.hear(x, t, lambda: x0)
            return x0

        def score(self, x: Tensor, t: Tensor) -> Tensor:
            score: Tensor = super().score(x, t)
            follower.hear(x, t, lambda: tweedie(model, x, t, score))
            return score

    class HeardDensity(Heard):
        __slots__ = ()

        def score_and_log_density(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            score, log_density = super().score_and_log_density(x, t)
            follower.hear(x, t, lambda: tweedie(model, x, t, score))
            return score, log_density

    listening = HeardDensity if hasattr(kind, "score_and_log_density") else Heard
    listening.__name__ = kind.__name__  # error messages name the class
    object.__setattr__(model, "__class__", listening)
    try:
        yield
    finally:
        object.__setattr__(model, "__class__", kind)


@attrs.define(kw_only=True)
class Follower:
    """Is shown the states of a chunk, and hears the estimates between them.

    Args:
        rows: of the batch, the first so many are kept.
        levels: frames that are kept, the samples among them.
        sde: of the model.
        watch: is shown the states too.
    """

    rows: int
    levels: int
    sde: SDE
    watch: Watch | None = None
    _frames: list[np.ndarray] = attrs.field(factory=list, init=False)
    _at: list[float] = attrs.field(factory=list, init=False)
    _denoised: list[bool] = attrs.field(factory=list, init=False)
    _shown: State | None = attrs.field(default=None, init=False)
    _listens: bool = attrs.field(default=False, init=False)
    _heard: tuple[Tensor, float] | None = attrs.field(default=None, init=False)

    def __call__(self, state: State) -> None:
        """Take up a state, and decide whether to listen to the step that follows."""
        if self._listens and self._shown is not None:
            x, level = self._heard or (self._shown.x[: self.rows], self._level(self._shown.t))
            self._keep(x, level, denoised=self._heard is not None)
        self._shown, self._heard = state, None
        self._listens = state.index in _spread(len(state.times) - 1, self.levels - 1)
        if self.watch is not None:
            self.watch(state)

    @property
    def trajectory(self) -> Trajectory:
        """What was kept, and the samples."""
        assert self._shown is not None  # every trajectory has a state
        self._keep(self._shown.x[: self.rows], 0.0, denoised=True)
        return Trajectory(
            frames=np.stack(self._frames, 1), levels=np.array(self._at), denoised=np.array(self._denoised)
        )

    def hear(self, x: Tensor, t: Tensor, x0: Callable[[], Tensor]) -> None:
        """The last estimate of a step counts; one of fewer samples than the batch is somebody's intermediate result."""
        if self._listens and self._shown is not None and x.shape == self._shown.x.shape:
            with torch.no_grad():
                self._heard = x0()[: self.rows].detach().clone(), self._level(t)

    def _level(self, t: Tensor) -> float:
        return float((self.sde.sigma(t) / self.sde.alpha(t)).max())

    def _keep(self, x: Tensor, level: float, *, denoised: bool) -> None:
        self._frames.append(x.detach().float().cpu().numpy().copy())
        self._at.append(level)
        self._denoised.append(denoised)


def _spread(steps: int, count: int) -> set[int]:
    """`count` of the steps 0, ..., steps - 1, evenly, the first and the last among them."""
    return {round(i * (steps - 1) / max(count - 1, 1)) for i in range(count)} if steps > 0 else set()
