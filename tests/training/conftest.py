"""A problem that trains in milliseconds: white Gaussian images and a denoiser with two numbers to learn."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scoreplug.model import NetworkModel, broadcast
from scoreplug.training import Trainer, TrainingConfig

MEAN, STD = 0.3, 0.5


@attrs.frozen
class WhiteImages:
    """Endless images of independent pixels N(MEAN, STD^2)."""

    shape: tuple[int, ...] = (1, 4, 4)
    count: int | None = None
    split: int = 0
    data_range: tuple[float, float] = (-10.0, 10.0)
    licence: str = "none needed"

    @property
    def held_out(self) -> WhiteImages:
        return attrs.evolve(self, split=1)

    def batch(self, indices) -> np.ndarray:
        rngs = (np.random.default_rng((self.split, i)) for i in indices)
        return np.stack([MEAN + STD * rng.standard_normal(self.shape) for rng in rngs]).astype(np.float32)


class Shrinkage(nn.Module):
    """xbar -> m + s^2 / (s^2 + level^2) (xbar - m), the denoiser of N(m, s^2), with m and log s to learn."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(()))
        self.log_std = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        variance = (2 * self.log_std).exp()
        shrunk = variance / (variance + level**2) * (x - self.mean)
        return self.mean + self.dropout(shrunk)


@attrs.frozen(kw_only=True, eq=False)
class GaussianNetwork(NetworkModel):
    dropout: float = 0.0

    def build(self) -> nn.Module:
        return Shrinkage(self.dropout)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = broadcast(self.sde.alpha(t), x), broadcast(self.sde.sigma(t), x)
        return self.module(x / alpha, sigma / alpha)


def exact(shape=(1, 4, 4), **params) -> GaussianNetwork:
    """The network with the weights that training should find."""
    model = GaussianNetwork(image_shape=shape, **params)
    model.module.mean.fill_(MEAN)
    model.module.log_std.fill_(float(np.log(STD)))
    return model


@pytest.fixture
def exact_model():
    return exact


@pytest.fixture
def white_images():
    return WhiteImages


@pytest.fixture
def config():
    """A config with changes, `config(optimiser={"batch": 4})`."""

    def make(**parts) -> TrainingConfig:
        table = {
            "model": {"name": "test"},
            "data": {"name": "white"},
            "levels": {"low": 0.05, "high": 5.0, "mean": -0.7, "std": 1.0, "data_std": STD},
            "optimiser": {"images": 64, "batch": 8, "rate": 0.05, "warmup_images": 0, "average_images": 16},
            "evaluation": {"images": 4, "levels": [0.5]},
        }
        return TrainingConfig.from_table({key: table.get(key, {}) | parts.get(key, {}) for key in table | parts})

    return make


@pytest.fixture
def trainer(tmp_path, config):
    """A trainer in a folder, `trainer("name", optimiser={...})`."""

    def make(folder: str = "run", *, source=None, dropout=0.0, minutes=None, **parts) -> Trainer:
        model = GaussianNetwork(image_shape=(1, 4, 4), dropout=dropout)
        average = GaussianNetwork(image_shape=(1, 4, 4), dropout=dropout)
        (tmp_path / folder).mkdir(exist_ok=True)
        images = WhiteImages() if source is None else source
        return Trainer(config(**parts), model, average, images, tmp_path / folder, minutes=minutes)

    return make
