r"""Every conditioner with its published sampler and two others, on images: the table of docs/conditioners.md.

    python benchmarks/conditioners.py --images 2 --samples 4 --out docs/conditioners.json
    python benchmarks/conditioners.py --render docs/conditioners.json --out docs/conditioners.md

Every method gets 200 evaluations of the network per sample, and one; none is tuned to a task. The problems and the
measures are those of reconstruction.py, whose page also has filtered back-projection, pseudoinverse and TV on more
images. A row that is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from reconstruction import linear_baseline, measure, psnr, summary

from scoreplug import registry
from scoreplug.data import open_source
from scoreplug.run.cost import Cost, counted_model, counted_operator
from scoreplug.sampler import DivergenceError

TASKS = {
    "CT, 30 angles": ("ellipses-64", "ellipses", {"size": 64}, "radon", {"angles": 30}),
    "box inpainting": ("digits-32", "digits", {}, "inpainting", {"mask": "box"}),
    "x4 downsampling": ("digits-32", "digits", {}, "downsampling", {"factor": 4}),
    "Gaussian blur": ("digits-32", "digits", {}, "blur", {"std": 1.5}),
}
SAMPLERS = {
    "ancestral": {"name": "ancestral", "steps": 200, "grid": "rho"},
    "ancestral, fresh noise": {"name": "ancestral", "steps": 200, "grid": "rho", "noise": "fresh", "eta": 0.85},
    "ancestral, fresh noise, 20 steps": {
        "name": "ancestral",
        "steps": 20,
        "grid": "rho",
        "noise": "fresh",
        "eta": 0.85,
    },
    "pc": {"name": "pc", "steps": 100, "grid": "rho", "predictor": "ancestral"},
    "langevin": {"name": "langevin", "steps": 100, "moves": 2, "grid": "rho"},
    "langevin, snr .5": {"name": "langevin", "steps": 100, "moves": 2, "grid": "rho", "snr": 0.5, "final": "sample"},
    "dpm-solver": {"name": "dpm-solver", "steps": 200},
    "ode": {"name": "ode", "steps": 100},
}
# conditioner, the sampler it was published with first
METHODS = {
    "jalal": ({"name": "jalal"}, ("langevin", "langevin, snr .5", "pc", "ancestral")),
    "jalal, implicit": ({"name": "jalal", "form": "implicit"}, ("langevin",)),
    "dps, norm": ({"name": "dps"}, ("ancestral", "pc", "dpm-solver")),
    "dps, predictive": ({"name": "dps", "form": "predictive"}, ("ancestral", "pc", "ode")),
    "song": ({"name": "song"}, ("pc", "ancestral", "dpm-solver")),
    "mcg": ({"name": "mcg", "scale": 0.1}, ("ancestral", "pc", "ode")),
    "ddrm": ({"name": "ddrm"}, ("ancestral, fresh noise, 20 steps", "ancestral, fresh noise", "pc")),
    "snips": ({"name": "snips"}, ("langevin", "langevin, snr .5", "pc", "ancestral")),
}


def build(kind, spec):
    params = dict(spec)
    return registry.get(kind, params.pop("name"), **params)


def run_row(task, conditioner, sampler, n_images, n_samples):
    model_name, source_name, source_params, operator_name, operator_params = TASKS[task]
    prior = registry.get_model(model_name, sde="ve")
    operator = registry.get_operator(operator_name, image_shape=prior.shape, **operator_params)
    source = open_source(source_name, split="held-out", **source_params)
    truths = torch.as_tensor(source.batch(range(n_images))).float()
    measurements = measure(operator, truths, seed=0)
    method, integrator = build("conditioner", METHODS[conditioner][0]), build("sampler", SAMPLERS[sampler])

    cost, started, samples = Cost(), time.perf_counter(), []
    for i, measurement in enumerate(measurements):
        counted = type(measurement)(counted_operator(operator, cost), measurement.data, measurement.noise_std)
        posterior = method.condition(counted_model(prior, cost), counted)
        try:
            samples.append(integrator.sample(posterior, n_samples, seed=i))
        except (DivergenceError, ArithmeticError) as error:
            return {"failed": f"{type(error).__name__}: {error}"}
    each = [summary([s[k] for s in samples], truths, measurements) for k in range(n_samples)]
    error = np.mean([float((s.mean(0) - t).square().mean().sqrt()) for s, t in zip(samples, truths, strict=True)])
    drawn = n_images * n_samples
    return {
        "mean": summary([s.mean(0) for s in samples], truths, measurements),
        "sample": {key: float(np.mean([e[key] for e in each])) for key in ("psnr", "ssim", "residual")},
        "spread_over_error": float(np.mean([float(s.var(0).mean().sqrt()) for s in samples]) / error),
        "linear": float(
            np.mean([psnr(linear_baseline(operator, m), t) for m, t in zip(measurements, truths, strict=True)])
        ),
        "evaluations": cost.evaluations / drawn,
        "vjps": cost.vjps / drawn,
        "operator_calls": (cost.forwards + cost.adjoints) / drawn,
        "seconds_per_sample": (time.perf_counter() - started) / drawn,
        "images": n_images,
        "samples": n_samples,
    }


HEADER = """# Every conditioner on images

