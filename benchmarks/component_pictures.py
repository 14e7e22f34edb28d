"""A picture for every component's page of the documentation.

python benchmarks/component_pictures.py --out docs/images/components                 # all, in about five minutes
python benchmarks/component_pictures.py --out docs/images/components conditioner:dps

Conditioners and samplers are shown on a Gaussian mixture with two pixels, whose posterior is known: what a method gives
stands beside exact samples, biased or not. Nothing is tuned.
"""

from __future__ import annotations

import argparse
import io
import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch

from scoreplug import Measurement, registry
from scoreplug.data import open_source
from scoreplug.protocols import HasExactSamples, HasPinv
from scoreplug.sampler import DivergenceError

GREY = "#777777"  # read on white and on black
STYLE = {
    "font.size": 9,
    "axes.titlesize": 8.5,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
    "figure.dpi": 110,
    "svg.hashsalt": "scoreplug",
}
UNIFORM = ("em", "reverse-diffusion", "ancestral", "pc", "langevin", "ula", "mala", "hmc", "time-travel")
"""Samplers whose own grid is uniform in t."""
SHAPE = (1, 1, 2)
MEANS = ((0.0, 1.8), (1.6, 0.9), (1.6, -0.9), (0.0, -1.8), (-1.6, -0.9), (-1.6, 0.9))
WEIGHTS = (0.1, 0.2, 0.15, 0.2, 0.15, 0.2)
VARIANCE = 0.05
MATRIX, Y, NOISE_STD = ((1.0, 0.6),), 0.9, 0.6
N = 1500
SHOWN = 500


# The problem, in closed form.


def prior():
    return registry.get_model("gaussian-mixture", image_shape=SHAPE, means=MEANS, weights=WEIGHTS, covariances=VARIANCE)


def measurement():
    operator = registry.get_operator("matrix", image_shape=SHAPE, matrix=MATRIX)
    return Measurement(operator, torch.full(operator.output_shape, Y, dtype=torch.float64), NOISE_STD)


def posterior():
    """p(x | y), again a mixture: every mode is a Kalman update, and weighs what it gives y."""
    means, w = torch.tensor(MEANS, dtype=torch.float64), torch.tensor(WEIGHTS, dtype=torch.float64)
    A, S = torch.tensor(MATRIX, dtype=torch.float64), VARIANCE * torch.eye(2, dtype=torch.float64)
    variance = A @ S @ A.T + NOISE_STD**2
    gain = S @ A.T / variance
    residual = Y - means @ A.T
    weights = w * torch.exp(-(residual[:, 0] ** 2) / (2 * variance[0, 0]))
    return registry.get_model(
        "gaussian-mixture",
        image_shape=SHAPE,
        means=means + residual @ gain.T,
        weights=weights / weights.sum(),
        covariances=S - gain @ A @ S,
    )


def exact(model, n, seed):
    generator = np.random.default_rng(seed)
    weights, normals = model.log_weights.exp().numpy(), model.normals
    which = generator.choice(len(weights), n, p=weights / weights.sum())
    root = np.linalg.cholesky(np.asarray(normals.covariance()[0]))
    return np.asarray(normals.mean)[which] + generator.standard_normal((n, 2)) @ root.T


def distance(a, b):
    """Sliced Wasserstein distance W1 of two sets of the same size, over 90 directions."""
    angles = np.pi * np.arange(90) / 90
    directions = np.stack([np.cos(angles), np.sin(angles)])
    return float(np.abs(np.sort(a @ directions, 0) - np.sort(b @ directions, 0)).mean())


def draws(model, sampler, **params):
    """n samples, (n, 2), or None if they diverged. The grid is that of the page of numbers (docs/posterior.md)."""
    if sampler in UNIFORM:
        params = {"grid": "rho", "rho": 10.0, **params}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return registry.get_sampler(sampler, **params).sample(model, n=N, seed=0).reshape(N, 2).numpy()
        except DivergenceError:
            return None


# The pictures, by kind.


def conditioner(spec):
    names = [*spec.canonical, "ancestral", "pc"]
    samplers = list(dict.fromkeys(names))[:2]
    target = registry.get_conditioner(spec.name).condition(prior(), measurement())
    return clouds({f"{spec.name} + {name}": draws(target, name, steps=100) for name in samplers})


def sampler(spec):
    target = posterior()
    for need, method in (("twist", "mmps"), ("refine", "diffpir")):
        if need in spec.needs:
            target = registry.get_conditioner(method).condition(prior(), measurement())
    return clouds({f"{spec.name}, {steps} steps": draws(target, spec.name, steps=steps) for steps in (20, 100)})


