"""Counts and AUROC of K guards on S slices, observed and in B bootstrap replicates over groups, all at once.

A replicate draws as many groups as there are, with replacement (a pair is one group), the same for every guard and
slice: so differences between guards, and between slices, are paired. A drawn data set is a whole-number weight on each
image; nothing is copied, and no score is sorted twice (as in `guardtrain.curves.bootstrap`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np

from guardtrain.benchmarks.slices import Judged, Slice
from guardtrain.curves.bootstrap import group_draws

_WIDTH = 256  # replicates at a time: rows of a kilobyte, long enough for one call each
_CHUNK = 32  # rows that are summed up side by side
_BLOCK_BYTES = 256 << 20  # of the weights of all groups held at once


@dataclass(frozen=True, eq=False)
class Replicates:
    """Counts over resamples. The last axis has B + 1 places: the data as it is, then the replicates.

    Args:
        guards: K names.
        slices: S slices.
        unsafe, safe: (K, S, B + 1) float64 images that a guard has a verdict on, weighted.
        hits, alarms: (K, S, B + 1) unsafe and safe images called unsafe.
        auroc: (K, S, B + 1) float64; NaN where a class is missing.
        pairs: (K, S, B + 1) pairs with both halves in the slice, and verdicts on both.
        both_right, ranked: (K, S, B + 1) pairs with both halves on their side of the threshold, and with the unsafe
            half above the safe one (ties are half).
    """

    guards: tuple[str, ...]
    slices: tuple[Slice, ...]
    unsafe: np.ndarray
    safe: np.ndarray
    hits: np.ndarray
    alarms: np.ndarray
    auroc: np.ndarray
    pairs: np.ndarray
    both_right: np.ndarray
    ranked: np.ndarray

    def first(self, count: int | None) -> Replicates:
        """Return the counts of the first guards alone."""
        parts = {one.name: getattr(self, one.name)[:count] for one in fields(self) if one.name != "slices"}
        return replace(self, **parts)


def resampled(judged: Judged, masks: Mapping[Slice, np.ndarray], replicates: int, seed: int) -> Replicates:
    """Count everything on the data as it is and in `replicates` draws of its groups.

    The draws are of all images, with a verdict or without: a guard's numbers do not depend on what others judged.

    Args:
        judged: guards' logits and decisions on N images; each guard's counts are of the images that it has verdicts on.
        masks: (N,) bool for each slice.
        replicates: B.
        seed: of the draws; the same gives the same numbers, however much memory there is.
    """
    matrix = np.stack(list(masks.values()))
    k, s, b = len(judged.guards), len(matrix), replicates + 1
    # most guards judged the same images: what is counted of those is counted once
    covers, cover_of = np.unique(judged.known, axis=0, return_inverse=True)
    cover_of = cover_of.reshape(-1)
    totals, counts = _sums(judged, matrix, covers)
    jobs = _jobs(judged, matrix, covers, cover_of)
    of_totals, of_counts = np.empty((3, len(covers), s, b)), np.empty((4, k, s, b))
    auroc = np.empty((k, s, b))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        for first, draws in _draws(judged.groups, replicates, seed):
            columns = slice(first, first + draws.shape[1])
            of_totals[:, :, :, columns] = totals.of(draws).reshape(3, len(covers), s, -1)
            of_counts[:, :, :, columns] = counts.of(draws).reshape(4, k, s, -1)
            for job, found in zip(jobs, threads.map(lambda job, w=draws: job.auroc(w), jobs), strict=True):
                auroc[job.guard, job.slices, columns] = found
    alike = len(covers) == 1
    unsafe, safe, pairs = (np.broadcast_to(each, (k, s, b)) if alike else each[cover_of] for each in of_totals)
    hits, alarms, right, ranked = of_counts
    return Replicates(judged.guards, tuple(masks), unsafe, safe, hits, alarms, auroc, pairs, right, ranked)


def _draws(groups: int, replicates: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Weights of the groups (G, b) float32, some replicates at a time, with the place of the first."""
    yield 0, np.ones((groups, 1))  # in float64: the data as it is, exactly; float32 is near enough for replicates
    generator = np.random.default_rng(seed)
    width = int(np.clip(_BLOCK_BYTES // (4 * max(1, groups)), 1, _WIDTH))
    for first in range(0, replicates, width):
        n = min(width, replicates - first)
        yield first + 1, group_draws(groups, n, generator).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Weighted sums of terms over slices: a sparse matrix of terms by cell and group, and the cells of each slice.

    Units (images or pairs) that lie in the same slices make a cell, so each unit is added up once, not once a slice.
    """

    slices: np.ndarray  # (S, cells) 0/1
    terms: object  # scipy.sparse (T * cells, G)

    def of(self, draws: np.ndarray) -> np.ndarray:
        """(T, S, b)."""
        by_cell = (self.terms @ draws).reshape(-1, self.slices.shape[1], draws.shape[1])  # type: ignore[operator]
        return np.einsum("sc,tcb->tsb", self.slices, by_cell, optimize=True)


def _stacked(membership: np.ndarray, terms: np.ndarray, group: np.ndarray, groups: int) -> _Sums:
    """Sums of `terms` (T, M) over slices `membership` (S, M) of M units in `group` (M,)."""
    from scipy.sparse import csr_matrix, vstack

    first, cell = _cells(membership)
    shape = (max(1, len(first)), groups)
    rows = [csr_matrix((row.astype(np.float32), (cell, group)), shape=shape) for row in terms]
    for row in rows:
        row.eliminate_zeros()
    inside = membership[:, first].astype(np.float64) if len(first) else np.zeros((len(membership), 1))
    return _Sums(inside, vstack(rows, format="csr"))


def _cells(membership: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Units in the same of S slices make a cell: the first unit of each, and the cell of each unit (M,)."""
    if not membership.size:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    packed = np.packbits(membership, axis=0)
    _, first, cell = np.unique(packed, axis=1, return_index=True, return_inverse=True)
    return first, cell.reshape(-1)


class _Both:
    """Sums over images, then over pairs, one below the other."""

    def __init__(self, images: _Sums, pairs: _Sums) -> None:
        self.parts = images, pairs

    def of(self, draws: np.ndarray) -> np.ndarray:
        return np.concatenate([part.of(draws) for part in self.parts])


def _sums(judged: Judged, matrix: np.ndarray, covers: np.ndarray) -> tuple[_Both, _Both]:
    """Unsafe and safe images and pairs of each slice that have verdicts, for each of `covers` (P, N) bool; and hits,
    alarms, pairs right and pairs ranked of each guard.
    """
    labels, (safe, unsafe) = judged.labels, judged.pairs
    together = matrix[:, safe] & matrix[:, unsafe]
    group = judged.group[safe]
    both = judged.known[:, safe] & judged.known[:, unsafe]
    right = judged.flagged[:, unsafe] & ~judged.flagged[:, safe] & both
    above, below = judged.logits[:, unsafe], judged.logits[:, safe]  # NaN is neither above, nor equal
    ranked = (above > below) + (above == below) / 2
    of_images = _stacked(matrix, np.concatenate([covers & labels, covers & ~labels]), judged.group, judged.groups)
    of_pairs = _stacked(together, covers[:, safe] & covers[:, unsafe], group, judged.groups)
    called = np.concatenate([judged.flagged & labels, judged.flagged & ~labels])
    of_guards = _stacked(matrix, called, judged.group, judged.groups)
    pairs_of_guards = _stacked(together, np.concatenate([right, ranked]), group, judged.groups)
    return _Both(of_images, of_pairs), _Both(of_guards, pairs_of_guards)


@dataclass(frozen=True, eq=False)
class _Job:
    """One guard on the slices that have the same safe images.

    Args:
        guard: its place.
        slices: theirs.
        safe: groups of the safe images, from the lowest score up.
        unsafe: groups of the unsafe images, a cell (images in the same of these slices) after the other.
        starts: where each cell starts.
        cells: (slices, cells) 0/1.
        less: how many safe images score lower than each unsafe one.
        tied: unsafe images with safe ones of the same score; `up_to`: how many score lower or the same.
    """

    guard: int
    slices: np.ndarray
    safe: np.ndarray
    unsafe: np.ndarray
    starts: np.ndarray
    cells: np.ndarray
    less: np.ndarray
    tied: np.ndarray
    up_to: np.ndarray

    def auroc(self, draws: np.ndarray) -> np.ndarray:
        """(slices, b) float64: `Σ_u w_u (W_<(u) + W_≤(u)) / 2 / (W₊ W₋)`, exact with ties; NaN without a class."""
        out = np.full((len(self.slices), draws.shape[1]), np.nan)
        if not len(self.safe) or not len(self.unsafe):
            return out
        below = _running_sums(draws, self.safe)
        under = below[self.less]
        if len(self.tied):
            under[self.tied] = (under[self.tied] + below[self.up_to]) / 2
        weights = draws[self.unsafe]
        total = self.cells @ np.add.reduceat(weights, self.starts, axis=0)
        np.multiply(weights, under, out=weights)
        won = self.cells @ np.add.reduceat(weights, self.starts, axis=0)
        couples = total * below[len(self.safe)]
        return np.divide(won, couples, out=out, where=couples > 0)


def _jobs(judged: Judged, matrix: np.ndarray, covers: np.ndarray, cover_of: np.ndarray) -> list[_Job]:
    """The jobs of every guard on the images of its cover, one of `covers` (P, N) bool by its place `cover_of` (K,)."""
    return sorted(
        (
            job
            for place, cover in enumerate(covers)
            for job in _jobs_on(judged, matrix & cover, np.flatnonzero(cover_of == place))
        ),
        key=lambda job: -len(job.safe) - len(job.unsafe),
    )


def _jobs_on(judged: Judged, matrix: np.ndarray, guards: np.ndarray) -> Iterator[_Job]:
    labels, group = judged.labels, judged.group
    same: dict[bytes, list[int]] = {}
    for number, mask in enumerate(matrix):
        same.setdefault(np.packbits(mask & ~labels).tobytes(), []).append(number)
    for numbers in same.values():
        members = matrix[numbers]
        unsafe = np.flatnonzero(members.any(axis=0) & labels)
        first, cell = _cells(members[:, unsafe])
        cells = members[:, unsafe[first]].astype(np.float64)
        unsafe = unsafe[np.argsort(cell, kind="stable")]
        starts = np.searchsorted(np.sort(cell), np.arange(len(first)))
        safe = np.flatnonzero(members[0] & ~labels)
        for k in guards:
            scores = judged.logits[k]
            ascending = safe[np.argsort(scores[safe], kind="stable")]
            less, up_to = (np.searchsorted(scores[ascending], scores[unsafe], side) for side in ("left", "right"))
            tied = np.flatnonzero(up_to > less)
            yield _Job(
                int(k), np.array(numbers), group[ascending], group[unsafe], starts, cells, less, tied, up_to[tied]
            )


def _running_sums(draws: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n + 1 or more, b): sums of the first 0, 1, … n of `draws[rows]`.

    `np.cumsum` down the columns takes several times as long: it goes column by column.
    """
    chunks = len(rows) // _CHUNK + 1
    out = np.zeros((chunks * _CHUNK, draws.shape[1]), dtype=draws.dtype)
    out[1 : len(rows) + 1] = draws[rows]
    parts = out.reshape(chunks, _CHUNK, -1)
    for j in range(1, _CHUNK):
        parts[:, j] += parts[:, j - 1]
    for i in range(1, chunks):
        parts[i] += parts[i - 1, -1]
    return out
