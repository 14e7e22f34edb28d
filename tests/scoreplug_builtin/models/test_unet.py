"""The UNet against the original's values, and at the sizes where the original has none."""

import gzip
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from scoreplug_builtin.models._unet import Nearest, Pool, UNet, attend, timestep_embedding

GOLDEN = Path(__file__).parents[2] / "golden"

# Checksums of the weights that the reference ran with (golden/README.md), float32, in the order of the state dict.
NETWORKS = {
    "unet_a_updown_scaleshift": "c93ba79e92211116",
    "unet_b_plain_gray": "78855c22821ea561",
    "unet_c_classcond_neworder": "3d2dbe99bcfdbcdc",
    "unet_d_multiattn_heads": "7c868e6a76b2ef2d",
    "unet_e_pool_headsup": "94bb682839334ce6",
    "unet_f_fracmult_updown": "c4d49a5d37242027",
}
CASES = [
    (name, case) for name in NETWORKS for case in range(2) if case == 0 or name[5] in "abe"
]  # three of them have a second case
RESAMPLERS = {
    "residual": {"resblock_updown": True},
    "convolution": {"conv_resample": True},
    "pooling": {"conv_resample": False},
}


def load(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()


def weights(network: nn.Module, *, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights of a golden network, by the rule of golden/README.md."""
    rng = np.random.Generator(np.random.PCG64(seed))

    def draw(name: str, shape: torch.Size) -> np.ndarray:
        z = rng.standard_normal(tuple(shape))
        if len(shape) == 1:
            return 1 + 0.2 * z if name.endswith(".weight") else 0.1 * z
        if name == "label_emb.weight":
            return 0.7 * z
        gain = 1.0
        if name.endswith("qkv.weight"):
            gain = 1.5
        elif name.endswith(("out_layers.3.weight", "proj_out.weight")) or name == "out.2.weight":
            gain = 0.6
        return gain * z / np.sqrt(np.prod(shape[1:]))

    return {
        name: torch.from_numpy(draw(name, value.shape)).to(dtype).to(torch.float32)
        for name, value in network.state_dict().items()
    }


def golden_network(name: str) -> tuple[UNet, dict[str, Tensor], dict[str, str]]:
    tensors, about = load(name)
    network = UNet(**json.loads(about["config"]))
    seed = "abcdef".index(name[5]) + 1
    network.load_state_dict(weights(network, seed=seed, dtype=getattr(torch, about["stored_weight_dtype"])))
    return network.eval().requires_grad_(False), tensors, about


def small(seed: int = 0, wide: int = 32, **flags: object) -> UNet:
    """A UNet of three levels in float64 with nothing in it zero."""
    flags = {"in_channels": 1, "out_channels": 1, "channel_mult": (1, 1, 2), "use_scale_shift_norm": True} | flags
    network = UNet(model_channels=wide, num_res_blocks=1, **flags).double().eval().requires_grad_(False)
    network.load_state_dict(weights(network, seed=seed, dtype=torch.float32))
    return network


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def distance(value: Tensor, reference: Tensor) -> float:
    """Largest difference relative to the largest reference value."""
    return ((value - reference).abs().max() / reference.abs().max()).item()


def middle(network: UNet, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    seen: list[Tensor] = []
    with network.middle_block.register_forward_hook(lambda module, args, output: seen.append(output)):
        network(x, t, labels)
    return seen[0]


# The original's values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "case"), CASES)
def test_network_equals_the_original(name, case):
    """Output and input gradient are the original's to 1e-5."""
    network, golden, about = golden_network(name)
    inputs = {key: golden.get(f"case{case}.{key}") for key in ("x", "timesteps", "labels", "cotangent")}
    x = inputs["x"].requires_grad_()

    output = network(x, inputs["timesteps"], inputs["labels"])
    (gradient,) = torch.autograd.grad((output * inputs["cotangent"]).sum(), x)

    assert distance(output, golden[f"case{case}.output"]) <= 1e-5
    # The reference gradient has a rounding error of its own, up to 1.4e-5, which the file tells.
    expected = golden[f"case{case}.grad_x"]
    own_error = json.loads(about["cases"])[case]["grad_max_abs_diff_to_float64"] / expected.abs().max().item()
    assert distance(gradient, expected) <= 1e-5 + own_error


@pytest.mark.parametrize(("name", "case"), CASES)
def test_inner_values_equal_the_original(name, case):
    """Embedding and middle block too, so that a wrong output tells where it went wrong."""
    network, golden, _ = golden_network(name)
    x, t, labels = (golden.get(f"case{case}.{key}") for key in ("x", "timesteps", "labels"))

    # The same float32 operations in the same order: equal but for the order of sums in matrix products, 1e-6.
    assert distance(network.embed(t, labels), golden[f"case{case}.emb"]) <= 1e-6
    assert distance(middle(network, x, t, labels), golden[f"case{case}.middle"]) <= 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_golden_weights_are_the_ones_of_the_reference(name):
    network, _, _ = golden_network(name)
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.numpy().tobytes())

    assert digest.hexdigest()[:16] == NETWORKS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_number_of_parameters(name):
    network, _, about = golden_network(name)

    assert sum(p.numel() for p in network.parameters()) == int(about["num_parameters"])


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("keys_*.json.gz")), ids=lambda path: path.name[5:-8])
def test_state_dict_has_the_names_shapes_and_order_of_the_published_networks(path):
    golden = json.loads(gzip.decompress(path.read_bytes()))
    flags, unet = golden["flags"], golden["unet"]
    same = ("num_heads", "num_head_channels", "num_heads_upsample", "use_scale_shift_norm", "resblock_updown")
    with torch.device("meta"):
        network = UNet(
            attention_resolutions=unet.pop("attention_downsample_factors"),
            **unet,
            **{name: flags[name] for name in same},
        )

    assert [(k, list(v.shape)) for k, v in network.state_dict().items()] == list(golden["state_dict"].items())
    assert sum(p.numel() for p in network.parameters()) == golden["num_parameters"]


