r"""Predictor-corrector against predictor only at equal network evaluations: the tables of docs/predictor-corrector.md.

    python benchmarks/predictor_corrector.py --part images --part ct --cells CELLS
    python benchmarks/predictor_corrector.py --part gaussian --part mixtures --part posteriors --cells CELLS
    python benchmarks/predictor_corrector.py --collect CELLS --out RESULTS.json
    python benchmarks/predictor_corrector.py --figure RESULTS.json --out docs/images/predictor-corrector.png
    python benchmarks/predictor_corrector.py --render RESULTS.json --out docs/predictor-corrector.md

A budget of B evaluations buys B predictor steps, or B/2 steps of predictor and one Langevin move each; both end with
one more evaluation, of E[x_0 | x_t]. Every cell is a file in the folder CELLS: a run that was stopped goes on where it
was, and several parts may run at once. One thread.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from pathlib import Path

import attrs
import numpy as np
import scipy.stats
import skimage.metrics
import torch

from scoreplug import registry, simulate
from scoreplug.data import open_source
from scoreplug.model import BaseModel
from scoreplug.run.cost import Cost, counted_model
from scoreplug.sampler import DivergenceError
from scoreplug.testing.affine import affine_moments

BUDGETS = (50, 200, 1000, 2000)
TABLE_BUDGETS = (50, 200, 2000)  # where a cell takes minutes, and in the page's tables
SNRS = (None, 0.05, 0.16, 0.3)  # None: the predictor alone
PREDICTORS = ("em", "ancestral")
REPLICATES, PARTICLES = 4, 2000
REFERENCE, FLOORS, DIRECTIONS = 100_000, 32, 128


def make_sampler(predictor, snr, budget, grid="uniform"):
    """The sampler that asks the network `budget` times, and once more at the end."""
    if snr is None:
        return registry.get_sampler(predictor, steps=budget, grid=grid)
    corrector = {"name": "langevin", "snr": snr}
    return registry.get_sampler("pc", steps=budget // 2, grid=grid, predictor=predictor, corrector=corrector)


def save(path, text):
    """Write a file that exists whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


# Distances. Each has the exact samples' own value beside it, its floor.


def directions(d):
    """Unit vectors, (d, DIRECTIONS), the same in every run."""
    z = np.random.default_rng(0).standard_normal((d, DIRECTIONS))
    return z / np.linalg.norm(z, axis=0)


def quantiles(values, n):
    """Of numbers (N,), at the n levels (i + 1/2) / n, (n,)."""
    N = len(values)
    return np.interp((np.arange(n) + 0.5) / n, (np.arange(N) + 0.5) / N, np.sort(values))


def projected_quantiles(x, n):
    """Of every projection of x (N, d), (n, DIRECTIONS)."""
    return np.stack([quantiles(x @ direction, n) for direction in directions(x.shape[1]).T], axis=1)


def sliced_w2(x, reference_quantiles):
    """Sliced Wasserstein-2 distance, of samples x (n, d) from a distribution given by its quantiles."""
    projections = np.sort(x @ directions(x.shape[1]), axis=0)
    return float(np.sqrt(np.mean((projections - reference_quantiles) ** 2)))


# (1) A Gaussian: mean and covariance of the output are known without Monte Carlo error.


GAUSSIAN = {"mean": (1.0, 1.0, 1.0), "variances": (1.0, 0.1, 0.01)}


def gaussian_cell(sde, predictor, snr, budget):
    """Wasserstein-2 distance of the output's law from N(mean, diag(variances)), by an affine recursion."""
    mean, variances = (torch.tensor(GAUSSIAN[key], dtype=torch.float64) for key in ("mean", "variances"))
    prior = registry.get_model("gaussian", image_shape=(3,), mean=mean, covariance=variances.diag(), sde=sde)
    m, V = affine_moments(make_sampler(predictor, snr, budget), prior)
    squared = (m - mean).square() + (V.diagonal().sqrt() - variances.sqrt()).square()  # V is diagonal, as the prior's
    ratio = V.diagonal() / variances - 1
    return {"w2": float(squared.sum().sqrt()), "variance": ratio.tolist(), "mean": (m - mean).tolist()}


def run_gaussian(cells):
    for sde in ("vp", "ve"):
        for predictor in PREDICTORS:
            for snr in SNRS:
                for budget in BUDGETS:
                    run_cell(cells / "gaussian", gaussian_cell, sde, predictor, snr, budget)


def run_cell(folder, measure, *arguments):
    """One cell, unless its file is there."""
    path = folder / ("_".join(map(str, arguments)) + ".json")
    if path.exists():
        return
    started = time.perf_counter()
    cell = {"arguments": list(arguments), **measure(*arguments)}
    cell["seconds"] = round(time.perf_counter() - started, 2)
    save(path, json.dumps(cell))
    print(path.relative_to(folder.parent), f"{cell['seconds']:.1f} s", flush=True)


