"""What a forward operator costs: the projector beside those of other libraries, and every other operator.

An environment of its own: torch 2.14.1, deepinv, scikit-image, astra-toolbox. CPU time with one thread; runs are
interleaved and rotated, medians with quartiles. Every projector is built and applied in a process of its own for its
memory. What takes longer than the time given is run twice; the whole takes a quarter of an hour.

python benchmarks/operators.py --out docs/operators-speed.json
python benchmarks/operators.py --render docs/operators-speed.json --out docs/operators-speed.md
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

SIZES, ANGLES, BATCHES = (64, 128, 256, 512), (60, 180), (1, 16)
LIBRARIES = ("scoreplug", "astra strip", "astra line", "astra linear", "deepinv", "deepinv, iradon", "skimage")
OTHERS = {
    "blur": ({}, "BlurFFT"),
    "downsampling": ({"factor": 4}, "Downsampling"),
    "inpainting": ({"mask": "random"}, "Inpainting"),
    "fourier": ({"image": "complex"}, "MRI"),
    "multi-coil-fourier": ({"image": "complex", "coils": 4}, "MultiCoilMRI"),
    "phase-retrieval": ({}, None),
    "walsh-hadamard": ({}, None),
    "colorization": ({}, None),
}


def projector_of(library, size, angles):
    """A and A^T as functions of a batch of images and of sinograms, and the shape of one sinogram, (rows, columns).

    Detectors are of a pixel's width and cover the diagonal; the circle is not cut out.
    """
    import math

    import numpy as np
    import torch

    degrees = np.arange(angles) * 180 / angles
    detectors = math.ceil(math.sqrt(2) * size)
    if library == "scoreplug":
        from scoreplug import registry

        A = registry.get_operator("radon", image_shape=(1, size, size), angles=angles)
        return A, A.adjoint, A.output_shape[1:]
    if library.startswith("deepinv"):
        from deepinv.physics import Tomography

        physics = Tomography(
            angles=torch.from_numpy(degrees).float(),
            img_width=size,
            circle=False,
            normalize=False,
            adjoint_via_backprop=library == "deepinv",
            parallel_computation=False,
        )
        with torch.no_grad():
            return physics.A, physics.A_adjoint, tuple(physics.A(torch.zeros(1, 1, size, size)).shape[2:])
    if library == "skimage":
        from skimage.transform import iradon, radon

        def forward(x):
            return np.stack([radon(image, degrees, circle=False) for image in x[:, 0].numpy()])

        def adjoint(y):
            scale = 2 * angles / math.pi  # what skimage multiplies with
            images = (
                iradon(s, degrees, circle=False, filter_name=None, output_size=size) * scale for s in y[:, 0].numpy()
            )
            return np.stack(list(images))

        return forward, adjoint, (math.ceil(math.sqrt(2) * size), angles)

    import astra

    volume = astra.create_vol_geom(size, size)
    scan = astra.create_proj_geom("parallel", 1.0, detectors, np.deg2rad(degrees))
    made = astra.create_projector(library.split()[1], scan, volume)
    image, sinogram = astra.data2d.create("-vol", volume, 0), astra.data2d.create("-sino", scan, 0)

    def algorithm(name, volume_key):
        config = astra.astra_dict(name)
        config |= {"ProjectorId": made, volume_key: image, "ProjectionDataId": sinogram}
        return astra.algorithm.create(config)

    onto, back = algorithm("FP", "VolumeDataId"), algorithm("BP", "ReconstructionDataId")

    def run(x, source, algorithm, target):
        results = []
        for one in x[:, 0].numpy():
            astra.data2d.store(source, one)
            astra.algorithm.run(algorithm)
            results.append(astra.data2d.get(target))
        return np.stack(results)

    return (
        lambda x: run(x, image, onto, sinogram),
        lambda y: run(y, sinogram, back, image),
        (angles, detectors),
    )


def timed(runs, seconds, most, clock=time.process_time):
    """Seconds of each of the functions, interleaved and rotated: two of each at least, more within its time."""
    found, names = {name: [] for name in runs}, list(runs)
    for run in runs.values():
        run()
    for i in range(most):
        k = i % len(names)
        for name in names[k:] + names[:k]:
            if len(found[name]) < 2 or sum(found[name]) < seconds:
                start = clock()
                runs[name]()
                found[name].append(clock() - start)
    return {name: quartiles(values) for name, values in found.items()}


def quartiles(values):
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"ms": 1e3 * middle, "low": 1e3 * low, "high": 1e3 * high, "runs": len(values)}


def projectors(size, angles, seconds):
    """A and A^T of all libraries, batch 1 and 16. What takes images one by one is timed with one, and multiplied."""
    import numpy as np
    import torch

    built, mismatch = {}, {}
    g = torch.Generator().manual_seed(0)
    for library in LIBRARIES:
        A, At, shape = built[library] = projector_of(library, size, angles)
        x, y = torch.rand(1, 1, size, size, generator=g), torch.rand(1, 1, *shape, generator=g)
        Ax, Aty = (np.asarray(v, dtype=np.float64).ravel() for v in (A(x), At(y)))
        back, onto = x.double().numpy().ravel() @ Aty, Ax @ y.double().numpy().ravel()
        mismatch[library] = abs(onto - back) / (np.linalg.norm(Ax) * float(y.double().norm()))
    rows = []
    for batch in BATCHES:
        runs = {}
        for library, (A, At, shape) in built.items():
            n = batch if library.startswith(("scoreplug", "deepinv")) else 1
            x, y = torch.rand(n, 1, size, size, generator=g), torch.rand(n, 1, *shape, generator=g)
            runs[library, "A"] = lambda A=A, x=x: A(x)
            runs[library, "A^T"] = lambda At=At, y=y: At(y)
        with torch.no_grad():
            times = timed(runs, seconds, most=9)
        for (library, direction), found in times.items():
            factor = 1 if library.startswith(("scoreplug", "deepinv")) else batch
            found |= {key: found[key] * factor for key in ("ms", "low", "high")}
            case = {"size": size, "angles": angles, "batch": batch, "library": library, "direction": direction}
            rows.append(case | found | {"mismatch": mismatch[library]})
        print(size, angles, batch, {" ".join(key): round(found["ms"], 1) for key, found in times.items()}, flush=True)
    return rows


def threads(size, angles):
    """Wall time of scoreplug's and deepinv's, with one and two threads; the others use one."""
    import torch

    rows = []
    for library in ("scoreplug", "deepinv"):
        A, At, shape = projector_of(library, size, angles)
        x, y = torch.rand(16, 1, size, size), torch.rand(16, 1, *shape)
        for n in (1, 2):
            torch.set_num_threads(n)
            with torch.no_grad():
                times = timed({"A": lambda: A(x), "A^T": lambda: At(y)}, 5, most=7, clock=time.perf_counter)  # noqa: B023
            rows += [{"library": library, "threads": n, "direction": d} | found for d, found in times.items()]
        torch.set_num_threads(1)
    return rows


def build(library, size, angles):
    """Printed: seconds until the first A and A^T are done, and the most memory held, over that of the imports."""
    import torch

    def peak():  # getrusage's would be that of the process it was started from, if that held more
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9

    torch.set_num_threads(1)
    projector_of(library, 16, 8)  # the imports
    before = peak()
    began = time.process_time()
    A, At, shape = projector_of(library, size, angles)
    with torch.no_grad():
        A(torch.rand(1, 1, size, size)), At(torch.rand(1, 1, *shape))
    print(json.dumps({"s": time.process_time() - began, "GB": peak(), "added": peak() - before}))


def builds(sizes):
    rows = []
    for size in sizes:
        for angles in ANGLES[-1:]:
            for library in LIBRARIES:
                command = [sys.executable, __file__, "--build", library, str(size), str(angles), "--out", "-"]
                printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found = json.loads(printed.splitlines()[-1])
                rows.append({"library": library, "size": size, "angles": angles} | found)
                print(rows[-1], flush=True)
    return rows


def deepinvs(name, operator, size):
    """deepinv's operator for the same, on the same input."""
    import torch
    from deepinv import physics

    if name == "BlurFFT":
        return physics.BlurFFT((3, size, size), filter=operator.kernel_array.float()[None, None])
    if name == "Downsampling":
        return physics.Downsampling(
            (3, size, size), filter=torch.full((1, 1, 4, 4), 1 / 16), factor=4, padding="circular"
        )
    if name == "Inpainting":
        return physics.Inpainting((3, size, size), mask=operator.observed.float())
    mask = operator.measured.float().expand(size, size)[None, None]
    if name == "MRI":
        return physics.MRI(mask=mask, img_size=(2, size, size))
    return physics.MultiCoilMRI(
        mask=mask, coil_maps=operator.sensitivities.value.to(torch.complex64)[None], img_size=(2, size, size)
    )


