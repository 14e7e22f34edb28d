"""Random choices that problems are made of: the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def generator(*address: str | int) -> np.random.Generator:
    """A generator for one random choice of a problem; equal addresses draw equally."""
    digest = hashlib.blake2b(repr(address).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def random_matrix(rng: np.random.Generator, m: int, n: int) -> tuple[Tensor, Tensor]:
    """A = U diag(s) V^T with the singular vectors of a Gaussian matrix, (m, n), and s ~ U(0, 1) sorted, (m,).

    Args:
        rng: source.
        m: number of rows, at most n.
        n: number of columns.
    """
    U, _, Vt = np.linalg.svd(rng.standard_normal((m, n)), full_matrices=False)
    s = np.sort(rng.random(m))[::-1].copy()
    return torch.from_numpy(U * s @ Vt), torch.from_numpy(s)
