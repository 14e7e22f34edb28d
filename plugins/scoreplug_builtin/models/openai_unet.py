r"""A prior held by the UNet of guided diffusion: the published checkpoints, and networks trained here.

What the network F predicts decides how x0 = E[x_0 | x_t] comes from it. With level = sigma_t / alpha_t:

* "edm": with xbar = x / alpha_t - mean, and s the standard deviation of the data,

      x0 = mean + c_skip xbar + c_out F(c_in xbar, c_noise),
      c_skip = s^2 / (level^2 + s^2),  c_out = level s / sqrt(level^2 + s^2),  c_in = 1 / sqrt(level^2 + s^2),
      c_noise = 25 log(level),

  where c_noise is a hundred times that of Karras et al., since the embedding's frequencies are made for indices in the
  hundreds.
* "epsilon", "x0", "v": F was trained on a discrete chain. It is asked at the fractional index of the chain that has the
  same noise level, about x brought to the chain's scale, alpha^2 + sigma^2 = 1.

References:
    Dhariwal, Nichol: Diffusion Models Beat GANs on Image Synthesis. NeurIPS 2021, arXiv:2105.05233.
    Karras, Aittala, Aila, Laine: Elucidating the Design Space of Diffusion-Based Generative Models. NeurIPS 2022,
    arXiv:2206.00364, table 1.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, Literal

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from scoreplug import param
from scoreplug.checkpoint import METADATA_KEY, CheckpointError, load_state_dict, model_config
from scoreplug.model import NetworkModel, broadcast
from scoreplug.param import ParameterError
from scoreplug_builtin.models._discrete import DiscreteSchedule, denoised
from scoreplug_builtin.models._openai_checkpoints import (
    DEFAULTS,
    PRESETS,
    Flags,
    attention_levels,
    disagreements,
    read_flags,
    usual_attention_levels,
    usual_channel_mult,
)
from scoreplug_builtin.models._unet import Embeddings, UNet

Preset = Literal[
    "64x64_diffusion",
    "128x128_diffusion",
    "256x256_diffusion",
    "256x256_diffusion_uncond",
    "512x512_diffusion",
    "lsun_bedroom",
    "lsun_cat",
    "lsun_horse",
    "lsun_horse_nodropout",
    "ffhq_10m",
]

Weights = tuple[tuple[int, int], ...]

LEVELS = 1024
"""So many levels' embeddings are kept: less memory than the weights they are made with take, in a published network."""

_FLAGS = (*DEFAULTS, "channel_mult", "attention_levels")
_OF_A_CHAIN = ("schedule", "diffusion_steps")
_OF_EDM = ("data_mean", "data_std")
_NOT_OF_THE_NETWORK = {"learn_sigma", "attention_levels", "prediction", *_OF_A_CHAIN, *_OF_EDM}