def others(size, seconds):
    import torch

    from scoreplug import registry

    rows = []
    for name, (params, peer) in OTHERS.items():
        channels = 2 if "image" in params else 3
        A = registry.get_operator(name, image_shape=(channels, size, size), **params)
        x = torch.rand(4, channels, size, size)
        y = A(x)
        runs = {("elementwise", "A"): lambda x=x: x * 1.5, ("scoreplug", "A"): lambda A=A, x=x: A(x)}
        if hasattr(A, "adjoint"):
            runs["scoreplug", "A^T"] = lambda A=A, y=y: A.adjoint(y)
        else:
            runs["scoreplug", "A^T"] = lambda A=A, x=x, y=y: A.linearize(x)[1](y)
        if peer:
            physics = deepinvs(peer, A, size)
            z = physics.A(x)
            runs["deepinv", "A"] = lambda physics=physics, x=x: physics.A(x)
            runs["deepinv", "A^T"] = lambda physics=physics, z=z: physics.A_adjoint(z)
        with torch.no_grad():
            times = timed(runs, seconds, most=201)
        rows += [
            {"operator": name, "peer": peer, "library": library, "direction": direction} | found
            for (library, direction), found in times.items()
        ]
        print(name, {key: round(value["ms"], 2) for key, value in times.items()}, flush=True)
    return rows


