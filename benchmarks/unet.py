"""The network of `openai-unet` against the original's way to evaluate it: same weights, same numbers, one thread.

CPU time of an evaluation and of an evaluation with the gradient with respect to x, rounds interleaved in rotated order;
what torch.compile and bfloat16 change; and what recomputing activations saves in a step of DPS.

python benchmarks/unet.py --out docs/unet-speed.json           (some ten minutes; --without-compile halves that)
python benchmarks/unet.py --render docs/unet-speed.json --out docs/unet-speed.md
"""

import argparse
import copy
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

WIDE = {
    "channels": 3,
    "batch": 4,
    "flags": {
        "model_channels": 64,
        "channel_mult": (1, 2, 2, 2),
        "num_res_blocks": 1,
        "num_head_channels": 32,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
    },
}
NARROW = {
    "channels": 1,
    "batch": 8,
    "flags": {
        "model_channels": 32,
        "channel_mult": (1, 1, 2, 2),
        "num_res_blocks": 1,
        "num_head_channels": 32,
        "use_scale_shift_norm": True,
        "conv_resample": False,
    },
}
NETWORKS = {
    "small": {**WIDE, "attention": (2, 3), "about": "64 channels, attention over 256 and 64 tokens"},
    "attention": {**WIDE, "attention": (1, 2, 3), "about": "64 channels, attention over 1024 tokens too"},
    "ellipses-64": {**NARROW, "attention": (3,), "about": "32 channels, the network of the prior `ellipses-64`"},
}
SIZE = 64
SAMPLES = 16  # of the step of DPS
KINDS = {
    f"activations {what}, {n} residual block{'s' * (n > 1)} per level": {"use_checkpoint": again, "num_res_blocks": n}
    for n in (1, 2)
    for what, again in (("kept", False), ("recomputed", True))
}

HEAD = """# How fast the UNet is

The network of `openai-unet` against the way the original evaluates it: attention always recomputed for the gradient,
softmax and normalisations cast to float32, attention as two sums over products, weights that could be trained, an
embedding per sample. The weights are the same. Images of 64 x 64, float32, one thread, CPU time, {rounds} rounds in
which all variants run in rotated order. A ratio is the original's time over the variant's in the same round, so that
larger is faster: the median, and the quartiles. Differences are relative to the largest value. Measured by
`benchmarks/unet.py` with torch {torch}.

| network | variant | evaluation | with gradient | difference of output | of gradient |
|---|---|---|---|---|---|
"""

READING = """
* `plain order` is the network with PyTorch's default memory order: fused attention on contiguous q, k, v, frozen
  weights, nothing recomputed. `as used` is what `openai-unet` does by itself.
* From 64 channels on, images and convolution weights are channels-last, and a normalisation, its scale and shift by the
  time, and the SiLU after it are one node of the graph, which keeps one tensor for the gradient where PyTorch keeps
  three. Narrower networks, such as the shipped priors, stay in the default order: their convolutions gain as much as
  the normalisations lose.
* PyTorch's own group normalisation of channels-last tensors is not used: it loses digits where the values of a group
  are large and near each other, enough to fail the comparison with the original's stored values, and its gradient is
  several times slower than in the default order.
* The level is shared by the batch, so what the network makes of it is computed for one row, and kept for
  1024 levels: the second evaluation at a level, and the next trajectory, do without. This is
  dropped when the weights change (an assignment through `.data` is not noticed).

## Compiling, and bfloat16

Neither is on by default. `model.module.compile()` compiles the network of a prior in place; the first evaluation then
takes minutes. bfloat16 is asked for with `precision="bfloat16"`, or by an autocast around a run.

| variant | evaluation | with gradient | difference of output | of gradient | seconds before the first result |
|---|---|---|---|---|---|
"""

