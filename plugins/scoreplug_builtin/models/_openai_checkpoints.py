"""What is known of guided-diffusion checkpoints: the published ones, and what a file's tensors tell of its network.

Attention is given by levels here, 0 being the full size: they belong to the network, while the resolutions that the
original's flag names belong to the images it was trained on.

References:
    The model card and README of the original code (Dhariwal, Nichol 2021, arXiv:2105.05233). `ffhq_10m` is the network
    of Chung et al. 2023, arXiv:2209.14687.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scoreplug.checkpoint import CheckpointError

Flags = dict[str, Any]
Shapes = Mapping[str, Sequence[int]]

DEFAULTS: Flags = {  # of the original's command line, and of what is not in it
    "model_channels": 128,
    "num_res_blocks": 2,
    "num_heads": 4,
    "num_head_channels": -1,
    "num_heads_upsample": -1,
    "use_scale_shift_norm": True,
    "resblock_updown": False,
    "conv_resample": True,
    "use_new_attention_order": False,
    "dropout": 0.0,
    "num_classes": None,
    "learn_sigma": False,
    "odd_sizes": "ceil",
    "prediction": "epsilon",
    "schedule": "linear",
    "diffusion_steps": 1000,
    "data_mean": 0.0,
    "data_std": 0.5,
}

CHANNEL_MULT: dict[int, tuple[float, ...]] = {
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}

_ADM: Flags = DEFAULTS | {
    "model_channels": 256,
    "num_head_channels": 64,
    "resblock_updown": True,
    "learn_sigma": True,
    "num_classes": 1000,
}
_ADM_64: Flags = _ADM | {"channel_mult": CHANNEL_MULT[64], "attention_levels": (1, 2, 3), "model_channels": 192}
_ADM_128: Flags = _ADM | {"channel_mult": CHANNEL_MULT[128], "attention_levels": (2, 3, 4), "num_head_channels": -1}
_ADM_256: Flags = _ADM | {"channel_mult": CHANNEL_MULT[256], "attention_levels": (3, 4, 5)}
_ADM_512: Flags = _ADM | {"channel_mult": CHANNEL_MULT[512], "attention_levels": (4, 5, 6)}
_UNCONDITIONAL: Flags = _ADM_256 | {"num_classes": None}
_FFHQ: Flags = _UNCONDITIONAL | {"model_channels": 128, "num_res_blocks": 1, "attention_levels": (4,)}

PRESETS: dict[str, Flags] = {
    "64x64_diffusion": _ADM_64
    | {"num_res_blocks": 3, "use_new_attention_order": True, "dropout": 0.1, "schedule": "cosine"},
    "128x128_diffusion": _ADM_128,
    "256x256_diffusion": _ADM_256,
    "256x256_diffusion_uncond": _UNCONDITIONAL,
    "512x512_diffusion": _ADM_512,
    "lsun_bedroom": _UNCONDITIONAL | {"dropout": 0.1},
    "lsun_cat": _UNCONDITIONAL | {"dropout": 0.1},
    "lsun_horse": _UNCONDITIONAL | {"dropout": 0.1},
    "lsun_horse_nodropout": _UNCONDITIONAL,
    "ffhq_10m": _FFHQ,
}


def usual_channel_mult(size: int) -> tuple[float, ...]:
    """The published widths for the published size nearest to `size`, as a ratio."""
    return CHANNEL_MULT[min(CHANNEL_MULT, key=lambda published: abs(math.log(published / size)))]


def usual_attention_levels(size: int, levels: int) -> tuple[int, ...]:
    """Levels nearest to the resolutions 16 and 8, as far as there are any."""
    return tuple(level for level in (nearest_level(size, 16), nearest_level(size, 8)) if 0 <= level < levels)


def nearest_level(size: int, resolution: int) -> int:
    """The level whose resolution, size / 2^level, is nearest to the one asked for, as a ratio."""
    return round(math.log2(size / resolution))


def attention_levels(resolutions: Iterable[int], size: int, levels: int) -> tuple[int, ...]:
    """The levels that resolutions name.

    On sizes and resolutions that are powers of two this is the original's rule, which knows no others.

    Args:
        resolutions: as in the original's flag.
        size: larger edge of the image.
        levels: number of levels.

    Raises:
        ValueError: if there is no such level.
    """
    found = {resolution: nearest_level(size, resolution) for resolution in resolutions}
    for resolution, level in found.items():
        if not 0 <= level < levels:
            there_are = ", ".join(f"{size / 2**k:g}" for k in range(levels))
            raise ValueError(
                f"attention_resolutions: no level is near {resolution}; those of an image of {size} pixels with "
                f"{levels} entries in channel_mult are {there_are} (got {tuple(found)})"
            )
    return tuple(sorted(set(found.values())))


def widths(flags: Flags) -> list[int]:
    """Channels of every level."""
    return [int(mult * flags["model_channels"]) for mult in flags["channel_mult"]]


def read_flags(path: str, shapes: Shapes) -> Flags:
    """The flags that names and shapes of tensors tell, and `in_channels`, `out_channels` and `dims`.

    Heads, the order of the attention's channels, dropout and what the network predicts leave no trace in them.

    Raises:
        CheckpointError: if they are not those of such a network.
    """
    try:
        return _read_flags(shapes)
    except (KeyError, StopIteration, ValueError) as error:
        first = ", ".join(list(shapes)[:3])
        raise CheckpointError(
            path, f"not a guided-diffusion UNet: {error!r} (its tensors begin with {first})"
        ) from error


def _read_flags(shapes: Shapes) -> Flags:
    base = shapes["time_embed.0.weight"][1]
    first, last = shapes["input_blocks.0.0.weight"], shapes["out.2.weight"]
    blocks = _count(shapes, "input_blocks")
    if blocks != _count(shapes, "output_blocks"):
        raise ValueError("unequal numbers of input_blocks and output_blocks")

    # A level is n residual blocks and a down-sampler on the way down, and n + 1 residual blocks on the way up, of which
    # the last has an up-sampler. Where these have no parameters, the down-sampler leaves a gap in the numbers.
    up = [j for j in range(blocks) if _upsampler(shapes, j, "in_layers.0") or _upsampler(shapes, j, "conv")]
    gaps = [i for i in range(blocks) if not any(name.startswith(f"input_blocks.{i}.") for name in shapes)]
    n = up[0] if up else gaps[0] - 1 if gaps else blocks - 1
    levels, rest = divmod(blocks, n + 1)
    if rest:
        raise ValueError(f"{blocks} input_blocks are no multiple of {n + 1}")

    heads = [1 + level * (n + 1) for level in range(levels)]  # the first residual block of every level
    out_channels = [shapes[f"input_blocks.{i}.0.out_layers.3.weight"][0] for i in heads]
    updown = bool(up) and _upsampler(shapes, up[0], "in_layers.0")
    embedded = shapes["input_blocks.1.0.emb_layers.1.weight"][0]
    flags: Flags = {
        "dims": len(first) - 2,
        "in_channels": first[1],
        "out_channels": last[0],
        "model_channels": base,
        "num_res_blocks": n,
        "channel_mult": tuple(width / base for width in out_channels),
        "attention_levels": tuple(k for k, i in enumerate(heads) if f"input_blocks.{i}.1.qkv.weight" in shapes),
        "use_scale_shift_norm": embedded == 2 * out_channels[0],
        "num_classes": shapes["label_emb.weight"][0] if "label_emb.weight" in shapes else None,
    }
    if levels > 1:  # else nothing changes the size
        flags["resblock_updown"] = updown
        if not updown:
            flags["conv_resample"] = bool(up)
    return flags


def _count(shapes: Shapes, blocks: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith(f"{blocks}."))


def _upsampler(shapes: Shapes, j: int, layer: str) -> bool:
    return any(f"output_blocks.{j}.{k}.{layer}.weight" in shapes for k in (1, 2))


def disagreements(flags: Flags, file: Flags) -> list[str]:
    """What a network with these flags has otherwise than the file's, one line per flag."""
    found = []
    for name in sorted(flags.keys() & file.keys() - {"channel_mult", "model_channels", "dropout"}):
        if flags[name] != file[name]:
            label = "attention_levels (or attention_resolutions)" if name == "attention_levels" else name
            found.append(f"{label}: {flags[name]!r} is asked for, the file has {file[name]!r}")
    if widths(flags) != widths(file):
        ours, theirs = ((f["model_channels"], tuple(f["channel_mult"])) for f in (flags, file))
        found.append(f"model_channels and channel_mult: {ours} are asked for, the file has {theirs}")
    return found
