"""What the operators on images share: the shape of the image, constant tensors, arrays from files."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from scoreplug.data.files import DataError, open_array
from scoreplug.param import param


@attrs.frozen(kw_only=True, eq=False)
class OnImage:
    """Mixin of an operator whose input is an image (C, H, W)."""

    image_shape: tuple[int, int, int] = param(gt=0, doc="shape of x: channels, height, width")

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.image_shape


class Constant:
    """A tensor that an operator is made of, kept on the CPU in double precision.

    It is converted once for each type and device that it meets, and held.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self._converted: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def like(self, x: Tensor) -> Tensor:
        """The constant for arithmetic with x: on x's device, in x's precision. Integers stay integers."""
        dtype = self.value.dtype
        if dtype.is_floating_point:
            dtype = x.dtype
        elif dtype.is_complex:
            dtype = x.dtype.to_complex()
        key = (dtype, x.device)
        if key not in self._converted:
            self._converted[key] = self.value.to(dtype=dtype, device=x.device)
        return self._converted[key]


def read_array(source: str | Tensor | tuple[Any, ...], name: str, choices: tuple[str, ...] = ()) -> Tensor:
    """The array that a parameter stands for, a float64 tensor on the CPU that shares no memory with `source`.

    Args:
        source: a path to a .npy or .npz file, a tensor, or nested tuples of numbers.
        name: of the parameter, for messages, and the array's name in an .npz file that holds several.
        choices: names that the parameter takes instead of an array, for messages.

    Raises:
        ValueError: if the file cannot be read, or the array is not real, not rectangular or not finite.
    """
    if isinstance(source, Tensor):
        if source.is_complex():
            raise ValueError(
                f"{name} must be real (got {source.dtype}); give real and imaginary part as numbers of their own"
            )
        array = source.detach().to(dtype=torch.float64, device="cpu", copy=True)
    else:
        values = _load(source, name, choices) if isinstance(source, str) else source
        if isinstance(values, np.ndarray) and np.iscomplexobj(values):  # numpy would drop the imaginary part
            raise ValueError(f"{name} must be real; give real and imaginary part as numbers of their own")
        try:
            array = torch.from_numpy(np.array(values, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must be a rectangular array of real numbers: {error}") from error
    if not bool(array.isfinite().all()):
        raise ValueError(f"{name} has {int((~array.isfinite()).sum())} values that are NaN or infinite")
    return array


def read_mask(source: str | Tensor, height: int, width: int, choices: tuple[str, ...]) -> Tensor:
    """An own mask, read and checked: bool, of the shape of its array.

    Raises:
        ValueError: if the array cannot be read, has values other than 0 and 1, or does not end in (height, width) or
            (width,).
    """
    mask = read_array(source, "mask", choices)
    if not bool(((mask == 0) | (mask == 1)).all()):
        values = ", ".join(f"{v:g}" for v in sorted(set(mask.flatten().tolist()))[:4])
        raise ValueError(f"mask must hold 0 and 1 only, 1 for what is measured (got values {values}, ...)")
    if tuple(mask.shape[-2:]) not in ((height, width), (width,)):
        raise ValueError(f"mask must have the image's height and width {(height, width)} (got {tuple(mask.shape)})")
    return mask.bool()


def _load(path: str, name: str, choices: tuple[str, ...]) -> Any:
    if Path(path).suffix not in (".npy", ".npz"):
        named = "".join(f"{choice!r}, " for choice in choices)
        near = difflib.get_close_matches(path, choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be {named}or a path to a .npy or .npz file (got {path!r}){hint}")
    try:
        return open_array(Path(path), names=(name,)).read()
    except DataError as error:
        why = str(error).replace("say which array is meant by `key`", f"name the array {name!r}")
        raise ValueError(f"{name} cannot be read from {path!r}: {why}") from error