def test_timestep_embedding_equals_the_original():
    golden, _ = load("timestep_embedding")
    for key in (key for key in golden if "." in key):
        kind, dim = key.split(".dim")
        t = golden["t_int" if kind == "int" else "t_float"]
        period = 100.0 if kind == "period100" else 10_000.0

        value = timestep_embedding(t, int(dim), max_period=period, dtype=torch.float32)

        # cos and sin of angles up to 999 whose own float32 rounding is 6e-5; vectorised kernels may differ by that
        torch.testing.assert_close(value, golden[key], rtol=0, atol=6e-5)


def test_timestep_embedding_begins_with_cosines_of_descending_frequencies():
    t = torch.tensor([0.0, 2.0], dtype=torch.float64)
    expected = [[1, 1, 0, 0, 0], [np.cos(2), np.cos(0.02), np.sin(2), np.sin(0.02), 0]]  # f = 1, 10000^(-1/2)

    value = timestep_embedding(t, 5, dtype=torch.float64)

    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize(("heads", "size"), [(1, "c32l16"), (2, "c32l64"), (4, "c16l25")])
def test_attention_equals_the_original(order, heads, size):
    golden, _ = load("qkv_attention")
    key = f"h{heads}{size}"

    value = attend(golden[f"{key}.qkv"].transpose(1, 2), heads, qkv_major=order == "new").transpose(1, 2)

    # float32 softmax and two sums over 64 terms at most: 64 x 6e-8, relative to values of order 1
    assert distance(value, golden[f"{key}.{order}"]) <= 4e-6


# Any size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd_sizes", ["ceil", "floor"])
@pytest.mark.parametrize("resampler", RESAMPLERS)
@pytest.mark.parametrize("size", [(50, 50), (33, 47), (7, 10)], ids=str)
def test_any_size_has_an_output_and_a_gradient_everywhere(size, resampler, odd_sizes):
    network = small(odd_sizes=odd_sizes, attention_resolutions=(4,), **RESAMPLERS[resampler])
    x = image(2, 1, *size).requires_grad_()

    output = network(x, torch.tensor(30.0))
    (gradient,) = torch.autograd.grad(output.square().sum(), x)

    assert output.shape == x.shape
    assert gradient.abs().min() > 0
    assert output.std() > 0.01


