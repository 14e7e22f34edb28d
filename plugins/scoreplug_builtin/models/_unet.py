r"""The UNet of guided diffusion (ADM), for images of any size.

A function F(x, t[, y]) with the parameter names and shapes of the original, so that its published state dicts load
unchanged. On sizes that are multiples of 2^(levels - 1) it is the original; on all others two things are added, both of
which do nothing where the original is defined:

* pooling rounds up (`odd_sizes="ceil"`), the last cell averages what exists, so that cells stay aligned at all levels;
* an up-sampling block interpolates (nearest) to the size of the next skip connection instead of doubling.

The arithmetic is the original's, its organisation is not: attention is PyTorch's fused one, on q, k, v that are
contiguous in the last dimension; nothing is computed twice for the gradient unless `use_checkpoint` says so (the
original always does, for attention); what depends on the level alone can be kept (`UNet.embeddings`); and wide networks
with frozen weights are evaluated channels-last on a CPU, normalisations fused with what follows them (`normalise`).

References:
    Dhariwal, Nichol: Diffusion Models Beat GANs on Image Synthesis. NeurIPS 2021, arXiv:2105.05233.
    Nichol, Dhariwal: Improved Denoising Diffusion Probabilistic Models. ICML 2021, arXiv:2102.09672.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torch.utils.checkpoint import checkpoint

from scoreplug_builtin.models._norm import is_fixed, normalise

OddSizes = Literal["ceil", "floor"]
Layer = TypeVar("Layer", bound=nn.Module)
Embeddings = tuple[tuple[Tensor, ...], ...]
"""What enters the residual layers of each block, (B or 1, C or 2 C) each."""

GROUPS = 32  # of every group normalisation; hence every width is a multiple of it
WIDE = 64  # from this base width on, faster convolutions outweigh the more numerous operations of a normalisation

_CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def timestep_embedding(t: Tensor, dim: int, *, max_period: float = 10_000.0, dtype: torch.dtype) -> Tensor:
    r"""Embed t as [cos(t f), sin(t f)] with f_k = max_period^(-k / half), k = 0 .. half - 1, half = dim // 2.

    Args:
        t: (B,), indices of the noise levels, integer or fractional.
        dim: length of one embedding; an odd one ends in a zero.
        max_period: controls the lowest frequency.
        dtype: in which it is computed; float32 in the original.

    Returns:
        (B, dim).
    """
    half = dim // 2
    k = torch.arange(half, device=t.device, dtype=dtype)
    f = torch.exp(-math.log(max_period) * k / half)
    angle = t.to(dtype)[:, None] * f
    return F.pad(torch.cat([angle.cos(), angle.sin()], dim=1), (0, dim % 2))


class UNet(nn.Module):
    """The network F(x, t[, y]); neither x nor the output is scaled in any way.

    Every layer computes in the dtype of its own parameters: `double()` makes the whole network double. A fresh network
    returns exactly 0. Attention is PyTorch's fused one, which has no second derivative; where one is needed, evaluate
    inside `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.

    Args:
        in_channels: channels of x.
        out_channels: channels of the output; twice in_channels if the variance is learned.
        model_channels: base width M; the embedding of t has width 4 M.
        num_res_blocks: residual blocks per level going down; one more going up.
        attention_resolutions: down-sampling FACTORS (1, 2, 4, ...) with attention; the middle block always has it.
        image_size: ignored, kept for the original's configurations: any size will do.
        dropout: probability, inside the residual blocks.
        channel_mult: width of each level in units of M; fractions are allowed.
        conv_resample: learned convolutions change the size; used only without resblock_updown.
        dims: spatial dimensions, 1, 2 or 3; in 3 the first is never resampled.
        num_classes: number of classes, if the network is conditional on a label.
        use_checkpoint: keep no activations inside the blocks, compute them again for the gradient.
        use_fp16: the convolutions between the first and the last block are float16.
        num_heads: attention heads, used if num_head_channels is -1.
        num_head_channels: channels per head.
        num_heads_upsample: heads on the way up; -1 means num_heads.
        use_scale_shift_norm: the embedding scales and shifts the normalised features (FiLM), else is added before.
        resblock_updown: residual blocks change the size.
        use_new_attention_order: channels of `qkv` are [q, k, v] of all heads, instead of [q, k, v] head by head.
        odd_sizes: whether 2x2 pooling of n cells gives ceil(n / 2) or floor(n / 2). It is part of what was trained.
        generator: source of the initial weights; the default is a fresh one with seed 0, never PyTorch's global one.

    Raises:
        ValueError: if a width is no multiple of 32 or of its heads, or attention is asked for where there is no level.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        model_channels: int,
        num_res_blocks: int,
        attention_resolutions: Collection[int] = (),
        image_size: int | None = None,
        dropout: float = 0.0,
        channel_mult: Sequence[float] = (1, 2, 4, 8),
        conv_resample: bool = True,
        dims: int = 2,
        num_classes: int | None = None,
        use_checkpoint: bool = False,
        use_fp16: bool = False,
        num_heads: int = 1,
        num_head_channels: int = -1,
        num_heads_upsample: int = -1,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        use_new_attention_order: bool = False,
        odd_sizes: OddSizes = "ceil",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        del image_size
        if dims not in _CONV:
            raise ValueError(f"dims is the number of spatial dimensions, 1, 2 or 3 (got {dims!r})")
        if odd_sizes not in ("ceil", "floor"):
            raise ValueError(f"odd_sizes must be 'ceil' or 'floor' (got {odd_sizes!r})")
        factors = [2**level for level in range(len(channel_mult))]
        if unknown := sorted(set(attention_resolutions) - set(factors)):
            raise ValueError(f"attention is possible at the down-sampling factors {factors} (got {unknown})")
        self.in_channels = in_channels
        self.model_channels = model_channels
        self.dims = dims
        self.num_classes = num_classes
        self.use_checkpoint = use_checkpoint
        self.dropout = dropout
        self.channels_last = dims == 2 and model_channels >= WIDE
        self.smallest = 1 if odd_sizes == "ceil" or (conv_resample and not resblock_updown) else factors[-1]

        embedding = 4 * model_channels

        def residual(a: int, b: int, resample: nn.Module | None = None) -> Residual:
            return Residual(a, b, embedding, dims, dropout=dropout, film=use_scale_shift_norm, resample=resample)

        def attention(c: int, heads: int) -> Attention:
            if num_head_channels != -1:
                heads = _divide(c, num_head_channels, "num_head_channels")
            return Attention(c, heads, qkv_major=use_new_attention_order)

        def down(c: int) -> nn.Module:
            if resblock_updown:
                return residual(c, c, Pool(dims, odd_sizes))
            return Downsample(_convolution(dims, c, c, stride=2) if conv_resample else Pool(dims, odd_sizes))

        def up(c: int) -> nn.Module:
            if resblock_updown:
                return residual(c, c, Nearest())
            return Upsample(_convolution(dims, c, c) if conv_resample else None)

        widths = [int(mult * model_channels) for mult in channel_mult]
        heads_up = num_heads if num_heads_upsample == -1 else num_heads_upsample
        last = len(widths) - 1

        first, second = _layer(nn.Linear, model_channels, embedding), _layer(nn.Linear, embedding, embedding)
        self.time_embed = nn.Sequential(first, nn.SiLU(), second)
        if num_classes is not None:
            self.label_emb = _layer(nn.Embedding, num_classes, embedding)

        width = widths[0]
        self.input_blocks = nn.ModuleList([Block(_convolution(dims, in_channels, width))])
        skips = [width]
        for level, c in enumerate(widths):
            for _ in range(num_res_blocks):
                layers: list[nn.Module] = [residual(width, c)]
                if factors[level] in attention_resolutions:
                    layers.append(attention(c, num_heads))
                self.input_blocks.append(Block(*layers))
                width = c
                skips.append(width)
            if level < last:
                self.input_blocks.append(Block(down(c)))
                skips.append(width)

        self.middle_block = Block(residual(width, width), attention(width, num_heads), residual(width, width))

        self.output_blocks = nn.ModuleList()
        for level, c in reversed(list(enumerate(widths))):
            for i in range(num_res_blocks + 1):
                layers = [residual(width + skips.pop(), c)]
                if factors[level] in attention_resolutions:
                    layers.append(attention(c, heads_up))
                if level > 0 and i == num_res_blocks:
                    layers.append(up(c))
                self.output_blocks.append(Block(*layers))
                width = c

        self.out = nn.Sequential(GroupNorm(width), nn.SiLU(), _convolution(dims, width, out_channels))

        self.reset_parameters(generator)
        if use_fp16:
            for layer in self.modules():
                if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer is not self.out[2]:
                    layer.half()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, with PyTorch's default distributions and the original's zeros.

        Args:
            generator: source of the numbers, on the device of the parameters; see the class.
        """
        device = cast(nn.Conv2d, self.out[2]).weight.device
        if device.type == "meta":
            return
        generator = torch.Generator(device).manual_seed(0) if generator is None else generator
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                bound = 1 / math.sqrt(layer.weight[0].numel())  # 1 / sqrt(fan in)
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
                nn.init.uniform_(cast(Tensor, layer.bias), -bound, bound, generator=generator)
            elif isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, generator=generator)
            elif isinstance(layer, GroupNorm):
                nn.init.ones_(layer.weight)
                nn.init.zeros_(layer.bias)
        for layer in self.modules():  # each block starts as its own shortcut
            if isinstance(layer, Residual):
                _zero(layer.out_layers[3])
            elif isinstance(layer, Attention):
                _zero(layer.proj_out)
        _zero(self.out[2])

    def embed(self, timesteps: Tensor, labels: Tensor | None = None) -> Tensor:
        """The embedding of t and y that enters the blocks, before their SiLU; see `forward`. (B or 1, 4 M)."""
        weight = cast(nn.Linear, self.time_embed[0]).weight
        precise = torch.promote_types(weight.dtype, torch.float32)  # half precision cannot tell index 998 from 999
        features = timestep_embedding(timesteps.reshape(-1), self.model_channels, dtype=precise)
        emb = cast(Tensor, self.time_embed(features.to(weight.dtype)))
        if (labels is None) != (self.num_classes is None):
            raise ValueError(f"labels are given if and only if the network has classes (it has {self.num_classes})")
        return emb if labels is None else emb + cast(Tensor, self.label_emb(labels.reshape(-1)))

    def embeddings(self, timesteps: Tensor, labels: Tensor | None = None) -> Embeddings:
        """What enters the residual layers: all that depends on the level and the label alone; see `forward`."""
        emb = F.silu(self.embed(timesteps, labels))
        return tuple(block.embed(emb) for block in self._blocks())

    @property
    def embedding_parameters(self) -> tuple[nn.Parameter, ...]:
        """Those that the embeddings are made with."""
        return tuple(p for layer in self._embedding_layers for p in layer._parameters.values() if p is not None)

    @functools.cached_property
    def _embedding_layers(self) -> tuple[nn.Module, ...]:
        layers: list[nn.Module] = [
            self.time_embed,
            *[layer.emb_layers for block in self._blocks() for layer in block.residuals()],
        ]
        if self.num_classes is not None:
            layers.append(self.label_emb)
        return tuple(part for layer in layers for part in layer.modules())

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        embeddings: Embeddings | None = None,
    ) -> Tensor:
        """Evaluate the network.

        Args:
            x: (B, in_channels, *size), in the dtype of the parameters, of any size.
            timesteps: (B,), or one element for the whole batch: index in the chain it was trained on (0 = least noise).
            labels: (B,) or one element, class numbers; needed if and only if the network has classes.
            embeddings: those of the timesteps and labels, instead of these, where they are at hand.

        Returns:
            (B, out_channels, *size).

        Raises:
            ValueError: on a wrong shape, labels missing or superfluous, or both timesteps and embeddings or neither.
            TypeError: if x has another dtype than the parameters.
        """
        self._check(x)
        if (timesteps is None) == (embeddings is None):
            raise ValueError("give timesteps, or the embeddings made of them, and not both")
        if embeddings is None:
            embeddings = self.embeddings(cast(Tensor, timesteps), labels)
        down, middle, up = (
            embeddings[: len(self.input_blocks)],
            embeddings[len(self.input_blocks)],
            embeddings[-len(self.output_blocks) :],
        )

        weight = cast(nn.Conv2d, cast(Block, self.input_blocks[0])[0]).weight
        h = x.to(weight.dtype)
        reorder = self.channels_last and is_fixed(x, weight)
        skips = []
        for block, e in zip(self.input_blocks, down, strict=True):
            if reorder:  # copies x, and the first features if x has one channel, hence no order; nothing else
                h = h.contiguous(memory_format=torch.channels_last)
            h = self._run(block, h, e)
            skips.append(h)
        h = self._run(self.middle_block, h, middle)
        for block, e in zip(self.output_blocks, up, strict=True):
            skip = skips.pop()
            h = self._run(block, h, e, skip, skips[-1].shape[2:] if skips else None)
        norm, _, convolve = self.out
        return cast(Tensor, convolve(normalise(h.to(x.dtype), cast(GroupNorm, norm))))

    def _blocks(self) -> Iterator[Block]:
        for block in (*self.input_blocks, self.middle_block, *self.output_blocks):
            yield cast(Block, block)

    def _run(self, block: nn.Module, *args: Any) -> Tensor:
        if not (self.use_checkpoint and torch.is_grad_enabled()):
            return cast(Tensor, block(*args))
        drops = self.training and self.dropout > 0  # only then is there a random state to come back to
        return cast(Tensor, checkpoint(block, *args, use_reentrant=False, preserve_rng_state=drops))

    def _check(self, x: Tensor) -> None:
        if x.ndim != self.dims + 2 or x.shape[1] != self.in_channels:
            sizes = ", ".join("HWD"[: self.dims])
            raise ValueError(f"the network takes (B, {self.in_channels}, {sizes}) (got {tuple(x.shape)})")
        dtype = cast(nn.Conv2d, self.out[2]).weight.dtype
        if x.dtype != dtype:
            raise TypeError(f"the network's parameters are {dtype}, so must x be (got {x.dtype})")
        if min(x.shape[2:][-2:]) < self.smallest:
            raise ValueError(f"odd_sizes='floor' needs images of {self.smallest} pixels or more (got {tuple(x.shape)})")


class Block(nn.Sequential):
    """Layers between two skip connections."""

    def residuals(self) -> Iterator[Residual]:
        """The layers that know the level."""
        return (layer for layer in self if isinstance(layer, Residual))

    def embed(self, emb: Tensor) -> tuple[Tensor, ...]:
        """What enters each of the residual layers, from the activated embedding (B or 1, embedding)."""
        return tuple(cast(Tensor, layer.emb_layers(emb)) for layer in self.residuals())

    def forward(  # type: ignore[override]
        self,
        h: Tensor,
        embeddings: tuple[Tensor, ...],
        skip: Tensor | None = None,
        size: torch.Size | None = None,
    ) -> Tensor:
        """Apply all layers to [h, skip]; `size` is that of the next skip connection, to which an up-sampling layer
        goes."""
        h = h if skip is None else torch.cat([h, skip], dim=1)
        of_layer = iter(embeddings)
        for layer in self:
            if isinstance(layer, Residual):
                h = layer(h, next(of_layer), size)
            elif isinstance(layer, Upsample):
                h = layer(h, size)
            else:
                h = layer(h)
        return h


class Residual(nn.Module):
    """Residual block a -> b, conditioned on the embedding; a resampler changes the size of both of its branches.

    Args:
        a, b: channels in and out.
        embedding: width of the embedding.
        dims: spatial dimensions.
        dropout: probability.
        film: h = norm(h) (1 + scale) + shift instead of norm(h + e).
        resample: called with (h, size).
    """

    def __init__(
        self, a: int, b: int, embedding: int, dims: int, *, dropout: float, film: bool, resample: nn.Module | None
    ) -> None:
        super().__init__()
        self.film = film
        self.resample = resample
        # The names and indices are the original's. The SiLU of emb_layers is applied once, by the network.
        self.in_layers = nn.Sequential(GroupNorm(a), nn.SiLU(), _convolution(dims, a, b))
        self.emb_layers = nn.Sequential(nn.Identity(), _layer(nn.Linear, embedding, 2 * b if film else b))
        self.out_layers = nn.Sequential(GroupNorm(b), nn.SiLU(), nn.Dropout(dropout), _convolution(dims, b, b))
        self.skip_connection = nn.Identity() if a == b else _layer(_CONV[dims], a, b, 1)

    def forward(self, x: Tensor, e: Tensor, size: torch.Size | None = None) -> Tensor:
        """(B, a, *size) -> (B, b, *size); e is what `emb_layers` made of the embedding, (B or 1, b or 2 b)."""
        norm, _, convolve = self.in_layers
        h = normalise(x, cast(GroupNorm, norm))
        if self.resample is not None:
            h, x = self.resample(h, size), self.resample(x, size)
        h = convolve(h)

        e = e.to(h.dtype).reshape(*e.shape, *[1] * (h.ndim - 2))
        norm, _, drop, convolve = self.out_layers
        h, film = (h, e) if self.film else (h + e, None)
        h = normalise(h, cast(GroupNorm, norm), film=film)
        return cast(Tensor, self.skip_connection(x) + convolve(drop(h)))


class Attention(nn.Module):
    """Self-attention over all pixels, softmax(q k^T / sqrt(d)) v per head of d channels, added to its input.

    Args:
        channels: channels.
        heads: heads.
        qkv_major: channels of `qkv` are ordered (3, heads, d) instead of (heads, 3, d).
    """

    def __init__(self, channels: int, heads: int, *, qkv_major: bool) -> None:
        super().__init__()
        _divide(channels, heads, "num_heads")
        self.heads = heads
        self.qkv_major = qkv_major
        self.norm = GroupNorm(channels)
        # 1x1 convolutions in the state dict, evaluated as matrices
        self.qkv = _layer(nn.Conv1d, channels, 3 * channels, 1)
        self.proj_out = _layer(nn.Conv1d, channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> (B, C, *size)."""
        tokens = (
            normalise(x, self.norm, activate=False).flatten(2).transpose(1, 2)
        )  # (B, T, C), a view if x is channels-last
        qkv = F.linear(tokens, self.qkv.weight.squeeze(-1), self.qkv.bias)
        h = attend(qkv, self.heads, qkv_major=self.qkv_major)
        h = F.linear(h, self.proj_out.weight.squeeze(-1), self.proj_out.bias)
        return x + h.transpose(1, 2).reshape_as(x)


def attend(qkv: Tensor, heads: int, *, qkv_major: bool) -> Tensor:
    """Attention of tokens (B, T, 3 heads d), see `Attention`, to (B, T, heads d)."""
    order = (3, heads) if qkv_major else (heads, 3)
    qkv = qkv.reshape(*qkv.shape[:2], *order, -1)
    q, k, v = qkv.transpose(1, 3).unbind(2) if qkv_major else qkv.permute(0, 3, 2, 1, 4).unbind(1)
    # Each is (B, heads, T, d); PyTorch falls back to a slow path unless d is contiguous.
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class GroupNorm(nn.GroupNorm):
    """Group normalisation with 32 groups, in the precision of its parameters."""

    def __init__(self, channels: int) -> None:
        _divide(channels, GROUPS, "the number of normalisation groups")
        super().__init__(GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> (B, C, *size)."""
        # contiguous, since the kernel for channels-last tensors loses digits
        return super().forward(x.contiguous().to(self.weight.dtype)).to(x.dtype)


class Pool(nn.Module):
    """Mean of 2x2 pixels, of as many as there are in the last row and column if `odd_sizes` is "ceil"."""

    def __init__(self, dims: int, odd_sizes: OddSizes) -> None:
        super().__init__()
        self.dims = dims
        self.ceil = odd_sizes == "ceil"

    def forward(self, x: Tensor, size: torch.Size | None = None) -> Tensor:
        """(B, C, *size) -> (B, C, *size / 2)."""
        del size
        if self.dims == 1:
            return F.avg_pool1d(x, 2, ceil_mode=self.ceil)
        if self.dims == 2:
            return F.avg_pool2d(x, 2, ceil_mode=self.ceil)
        return F.avg_pool3d(x, (1, 2, 2), ceil_mode=self.ceil)


class Nearest(nn.Module):
    """Nearest-neighbour interpolation to a given size."""

    def forward(self, x: Tensor, size: torch.Size | None) -> Tensor:
        """(B, C, *any) -> (B, C, *size)."""
        return F.interpolate(x, size=size, mode="nearest")


class Downsample(nn.Module):
    """Halves the size, by a strided convolution or by pooling."""

    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> (B, C, *size / 2)."""
        return cast(Tensor, self.op(x))


class Upsample(nn.Module):
    """Interpolates to the given size; a convolution may follow."""

    def __init__(self, conv: nn.Module | None) -> None:
        super().__init__()
        self.nearest = Nearest()
        self.conv = conv

    def forward(self, x: Tensor, size: torch.Size | None) -> Tensor:
        """(B, C, *any) -> (B, C, *size)."""
        x = self.nearest(x, size)
        return x if self.conv is None else cast(Tensor, self.conv(x))


def _convolution(dims: int, a: int, b: int, *, stride: int = 1) -> nn.Module:
    """A 3x3 convolution; with stride 2 the first of three dimensions keeps its size."""
    strides = (1, stride, stride) if dims == 3 else stride
    return _layer(_CONV[dims], a, b, 3, stride=strides, padding=1)


def _layer(cls: type[Layer], *args: Any, **kwargs: Any) -> Layer:
    """A layer without weights, since PyTorch's initialisation would draw them from the global generator."""
    return cast(Layer, skip_init(cls, *args, device=torch.get_default_device(), **kwargs))  # type: ignore[no-untyped-call]


def _divide(channels: int, divisor: int, name: str) -> int:
    if divisor < 1 or channels % divisor:
        raise ValueError(f"a level of {channels} channels cannot be divided by {name} (got {divisor!r})")
    return channels // divisor


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
