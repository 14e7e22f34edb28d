"""Reading what is reconstructed: an image or a measurement, from a file or a source of held-out images.

Nothing is guessed: no file is resized, cropped, rescaled or converted from colour to gray. Paths are relative to the
working directory. The files themselves are read by `scoreplug.data.files`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import attrs
import numpy as np
import torch
from torch import Tensor

from scoreplug.data.files import ArrayFile, DataError, open_array
from scoreplug.measurement import Measurement, simulate
from scoreplug.protocols import Operator, ScoreModel
from scoreplug.run.config import ConfigError, InputConfig

_NAMES = {"image": ("x", "reconstruction_rss", "reconstruction_esc"), "measurement": ("y", "kspace")}
"""Arrays that are meant without a key: ours, then those of fastMRI's files."""


@attrs.frozen(kw_only=True, eq=False)
class Subject:
    """What is reconstructed.

    Args:
        measurement: y, its operator and its noise.
        truth: the image that was measured, of the model's shape; None for a measurement from a file.
        data_range: low and high end of the image's values, for PSNR and SSIM; None without a truth.
        range_origin: where that range comes from: "source", "model" or "truth" (its own minimum and maximum).
        facts: what the input file says of its values: the name of the array, affine, rescaling, unit.
    """

    measurement: Measurement
    truth: Tensor | None = None
    data_range: tuple[float, float] | None = None
    range_origin: str | None = None
    facts: Mapping[str, Any] = attrs.field(factory=dict)


def read_subject(config: InputConfig, model: ScoreModel, operator: Operator) -> Subject:
    """Read the image and measure it, or read the measurement.

    Raises:
        ConfigError: if a file cannot be read, has the wrong shape, or holds NaN.
    """
    if config.measurement is not None:
        y, file = _read(config)
        y = _finite(y, f"measurement {config.measurement!r}")
        y = _as_measured(y, operator, config, file) * config.scale
        assert config.noise_std is not None  # InputConfig.problems has refused it
        data = torch.from_numpy(y).to(dtype=model.dtype, device=model.device)
        measurement = Measurement(operator, data, config.noise_std * config.scale)
        return Subject(measurement=measurement, facts=file.facts)

    image, limits, origin, facts = _image(config, model)
    truth = torch.from_numpy(image).to(dtype=model.dtype, device=model.device)
    with torch.no_grad():
        if config.noise_std is not None:
            noise_std = config.noise_std
        else:
            assert config.relative_noise is not None  # likewise
            noise_std = config.relative_noise * float(operator(truth[None]).square().mean().sqrt())
        measurement = simulate(operator, truth, noise_std, seed=config.seed)
    return Subject(measurement=measurement, truth=truth, data_range=limits, range_origin=origin, facts=facts)


def _image(config: InputConfig, model: ScoreModel) -> tuple[np.ndarray, tuple[float, float], str, Mapping[str, Any]]:
    """The image, (C, H, W), its range, where the range comes from, and what its file says of it."""
    declared: tuple[float, float] | None = getattr(model, "data_range", None)
    if config.source is not None:
        source = _source(config.source, model.shape)
        image = np.array(source.held_out.batch([config.index])[0])
        return _of_shape(image, model.shape, f"source {config.source!r}"), source.data_range, "source", {}

    assert config.image is not None  # InputConfig.problems has refused it
    what = f"image {config.image!r}"
    image, file = _read(config)
    image = _of_shape(image, model.shape, what, _hint(file, config))
    if config.data_range is not None:
        (low, high), (bottom, top) = config.data_range, declared or (0.0, 1.0)
        # in floats: of integers, those below `low` would wrap around
        image = bottom + (image.astype(np.float64) - low) * ((top - bottom) / (high - low))
    elif file.counted:
        raise ConfigError(
            [
                f"{what} holds {file.dtype} values from {image.min():g} to {image.max():g}, {_unit(file)}; say which "
                "values stand for the ends of the model's range by input.data_range = [low, high]"
                f"{', for 8 bits usually [0, 255]' if file.dtype == np.uint8 else ''}"
            ]
        )
    image = _finite(image, what).astype(np.float64)
    if declared is not None:
        return image, declared, "model", file.facts
    return image, (float(image.min()), float(image.max())), "truth", file.facts


def _source(name: str, shape: tuple[int, ...]) -> Any:
    """A source of images, at the model's size if it makes images of any size."""
    from scoreplug.data import open_source

    source: Any = open_source(name)
    any_size = attrs.has(type(source)) and "size" in attrs.fields_dict(type(source))
    return attrs.evolve(source, size=shape[-1]) if any_size and shape[-1:] == shape[-2:-1] else source


