"""How a run scales: time and memory against samples, image size and steps; memory over long runs; sweeps of cells.

Four parts, each of which may be measured alone with --only:

runs      CPU time and resident peak of a run against samples, pixels and steps, with a line fitted to each, and what
          there is beside the sampling
memory    the batch that a budget gives, and the peak that it then had
leaks     resident size over 10,000 steps of 64 samples, for every sampler
sweep     10,000 cells of a benchmark that do next to nothing, in two processes: what each costs beside its own work;
          planning, taking up, merging and the page of 10,000 rows; and cells of a second

python benchmarks/scaling.py --out docs/scaling.json
python benchmarks/scaling.py --render docs/scaling.json --out docs/scaling.md
"""

import argparse
import gc
import importlib
import itertools
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that are started, too

PARTS = ("runs", "memory", "leaks", "sweep")
METHODS = {
    "none / em": {"conditioner": "none", "sampler": "em"},
    "dps / ancestral": {"conditioner": "dps", "sampler": "ancestral"},
    "ddrm / ancestral": {"conditioner": "ddrm", "sampler": "ancestral"},
    "mmps / ancestral": {"conditioner": "mmps", "sampler": "ancestral"},
}
PRIORS = ("openai-unet", "gaussian")
AXES = {
    "samples": {"points": (1, 8, 16, 32, 64), "side": 16, "steps": 10},
    "pixels": {"points": (16, 32, 64, 96, 128), "samples": 4, "steps": 5},
    "steps": {"points": (10, 100, 300, 1000), "samples": 4, "side": 8},
}
"""What is varied, and what else holds. A run's samples are one batch."""

QUICK = {
    "samples": {"points": (1, 4, 16), "side": 16, "steps": 5},
    "pixels": {"points": (16, 32, 48), "samples": 2, "steps": 3},
    "steps": {"points": (10, 30, 60), "samples": 2, "side": 8},
}
UNET = {
    "model_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "attention_resolutions": [],
    "num_heads": 1,
    "prediction": "edm",
    "data_std": 0.5,
}

LEAK_STEPS, LEAK_SAMPLES, LEAK_SHAPE = 10_000, 64, (1, 4, 4)
SHORT = {name: {"moves": 1} for name in ("ula", "mala", "hmc")} | {"time-travel": {"repeats": 2, "jump": 1}}
BUDGETS = ("500MB", "1GB")


# runs


def table(prior, method, *, samples, side, steps, checkpoint, **more):
    model = {"name": "gaussian", "covariance": 0.1, "precision": "float32"}
    if prior == "openai-unet":
        model = {"name": prior, "checkpoint": checkpoint, **UNET}
    return {
        "samples": samples,
        "model": {**model, "image_shape": [1, side, side]},
        "operator": {"name": "inpainting"},
        "conditioner": {"name": METHODS[method]["conditioner"]},
        "sampler": {"name": METHODS[method]["sampler"], "steps": steps},
        "input": {"source": "ellipses", "noise_std": 0.1},
        **({} if "memory" in more else {"batch": samples}),
        **more,
    }


def fresh_weights(path):
    """Weights as training begins with them: the last layer is zero, so that the denoiser is that of a Gaussian and no
    method diverges; the work is that of any weights."""
    from scoreplug import registry
    from scoreplug.checkpoint import write_checkpoint

    model = registry.get_model("openai-unet", image_shape=(1, 16, 16), **UNET)
    write_checkpoint(path, model.module.state_dict(), {})
    return str(path)


