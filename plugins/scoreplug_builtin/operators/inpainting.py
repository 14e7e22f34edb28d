"""Inpainting: some pixels are observed."""

from __future__ import annotations

import functools
from typing import Literal

import attrs
import torch
from torch import Tensor

from scoreplug.noise import Noise
from scoreplug.operator import SVD, SpectralOperator
from scoreplug.param import param
from scoreplug_builtin.operators._image import Constant, OnImage, read_mask


@attrs.frozen(kw_only=True, eq=False)
class Inpainting(OnImage, SpectralOperator):
    """A x = the observed entries of x, row by row and channel after channel, (B, C, H, W) -> (B, m).

    y holds what was observed and nothing else, so that noise is added to no pixel that was not. A^T writes y to its
    places in an image of zeros. V is the identity, s the mask, and the norm is 1.

    Raises:
        ValueError: if the mask observes nothing, the box does not fit in the image, or an own mask is not one of 0
            and 1 of the image's size.
    """

    mask: Literal["box", "half", "random"] | str | Tensor = param(
        "box",
        doc="what is hidden, or an own mask (H, W) or (C, H, W), 1 where observed: .npy or .npz file, or tensor",
    )
    box: tuple[int, int, int, int] | None = param(
        None,
        ge=0,
        unit="pixel",
        doc="top, left, height and width of the hidden box; none is half the image's, in the centre",
    )
    side: Literal["left", "right", "top", "bottom"] = param("right", doc="the hidden half")
    fraction: float = param(
        0.3, gt=0.0, le=1.0, doc="fraction of observed pixels of a random mask, the same in all channels"
    )
    seed: int = param(0, ge=0, doc="of a random mask")

    def __attrs_post_init__(self) -> None:
        if self.output_shape == (0,):
            raise ValueError("mask observes no pixel at all; there is nothing to measure")

    @functools.cached_property
    def observed(self) -> Tensor:
        """The mask, (C, H, W), True where observed."""
        _, height, width = self.image_shape
        if self.mask == "box":
            mask = self._outside_box(height, width)
        elif self.mask == "half":
            mask = self._half(height, width)
        elif self.mask == "random":
            mask = self._random(height, width)
        else:
            mask = read_mask(self.mask, height, width, choices=("box", "half", "random"))
            if mask.ndim == 1 or mask.ndim > 3 or (mask.ndim == 3 and mask.shape != self.image_shape):
                raise ValueError(f"mask must be {(height, width)} or {self.image_shape} (got {tuple(mask.shape)})")
        return mask.expand(self.image_shape).clone()

    def _outside_box(self, height: int, width: int) -> Tensor:
        box = (height // 4, width // 4, (height + 1) // 2, (width + 1) // 2) if self.box is None else self.box
        top, left, rows, columns = box
        if top + rows > height or left + columns > width:
            raise ValueError(
                f"box must lie in the image of {height} x {width} pixels (got {box!r}: top, left, height, width)"
            )
        mask = _all_observed(height, width)
        mask[top : top + rows, left : left + columns] = False
        return mask

    def _half(self, height: int, width: int) -> Tensor:
        mask = _all_observed(height, width)
        hidden = {
            "left": mask[:, : width // 2],
            "right": mask[:, (width + 1) // 2 :],
            "top": mask[: height // 2],
            "bottom": mask[(height + 1) // 2 :],
        }
        hidden[self.side].zero_()
        return mask

    def _random(self, height: int, width: int) -> Tensor:
        n = height * width
        noise = Noise(self.seed, (0,), dtype=torch.float64, device=torch.device("cpu")).at("inpainting")
        rank = noise.uniform((n,))[0].argsort().argsort()
        return (rank < round(self.fraction * n)).reshape(height, width)

    @functools.cached_property
    def _index(self) -> Constant:
        return Constant(self.observed.flatten().nonzero()[:, 0])

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (len(self._index.value),)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).index_select(1, self._index.like(x))

    def transpose(self, y: Tensor) -> Tensor:
        zeros = torch.zeros(y.shape[0], self.observed.numel(), dtype=y.dtype, device=y.device)
        return zeros.index_copy(1, self._index.like(y), y).reshape(-1, *self.image_shape)

    @functools.cached_property
    def svd(self) -> SVD:
        mask = self.observed.to(torch.float64)
        return SVD(singular_values=mask, V=lambda c: c, Vt=lambda x: x, U=self.forward, Ut=self.transpose)


def _all_observed(height: int, width: int) -> Tensor:
    return torch.ones(height, width, dtype=torch.bool, device="cpu")