# (2) Gaussian mixtures: the exact score, the exact law.


def mixture_parameters(name):
    """Means (K, d), variances (K,) and weights w_k proportional to 1..K in random order."""
    rng = np.random.default_rng(1)
    if name == "d=2, 25 modes":
        line = 2.0 * np.arange(-2, 3)
        means = np.stack(np.meshgrid(line, line), -1).reshape(25, 2)
        variances = np.full(25, 0.09)
    else:
        d, radius = {"d=8, 8 modes": (8, 3.0), "d=80, 8 modes": (80, 4.0)}[name]
        means = rng.standard_normal((8, d))
        means *= radius / np.linalg.norm(means, axis=1, keepdims=True)
        variances = rng.uniform(0.05, 0.3, 8)
    weights = rng.permutation(np.arange(1.0, len(means) + 1))
    return {"means": means, "variances": variances, "weights": weights / weights.sum()}


MIXTURES = ("d=2, 25 modes", "d=8, 8 modes", "d=80, 8 modes")


@attrs.frozen(kw_only=True, eq=False)
class Particles(BaseModel):
    """`count` independent copies of a model as one: a sample is a whole population, and draws from one stream.

    Each of the population's members is computed as alone, since nothing in these samplers looks at more than one entry.
    """

    base: BaseModel
    count: int
    block: int = 500  # what fits into the cache

    @property
    def sde(self):
        return self.base.sde

    @property
    def shape(self):
        return (self.count, *self.base.shape)

    @property
    def dtype(self):
        return self.base.dtype

    @property
    def device(self):
        return self.base.device

    def score(self, x, t):
        return self.by_blocks(self.base.score, x, t)

    def denoise(self, x, t):
        return self.by_blocks(self.base.denoise, x, t)

    def by_blocks(self, function, x, t):
        blocks = x.flatten(0, 1).split(self.block)
        return torch.cat([function(block, t) for block in blocks]).reshape(x.shape)


@attrs.frozen(kw_only=True, eq=False)
class Target:
    """A Gaussian mixture with full covariances, exact samples of it, and the distances from it."""

    means: np.ndarray
    covariances: np.ndarray
    weights: np.ndarray

    def draw(self, n, seed):
        """n exact samples, (n, d)."""
        rng = np.random.default_rng(seed)
        k = rng.choice(len(self.weights), n, p=self.weights)
        z = rng.standard_normal((n, self.means.shape[1]))
        return self.means[k] + np.einsum("nij,nj->ni", np.linalg.cholesky(self.covariances)[k], z)

    @functools.cached_property
    def reference(self):
        """What the distances compare with, from many exact samples."""
        x = self.draw(REFERENCE, seed=1)
        shares, width = self.modes(x)
        centred = self.means - self.weights @ self.means
        trace = self.weights @ ((centred**2).sum(1) + np.trace(self.covariances, axis1=1, axis2=2))
        return {"quantiles": projected_quantiles(x, PARTICLES), "shares": shares, "width": width, "trace": trace}

    def modes(self, x):
        """Share of the samples whose nearest mean is m_k, (K,), and their mean squared distance from it."""
        squared = (x**2).sum(1)[:, None] - 2 * x @ self.means.T + (self.means**2).sum(1)
        shares = np.bincount(squared.argmin(1), minlength=len(self.means)) / len(x)
        return shares, float(squared.min(1).mean())

    def distances(self, x):
        """How far samples x (n, d) are from the target; signed where a sign means something."""
        reference, (shares, width) = self.reference, self.modes(x)
        return {
            "sw2": sliced_w2(x, reference["quantiles"]),
            "mode_tv": float(np.abs(shares - reference["shares"]).sum() / 2),
            "width": width / reference["width"] - 1,
            "mean": float(np.linalg.norm(x.mean(0) - self.weights @ self.means) / np.sqrt(reference["trace"])),
            "variance": float(x.var(0, ddof=1).sum() / reference["trace"] - 1),
        }

    def floor(self):
        """The distances of as many exact samples."""
        return gathered(self.distances(self.draw(PARTICLES, seed=(2, i))) for i in range(FLOORS))


def standard_error(values):
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def gathered(rows):
    """{name: [value of each row]}."""
    rows = list(rows)
    return {name: [float(f"{row[name]:.5g}") for row in rows] for name in rows[0]}


@functools.cache
def mixture_target(name):
    p = mixture_parameters(name)
    covariances = p["variances"][:, None, None] * np.eye(p["means"].shape[1])
    return Target(means=p["means"], covariances=covariances, weights=p["weights"])


def mixture_prior(name, sde):
    p = mixture_parameters(name)
    means, variances, weights = (torch.from_numpy(p[key]) for key in ("means", "variances", "weights"))
    shape = (1, 1, means.shape[1])  # operators act on images
    return registry.get_model(
        "gaussian-mixture", image_shape=shape, means=means, covariances=variances, weights=weights, sde=sde
    )