def one_run(asked):
    """Wall, CPU time and peak of a run in this process, and the CPU time of its sampling alone."""
    import torch

    from scoreplug.run import plan
    from scoreplug.run.memory import give_back
    from scoreplug.run.resolve import resolve
    from scoreplug.run.runner import run

    config, draw, sampling = resolve(asked), plan.draw, []

    def timed_draw(*given):
        began = time.process_time()
        samples = draw(*given)
        sampling.append(time.process_time() - began)
        return samples

    plan.draw = timed_draw
    give_back(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.perf_counter(), time.process_time()
        result = run(config, Path(folder) / "run")
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    plan.draw, cost = draw, result.cost
    found = {"wall": wall, "cpu": cpu, "sampling": sum(sampling), "peak": cost["peak_memory_bytes"]}
    return found | ({"memory": cost["memory"]} if "memory" in cost else {})


def series(prior, method, axes, checkpoint):
    """Of one method and prior, in a process of its own; the points of an axis in an order that is no trend."""
    import torch

    torch.set_num_threads(1)
    found = {}
    one_run(table(prior, method, samples=2, side=16, steps=2, checkpoint=checkpoint))  # libraries load
    for axis, given in axes.items():
        points = given["points"]
        rows = {}
        for point in (*points[::2], *points[1::2]):
            fixed = {key: value for key, value in given.items() if key != "points"}
            asked = {**fixed, "side" if axis == "pixels" else axis: point}
            row = one_run(table(prior, method, checkpoint=checkpoint, **asked))
            rows[point**2 if axis == "pixels" else point] = row
        found[axis] = [{"at": at, **rows[at]} for at in sorted(rows)]
    return found


def fitted(rows, key):
    """Slope, intercept and the share of the variance that the line explains."""
    import numpy as np

    x, y = np.array([row["at"] for row in rows], float), np.array([row[key] for row in rows], float)
    slope, intercept = np.polyfit(x, y, 1)
    spread = ((y - y.mean()) ** 2).sum()
    r2 = 1 - ((y - slope * x - intercept) ** 2).sum() / spread if spread > 0 else 1.0
    return {"slope": float(slope), "intercept": float(intercept), "r2": float(r2)}


def stages(checkpoint):
    """What a run does beside sampling, in CPU seconds: each stage by a timer, in a process of its own."""
    found = {}

    def stage(name, function):
        began = time.process_time()
        value = function()
        found[name] = time.process_time() - began
        return value

    def imports():
        from scoreplug.run import resolve, runner

        return resolve, runner

    torch = stage("import torch", lambda: importlib.import_module("torch"))
    torch.set_num_threads(1)
    resolving, runner = stage("import the rest", imports)
    asked = table("openai-unet", "dps / ancestral", samples=4, side=64, steps=2, checkpoint=checkpoint)
    config = stage("read and check the config", lambda: resolving.resolve(asked))
    files = stage("checksums", lambda: runner.checksums(config))
    stage("build the components", lambda: runner.setup_of(config.problem, files).posterior)
    whole = one_run(asked)
    found["baseline, metrics, figure, report, files"] = whole["cpu"] - whole["sampling"]
    return found


def in_a_process(part, *arguments):
    """What a function of this file returns, called in a fresh process."""
    asked = [sys.executable, "-W", "ignore", str(Path(__file__)), "--call", json.dumps([part, *arguments])]
    return json.loads(subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def measure_runs(*, quick):
    axes = QUICK if quick else AXES
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = fresh_weights(Path(folder) / "unet.safetensors")
        found = {
            f"{prior}: {method}": in_a_process("series", prior, method, axes, checkpoint)
            for prior in PRIORS
            for method in METHODS
        }
        repeats = [in_a_process("stages", checkpoint) for _ in range(3 if quick else 5)]
    fits = {
        name: {axis: {key: fitted(rows, key) for key in ("sampling", "peak")} for axis, rows in each.items()}
        for name, each in found.items()
    }
    return {
        "axes": axes,
        "rows": found,
        "fits": fits,
        "stages": {name: statistics.median(each[name] for each in repeats) for name in repeats[0]},
    }


# memory


def measure_memory(*, quick):
    """The demo's prior, operator and sampler under several budgets."""
    samples, side = (8, 64) if quick else (32, 64)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = fresh_weights(Path(folder) / "unet.safetensors")
        for budget in BUDGETS:
            for method in METHODS:
                asked = table(
                    "openai-unet", method, samples=samples, side=side, steps=6, checkpoint=checkpoint, memory=budget
                )
                rows.append({"budget": budget, "method": method, **in_a_process("one_run", asked)["memory"]})
    return {"samples": samples, "side": side, "rows": rows}


# leaks


def leak(conditioner, sampler, steps):
    """Resident size and live tensors along a trajectory, after one of two samples over the same levels."""
    import attrs
    import torch

    from scoreplug import Noise, registry, simulate
    from scoreplug.run.memory import give_back, now_on

    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    prior = registry.get_model("gaussian", image_shape=LEAK_SHAPE, covariance=0.1, precision="float32")
    operator = registry.get_operator("inpainting", image_shape=LEAK_SHAPE)
    y = simulate(operator, torch.linspace(0, 1, 16).reshape(LEAK_SHAPE), 0.1)
    params = {"dps": {"scale": 0.02}}.get(conditioner, {})
    posterior = registry.get_conditioner(conditioner, **params).condition(prior, y)
    made = registry.get_sampler(sampler, steps=steps, **SHORT.get(sampler, {}))
    noise = Noise(0, range(LEAK_SAMPLES), dtype=torch.float32, device=cpu)
    give_back(cpu)
    before = now_on(cpu)
    for _ in made.trajectory(posterior, attrs.evolve(noise, samples=range(2))):  # fills the tables of levels
        pass
    give_back(cpu)
    tables = now_on(cpu) - before
    marks = [round(steps * share / 10) for share in range(1, 11)]
    found = {"at": [], "resident": [], "peak": [], "tensors": []}
    began = time.perf_counter()
    for state in made.trajectory(posterior, noise):
        if marks and state.index >= marks[0]:
            marks.pop(0)
            give_back(cpu)
            found["at"].append(state.index)
            found["resident"].append(now_on(cpu))
            found["peak"].append(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            found["tensors"].append(sum(type(thing) is torch.Tensor for thing in gc.get_objects()))
    return {**found, "tables": tables, "seconds": time.perf_counter() - began}


def measure_leaks(*, quick):
    from scoreplug import registry
    from scoreplug.run import compatibility

    steps = 500 if quick else LEAK_STEPS
    pairs = [(conditioner, "ancestral") for conditioner in ("none", "mmps", "ddrm")]
    for spec in registry.list("sampler"):
        goes = [
            name
            for name in ("dps", "mmps", "ddrm", "diffpir", "none")
            if compatibility.verdict(registry.spec("conditioner", name), spec).state
            in ("published", "runs", "approximate")
        ]
        pairs.append((goes[0], spec.name))

    def row(pair):
        found = {"method": " / ".join(pair), **in_a_process("leak", *pair, steps)}
        print(found["method"], f"{found['seconds']:.1f} s", file=sys.stderr)
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # a resident size does not mind company
        rows = list(pool.map(row, pairs))
    return {"steps": steps, "samples": LEAK_SAMPLES, "shape": LEAK_SHAPE, "rows": rows}


def growth(row):
    """Bytes per step, of a line through all but the first tenth, in which libraries load."""
    import numpy as np

    return float(np.polyfit(row["at"][1:], row["resident"][1:], 1)[0])


# sweep


def timed(cell):
    """The row of a cell, with what it took."""
    from scoreplug.bench.execute import execute

    began, cpu = time.perf_counter(), time.process_time()
    row = execute(cell)
    took = {"work_seconds": time.perf_counter() - began, "work_cpu": time.process_time() - cpu}
    row.cost.update(took)
    return row


def idle(cell):
    """A row without any work."""
    from scoreplug.bench.cell import Row

    return Row(cell=cell, metrics={"crps": 0.5 + cell.seed % 7}, cost={"evaluations": 1.0, "work_seconds": 0.0})


def the_cells(count, *, steps=1, n=2, methods=1):
    from scoreplug.bench.cell import cells
    from scoreplug.bench.check import check
    from scoreplug.bench.suite import parse

    problem = {"problem": {"name": "gaussian", "size": 2, "measured": 1}}
    samplers = [{"name": "em", "steps": steps, "rho": 5 + i / 1000} for i in range(methods)]
    suite = {
        "n": n,
        "seeds": count // methods,
        "problems": [problem],
        "methods": [{"conditioner": "dps", "sampler": samplers}],
    }
    suite = parse(suite, name="sweep")
    check(suite)
    return cells(suite)


def swept(cells, executor, function):
    """Wall, the work of the cells, and when each row came."""
    from scoreplug.bench import engine
    from scoreplug.bench.store import RowStore
    from scoreplug.run.executors import executor_of

    engine.execute, stamps = function, []
    with tempfile.TemporaryDirectory() as folder, executor_of(executor) as (pool, width):
        store = RowStore(Path(folder) / "out")
        store.open()
        engine.compute(the_cells(8, n=3), store, pool, width=width)  # processes start, libraries load
        cpu, began = time.process_time(), time.perf_counter()
        rows = engine.compute(cells, store, pool, width=width, watch=lambda row: stamps.append(time.perf_counter()))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    workers = int(executor.partition(":")[2] or 1)
    work = sum(row.cost["work_seconds"] for row in rows)
    quarters = [stamps[i * len(stamps) // 4] for i in range(4)] + [stamps[-1]]
    return {
        "executor": executor,
        "cells": len(cells),
        "wall": wall,
        "work": work,
        "overhead": (wall * workers - work) / len(cells),
        "own_cpu": cpu / len(cells),
        "quarters": [4 * (b - a) / len(cells) for a, b in itertools.pairwise(quarters)],
    }


def upkeep(count, methods):
    """CPU seconds of what is done once with all rows of a folder."""
    from scoreplug.bench import engine
    from scoreplug.bench.page import page
    from scoreplug.bench.store import RowStore, to_csv
    from scoreplug.bench.table import summaries
    from scoreplug.run.plan import SerialExecutor

    engine.execute, found = idle, {}

    def stage(name, function):
        began = time.process_time()
        value = function()
        found[name] = time.process_time() - began
        return value

    with tempfile.TemporaryDirectory() as folder:
        store = RowStore(Path(folder) / "out")
        store.open()
        cells = stage("plan", lambda: the_cells(count, methods=methods))
        rows = stage("compute, store", lambda: engine.compute(cells, store, SerialExecutor()))
        everything = stage("merge", lambda: store.merge(rows))
        stage("take up again", lambda: engine.compute(the_cells(count, methods=methods), store, SerialExecutor()))
        stage("merge again", lambda: store.merge(rows))
        stage("CSV", lambda: to_csv(everything))
        stage("page", lambda: page(everything, title="sweep"))
        stage("summaries", lambda: summaries(rows))
    return found


def measure_sweep(*, quick):
    many, few = (400, 4) if quick else (10_000, 50)
    one = timed(the_cells(1, steps=400)[0])
    one = timed(the_cells(1, steps=400)[0])  # without the libraries' start
    steps = max(1, round(400 / one.cost["work_cpu"]))
    second = the_cells(few, steps=steps)
    sizes = (many // 4, many)
    return {
        "idle": [swept(the_cells(many), "process:2", idle)],
        "trivial": [
            swept(the_cells(many if name != "serial" else many // 10), name, timed) for name in ("serial", "process:2")
        ],
        "seconds": [swept(second, "process:2", timed)],
        "upkeep": {str(size): {"seeds": upkeep(size, 1), "methods": upkeep(size, size)} for size in sizes},
    }


# the page

HEAD = """# How a run scales

One torch thread; {machine}, Python {python}, {versions}. Measured by `benchmarks/scaling.py`.
"""


def render(result, out):
    text = HEAD.format(
        machine=result["machine"],
        python=result["python"],
        versions=", ".join(f"{name} {number}" for name, number in result["versions"].items()),
    )
    parts = {"runs": page_runs, "memory": page_memory, "leaks": page_leaks, "sweep": page_sweep}
    for name, part in parts.items():
        if name in result:
            text += "\n" + part(result[name])
    if "runs" in result:
        draw(result["runs"], out.parent / "images" / "scaling.png")
    return text


def megabytes(size):
    return f"{size / 1e6:.3g}"


def page_runs(found):
    axes = found["axes"]
    fixed = {axis: ", ".join(f"{v} {k}" for k, v in given.items() if k != "points") for axis, given in axes.items()}
    varied = "; ".join(
        f"**{axis}** {', '.join(map(str, given['points']))}{' (of a side)' * (axis == 'pixels')} with {fixed[axis]}"
        for axis, given in axes.items()
    )
    text = f"""## Samples, pixels, steps

A run of `scoreplug.run.runner.run`, with its report, in a process that has made one before; inpainting of half of the
pixels of a phantom; all samples in one batch. The network is a UNet of {UNET["model_channels"]} channels and two levels
with the weights that training begins with, which cost what trained ones do. One of three things is varied, the others
are fixed: {varied}.
Lines are least squares; R² is the share of the variance that the line explains. Times are CPU times of the sampling;
"all else" is what the run takes beside it, the median over the points. Memory is the peak of the resident size while
sampling.

![CPU time and memory against samples, pixels and steps, with the fitted lines](images/scaling.png)

"""
    for axis in axes:
        unit = {"samples": "sample", "pixels": "1000 pixels", "steps": "step"}[axis]
        factor = 1000 if axis == "pixels" else 1
        text += (
            f"| against {axis} | CPU ms per {unit} | intercept, s | R² | all else, s "
            f"| MB per {unit} | intercept, MB | R² |\n"
            "|---|---|---|---|---|---|---|---|\n"
        )
        for name, each in found["fits"].items():
            cpu, peak, rows = each[axis]["sampling"], each[axis]["peak"], found["rows"][name][axis]
            flat = max(r["peak"] for r in rows) - min(r["peak"] for r in rows)
            rest = statistics.median(r["cpu"] - r["sampling"] for r in rows)
            fit = f"{peak['r2']:.4f}" if flat > 20e6 else "flat"
            text += (
                f"| {name} | {1e3 * factor * cpu['slope']:.3g} | {cpu['intercept']:.2f} | {cpu['r2']:.4f} "
                f"| {rest:.2f} | {factor * peak['slope'] / 1e6:.3g} | {peak['intercept'] / 1e6:.0f} | {fit} |\n"
            )
        text += "\n"
    text += """Flat says that the peaks differ by less than 20 MB: a line would explain noise. The intercept of memory
is the interpreter with its libraries, the weights and the operator. "All else" is what a run does once, whatever it
samples; in a fresh process, the imports come before it:

| once in a run | CPU seconds |
|---|---|
"""
    for name, seconds in found["stages"].items():
        text += f"| {name} | {seconds:.2f} |\n"
    return text


def page_memory(found):
    text = f"""## A memory budget

`memory = "1GB"` in a config, or `scoreplug run --memory 1GB`, takes the largest batch that fits. The first steps of the
run itself are measured at batches of 1, 2, 4, ... samples, which gives the memory without samples and that of each; a
quarter of the samples' memory is left free. A UNet as above, {found["side"]}x{found["side"]} pixels,
{found["samples"]} samples.

| budget | method | MB without samples | MB per sample | batch | MB expected | MB at the peak | held |
|---|---|---|---|---|---|---|---|
"""
    for row in found["rows"]:
        text += (
            f"| {row['budget']} | {row['method']} | {megabytes(row['base_bytes'])} "
            f"| {megabytes(row['bytes_per_sample'])} | {row['batch']} "
            f"| {megabytes(row['expected_bytes'])} | {megabytes(row['peak_bytes'])} "
            f"| {'yes' if row['held'] else 'no'} |\n"
        )
    return text


def page_leaks(found):
    worst = max(found["rows"], key=growth)
    shape, lost = "x".join(map(str, found["shape"])), 4 * found["samples"] * math.prod(found["shape"])
    text = f"""## Long runs

{found["steps"]:,} steps of {found["samples"]} samples of {shape} values: resident size after a tenth of the steps and
at the end, after what is free has been handed back to the system; the slope of a line through all tenths but the first,
in bytes per step; and how many tensors are alive. A step that left its samples behind would grow by {lost:,} bytes. The
levels' coefficients are tabulated, up to {2**14:,} of them: a trajectory of two samples over the same levels went
before, and what it left, with the libraries that it loaded, is a column of its own. The largest slope is that of
{worst["method"]}, {growth(worst):.0f} bytes per step.

| method | MB of the first | MB after a tenth | MB at the end | bytes per step | tensors after a tenth | at the end |
|---|---|---|---|---|---|---|
"""
    for row in found["rows"]:
        text += (
            f"| {row['method']} | {row['tables'] / 1e6:.1f} | {row['resident'][0] / 1e6:.1f} "
            f"| {row['resident'][-1] / 1e6:.1f} | {growth(row):.0f} "
            f"| {row['tensors'][0]} | {row['tensors'][-1]} |\n"
        )
    return text


def page_sweep(found):
    text = """## Sweeps

What a cell of `scoreplug bench` costs beside its own work: (wall x processes - the cells' own seconds) / cells. *Idle*
cells do nothing, *trivial* ones draw two samples in one step and measure them, and the last ones work for about a
second of CPU. Each row is written and synchronised to the disk as it comes. The quarters show whether a cell costs more
when there are many rows already.

| cells | executor | number | wall, s | work, ms each | overhead, ms each | in percent | wall by quarters, ms each |
|---|---|---|---|---|---|---|---|
"""
    for kind in ("idle", "trivial", "seconds"):
        for row in found[kind]:
            work = row["work"] / row["cells"]
            share = f"{100 * row['overhead'] / work:.1f}" if work else "-"
            quarters = ", ".join(f"{1e3 * value:.3g}" for value in row["quarters"])
            text += (
                f"| {kind} | {row['executor']} | {row['cells']} | {row['wall']:.1f} | {1e3 * work:.3g} "
                f"| {1e3 * row['overhead']:.2f} | {share} | {quarters} |\n"
            )
    sizes = list(found["upkeep"])
    text += f"""
What is done once with all rows, in CPU seconds: of a quarter of the cells, and of all. *Seeds* is one method with many
seeds, *methods* many methods with one seed each. Four times as many rows take about four times as long.

| | {" | ".join(f"{kind}, {size}" for kind in ("seeds", "methods") for size in sizes)} |
|---|{"---|" * (2 * len(sizes))}
"""
    for name in found["upkeep"][sizes[0]]["seeds"]:
        values = [found["upkeep"][size][kind][name] for kind in ("seeds", "methods") for size in sizes]
        text += f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |\n"
    return text


def draw(found, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    axes = list(found["axes"])
    figure, grid = plt.subplots(2, len(axes), figsize=(11, 6.2), layout="constrained")
    for column, axis in enumerate(axes):
        for row, (key, factor, label) in enumerate((("sampling", 1, "CPU time, s"), ("peak", 1e-6, "peak memory, MB"))):
            ax = grid[row, column]
            for i, (name, each) in enumerate(found["rows"].items()):
                x = np.array([r["at"] for r in each[axis]])
                line = found["fits"][name][axis][key]
                style = {"color": f"C{i % len(METHODS)}", "ls": "-" if name.startswith("openai") else ":"}
                ax.plot(x, factor * (line["slope"] * x + line["intercept"]), lw=1, **style)
                y = [factor * r[key] for r in each[axis]]
                ax.plot(x, y, "o" if style["ls"] == "-" else "x", ms=4, color=style["color"])
                ax.plot([], [], marker="o" if style["ls"] == "-" else "x", label=name, **style)
            ax.set_xlabel(axis)
            ax.set_ylim(bottom=0)
            if column == 0:
                ax.set_ylabel(label)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def measure(out, only, *, quick):
    from importlib.metadata import version

    result = json.loads(out.read_text()) if only and out.is_file() else {}
    result |= {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("scoreplug", "torch", "numpy")},
    }
    parts = {"runs": measure_runs, "memory": measure_memory, "leaks": measure_leaks, "sweep": measure_sweep}
    for name in only or PARTS:
        began = time.perf_counter()
        result[name] = parts[name](quick=quick)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        out.write_text(json.dumps(result, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", type=Path, metavar="JSON")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="measure these parts, and keep the others of --out")
    parser.add_argument("--quick", action="store_true", help="a small version, to see that all works")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        name, *arguments = json.loads(options.call)
        print(json.dumps({"series": series, "stages": stages, "one_run": one_run, "leak": leak}[name](*arguments)))
    elif options.render:
        options.out.write_text(render(json.loads(options.render.read_text()), options.out))
    else:
        measure(options.out, options.only, quick=options.quick)


if __name__ == "__main__":
    main()
