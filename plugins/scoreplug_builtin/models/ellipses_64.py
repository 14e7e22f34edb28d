"""The prior `ellipses-64`."""

from __future__ import annotations

from typing import ClassVar

import attrs

from scoreplug_builtin.models._packaged import PackagedPrior


@attrs.frozen(kw_only=True, eq=False)
class Ellipses64(PackagedPrior):
    """Small prior on 64 x 64 phantoms of random ellipses, values in [0, 1].

    Data: the source `ellipses`, made on the fly, so that no image is seen twice and any number can be held out. There
    is nothing to license.

    Network: `openai-unet` with 1.17 million parameters, stored in half precision; noise levels 0.0001 to 152.

    Training: 77,808 images in 9,726 steps of 8, 96 minutes on one thread of a busy CPU, with weights/ellipses-64.toml
    (the comments there tell how the range of levels grew on the way). Root mean squared error per pixel on 64 held-out
    images, and that of the best linear filter (Wiener's):

        level     rmse    linear
        0.01     0.0055   0.0097
        0.05     0.0217   0.0362
        0.1      0.0361   0.0536
        0.2      0.0574   0.0738
        0.5      0.0954   0.1060
        1        0.1273   0.1345
        2        0.1587   0.1648

    Limits: a phantom is not an anatomy. Structures that are not made of ellipses are drawn as if they were.
    """

    weights: ClassVar[str] = "ellipses-64"
