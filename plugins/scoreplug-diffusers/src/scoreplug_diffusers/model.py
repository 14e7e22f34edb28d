r"""A prior held by an unconditional `UNet2DModel` of diffusers.

The folder of a pipeline says what its network is: `unet/config.json` the architecture, `scheduler_config.json` the
process that it was trained under and what it predicts (see `schedulers`). The prior is exact in the sense that x0 and
the score are those that diffusers' own samplers use, at every step of the training chain and, between two steps, at the
fraction that their Karras grids use; what their pipelines clip is not clipped here.

A network with twice as many output channels as input channels also tells a variance: the first half, the mean, is used.

References:
    von Platen et al.: Diffusers. https://github.com/huggingface/diffusers
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from scoreplug import SDE, BasePrior, param
from scoreplug.model import broadcast
from scoreplug_diffusers.folder import PipelineFolder, open_folder, refuse
from scoreplug_diffusers.schedulers import (
    CentredScoreNetwork,
    ChainNetwork,
    Parametrization,
    ScoreNetwork,
    parametrization,
)


@attrs.frozen(kw_only=True, eq=False)
class DiffusersModel(BasePrior):
    """An unconditional pipeline as a prior, under the process of its own scheduler unless `sde` is given."""

    path: str = param(doc="folder of a pipeline (DDPMPipeline.save_pretrained), or the id of one on the hub")
    download: bool = param(default=False, doc="fetch a hub repository that is not on this machine")
    revision: str | None = param(None, doc="branch, tag or commit of a hub repository; a commit is repeatable")
    image_shape: tuple[int, ...] | None = param(
        None, ge=1, unit="pixel", doc="shape of one image, (channels, height, width); the network's own"
    )
    sde: SDE = param(None, component="sde", doc="process that the model is asked under; its scheduler's own")

    def __attrs_post_init__(self) -> None:
        # frozen for users; what is left out is in the folder
        object.__setattr__(self, "image_shape", self._checked_shape())
        if self.sde is None:
            object.__setattr__(self, "sde", self.parametrization.sde)
        _ = self.module  # damaged weights are found now, not at the first step

    # What the folder says

    @functools.cached_property
    def folder(self) -> PipelineFolder:
        """The pipeline's files."""
        return open_folder(self.path, download=self.download, revision=self.revision)

    @functools.cached_property
    def parametrization(self) -> Parametrization:
        """What the network predicts, and of which process."""
        return parametrization(self.folder.scheduler_config)

    @property
    def checkpoint(self) -> str:
        """The file of weights, of which a run keeps the checksum."""
        return str(self.folder.weights)

    @property
    def data_range(self) -> tuple[float, float]:
        """Between which values the images of the network lie: (-1, 1), or (0, 1) with `ScoreSdeVeScheduler`."""
        return self.parametrization.data_range

    @property
    def level_range(self) -> tuple[float, float] | None:
        return self.parametrization.levels

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.image_shape  # type: ignore[assignment]
        return shape

    def spread(self, t: Tensor) -> Tensor:
        """r_t of white images with the standard deviation s of a pixel: r^2 = level^2 s^2 / (level^2 + s^2)."""
        level, s = self.sde.sigma(t) / self.sde.alpha(t), self.parametrization.data_std
        return level * s / (level**2 + s**2).sqrt()

    def _checked_shape(self) -> tuple[int, ...]:
        """The shape of one image, if the network takes it."""
        config = self.folder.unet_config
        if (kind := config.get("_class_name")) != "UNet2DModel":
            raise refuse(f"unet/config.json is that of a {kind}, not of a UNet2DModel")
        if config.get("num_class_embeds") is not None or config.get("class_embed_type") is not None:
            raise refuse("the network is conditioned on a class; only unconditional networks are priors")
        channels, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
        if outputs not in (channels, 2 * channels):
            raise refuse(f"the network makes {outputs} channels of {channels}, which is not an image and its variance")
        shape = self.image_shape if self.image_shape is not None else _own_shape(channels, config.get("sample_size"))
        if len(shape) != 3 or shape[0] != channels:
            raise refuse(f"image_shape is ({channels}, height, width) for this network (got {shape!r})")
        factor = 2 ** (len(config.get("block_out_channels", (1, 1, 1, 1))) - 1)
        if any(n % factor for n in shape[1:]):
            raise refuse(
                f"the network halves images to 1/{factor}: height and width are multiples of {factor} (got {shape!r})"
            )
        _check_time(config.get("time_embedding_type", "positional"), self.parametrization)
        return shape

    # The network

    @functools.cached_property
    def module(self) -> nn.Module:
        """The network, frozen, so that guidance differentiates with respect to x alone."""
        from diffusers import UNet2DModel

        with _generator_kept():  # diffusers initializes weights before it reads them
            try:
                network, info = UNet2DModel.from_pretrained(  # type: ignore[no-untyped-call]
                    self.folder.unet,
                    use_safetensors=True,
                    local_files_only=True,
                    torch_dtype=self.dtype,
                    low_cpu_mem_usage=False,
                    output_loading_info=True,
                )
            except Exception as error:  # diffusers raises whatever the config or the file leads to
                lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
                message = " ".join(lines[:2])  # the first may only say that something is wrong
                raise refuse(f"diffusers cannot build the network in {str(self.folder.unet)!r}: {message}") from error
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if names := sorted(map(str, info.get(what, ()))):  # no weight is left at random
                raise refuse(
                    f"the weights in {str(self.folder.unet)!r} are not those of the network in its config.json: "
                    f"{len(names)} {what.replace('_', ' ')}, among them {names[0]}"
                )
        module: nn.Module = network.to(self.device).eval()
        return module.requires_grad_(requires_grad=False)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        alpha = self.sde.alpha(t)
        return self.parametrization.denoise(self._evaluate, x / broadcast(alpha, x), self.sde.sigma(t) / alpha)

    def _evaluate(self, x: Tensor, time: Tensor) -> Tensor:
        """F(x, time) without a variance."""
        if self.folder.unet_config.get("time_embedding_type") == "learned":
            time = time.round().long()  # a table has no row between two steps
        else:
            time = time.to(torch.promote_types(x.dtype, torch.float32))  # bfloat16 cannot tell step 999 from 1000
        output: Tensor = self.module(x, time.to(x.device), return_dict=False)[0]
        return output[:, : x.shape[1]].to(x.dtype)


def _own_shape(channels: int, size: Any) -> tuple[int, ...]:
    if isinstance(size, int):
        return channels, size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        return channels, *size
    raise refuse("unet/config.json does not tell the size of images (sample_size): give image_shape")


def _check_time(embedding: str, kind: Parametrization) -> None:
    """A logarithm belongs to levels, a table to steps; positions go with both."""
    if embedding == "fourier" and not isinstance(kind, ScoreNetwork | CentredScoreNetwork):
        raise refuse("the network takes the log of a noise level (time_embedding_type 'fourier'), not a step")
    if embedding == "learned" and not isinstance(kind, ChainNetwork):
        raise refuse("the network has a table of steps (time_embedding_type 'learned'), its scheduler has noise levels")


@contextlib.contextmanager
def _generator_kept() -> Iterator[None]:
    """The global generator is the user's."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