def measure(out, seconds, sizes):
    from importlib.metadata import version

    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    names = ("scoreplug", "torch", "deepinv", "scikit-image", "astra-toolbox")
    result = {"versions": {name: version(name) for name in names}, "machine": platform.machine(), "projectors": []}

    def keep(**found):
        result.update(found)
        out.write_text(json.dumps(result, indent=1) + "\n")

    keep(others=others(256, seconds))
    keep(builds=builds(sizes))
    for size in sizes:
        for angles in ANGLES:
            keep(projectors=result["projectors"] + projectors(size, angles, seconds))
    keep(threads=threads(256, 180))


HEAD = """# What a forward operator costs

## Line integrals

`radon` beside the parallel-beam projectors of deepinv, scikit-image and the ASTRA toolbox: one geometry, detectors of a
pixel's width that cover the diagonal, single precision, no circle cut out. What they compute differs. `radon` and
ASTRA's `strip` integrate over strips; ASTRA's `line` and `linear` follow one ray per bin; deepinv and scikit-image turn
the image, interpolating, and sum its columns. deepinv's adjoint is autograd's by default, or its backprojection
(`iradon`), as scikit-image's is.

CPU time in milliseconds, one thread, medians of interleaved runs in rotated order; quartiles are in the json. Those
that take one image at a time (ASTRA, scikit-image) are timed with one, and the time is multiplied by the batch.
*Ratio* is the least of the others, whatever it computes, over ours: above 1 ours is faster. Measured by
`benchmarks/operators.py` with {versions}.

| | pixels | angles | batch |{libraries} ratio |
|---|---|---|---|{rule}---|
"""

ADJOINT = """
Is A^T the transpose of A? |<A x, y> - <x, A^T y>| / (|A x| |y|) for x and y uniform in [0, 1], {size} pixels and
{angles} angles; 6e-8 is the rounding of single precision. Gradients of guidance, conjugate gradients and
pseudoinverses take it for granted.

| | mismatch |
|---|---|
"""

BUILD = """
## What a projector needs

Seconds of CPU time until it is made and A and A^T are done once, and the most memory that the process then held,
in GB: what it had before, the libraries themselves, is in *GB* and not in *added*. Every line is a process of its own.

| | pixels | angles | s | GB | added |
|---|---|---|---|---|---|
"""

THREADS = """
## Threads

Wall time in milliseconds, 16 images of 256 x 256 pixels, 180 angles. ASTRA's CPU projectors and scikit-image use one
thread.

| | threads | A | A^T |
|---|---|---|---|
"""

