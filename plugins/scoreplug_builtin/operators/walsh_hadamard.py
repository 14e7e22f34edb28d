"""Random rows of the Walsh-Hadamard transform: compressed sensing, the single-pixel camera."""

from __future__ import annotations

import functools
import math

import attrs
import torch
from torch import Tensor

from scoreplug.noise import Noise
from scoreplug.operator import SVD, SpectralOperator
from scoreplug.param import param
from scoreplug_builtin.operators._image import Constant, OnImage


@attrs.frozen(kw_only=True, eq=False)
class WalshHadamard(OnImage, SpectralOperator):
    """A x = kept rows of H P x, channel by channel, (B, C, H, W) -> (B, C, m).

    P permutes the pixels at random, so that no row has the image's structure; H is the orthonormal Hadamard matrix, of
    entries +-1/sqrt(n) for n pixels. The rows kept are the first, which sees the mean, and others drawn at random; rows
    and permutation are the same in all channels. V = P^T H, s = 1 for the rows kept, and the norm is 1. Fractions of
    1/2 and 1/4 are the problems of DDRM.

    Raises:
        ValueError: if the number of pixels is not a power of two.

    References:
        Duarte, Davenport, Takhar, Laska, Sun, Kelly, Baraniuk: Single-pixel imaging via compressive sampling. IEEE
        Signal Process. Mag. 25 (2008), doi:10.1109/MSP.2007.914730.
        Fino, Algazi: Unified matrix treatment of the fast Walsh-Hadamard transform. IEEE Trans. Comput. C-25 (1976),
        doi:10.1109/TC.1976.1674569.
        Kawar, Elad, Ermon, Song: Denoising Diffusion Restoration Models. NeurIPS 2022, arXiv:2201.11793.
    """

    fraction: float = param(0.5, gt=0.0, le=1.0, doc="fraction of the rows that are kept, at least one")
    seed: int = param(0, ge=0, doc="of permutation and rows")

    def __attrs_post_init__(self) -> None:
        n = self.pixels
        if n & (n - 1):
            _, height, width = self.image_shape
            raise ValueError(
                f"the Hadamard transform needs a number of pixels that is a power of two (got {height} x {width}); "
                "use sides like 32, 64, 128, or the operator 'inpainting' or 'fourier'"
            )

    @property
    def pixels(self) -> int:
        """n, in one channel."""
        return math.prod(self.image_shape[1:])

    @functools.cached_property
    def _draws(self) -> tuple[Constant, Constant, Constant]:
        """Permutation, its inverse, and the rows kept, in rising order."""
        noise = Noise(self.seed, (0,), dtype=torch.float64, device=torch.device("cpu")).at("walsh-hadamard")
        permutation = noise.at("pixels").uniform((self.pixels,))[0].argsort()
        order = noise.at("rows").uniform((self.pixels,))[0]
        order[0] = -1  # the mean comes first
        rows = order.argsort()[: max(1, round(self.fraction * self.pixels))].sort().values
        return Constant(permutation), Constant(permutation.argsort()), Constant(rows)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.image_shape[0], len(self._draws[2].value)

    def forward(self, x: Tensor) -> Tensor:
        return self._coefficients(x).index_select(2, self._draws[2].like(x))

    def transpose(self, y: Tensor) -> Tensor:
        return self._image(self._filled(y))

    @functools.cached_property
    def svd(self) -> SVD:
        singular_values = torch.zeros(self.image_shape[0], self.pixels, dtype=torch.float64, device="cpu")
        singular_values[:, self._draws[2].value] = 1
        return SVD(
            singular_values=singular_values,
            V=self._image,
            Vt=self._coefficients,
            U=lambda c: c.index_select(2, self._draws[2].like(c)),
            Ut=self._filled,
        )

    def _coefficients(self, x: Tensor) -> Tensor:
        """H P x, (B, C, H, W) -> (B, C, n)."""
        return hadamard(x.flatten(2).index_select(2, self._draws[0].like(x)))

    def _image(self, c: Tensor) -> Tensor:
        """P^T H c, (B, C, n) -> (B, C, H, W)."""
        return hadamard(c).index_select(2, self._draws[1].like(c)).reshape(-1, *self.image_shape)

    def _filled(self, y: Tensor) -> Tensor:
        """(B, C, m) -> (B, C, n), zeros in the rows that are not kept."""
        zeros = torch.zeros(y.shape[0], y.shape[1], self.pixels, dtype=y.dtype, device=y.device)
        return zeros.index_copy(2, self._draws[2].like(y), y)


def hadamard(x: Tensor) -> Tensor:
    """The orthonormal Walsh-Hadamard transform over the last dimension, of 2^k entries, in natural order: n log n
    additions (Fino, Algazi 1976)."""
    n = x.shape[-1]
    width = 1
    while width < n:
        pairs = x.reshape(*x.shape[:-1], n // (2 * width), 2, width)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        x = torch.stack([a + b, a - b], dim=-2).reshape(x.shape)
        width *= 2
    return x / math.sqrt(n)
