"""Memory, in words and as measured: sizes such as "2GB", and the peak of this process or of its graphics card."""

from __future__ import annotations

import contextlib
import gc
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def parse_size(text: object) -> int:
    """Bytes in a text: "512MB" and "2 GB" by thousands, "2GiB" by 1024.

    Raises:
        ValueError: for anything else.
    """
    found = _SIZE.fullmatch(text.strip()) if isinstance(text, str) and len(text) < 40 else None
    if found is None:
        raise ValueError("a size is a number and a unit, as in 512MB, 2GB or 1.5GiB")
    number, prefix, binary = found.groups()
    return round(float(number) * (1024 if binary else 1000) ** _POWERS[prefix.upper()])


def in_words(size: float) -> str:
    """Bytes as a text of three digits."""
    for power, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(size) >= power * 0.9995:
            return f"{size / power:.3g} {unit}"
    return f"{size:.0f} B"


def peak_memory() -> int | None:
    """The largest resident size of this process since `reset_peak`, in bytes; None on systems that do not keep it."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_on(device: torch.device) -> int | None:
    """The most memory that this process has had on a device since `reset_peak`, in bytes."""
    import torch

    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_memory()


def now_on(device: torch.device) -> int:
    """The memory that this process has now, on a device, in bytes; 0 on systems that do not say it."""
    import torch

    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    with contextlib.suppress(OSError, ValueError, IndexError):
        return 1024 * int(_STATUS.read_text().split("VmRSS:")[1].split()[0])
    return 0


def reset_peak(device: torch.device | None = None) -> None:
    """Let the peak begin anew. Only Linux and CUDA can; elsewhere it is the peak of the process so far."""
    import torch

    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5")
    if device is not None and device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def give_back(device: torch.device) -> None:
    """Hand what was freed back to the system, so that the next peak does not hold what the last one left behind."""
    import ctypes

    import torch

    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # of glibc alone
        ctypes.CDLL(None).malloc_trim(0)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def unmeasurable(device: torch.device) -> str | None:
    """Why the peak of a part of a run cannot be measured on a device; None if it can be."""
    if device.type == "cuda":
        return None
    if device.type != "cpu":
        return f"torch does not say how much memory a run takes on {device.type!r}"
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return "this system does not let a process measure the peak of its memory anew, as Linux does"
    return None
