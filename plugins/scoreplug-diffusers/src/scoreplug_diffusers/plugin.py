"""What this distribution adds to scoreplug. Nothing heavy is imported until the model is built."""

from __future__ import annotations

from collections.abc import Iterable

from scoreplug import ComponentSpec, ModelSpec, hookimpl


@hookimpl
def scoreplug_components() -> Iterable[ComponentSpec]:
    yield ModelSpec(
        name="diffusers",
        summary="An unconditional diffusers pipeline from a folder: DDPM, DDIM and their kin, score_sde VE, EDM",
        factory="scoreplug_diffusers.model:DiffusersModel",
        references=("https://github.com/huggingface/diffusers", "arXiv:2006.11239", "arXiv:2011.13456"),
    )
