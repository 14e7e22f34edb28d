"""What guidance costs: steps of conditioned samplers against the bare network calls that they need, side by side.

The network is the openai-unet in a small configuration, one thread, CPU time. Runs of the benchmark need an
environment of its own (torch 2.14.1, azula, deepinv); a page is rendered without them.

python benchmarks/guidance.py --out docs/guidance-cost.json
python benchmarks/guidance.py --render docs/guidance-cost.json --out docs/guidance-cost.md
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

SHAPE, STEPS, INDEX = (3, 64, 64), 100, 50
UNET = {
    "image_shape": SHAPE,
    "model_channels": 64,
    "num_res_blocks": 1,
    "channel_mult": (1, 2, 2, 2),
    "attention_resolutions": (16, 8),
    "num_head_channels": 32,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
    "learn_sigma": False,
}
OPERATORS = {
    "inpainting": {},
    "blur": {"std": 0.6},
    "radon": {"angles": 30},
}
OF_DPS, OF_ALL, BATCHES, SMALL = ("inpainting", "blur", "radon"), ("inpainting", "blur"), (1, 4), 1
PARAMS = {"mmps": {"max_steps": 3}, "pigdm": {"prior_std": 0.5}, "dps": {"scale": 0.1}, "mcg": {"scale": 0.1}}

HEAD = """# What guidance costs

Images of {size}, the openai-unet with {parameters:.1f} million weights (random, the last layer's too), step {index} of
{steps} of the sampler `ancestral`, one thread, CPU time. In each of the {runs} rounds a step and the bare network calls
that it needs were timed one after the other, in an order that changes from round to round: the ratios are medians of
the ratios of the rounds, with their quartiles. A step is all that a run does: network, draw, operator, update, and the
search for samples that diverge.

Measured by `benchmarks/guidance.py` with {versions}.

## DPS

The bare calls are one forward pass of the network with a graph and one `torch.autograd.grad`, which frees the graph.

The rest of a step is measured by itself, with an identity in the network's place: the draw of the step's noise, A and
its Jacobian's transpose, and what is left, which is the arithmetic of conditioner and sampler and the check of the
state. Draw and operator are the method's own work, not overhead. The share is that of the rest in the bare calls: 1
plus it is the ratio without the scatter of the network. It is meant to be at most 0.02; the largest here is
{share:.4f}.

| operator | batch | bare, ms | step, ms | ratio | rest, us | share | draw, us | A and A^T, us | left, us |
|---|---|---|---|---|---|---|---|---|---|
"""

ALL = """
## Every conditioner

One image. The bare calls are those that the method needs: a forward pass without a graph if it takes no derivative,
else a forward pass with one and as many vector-Jacobian products as were counted, the last of which frees it. A and A^T
are counted with those inside solvers; a projection's A^+ and the factors of a decomposition are neither. The rest is
that of the same step with an identity in the network's place. `mmps` takes three conjugate-gradient steps here, as many
as its authors at most; other parameters are defaults, or of no account for the cost.

| operator | conditioner | forward | vjps | A | A^T | bare, ms | step, ms | ratio | rest, us |
|---|---|---|---|---|---|---|---|---|---|
"""

READING = """
What a method costs is its products with the network's Jacobian. One that takes none costs a forward pass, and builds no
graph; one that takes several pays the forward pass once and walks its graph back several times. The rest does not grow
with the network.
"""

PEERS = """
## DPS elsewhere

One image, inpainting, the same network called the same way, one step each, as a ratio to the same bare calls.
scoreplug's noise is drawn per sample from a counter-based generator, and its step looks for samples that diverge; the
others take one norm of the residual over the batch (azula) or clip the estimate (deepinv). deepinv is given float32.

| | step, ms | ratio |
|---|---|---|
"""


def network():
    import torch

    from scoreplug import registry

    prior = registry.get_model("openai-unet", **UNET)
    weight = prior.module.out[2].weight  # a fresh network's last layer is zero, and its derivative too
    with torch.no_grad():
        weight.normal_(std=0.01, generator=torch.Generator().manual_seed(0))
    return prior


def identity_like(prior):
    """A model with the prior's shape and type, whose denoiser is the identity and costs nothing."""
    import attrs

    from scoreplug import BaseModel

    @attrs.frozen(kw_only=True, eq=False)
    class Identity(BaseModel):
        sde: object = prior.sde
        shape: tuple = prior.shape
        dtype: object = prior.dtype
        device: object = prior.device

        def denoise(self, x, t):
            return x

        def denoise_with_vjp(self, x, t):
            return x, lambda v: v

        def spread(self, t):
            return prior.spread(t)

    return Identity()


def measured(name):
    import torch

    from scoreplug import Noise, registry, simulate

    operator = registry.get_operator(name, image_shape=SHAPE, **OPERATORS[name])
    image = Noise(1, (0,), dtype=torch.float32, device=torch.device("cpu")).normal(SHAPE)[0] / 4
    return simulate(operator, image, 0.05)


def stepper(model, batch):
    """One step of a run at a given state, with the check that follows it."""
    import torch

    from scoreplug import Noise, State, registry
    from scoreplug.divergence import bound, check

    sampler = registry.get_sampler("ancestral", steps=STEPS)
    noise = Noise(0, range(batch), dtype=model.dtype, device=model.device)
    x = noise.at("x").normal(model.shape)
    state = State(x=x, times=sampler.times(model.sde), index=INDEX)
    limit = bound(model, state.times)

    def run():
        with torch.no_grad():
            after = sampler.step(model, state, noise.at("step", state.index))
        check(sampler, model, state, after, noise, limit=limit)

    return run, state


def bare(prior, state, vjps):
    import torch

    v = torch.ones_like(state.x)

    def run():
        with torch.set_grad_enabled(vjps > 0):
            x = state.x.detach().requires_grad_(vjps > 0)
            x0 = prior.denoise(x, state.t)
        for left in reversed(range(vjps)):
            torch.autograd.grad(x0, x, v, retain_graph=left > 0)

    return run


def counted(name, measurement, prior):
    """Forward passes, vjps, A and A^T of one step."""
    import attrs

    from scoreplug.run.cost import Cost, counted_model, counted_operator

    cost = Cost()
    watched = attrs.evolve(measurement, operator=counted_operator(measurement.operator, cost))
    model = conditioned(name, counted_model(prior, cost), watched)
    run, _ = stepper(model, SMALL)
    before = cost.as_dict()
    run()
    return {key: value - before[key] for key, value in cost.as_dict().items() if key.endswith("_calls")}


def conditioned(name, prior, measurement):
    from scoreplug import registry

    return registry.get_conditioner(name, **PARAMS.get(name, {})).condition(prior, measurement)


def seconds(run, repeats=1):
    began = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - began) / repeats


