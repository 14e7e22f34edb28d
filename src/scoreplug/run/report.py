"""The report: one HTML file with everything in it, for any browser, without a network."""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from typing import Any

from scoreplug.run.display import pictures, to_png
from scoreplug.run.result import Result

_ROWS = (("posterior mean", "posterior_mean"), ("average of samples", "average_of_samples"))


def report(result: Result, picture: bytes) -> str:
    """The report as HTML.

    Args:
        result: of the run.
        picture: the figure, a PNG file.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": _number, "count": lambda n: f"{n:,}".replace(",", "\u202f")}
    template = environment.from_string(files("scoreplug.run").joinpath("report.html").read_text(encoding="utf-8"))
    height, width = result.mean.shape[-2:]
    return template.render(
        title=result.title,
        config=result.config.to_toml(),
        cost=result.cost,
        figure=_uri(picture),
        gallery=[
            {"name": p.title, "note": p.note, "uri": _uri(to_png(p)), "low": p.low, "high": p.high}
            for p in pictures(result).values()
        ],
        metrics=result.metrics,
        mean_std=result.metrics["mean_std"],
        n=len(result.samples),
        provenance=json.dumps(result.provenance, indent=2),
        ratio=f"{width} / {height}",
        rows=_rows(result),
        size=" x ".join(map(str, result.mean.shape)),
    )


def _rows(result: Result) -> list[dict[str, Any]]:
    """The lines of the table of metrics."""
    rows = [{"name": name, **result.metrics[key]} for name, key in _ROWS]
    if result.baseline is not None:
        rows.append({"name": f"baseline: {result.baseline.name}", **result.metrics["baseline"]})
    samples = [{"name": f"sample {i + 1}", **entry} for i, entry in enumerate(result.metrics["samples"])]
    return rows + samples


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
