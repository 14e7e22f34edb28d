"""Long runs take no more memory than short ones.

The whole of it, 10,000 steps of 64 samples for every sampler, is `benchmarks/scaling.py --only leaks`.
"""

import gc
import itertools
import sys

import pytest
import torch

from scoreplug import Noise, registry, simulate
from scoreplug.run import compatibility
from scoreplug.run.memory import give_back, now_on

CPU = torch.device("cpu")
SHAPE = (1, 8, 8)
SHORT = {name: {"moves": 1} for name in ("ula", "mala", "hmc")} | {"time-travel": {"repeats": 2, "jump": 1}}
SAMPLERS = [spec.name for spec in registry.list("sampler")]
CONDITIONERS = ["none", "dps", "mmps", "ddrm", "diffpir"]
PAIRS = [
    (conditioner, sampler)
    for conditioner, sampler in itertools.product(CONDITIONERS, SAMPLERS)
    if compatibility.verdict(registry.spec("conditioner", conditioner), registry.spec("sampler", sampler)).state
    in ("published", "runs")
]


def posterior(conditioner):
    prior = registry.get_model("gaussian", image_shape=SHAPE, covariance=0.1, precision="float32")
    operator = registry.get_operator("inpainting", image_shape=SHAPE)
    y = simulate(operator, torch.linspace(0, 1, 64).reshape(SHAPE), 0.1)
    params = {"dps": {"scale": 0.02}, "mmps": {"dense": 64}}.get(conditioner, {})
    return registry.get_conditioner(conditioner, **params).condition(prior, y)


def trajectory(model, sampler, steps, n):
    made = registry.get_sampler(sampler, steps=steps, **SHORT.get(sampler, {}))
    return made.trajectory(model, Noise(0, range(n), dtype=torch.float32, device=CPU))


def live():
    """Tensors that were made since `gc.freeze`, and still are."""
    gc.collect()
    return sum(type(thing) is torch.Tensor for thing in gc.get_objects())


@pytest.mark.parametrize(("conditioner", "sampler"), PAIRS)
def test_no_step_leaves_a_tensor_or_a_graph_behind(conditioner, sampler):
    model, counts = posterior(conditioner), {}
    for _ in trajectory(model, sampler, 12, 2):  # tables of levels are made
        pass

    gc.collect()
    gc.freeze()
    for state in trajectory(model, sampler, 12, 2):
        assert not state.x.requires_grad
        if not state.last and state.index in (3, 11):
            counts[state.index] = live()
    gc.unfreeze()

    assert counts[11] <= counts[3]


def test_a_trajectory_leaves_no_more_than_its_samples_behind():
    """Grids of the last four are kept as levels, each of them a tensor; those of 200 steps would be 201 each time."""
    model, counts = posterior("dps"), []
    gc.collect()
    gc.freeze()
    for _ in range(8):
        for _ in trajectory(model, "em", 200, 2):
            pass
        counts.append(live())
    gc.unfreeze()

    assert counts[7] == counts[5]


@pytest.mark.skipif(sys.platform != "linux", reason="the resident size is read from /proc")
@pytest.mark.parametrize(("conditioner", "sampler"), [("dps", "em"), ("none", "pc")])
def test_the_resident_size_is_flat_over_two_thousand_steps(conditioner, sampler):
    """An image of 64 samples has 16 kB: one that stayed in each step would be 24 MB in the 1,500 that are measured. The
    levels' coefficients may be tabulated, half a kilobyte each; the kernel's counters are off by less than 1 MB."""
    model, sizes = posterior(conditioner), {}
    for state in trajectory(model, sampler, 2000, 64):
        if state.index in (500, 2000) and state.index not in sizes:
            give_back(CPU)
            sizes[state.index] = now_on(CPU)

    assert sizes[2000] - sizes[500] < 1500 * 1024 + 10**6
