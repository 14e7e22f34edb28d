r"""Metropolis acceptance without a log density: the table of docs/metropolis.md.

    python benchmarks/line_integral.py --out docs/metropolis.json
    python benchmarks/line_integral.py --render docs/metropolis.json --out docs/metropolis.md

Chains start from exact samples of p_t of a Gaussian mixture and make 40 moves. What a right acceptance leaves alone, a
wrong one changes: the figure is the largest change of a first or second moment or of the share of samples near a mode,
in standard errors of the difference of two means of that many samples. Up to about 3 is chance.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from scoreplug import registry
from scoreplug.testing import BatchNoise
from scoreplug_builtin.samplers._hamiltonian import evaluate

CHAINS = 20_000
MOVES = 40
NODES = (0, 1, 3, 5)
METHODS = {"mala": ({}, (0.5, 1.0, 2.0)), "hmc": ({"leapfrogs": 3, "persistence": 0.0}, (0.5, 1.0, 1.4))}


def problem(dimension):
    """Four modes of width .5 at the level .4, two to three widths apart."""
    g = torch.Generator().manual_seed(dimension)
    means = torch.randn(4, dimension, generator=g, dtype=torch.float64)
    means = 1.3 * means / means.norm(dim=1, keepdim=True)
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    model = registry.get_model(
        "gaussian-mixture",
        image_shape=(1, 1, dimension),
        means=means,
        weights=tuple(weights.tolist()),
        covariances=0.09,
        sde="ve",
    )
    t = model.sde.time_of(torch.tensor(0.4, dtype=torch.float64))
    k = torch.multinomial(weights, CHAINS, replacement=True, generator=g)
    x = means[k] + 0.5 * torch.randn(CHAINS, dimension, generator=g, dtype=torch.float64)
    return model, t, x.reshape(CHAINS, 1, 1, dimension), means


def features(x, means):
    x = x.flatten(1)
    near = torch.cdist(x, means).argmin(1)
    second = (x[:, :, None] * x[:, None]).flatten(1)
    return torch.cat([x, second, torch.nn.functional.one_hot(near, len(means)).to(x)], dim=1)


def change(before, after, means):
    a, b = features(before, means), features(after, means)
    error = ((a.var(0) + b.var(0)) / len(a)).sqrt().clamp_min(1e-12)
    return float(((b.mean(0) - a.mean(0)).abs() / error).max())


def run(dimension, name, step_size, potential, nodes):
    model, t, x, means = problem(dimension)
    params, _ = METHODS[name]
    sampler = registry.get_sampler(name, step_size=step_size, moves=MOVES, potential=potential, nodes=nodes, **params)
    noise = BatchNoise(0, range(CHAINS), dtype=torch.float64, device=torch.device("cpu"))
    h = sampler.length(model.sde.sigma(t))
    start, v = evaluate(model, x, t, exact=potential == "log-density"), noise.at("probe").normal((1, 1, dimension))
    new, _, work = sampler.leapfrog(model, start, v, t, h, exact=potential == "log-density")
    truth = model.log_density(new.x, t) - model.log_density(x, t)
    error = (work - truth).abs()
    after, accepted, *_ = sampler.block(model, x, t, h, noise)
    return {
        "dimension": dimension,
        "sampler": name,
        "step_size": step_size,
        "acceptance by": "log density" if potential == "log-density" else f"line integral, {nodes or 'trapezoids'}",
        "median error": float(error.median()),
        "99 % error": float(error.quantile(0.99)),
        "accepted": float(accepted.mean()),
        "change": change(x, after, means),
        "evaluations": sampler.trajectory_steps + (nodes if potential == "line-integral" else 0),
    }


def unadjusted(dimension, name, step_size):
    """The same moves, all accepted."""
    model, t, x, means = problem(dimension)
    params, _ = METHODS[name]
    sampler = registry.get_sampler(name, step_size=step_size, **params)
    noise = BatchNoise(0, range(CHAINS), dtype=torch.float64, device=torch.device("cpu"))
    point, h = evaluate(model, x, t, exact=False), sampler.length(model.sde.sigma(t))
    for k in range(MOVES):
        v = noise.at(k).normal((1, 1, dimension))
        point, _, _ = sampler.leapfrog(model, point, v, t, h, exact=False)
    return {
        "dimension": dimension,
        "sampler": name,
        "step_size": step_size,
        "acceptance by": "nothing: all accepted",
        "accepted": 1.0,
        "change": change(x, point.x, means),
        "evaluations": sampler.trajectory_steps,
    }


def measure():
    rows = []
    for dimension in (2, 8):
        for name, (_, sizes) in METHODS.items():
            for size in sizes:
                rows.append(run(dimension, name, size, "log-density", 0))
                rows += [run(dimension, name, size, "line-integral", nodes) for nodes in NODES]
                rows.append(unadjusted(dimension, name, size))
                print(dimension, name, size, *(f"{row['change']:.1f}" for row in rows[-6:]), flush=True)
    return rows


HEADER = """# Metropolis acceptance without a log density

`mala` and `hmc` accept a move by the ratio p_t(x') / p_t(x). A network gives the score alone, and it has been said that
a score is not enough. But the score is the gradient of log p_t, so that the ratio is its integral along any way from x
to x'. How close does that come?

Exact samples of a mixture of four Gaussians at noise level .4 make {moves} moves in {chains} chains, with the exact
ratio, with the line integral by several rules, and without acceptance. *Error* is that of log p_t(x') - log p_t(x) for
a first proposal; *change* is the largest change of a first or second moment or of a mode's share, in standard errors:
up to about 3 is chance. *Evaluations* are those of one move.

| d | sampler | step size | acceptance by | median error | 99 % error | accepted | change | evaluations |
|---|---|---|---|---|---|---|---|---|
"""

REMARKS = """
Reading. Trapezoids over the points that the leapfrog visits cost nothing, and correct only what the step does to a
Gaussian: along a leapfrog their sum less the change of the kinetic energy is h^2/8 (|s(x)|^2 - |s(x')|^2), whatever
lies between. One point in the middle is not enough for long trajectories, where it is worse than no acceptance. With 3
points MALA's chains are as those with the exact ratio, and HMC's up to step size 1; with 5 points all are (the largest
change, 3.4, is at the longest trajectory), at 5 more evaluations per move. The score of a trained network is the
gradient of nothing exactly; there the integral depends on the way, and the acceptance is approximate, which the
samplers say. A network can be read as an energy instead (`energy`), with an exact ratio for the density that this
defines.
"""


def render(rows):
    page = HEADER.format(moves=MOVES, chains=f"{CHAINS:,}")
    for row in rows:
        errors = "| | |"
        if "median error" in row:
            errors = f"| {row['median error']:.1e} | {row['99 % error']:.1e} |"
        head = f"| {row['dimension']} | {row['sampler']} | {row['step_size']:g} | {row['acceptance by']} "
        page += f"{head}{errors} {row['accepted']:.2f} | {row['change']:.1f} | {row['evaluations']} |\n"
    return page + REMARKS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", type=Path, help="write the page of these results instead")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.render:
        options.out.write_text(render(json.loads(options.render.read_text())))
        return
    torch.set_num_threads(1)
    options.out.write_text(json.dumps(measure(), indent=1) + "\n")


if __name__ == "__main__":
    main()
