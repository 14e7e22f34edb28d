"""What a step costs beside the network: with an identity for a denoiser, one 32 x 32 image, one thread.

Microseconds per step and ATen dispatches per step of scoreplug's samplers and of the nearest ones of azula and deepinv
(an environment of its own: torch 2.14.1, torchvision 0.29.1, azula, deepinv). Runs are interleaved; medians.

python benchmarks/overhead.py --out docs/overhead.json
python benchmarks/overhead.py --render docs/overhead.json --out docs/overhead.md
"""

import argparse
import json
import platform
import statistics
import time
from collections import Counter
from pathlib import Path

STEPS, SHAPE = 200, (1, 32, 32)
PAIRS = {"em": "EulerSolver", "ancestral": "DDPMSampler", "pc": "PCSampler", "dpm-solver": "EulerSampler"}

HEAD = """# What a step costs beside the network

One image of {size}, an identity in the network's place, {steps} steps, one thread, {runs} interleaved runs, medians of
CPU time. A step of a real network costs milliseconds; this is what is left to a sampler. Dispatches are calls into
torch's operators. `scoreplug` draws its noise per sample from a counter-based generator and checks every step for NaN,
which the others do not. The bare rows are loops over a x + b s + c z and nothing else, written by hand: no sampler in
Python can be quicker. First runs, in which levels are tabulated, are not counted. Measured by
`benchmarks/overhead.py` with {versions}.

| | us per step | dispatches per step | ratio to azula's least | ratio to deepinv's least |
|---|---|---|---|---|
"""


def ours():
    import attrs
    import torch

    from scoreplug import BaseModel, Noise, registry

    @attrs.frozen(kw_only=True, eq=False)
    class Identity(BaseModel):
        sde: object = registry.get_sde("vp")
        shape: tuple = SHAPE
        dtype: object = torch.float32
        device: object = torch.device("cpu")

        def denoise(self, x, t):
            return x

    model = Identity()

    def run_of(name):
        sampler = registry.get_sampler(name, steps=STEPS)
        noise = Noise(0, range(1), dtype=model.dtype, device=model.device)

        def run():
            for _ in sampler.trajectory(model, noise):
                pass

        return run

    return {f"scoreplug {name}": run_of(name) for name in PAIRS}


def bare():
    """The least that Python and torch can do: numbers known beforehand, nothing checked, nothing kept."""
    import torch

    from scoreplug import Noise

    x, z = torch.zeros(1, *SHAPE), torch.zeros(1, *SHAPE)
    noise = Noise(0, range(1), dtype=torch.float32, device=x.device)

    def update(x, z):
        return torch.add(torch.add(x * 0.9, x, alpha=0.1), z, alpha=0.01)

    @torch.no_grad()
    def deterministic():
        state = x
        for _ in range(STEPS):
            state = update(state, z)

    @torch.no_grad()
    def torch_noise():
        state = x
        for _ in range(STEPS):
            state = update(state, torch.randn_like(state))

    @torch.no_grad()
    def own_noise():
        state = x
        for i in range(STEPS):
            state = update(state, noise.at(i).normal(SHAPE))

    return {
        "three operators, bare": deterministic,
        "the same + torch.randn_like": torch_noise,
        "the same + noise per sample": own_noise,
    }


def azulas():
    import torch
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import VPSchedule
    from azula.sample import DDIMSampler, DDPMSampler, EulerSampler, PCSampler

    class Identity(Denoiser):
        def __init__(self):
            super().__init__()
            self.schedule = VPSchedule()

        def forward(self, x_t, t, **kwargs):
            return DiracPosterior(mean=x_t)

    x = torch.zeros(1, *SHAPE)
    return {
        f"azula {cls.__name__}": (lambda sampler: lambda: sampler(x))(cls(Identity(), steps=STEPS, silent=True))
        for cls in (DDPMSampler, DDIMSampler, EulerSampler, PCSampler)
    }


def deepinvs():
    import torch
    from deepinv.models import Denoiser
    from deepinv.sampling import AncestralSolver, EulerSolver, PosteriorDiffusion, VariancePreservingDiffusion

    class Identity(Denoiser):
        def forward(self, x, sigma, *args, **kwargs):
            return x

    def run_of(solver):
        diffusion = PosteriorDiffusion(
            denoiser=Identity(), sde=VariancePreservingDiffusion(), solver=solver, dtype=torch.float32
        )
        x = torch.zeros(1, *SHAPE)

        def run():
            with torch.no_grad():
                diffusion(y=None, physics=None, x_init=x, denoise_output=False)

        return run

    grid = torch.linspace(1, 1e-3, STEPS + 1)
    return {f"deepinv {cls.__name__}": run_of(cls(timesteps=grid)) for cls in (EulerSolver, AncestralSolver)}


def dispatches(run):
    from torch.utils._python_dispatch import TorchDispatchMode

    found = Counter()

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found[str(func)] += 1
            return func(*args, **(kwargs or {}))

    with Count():
        run()
    return sum(found.values()) / STEPS


def measure(runs):
    from importlib.metadata import version

    import torch

    torch.set_num_threads(1)
    found = ours() | bare() | azulas() | deepinvs()
    for run in found.values():
        run()
    seconds = {name: [] for name in found}
    for _ in range(runs):
        for name, run in found.items():
            began = time.process_time()
            run()
            seconds[name].append(time.process_time() - began)
    rows = {
        name: {"us": 1e6 * statistics.median(seconds[name]) / STEPS, "dispatches": dispatches(run)}
        for name, run in found.items()
    }
    versions = {name: version(name) for name in ("scoreplug", "torch", "azula", "deepinv")}
    return {"rows": rows, "runs": runs, "versions": versions, "machine": platform.machine()}


def render(result):
    rows = result["rows"]
    least = {kind: min(r["us"] for name, r in rows.items() if name.startswith(kind)) for kind in ("azula", "deepinv")}
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    text = HEAD.format(size="x".join(map(str, SHAPE[1:])), steps=STEPS, runs=result["runs"], versions=versions)
    for name, row in rows.items():
        text += (
            f"| {name} | {row['us']:.0f} | {row['dispatches']:.1f} | {row['us'] / least['azula']:.2f} "
            f"| {row['us'] / least['deepinv']:.2f} |\n"
        )
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", type=Path, metavar="JSON")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    if options.render:
        options.out.write_text(render(json.loads(options.render.read_text())))
    else:
        options.out.write_text(json.dumps(measure(options.runs), indent=1) + "\n")


if __name__ == "__main__":
    main()
