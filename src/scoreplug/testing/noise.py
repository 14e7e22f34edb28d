"""Noise for Monte Carlo tests with thousands of samples."""

from __future__ import annotations

import zlib

import attrs
import torch
from torch import Tensor

from scoreplug.noise import Noise


@attrs.frozen
class BatchNoise(Noise):
    """Addressed noise that is drawn for the whole batch at once: fast, and pure as `Noise` is, but sample i depends on
    the batch size. For tests of laws, where streams of their own for 20,000 samples would take minutes."""

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return self._empty(shape).normal_(generator=self._generator())

    def uniform(self, shape: tuple[int, ...] = ()) -> Tensor:
        return self._empty(shape).uniform_(generator=self._generator())

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(len(self.samples), *shape, dtype=self.dtype, device=self.device)

    def _generator(self) -> torch.Generator:
        generator = torch.Generator(device=self.device)
        return generator.manual_seed(zlib.crc32(repr((self.seed, self.path)).encode()))