def parts(name, measurement, model, batch):
    """Seconds of what a step does beside the network, each the median of several."""
    import torch

    from scoreplug import Noise

    step, state = stepper(conditioned(name, model, measurement), batch)
    A = measurement.operator

    def draw():
        Noise(0, range(batch), dtype=state.x.dtype, device=state.x.device).at("step", 0, "z").normal(SHAPE)

    def products():
        with torch.no_grad():
            Ax, adjoint = A.linearize(state.x)
            adjoint(Ax)

    timed = {"without_network": step, "draw": draw, "products": products}
    for run in timed.values():
        run()
    return {key: statistics.median(seconds(run, 5) for _ in range(9)) for key, run in timed.items()}


def cases():
    """(group, facts, step, bare) of everything that is timed."""
    from scoreplug import registry

    prior, found = network(), []
    nothing = identity_like(prior)
    for batch in BATCHES:
        for operator in OF_DPS:
            measurement = measured(operator)
            step, state = stepper(conditioned("dps", prior, measurement), batch)
            facts = {"operator": operator, "batch": batch, **parts("dps", measurement, nothing, batch)}
            found.append(("dps", facts, step, bare(prior, state, 1)))
    for operator in OF_ALL:
        measurement = measured(operator)
        for spec in registry.list("conditioner"):
            step, state = stepper(conditioned(spec.name, prior, measurement), SMALL)
            calls = counted(spec.name, measurement, prior)
            facts = {"operator": operator, "conditioner": spec.name, **calls}
            facts |= {"without_network": parts(spec.name, measurement, nothing, SMALL)["without_network"]}
            found.append(("all", facts, step, bare(prior, state, calls["vjp_calls"])))
    measurement = measured("inpainting")
    step, state = stepper(conditioned("dps", prior, measurement), SMALL)
    for name, run in {"scoreplug": step, "azula": azulas(prior, measurement, state), **deepinvs(prior, state)}.items():
        found.append(("peers", {"name": name}, run, bare(prior, state, 1)))
    weights = sum(weight.numel() for weight in prior.module.parameters())
    return found, weights


