"""What a training run is made of: one table per part, from TOML, checked as a whole."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from scoreplug.foreign import printable, read_toml, shown
from scoreplug.param import ParameterError, check, param

Table = dict[str, Any]


@attrs.frozen(kw_only=True)
class Levels:
    """Distribution of the noise level sigma/alpha in training, and the weight of each level in the loss.

    lognormal: log level ~ N(mean, std^2) (Karras et al. 2022), a share of the draws being loguniform instead;
    loguniform: log level ~ U(log low, log high);
    uniform-t: t ~ U(t of low, t of high) under the model's SDE (Song et al. 2021).
    """

    distribution: Literal["lognormal", "loguniform", "uniform-t"] = param("lognormal", doc="see above")
    low: float = param(0.002, gt=0.0, unit="data", doc="smallest level; draws below are set to it")
    high: float = param(80.0, gt=0.0, unit="data", doc="largest level; draws above are set to it")
    mean: float = param(-1.2, doc="of log level, for lognormal")
    std: float = param(1.2, gt=0.0, doc="of log level, for lognormal")
    loguniform_share: float = param(
        0.0,
        ge=0.0,
        le=1.0,
        doc="share of draws that are loguniform in [low, high], for lognormal: no level goes untrained",
    )
    weight: Literal["edm", "score", "likelihood"] = param(
        "edm",
        doc="weight of |x0 - x_0|^2: 'edm' (level^2 + s^2) / (level s)^2, 'score' 1 / level^2, "
        "'likelihood' g(t)^2 alpha^2 / sigma^4",
    )
    data_std: float = param(0.5, gt=0.0, unit="data", doc="s of the edm weight: the standard deviation of a pixel")

    def problems(self) -> list[str]:
        """What is wrong between the fields."""
        return [] if self.low < self.high else [f"[levels] low must be below high (got {self.low!r} and {self.high!r})"]


@attrs.frozen(kw_only=True)
class Optimiser:
    """Adam; the rate rises linearly and falls as half a cosine to 0; the weights are averaged over the last images."""

    images: int | None = param(None, ge=1, doc="length of the training in images seen")
    minutes: float | None = param(
        None, gt=0.0, unit="minute", doc="length of the training in time; then no two runs are equal"
    )
    batch: int = param(16, ge=1, doc="images per step")
    rate: float = param(1e-3, gt=0.0, doc="largest learning rate")
    warmup_images: int = param(2000, ge=0, doc="images over which the rate rises")
    beta1: float = param(0.9, ge=0.0, lt=1.0, doc="memory of Adam's mean gradient")
    beta2: float = param(0.99, ge=0.0, lt=1.0, doc="memory of Adam's mean squared gradient")
    clip: float = param(1.0, gt=0.0, doc="largest norm of the gradient; a longer one is shortened to it")
    average_images: int = param(5000, ge=1, doc="half-life of the average of the weights (EMA), in images")
    average_rampup: float = param(0.05, gt=0.0, doc="the half-life is at most this share of the images seen")
    seed: int = param(0, ge=0, lt=2**64, doc="of the order of the images, the levels and the noise")

    def problems(self) -> list[str]:
        """What is wrong between the fields."""
        return (
            [] if self.images or self.minutes else ["[optimiser] needs images or minutes, the length of the training"]
        )


@attrs.frozen(kw_only=True)
class Evaluation:
    """The held-out denoising curve."""

    images: int = param(64, ge=1, doc="number of held-out images")
    levels: tuple[float, ...] = param(
        (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0), gt=0.0, unit="data", doc="noise levels of the curve"
    )
    minutes: float = param(5.0, gt=0.0, unit="minute", doc="time between two evaluations during training")


@attrs.frozen(kw_only=True)
class Output:
    """What is written beside the weights."""

    title: str = param("", doc="one line for the model card")
    weights: Literal["float32", "float16"] = param("float32", doc="type in which the averaged weights are stored")
    checkpoint_seconds: float = param(60.0, gt=0.0, unit="second", doc="time between two checkpoints")
    log_seconds: float = param(20.0, gt=0.0, unit="second", doc="time between two lines of the log")


_PARTS: dict[str, type] = {"levels": Levels, "optimiser": Optimiser, "evaluation": Evaluation, "output": Output}
_COMPONENTS = ("model", "data")


@attrs.frozen(kw_only=True)
class TrainingConfig:
    """A whole training run.

    Args:
        model: `name` of a registered trainable model, and its parameters.
        data: `name` of a source of images, and its parameters.
    """

    model: Table
    data: Table
    levels: Levels
    optimiser: Optimiser
    evaluation: Evaluation
    output: Output

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> TrainingConfig:
        """Check a table, as TOML or JSON gives it, and build the config.

        Raises:
            ParameterError: naming everything that is wrong with it.
        """
        known = (*_COMPONENTS, *_PARTS)
        problems = []
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean [{near[0]}]?" if near else f"the tables are {', '.join(f'[{k}]' for k in known)}"
                problems.append(f"unknown table [{printable(key)}]; {hint}")
            elif not isinstance(table[key], Mapping):
                problems.append(f"{key} must be a table (got {shown(table[key])})")
        for key in _COMPONENTS:
            part = table.get(key)
            if part is None:
                problems.append(f"[{key}] is required")
            elif isinstance(part, Mapping) and not isinstance(part.get("name"), str):
                problems.append(f"[{key}] needs a name (got {shown(part.get('name'))})")
        parts = {}
        for key, part_cls in _PARTS.items():
            values = table.get(key, {})
            if not isinstance(values, Mapping):
                continue
            try:
                check(part_cls, values, name=key)
            except ParameterError as error:
                problems += [f"[{key}] {problem}" for problem in error.problems]
                continue
            parts[key] = part_cls(**values)
            problems += parts[key].problems() if hasattr(parts[key], "problems") else []
        if problems:
            raise ParameterError("training config", problems)
        return cls(model=dict(table["model"]), data=dict(table["data"]), **parts)

    @classmethod
    def read(cls, path: Path) -> TrainingConfig:
        """Read a TOML file. Raises as `read_table` and `from_table` do."""
        return cls.from_table(cls.read_table(path))

    @staticmethod
    def read_table(path: Path) -> Table:
        """The tables of a TOML file, unchecked.

        Raises:
            ParameterError: if it is not TOML.
            OSError: if it cannot be read.
        """
        try:
            return read_toml(path)
        except ValueError as error:
            raise ParameterError("training config", [f"{path.name} is not TOML: {error}"]) from error

    @property
    def table(self) -> Table:
        """The config as JSON has it: every parameter, defaults included."""
        parts = {key: _plain(attrs.asdict(getattr(self, key))) for key in _PARTS}
        return {"model": _plain(self.model), "data": _plain(self.data), **parts}


def _plain(value: Any) -> Any:
    """Tuples become lists and None disappears, as in a file."""
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items() if v is not None}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
