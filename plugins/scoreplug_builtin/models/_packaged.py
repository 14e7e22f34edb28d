"""Priors whose weights ship with the package."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from importlib.resources import as_file, files
from typing import Any, ClassVar

import attrs
from torch import Tensor, nn

from scoreplug import param
from scoreplug.checkpoint import METADATA_KEY, load_state_dict, read_model_config
from scoreplug.model import BasePrior
from scoreplug_builtin.models.openai_unet import OpenAIUNet

_MARGIN = 1.02  # the levels trained on, and two percent around them


@attrs.frozen(kw_only=True, eq=False)
class PackagedPrior(BasePrior):
    """A network of `openai-unet` with packaged weights; the architecture stands in their file."""

    weights: ClassVar[str]
    """Name of the file in the folder `weights`, without its suffix."""

    use_checkpoint: bool = param(
        default=False, doc="recompute activations for the gradient: a fraction of the memory, a third more time"
    )

    def __attrs_post_init__(self) -> None:
        _ = self.network

    @functools.cached_property
    def network(self) -> OpenAIUNet:
        """The same prior as an `openai-unet`."""
        with self._file() as path:
            _, told = read_model_config(path)
            params: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
            return OpenAIUNet(
                **params,
                checkpoint=str(path),
                use_checkpoint=self.use_checkpoint,
                sde=self.sde,
                precision=self.precision,
                device_name=self.device_name,
            )

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """What the file tells: "card", "curve" (the held-out denoising error) and "training" (the config)."""
        with self._file() as path:
            _, metadata = load_state_dict(path)
        described: dict[str, Any] = json.loads(metadata[METADATA_KEY])
        return described

    def _file(self) -> Any:
        return as_file(files("scoreplug_builtin.models").joinpath("weights", f"{self.weights}.safetensors"))

    @property
    def checkpoint(self) -> str | None:
        """The file with the weights."""
        return self.network.checkpoint

    @property
    def data_range(self) -> tuple[float, float]:
        """Range of the training images' values."""
        low, high = self.description["card"]["data_range"]
        return low, high

    @property
    def module(self) -> nn.Module:
        return self.network.module

    @property
    def shape(self) -> tuple[int, ...]:
        return self.network.shape

    @property
    def level_range(self) -> tuple[float, float]:
        """Levels that the network was trained on, and two percent around them."""
        low, high = self.description["card"]["level_range"]
        return low / _MARGIN, high * _MARGIN

    def spread(self, t: Tensor) -> Tensor:
        """r_t, the held-out denoising error that was measured after the training."""
        return self.network.spread(t)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        return self.network.denoise(x, t)

    def denoise_with_vjp(self, x: Tensor, t: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return self.network.denoise_with_vjp(x, t)