def clouds(ours):
    """Exact samples, and others beside them."""
    reference, other = exact(posterior(), N, 0), exact(posterior(), N, 1)
    panels = {f"exact (W {distance(reference, other):.2f} from another set)": reference}
    for name, x in ours.items():
        panels[f"{name}: {'diverged' if x is None else f'W {distance(reference, x):.2f}'}"] = x
    figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.5), sharex=True, sharey=True, layout="constrained")
    for axis, (title, x) in zip(axes, panels.items(), strict=True):
        axis.scatter(*exact(prior(), 300, 2).T, s=2, color=GREY, alpha=0.35, linewidths=0)
        if x is not None:
            inside = (np.abs(x) < 3.2).all(1)
            some = np.random.default_rng(3).permutation(len(x))[:SHOWN]  # particles come sorted
            shown = x[some][inside[some]]
            color = "tab:blue" if x is reference else "tab:orange"
            axis.scatter(*shown.T, s=4, color=color, alpha=0.6, linewidths=0)
            if not inside.all():
                title += f"\n{(~inside).sum()} of {N} outside the frame"
        line = np.array([-3.2, 3.2])
        axis.plot(line, (Y - MATRIX[0][0] * line) / MATRIX[0][1], color=GREY, linewidth=0.8, linestyle=":")
        axis.set(title=title, xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), xticks=[], yticks=[], aspect="equal")
    return figure


def sde(spec):
    process = registry.get_sde(spec.name)
    t = torch.linspace(process.t_min, 1.0, 300, dtype=torch.float64)
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.6, 2.3), layout="constrained")
    alpha, sigma = process.alpha(t).expand_as(t), process.sigma(t)
    left.plot(t, alpha, label="alpha")
    left.plot(t, sigma, label="sigma")
    if float(sigma.max()) > 5:
        left.set_yscale("log")
    left.set(xlabel="t")
    left.legend()
    right.semilogy(t, sigma / alpha, color="tab:green")
    right.set(xlabel="t", title="noise level sigma / alpha")
    return figure


def operator(spec):
    colour, complex_data = spec.name in ("colorization", "hdr"), spec.name == "multi-coil-fourier"
    if colour:
        from skimage import data, transform

        image = transform.resize(data.astronaut()[:400, 60:460], (64, 64), anti_aliasing=True)  # NASA, public domain
        x = torch.from_numpy(image).movedim(-1, 0).double()
    else:
        x = torch.from_numpy(open_source("ellipses", split="held-out").batch([3])[0]).double()
    parameters = {"identity": {}, "matrix": {"matrix": rows(x.numel())}}.get(spec.name, {})
    A = registry.get_operator(spec.name, image_shape=tuple(x.shape), **parameters)
    y = A(x[None])
    panels = {"x": x} if spec.name == "inpainting" else {"x": x, "A x": y[0]}  # a list of pixels is no picture
    if isinstance(A, HasPinv) and y.numel() > 64 and not complex_data:
        panels["A$^+$ A x"] = A.pinv(y)[0]
    figure, axes = plt.subplots(1, len(panels), figsize=(2.2 * len(panels), 2.3), layout="constrained")
    for axis, (title, values) in zip(np.ravel(axes), panels.items(), strict=True):
        show(axis, values.numpy(), fourier="fourier" in spec.name and title == "A x", name=spec.name)
        axis.set_title(title)
    return figure


def rows(n, count=60):
    """A matrix of random masks, each over a tenth of the image."""
    return torch.from_numpy((np.random.default_rng(0).random((count, n)) < 0.1) / (0.1 * n))


def show(axis, values, *, fourier=False, name=""):
    """An image, coefficients as the logarithm of their magnitude, or a row of numbers as a curve."""
    axis.set(xticks=[], yticks=[])
    if values.ndim == 3 and values.shape[0] == 3:
        axis.imshow(np.clip(np.moveaxis(values, 0, -1), 0, 1))
    elif fourier and values.ndim >= 3 and values.shape[0] == 2:
        grid = np.hypot(*values.reshape(2, -1, *values.shape[-1:]) if values.ndim != 3 else values)
        axis.imshow(np.log1p(50 * np.abs(grid)), cmap="gray", aspect="auto")
    elif values.ndim >= 2 and min(values.shape[-2:]) > 1:
        grid = values.reshape(-1, *values.shape[-2:])[0]
        axis.imshow(
            np.log1p(50 * np.abs(grid)) if name == "phase-retrieval" and grid.shape != (64, 64) else grid, cmap="gray"
        )
    else:
        axis.plot(values.ravel(), linewidth=0.6)