def sampled(model, target, sampler):
    """Distances of REPLICATES populations, and what a population cost."""
    cost = Cost()
    population = counted_model(Particles(base=model, count=PARTICLES), cost)
    try:
        x = sampler.sample(population, REPLICATES, seed=0).flatten(2).numpy()
    except DivergenceError:
        return {"diverged": True}
    return {"distances": gathered(target.distances(each) for each in x), "evaluations": cost.evaluation_calls}


def mixture_cell(name, sde, predictor, snr, budget):
    return sampled(mixture_prior(name, sde), mixture_target(name), make_sampler(predictor, snr, budget))


def mixture_floor(name, what):
    del what
    return {"distances": mixture_target(name).floor()}


def run_mixtures(cells):
    for name in MIXTURES:
        run_cell(cells / "mixtures", mixture_floor, name, "floor")
        for arguments in mixture_plan(name):
            run_cell(cells / "mixtures", mixture_cell, name, *arguments)


def mixture_plan(name):
    """(sde, predictor, snr, budget) of every cell; fewer where a cell takes minutes."""
    large = name == "d=80, 8 modes"
    for budget in TABLE_BUDGETS if large else BUDGETS:
        for predictor in PREDICTORS if large else (*PREDICTORS, "reverse-diffusion"):
            few = predictor == "reverse-diffusion" or (large and budget == 2000)
            for sde in ("vp", "ve"):
                for snr in (None, 0.16) if few else SNRS:
                    yield sde, predictor, snr, budget


# (3) The posterior of a mixture, by its exact score and by two that are approximate.


POSTERIOR = {"mixture": "d=8, 8 modes", "measured": 2, "noise_std": 0.5}
FORMS = ("exact", "dps likelihood", "dps predictive")
MEASUREMENTS = ("y1", "y2", "y3")  # of three images, with the same operator
POSTERIORS = [f"{form}, {y}" for form in FORMS for y in MEASUREMENTS if form != "exact" or y == "y1"]


def posterior_problem(y, sde):
    """Prior, measurement, and the posterior's mixture in closed form."""
    prior = mixture_prior(POSTERIOR["mixture"], sde)
    p, sigma_y, seed = mixture_parameters(POSTERIOR["mixture"]), POSTERIOR["noise_std"], MEASUREMENTS.index(y)
    d = p["means"].shape[1]
    A = np.random.default_rng(3).standard_normal((POSTERIOR["measured"], d)) / np.sqrt(d)
    operator = registry.get_operator("matrix", image_shape=(1, 1, d), matrix=torch.from_numpy(A))
    truth = torch.from_numpy(mixture_target(POSTERIOR["mixture"]).draw(1, seed=4 + 10 * seed)).reshape(1, 1, d)
    measurement = simulate(operator, truth, sigma_y, seed=5 + 10 * seed)
    return prior, measurement, posterior_mixture(p, A, measurement.data.numpy(), sigma_y)


def posterior_mixture(p, A, y, sigma_y):
    """sum_k w'_k N(m'_k, S'_k) by Bayes' rule, w'_k proportional to w_k N(y; A m_k, A S_k A^T + sigma_y^2 I)."""
    means, covariances, log_weights = [], [], []
    for m, variance, w in zip(p["means"], p["variances"], p["weights"], strict=True):
        S = variance * np.eye(len(m))
        predictive = A @ S @ A.T + sigma_y**2 * np.eye(len(A))
        K = S @ A.T @ np.linalg.inv(predictive)
        means.append(m + K @ (y - A @ m))
        covariances.append((S - K @ A @ S + (S - K @ A @ S).T) / 2)
        log_weights.append(np.log(w) + scipy.stats.multivariate_normal.logpdf(y, A @ m, predictive))
    weights = np.exp(np.array(log_weights) - max(log_weights))
    return Target(means=np.array(means), covariances=np.array(covariances), weights=weights / weights.sum())


def posterior_model(name, sde):
    form, y = name.split(", ")
    prior, measurement, target = posterior_problem(y, sde)
    if form != "exact":
        return registry.get_conditioner("dps", form=form.split()[1]).condition(prior, measurement), target
    exact = registry.get_model(
        "gaussian-mixture",
        image_shape=prior.shape,
        means=torch.from_numpy(target.means),
        covariances=torch.from_numpy(target.covariances),
        weights=torch.from_numpy(target.weights),
        sde=sde,
    )
    return exact, target


def posterior_cell(name, sde, predictor, snr, budget):
    model, target = posterior_model(name, sde)
    return sampled(model, target, make_sampler(predictor, snr, budget))


def posterior_floor(name, what):
    del what
    return {"distances": posterior_model(name, "vp")[1].floor()}


