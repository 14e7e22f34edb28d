"""Tensors as pictures: what is shown of an image, of a measurement, and on which scale."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import torch

from scoreplug.measurement import Measurement
from scoreplug.protocols import LinearOperator
from scoreplug.run.result import Result


class Picture(NamedTuple):
    """Something to look at.

    Args:
        pixels: (H, W), or (H, W, 3), in units of the data.
        low, high: ends of the scale.
        colours: name of a colour map.
        title: what it is.
        note: a number about it, or empty.
        like_image: it has the geometry of the image, so its pixels are square.
        of_image: it is an image on the scale that all images share.
    """

    pixels: np.ndarray
    low: float
    high: float
    colours: str
    title: str
    note: str = ""
    like_image: bool = True
    of_image: bool = False

    @property
    def drawn(self) -> np.ndarray:
        """What is drawn: gray values as they are, colours as shares of the scale, in [0, 1]."""
        if self.pixels.ndim == 2:
            return self.pixels
        return np.clip((self.pixels - self.low) / (self.high - self.low), 0, 1)


def pictures(result: Result) -> dict[str, Picture]:
    """Every picture of a run, by name: truth, measurement, baseline, mean, std, error, sample 1, sample 2, ...

    Images share one scale: the data range where it is known, else that of the truth or the posterior mean. What lies
    outside is drawn at the scale's ends; the arrays are not changed.
    """
    scale = _scale(result)
    found = {}
    if result.truth is not None:
        found["truth"] = _picture(result.truth, scale, "truth")
    found["measurement"] = _measurement(result.subject.measurement, result.mean.shape)
    if result.baseline is not None:
        x = result.baseline.x.double().cpu().numpy()
        found["baseline"] = _picture(x, scale, result.baseline.name, _quality(result.metrics["baseline"]))
    found["mean"] = _picture(result.mean, scale, "posterior mean", _quality(result.metrics["posterior_mean"]))
    if result.std is not None:
        std = np.sqrt((result.std**2).mean(0))
        found["std"] = Picture(std, 0.0, _positive(std.max()), "magma", "standard deviation", f"mean {std.mean():.3g}")
    if result.truth is not None:
        error = gray(result.mean) - gray(result.truth)
        top = _positive(np.abs(error).max())
        rms = float(np.sqrt(((result.mean - result.truth) ** 2).mean()))
        found["error"] = Picture(error, -top, top, "RdBu_r", "mean - truth", f"rms {rms:.3g}")
    for i, (x, quality) in enumerate(zip(result.samples, result.metrics["samples"], strict=True)):
        found[f"sample {i + 1}"] = _picture(x, scale, f"sample {i + 1}", _quality(quality))
    return found


def to_png(picture: Picture) -> bytes:
    """The picture as a PNG file, one pixel for one pixel."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, picture.drawn, vmin=picture.low, vmax=picture.high, cmap=picture.colours, format="png")
    return buffer.getvalue()


def _picture(
    x: np.ndarray, scale: tuple[float, float], title: str, note: str = "", *, of_image: bool = True
) -> Picture:
    pixels = np.moveaxis(x, 0, -1) if len(x) == 3 else _channel(x)
    return Picture(pixels, *scale, "gray", title, note, of_image=of_image)


def gray(x: np.ndarray) -> np.ndarray:
    """One number per pixel, of a colour image too: the mean of its channels."""
    return x.mean(0) if len(x) == 3 else _channel(x)


def _channel(x: np.ndarray) -> np.ndarray:
    """One number per pixel: the value, the magnitude of a complex image, or the first of several channels."""
    return np.hypot(x[0], x[1]) if len(x) == 2 else x[0]


def _scale(result: Result) -> tuple[float, float]:
    if result.subject.data_range is not None and result.mean.shape[0] != 2:
        low, high = result.subject.data_range
        return low, high if high > low else low + 1.0
    return _ends(result.mean if result.truth is None else result.truth)


def _measurement(measurement: Measurement, image_shape: tuple[int, ...]) -> Picture:
    """y as the operator's `picture` draws it, (B, *output_shape) -> (B, H, W); else y if it is an array, or A^T y."""
    operator, y = measurement.operator, measurement.data
    own = getattr(operator, "picture", None)
    if own is not None:
        pixels, title = own(y[None])[0], "measurement"
    elif y.ndim >= 2 and min(y.shape[-2:]) > 1:
        pixels, title = y.reshape(-1, *y.shape[-2:]), "measurement"
        if len(pixels) == 3 and image_shape[0] == 3:
            values = pixels.double().cpu().numpy()
            return _picture(values, _ends(values), title, of_image=False)
        pixels = torch.hypot(pixels[0], pixels[1]) if len(pixels) == 2 else pixels[0]
    elif isinstance(operator, LinearOperator):
        with torch.no_grad():
            back = operator.adjoint(y[None])[0].double().cpu().numpy()
        return _picture(back, _ends(back), "measurement, A^T y", of_image=False)
    else:
        pixels, title = y.reshape(1, -1), "measurement"
    values = pixels.double().cpu().numpy()
    h, w = values.shape
    similar = abs(np.log((h / w) / (image_shape[-2] / image_shape[-1]))) < 0.1
    return Picture(values, *_ends(values[None]), "gray", title, like_image=bool(similar))


def _ends(x: np.ndarray) -> tuple[float, float]:
    """The scale on which all that is shown of an image is seen; that of a magnitude begins at 0."""
    shown = x if len(x) == 3 else _channel(x)
    low, high = (0.0 if len(x) == 2 else float(shown.min())), float(shown.max())
    return low, high if high > low else low + 1.0


def _positive(value: float) -> float:
    return float(value) if value > 0 else 1.0


def _quality(entry: dict[str, float | None]) -> str:
    return "" if entry["psnr"] is None else f"{entry['psnr']:.1f} dB"