MEMORY = """
Ratios are to the network as used, in default floating-point precision. bfloat16: one sample, in a processor that may
have no instructions for it.

## Memory of a step of DPS

`use_checkpoint=true` keeps what lies between the blocks of the network, and computes what lies inside again for the
gradient. Samples are the same to the bit. The network `{network}` with {batch} samples; each row a process of its own,
its highest resident memory during one evaluation of the posterior's score, less that before. What it costs in time is
in the first table.

| | peak, MiB | share | same score |
|---|---|---|---|
"""


def network_of(name, seed=0):
    """A frozen model with nothing in its network zero."""
    import torch

    from scoreplug import registry

    spec = NETWORKS[name]
    shape = (spec["channels"], SIZE, SIZE)
    model = registry.get_model("openai-unet", image_shape=shape, attention_levels=spec["attention"], **spec["flags"])
    randomise(model.module, torch.Generator().manual_seed(seed))
    return model


def randomise(module, generator):
    import torch

    def drawn(name, value):
        z = torch.randn(value.shape, generator=generator)
        return z / value[0].numel() ** 0.5 if value.ndim > 1 else name.endswith("weight") + 0.1 * z

    module.load_state_dict({name: drawn(name, value) for name, value in module.state_dict().items()})


def original_of(unet):
    """The original's evaluation, for the flags that are measured here, on a copy of the network's weights."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    from scoreplug_builtin.models._unet import Attention, Pool, Residual

    class Recompute(torch.autograd.Function):
        """Keep the inputs, and evaluate once more for the gradient, that of the parameters too."""

        @staticmethod
        def forward(ctx, run, x, *parameters):
            ctx.run, ctx.x, ctx.parameters = run, x, parameters
            with torch.no_grad():
                return run(x)

        @staticmethod
        def backward(ctx, g):
            x = ctx.x.detach().requires_grad_()
            with torch.enable_grad():
                y = ctx.run(x.view_as(x))
            return None, *torch.autograd.grad(y, (x, *ctx.parameters), g)

    def norm(layer, x):
        return F.group_norm(x.float(), layer.num_groups, layer.weight, layer.bias).type(x.dtype)

    def attention(layer, image):
        batch, c, *size = image.shape
        x = image.reshape(batch, c, -1)
        q, k, v = layer.qkv(norm(layer.norm, x)).reshape(batch * layer.heads, -1, x.shape[-1]).chunk(3, dim=1)
        scale = q.shape[1] ** -0.25
        weight = torch.einsum("bct,bcs->bts", q * scale, k * scale)
        weight = torch.softmax(weight.float(), dim=-1).type(weight.dtype)
        h = torch.einsum("bts,bcs->bct", weight, v).reshape(batch, c, -1)
        return (x + layer.proj_out(h)).reshape(batch, c, *size)

    def residual(layer, x, emb):
        h = F.silu(norm(layer.in_layers[0], x))
        if layer.resample is not None:
            down = isinstance(layer.resample, Pool)
            h, x = (F.avg_pool2d(v, 2) if down else F.interpolate(v, scale_factor=2) for v in (h, x))
        h = layer.in_layers[2](h)
        e = layer.emb_layers[1](F.silu(emb)).type(h.dtype)[..., None, None]
        scale, shift = e.chunk(2, dim=1)
        h = norm(layer.out_layers[0], h) * (1 + scale) + shift
        return layer.skip_connection(x) + layer.out_layers[3](F.silu(h))

    def resample(layer, x):
        return F.avg_pool2d(x, 2) if hasattr(layer, "op") else F.interpolate(x, scale_factor=2)

    class Original(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = copy.deepcopy(unet).to(memory_format=torch.contiguous_format).requires_grad_()

        def block(self, block, h, emb):
            for layer in block:
                if isinstance(layer, Residual):
                    h = residual(layer, h, emb)
                elif isinstance(layer, Attention):
                    h = Recompute.apply(lambda x, layer=layer: attention(layer, x), h, *layer.parameters())
                else:
                    h = layer(h) if isinstance(layer, nn.Conv2d) else resample(layer, h)
            return h

        def forward(self, x, t):
            net, half = self.net, self.net.model_channels // 2
            f = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32) / half)
            angle = t[:, None].float() * f[None]
            emb = net.time_embed(torch.cat([angle.cos(), angle.sin()], dim=-1))
            h, skips = x.type(torch.float32), []
            for block in net.input_blocks:
                h = self.block(block, h, emb)
                skips.append(h)
            h = self.block(net.middle_block, h, emb)
            for block in net.output_blocks:
                h = self.block(block, torch.cat([h, skips.pop()], dim=1), emb)
            return net.out[2](F.silu(norm(net.out[0], h.type(x.dtype))))

    return Original()


def with_gradient(run, x, v):
    import torch

    x = x.detach().requires_grad_()
    y = run(x)
    return y.detach(), torch.autograd.grad(y, x, v)[0]


def without(run, x):
    import torch

    with torch.no_grad():
        return run(x)


def seconds(task):
    began = time.process_time()
    task()
    return time.process_time() - began


def compare(variants, x, v, rounds):
    """Ratios to the first variant, and differences from it."""
    names = list(variants)
    first = with_gradient(variants[names[0]], x, v)
    rows = {}
    for name, run in variants.items():
        began = time.perf_counter()
        values = (without(run, x), *with_gradient(run, x, v))
        waited = time.perf_counter() - began
        errors = [
            ((value.float() - reference).abs().max() / reference.abs().max()).item()
            for value, reference in zip(values[1:], first, strict=True)
        ]
        rows[name] = {"output": errors[0], "gradient": errors[1], "first_seconds": waited, "times": {}}
    times = {name: {"evaluation": [], "with gradient": []} for name in names}
    for i in range(rounds):
        at = i % len(names)
        for name in names[at:] + names[:at]:
            times[name]["evaluation"].append(seconds(lambda run=variants[name]: without(run, x)))
            times[name]["with gradient"].append(seconds(lambda run=variants[name]: with_gradient(run, x, v)))
    for name, row in rows.items():
        for task, spent in times[name].items():
            ratios = [a / b for a, b in zip(times[names[0]][task], spent, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3
            row["times"][task] = {
                "ms": 1e3 * statistics.median(spent),
                "ratio": middle,
                "low": low,
                "high": high,
            }
    return rows


def inputs(name, batch=None):
    import torch

    spec, generator = NETWORKS[name], torch.Generator().manual_seed(1)
    shape = (batch or spec["batch"], spec["channels"], SIZE, SIZE)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def speed(name, rounds):
    """The original, the network in PyTorch's order, and as the model uses it: with its embeddings at hand."""
    import torch

    model = network_of(name)
    unet, (x, v) = model.module, inputs(name)
    original = original_of(unet)
    plain = copy.deepcopy(unet).to(memory_format=torch.contiguous_format)
    plain.channels_last = False
    recomputing = copy.deepcopy(unet)
    recomputing.use_checkpoint = True
    t = torch.tensor(500.0, dtype=torch.float64)
    variants = {
        "original": lambda x: original(x, t.expand(len(x))),
        "plain order": lambda x: plain(x, t),
        "as used": lambda x: model._evaluate(x, t),
        "use_checkpoint": lambda x: recomputing(x, t),
    }
    return compare(variants, x, v, rounds)


