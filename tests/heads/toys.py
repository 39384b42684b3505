"""Small data for the tests of heads: two Gaussian classes in a cone, as embeddings of a contrastive encoder lie."""

from __future__ import annotations

import numpy as np
import torch

from guardtrain.heads import HeadData

ANCHORS = np.random.default_rng(99).normal(size=(2, 40))  # enough for every dimension used here


def anchors(dim: int) -> np.ndarray:
    """`(2, D)` text anchors, not of unit norm."""
    return ANCHORS[:, :dim]


def toy_data(
    n: int = 30, dim: int = 8, seed: int = 0, *, pairs: int = 0, weighted: bool = False, separation: float = 1.0
) -> HeadData:
    """`n` images, a third unsafe, then the halves of `pairs` pairs."""
    g = np.random.default_rng(seed)
    y = np.concatenate([(np.arange(n) % 3 == 0), np.tile([1, 0], pairs)]).astype(np.int64)
    x = 2 + g.normal(size=(len(y), dim)) * np.linspace(0.5, 2, dim)
    x[:, 0] += separation * y
    local = n + np.arange(2 * pairs).reshape(-1, 2)
    x[local[:, 1]] += 0.9 * (x[local[:, 0]] - x[local[:, 1]])  # the safe half is like the unsafe one
    x[local[:, 1], 1] -= 2
    weights = len(y) / (2 * np.bincount(y))[y] if weighted else None
    return HeadData.of(x, y, weights, local, n)


def logits(bank: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    """`(N,)` float64 logits of a bank of one."""
    with torch.no_grad():
        return bank(torch.from_numpy(np.asarray(x, dtype=np.float32)))[0].double().numpy()
