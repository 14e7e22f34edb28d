"""Reading what is reconstructed: an image or a measurement, from a file or a source of held-out images.

Nothing is guessed: no file is resized, cropped, rescaled or converted from colour to gray. Paths are relative to the
working directory.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from scoreplug.measurement import Measurement, simulate
from scoreplug.protocols import Operator, ScoreModel
from scoreplug.run.config import ConfigError, InputConfig


@attrs.frozen(kw_only=True, eq=False)
class Subject:
    """What is reconstructed.

    Args:
        measurement: y, its operator and its noise.
        truth: the image that was measured, of the model's shape; None for a measurement from a file.
        data_range: low and high end of the image's values, for PSNR and SSIM; None without a truth.
        range_origin: where that range comes from: "source", "model" or "truth" (its own minimum and maximum).
    """

    measurement: Measurement
    truth: Tensor | None = None
    data_range: tuple[float, float] | None = None
    range_origin: str | None = None


def read_subject(config: InputConfig, model: ScoreModel, operator: Operator) -> Subject:
    """Read the image and measure it, or read the measurement.

    Raises:
        ConfigError: if a file cannot be read, has the wrong shape, or holds NaN.
    """
    if config.measurement is not None:
        y = _finite(_read(Path(config.measurement), "y"), f"measurement {config.measurement!r}")
        y = _as_measured(y, tuple(operator.output_shape), config.measurement)
        assert config.noise_std is not None  # InputConfig.problems has refused it
        data = torch.from_numpy(y).to(dtype=model.dtype, device=model.device)
        return Subject(measurement=Measurement(operator, data, config.noise_std))

    image, limits, origin = _image(config, model)
    truth = torch.from_numpy(image).to(dtype=model.dtype, device=model.device)
    with torch.no_grad():
        if config.noise_std is not None:
            noise_std = config.noise_std
        else:
            assert config.relative_noise is not None  # likewise
            noise_std = config.relative_noise * float(operator(truth[None]).square().mean().sqrt())
        measurement = simulate(operator, truth, noise_std, seed=config.seed)
    return Subject(measurement=measurement, truth=truth, data_range=limits, range_origin=origin)


def _image(config: InputConfig, model: ScoreModel) -> tuple[np.ndarray, tuple[float, float], str]:
    """The image, (C, H, W), its range, and where the range comes from."""
    declared: tuple[float, float] | None = getattr(model, "data_range", None)
    if config.source is not None:
        source = _source(config.source, model.shape)
        image = np.array(source.held_out.batch([config.index])[0])
        return _of_shape(image, model.shape, f"source {config.source!r}"), source.data_range, "source"

    assert config.image is not None  # InputConfig.problems has refused it
    what = f"image {config.image!r}"
    image = _of_shape(_read(Path(config.image), "x"), model.shape, what)
    if config.data_range is not None:
        (low, high), (bottom, top) = config.data_range, declared or (0.0, 1.0)
        image = bottom + (image - low) * ((top - bottom) / (high - low))
    elif np.issubdtype(image.dtype, np.integer) or image.dtype == bool:
        raise ConfigError(
            [
                f"{what} holds {image.dtype} values from {image.min()} to {image.max()}, which have no unit; say which "
                "values stand for the ends of the model's range by input.data_range = [low, high], for 8 bits usually "
                "[0, 255]"
            ]
        )
    image = _finite(image, what).astype(np.float64)
    if declared is not None:
        return image, declared, "model"
    return image, (float(image.min()), float(image.max())), "truth"


def _source(name: str, shape: tuple[int, ...]) -> Any:
    """A source of images, at the model's size if it makes images of any size."""
    from scoreplug.data import open_source

    source: Any = open_source(name)
    any_size = attrs.has(type(source)) and "size" in attrs.fields_dict(type(source))
    return attrs.evolve(source, size=shape[-1]) if any_size and shape[-1:] == shape[-2:-1] else source


def _read(path: Path, key: str) -> np.ndarray:
    """An array from .npy, .npz (its only array, or the one named `key`) or an image file."""
    if not path.is_file():
        raise ConfigError([f"there is no file {str(path)!r}"])
    try:
        content = io.BytesIO(path.read_bytes())  # some readers leave a file open when they give up
        if path.suffix not in (".npy", ".npz"):
            return _read_picture(content)
        loaded = np.load(content, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            if len(names) != 1 and key not in names:
                raise ConfigError(
                    [f"{str(path)!r} holds the arrays {', '.join(names)}; name the one that is meant {key!r}"]
                )
            return np.asarray(loaded[key if key in names else names[0]])
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError([f"cannot read {str(path)!r}: {type(error).__name__}: {error}"]) from error


def _read_picture(content: io.BytesIO) -> np.ndarray:
    import skimage.io

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a file that is read with doubts is not read
        picture = np.asarray(skimage.io.imread(content))
    # Pixels come as (H, W) or (H, W, channels).
    return picture if picture.ndim == 2 else np.moveaxis(picture, -1, 0)


def _of_shape(image: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
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
                "crop, resample or convert it first, since nothing is resized silently"
            ]
        )
    return image


def _as_measured(y: np.ndarray, shape: tuple[int, ...], path: str) -> np.ndarray:
    """The measurement in the operator's real layout. Complex data becomes (2, ...): real and imaginary part."""
    found = f"{y.shape}{' complex' if np.iscomplexobj(y) else ''}"
    if np.iscomplexobj(y):
        y = np.stack([y.real, y.imag])
    if y.shape == shape[1:] and shape[0] == 1:
        y = y[None]
    if y.shape != shape:
        raise ConfigError([f"measurement {path!r} has shape {found}, and the operator gives {shape}"])
    return y.astype(np.float64)


def _finite(values: np.ndarray, what: str) -> np.ndarray:
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        raise ConfigError([f"{what} holds {values.dtype}, not numbers"])
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise ConfigError([f"{what} has {bad} values that are NaN or infinite"])
    return values
