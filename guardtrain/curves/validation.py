"""Scores of a curve's runs on images that may choose among them: of no test set, and of each run none that it saw."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from guardtrain.curves.scores import Scores, ScoresFolder
from guardtrain.embeddings import Embeddings
from guardtrain.errors import DataError
from guardtrain.mixtures import Mixture
from guardtrain.training.fitted import FittedBank
from guardtrain.training.pools import Pools

if TYPE_CHECKING:
    from guardtrain.records import Records

REAL, PAIRS = "real", "pairs"
LIMIT = 1000  # images of each pool: a tenth of a second for 280 linear heads, and five for as many that keep neighbours
_SEED = 0
_BLOCK_ROWS = 8192  # embeddings read at once


class ValidationScores:
    """Every run's scores of the same images of each pool, whether it was trained on them or not.

    Whoever chooses among runs leaves out of them what these were trained on, see `unseen`: so the images need not
    depend on the grid, and a curve that grows keeps what it has. Nothing here is shown: tables and figures are of test
    sets alone.

    Args:
        path: the folder, a `ScoresFolder`; it need not exist yet.
        pools: of the curve.

    The images of a pool are its records whose split says val, if they are of both classes, else at most `LIMIT` of the
    pool itself, drawn at random in whole groups.
    """

    def __init__(self, path: Path, pools: Pools) -> None:
        self.parts: Mapping[str, Embeddings] = {
            name: _images(part, pools.validation.get(name))
            for name, part in ((REAL, pools.real), (PAIRS, pools.pairs))
            if part is not None
        }
        self._folder = ScoresFolder(path)
        # of which images, and by what they looked like: the same ids may be other files tomorrow
        self._names = {name: f"{name}-{_key(part)}" for name, part in self.parts.items()}

    def write(self, run_keys: Sequence[str], fitted: FittedBank, kept: np.ndarray) -> None:
        """Score the heads `kept` (R,) of a bank, whose runs are called `run_keys` (R,)."""
        for name, part in self.parts.items():
            self._folder.write_test_records(self._names[name], part.records)
        matrices = {name: torch.from_numpy(np.array(p.matrix[:], dtype=np.float32)) for name, p in self.parts.items()}
        scores = {
            self._names[name]: Scores.of_logits(fitted.logits(matrix).numpy()[kept])
            for name, matrix in matrices.items()
        }
        self._folder.write(run_keys, scores)

    def read(self, name: str, run_keys: Sequence[str]) -> Scores:
        """The scores (R, N) of these runs on the images `parts[name]`.

        Raises:
            DataError: runs without scores there, or a damaged file.
        """
        by_ids = f"{name}-{self.parts[name].records.digest()[:12]}"  # what older curves call them
        there = self._folder.tests()
        found = [self._folder.read(called) for called in (by_ids, self._names[name]) if called in there]
        keys = [key for more, _, _ in found for key in more.tolist()]
        place = {str(key): row for row, key in enumerate(keys)}
        if missing := sum(key not in place for key in run_keys):
            raise DataError(
                f"{missing} of {len(run_keys)} runs to pick from have no scores on validation images: the curve is of "
                "an older guardtrain, or records with split: val changed since. Run it again into another folder "
                "(out=PATH), or pick on a test set (pick.on=test pick.test=NAME): the guard's card says so then."
            )
        return Scores.joined([scores for _, scores, _ in found])[[place[key] for key in run_keys]]


def used_groups(pools: Pools, mixture: Mixture) -> np.ndarray:
    """Groups, as strings, of which a run uses an image, real or half of a pair."""
    used = pools.real.records.groups[mixture.real].astype(str)
    if pools.pairs is not None:
        used = np.concatenate([used, pools.pairs.records.groups[mixture.pairs].astype(str)])
    return used


def unseen(pools: Pools, mixture: Mixture, records: Records) -> np.ndarray:
    """(N,) bool: the records of whose group a run used no image."""
    return ~np.isin(records.groups.astype(str), used_groups(pools, mixture))


def whole_groups(groups: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Which rows to keep of `groups` (N,) so that there are at most `limit`, in whole groups drawn at random.

    Returns:
        rows, ascending.

    >>> len(whole_groups(np.array(["a", "a", "b", "b"]), 3, seed=0))
    2
    """
    if len(groups) <= limit:
        return np.arange(len(groups))
    names = np.unique(groups)
    order = np.random.default_rng(seed).permutation(len(names))
    place = order.argsort()[np.searchsorted(names, groups)]  # of each row's group
    ranked = np.argsort(place, kind="stable")
    last = place[ranked[limit]]  # this group would be cut
    return np.flatnonzero(place < last)


def _key(part: Embeddings) -> str:
    """Twelve hex characters that change with the records and their embeddings."""
    digest = hashlib.sha256(part.records.digest().encode())
    for start in range(0, len(part), _BLOCK_ROWS):
        digest.update(np.ascontiguousarray(part.matrix[start : start + _BLOCK_ROWS], dtype=np.float32).data)
    return digest.hexdigest()[:12]


def _images(pool: Embeddings, marked: Embeddings | None) -> Embeddings:
    if marked is not None and 0 < int(marked.records.labels.sum()) < len(marked):
        pool = marked
    rows = whole_groups(pool.records.groups.astype(str), LIMIT, _SEED)
    return pool if len(rows) == len(pool) else pool.take(rows)