def run_posteriors(cells):
    for name in POSTERIORS:
        run_cell(cells / "posteriors", posterior_floor, name, "floor")
        for budget in TABLE_BUDGETS:
            for sde in ("vp", "ve") if name.startswith("exact") else ("vp",):
                for snr in (None, 0.16):
                    run_cell(cells / "posteriors", posterior_cell, name, sde, "em", snr, budget)


# (4) Images: the shipped prior, against held-out phantoms of the source it was trained on.


CHUNK = 8
IMAGE_PLAN = [  # (sde, predictor, snr, budget, chunks); a chunk of 2000 evaluations takes minutes
    *(("ve", "em", snr, budget, 3 if budget == 2000 else 4) for budget in TABLE_BUDGETS for snr in (None, 0.16)),
    *(("ve", "em", snr, 200, 1) for snr in (0.05, 0.3)),
]


def run_images(cells):
    for sde, predictor, snr, budget, chunks in IMAGE_PLAN:
        for chunk in range(chunks):
            draw_images(cells / "images" / f"{sde}_{predictor}_{snr}_{budget}", chunk)


def draw_images(folder, chunk):
    """CHUNK samples of the cell that the folder is named after; the chunk's number is the seed."""
    path = folder / f"{chunk:03d}.npy"
    if path.exists():
        return
    sde, predictor, snr, budget = parsed(folder.name)
    started, cost = time.perf_counter(), Cost()
    prior = counted_model(registry.get_model("ellipses-64", sde=sde), cost)
    x = make_sampler(predictor, snr, budget).sample(prior, CHUNK, seed=chunk)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "part.npy", x.numpy())
    (folder / "part.npy").replace(path)
    print(folder.name, chunk, f"{cost.evaluation_calls} calls, {time.perf_counter() - started:.0f} s", flush=True)


def parsed(name):
    sde, predictor, snr, budget = name.split("_")
    return sde, predictor, None if snr == "None" else float(snr), int(budget)


# (5) Computed tomography with the demo's conditioner and grid.


CT = {"angles": 30, "noise": 0.02, "grid": "rho", "predictor": "ancestral", "samples": 4}
CT_IMAGES = {100: 8, 200: 4, 400: 4}


def ct_cell(budget, snr, image):
    """One held-out phantom: its measurement, posterior samples, and how good they are."""
    prior = registry.get_model("ellipses-64", sde="ve")
    operator = registry.get_operator("radon", image_shape=prior.shape, angles=CT["angles"])
    truth = torch.as_tensor(open_source("ellipses", split="held-out").batch([image]))[0].float()
    noise_std = CT["noise"] * float(operator(truth[None]).square().mean().sqrt())
    measurement = simulate(operator, truth, noise_std, seed=image)
    cost = Cost()
    posterior = registry.get_conditioner("dps", form="predictive").condition(counted_model(prior, cost), measurement)
    x = make_sampler(CT["predictor"], snr, budget, CT["grid"]).sample(posterior, CT["samples"], seed=image)

    mean, m = x.mean(0), measurement.data.numel()
    return {
        "psnr_mean": psnr(mean, truth),
        "psnr_sample": float(np.mean([psnr(each, truth) for each in x])),
        "spread": float(x.var(0).mean().sqrt()),
        "error": float((mean - truth).square().mean().sqrt()),
        "residual_sample": float(measurement.residual(x).flatten(1).norm(dim=1).mean() / (noise_std * m**0.5)),
        "evaluations": cost.evaluation_calls,
        "vjps": cost.vjp_calls,
    }


def psnr(x, truth):
    return float(skimage.metrics.peak_signal_noise_ratio(truth.numpy()[0], x.numpy()[0], data_range=1.0))


def run_ct(cells):
    for budget, images in CT_IMAGES.items():
        for image in range(images):
            for snr in (None, 0.16):
                run_cell(cells / "ct", ct_cell, budget, snr, image)


RUNS = {
    "gaussian": run_gaussian,
    "mixtures": run_mixtures,
    "posteriors": run_posteriors,
    "images": run_images,
    "ct": run_ct,
}


# From cells to results.


def collect(cells):
    """Everything measured, as one JSON document."""
    results = {
        part: [json.loads(path.read_text()) for path in sorted((cells / part).glob("*.json"))]
        for part in ("gaussian", "mixtures", "posteriors", "ct")
    }
    results["gaussian_floor"] = {sde: gaussian_floor(sde) for sde in ("vp", "ve")}
    results["images"] = collect_images(cells / "images")
    return results


def gaussian_floor(sde):
    """W2 that is left when x at t_min is exact: what E[x_0 | x_t] of the last evaluation takes from the variance."""
    prior = registry.get_model("gaussian", image_shape=(1,), sde=sde)
    t = torch.tensor(prior.sde.t_min, dtype=torch.float64)
    alpha, sigma = float(prior.sde.alpha(t)), float(prior.sde.sigma(t))
    S = np.array(GAUSSIAN["variances"])
    V = alpha**2 * S**2 / (alpha**2 * S + sigma**2)
    return float(np.linalg.norm(np.sqrt(V) - np.sqrt(S)))