def azulas(prior, measurement, state):
    from azula.denoise import Denoiser, DiracPosterior
    from azula.guidance.dps import DPSSampler
    from azula.noise import VPSchedule

    class Network(Denoiser):
        def __init__(self):
            super().__init__()
            self.schedule = VPSchedule()

        def forward(self, x_t, t, **kwargs):
            return DiracPosterior(mean=prior.denoise(x_t, state.t))

    sampler = DPSSampler(Network(), measurement.data, measurement.operator, zeta=0.1, steps=STEPS, silent=True)
    t, s = state.t.float(), state.s.float()
    return lambda: sampler.step(state.x, t, s)


def deepinvs(prior, state):
    import torch
    from deepinv.models import Denoiser
    from deepinv.physics import Inpainting
    from deepinv.sampling import DPS

    class Network(Denoiser):
        def forward(self, x, sigma, *args, **kwargs):
            return prior.denoise(x, state.t)

    mask = measured("inpainting").operator(torch.ones(1, *SHAPE))[0]
    if mask.shape != torch.Size(SHAPE):  # the measured pixels alone: deepinv keeps the image's shape
        mask = measured("inpainting").operator.adjoint(mask[None])[0]
    physics = Inpainting(SHAPE, mask=mask)
    y = physics(torch.zeros(1, *SHAPE))

    def run_of(solver):
        method = DPS(Network(), solver=solver, num_steps=STEPS, weight=0.1, dtype=torch.float32)
        t, s = state.t.float(), state.s.float()

        @torch.no_grad()
        def run():
            method.solver.step(method.posterior, t, s, state.x, y=y, physics=physics)

        return run

    return {f"deepinv {solver}": run_of(solver) for solver in ("ddpm", "ancestral")}


def measure(runs, out):
    from importlib.metadata import version

    import torch

    torch.set_num_threads(1)
    found, weights = cases()
    timed = [{"step": [], "bare": []} for _ in found]
    versions = {name: version(name) for name in ("scoreplug", "torch", "azula", "deepinv")}
    for done in range(runs + 1):
        for k in range(len(found)):
            place = (k + done) % len(found)
            _, _, step, needed = found[place]
            pair = [("step", step), ("bare", needed)]
            for key, run in pair if (k + done) % 2 else pair[::-1]:
                spent = seconds(run)
                if done:  # the first round fills tables and caches
                    timed[place][key].append(spent)
        if done:
            rows = [{"group": group, **facts, **timed[place]} for place, (group, facts, _, _) in enumerate(found)]
            result = {"rows": rows, "runs": done, "weights": weights, "versions": versions}
            out.write_text(json.dumps(result | {"machine": platform.machine()}, indent=1) + "\n")


def ratio(row):
    ratios = sorted(step / needed for step, needed in zip(row["step"], row["bare"], strict=True))
    if len(ratios) == 1:
        return f"{ratios[0]:.3f}"
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def share_of(row):
    return row["without_network"] / statistics.median(row["bare"])


def ms(row, key):
    return f"{1e3 * statistics.median(row[key]):.1f}"


def us(number):
    return f"{1e6 * number:.0f}"


def render(result):
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    rows = {group: [row for row in result["rows"] if row["group"] == group] for group in ("dps", "all", "peers")}
    text = HEAD.format(
        size="x".join(map(str, SHAPE)),
        parameters=result["weights"] / 1e6,
        index=INDEX,
        steps=STEPS,
        runs=result["runs"],
        versions=versions,
        share=max(share_of(row) for row in rows["dps"]),
    )
    for row in rows["dps"]:
        rest = row["without_network"]
        left = rest - row["draw"] - row["products"]
        text += (
            f"| {row['operator']} | {row['batch']} | {ms(row, 'bare')} | {ms(row, 'step')} | {ratio(row)} | {us(rest)} "
            f"| {share_of(row):.4f} | {us(row['draw'])} | {us(row['products'])} | {us(left)} |\n"
        )
    text += ALL
    for row in rows["all"]:
        text += (
            f"| {row['operator']} | {row['conditioner']} | {row['evaluation_calls']} | {row['vjp_calls']} "
            f"| {row['forward_calls']} | {row['adjoint_calls']} | {ms(row, 'bare')} | {ms(row, 'step')} | {ratio(row)} "
            f"| {us(row['without_network'])} |\n"
        )
    text += READING + PEERS
    for row in rows["peers"]:
        text += f"| {row['name']} | {ms(row, 'step')} | {ratio(row)} |\n"
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
        measure(options.runs, options.out)


if __name__ == "__main__":
    main()
