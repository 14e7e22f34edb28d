"""What the pages of runs and benchmarks share: head, style, theme, sortable tables, downloads.

A page is one file. Style and script are written into it, its content security policy forbids every request, and what
others named (components, files, parameters) is escaped: in the text by the template, in the data by JSON's own escapes.
"""

from __future__ import annotations

import base64
from importlib.resources import files
from typing import Any

import numpy as np


def render(package: str, name: str, **facts: Any) -> str:
    """A page as HTML.

    Args:
        package: where the template, its .css and its .js are.
        name: of the template.
        facts: its variables.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    def text(file: str) -> str:
        own = files(package).joinpath(file)
        source = own if own.is_file() else files(__name__).joinpath(file)
        return source.read_text(encoding="utf-8")

    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(text),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["inline"] = lambda file: Markup(text(file))
    environment.filters |= {"number": number, "count": lambda n: f"{n:,}".replace(",", "\u202f")}
    return environment.get_template(name).render(**facts)


def number(value: float | None) -> str:
    """Four digits, or nothing."""
    return "" if value is None else f"{value:.4g}"


def uri(png: bytes) -> str:
    """A PNG file as an address."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def embedded(values: np.ndarray, bits: int = 32) -> dict[str, Any]:
    """Numbers for the page's script: little-endian float32, or unsigned integers that stand for offset + scale * i.

    Args:
        values: finite.
        bits: 32, 16 or 8; the error of the latter two is at most half of scale = (max - min) / (2^bits - 1).
    """
    facts: dict[str, Any] = {"shape": list(values.shape), "kind": "float32", "offset": 0.0, "scale": 1.0}
    if bits == 32:
        raw = values.astype("<f4")
    else:
        low, high = float(values.min()), float(values.max())
        scale = (high - low) / (2**bits - 1) or 1.0
        raw = np.rint((values.astype(np.float64) - low) / scale).astype(f"<u{bits // 8}")
        facts |= {"kind": f"uint{bits}", "offset": low, "scale": scale}
    return facts | {"data": base64.b64encode(np.ascontiguousarray(raw).tobytes()).decode()}
