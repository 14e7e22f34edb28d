"""Deblurring of two crops of a photograph, a dark and a bright one: python benchmarks/deblurring.py, about a minute."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from skimage import data

from scoreplug import registry, simulate

CROPS = {"dark": (64, 80, 200), "bright": (96, 70, 180)}  # size, row, column
BLUR, NOISE, SAMPLES, STEPS = 1.0, 0.05, 2, 30


def psnr(x: torch.Tensor, truth: torch.Tensor) -> float:
    return round(-10 * math.log10(float((x - truth).square().mean())), 2)


def deblurred(crop: str) -> list[dict]:
    size, row, column = CROPS[crop]
    image = data.camera()[row : row + size, column : column + size] / 255
    truth = torch.from_numpy(np.ascontiguousarray(image)).float()[None]
    operator = registry.get_operator("blur", image_shape=tuple(truth.shape), std=BLUR)
    measurement = simulate(operator, truth, noise_std=NOISE, seed=0)
    # the posterior mean under white images of mean 0.5 and standard deviation 0.25
    residual = measurement.data[None] - operator(torch.full_like(truth[None], 0.5))
    wiener = 0.5 + 0.25**2 * operator.adjoint(operator.solve(residual, a=0.25**2, b=NOISE**2))[0]
    rows = [
        {"method": f"{crop}: mean of the image", "value": round(float(truth.mean()), 2)},
        {"method": f"{crop}: measurement", "psnr": psnr(measurement.data, truth)},
        {"method": f"{crop}: Wiener filter", "psnr": psnr(wiener, truth)},
    ]
    prior = registry.get_model("dncnn", image_shape=tuple(truth.shape))
    for conditioner in ("dps", "diffpir"):
        posterior = registry.get_conditioner(conditioner).condition(prior, measurement)
        start = time.perf_counter()
        x = registry.get_sampler("ancestral", steps=STEPS).sample(posterior, SAMPLES, seed=0)
        found = {"method": f"{crop}: {conditioner}, ancestral, {STEPS} steps", "psnr": psnr(x.mean(0), truth)}
        rows.append({**found, "seconds": round(time.perf_counter() - start, 1)})
    return rows


if __name__ == "__main__":
    rows = [row for crop in CROPS for row in deblurred(crop)]
    for row in rows:
        print(row)
    told = {
        "problem": f"skimage.data.camera at {CROPS} (size, row, column), blur of std {BLUR}, noise_std {NOISE}",
        "samples": SAMPLES,
        "rows": rows,
    }
    (Path(__file__).parent / "deblurring.json").write_text(json.dumps(told, indent=1) + "\n")