def _numbers(number: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Lists become tuples, and so does the original's way to write one, "32,16,8"."""

    def convert(value: Any) -> Any:
        if isinstance(value, str):
            return tuple(number(part) for part in value.split(","))
        return tuple(value) if isinstance(value, list) else value

    return convert


@attrs.frozen(kw_only=True, eq=False)
class OpenAIUNet(NetworkModel):
    """A prior held by the guided-diffusion UNet, for images of any size.

    A flag that is left out is taken from `preset`, else from the file: from its metadata if it was written here, and
    from the names and shapes of its tensors. What is told nowhere has the original's default. A flag that contradicts
    the file is an error, and no weight of a file is ever left at random. Published networks expect images in [-1, 1].

    `attention_resolutions` are resolutions of the image: with n the larger edge of `image_shape`, attention is at the
    level whose resolution n / 2^level is nearest to the one asked for, level = round(log2(n / resolution)).

    Raises:
        ParameterError: if flags contradict each other, or a resolution has no level.
        CheckpointError: if the file cannot be read, is another network's, or contradicts a flag.
    """

    preset: Preset | None = param(None, doc="flags of a published network; `checkpoint` is then its file")
    model_channels: int | None = param(None, ge=32, doc="base width, a multiple of 32; 128")
    num_res_blocks: int | None = param(None, ge=1, doc="residual blocks per level; 2")
    channel_mult: tuple[float, ...] | None = param(
        None, gt=0, converter=_numbers(float), doc="width of each level in units of model_channels; as published"
    )
    attention_resolutions: tuple[int, ...] | None = param(
        None, ge=1, unit="pixel", converter=_numbers(int), doc="resolutions of the levels with attention; 16, 8"
    )
    attention_levels: tuple[int, ...] | None = param(
        None, ge=0, converter=_numbers(int), doc="levels with attention, 0 the full size, instead of resolutions"
    )
    num_heads: int | None = param(None, ge=1, doc="attention heads, where num_head_channels is -1; 4")
    num_head_channels: int | None = param(None, ge=-1, doc="channels per head; -1 leaves it to num_heads")
    num_heads_upsample: int | None = param(None, ge=-1, doc="heads on the way up; -1 is num_heads")
    use_scale_shift_norm: bool | None = param(None, doc="the time scales and shifts features; true")
    resblock_updown: bool | None = param(None, doc="residual blocks change the size; false")
    conv_resample: bool | None = param(None, doc="convolutions change the size, unless residual blocks do; true")
    use_new_attention_order: bool | None = param(None, doc="order of the attention's channels; false")
    dropout: float | None = param(None, ge=0.0, lt=1.0, doc="probability, in training only; 0")
    num_classes: int | None = param(None, ge=1, doc="classes of a conditional network")
    label: int | None = param(None, ge=0, doc="the class that images are of")
    learn_sigma: bool | None = param(None, doc="the output also tells a variance, which is not used; false")
    odd_sizes: Literal["ceil", "floor"] | None = param(None, doc="how pooling halves an odd size; ceil")
    prediction: Literal["epsilon", "x0", "v", "edm"] | None = param(None, doc="what the network predicts; epsilon")
    schedule: Literal["linear", "cosine"] | None = param(None, doc="the chain it was trained on, unless edm; linear")
    diffusion_steps: int | None = param(None, ge=2, doc="length of that chain; 1000")
    data_mean: float | None = param(None, unit="data", doc="mean of a pixel, for edm; 0")
    data_std: float | None = param(None, gt=0.0, unit="data", doc="standard deviation of a pixel, for edm; 0.5")
    use_checkpoint: bool = param(
        default=False, doc="recompute activations for the gradient: a fraction of the memory, a third more time"
    )
    seed: int = param(0, ge=0, doc="of the weights of a fresh network")

    def __attrs_post_init__(self) -> None:
        if not 2 <= len(self.image_shape) <= 4:
            raise self._error(f"image_shape is (channels, height, width) (got {self.image_shape!r})")
        if self.preset is not None and self.checkpoint is None:
            raise self._error(f"preset {self.preset!r} describes published weights: give their file as `checkpoint`")
        super().__attrs_post_init__()
        classes = self.architecture["num_classes"]
        if classes is None and self.label is not None:
            raise self._error(f"the network has no classes: leave `label` out (got {self.label!r})")
        if classes is not None and (self.label is None or self.label >= classes):
            raise self._error(f"the network needs a `label` below {classes} (got {self.label!r})")

    def _error(self, *problems: str) -> ParameterError:
        return ParameterError(type(self).__name__, problems)

    # The network

    def build(self) -> UNet:
        network = self._fresh() if self.checkpoint is None else self._stored(self.checkpoint)
        if network.channels_last and self.device.type == "cpu":
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def _fresh(self) -> UNet:
        return self._network(torch.Generator().manual_seed(self.seed))

    def _stored(self, checkpoint: str) -> UNet:
        state, _ = load_state_dict(checkpoint)
        with torch.device("meta"):
            network = self._network()
        _compare(checkpoint, network.state_dict(), state)
        network.load_state_dict({name: value.to(self.dtype, copy=True) for name, value in state.items()}, assign=True)
        return network

    def _network(self, generator: torch.Generator | None = None) -> UNet:
        flags, channels = self.architecture, self.image_shape[0]
        try:
            return UNet(
                in_channels=channels,
                out_channels=2 * channels if flags["learn_sigma"] else channels,
                attention_resolutions=[2**level for level in flags["attention_levels"]],
                dims=len(self.image_shape) - 1,
                use_checkpoint=self.use_checkpoint,
                generator=generator,
                **{name: value for name, value in flags.items() if name not in _NOT_OF_THE_NETWORK},
            )
        except ValueError as error:
            raise self._error(str(error)) from error

    @functools.cached_property
    def architecture(self) -> Flags:
        """Every flag, resolved. With `image_shape` they build the network again: they are what a checkpoint keeps."""
        given = {name: value for name in _FLAGS if (value := getattr(self, name)) is not None}
        preset = PRESETS[self.preset] if self.preset is not None else {}
        told, seen = self._file_flags()
        size = max(self.image_shape[-2:]) if len(self.image_shape) > 2 else self.image_shape[1]

        flags = DEFAULTS | {"channel_mult": usual_channel_mult(size)} | seen | told | preset | given
        levels = len(flags["channel_mult"])
        flags = {"attention_levels": usual_attention_levels(size, levels)} | flags
        # Resolutions in the file's metadata are those of the images it was trained on: its levels stand.
        if self.attention_resolutions not in (None, told.get("attention_resolutions")):
            if self.attention_levels is not None:
                raise self._error("attention_resolutions and attention_levels are two ways to say one thing: give one")
            try:
                flags["attention_levels"] = attention_levels(self.attention_resolutions, size, levels)
            except ValueError as error:
                raise self._error(str(error)) from error

        self._reconcile(flags, given, told, seen)
        return {name: flags[name] for name in _FLAGS if name not in _idle(flags)}

    def _file_flags(self) -> tuple[Flags, Flags]:
        """What the file's metadata tells, and what its tensors do."""
        if self.checkpoint is None:
            return {}, {}
        state, metadata = load_state_dict(self.checkpoint)
        seen = read_flags(self.checkpoint, {name: tuple(value.shape) for name, value in state.items()})
        channels, outputs = seen["in_channels"], seen["out_channels"]
        problems = []
        if (channels, seen["dims"]) != (self.image_shape[0], len(self.image_shape) - 1):
            problems.append(
                f"image_shape is {self.image_shape}, but the file's network is for images of {channels} channels in "
                f"{seen['dims']} dimensions"
            )
        if outputs not in (channels, 2 * channels):
            problems.append(
                f"its network makes {outputs} channels of {channels}, which is not an image and its variance"
            )
        if problems:
            raise CheckpointError(self.checkpoint, "; ".join(problems))
        seen = {name: value for name, value in seen.items() if name in _FLAGS}
        seen["learn_sigma"] = outputs == 2 * channels
        return _own_flags(self.checkpoint, metadata), seen

    def _reconcile(self, flags: Flags, given: Flags, told: Flags, seen: Flags) -> None:
        """Refuse flags that contradict each other or the file, or that have no effect."""
        if self.checkpoint is not None:
            if problems := disagreements(flags, told | seen):
                raise CheckpointError(self.checkpoint, "; ".join(problems))
            if not told and self.preset is None and self.num_heads is None and self.num_head_channels is None:
                raise self._error(
                    f"the file {self.checkpoint!r} does not tell the number of attention heads: give num_heads or "
                    "num_head_channels (and use_new_attention_order), or a preset"
                )
        if idle := [name for name in _idle(flags) if name in given]:
            raise self._error(f"with prediction {flags['prediction']!r} {' and '.join(idle)} would have no effect")
        if "num_heads" in given and "num_head_channels" not in given and flags["num_head_channels"] != -1:
            raise self._error(
                f"num_heads would have no effect, as there are {flags['num_head_channels']} channels per head: "
                "leave it out, or give num_head_channels=-1 as well"
            )

    # The model

    @functools.cached_property
    def chain(self) -> DiscreteSchedule:
        """The discrete chain that the network was trained on."""
        make = {"linear": DiscreteSchedule.linear, "cosine": DiscreteSchedule.cosine}
        return make[self.architecture["schedule"]](self.architecture["diffusion_steps"])

    @property
    def level_range(self) -> tuple[float, float] | None:
        """Levels of the chain, and one percent around them; None for "edm", as the flags do not tell."""
        if self.architecture["prediction"] == "edm":
            return None
        ends = (1 / self.chain.alpha_bar[[0, -1]] - 1).sqrt().tolist()
        return 0.99 * ends[0], 1.01 * ends[1]

    def spread(self, t: Tensor) -> Tensor:
        """r_t: the held-out denoising error that stands in the checkpoint, else that of white images of a pixel's
        variance.

        A file of `scoreplug train` has the curve. Between its points log r is linear in log level, above it r is
        constant, below it proportional to the level. White images: r^2 = level^2 s^2 / (level^2 + s^2), s being
        data_std, or 0.5 for the images in [-1, 1] of the discrete chains.
        """
        level = self.sde.sigma(t) / self.sde.alpha(t)
        if not self.curve:
            s = self.architecture["data_std"] if self.architecture["prediction"] == "edm" else 0.5
            return level * s / (level**2 + s**2).sqrt()
        low = self.curve[0]
        levels, errors = np.log(np.array([(low[0] * 1e-6, low[1] * 1e-6), *self.curve])).T
        return torch.from_numpy(np.asarray(np.interp(level.log().cpu().numpy(), levels, errors))).to(level).exp()

    @functools.cached_property
    def curve(self) -> tuple[tuple[float, float], ...]:
        """Held-out denoising error, (level, error) with rising levels, where the checkpoint states it."""
        if self.checkpoint is None:
            return ()
        _, metadata = load_state_dict(self.checkpoint)
        points = json.loads(metadata.get(METADATA_KEY, "{}")).get("curve", ())
        return tuple(sorted((float(p["level"]), float(p["rmse"])) for p in points))

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        alpha = self.sde.alpha(t)
        level = self.sde.sigma(t) / alpha
        if self.architecture["prediction"] == "edm":
            return self._denoise_edm(x / broadcast(alpha, x), level)
        return self._denoise_chain(x / broadcast(alpha, x), level)

    def _denoise_edm(self, x: Tensor, level: Tensor) -> Tensor:
        """x0 at x = x_0 + level z."""
        mean, s = self.architecture["data_mean"], self.architecture["data_std"]
        total = (level**2 + s**2).sqrt()
        c_skip, c_out, c_in = (broadcast(c, x) for c in ((s / total) ** 2, level * s / total, 1 / total))

        xbar = x - mean
        return mean + c_skip * xbar + c_out * self._evaluate(c_in * xbar, 25 * level.log())

    def _denoise_chain(self, x: Tensor, level: Tensor) -> Tensor:
        """x0 at x = x_0 + level z."""
        scale = 1 / (1 + level**2).sqrt()
        alpha, sigma = broadcast(scale, x), broadcast(level * scale, x)

        x = alpha * x
        output = self._evaluate(x, self.chain.index_of_level(level))
        return denoised(self.architecture["prediction"], output, x, alpha, sigma)

    def _evaluate(self, x: Tensor, index: Tensor) -> Tensor:
        """F(x, index, label) without a learned variance."""
        network: UNet = self.module  # type: ignore[assignment]
        weights = _state(network) if _is_shared(index) else None
        output: Tensor
        if weights is None:
            output = network(x, index.to(x.device), self._labels)
        else:
            output = network(x, embeddings=self._embeddings(float(index), weights))
        return output[:, : x.shape[1]]

    @property
    def _labels(self) -> Tensor | None:
        return None if self.label is None else torch.tensor([self.label], device=self.device)

    @functools.cached_property
    def _embeddings(self) -> Callable[[float, Weights], Embeddings]:
        """What the network makes of an index that the batch shares, computed once for each."""
        network: UNet = self.module  # type: ignore[assignment]

        @functools.lru_cache(maxsize=LEVELS)
        def embeddings(index: float, weights: Weights) -> Embeddings:
            del weights  # only tells that they are the same
            # a tensor of the inference mode could not be part of a later gradient
            with torch.inference_mode(mode=False), torch.no_grad():
                t = torch.tensor(index, dtype=torch.float64).to(self.device)
                return network.embeddings(t, self._labels)

        return embeddings


def _is_shared(index: Tensor) -> bool:
    """Whether it is one number for the batch that nothing is differentiated with respect to."""
    return index.ndim == 0 and not index.requires_grad and forward_ad.unpack_dual(index).tangent is None  # type: ignore[no-untyped-call]


def _state(network: UNet) -> Weights | None:
    """Addresses and versions of the weights that embeddings are made with; None if these are being trained."""
    parameters = network.embedding_parameters
    if any(p.requires_grad or p.is_inference() for p in parameters):
        return None
    return tuple((p.data_ptr(), p._version) for p in parameters)


def _idle(flags: Flags) -> tuple[str, ...]:
    """Flags without a meaning for what the network predicts."""
    return _OF_A_CHAIN if flags["prediction"] == "edm" else _OF_EDM


def _own_flags(path: str, metadata: dict[str, str]) -> Flags:
    """The flags in the metadata of a file written here."""
    config = model_config(path, metadata)
    if config is None:
        return {}
    name, params = config
    if name != "openai-unet":
        raise CheckpointError(path, f"holds the weights of another model, {name!r}")
    kept = {key: params[key] for key in (*_FLAGS, "attention_resolutions") if params.get(key) is not None}
    flags = {key: tuple(value) if isinstance(value, list) else value for key, value in kept.items()}
    return flags | {"num_classes": params.get("num_classes")}


def _compare(path: str, network: dict[str, Tensor], file: dict[str, Tensor]) -> None:
    """All tensors have to be there, and no others, each of its shape."""
    missing, superfluous = network.keys() - file.keys(), file.keys() - network.keys()
    reshaped = {name for name in network.keys() & file.keys() if network[name].shape != file[name].shape}
    problems = [
        f"{len(names)} {what}, among them {min(names)!r}"
        for what, names in (("missing", missing), ("superfluous", superfluous), ("of another shape", reshaped))
        if names
    ]
    if problems:
        raise CheckpointError(path, f"its tensors are not those of a network with these flags: {'; '.join(problems)}")
