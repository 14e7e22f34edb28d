r"""A denoiser of deepinv as a prior.

    x0 = D(x / alpha_t, sigma_t / alpha_t)

By Tweedie's formula the mean square optimal denoiser of x_0 + level z is E[x_0 | x_t], which is all that a score model
is. It is exact as far as D is that denoiser, and biased as D is: by training with another loss, and outside the noise
levels that it was trained for, which are therefore a part of the model. Its own process is `ve` between them. Plug-and-
play denoisers such as DRUNet know small noise alone (up to 50/255): under it x_1 is not yet noise, and samplers warn.

Images lie in [0, 1], as deepinv's denoisers expect.

References:
    Tachella et al.: DeepInverse: A Python package for solving imaging inverse problems with deep learning. 2025,
    arXiv:2505.20160.
    Zhang, Li, Zuo, Zhang, Van Gool, Timofte: Plug-and-Play Image Restoration with Deep Denoiser Prior. IEEE TPAMI 2022,
    arXiv:2008.13751 (DRUNet).
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from scoreplug import SDE, NetworkModel, param, registry
from scoreplug.checkpoint import CheckpointError, load_state_dict
from scoreplug.model import broadcast
from scoreplug.param import ParameterError
from scoreplug_deepinv.named import build, find

_HOME = "deepinv.models"


@attrs.frozen(kw_only=True, eq=False)
class DeepinvDenoiser(NetworkModel):
    """A denoiser(x, sigma), between the noise levels that it was trained for.

    Raises:
        ParameterError: if the denoiser cannot be built, or does not give an image of the shape that it is given.
        CheckpointError: if the file of weights cannot be read, or is another network's.
    """

    denoiser: Any = param(doc="a denoiser(x, sigma), or its name: one of deepinv.models, or 'package.module:Class'")
    params: Mapping[str, Any] = param(
        attrs.Factory(dict), doc="arguments that it is built with, if it is a name; pretrained is None unless given"
    )
    sigma_min: float = param(0.002, gt=0.0, unit="data", doc="smallest noise level that it was trained for")
    sigma_max: float = param(0.2, gt=0.0, unit="data", doc="largest noise level that it was trained for")
    seed: int = param(0, ge=0, doc="of fresh weights")
    sde: SDE = param(None, component="sde", doc="process that the model is asked under; ve from sigma_min to sigma_max")

    def __attrs_post_init__(self) -> None:
        if self.sigma_max <= self.sigma_min:
            raise self._error(f"sigma_max must be > sigma_min = {self.sigma_min!r} (got {self.sigma_max!r})")
        if self.sde is None:  # frozen for users; what is left out follows from the levels
            sde = registry.get_sde("ve", sigma_min=self.sigma_min, sigma_max=self.sigma_max)
            object.__setattr__(self, "sde", sde)
        super().__attrs_post_init__()
        self._check_image()

    def _error(self, problem: str) -> ParameterError:
        return ParameterError("deepinv-denoiser", [problem])

    # The network

    def build(self) -> nn.Module:
        if not isinstance(self.denoiser, str):
            return self._object()
        downloads = self.params.get("pretrained")
        if downloads is not None and not str(downloads).startswith("download"):
            raise self._error("pretrained is None or one of deepinv's downloads; give a file of weights as checkpoint")
        if downloads is not None and self.checkpoint is not None:
            raise self._error("checkpoint and pretrained are two sources of the weights: give one")
        module = build("deepinv-denoiser", self.denoiser, _HOME, self._arguments(), self.seed)
        if not isinstance(module, nn.Module):
            raise self._error(f"{self.denoiser} is not a torch module (it makes a {type(module).__name__})")
        if self.checkpoint is not None:
            self._load(module, self.checkpoint)
        elif downloads is None and any(True for _ in module.parameters()):
            warnings.warn(
                f"{self.denoiser} has fresh weights, which are no prior: give their file as checkpoint",
                UserWarning,
                stacklevel=2,
            )
        return module

    def _object(self) -> nn.Module:
        if self.params or self.checkpoint is not None:
            raise self._error("params and checkpoint are for a denoiser that is built by name, and an object was given")
        if not isinstance(self.denoiser, nn.Module):
            raise self._error(f"denoiser must be a torch module or its name (got {type(self.denoiser).__name__})")
        import copy

        return copy.deepcopy(self.denoiser)  # its type, device and mode stay as they are

    def _arguments(self) -> dict[str, Any]:
        """The parameters, and nothing downloaded that was not asked for."""
        make = find("deepinv-denoiser", self.denoiser, _HOME)
        takes = "pretrained" in inspect.signature(make).parameters
        return {**({"pretrained": None} if takes else {}), **self.params}

    def _load(self, module: nn.Module, path: str) -> None:
        state, _ = load_state_dict(path)
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(path, f"its tensors are not those of {self.denoiser}: {error}") from error

    def _check_image(self) -> None:
        """One image of zeros, at the largest level."""
        x = torch.zeros(1, *self.image_shape, dtype=self.dtype, device=self.device)
        name = self.denoiser if isinstance(self.denoiser, str) else type(self.denoiser).__name__
        try:
            with torch.no_grad():
                x0 = self._evaluate(x, torch.tensor(self.sigma_max, dtype=torch.float64))
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
            raise self._error(f"{name} does not take images of shape {self.image_shape}: {error}") from error
        if not isinstance(x0, Tensor) or x0.shape != x.shape:
            found = tuple(x0.shape[1:]) if isinstance(x0, Tensor) else type(x0).__name__
            raise self._error(f"{name} makes {found} of an image of shape {self.image_shape}")

    # The model

    @property
    def data_range(self) -> tuple[float, float]:
        """Between which values the images lie."""
        return 0.0, 1.0

    @property
    def level_range(self) -> tuple[float, float] | None:
        return 0.99 * self.sigma_min, 1.01 * self.sigma_max

    @property
    def radius(self) -> float | None:
        return math.sqrt(math.prod(self.image_shape))

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        alpha = self.sde.alpha(t)
        return self._evaluate(x / broadcast(alpha, x), self.sde.sigma(t) / alpha)

    def _evaluate(self, x: Tensor, level: Tensor) -> Tensor:
        """D(x, level)."""
        sigma = level.to(x).expand(x.shape[0])  # one level for each sample, of x's type
        x0: Tensor = self.module(x, sigma)
        return x0