READING = """
Reading. `radon` is a sparse matrix, and its transpose beside it: what others compute at every call is made once.
Equispaced angles share weights by quarter turns and mirror images, so that the matrix is a quarter of its size, is
made in a quarter of the time, and is read once for four positions of the image. Its rows are in the order of the
detectors, strips of all angles side by side: they share pixels, which are in the cache then. Several columns in single
precision are summed by `embedding_bag`, which has vector instructions for it. The price is the time to make it and the
memory; with angles that share nothing, such as a limited scan's, both are four times as large, and the plugin
`scoreplug-astra` computes weights at every call instead beyond the memory that it is given.

The matrix is in memory only, shared by all operators of a geometry for as long as one of them is there, and one
more after that; no file of it is written. What is kept on disk is the singular value decomposition, which takes
minutes.
"""

OTHERS_HEAD = """
## The other operators

Four images of {size} x {size} pixels (three channels, or one complex one in Fourier space), CPU time in milliseconds,
one thread. *Elementwise* is x * 1.5; *times* is A over that. The adjoint of a nonlinear operator is the product with
its Jacobian's transpose, which evaluates A as well. deepinv's counterpart is on the right. It writes zeros for what
is not measured, where `inpainting` and `fourier` give what was measured and nothing else.

| | elementwise | A | times | A^T | deepinv | its A | its A^T |
|---|---|---|---|---|---|---|---|
"""


def number(ms):
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def render(result):
    rows = result["projectors"]
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    libraries = "".join(f" {name} |" for name in LIBRARIES)
    page = HEAD.format(versions=versions, libraries=libraries, rule="---|" * len(LIBRARIES))
    cases = dict.fromkeys((r["size"], r["angles"], r["batch"]) for r in rows)
    for size, angles, batch in cases:
        for direction in ("A", "A^T"):
            case = (size, angles, batch, direction)
            ms = {r["library"]: r["ms"] for r in rows if (r["size"], r["angles"], r["batch"], r["direction"]) == case}
            ratio = min(v for name, v in ms.items() if name != "scoreplug") / ms["scoreplug"]
            values = "".join(f" {number(ms[name])} |" for name in LIBRARIES)
            page += f"| {direction} | {size} | {angles} | {batch} |{values} {ratio:.1f} |\n"
    size, angles, _ = next(reversed(cases))
    page += ADJOINT.format(size=size, angles=angles)
    for library in LIBRARIES:
        found = next(r for r in rows if (r["library"], r["size"], r["angles"]) == (library, size, angles))
        page += f"| {library} | {found['mismatch']:.0e} |\n"
    page += READING + BUILD
    for r in result["builds"]:
        page += f"| {r['library']} | {r['size']} | {r['angles']} | {r['s']:.2f} | {r['GB']:.2f} | {r['added']:.2f} |\n"
    page += THREADS
    for library, n in dict.fromkeys((r["library"], r["threads"]) for r in result["threads"]):
        ms = [r["ms"] for r in result["threads"] if (r["library"], r["threads"]) == (library, n)]
        page += f"| {library} | {n} | {number(ms[0])} | {number(ms[1])} |\n"
    page += OTHERS_HEAD.format(size=256)
    for name, peer in dict.fromkeys((r["operator"], r["peer"]) for r in result["others"]):
        ms = {(r["library"], r["direction"]): r["ms"] for r in result["others"] if r["operator"] == name}
        theirs = (number(ms["deepinv", "A"]), number(ms["deepinv", "A^T"])) if peer else ("", "")
        plain, onto, back = ms["elementwise", "A"], ms["scoreplug", "A"], ms["scoreplug", "A^T"]
        page += f"| {name} | {number(plain)} | {number(onto)} | {onto / plain:.0f} | {number(back)} "
        page += f"| {peer or ''} | {theirs[0]} | {theirs[1]} |\n"
    return page


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", type=Path, metavar="JSON")
    parser.add_argument("--build", nargs=3, metavar=("LIBRARY", "PIXELS", "ANGLES"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1, help="of CPU time for every figure")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parser.parse_args()
    if options.build:
        library, size, angles = options.build
        build(library, int(size), int(angles))
    elif options.render:
        options.out.write_text(render(json.loads(options.render.read_text())))
    else:
        measure(options.out, options.seconds, options.sizes)


if __name__ == "__main__":
    main()
