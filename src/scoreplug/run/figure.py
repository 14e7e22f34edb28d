"""One picture of a run."""

from __future__ import annotations

import io
from typing import Any

from scoreplug.run.display import Picture, pictures
from scoreplug.run.result import Result

SAMPLES = 4
_FIRST_ROW = ("truth", "measurement", "baseline", "mean", "error")
_COLUMN = 2.3  # inches


def figure(result: Result) -> bytes:
    """Truth, measurement, baseline, mean and error above, samples and standard deviation below, as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    found = pictures(result)
    first = [found[name] for name in _FIRST_ROW if name in found]
    shown = [found[f"sample {i + 1}"] for i in range(min(SAMPLES, len(result.samples)))]
    second = shown + ([found["std"]] if "std" in found else [])

    columns = max(len(first), len(second))
    height, width = result.mean.shape[-2:]
    row = _COLUMN * min(max(height / width, 0.4), 2.5) + 0.5
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.06, wspace=0.02, hspace=0.04)
    canvas = Figure(figsize=(columns * _COLUMN + 0.4, 2 * row + 0.4), layout=layout)
    FigureCanvasAgg(canvas)
    canvas.suptitle(_title(result), fontsize=10)
    axes = canvas.subplots(2, columns, squeeze=False)
    for line, panels in zip(axes, (first, second), strict=True):
        for panel in line[len(panels) :]:
            panel.set_axis_off()
        for panel, picture in zip(line, panels, strict=False):
            _show(canvas, panel, picture, height / width)

    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _show(canvas: Any, axes: Any, picture: Picture, ratio: float) -> None:
    image = axes.imshow(
        picture.drawn,
        vmin=picture.low,
        vmax=picture.high,
        cmap=picture.colours,
        interpolation="nearest",
        aspect="equal" if picture.like_image else "auto",
    )
    if not picture.like_image:
        axes.set_box_aspect(ratio)
    axes.set_title(f"{picture.title}\n{picture.note}" if picture.note else f"{picture.title}\n", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(0.4)
    if picture.colours != "gray":
        bar = canvas.colorbar(image, ax=axes, location="bottom", fraction=0.05, pad=0.02, shrink=0.9)
        bar.ax.tick_params(labelsize=6, length=2, width=0.4)
        bar.outline.set_linewidth(0.4)


def _title(result: Result) -> str:
    n, noise_std = len(result.samples), result.subject.measurement.noise_std
    return f"{result.title}    {n} sample{'s' * (n > 1)}, seed {result.config.seed}, noise_std {noise_std:.3g}"