def _read(config: InputConfig) -> tuple[np.ndarray, ArrayFile]:
    """The array that [input] names, and what its file says of it."""
    measured = config.measurement is not None
    path = Path(config.measurement or config.image or "")
    try:
        file = open_array(path, key=config.key, names=_NAMES["measurement" if measured else "image"])
        if file.volume and config.slice is None:
            along = "and its axis by input.axis" if file.axis is None else f"from 0 to {file.shape[file.axis] - 1}"
            raise DataError(f"{str(path)!r} holds a volume {file.shape}; say which slice by input.slice, {along}")
        return file.read(config.slice, config.axis), file
    except DataError as error:
        raise ConfigError([re.sub(r"`(key|axis|slice)`", r"input.\1", str(error))]) from error


def _unit(file: ArrayFile) -> str:
    unit = file.facts.get("unit", "not stated")
    return "which have no unit" if unit == "not stated" else f"rescaled, in {unit}"


def _hint(file: ArrayFile, config: InputConfig) -> str:
    """What may help where the shape is wrong and the file has more than one image."""
    if config.slice is not None or len(file.shape) < 3:
        return ""
    return "; one slice of a volume is named by input.slice, and the axis along which they lie by input.axis"


def _of_shape(image: np.ndarray, shape: tuple[int, ...], what: str, hint: str = "") -> np.ndarray:
    """The image in the model's shape. Complex images become (2, H, W); a missing axis of length one is added."""
    found = image.shape
    if np.iscomplexobj(image):
        image = np.stack([image.real, image.imag])
    if image.shape == tuple(shape[1:]) and shape[0] == 1:
        image = image[None]
    if image.shape != tuple(shape):
        raise ConfigError(
            [
                f"{what} has shape {found}, and the model takes {tuple(shape)} (channels, height, width); "
                f"crop, resample or convert it first, since nothing is resized silently{hint}"
            ]
        )
    return image


def _as_measured(y: np.ndarray, operator: Operator, config: InputConfig, file: ArrayFile) -> np.ndarray:
    """The measurement in the operator's real layout. Complex data becomes (2, ...): real and imaginary part."""
    shape, what = tuple(operator.output_shape), f"measurement {config.measurement!r}"
    found = f"{y.shape}{' complex' if np.iscomplexobj(y) else ''}"
    if np.iscomplexobj(y):
        gridded = _measured_entries(y, operator, what)
        y = np.stack([y.real, y.imag]) if gridded is None else gridded
    if y.shape == shape[1:] and shape[0] == 1:
        y = y[None]
    if y.shape != shape:
        raise ConfigError([f"{what} has shape {found}, and the operator gives {shape}{_hint(file, config)}"])
    return y.astype(np.float64)


def _measured_entries(y: np.ndarray, operator: Operator, what: str) -> np.ndarray | None:
    """Of a whole k-space (channels, H, W), or (H, W) for one channel, what the operator's mask measures.

    None if the operator has no k-space or the array is none. This is how fastMRI's files keep it: with zeros where
    nothing was measured.
    """
    if not isinstance(operator, _OnGrid):
        return None
    channels, space = operator.output_shape[1], tuple(operator.input_shape[-2:])
    k = y[None] if y.shape == space and channels == 1 else y
    if k.shape != (channels, *space):
        return None
    mask = operator.measured.cpu().numpy()
    empty = (k == 0).all(0)
    for lines, axis in (("columns", 0), ("rows", 1)):
        unmeasured = mask.any(axis) & (empty | ~mask).all(axis)
        if unmeasured.any():
            raise ConfigError(
                [
                    f"{what} has zeros in {int(unmeasured.sum())} {lines} of k-space that the operator's mask counts "
                    f"as measured, the first of them number {int(unmeasured.argmax())}; give the mask that was used "
                    "by operator.mask"
                ]
            )
    return operator.measured_entries(torch.from_numpy(k)[None])[0].numpy()


@runtime_checkable
class _OnGrid(Protocol):
    """An operator that measures entries of a k-space with the image's height and width."""

    @property
    def measured(self) -> Tensor:
        """The mask, (H, W), True where measured."""

    def measured_entries(self, k: Tensor) -> Tensor:
        """(B, channels, H, W), complex, -> (B, *output_shape)."""


def _finite(values: np.ndarray, what: str) -> np.ndarray:
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        raise ConfigError([f"{what} holds {values.dtype}, not numbers"])
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise ConfigError([f"{what} has {bad} values that are NaN or infinite"])
    return values
