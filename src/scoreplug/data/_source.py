"""What every source of images offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

Split = Literal["train", "held-out"]


class ImageSource(Protocol):
    """A set of images of one size, addressed by number."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image, (channels, height, width)."""

    @property
    def count(self) -> int | None:
        """How many images there are; None if there is no end to them."""

    @property
    def data_range(self) -> tuple[float, float]:
        """Smallest and largest value that an image may have."""

    @property
    def licence(self) -> str:
        """Under which terms the images, and what is trained on them, can be used."""

    @property
    def held_out(self) -> ImageSource:
        """The images that training never sees."""

    def batch(self, indices: Sequence[int]) -> np.ndarray:
        """Images number `indices`, (B, *shape) float32.

        Raises:
            IndexError: if an index is negative, or not below `count`.
        """


def check_indices(indices: Sequence[int], count: int | None) -> None:
    """Refuse an empty batch and numbers that no image has."""
    if len(indices) == 0:
        raise ValueError("a batch needs at least one image (got no indices)")
    wrong = [i for i in indices if i < 0 or (count is not None and i >= count)]
    if wrong:
        end = "from 0 on" if count is None else f"from 0 to {count - 1}"
        raise IndexError(f"images are numbered {end} (got {wrong[0]!r})")
