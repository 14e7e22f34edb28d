r"""The demo method against classical reconstructions: the table of docs/reconstruction.md.

    python benchmarks/reconstruction.py --images 16 --out docs/reconstruction.json
    python benchmarks/reconstruction.py --render docs/reconstruction.json --out docs/reconstruction.md

Each task measures held-out images with 2 % noise (noise_std = 0.02 rms(A x)), draws 8 posterior samples of each with
the demo's method, and compares their mean with FBP (skimage.transform.iradon) or the pseudoinverse, and with
TV-regularised least squares, whose weight is tuned on 16 other held-out images of the task.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import skimage.metrics
import skimage.transform
import torch
from tv import tv_least_squares

from scoreplug import registry, simulate
from scoreplug.data import open_source
from scoreplug.run.cost import Cost, counted_model

NOISE = 0.02
TASKS = {
    "CT, 30 angles": ("ellipses-64", "ellipses", {"size": 64}, "radon", {"angles": 30}),
    "CT, 15 angles": ("ellipses-64", "ellipses", {"size": 64}, "radon", {"angles": 15}),
    "digits, box inpainting": ("digits-32", "digits", {}, "inpainting", {"mask": "box"}),
    "digits, x4 downsampling": ("digits-32", "digits", {}, "downsampling", {"factor": 4}),
}
TV_WEIGHTS = [w * 10**k for k in (-3, -2, -1, 0) for w in (1, 2, 3, 5, 7)]
METHOD = {
    "conditioner": {"name": "dps", "form": "predictive"},
    "sampler": {"name": "pc", "steps": 100, "grid": "rho", "predictor": "ancestral"},
    "sde": "ve",
}


def measure(operator, images, seed):
    """One measurement per image, with its own noise level."""
    stds = [NOISE * float(operator(x[None]).square().mean().sqrt()) for x in images]
    return [simulate(operator, x, std, seed=seed + i) for i, (x, std) in enumerate(zip(images, stds, strict=True))]


def psnr(x, truth):
    return skimage.metrics.peak_signal_noise_ratio(truth.numpy()[0], x.numpy()[0], data_range=1.0)


def ssim(x, truth):
    return skimage.metrics.structural_similarity(truth.numpy()[0], x.numpy()[0], data_range=1.0)


def summary(reconstructions, truths, measurements):
    misfit = [
        float(m.residual(x[None].to(m.data)).norm() / (m.noise_std * m.data.numel() ** 0.5))
        for x, m in zip(reconstructions, measurements, strict=True)
    ]
    return {
        "psnr": float(np.mean([psnr(x, t) for x, t in zip(reconstructions, truths, strict=True)])),
        "psnr_each": [round(float(psnr(x, t)), 3) for x, t in zip(reconstructions, truths, strict=True)],
        "ssim": float(np.mean([ssim(x, t) for x, t in zip(reconstructions, truths, strict=True)])),
        "residual": float(np.mean(misfit)),
    }


def linear_baseline(operator, measurement):
    """FBP by skimage for a sinogram, the pseudoinverse otherwise."""
    if hasattr(operator, "degrees"):
        sinogram = measurement.data[0].numpy().T
        size = operator.input_shape[-1]
        image = skimage.transform.iradon(sinogram, theta=list(operator.degrees), circle=False, output_size=size)
        return torch.from_numpy(image)[None].to(measurement.data)
    return operator.pinv(measurement.data[None])[0]


def tv(operator, measurements, weight):
    data = torch.stack([m.data for m in measurements])
    return tv_least_squares(operator, data, weight, steps=600)


def run_task(name, n_images, n_samples, method):
    model_name, source_name, source_params, operator_name, operator_params = TASKS[name]
    prior = registry.get_model(model_name, sde=method["sde"])
    operator = registry.get_operator(operator_name, image_shape=prior.shape, **operator_params)
    source = open_source(source_name, split="held-out", **source_params)

    tuning = torch.as_tensor(source.batch(range(100, 116))).float()
    tuning_measurements = measure(operator, tuning, seed=10_000)
    errors = {w: (tv(operator, tuning_measurements, w) - tuning).square().mean() for w in TV_WEIGHTS}
    weight = min(errors, key=errors.get)

    truths = torch.as_tensor(source.batch(range(n_images))).float()
    measurements = measure(operator, truths, seed=0)
    linear = [linear_baseline(operator, m) for m in measurements]
    rows = {
        "linear": summary(linear, truths, measurements),
        "tv": {**summary(tv(operator, measurements, weight), truths, measurements), "weight": weight},
    }

    params = dict(method["conditioner"])
    conditioner = registry.get_conditioner(params.pop("name"), **params)
    params = dict(method["sampler"])
    sampler = registry.get_sampler(params.pop("name"), **params)
    cost, started, samples = Cost(), time.perf_counter(), []
    for i, measurement in enumerate(measurements):
        posterior = conditioner.condition(counted_model(prior, cost), measurement)
        samples.append(sampler.sample(posterior, n_samples, seed=i))
        print(f"{name}: {i + 1}/{n_images}, mean PSNR {psnr(samples[-1].mean(0), truths[i]):.2f} dB", flush=True)
    seconds = time.perf_counter() - started
    each = [summary([s[k] for s in samples], truths, measurements) for k in range(n_samples)]
    rows["mean"] = summary([s.mean(0) for s in samples], truths, measurements)
    rows["sample"] = {key: float(np.mean([e[key] for e in each])) for key in ("psnr", "ssim", "residual")}
    spread = float(np.mean([float(s.var(0).mean().sqrt()) for s in samples]))
    error = float(
        np.mean([float((s.mean(0) - t).square().mean().sqrt()) for s, t in zip(samples, truths, strict=True)])
    )
    return {
        "rows": rows,
        "images": n_images,
        "samples": n_samples,
        "evaluations_per_sample": cost.evaluations / (n_images * n_samples),
        "seconds_per_image": seconds / n_images,
        "spread": spread,
        "error_of_the_mean": error,
        "method": method,
    }


HEADER = """# The demo against classical reconstructions