def features(x):
    """What images (n, 1, 64, 64) are compared by."""
    x = x.astype(np.float64)[:, 0]
    blocks = x.reshape(-1, 8, 8, 8, 8)  # image, row of blocks, row, column of blocks, column
    corners = x.reshape(-1, 32, 2, 32, 2)
    haar = (corners[:, :, 0, :, 0] - corners[:, :, 0, :, 1] - corners[:, :, 1, :, 0] + corners[:, :, 1, :, 1]) / 2
    return {
        "pooled": blocks.mean((2, 4)).reshape(-1, 64),
        "patches": blocks.transpose(0, 1, 3, 2, 4).reshape(-1, 64),
        "tv": np.abs(np.diff(x, axis=1)).mean((1, 2)) + np.abs(np.diff(x, axis=2)).mean((1, 2)),
        "grey": x.ravel(),
        "noise": np.median(np.abs(haar), axis=(1, 2))
        / 0.6745,  # the standard deviation, of white noise on a flat image
        "high_pass": np.square(haar).mean((1, 2)),
    }


def image_distances(x):
    """Distances of images (n, 1, 64, 64) from the reference set, and some of their own numbers."""
    found = features(x)
    w2 = {key: sliced_w2(found[key], reference_quantiles(key, len(found[key]))) for key in ("pooled", "patches")}
    w1 = {key: np.abs(np.sort(found[key]) - reference_quantiles(key, len(found[key]))).mean() for key in ("tv", "grey")}
    return {
        **{f"{key}_sw2": value for key, value in w2.items()},
        **{f"{key}_w1": float(value) for key, value in w1.items()},
        **{key: float(found[key].mean()) for key in ("tv", "noise", "high_pass")},
        **{f"{key}_se": standard_error(found[key]) for key in ("tv", "noise", "high_pass")},
    }


REFERENCE_IMAGES, IMAGE_FLOORS = 2000, 50


def held_out(first, n):
    return open_source("ellipses", split="held-out").batch(range(first, first + n))


@functools.cache
def reference_features():
    return features(held_out(10_000, REFERENCE_IMAGES))


@functools.cache
def reference_quantiles(feature, n):
    reference = reference_features()[feature]
    return quantiles(reference, n) if reference.ndim == 1 else projected_quantiles(reference, n)


def collect_images(folder):
    """Distances of each cell's samples, and of other held-out sets of the same sizes."""
    cells, floors = [], []
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        x = np.concatenate([np.load(chunk) for chunk in sorted(path.glob("[0-9]*.npy"))])
        cells.append({"arguments": parsed(path.name), "samples": len(x), "distances": image_distances(x)})
    for n in sorted({cell["samples"] for cell in cells}):
        sets = [image_distances(held_out(20_000 + i * n, n)) for i in range(IMAGE_FLOORS)]
        floors.append({"samples": n, "distances": gathered(sets)})
    return {"cells": cells, "floors": floors}


# The plot.


COLOURS = {"em": "tab:blue", "ancestral": "tab:orange"}
LINES = {None: ("-", "o", "predictor only"), 0.16: ("--", "^", "PC, snr 0.16")}


