"""The file that a training ends in: averaged weights, and all that is known of how they came to be."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

import scoreplug
from scoreplug.checkpoint import METADATA_KEY, write_checkpoint
from scoreplug.training.evaluation import Point

if TYPE_CHECKING:
    from scoreplug.training.trainer import Trainer

# What a user chooses anew each time a model is opened, and is therefore not kept with the weights.
_CHOSEN_ANEW = ("name", "sde", "checkpoint", "precision", "device_name")


def write_weights(trainer: Trainer, path: Path, curve: tuple[Point, ...]) -> None:
    """Write the averaged weights as safetensors, with model, card, training config and held-out curve in the metadata.

    Args:
        trainer: in whatever state; an unfinished training says so in its card.
        path: of the file.
        curve: the held-out curve of these weights.

    Raises:
        OSError: if the file cannot be written; an older one is then still there.
    """
    tensors = stored_weights(trainer.average.module, trainer.config.output.weights)
    write_checkpoint(path, tensors, {METADATA_KEY: json.dumps(description(trainer, curve))})


def stored_weights(module: nn.Module, dtype: str) -> dict[str, Tensor]:
    """The weights as they are stored, rounded to `dtype`."""
    target: torch.dtype = getattr(torch, dtype)
    return {k: v.to(target) if v.is_floating_point() else v for k, v in module.state_dict().items()}


def description(trainer: Trainer, curve: tuple[Point, ...]) -> dict[str, Any]:
    """The metadata of the weights, as JSON has it."""
    config = trainer.config
    params = {key: value for key, value in config.model.items() if key not in _CHOSEN_ANEW}
    card = {
        "title": config.output.title,
        "data": config.data["name"],
        "licence": trainer.source.licence,
        "data_range": list(trainer.source.data_range),
        "level_range": [config.levels.low, config.levels.high],
        "parameters": sum(p.numel() for p in trainer.module.parameters()),
        "weights": config.output.weights,
        "images_seen": trainer.images,
        "steps": trainer.images // config.optimiser.batch,
        "seconds": round(trainer.seconds),
        "threads": torch.get_num_threads(),
        "device": trainer.model.device.type,
        "progress": round(trainer.progress, 4),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {
            "scoreplug": scoreplug.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    return {
        "model": {"name": config.model["name"], "params": params},
        "card": card,
        "curve": [{key: float(f"{value:.5g}") for key, value in attrs.asdict(point).items()} for point in curve],
        "training": config.table,
    }


def read_description(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The description in a file's metadata; empty if it has none."""
    described: dict[str, Any] = json.loads(metadata.get(METADATA_KEY, "{}"))
    return described
