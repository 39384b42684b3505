"""Two readers of the label that never saw the image's own: a linear head, and the nearest neighbours' labels.

Either alone is not enough to doubt a label. A linear head is surely wrong about whole kinds of images, and neighbours
in a high-dimensional space are few; where both agree against a label, that is worth a look.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from guardtrain.curves.audit.geometry import unit
from guardtrain.curves.audit.stacked import StackedRows
from guardtrain.curves.bootstrap import group_index

SEEDS = 5  # divisions into folds
NEIGHBOURS = 20
_KEPT = 48  # nearest images of other groups, of which about a fold's share is left out
_AXES = 512  # principal axes that the linear head sees; further ones carry next to nothing and cost their cube
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the ridge, times the mean variance of an axis
_BLOCK = 1024


def out_of_fold(
    embeddings: np.ndarray | StackedRows,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    folds: int = 5,
    seeds: int = SEEDS,
    seed: int = 0,
) -> np.ndarray:
    """Return what each reader says of every image, having learnt from images of other folds only.

    The linear head is a ridge regression on targets ±1, solved for all divisions from sums of squares, its strength
    that with the smallest squared error out of fold. The other reader is the log-odds of the labels of the 20 nearest
    images by cosine. An image's whole group is never learnt from with it.

    Args:
        embeddings: `(N, D)`.
        labels: `(N,)` 0 safe, 1 unsafe.
        groups: `(N,)` names or numbers.
        folds: parts that the groups are divided into.
        seeds: how many times they are divided, at random.
        seed: of these.

    Returns:
        `(seeds, N, 2)` float64: linear scores, where 0 is undecided, and neighbours' log-odds.

    >>> x = np.random.default_rng(0).normal(size=(300, 4))
    >>> scores = out_of_fold(x, (x[:, 0] > 0).astype(int), np.arange(300))
    >>> float(((scores[:, :, 0] > 0) == (x[:, 0] > 0)).mean()) > 0.95
    True
    """
    x = np.asarray(embeddings, dtype=np.float32)
    group, n_groups = group_index(groups)
    rng = np.random.default_rng(seed)
    fold = np.stack([(rng.permutation(n_groups) % folds)[group] for _ in range(seeds)])
    nearest = _nearest(unit(x), group)
    return np.stack([_linear(x, labels, fold), _voted(nearest, labels, fold)], axis=2)


def _linear(x: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """`(S, N)` scores of ridge regressions, each fold's from the sums over all others."""
    x = x - x.mean(axis=0)
    if x.shape[1] > _AXES:
        _, axes = np.linalg.eigh((x.T @ x).astype(np.float64))
        x = x @ axes[:, -_AXES:].astype(np.float32)
    x = np.concatenate([x, np.ones((len(x), 1), dtype=np.float32)], axis=1)  # the bias, which is not shrunk
    targets = (2.0 * labels - 1).astype(np.float32)
    scale = float(np.square(x[:, :-1], dtype=np.float64).mean()) * len(x) or 1.0
    out = np.empty((len(fold), len(x)))
    strength = np.nan
    for s, own in enumerate(fold):
        members = [np.flatnonzero(own == f) for f in range(int(own.max()) + 1)]
        squares = [(x[rows].T @ x[rows]).astype(np.float64) for rows in members]
        products = [(x[rows].T @ targets[rows]).astype(np.float64) for rows in members]
        total, product = sum(squares), sum(products)
        tried = _STRENGTHS if np.isnan(strength) else (strength,)
        scores = np.empty((len(tried), len(x)))
        for rows, square, part in zip(members, squares, products, strict=True):
            for i, penalty in enumerate(tried):
                shrunk = total - square
                shrunk[np.diag_indices(len(shrunk) - 1)] += penalty * scale
                shrunk[-1, -1] += 1e-6 * len(x)
                scores[i, rows] = x[rows] @ cho_solve(cho_factor(shrunk), product - part)
        best = int(np.argmin(np.square(scores - targets).mean(axis=1).round(9)[::-1]))
        strength = tried[::-1][best]  # of equals the strongest
        out[s] = scores[::-1][best]
    return out


def _nearest(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """`(N, k)` rows of the nearest images of other groups, the nearest first; -1 where there are no more."""
    import torch  # whose top-k is several times as quick as numpy's partition

    most = min(_KEPT, len(x) - 1)
    every, groups = torch.from_numpy(x), torch.from_numpy(group)
    out = np.empty((len(x), most), dtype=np.int64)
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        cosines = every[rows] @ every.T
        cosines[groups[rows, None] == groups[None]] = -torch.inf
        value, index = cosines.topk(most, dim=1)
        out[rows] = torch.where(torch.isinf(value), -1, index).numpy()
    return out


def _voted(nearest: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """`(S, N)` log-odds of the labels of the nearest images outside the fold, half a vote added on either side."""
    out = np.empty((len(fold), len(labels)))
    for s, own in enumerate(fold):
        counted = (nearest >= 0) & (own[nearest] != own[:, None])
        counted &= np.cumsum(counted, axis=1) <= NEIGHBOURS
        unsafe = (counted & (labels[nearest] == 1)).sum(axis=1)
        out[s] = np.log((unsafe + 0.5) / (counted.sum(axis=1) - unsafe + 0.5))
    return out
