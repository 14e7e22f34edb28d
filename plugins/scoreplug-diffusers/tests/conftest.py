"""Small pipelines with random weights, saved by diffusers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, UNet2DModel

NETWORK: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}


def make_network(**changes: Any) -> UNet2DModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DModel(**{**NETWORK, **changes}).eval().requires_grad_(requires_grad=False)


@pytest.fixture
def save(tmp_path: Path):
    """Save a pipeline of a scheduler and a network; gives its folder and the network."""

    def saved(scheduler: Any, *, pipeline: type = DDPMPipeline, **changes: Any) -> tuple[str, UNet2DModel]:
        network = make_network(**changes)
        pipeline(network, scheduler).save_pretrained(tmp_path / "pipeline")
        return str(tmp_path / "pipeline"), network

    return saved
