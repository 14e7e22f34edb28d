"""How good the samples are: against the truth, if there is one, and against the measurement."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from scoreplug.measurement import Measurement
from scoreplug.run.baseline import Baseline
from scoreplug.run.inputs import Subject

WINDOW = 11
"""Pixels that a window of SSIM covers (Gaussian of 1.5 pixels, cut off at 3.5 standard deviations)."""


def metrics(subject: Subject, samples: np.ndarray, reference: Baseline | None) -> dict[str, Any]:
    """Figures of merit of each sample, of the posterior mean, and of the baseline.

    - psnr: 10 log10(R^2 / MSE) in dB, R the width of the data range.
    - ssim: Wang, Bovik, Sheikh, Simoncelli 2004, doi:10.1109/TIP.2003.819861, with their Gaussian window; None for
      images below 11 pixels.
    - residual: |y - A x| / (noise_std sqrt(m)) with m the number of measured values; near 1 for a good sample, below it
      for one that fits the noise. None without noise.
    - mean_std: root mean square over pixels of the standard deviation over samples, in data units; None for one sample.

    Psnr and ssim are None without a truth. Nothing is clipped before it is compared.

    Args:
        subject: measurement and truth.
        samples: (n, C, H, W).
        reference: the reconstruction without a prior.
    """
    mean = samples.mean(0, dtype=np.float64)
    spread = float(np.sqrt(samples.var(0, ddof=1, dtype=np.float64).mean())) if len(samples) > 1 else None
    each = [_image(subject, x) for x in samples]
    return {
        "samples": each,
        "average_of_samples": {key: _average([entry[key] for entry in each]) for key in each[0]},
        "posterior_mean": _image(subject, mean),
        "baseline": None if reference is None else _image(subject, reference.x.double().cpu().numpy()),
        "mean_std": spread,
        "noise_std": subject.measurement.noise_std,
        "data_range": subject.data_range,
        "data_range_from": subject.range_origin,
    }


def psnr(truth: np.ndarray, x: np.ndarray, width: float) -> float:
    """10 log10(width^2 / MSE), in dB; infinite for equal images."""
    from skimage.metrics import peak_signal_noise_ratio

    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(truth, x, data_range=width))  # type: ignore[no-untyped-call]


def ssim(truth: np.ndarray, x: np.ndarray, width: float) -> float | None:
    """Structural similarity of two images (C, H, W), the mean over channels."""
    from skimage.metrics import structural_similarity

    if min(truth.shape[1:]) < WINDOW:
        return None
    value = structural_similarity(  # type: ignore[no-untyped-call]
        truth, x, data_range=width, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(value)


def _image(subject: Subject, x: np.ndarray) -> dict[str, float | None]:
    x, residual = x.astype(np.float64), _residual(subject.measurement, x)
    if subject.truth is None or subject.data_range is None or subject.data_range[1] <= subject.data_range[0]:
        return {"psnr": None, "ssim": None, "residual": residual}
    truth, width = subject.truth.double().cpu().numpy(), subject.data_range[1] - subject.data_range[0]
    return {"psnr": psnr(truth, x, width), "ssim": ssim(truth, x, width), "residual": residual}


def _residual(measurement: Measurement, x: np.ndarray) -> float | None:
    if measurement.noise_std == 0:
        return None
    with torch.no_grad():
        r = measurement.residual(torch.from_numpy(x).to(measurement.data)[None]).double()
    return float(r.norm()) / (measurement.noise_std * math.sqrt(r.numel()))


def _average(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
