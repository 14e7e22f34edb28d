"""Denoising error by level on six 128 x 128 crops of scikit-image's photographs: python benchmarks/curve.py."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from skimage import data

from scoreplug import registry

LEVELS = (0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
CROPS = [(name, corner) for name in ("camera", "coins", "brick") for corner in (40, 150)]


def crops() -> torch.Tensor:
    """(6, 1, 128, 128), in [0, 1]."""
    images = [getattr(data, name)()[c : c + 128, c : c + 128] / 255 for name, c in CROPS]
    return torch.from_numpy(np.stack(images)).float()[:, None]


def curve(weights: str) -> list[list[float]]:
    """(level, root mean square error), one noise image for all levels."""
    model = registry.get_model("dncnn", image_shape=(1, 128, 128), weights=weights)
    x = crops()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    found = []
    for level in LEVELS:
        t = model.sde.time_of(torch.tensor(level, dtype=torch.float64))
        with torch.no_grad():
            error = model.denoise(x + level * noise, t) - x
        found.append([level, round(float(error.square().mean().sqrt()), 5)])
    return found


if __name__ == "__main__":
    curves = {weights: curve(weights) for weights in ("6N", "17N")}
    for weights, points in curves.items():
        psnr = ", ".join(f"{level:g}: {-20 * math.log10(error):.1f} dB" for level, error in points)
        print(weights, psnr)
    told = {"images": [f"skimage.data.{name} at {c}, 128 x 128" for name, c in CROPS], "curves": curves}
    told["by"] = f"torch {torch.__version__}, {sys.platform}"
    (Path(__file__).parent / "curve.json").write_text(json.dumps(told, indent=1) + "\n")
