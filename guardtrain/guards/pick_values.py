"""What the runs of a curve have of every metric, on images that may choose among them: of both pools, or of tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from guardtrain.curves.engine import FALSE_POSITIVE_RATE, Run, metric_column
from guardtrain.curves.folder import VALIDATION_FOLDER
from guardtrain.curves.results import METRICS
from guardtrain.curves.scores import Scores
from guardtrain.curves.validation import PAIRS, REAL, ValidationScores, unseen
from guardtrain.errors import DataError
from guardtrain.metrics import record_pairs
from guardtrain.records import Records
from guardtrain.training.pools import Pools

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 20  # safe and unsafe images each, below which a metric on validation says little
_SHARED = 0.5  # the same images judge all runs where they are so many of those that a seed has for itself
_POOLS = {REAL: "the real pool", PAIRS: "the pair pool"}
_COUNTS = ("n_test", "n_unsafe", "n_pairs")


@dataclass(frozen=True, eq=False)
class Values:
    """Every metric of R runs on one set of images (or of each run on those of its seed).

    Args:
        name: of the set, in words.
        metrics: a row a run, by its key, and the columns of `METRICS`.
        counts: `(R, 3)` images, unsafe images and pairs that judged each run.
    """

    name: str
    metrics: pd.DataFrame
    counts: np.ndarray

    @property
    def images(self) -> str:
        """How many images judged a run: "500", or "486 to 511"."""
        low, high = (int(end) for end in (self.counts[:, 0].min(), self.counts[:, 0].max()))
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"

    @property
    def errors(self) -> np.ndarray:
        """`(R,)` the standard error of each AUROC over images (Hanley and McNeil, Radiology 143, 1982)."""
        area = self.metrics["auroc"].to_numpy()
        unsafe = self.counts[:, 1].astype(float)
        safe = self.counts[:, 0] - unsafe
        of_unsafe, of_safe = area / (2 - area), 2 * area**2 / (1 + area)
        varied = area * (1 - area) + (unsafe - 1) * (of_unsafe - area**2) + (safe - 1) * (of_safe - area**2)
        return np.asarray(np.sqrt(np.maximum(varied, 0) / np.maximum(unsafe * safe, 1)))

    @property
    def has_pairs(self) -> bool:
        """Whether there are pairs among these images."""
        return bool((self.counts[:, 2] > 0).any())


def on_validation(pools: Pools, runs: Sequence[Run], folder: Path) -> tuple[list[Values], str]:
    """The runs on validation images of every pool that they were not trained on, and who was not, in words.

    The same images judge all runs where none of them saw at least half as many as none of its own seed did; else all
    runs of a seed, whose mixtures are nested, and every seed has other images of about the same number.

    Args:
        pools: of the curve.
        runs: those to compare.
        folder: of the curve.

    Raises:
        DataError: too few images of a pool that none of them saw, or runs that were not scored.
    """
    scores = ValidationScores(folder / VALIDATION_FOLDER, pools)
    seeds = np.array([run.point.seed for run in runs])
    free = {
        name: np.stack([unseen(pools, run.mixture, part.records) for run in runs])
        for name, part in scores.parts.items()
    }
    by_seed = {
        name: {int(seed): np.logical_and.reduce(mask[seeds == seed], axis=0) for seed in np.unique(seeds)}
        for name, mask in free.items()
    }
    for name, part in scores.parts.items():
        for seed, mask in by_seed[name].items():
            if not _enough(part.records, mask):
                raise DataError(_too_few(_POOLS[name], part.records, mask, seed, runs))
    every = {name: np.logical_and.reduce(mask, axis=0) for name, mask in free.items()}
    shared = all(
        _enough(part.records, every[name])
        and every[name].sum() >= _SHARED * min(int(mask.sum()) for mask in by_seed[name].values())
        for name, part in scores.parts.items()
    )
    found = []
    for name, part in scores.parts.items():
        judges = [(every[name], np.ones(len(runs), dtype=bool))] if shared else []
        judges = judges or [(mask, seeds == seed) for seed, mask in by_seed[name].items()]
        judged = scores.read(name, [run.key for run in runs])
        found.append(_measured(_POOLS[name], part.records, judged, judges, runs))
    return found, f"no run {'' if shared else 'of the same seed '}to pick from"


def on_tests(results: pd.DataFrame, runs: Sequence[str]) -> list[Values]:
    """The runs on every test set, as the results table has them.

    Args:
        results: the table.
        runs: keys.
    """
    whole = results[results["slice_kind"] == "all"]
    found = []
    for test, rows in whole.groupby("test", sort=True):
        mine = rows.drop_duplicates("run").set_index("run").reindex(list(runs))
        counts = mine[list(_COUNTS)].fillna(0).to_numpy(dtype=np.int64)
        found.append(Values(str(test), mine[list(METRICS)], counts))
    return found


def _measured(
    name: str,
    records: Records,
    scores: Scores,
    judges: Sequence[tuple[np.ndarray, np.ndarray]],
    runs: Sequence[Run],
) -> Values:
    """Every metric of runs with scores `(R, N)`: `judges` are images (N,) with the runs (R,) they judge."""
    import pandas as pd

    pairs = record_pairs(records)
    values = {column: np.full(len(runs), np.nan) for column in METRICS}
    counts = np.zeros((len(runs), len(_COUNTS)), dtype=np.int64)
    for images, judged in judges:
        measured = scores[judged].sliced_metrics(
            records.labels, pairs, {("all", "all"): images}, fpr=FALSE_POSITIVE_RATE
        )["all", "all"]
        for metric, column in measured.items():
            values[metric_column(metric)][judged] = column
        whole = images[pairs[0].numpy()] & images[pairs[1].numpy()]
        counts[judged] = int(images.sum()), int(records.labels[images].sum()), int(whole.sum())
    return Values(name, pd.DataFrame(values, index=[run.key for run in runs]), counts)


def mean_of(values: Sequence[Values], metric: str) -> pd.Series:
    """A metric of every run, the mean over the sets."""
    import pandas as pd

    mean: pd.Series = pd.concat([one.metrics[metric] for one in values], axis=1).mean(axis=1, skipna=False)
    return mean


def error_of(values: Sequence[Values]) -> np.ndarray:
    """`(R,)` the standard error of the mean AUROC over the sets."""
    return np.asarray(np.sqrt(sum(one.errors**2 for one in values)) / len(values))


OTHERWISE = "Or pick on a test set (pick.on=test pick.test=NAME): the guard's card says so then."


def _enough(records: Records, mask: np.ndarray) -> bool:
    unsafe = int(records.labels[mask].sum())
    return FEWEST <= unsafe <= int(mask.sum()) - FEWEST


def _too_few(pool: str, records: Records, mask: np.ndarray, seed: int, runs: Sequence[Run]) -> str:
    unsafe = int(records.labels[mask].sum())
    largest = max(run.point.budget for run in runs)
    return (
        f"Picking on validation takes at least {FEWEST} safe and {FEWEST} unsafe images of {pool} that no run to pick "
        f"from was trained on; of seed {seed} there are {int(mask.sum()) - unsafe} and {unsafe}: runs of up to "
        f"{largest:,} images leave no more. Pick among fewer (pick.budget=…, pick.ratio=…), or mark records with "
        f"split: val and run the curve again. {OTHERWISE}"
    )