def figure(results, path):
    """Error against evaluations, four times."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    canvas, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    draw_gaussian(axes[0, 0], results)
    mixture = by_arguments(results["mixtures"])
    draw_distance(axes[0, 1], mixture, "d=80, 8 modes", PREDICTORS)
    axes[0, 1].set_title("Gaussian mixture, 8 modes in 80 dimensions, exact score, vp", fontsize=10)
    draw_distance(axes[1, 0], by_arguments(results["posteriors"]), "exact, y1", ("em",))
    axes[1, 0].set_title("posterior of a mixture in 8 dimensions, exact score, vp", fontsize=10)
    draw_noise(axes[1, 1], results["images"])
    for panel in axes.flat:
        panel.set_xscale("log")
        panel.set_xticks(BUDGETS, [str(budget) for budget in BUDGETS])
        panel.minorticks_off()
        panel.set_xlabel("network evaluations per sample")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    canvas.savefig(path, dpi=130)


def draw_curve(panel, predictor, snr, budgets, values, errors=None):
    line, marker, label = LINES[snr]
    shift = 1 if snr is None else 1.06  # so that error bars do not cover each other
    look = {"color": COLOURS[predictor], "ls": line, "marker": marker, "capsize": 3}
    panel.errorbar([shift * budget for budget in budgets], values, errors, label=f"{predictor}: {label}", **look)


def draw_gaussian(panel, results):
    cells = by_arguments(results["gaussian"])
    for predictor in PREDICTORS:
        for snr in LINES:
            draw_curve(panel, predictor, snr, BUDGETS, [cells["vp", predictor, snr, b]["w2"] for b in BUDGETS])
    panel.axhline(results["gaussian_floor"]["vp"], color="grey", ls=":", label="floor: exact until t_min")
    panel.set_yscale("log")
    panel.set_ylabel("Wasserstein-2 (no Monte Carlo error)")
    panel.set_title("Gaussian, variances 1, 0.1, 0.01, exact score, vp", fontsize=10)


def draw_distance(panel, cells, name, predictors, metric="sw2"):
    for predictor in predictors:
        for snr in LINES:
            budgets = [b for b in BUDGETS if (name, "vp", predictor, snr, b) in cells]
            found = [cells[name, "vp", predictor, snr, b]["distances"][metric] for b in budgets]
            draw_curve(panel, predictor, snr, budgets, [np.mean(v) for v in found], [standard_error(v) for v in found])
    (floor,) = [cell["distances"][metric] for key, cell in cells.items() if key == (name, "floor")]
    panel.axhline(np.mean(floor), color="grey", ls=":", label="floor: exact samples, and their spread")
    panel.axhspan(np.mean(floor) - np.std(floor), np.mean(floor) + np.std(floor), color="grey", alpha=0.15, lw=0)
    panel.set_ylim(bottom=0)
    panel.set_ylabel("sliced Wasserstein-2")


def draw_noise(panel, results):
    cells = by_arguments(results["cells"])
    for snr in LINES:
        budgets = [b for b in BUDGETS if ("ve", "em", snr, b) in cells]
        found = [cells["ve", "em", snr, b]["distances"] for b in budgets]
        draw_curve(panel, "em", snr, budgets, [d["noise"] for d in found], [d["noise_se"] for d in found])
    floor = max(results["floors"], key=lambda f: f["samples"])["distances"]["noise"]
    panel.axhline(np.mean(floor), color="grey", ls=":", label="floor: held-out phantoms")
    panel.set_ylim(bottom=0)
    panel.set_ylabel("residual noise, standard deviation")
    panel.set_title("phantoms of ellipses-64, a trained network, ve", fontsize=10)


# From results to the page.


def by_arguments(cells):
    return {tuple(cell["arguments"]): cell for cell in cells}


def row(*fields):
    return "| " + " | ".join(map(str, fields)) + " |\n"


def head(*fields):
    return row(*fields) + "|" + "---|" * len(fields) + "\n"


def plain(mean, error):
    return f"{mean:.3f} ± {error:.3f}"


def percent(mean, error):
    return f"{100 * mean:+.1f} ± {100 * error:.1f}"


def gaussian_table(results):
    cells = by_arguments(results["gaussian"])
    text = head("SDE", "predictor", "predictor only", *(f"PC, snr {snr}" for snr in SNRS[1:]), "floor")
    for sde in ("vp", "ve"):
        for predictor in PREDICTORS:
            found = [[cells[sde, predictor, snr, budget]["w2"] for budget in BUDGETS] for snr in SNRS]
            numbers = [" / ".join(f"{1000 * w2:.1f}" for w2 in each) for each in found]
            text += row(sde, predictor, *numbers, f"{1000 * results['gaussian_floor'][sde]:.1f}")
    return text


def pair_table(cells, metric, shown):
    """Predictor only and PC with snr 0.16, side by side at every budget, and the floor of exact samples."""
    columns = [f"{method}, {budget}" for budget in TABLE_BUDGETS for method in ("P", "PC")]
    text = head("target", "SDE", "predictor", *columns, "exact samples")
    for group in groups_of(cells):
        found = [cells.get((*group, snr, budget)) for budget in TABLE_BUDGETS for snr in (None, 0.16)]
        entries = ["not run" if cell is None else entry(cell, metric, shown) for cell in found]
        text += row(*group, *entries, shown(*floor_of(cells, group[0], metric)))
    return text


def entry(cell, metric, shown):
    if "diverged" in cell:
        return "diverged"
    values = cell["distances"][metric]
    return shown(np.mean(values), standard_error(values))


def floor_of(cells, target, metric):
    """Mean, and standard deviation of one set."""
    (cell,) = [cell for key, cell in cells.items() if key == (target, "floor")]
    values = cell["distances"][metric]
    return np.mean(values), np.std(values, ddof=1)


def groups_of(cells):
    """(target, SDE, predictor), in the order of the tables."""
    order = (*MIXTURES, *POSTERIORS, "vp", "ve", *PREDICTORS, "reverse-diffusion")
    done = {key[0] for key in cells if key[-1] == "floor"}
    groups = {key[:3] for key in cells if key[-1] != "floor" and key[0] in done}
    return sorted(groups, key=lambda group: [order.index(word) for word in group])


def verdict(predictor, pc, metric):
    """+1 if PC is closer by more than three standard errors of the difference, -1 if farther, else 0."""
    a, b = predictor["distances"][metric], pc["distances"][metric]
    difference = abs(np.mean(a)) - abs(np.mean(b))
    return int(np.sign(difference)) * bool(abs(difference) > 3 * np.hypot(standard_error(a), standard_error(b)))


def verdict_table(cells):
    text = head("distance", "snr", *(f"{budget} evaluations" for budget in BUDGETS))
    for metric, label in (("sw2", "sliced Wasserstein-2"), ("mode_tv", "mode weights"), ("width", "mode width")):
        for snr in SNRS[1:]:
            text += row(label, snr, *(verdicts(cells, metric, snr, budget) for budget in BUDGETS))
    return text


def verdicts(cells, metric, snr, budget):
    pairs = [[cells.get((*group, of, budget)) for of in (None, snr)] for group in groups_of(cells)]
    found = [verdict(*pair, metric) for pair in pairs if None not in pair]
    return " / ".join(str(found.count(v)) for v in (1, 0, -1))


IMAGE_DISTANCES = ("pooled_sw2", "patches_sw2", "tv_w1", "grey_w1")


def image_table(results):
    text = head("SDE", "method", "evaluations", "samples", "pooled", "patches", "TV", "grey values", "noise")
    for arguments, cell in sorted(by_arguments(results["cells"]).items(), key=lambda item: image_order(*item[0])):
        sde, predictor, snr, budget = arguments
        d, method = cell["distances"], f"{predictor} only" if snr is None else f"PC, snr {snr}"
        noise = f"{1000 * d['noise']:.1f} ± {1000 * d['noise_se']:.1f}"
        text += row(sde, method, budget, cell["samples"], *(f"{d[key]:.4f}" for key in IMAGE_DISTANCES), noise)
    for floor in results["floors"]:
        d = floor["distances"]
        numbers = [f"{np.mean(d[key]):.4f} ± {np.std(d[key], ddof=1):.4f}" for key in IMAGE_DISTANCES]
        text += row("", "*held-out images*", "", floor["samples"], *numbers, f"{1000 * np.mean(d['noise']):.1f}")
    return text


def image_order(sde, predictor, snr, budget):
    return sde != "ve", budget, predictor, snr or 0


def ct_table(cells):
    text = head("evaluations", "method", "images", "PSNR of the mean", "PSNR of a sample", "spread / error", "residual")
    for budget in CT_IMAGES:
        found = {snr: {c["arguments"][2]: c for c in cells if c["arguments"][:2] == [budget, snr]} for snr in LINES}
        images = sorted(found[None].keys() & found[0.16].keys())  # those that both have
        if not images:
            continue
        columns = {snr: [found[snr][i] for i in images] for snr in LINES}
        for snr, label in ((None, f"{CT['predictor']} only"), (0.16, "PC, snr 0.16")):
            m = {key: np.mean([c[key] for c in columns[snr]]) for key in columns[snr][0] if key != "arguments"}
            quality = f"{m['psnr_mean']:.2f}", f"{m['psnr_sample']:.2f}", f"{m['spread'] / m['error']:.2f}"
            text += row(budget, label, len(images), *quality, f"{m['residual_sample']:.3f}")
        gains = [gain(columns, key) for key in ("psnr_mean", "psnr_sample")]
        text += row(budget, "*difference, image by image*", len(images), *gains, "", "")
    return text


def gain(columns, key):
    """PC's value less the predictor's, mean over the images and standard error."""
    values = [pc[key] - p[key] for p, pc in zip(columns[None], columns[0.16], strict=True)]
    return f"{np.mean(values):+.2f} ± {standard_error(values):.2f}"


PAGE = """# Predictor-corrector against predictor alone, at equal cost