{images} held-out images per task, measured with 2 % noise (noise_std = 0.02 rms(A x)), {samples} posterior samples of
each. PSNR in dB and SSIM (both with data range 1, means over the images); residual is |y - A x| / (noise_std sqrt(m)),
1 for the truth. *Linear* is filtered back-projection (`skimage.transform.iradon`) for CT and the pseudoinverse
otherwise; *TV* is total-variation-regularised least squares with x >= 0, by the primal-dual algorithm with the real
operator, its weight tuned on 16 other held-out images of the same task.

| task | method | PSNR | SSIM | residual |
|---|---|---|---|---|
"""

FOOTER = """
The posterior samples: {method}.

| task | evaluations per sample | spread / error of the mean | mean beats TV on |
|---|---|---|---|
"""

REMARKS = """
*spread / error of the mean* is the root mean variance of the samples over the root mean square error of their mean:
near 1 where the samples are as far apart as the truth is from them, below 1 where they are too sure. In the box of the
inpainting task nothing is measured, and the noise outside (0.007) lies below the lowest noise level of `ve`
(sigma_min = 0.01), which is why its samples miss the measurement by more than the noise.
"""

NAMES = {"linear": "linear", "tv": "TV", "mean": "**posterior mean**", "sample": "one posterior sample"}


def render(results):
    """The page, from the file that a run of this script has written."""
    first = next(iter(results.values()))
    page = HEADER.format(images=first["images"], samples=first["samples"])
    for task, result in results.items():
        for row, values in result["rows"].items():
            numbers = f"{values['psnr']:.2f} | {values['ssim']:.3f} | {values['residual']:.2f}"
            page += f"| {task} | {NAMES[row]} | {numbers} |\n"
    methods = {json.dumps(result["method"], sort_keys=True) for result in results.values()}
    page += FOOTER.format(method="; ".join(f"`{method}`" for method in sorted(methods)))
    for task, result in results.items():
        rows = result["rows"]
        wins = sum(a > b for a, b in zip(rows["mean"]["psnr_each"], rows["tv"]["psnr_each"], strict=True))
        ratio = result["spread"] / result["error_of_the_mean"]
        page += (
            f"| {task} | {result['evaluations_per_sample']:.0f} | {ratio:.2f} | {wins} of {result['images']} images |\n"
        )
    return page


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--task", action="append", choices=list(TASKS), help="default: all")
    parser.add_argument("--method", help="JSON that replaces parts of the demo method")
    parser.add_argument("--render", type=Path, help="write the page of these results instead")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.render:
        options.out.write_text(render(json.loads(options.render.read_text())))
        return
    method = {**METHOD, **(json.loads(options.method) if options.method else {})}

    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.task or TASKS:
        results[name] = run_task(name, options.images, options.samples, method)
        options.out.write_text(json.dumps(results, indent=1) + "\n")
        for row, values in results[name]["rows"].items():
            numbers = f"{values['psnr']:.2f} dB, SSIM {values['ssim']:.3f}, residual {values['residual']:.2f}"
            print(f"{name}: {row} {numbers}")


if __name__ == "__main__":
    main()