def model(spec):
    if spec.shape is not None:
        network = registry.get_model(spec.name)
        x = registry.get_sampler("ancestral", steps=60, grid="rho", rho=10.0).sample(network, n=6, seed=0).numpy()
        figure, axes = plt.subplots(1, 6, figsize=(7.2, 1.4), layout="constrained")
        for axis, sample in zip(axes, x, strict=True):
            axis.imshow(sample[0], cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        return figure
    if spec.name == "gaussian-mixture":
        x = draws(prior(), "ancestral", steps=100)
    elif spec.name == "gaussian":
        covariance = ((1.0, 0.7), (0.7, 1.0))
        x = draws(registry.get_model("gaussian", image_shape=SHAPE, covariance=covariance), "ancestral", steps=100)
    else:
        return None  # a network without weights has no samples to show
    figure, axis = plt.subplots(figsize=(2.6, 2.6), layout="constrained")
    axis.scatter(*x[:SHOWN].T, s=4, alpha=0.6, linewidths=0)
    axis.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), xticks=[], yticks=[], aspect="equal", title="two pixels")
    return figure


def problem(spec):
    given = registry.get_problem(spec.name)
    figure, axes = plt.subplots(1, 2, figsize=(6.6, 2.4), layout="constrained")
    if not isinstance(given, HasExactSamples):
        show(axes[0], given.truth.numpy())
        show(axes[1], given.measurement.data.numpy())
        axes[0].set_title("truth")
        axes[1].set_title("y")
        return figure
    if spec.name == "levy":  # its prior's score is a chain of its own, minutes per hundred steps
        return levy(figure, axes, given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = registry.get_sampler("ancestral", steps=100, grid="rho").sample(given.prior, n=300, seed=0)
    after, truth = given.exact_samples(300, seed=0).flatten(1).numpy(), given.truth.numpy().ravel()
    before = before.flatten(1).numpy()
    for axis, x, title in zip(axes, (before, after), ("p(x)", "p(x | y), exact"), strict=True):
        if x.shape[1] == 1:
            axis.hist(x[:, 0], bins=50, density=True, alpha=0.8, range=(before.min(), before.max()))
            axis.axvline(truth[0], color="black", linewidth=3)
            axis.axvline(truth[0], color="tab:orange", linewidth=2)
        elif spec.name == "gaussian-mixture":
            axis.scatter(x[:, 0], x[:, 1], s=4, alpha=0.6, linewidths=0)
            axis.scatter(truth[:1], truth[1:2], marker="x", color="tab:orange")
            axis.set(xlim=(-22, 22), ylim=(-22, 22), aspect="equal")
            title += ", pixels 1 and 2"
        else:
            axis.plot(x[:30].T, color="tab:blue", alpha=0.25, linewidth=0.6)
            axis.plot(truth, color="tab:orange", linewidth=1.4)
        axis.set_title(title)
    return figure


def levy(figure, axes, given):
    """A signal with independent increments: the data, and the exact samples."""
    y, x = given.measurement.data.numpy().ravel(), given.exact_samples(30, seed=0).flatten(1).numpy()
    axes[0].plot(y, ".", markersize=3)
    axes[1].plot(x.T, color="tab:blue", alpha=0.25, linewidth=0.6)
    for axis, title in zip(axes, ("y", "p(x | y), exact"), strict=True):
        axis.plot(given.truth.numpy().ravel(), color="tab:orange", linewidth=1.4)
        axis.set_title(title)
    return figure


def draw(kind, name, folder):
    """Write one picture; components without one write nothing."""
    with mpl.rc_context(STYLE):
        figure = globals()[kind](registry.spec(kind, name))
        if figure is None:
            return None
        path = folder / f"{kind}-{name}.png"
        path.write_bytes(small(figure))
        plt.close(figure)
    return path


def small(figure):
    """A PNG with a transparent background and 128 colours."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
    image, out = Image.open(buffer), io.BytesIO()
    image.quantize(128, method=Image.Quantize.FASTOCTREE).save(out, "PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("components", nargs="*", metavar="KIND:NAME", help="all, if none is given")
    options = parser.parse_args()
    mpl.use("Agg")
    options.out.mkdir(parents=True, exist_ok=True)
    registry.use(registry.Registry(registry.Selection(autoload=False)))
    every = [f"{spec.kind}:{spec.name}" for spec in registry.list()]
    for kind, name in (component.split(":") for component in options.components or every):
        print(kind, name, draw(kind, name, options.out) or "has no picture", flush=True)


if __name__ == "__main__":
    main()
