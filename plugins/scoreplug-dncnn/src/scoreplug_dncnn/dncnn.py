r"""A denoiser of natural images as a score model, valid at small noise levels.

DnCNN predicts the noise from the noisy image and its level,

    D(x, s) = x - R(x, s),    R = W_L relu(W_{L-1} ... relu(W_1 [x, s 1])),

with circular 3 x 3 convolutions of 64 channels, and biases in all but the first and last. By Tweedie's formula
D(x, s) = E[x_0 | x_0 + s z = x] makes it the score model of the images that it was trained on: natural grey images in
[0, 1], channel by channel. The weights are SCICO's variants with a noise-level input, batch normalisation folded in.

Biased in: everything above `level_range`, where it does not denoise as it should. It was trained up to s = 0.2; on six
crops of photographs it takes 20.0 dB to 29.7 dB at s = 0.1, but 14.0 to 23.6 only at 0.2 (17N: 21.4), and 10.5 to 17.5
at 0.3. Below 0.005 it adds more error than there is noise. Nothing makes it the gradient of a density.

So it is a local prior. At 0.1 the noise has destroyed little of an image, and p_t is nothing like N(0, 0.1^2 I), which
samplers start from: samples of the prior alone are no images, and a posterior is reached only where the measurement
pulls there within the run, from 0. The benchmark has a case in which `dps` gets there, and one in which it does not.

References:
    Zhang, Zuo, Chen, Meng, Zhang: Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising. IEEE
    TIP 2017, arXiv:1608.03981.
    Balke, Davis, Garcia-Cardona, Majee, McCann, Pfister, Wohlberg: Scientific Computational Imaging Code (SCICO).
    JOSS 7(78), 2022, doi:10.21105/joss.04722.
"""

from __future__ import annotations

import functools
import itertools
import json
from importlib.resources import as_file, files
from typing import Any, Literal

import attrs
import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from scoreplug import BasePrior, param
from scoreplug.model import broadcast
from scoreplug.protocols import SDE

LEVELS = {"name": "ve", "sigma_min": 0.005, "sigma_max": 0.1}


class Network(nn.Module):
    """R(x, s), the predicted noise, (B, 1, H, W)."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        widths = [2, *[64] * (depth - 1), 1]
        self.layers = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1, padding_mode="circular", bias=0 < k < depth - 1)
            for k, (i, o) in enumerate(itertools.pairwise(widths))
        )

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """The noise in x, (B, 1, H, W), of the level (B, 1, 1, 1)."""
        h = torch.cat([x, level.expand_as(x)], 1)
        *hidden, last = self.layers
        for layer in hidden:
            h = layer(h).relu()
        predicted: Tensor = last(h)
        return predicted


@attrs.frozen(kw_only=True, eq=False)
class DnCNN(BasePrior):
    """SCICO's noise-aware DnCNN, for grey images in [0, 1] of any size; channels are denoised one by one."""

    sde: SDE = param(LEVELS, component="sde", doc="the forward process that the model is asked under")
    image_shape: tuple[int, int, int] = param(
        (1, 64, 64), ge=1, unit="pixel", doc="shape of one image: channels, height, width"
    )
    weights: Literal["6N", "17N"] = param("6N", doc="the variant: layers, and N for a noise-level input")

    def __attrs_post_init__(self) -> None:
        _ = self.module  # a file that cannot be read is found now, not at the first step

    @functools.cached_property
    def module(self) -> nn.Module:
        """R, the network."""
        with self._file() as path, safe_open(path, framework="pt") as file:
            with torch.device("meta"):  # weights that are not drawn leave the global generator alone
                network = Network(depth=self.card["depth"])
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()}, assign=True)
        return network.to(device=self.device, dtype=self.dtype).eval().requires_grad_(requires_grad=False)

    @functools.cached_property
    def card(self) -> dict[str, Any]:
        """What the file tells: source, licence, level_range, and the denoising error on images held out, by level."""
        with self._file() as path, safe_open(path, framework="pt") as file:
            card: dict[str, Any] = json.loads(file.metadata()["card"])
        return card

    def _file(self) -> Any:
        return as_file(files("scoreplug_dncnn").joinpath("weights", f"dncnn{self.weights}.safetensors"))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image_shape

    @property
    def data_range(self) -> tuple[float, float]:
        """Range of the training images' values."""
        return 0.0, 1.0

    @property
    def level_range(self) -> tuple[float, float]:
        """Levels at which it denoises, and two percent around them."""
        low, high = self.card["level_range"]
        return low / 1.02, high * 1.02

    def spread(self, t: Tensor) -> Tensor:
        """r_t, the denoising error that was measured on photographs; log r is linear in log level, constant outside."""
        level = self.sde.sigma(t) / self.sde.alpha(t)
        levels, errors = np.log(np.array(self.card["curve"])).T
        return torch.from_numpy(np.asarray(np.interp(level.log().cpu().numpy(), levels, errors))).to(level).exp()

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        scaled = x / broadcast(alpha, x)
        level = (sigma / alpha).to(x).reshape(-1, 1, 1, 1).expand(x.shape[0], x.shape[1], 1, 1)
        images = scaled.reshape(-1, 1, *x.shape[2:])
        noise: Tensor = self.module(images, level.reshape(-1, 1, 1, 1))
        return scaled - noise.reshape(x.shape)