Half as many levels with one Langevin move at each, or twice as many steps of the predictor: which is nearer to the
target, for the same number of network evaluations? B evaluations are B predictor steps, or B/2 steps of predictor and
corrector (Langevin, one move, step e = 2 (snr sigma_t)^2); both end with one more, of E[x_0 | x_t]. The time grid is
uniform but for CT. The question is that of Song et al. (2021, arXiv:2011.13456, section 4.2), who compare 1000 steps of
predictor and corrector with 2000 of the predictor.

![Distance from the target against network evaluations](images/predictor-corrector.png)

## A Gaussian, exactly

Variances 1, .1 and .01, exact score, no Monte Carlo error: Wasserstein-2 distance times 1000 after 50 / 200 / 1000 /
2000 evaluations. The floor is what an exact sampler that stops at t_min would have.

{gaussian}
## Gaussian mixtures

Exact score; sliced Wasserstein-2 distance of 2000 samples from 100,000 exact ones, mean and standard error of four
sets; P is the predictor alone, PC has snr .16. *Exact samples*: the distance of 2000 exact samples, and its standard
deviation. The sets of a column start from the same noise, so that its rows are not independent.

{mixtures}
In how many of the cases above, and of those with other snr, PC is nearer / neither / the predictor alone is nearer, by
more than three standard errors of the difference (a few in a hundred by chance, as the errors come from four sets):