def half_precision():
    """Two rounds, as one of bfloat16 can take very long."""
    import torch

    model = network_of("small")
    t, (x, v) = torch.tensor(500.0, dtype=torch.float64), inputs("small", batch=1)

    def autocast(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model._evaluate(x, t).float()

    return compare({"as used": lambda x: model._evaluate(x, t), "bfloat16 autocast": autocast}, x, v, 2)


def compiled(rounds):
    import torch

    model, other = network_of("small"), network_of("small")
    other.module.compile()
    t, (x, v) = torch.tensor(500.0, dtype=torch.float64), inputs("small")
    return compare(
        {"as used": lambda x: model._evaluate(x, t), "torch.compile": lambda x: other._evaluate(x, t)}, x, v, rounds
    )


def memory(use_checkpoint, num_res_blocks):
    """One evaluation of DPS in this process: its peak, and a fingerprint of the score."""
    import hashlib

    import attrs
    import torch

    from scoreplug import Measurement, registry

    torch.set_num_threads(1)
    model = attrs.evolve(network_of("small"), use_checkpoint=use_checkpoint, num_res_blocks=num_res_blocks)
    randomise(model.module, torch.Generator().manual_seed(0))
    x, _ = inputs("small", batch=SAMPLES)
    operator = registry.get_operator("inpainting", image_shape=model.shape)
    y = Measurement(operator, operator(x[:1])[0], noise_std=0.05)
    posterior = registry.get_conditioner("dps").condition(model, y)

    posterior.score(x[:1], torch.tensor(0.5, dtype=torch.float64))  # libraries are loaded, and weights reordered
    before = resident("VmRSS")
    score = posterior.score(x, torch.tensor(0.5, dtype=torch.float64))
    return {
        "peak": resident("VmHWM") - before,
        "score": hashlib.sha256(score.numpy().tobytes()).hexdigest()[:16],
    }


def resident(field):
    """MiB, from the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(out, rounds, *, compile_too):
    import torch

    torch.set_num_threads(1)
    result = {"rounds": rounds, "torch": torch.__version__, "machine": platform.machine()}

    def keep(key, value):
        result[key] = value
        out.write_text(json.dumps(result, indent=1) + "\n")

    keep("speed", {})
    for name in NETWORKS:
        keep("speed", result["speed"] | {name: speed(name, rounds)})
    # freed tensors go back to the system at once, so that resident memory is that of tensors
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    arguments = [sys.executable, __file__, "--out", str(out), "--memory"]
    keep(
        "memory",
        {
            kind: json.loads(
                subprocess.run([*arguments, kind], check=True, capture_output=True, text=True, env=environment).stdout
            )
            for kind in KINDS
        },
    )
    keep("half", half_precision())
    if compile_too:
        try:
            keep("compile", compiled(min(rounds, 5)))
        except RuntimeError as error:  # no compiler, or none that works
            keep("compile", f"{type(error).__name__}: {str(error).splitlines()[0]}")


def render(result):
    def ratio(row, task):
        found = row["times"][task]
        return f"{found['ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f})"

    def errors(row):
        return " | ".join(f"{row[key]:.0e}" if row[key] else "0" for key in ("output", "gradient"))

    text = HEAD.format(rounds=result["rounds"], torch=result["torch"])
    for name, rows in result["speed"].items():
        for variant, row in rows.items():
            spent = [f"{ratio(row, task)}, {row['times'][task]['ms']:.0f} ms" for task in row["times"]]
            text += f"| {NETWORKS[name]['about']} | {variant} | {' | '.join(spent)} | {errors(row)} |\n"
    text += READING
    for key in ("compile", "half"):
        rows = result.get(key)
        if rows is None:
            continue
        if isinstance(rows, str):
            text += f"| torch.compile | failed: {rows} | | | | |\n"
            continue
        for variant, row in rows.items():
            if variant != "as used":
                spent = " | ".join(ratio(row, task) for task in row["times"])
                text += f"| {variant} | {spent} | {errors(row)} | {row['first_seconds']:.0f} |\n"
    text += MEMORY.format(network="small", batch=SAMPLES)
    for kind, row in result["memory"].items():
        kept = result["memory"][kind.replace("recomputed", "kept")]
        same = "yes" if row["score"] == kept["score"] else "no"
        text += f"| {kind} | {row['peak']:.0f} | {row['peak'] / kept['peak']:.2f} | {same} |\n"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", type=Path, metavar="JSON")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--without-compile", action="store_true")
    parser.add_argument("--memory", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(json.dumps(memory(**KINDS[options.memory])))
    elif options.render:
        options.out.write_text(render(json.loads(options.render.read_text())))
    else:
        measure(options.out, options.rounds, compile_too=not options.without_compile)


if __name__ == "__main__":
    main()
