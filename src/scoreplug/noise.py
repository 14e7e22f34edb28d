"""Noise, per sample and counter based.

Sample i of seed s draws from its own stream, the counter-based generator Philox4x64-10 with the key (s, i) (Salmon,
Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011, doi:10.1145/2063384.2063405). A draw is
addressed, not consumed: its counter is a hash of the path that leads to it ("step", 17, "predictor"). So the noise of
a sample does not depend on its batch mates, on the batch size, the device, the floating-point type, or on where a run
was resumed, and a step of a sampler is a pure function.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

_LIMIT = 2**64


def _check_seed(instance: Noise, field: object, value: int) -> None:
    del instance, field
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LIMIT:
        raise ValueError(f"seed must be an integer in [0, 2^64) (got {value!r})")


def _tuple(indices: Iterable[int]) -> tuple[int, ...]:
    return tuple(indices)


@attrs.frozen
class Noise:
    """A source of standard normal and uniform noise for a batch of samples.

    Args:
        seed: of the whole run, in [0, 2^64); 0 is a seed like any other.
        samples: indices of the batch's samples in the run.
        dtype: floating-point type of the draws. They are made in float64 and rounded.
        device: where the draws are put.
        path: address of this source.
    """

    seed: int = attrs.field(validator=_check_seed)
    samples: tuple[int, ...] = attrs.field(converter=_tuple)
    dtype: torch.dtype = attrs.field(kw_only=True)
    device: torch.device = attrs.field(kw_only=True)
    path: tuple[str | int, ...] = attrs.field(default=(), kw_only=True)

    def at(self, *labels: str | int) -> Noise:
        """The source at an address below this one. The same address gives the same draws."""
        if type(self) is not Noise:
            return attrs.evolve(self, path=self.path + labels)
        below = object.__new__(Noise)  # not by attrs.evolve, which would check the seed anew with every draw
        for name in ("seed", "samples", "dtype", "device"):
            object.__setattr__(below, name, getattr(self, name))
        object.__setattr__(below, "path", self.path + labels)
        return below

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """z ~ N(0, I), (B, *shape)."""
        return self._draw(shape, np.random.Generator.standard_normal)

    def uniform(self, shape: tuple[int, ...] = ()) -> Tensor:
        """u ~ U[0, 1), (B, *shape)."""
        return self._draw(shape, np.random.Generator.random)

    def _draw(self, shape: tuple[int, ...], draw: Callable[..., object]) -> Tensor:
        # The path's hash fills the two high words of the counter; the draws count through the two low ones.
        # One generator is set to each sample's stream in turn, which is far quicker than to make one.
        counter, key = np.array([0, 0, *_address(self.path)], dtype=np.uint64), np.array([self.seed, 0], np.uint64)
        state: Any = _UNUSED | {"state": {"counter": counter, "key": key}}
        z = np.empty((len(self.samples), *shape))
        for row, i in zip(z.reshape(len(z), -1), self.samples, strict=True):
            key[1] = i
            _philox.bits.state = state
            draw(_philox.generator, out=row)
        if self.dtype == torch.float32:
            z = z.astype(np.float32)
        return torch.from_numpy(z).to(dtype=self.dtype, device=self.device)


class _Philox(threading.local):
    """A generator of this thread's own; each use sets all of its state."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(0)
        self.generator = np.random.Generator(self.bits)


_philox = _Philox()
_UNUSED = {"bit_generator": "Philox", "buffer": np.zeros(4, np.uint64), "buffer_pos": 4, "has_uint32": 0, "uinteger": 0}


@functools.lru_cache(maxsize=4096)
def _address(path: tuple[str | int, ...]) -> tuple[int, int]:
    digest = hashlib.blake2b(repr(path).encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
