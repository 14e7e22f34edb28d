"""Parallel-beam line integrals: computed tomography."""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar

import attrs
import scipy.sparse.linalg
import torch
from torch import Tensor

from scoreplug.noise import Noise
from scoreplug.operator import SVD, BaseLinearOperator, least_squares
from scoreplug.param import param
from scoreplug_builtin.operators._cache import cached
from scoreplug_builtin.operators._image import Constant, OnImage
from scoreplug_builtin.operators._strips import Projector, projector, strip_matrix

MAX_SVD_ENTRIES = 10**8
"""Size of a matrix whose decomposition is still made: minutes, and 0.8 GB."""


@attrs.frozen(kw_only=True, eq=False)
class Radon(OnImage, BaseLinearOperator):
    r"""A x = integrals of x over strips, channel by channel, (B, C, H, W) -> (B, C, angles, detectors).

    Pixels are unit squares of constant value and detectors are bins of unit width, so that

        y(theta, j) = int x(u, v) [ |u cos theta + v sin theta - (j - detectors // 2)| <= 1/2 ] du dv,

    u to the right and v upwards from the centre of the pixel (H // 2, W // 2). The weights are exact areas of overlap
    of pixel and strip: every angle sees the whole mass of the image, as far as the detector reaches. Units are data
    times pixel.

    Axis, detector positions and sense of rotation are those of `skimage.transform.radon(circle=False)`, whose
    sinogram is y transposed. That one sums samples of the bilinearly interpolated image along rays; both
    smooth by 1/6 pixel^2 across oblique rays, and the two differ by 0.02 % on a Gaussian blob of 6 pixels, by 0.3 %
    on a Shepp-Logan phantom of 64 x 64 pixels.

    The sparse matrix is made once for each geometry and stored beside its transpose: the adjoint is the transpose,
    entry by entry. Angles that a quarter turn or a mirror image takes into each other share their weights (see
    `_strips`): of n equispaced ones, n even, a square image needs a quarter, which is 0.7 GB for A and A^T at 512 x 512
    pixels and 180 angles in double precision, and 0.2 GB more in single. The norm is found by power iteration.

    Inverse. Few angles leave the problem underdetermined, and its small singular values say nothing that noise does not
    drown: at 64 x 64 pixels and 30 angles, 2369 of the 2730 are above rounding, 2088 above 1e-3 of the largest. `pinv`
    is least squares by conjugate gradients, which come to the small ones last and stop at a relative residual of
    `pinv_tolerance`: ten steps at 1e-2 for exact data, fifty with noise of 1 % of the sinogram's peak, which 500 steps
    would let grow to three times the image. A tolerance of 1e-10 is met where the condition allows: few angles of a
    small image.

    `svd` is the decomposition of one channel's matrix without the singular values below svd_tolerance times the
    largest, hence thin: A = U S V^T up to the first one left out. Methods that use it take what is left out for not
    measured and leave it to the prior. That loses nothing to data with noise: at the cut s = 0.04 in the example, and
    noise of 0.04 in y, 1/400 of the sinogram's peak, stands for 1 in the image. The decomposition takes half a minute
    there and is kept on disk, 130 MB in the user's cache directory or SCOREPLUG_CACHE. For a larger matrix svd_rank
    asks for the leading singular values alone: the first 500 at 128 x 128 pixels and 60 angles take a minute, and end
    at 0.16 of the largest. `pinv` does not use it: conjugate gradients need no decomposition, at any size, and their
    tolerance regularises by what y holds, not by a fixed cut.

    Raises:
        ValueError: if there is no angle, or one that is not finite; when the svd of a larger matrix is asked for.

    References:
        Kak, Slaney: Principles of Computerized Tomographic Imaging. IEEE Press 1988, chapters 3 and 7.
    """

    baseline_name: ClassVar[str] = "filtered backprojection"

    angles: int | tuple[float, ...] = param(
        30, unit="degree", doc="theta, counter-clockwise; a number n is n angles at equal distances in [0, 180)"
    )
    detectors: int | None = param(
        None, ge=1, unit="pixel", doc="number of detector bins; none covers the image's diagonal"
    )

    pinv_tolerance: float = param(
        1e-2, gt=0.0, lt=1.0, doc="relative residual at which the pseudoinverse stops; smaller amplifies more noise"
    )
    svd_tolerance: float = param(
        1e-3, ge=0.0, lt=1.0, doc="singular values below this share of the largest count as zero"
    )
    svd_rank: int | None = param(
        None, ge=1, doc="how many singular values of one channel are computed, the largest; none computes all"
    )

    def __attrs_post_init__(self) -> None:
        if not self.degrees or not all(map(math.isfinite, self.degrees)):
            raise ValueError(f"angles must be a number >= 1 or finite degrees, at least one (got {self.angles!r})")

    @property
    def degrees(self) -> tuple[float, ...]:
        """theta in degrees, one by one."""
        if isinstance(self.angles, tuple):
            return tuple(map(float, self.angles))
        return tuple(180 * i / self.angles for i in range(self.angles))

    @property
    def output_shape(self) -> tuple[int, ...]:
        channels, height, width = self.image_shape
        detectors = math.ceil(math.sqrt(2) * max(height, width)) if self.detectors is None else self.detectors
        return channels, len(self.degrees), detectors

    @functools.cached_property
    def _projector(self) -> Projector:
        _, height, width = self.image_shape
        return projector(height, width, self.degrees, self.output_shape[2])

    def forward(self, x: Tensor) -> Tensor:
        return self._projector.project(x.flatten(0, 1)).reshape(len(x), *self.output_shape)

    def transpose(self, y: Tensor) -> Tensor:
        return self._projector.backproject(y.flatten(0, 1)).reshape(len(y), *self.input_shape)

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y to `pinv_tolerance`, (B, *output_shape) -> (B, *input_shape); see `scoreplug.operator.least_squares`.

        Raises:
            ArithmeticError: if conjugate gradients do not get there.
        """
        return least_squares(self, y, tolerance=self.pinv_tolerance)

    @functools.cached_property
    def svd(self) -> SVD:
        """The truncated decomposition, thin; spectral coordinates are (C, k)."""
        channels, height, width = self.image_shape
        m, n = len(self.degrees) * self.output_shape[2], height * width
        rank = None if self.svd_rank is None or self.svd_rank >= min(m, n) else self.svd_rank
        entries = m * n if rank is None else (m + n) * rank
        if entries > MAX_SVD_ENTRIES:
            raise ValueError(
                f"the singular value decomposition of a sinogram of {m} values of {height} x {width} pixels would take "
                f"{entries:.1e} entries and hours (limit {MAX_SVD_ENTRIES:.0e}); ask for the leading singular values "
                f"alone (svd_rank, up to {MAX_SVD_ENTRIES // (m + n)} here), use fewer angles or pixels, or a "
                "conditioner that needs none (dps, jalal, song)"
            )
        key = f"radon svd 1: {height} x {width}, {self.output_shape[2]} detectors, rank {rank}, {self.degrees}"

        def compute() -> dict[str, Tensor]:
            return _decompose(strip_matrix(height, width, self.degrees, self.output_shape[2]), rank)

        parts = cached("radon-svd", key, compute)
        kept = parts["s"] > self.svd_tolerance * parts["s"].max()
        s, U, Vt = parts["s"][kept], Constant(parts["U"][:, kept]), Constant(parts["Vt"][kept])
        return SVD(
            singular_values=s.expand(channels, -1).clone(),
            V=lambda c: (c @ Vt.like(c)).reshape(-1, *self.input_shape),
            Vt=lambda x: x.flatten(2) @ Vt.like(x).T,
            U=lambda c: (c @ U.like(c).T).reshape(-1, *self.output_shape),
            Ut=lambda y: y.flatten(2) @ U.like(y),
        )

    def filtered_backprojection(self, y: Tensor) -> Tensor:
        """The inverse for many angles: x = dtheta A^T (ramp * y), with the ramp of Kak and Slaney, eq. (3.61).

        dtheta is the mean distance of neighbouring angles modulo 180 degrees. The largest gap is left out of the
        mean: if it is the missing wedge of a limited scan, no angle stands for it. For n equispaced angles dtheta =
        pi / n, as in `skimage.transform.iradon`.

        Args:
            y: (B, *output_shape).

        Returns:
            (B, *input_shape).
        """
        n = y.shape[-1]
        size = 2 ** math.ceil(math.log2(2 * n))  # zeros beyond the detector, or the circular convolution would wrap
        k = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64, device="cpu")
        ramp = torch.where(k % 2 == 1, -1 / (math.pi * torch.where(k == 0, 1, k)) ** 2, 0.0)
        ramp[0] = 1 / 4
        gain = torch.fft.rfft(ramp).real.to(y)
        filtered = torch.fft.irfft(torch.fft.rfft(y, size) * gain, size)[..., :n]
        return self.adjoint(filtered) * _angular_spacing(self.degrees)

    def baseline(self, y: Tensor) -> Tensor:
        """The classical reconstruction, `filtered_backprojection`."""
        return self.filtered_backprojection(y)


def _decompose(matrix: Any, rank: int | None) -> dict[str, Tensor]:
    """U, s, V^T of a sparse matrix: all singular values above rounding, or the leading ones, in falling order."""
    if rank is None:
        U, s, Vt = torch.linalg.svd(torch.from_numpy(matrix.toarray()), full_matrices=False)
    else:
        draws = Noise(0, (0,), dtype=torch.float64, device=torch.device("cpu")).at("svd")
        start = draws.normal((min(matrix.shape),))[0].numpy()
        U, s, Vt = (torch.from_numpy(part.copy()) for part in scipy.sparse.linalg.svds(matrix, k=rank, v0=start))
        U, s, Vt = U.flip(1), s.flip(0), Vt.flip(0)
    above = s > max(matrix.shape) * torch.finfo(s.dtype).eps * s.max()
    return {"U": U[:, above].contiguous(), "s": s[above].contiguous(), "Vt": Vt[above].contiguous()}


def _angular_spacing(degrees: tuple[float, ...]) -> float:
    ordered = sorted(d % 180 for d in degrees)
    gaps = sorted(b - a for a, b in zip(ordered, [*ordered[1:], ordered[0] + 180], strict=True))
    return math.radians(math.fsum(gaps[:-1]) / (len(gaps) - 1) if len(gaps) > 1 else 180)
