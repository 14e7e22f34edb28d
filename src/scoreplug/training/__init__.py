"""Denoising score matching: how a prior is made. `open_training(TrainingConfig.read(path), out).fit(print)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scoreplug import registry
from scoreplug.data import open_source
from scoreplug.param import ParameterError
from scoreplug.registry.specs import ComponentSpec, ModelSpec
from scoreplug.training.config import TrainingConfig as TrainingConfig
from scoreplug.training.evaluation import Point as Point
from scoreplug.training.trainer import LOG as LOG
from scoreplug.training.trainer import STATE as STATE
from scoreplug.training.trainer import WEIGHTS as WEIGHTS
from scoreplug.training.trainer import Report as Report
from scoreplug.training.trainer import Trainer as Trainer
from scoreplug.training.trainer import TrainingError as TrainingError


def open_training(
    config: TrainingConfig, out: Path, *, resume: bool = True, minutes: float | None = None, device: str | None = None
) -> Trainer:
    """Build model and data, and go on from the folder's checkpoint if it has one.

    Args:
        config: the training.
        out: its folder; made if it is not there.
        resume: False starts anew and overwrites what the folder holds.
        minutes: length in time, instead of the config's; whichever of time and images ends first, ends it.
        device: where to train, instead of the config's.

    Raises:
        ParameterError: naming what is wrong with model and data.
        LookupError: if there is no such model or source.
        TrainingError: if the checkpoint belongs to another config.
    """
    params: dict[str, Any] = dict(config.model)
    name = params.pop("name")
    if not _trainable(registry.spec("model", name)):
        able = ", ".join(spec.name for spec in registry.list("model") if _trainable(spec))
        raise ParameterError("training config", [f"model {name!r} has no network to train; those that have: {able}"])
    if device is not None:
        params["device_name"] = device
    source = open_source(config.data["name"], **{key: value for key, value in config.data.items() if key != "name"})
    model, average = registry.get_model(name, **params), registry.get_model(name, **params)
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, model, average, source, out, minutes=minutes)
    if resume and (out / STATE).exists():
        trainer.load()
    else:
        for name in (STATE, LOG):
            (out / name).unlink(missing_ok=True)
    return trainer


def _trainable(spec: ComponentSpec) -> bool:
    return isinstance(spec, ModelSpec) and spec.trainable
