"""The report: one HTML file with everything in it, for any browser, without a network."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np

from scoreplug.run._page import embedded, render, uri
from scoreplug.run.display import Picture, gray, pictures
from scoreplug.run.result import Result

EXACT = 250_000
"""Values up to which a page holds its arrays as float32; beyond it 16 bits a value, with offset and scale."""

VALUES = 1_000_000
"""Values of samples that a page holds; of more, it holds quantiles over all samples, and the first few samples."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

_ROWS = (("posterior mean", "posterior_mean"), ("average of samples", "average_of_samples"))


def report(result: Result, picture: bytes) -> str:
    """The report as HTML.

    Args:
        result: of the run.
        picture: the figure, a PNG file, for a browser that runs no scripts.
    """
    height, width = result.mean.shape[-2:]
    found = pictures(result)
    shown = _shown(result)
    found = {name: p for name, p in found.items() if not name.startswith("sample ") or name in shown}
    bits = 32 if sum(p.pixels.size for p in found.values()) <= EXACT else 16
    images = [p.pixels for p in found.values() if p.of_image]
    scale = found["mean"]
    trajectory = result.trajectory
    files = {"config.toml": result.config.to_toml(), "metrics.json": to_json(result.metrics)}
    return render(
        "scoreplug.run",
        "report.html",
        title=result.title,
        config=files["config.toml"],
        cost=result.cost,
        data={
            "height": height,
            "width": width,
            "low": scale.low,
            "high": scale.high,
            "reach": [
                min(scale.low, *(float(x.min()) for x in images)),
                max(scale.high, *(float(x.max()) for x in images)),
            ],
            "pictures": [_embedded(name, p, (height, width), bits, sample=name in shown) for name, p in found.items()],
            "quantiles": QUANTILES,
            "summary": _summary(result, bits) if len(shown) < len(result.samples) else None,
            "trajectory": None
            if trajectory is None
            else {
                "frames": [
                    embedded(np.stack([_pixels(x) for x in line]), 8) for line in trajectory.frames.swapaxes(0, 1)
                ],
                "levels": trajectory.levels.tolist(),
                "denoised": trajectory.denoised.tolist(),
            },
            "colours": {name: _colours(name) for name in {p.colours for p in found.values()} | {"gray"}},
            "files": files,
        },
        figure=uri(picture),
        levels=0 if trajectory is None else len(trajectory.levels),
        metrics=result.metrics,
        mean_std=result.metrics["mean_std"],
        n=len(result.samples),
        not_x0=0 if trajectory is None else int((~trajectory.denoised).sum()),
        note=_note(result, len(shown)),
        origin=_origin(result.provenance),
        precision=_precision(bits),
        provenance=json.dumps(result.provenance, indent=2),
        ratio=f"{width} / {height}",
        rows=_rows(result),
        size=" x ".join(map(str, result.mean.shape)),
    )


def to_json(value: object) -> str:
    """JSON has no infinity (the PSNR of an exact reconstruction); it becomes null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rows(result: Result) -> list[dict[str, Any]]:
    """The lines of the table of metrics."""
    rows = [{"name": name, **result.metrics[key]} for name, key in _ROWS]
    if result.baseline is not None:
        rows.append({"name": f"baseline: {result.baseline.name}", **result.metrics["baseline"]})
    samples = [{"name": f"sample {i + 1}", **entry} for i, entry in enumerate(result.metrics["samples"])]
    return rows + samples


def _shown(result: Result) -> set[str]:
    """The names of the samples that the page holds."""
    size = result.mean.size
    return {f"sample {i + 1}" for i in range(min(len(result.samples), max(VALUES // size, 1)))}


def _embedded(name: str, p: Picture, size: tuple[int, int], bits: int, *, sample: bool) -> dict[str, Any]:
    return {
        "name": name,
        "title": p.title,
        "note": p.note,
        "low": p.low,
        "high": p.high,
        "colours": p.colours,
        "of_image": p.of_image,
        "comparable": p.like_image and p.pixels.shape[:2] == size,
        "sample": sample,
        "array": embedded(p.pixels, bits),
    }


def _pixels(x: np.ndarray) -> np.ndarray:
    """(C, H, W) as (H, W, 3) or (H, W)."""
    return np.moveaxis(x, 0, -1) if len(x) == 3 else gray(x)


def _summary(result: Result, bits: int) -> dict[str, Any]:
    """Statistics over all samples, pixel by pixel, of what the page shows of a pixel."""
    values = np.stack([gray(x) for x in result.samples]).astype(np.float64)
    maps = {"mean": values.mean(0), "std": values.std(0, ddof=1), "quantiles": np.quantile(values, QUANTILES, axis=0)}
    return {name: embedded(found, bits) for name, found in maps.items()}


def _note(result: Result, shown: int) -> str:
    n, channels = len(result.samples), len(result.mean)
    what = {1: "values", 2: "magnitudes", 3: "means of the three channels"}.get(channels, "values of the first channel")
    if n == 1:
        return f"One sample: there is nothing to take a deviation or a quantile of. {what.capitalize()} are shown."
    few = f" {n} samples say little about the outer quantiles." if n < 20 else ""
    held = "" if shown == n else f" The page holds the first {shown} samples; statistics are of all {n}."
    return f"Statistics over {n} samples, of {what}; quantiles are interpolated linearly.{few}{held}"


def _precision(bits: int) -> str:
    if bits == 32:
        return "The page holds its arrays as float32."
    return (
        f"The page holds its arrays in {bits} bits a value: each is off by at most its range / {2 ** (bits + 1) - 2}."
    )


def _origin(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines of the table of provenance; checksums are below it."""
    known = [name for name in ("started", "finished", "python", "platform") if name in provenance]
    lines: list[tuple[str, str]] = [(name, str(provenance[name])) for name in known]
    lines += list(provenance.get("packages", {}).items())
    for plugin in provenance.get("plugins", []):
        commit = f", commit {plugin['commit']}" if plugin.get("commit") else ""
        lines.append((f"plugin {plugin['name']}", f"{plugin['version']}, {plugin['state']}{commit}"))
    return lines + [(f"input, {name}", str(value)) for name, value in provenance.get("input", {}).items()]


def _colours(name: str) -> str:
    """A colour map as 256 triples of bytes."""
    from matplotlib import colormaps

    table = np.rint(255 * colormaps[name](np.arange(256))[:, :3]).astype(np.uint8)
    return base64.b64encode(table.tobytes()).decode()