@pytest.mark.parametrize("resampler", RESAMPLERS)
def test_rounding_is_irrelevant_where_nothing_is_rounded(resampler):
    x, t = image(1, 1, 12, 20), torch.tensor(30.0)
    ceil, floor = (small(odd_sizes=odd, **RESAMPLERS[resampler])(x, t) for odd in ("ceil", "floor"))

    assert torch.equal(ceil, floor)


@pytest.mark.parametrize(("odd_sizes", "expected"), [("ceil", (9, 12)), ("floor", (8, 11))])
def test_odd_sizes_says_how_pooling_rounds(odd_sizes, expected):
    network = small(odd_sizes=odd_sizes, resblock_updown=True)

    assert middle(network, image(1, 1, 33, 47), torch.tensor(30.0)).shape[2:] == expected


def test_ceil_pooling_averages_the_pixels_that_exist():
    x = torch.tensor([[1.0, 3.0, 5.0], [1.0, 3.0, 7.0], [2.0, 4.0, 9.0]])[None, None]

    assert Pool(2, "ceil")(x)[0, 0].tolist() == [[2.0, 6.0], [3.0, 9.0]]
    assert Pool(2, "floor")(x)[0, 0].tolist() == [[2.0]]


@pytest.mark.parametrize("n", [5, 33, 50, 501])
def test_ceil_pooling_keeps_cells_aligned(n):
    """Up-sampling returns each pixel the cell that it went into; with "floor" it does not."""
    cell = (torch.arange(n) // 2).double().expand(1, 1, n, n)

    up_again = Nearest()(Pool(2, "ceil")(cell), torch.Size((n, n)))

    assert torch.equal(up_again, cell)


@pytest.mark.parametrize("resampler", RESAMPLERS)
def test_third_dimension_is_never_resampled(resampler):
    network = small(dims=3, **RESAMPLERS[resampler])

    assert middle(network, image(1, 1, 3, 8, 9), torch.tensor(30.0)).shape == (1, 64, 3, 2, 3)


@pytest.mark.parametrize("resampler", RESAMPLERS)
@pytest.mark.parametrize(("dims", "size"), [(1, (13,)), (3, (3, 6, 7))])
def test_one_and_three_dimensions(dims, size, resampler):
    network = small(dims=dims, attention_resolutions=(4,), **RESAMPLERS[resampler])
    x = image(1, 1, *size)

    assert network(x, torch.tensor(30.0)).shape == x.shape


# A well-behaved module ------------------------------------------------------------------------------------------------


def test_a_sample_does_not_depend_on_its_batch_mates():
    network = small(attention_resolutions=(2,), num_head_channels=16)
    x, t = image(3, 1, 12, 12), torch.tensor([10.0, 20.0, 30.0])

    # float64 matrix products of 1e3 terms, summed in an order that may depend on the batch: 1e3 x 1e-16
    torch.testing.assert_close(network(x, t)[1:2], network(x[1:2], t[1:2]), rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_time_is_shared_by_the_batch(shape):
    network = small(num_classes=4)
    x, t, label = image(2, 1, 8, 8), torch.full(shape, 17.5), torch.full(shape, 3)

    # as above
    torch.testing.assert_close(network(x, t, label), network(x, t.expand(2), label.expand(2)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_channels_last_and_the_default_order_agree(width, dtype):
    """Per-sample times too: scale and shift then differ within the batch."""
    network = small(attention_resolutions=(2,), wide=width).to(dtype)
    x, t = image(2, 1, 12, 12).to(dtype), torch.tensor([30.0, 400.0], dtype=dtype)
    values = []
    for order in (True, False):
        network.channels_last = order
        leaf = x.clone().requires_grad_()
        y = network(leaf, t)
        values.append((y, *torch.autograd.grad(y.square().sum(), leaf)))
    eps = torch.finfo(dtype).eps

    for ours, plain in zip(*values, strict=True):
        assert distance(ours, plain) <= 200 * eps  # ten layers, sums of 1e3 terms in another order


def test_wide_networks_are_channels_last_inside_and_narrow_ones_are_not():
    for width, expected in ((32, False), (64, True)):
        h = middle(small(wide=width), image(2, 1, 12, 12), torch.tensor(30.0))
        assert h.is_contiguous(memory_format=torch.channels_last) is expected


def test_embeddings_at_hand_are_those_of_the_time():
    network = small(num_classes=4)
    x, t, label = image(2, 1, 8, 8), torch.tensor(17.5), torch.tensor([3])

    assert torch.equal(network(x, embeddings=network.embeddings(t, label)), network(x, t, label))
    for given in ({}, {"timesteps": t, "embeddings": network.embeddings(t, label)}):
        with pytest.raises(ValueError, match="give timesteps, or the embeddings made of them"):
            network(x, **given)


@pytest.mark.skipif("SCOREPLUG_COMPILE" not in os.environ, reason="takes minutes: set SCOREPLUG_COMPILE=1")
def test_a_compiled_gradient_is_the_same():
    network = small(attention_resolutions=(2,), wide=64).float()
    x, t = image(1, 1, 8, 8).float(), torch.tensor(30.0)
    gradients = []
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        gradients += torch.autograd.grad(network(leaf, t).square().sum(), leaf)
        network.compile()

    assert distance(*gradients) <= 2e-5  # float32, another order of sums


def test_recomputing_activations_changes_nothing():
    flags = {"attention_resolutions": (2,), "resblock_updown": True}
    plain, recomputing = small(**flags), small(use_checkpoint=True, **flags)
    x, t = image(1, 1, 9, 9).requires_grad_(), torch.tensor(30.0)

    gradients = [torch.autograd.grad(network(x, t).square().sum(), x)[0] for network in (plain, recomputing)]

    assert torch.equal(*gradients)


def test_recomputing_activations_keeps_fewer_of_them():
    def kept(network: UNet) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda v: sizes.append(v.numel()) or v, lambda v: v):
            network(image(1, 1, 16, 16).requires_grad_(), torch.tensor(30.0))
        return sum(sizes)

    assert kept(small(use_checkpoint=True)) < 0.5 * kept(small())


def test_gradient_is_that_of_finite_differences():
    network = small(attention_resolutions=(4,), resblock_updown=True)
    x, t, v = image(1, 1, 7, 5), torch.tensor(30.0), image(1, 1, 7, 5, seed=1)
    h = 1e-5

    _, pullback = torch.func.vjp(lambda x: network(x, t).square().sum(), x)
    (gradient,) = pullback(torch.ones((), dtype=torch.float64))
    difference = (network(x + h * v, t).square().sum() - network(x - h * v, t).square().sum()) / (2 * h)

    # central differences: h^2 = 1e-10 from the third derivative, 1e-16 / h = 1e-11 from rounding, times values of 10
    torch.testing.assert_close((gradient * v).sum(), difference, rtol=1e-7, atol=0)


def test_second_derivatives_exist_with_the_plain_attention():
    network = small(attention_resolutions=(2,))
    x, t = image(1, 1, 8, 8).requires_grad_(), torch.tensor(30.0)

    with sdpa_kernel(SDPBackend.MATH):
        (first,) = torch.autograd.grad(network(x, t).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)

    assert second.abs().max() > 0


def test_half_precision_blocks_give_the_same_to_half_precision():
    full = small(attention_resolutions=(2,)).float()
    half = UNet(
        in_channels=1, out_channels=1, model_channels=32, num_res_blocks=1, channel_mult=(1, 1, 2),
        attention_resolutions=(2,), use_scale_shift_norm=True, use_fp16=True,
    ).eval()  # fmt: skip
    half.load_state_dict(full.state_dict())
    x, t = image(1, 1, 8, 8).float(), torch.tensor(30.0)

    output = half(x, t)

    assert output.dtype == torch.float32
    assert half.middle_block[0].in_layers[2].weight.dtype == torch.float16
    # ten layers of float16 rounding, 5e-4 each, add up like sqrt(10); three times that
    assert 0 < distance(output, full(x, t)) < 5e-3


def test_a_fresh_network_returns_zero_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    network = UNet(in_channels=1, out_channels=2, model_channels=32, num_res_blocks=1, channel_mult=(1, 2))

    assert not network(image(1, 1, 8, 8).float(), torch.tensor(30.0)).any()
    assert torch.equal(torch.get_rng_state(), state)


def test_blocks_of_a_fresh_network_start_as_their_shortcuts():
    """Zero are the last layers of residual and attention blocks and of the network, and biases of normalisations."""
    network = UNet(in_channels=1, out_channels=1, model_channels=32, num_res_blocks=1, channel_mult=(1, 2))
    zero = {name for name, value in network.named_parameters() if not value.any()}

    last = {name for name in network.state_dict() if "out_layers.3." in name or "proj_out." in name or "out.2." in name}
    norms = {f"{name}.bias" for name, layer in network.named_modules() if isinstance(layer, nn.GroupNorm)}
    assert zero == last | norms


def test_fresh_weights_come_from_the_generator():
    first, same, other = (
        UNet(
            in_channels=1, out_channels=1, model_channels=32, num_res_blocks=1, channel_mult=(1,),
            generator=torch.Generator().manual_seed(seed),
        ).time_embed[0].weight
        for seed in (1, 1, 2)
    )  # fmt: skip

    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    # uniform on +-1/sqrt(fan in), PyTorch's default: of 4096 draws the largest is within 1 % of the bound
    assert 0.99 < first.abs().max() * np.sqrt(32) <= 1


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"attention_resolutions": (3,)}, r"down-sampling factors \[1, 2, 4\] \(got \[3\]\)"),
        ({"attention_resolutions": (8,)}, r"down-sampling factors \[1, 2, 4\] \(got \[8\]\)"),
        ({"channel_mult": (1, 1.5)}, r"48 channels cannot be divided by the number of normalisation groups \(got 32\)"),
        ({"num_heads": 5}, r"64 channels cannot be divided by num_heads \(got 5\)"),
        ({"num_head_channels": 48}, r"64 channels cannot be divided by num_head_channels \(got 48\)"),
        ({"dims": 4}, r"1, 2 or 3 \(got 4\)"),
        ({"odd_sizes": "round"}, r"'ceil' or 'floor' \(got 'round'\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_impossible_flags_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        small(**flags)


@pytest.mark.parametrize(
    ("flags", "shape", "labels", "error", "message"),
    [
        ({}, (1, 2, 8, 8), None, ValueError, r"takes \(B, 1, H, W\) \(got \(1, 2, 8, 8\)\)"),
        ({}, (1, 8, 8), None, ValueError, r"takes \(B, 1, H, W\) \(got \(1, 8, 8\)\)"),
        ({}, (1, 1, 8, 8), torch.tensor(0), ValueError, "if and only if the network has classes"),
        ({"num_classes": 3}, (1, 1, 8, 8), None, ValueError, "if and only if the network has classes"),
        ({"odd_sizes": "floor", "resblock_updown": True}, (1, 1, 8, 3), None, ValueError, "4 pixels or more"),
    ],
    ids=["channels", "rank", "label-superfluous", "label-missing", "too-small"],
)
def test_impossible_inputs_are_refused(flags, shape, labels, error, message):
    with pytest.raises(error, match=message):
        small(**flags)(image(*shape), torch.tensor(30.0), labels)


def test_another_dtype_than_that_of_the_parameters_is_refused():
    with pytest.raises(TypeError, match=r"parameters are torch\.float64, so must x be \(got torch\.float32\)"):
        small()(image(1, 1, 8, 8).float(), torch.tensor(30.0))