{images} held-out images per task, measured with 2 % noise (noise_std = 0.02 rms(A x)), {samples} posterior samples of
each; the process is `ve`. Every method has 200 evaluations of the network per sample and the default parameters (mcg:
scale .1, its authors' for CT); DDRM has its published 20 steps besides, and jalal and snips large Langevin moves that
end at the last level. The first sampler of each is the one it was
published with. PSNR in dB and SSIM of the mean of the samples and of one sample; residual of a sample |y - A x| /
(noise_std sqrt(m)), 1 for the truth; spread / error as in [the comparison with classical methods](reconstruction.md);
cost per sample: evaluations of the network, its vjps, applications of A and A^T.

| task | conditioner | sampler | mean: PSNR, SSIM | sample: PSNR, SSIM | residual | spread / error | cost |
|---|---|---|---|---|---|---|---|
"""

REMARKS = """
Reading. With 200 evaluations `dps` in its predictive form, `ddrm` and, with large Langevin steps, `snips` reach the
noise level on CT, at 32 dB. The last two take no derivative of the network and no call of A beyond the decomposition;
ddrm is 2 dB behind with 20 evaluations, but too sure (spread below error), as its theory says, and snips has the
spread that its error asks for. Its step matters: with the default snr, .16, 200 moves leave the noise of the levels
above in the samples. `song` and `mcg` meet exact data exactly, and here the data are noisy: they reproduce the noise
(residual 0, or .56 where the pseudoinverse stops early), lead where it matters little (x4 downsampling, box inpainting)
and are useless where A^+ amplifies it without bound: the blur's condition number is beyond float32, and -104 dB is A^+
of the noise, as for the pseudoinverse itself. `jalal` evaluates the likelihood at the noisy image and is made for
thousands of moves with a small last level. `dps` in its norm form has one scale for all, and is never the best.
"""


def render(results):
    """The page, from the file that runs of this script have written."""
    order = [(task, name, sampler) for task in TASKS for name, (_, samplers) in METHODS.items() for sampler in samplers]
    found = sorted(results["rows"], key=lambda row: order.index((row["task"], row["conditioner"], row["sampler"])))
    rows = [row for row in found if "failed" not in row]
    page = HEADER.format(images=rows[0]["images"], samples=rows[0]["samples"])
    for row in found:
        head = f"| {row['task']} | {row['conditioner']} | {row['sampler']} |"
        if "failed" in row:
            page += f"{head} failed: {row['failed']} | | | | |\n"
            continue
        mean, sample = row["mean"], row["sample"]
        page += (
            f"{head} {mean['psnr']:.1f}, {mean['ssim']:.2f} | {sample['psnr']:.1f}, {sample['ssim']:.2f} "
            f"| {sample['residual']:.2f} | {row['spread_over_error']:.2f} "
            f"| {row['evaluations']:.0f}, {row['vjps']:.0f}, {row['operator_calls']:.0f} |\n"
        )
    linear = {row["task"]: row["linear"] for row in rows}
    page += "\nFiltered back-projection (CT) or pseudoinverse on the same images: "
    page += ", ".join(f"{task} {value:.1f} dB" for task, value in linear.items()) + ".\n"
    missing = len(order) - len(found)
    if missing:
        page += f"\n{missing} of {len(order)} rows have not been run yet.\n"
    return page + REMARKS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--task", action="append", choices=list(TASKS), help="default: all")
    parser.add_argument("--published", action="store_true", help="with the published sampler of each alone")
    parser.add_argument("--render", type=Path, help="write the page of these results instead")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.render:
        options.out.write_text(render(json.loads(options.render.read_text())))
        return
    torch.set_num_threads(1)
    results = json.loads(options.out.read_text()) if options.out.exists() else {"rows": []}
    for task in options.task or TASKS:
        for conditioner, (_, samplers) in METHODS.items():
            for sampler in samplers[: 1 if options.published else None]:
                key = {"task": task, "conditioner": conditioner, "sampler": sampler}
                if any(key.items() <= row.items() for row in results["rows"]):
                    continue
                row = {**key, **run_row(task, conditioner, sampler, options.images, options.samples)}
                results["rows"].append(row)
                options.out.write_text(json.dumps(results, indent=1) + "\n")
                shown = row.get("failed") or f"{row['mean']['psnr']:.2f} dB, {row['seconds_per_sample']:.1f} s a sample"
                print(f"{task}, {conditioner}, {sampler}: {shown}", flush=True)


if __name__ == "__main__":
    main()
