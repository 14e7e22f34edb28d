"""How good image samples are: per sample on average, and as a posterior mean; never the best of n.

Psnr, ssim and the residual are those of `scoreplug run`. The residual |y - A x| / (noise_std sqrt(m)) is not "lower is
better": the truth has about 1, and less means that the noise is fitted.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoreplug.bench.metrics._arrays import Array, array
from scoreplug.bench.metrics.forecast import crps, interval_coverage, spread_skill
from scoreplug.measurement import Measurement
from scoreplug.run.inputs import Subject
from scoreplug.run.metrics import metrics

_OF_ALL = ("crps", "spread_skill", "coverage_50", "target_50", "coverage_90", "target_90", "width_90")


def image_metrics(
    samples: Array, measurement: Measurement, truth: Tensor, data_range: tuple[float, float]
) -> dict[str, float | None]:
    """Figures of merit of n samples of an image.

    - psnr, ssim, lpips, residual: averages over samples.
    - psnr_mean, ssim_mean, lpips_mean, residual_mean: of the posterior mean.
    - crps, spread_skill, coverage_50, coverage_90, target_50, target_90, width_90: of all samples, see `forecast`;
      None for one sample. The target is what exact samples reach with this n.

    Lpips is None unless the package lpips and its weights are installed; ssim is None below 11 pixels, and the residual
    without noise.

    Args:
        samples: (n, C, H, W).
        measurement: y, its operator and its noise.
        truth: (C, H, W).
        data_range: low and high end of an image's values. Nothing is clipped to it.
    """
    low, high = data_range
    if not low < high:
        raise ValueError(f"data_range must be (low, high) with low < high (got {data_range!r})")
    x, x_true = array(samples), array(truth, "truth")
    if x.ndim != 4 or x.shape[1:] != x_true.shape:
        raise ValueError(f"samples (n, C, H, W) and truth (C, H, W) do not fit (got {x.shape} and {x_true.shape})")
    subject = Subject(measurement=measurement, truth=truth, data_range=data_range, range_origin="problem")
    found = metrics(subject, x, None)
    each, mean = found["average_of_samples"], found["posterior_mean"]
    result: dict[str, float | None] = {}
    for key in ("psnr", "ssim", "residual"):
        result |= {key: each[key], f"{key}_mean": mean[key]}
    result |= {
        "lpips": lpips(x, truth, data_range),
        "lpips_mean": lpips(x.mean(0, keepdims=True), truth, data_range),
    }
    if len(x) < 2:
        return result | dict.fromkeys(_OF_ALL)
    half, most = interval_coverage(x, truth, level=0.5), interval_coverage(x, truth, level=0.9)
    values = (
        crps(x, truth),
        spread_skill(x, truth),
        half.covered,
        half.target,
        most.covered,
        most.target,
        most.width,
    )
    return result | dict(zip(_OF_ALL, values, strict=True))


def lpips(samples: Array, truth: Array, data_range: tuple[float, float]) -> float | None:
    """Learned perceptual distance (AlexNet) to the truth, the average over samples; lower is better.

    None if the package lpips cannot be imported, if torchvision's AlexNet weights are not on this machine (nothing is
    downloaded), if an image has neither 1 nor 3 channels, or if it has fewer than 32 pixels, from which the network's
    poolings leave nothing.

    Args:
        samples: (n, C, H, W).
        truth: (C, H, W).
        data_range: low and high end of the values, which the network sees as -1 and 1.

    References:
        Zhang, Isola, Efros, Shechtman, Wang: The unreasonable effectiveness of deep features as a perceptual metric.
        CVPR 2018.
    """
    x, x_true = array(samples), array(truth, "truth")
    if x.shape[1] not in (1, 3) or min(x.shape[2:]) < 32:
        return None
    network = _network()
    if network is None:
        return None
    low, high = data_range

    def seen(image: np.ndarray) -> Tensor:
        scaled = torch.from_numpy(2 * (image - low) / (high - low) - 1).float()
        return scaled.expand(-1, 3, -1, -1)  # gray is seen as three equal channels

    with torch.no_grad():  # one by one: no more memory than one image needs
        values = [float(network(seen(one[None]), seen(x_true[None]))) for one in x]
    return sum(values) / len(values)


@functools.cache
def _network() -> Callable[[Tensor, Tensor], Any] | None:
    """LPIPS with AlexNet, if it can be had without a download."""
    try:
        package, models = importlib.import_module("lpips"), importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError):  # the latter from a torchvision that was built for another torch
        return None
    weights = Path(torch.hub.get_dir(), "checkpoints", Path(models.AlexNet_Weights.IMAGENET1K_V1.url).name)
    if not weights.exists():
        return None
    network: Callable[[Tensor, Tensor], Any] = package.LPIPS(net="alex", verbose=False).eval()
    return network