{verdicts}
## Posteriors of a mixture

Two noisy numbers of an image of the 8-dimensional mixture are measured (y1; y2 is another image's). The posterior is
sampled by its exact score, and by the biased ones of `dps`. Sliced Wasserstein-2 distance from exact posterior samples:

{posteriors}
Total variation distance of the modes' shares:

{posterior_modes}
## ellipses-64, a trained network

Unconditional samples against held-out phantoms: sliced Wasserstein distance of pooled images and of patches,
Wasserstein distance of total variation and of grey values, and the noise that is left in flat regions (1000 times its
standard deviation), all against 2000 held-out phantoms. Below, 50 other sets of held-out phantoms, their mean and
standard deviation: a distance depends on the number of samples, so each row is to be read against the set of its size.

{images}
The same network with `dps` (predictive) on a CT scan of 30 angles with 2 % noise, ancestral predictor, rho grid, 4
samples of each image:

{ct}
## Reading

At 2000 evaluations and with an exact score, 1000 steps of predictor and corrector are no nearer to the target than 2000
of the predictor: on the mixtures and the exact posterior the two cannot be told apart, and are at the floor, except
that snr .3 widens the modes in 2 cases of 8. With fewer evaluations the predictor alone is nearer: at 50 in about half
of the mixtures' cases, in most of them for the width of the modes, and never the other way round; at 200 in a few. Half
the steps are too coarse, and one Langevin move does not make up for it.

The Gaussian has no Monte Carlo error and tells the two apart. Euler-Maruyama alone is nearer or level, but for ve with
50 evaluations and snr .3, where errors of opposite sign cancel: at 2000 it is at the floor, and PC, with half the steps
and a corrector whose finite step makes the variance too large (by 1/(1 - snr^2) in a flat direction), at .8 to 3.3.
Ancestral steps make the variance too small, so that the two errors cancel in part: with snr .3 PC is nearer from 200
evaluations (ve) or 1000 (vp), with snr .16 from 1000 (ve), and level at 2000 (vp). Still, Euler-Maruyama alone is as
near as ancestral steps with any of these correctors, to .1: the predictor matters as much as the corrector.

With the biased score of `dps` a corrector changes the law that is sampled, not only the error of getting there. The
predictor's distance does not fall with the number of steps; PC's does from 200 evaluations on, and at 2000 it is .19
instead of .43 for y1, .24 instead of .32 for y2 (likelihood form), and .31 instead of .40 (predictive form). It is
still far from the floor. Presumably the Langevin moves draw towards the law that the score has at their own level,
which is the nearer to the posterior the lower the level, while a predictor keeps what the higher levels did.

With a trained network the corrector leaves less noise in flat regions from 200 evaluations on (4.4 against 5.2, and at
2000 2.5 against 3.9; phantoms have .2), and more at 50. At 2000 it also flattens: in 16 images the total variation is
off by 3.6 standard deviations of held-out sets of that size, the predictor's by one. At 200 both are off by two to
three. The other distances are within two standard deviations from 200 on, for both. On CT the corrector costs 5 dB at
100 evaluations; at 400 the two are level.

So: spend few evaluations on steps. With hundreds or more a corrector can be worth its cost where the score is at fault
(a guided score, the noise that a network leaves), hardly where the discretisation is.

Limits: small priors with exact scores, one network, 8 to 32 images of a kind, 3 to 8 CT images, 2 measurements of one
mixture, one Langevin move per level. What is marked *not run* was left out for lack of time.
"""


def render(results):
    """The page, from the results of `--collect`."""
    mixtures, posteriors = by_arguments(results["mixtures"]), by_arguments(results["posteriors"])
    return PAGE.format(
        gaussian=gaussian_table(results),
        mixtures=pair_table(mixtures, "sw2", plain),
        verdicts=verdict_table(mixtures),
        posteriors=pair_table(posteriors, "sw2", plain),
        posterior_modes=pair_table(posteriors, "mode_tv", plain),
        images=image_table(results["images"]),
        ct=ct_table(results["ct"]),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(RUNS), default=[])
    parser.add_argument("--cells", type=Path, help="folder of the cells")
    parser.add_argument("--collect", type=Path, help="write the results of this folder's cells")
    parser.add_argument("--figure", type=Path, help="draw these results")
    parser.add_argument("--render", type=Path, help="write the page of these results")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for part in options.part:
        RUNS[part](options.cells)
    if options.collect:
        save(options.out, json.dumps(collect(options.collect), indent=1) + "\n")
    if options.figure:
        figure(json.loads(options.figure.read_text()), options.out)
    if options.render:
        options.out.write_text(render(json.loads(options.render.read_text())))


if __name__ == "__main__":
    main()
