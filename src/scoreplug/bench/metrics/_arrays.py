"""Samples as float64 arrays, whatever they come as."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor


def float64(x: Array) -> np.ndarray:
    """x in float64, of its own shape; a tensor may be anywhere, and part of a graph."""
    values = x.detach().to(device="cpu", dtype=torch.float64).numpy() if isinstance(x, Tensor) else x
    return np.asarray(values, dtype=np.float64)


def array(x: Array, what: str = "samples") -> np.ndarray:
    """Finite values in float64, of their own shape.

    Raises:
        ValueError: if it is empty or holds values that are NaN or infinite.
    """
    values = float64(x)
    if values.size == 0:
        raise ValueError(f"{what} of shape {values.shape} hold nothing to measure")
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise ValueError(
            f"{bad} values of {what} are NaN or infinite; a diverged run has no metrics, report it as such"
        )
    return values


def rows(x: Array, what: str = "samples") -> np.ndarray:
    """Samples (n, *shape) as (n, d).

    Raises:
        ValueError: if they have no axis of samples, are empty, or are not finite.
    """
    values = array(x, what)
    if values.ndim == 0:
        raise ValueError(f"{what} are one number; give them as (n, *shape)")
    return values.reshape(len(values), -1)


def two_sets(samples: Array, reference: Array, *, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Samples and reference as (n, d) and (m, d).

    Raises:
        ValueError: if their dimensions differ, or a set has fewer than `least` samples.
    """
    x, y = rows(samples), rows(reference, "reference")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"samples have {x.shape[1]} dimensions, the reference has {y.shape[1]}")
    if min(len(x), len(y)) < least:
        raise ValueError(f"{least} samples of each are needed (got {len(x)} and {len(y)})")
    return x, y


def directions(d: int, count: int, seed: int) -> np.ndarray:
    """Unit vectors, uniform on the sphere, (d, count); the same for the same d, count and seed."""
    if count < 1:
        raise ValueError(f"at least one direction is needed (got {count})")
    z = np.random.default_rng(seed).standard_normal((d, count))
    unit: np.ndarray = z / np.linalg.norm(z, axis=0)
    return unit


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x_i - y_j|^2, (n, m), from inner products: one product of matrices, and rounding of 1e-16 |x|^2."""
    centre = x.mean(0)
    x, y = x - centre, y - centre
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    nonnegative: np.ndarray = np.maximum(squared, 0.0)
    return nonnegative


def median_distance(squared: np.ndarray) -> float:
    """The median of the distances between different samples, from their squares (n, n)."""
    return float(np.median(np.sqrt(squared[np.triu_indices(len(squared), 1)])))
