"""The component of this distribution. Nothing is imported until it is built."""

from __future__ import annotations

from collections.abc import Iterable

from scoreplug import ModelSpec, hookimpl


@hookimpl
def scoreplug_components() -> Iterable[ModelSpec]:
    yield ModelSpec(
        name="dncnn",
        summary="Denoiser of natural grey images at noise levels of 0.005 to 0.1; the weights ship with the plugin",
        factory="scoreplug_dncnn.dncnn:DnCNN",
        references=("arXiv:1608.03981", "doi:10.21105/joss.04722"),
    )
