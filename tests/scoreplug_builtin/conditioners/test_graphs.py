"""What guidance asks of a network: one forward pass, a graph only for a derivative, and nothing kept afterwards."""

import gc
import weakref

import pytest
import torch

from scoreplug import Noise, registry, simulate
from scoreplug.model import last_vjp

SHAPE = (1, 8, 8)
SPECS = registry.list("conditioner")
WITHOUT, WITH = ([spec.name for spec in SPECS if spec.vjp is vjp] for vjp in (False, True))
MANY = ("mmps", "tmpd")  # several vjps of one evaluation
PARAMS = {
    "mmps": {"dense": 0, "max_steps": 3},
    "pigdm": {"scale": 1e-3},  # a network that knows nothing lets 1 diverge within four steps
}


class Watched:
    """A small network, its forward passes, and the tensors that autograd saves meanwhile."""

    def __init__(self):
        self.prior = registry.get_model(
            "openai-unet",
            image_shape=SHAPE,
            model_channels=32,
            num_res_blocks=1,
            channel_mult=(1, 2),
            attention_resolutions=(4,),
        )
        self.grad_modes, self.with_graph, self.saved = [], [], []
        self.prior.module.register_forward_pre_hook(lambda *_: self.grad_modes.append(torch.is_grad_enabled()))
        self.prior.module.register_forward_hook(lambda *args: self.with_graph.append(args[2].requires_grad))

    def posterior(self, name):
        operator = registry.get_operator("inpainting", image_shape=SHAPE)
        measurement = simulate(operator, torch.zeros(SHAPE), 0.1)
        return registry.get_conditioner(name, **PARAMS.get(name, {})).condition(self.prior, measurement)

    def saving(self):
        def pack(tensor):
            held = Held(tensor.detach())  # with its graph, it would keep itself alive
            self.saved.append(weakref.ref(held))
            return held

        return torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor)


class Held:
    def __init__(self, tensor):
        self.tensor = tensor


class Listening:
    """A vjp that notes how it was asked."""

    def __init__(self, vjp, asked):
        self.vjp, self.asked = vjp, asked

    def __call__(self, v):
        self.asked.append("not last")
        return self.vjp(v)

    def last(self, v):
        self.asked.append("last")
        return self.vjp.last(v)


@pytest.fixture
def watched():
    return Watched()


def take_a_step(model):
    """The second step, so that nothing of the start is in it."""
    sampler = registry.get_sampler("ancestral", steps=4)
    trajectory = sampler.trajectory(model, Noise(0, range(2), dtype=model.dtype, device=model.device))
    state = [next(trajectory) for _ in range(2)][-1]
    return sampler, state


@pytest.mark.parametrize("name", WITHOUT)
def test_a_step_without_vjp_saves_no_tensor_for_a_backward_pass(watched, name):
    model = watched.posterior(name)
    sampler, state = take_a_step(model)
    watched.grad_modes.clear()

    with watched.saving(), torch.no_grad():
        sampler.step(model, state, Noise(0, range(2), dtype=model.dtype, device=model.device))

    assert watched.grad_modes == [False]
    assert watched.saved == []


@pytest.mark.parametrize("name", WITHOUT)
def test_an_evaluation_without_vjp_builds_no_graph_even_where_gradients_are_on(watched, name):
    """The weights are frozen, so that nothing asks for one."""
    model = watched.posterior(name)

    with watched.saving(), torch.enable_grad():
        x0 = model.denoise(torch.ones(2, *SHAPE), torch.tensor(0.5, dtype=torch.float64))

    assert watched.saved == []
    assert not x0.requires_grad


@pytest.mark.parametrize("name", [spec.name for spec in SPECS])
def test_weights_are_frozen_and_get_no_gradient(watched, name):
    model = watched.posterior(name)
    before = [weight.clone() for weight in watched.prior.module.parameters()]

    take_a_step(model)

    weights = list(watched.prior.module.parameters())
    assert not any(weight.requires_grad for weight in weights)
    assert all(weight.grad is None for weight in weights)
    assert all(torch.equal(*pair) for pair in zip(weights, before, strict=True))


@pytest.mark.parametrize("name", WITH)
def test_an_evaluation_with_vjps_is_one_forward_pass_with_a_graph(watched, name):
    model = watched.posterior(name)
    asked, with_vjp = [], type(watched.prior).denoise_with_vjp

    def listening(self, x, t):
        x0, vjp = with_vjp(self, x, t)
        return x0, Listening(vjp, asked)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(type(watched.prior), "denoise_with_vjp", listening)
        x0 = model.denoise(torch.ones(2, *SHAPE), torch.tensor(0.5, dtype=torch.float64))

    assert watched.with_graph == [True]
    assert len(asked) > 1 if name in MANY else asked == ["last"]
    assert "last" not in asked[:-1]
    assert asked[-1] == "last" or name == "tmpd"  # whose twist hands the vjp on
    assert not x0.requires_grad


@pytest.mark.parametrize("name", WITH)
def test_the_graph_is_freed_with_the_step(watched, name):
    """By reference counts alone: the graph of a large network must not wait for a collection of cycles."""
    model = watched.posterior(name)
    sampler, state = take_a_step(model)
    gc.collect()
    gc.disable()
    try:
        with watched.saving(), torch.no_grad():
            after = sampler.step(model, state, Noise(0, range(2), dtype=model.dtype, device=model.device))
        alive = sum(ref() is not None for ref in watched.saved)
    finally:
        gc.enable()

    assert watched.saved
    assert alive == 0
    assert after.x.grad_fn is None


def test_a_last_product_is_the_same_and_frees_the_graph_on_its_way(watched):
    _, vjp = watched.prior.denoise_with_vjp(torch.ones(2, *SHAPE), torch.tensor(0.5, dtype=torch.float64))
    v = torch.arange(128.0).reshape(2, *SHAPE)

    several, last = vjp(v), last_vjp(vjp, v)

    assert torch.equal(several, last)
    with pytest.raises(RuntimeError, match="second time"):
        vjp(v)


def test_a_vjp_that_knows_no_last_one_is_asked_as_always():
    assert last_vjp(lambda v: 2 * v, torch.ones(())) == 2
