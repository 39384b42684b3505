"""Bootstrap of a curve over seeds and test groups at once, from the kept test scores: intervals that cover both.

A replicate draws seeds with replacement, the same draw for every point of the curve, and test groups (a pair is one
unit) with replacement, the same draw for every run, so differences between arms are paired in both. Seeds and groups
are crossed, and for that no bootstrap is exact: McCullagh, "Resampling and exchangeable arrays", Bernoulli 6(2), 2000;
Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007. This one errs on the wide side: `over_seeds`.
A resampled test set is a whole-number weight on each image, so nothing is copied and no score is sorted twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from guardtrain.curves.families import Errors
from guardtrain.curves.results import METRICS
from guardtrain.curves.scores import Scores, ScoresFolder
from guardtrain.curves.statistics import (
    CONFIDENCE,
    POINT_COLUMNS,
    Line,
    check_metric,
    lines_of,
    one_baseline,
    select,
    summarise,
)
from guardtrain.errors import DataError
from guardtrain.metrics.checks import checked_labels, checked_pairs, checked_probs
from guardtrain.metrics.functional import both_right_of, margin_of, ranking_of
from guardtrain.metrics.slices import record_pairs

if TYPE_CHECKING:
    import pandas as pd

_PAIR_TERMS = {"pair_both_right": both_right_of, "pair_ranking": ranking_of, "pair_margin": margin_of}
BOOTSTRAP_METRICS = ("auroc", "accuracy", "brier", *_PAIR_TERMS)
_COMPUTED_OF = {"auroc": "ranked", "pair_ranking": "ranked", "pair_margin": "log_odds"}  # the rest: probabilities

_RUNS_AT_ONCE = 64
_BLOCK_BYTES = 64 << 20  # of the weights (groups × replicates) held at once where they go into one matrix product
_CACHE_BYTES = 1 << 20  # of the same where they are gone over again and again: a core's own cache holds that

PairColumns = tuple[np.ndarray, np.ndarray]
NO_PAIRS: PairColumns = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def group_draws(n_groups: int, replicates: int, generator: np.random.Generator) -> np.ndarray:
    """How often each of G groups is drawn when G are drawn with replacement: (G, B) uint16, columns summing to G."""
    out = np.empty((n_groups, replicates), dtype=np.uint16)
    for column in range(replicates):  # a column at a time: the drawn numbers of all would be 8 bytes each
        out[:, column] = np.bincount(generator.integers(n_groups, size=n_groups), minlength=n_groups)
    return out


def seed_draws(n_seeds: int, replicates: int, generator: np.random.Generator) -> np.ndarray:
    """How often each of S seeds is drawn when S are drawn with replacement: (S, B) uint16, columns summing to S."""
    return group_draws(n_seeds, replicates, generator)


def seed_weights(draws: np.ndarray, confidence: float | None = CONFIDENCE) -> np.ndarray:
    """Weights of the seeds in each replicate's mean: `1/S + k · (draws / their sum - 1/S)`.

    With `k = 1` it is the plain bootstrap of a mean, whose percentile interval for five seeds is 63 % as wide as
    Student's: its variance is (S-1)/S of the unbiased one, its quantiles nearly the normal ones. So deviations are
    stretched by `k = sqrt(S/(S-1)) · t_{S-1} / z` at the confidence wanted, the correction that Hesterberg ("What
    teachers should know about the bootstrap", The American Statistician 69(4), 2015) makes in the percentiles. Here it
    stands in the replicates, so that what is computed from them (areas, multipliers) has it too.

    Args:
        draws: (S, B) whole numbers, see `seed_draws`.
        confidence: of the intervals to be taken; None for `k = 1`.

    Returns:
        (S, B) float64, columns summing to 1, some weights negative; NaN where no seed was drawn. One seed: all 1.
    """
    from scipy.special import ndtri, stdtrit  # scipy.stats takes a second to import

    n = len(draws)
    total = draws.sum(axis=0, dtype=np.float64)
    share = draws / np.where(total > 0, total, np.nan)
    if n < 2 or confidence is None:
        return np.asarray(share)
    tail = (1 + confidence) / 2
    stretch = np.sqrt(n / (n - 1)) * stdtrit(n - 1, tail) / ndtri(tail)
    return np.asarray(1 / n + stretch * (share - 1 / n))


def over_seeds(
    values: np.ndarray, observed: np.ndarray, draws: np.ndarray, confidence: float | None = CONFIDENCE
) -> np.ndarray:
    """A point in each replicate: `mean_s v_sb + Σ_s (w_sb - 1/S) v_s`, the groups' part and the seeds' part.

    The weights `w` are `seed_weights(draws, confidence)`. Weighting the resampled values themselves (the pigeonhole
    bootstrap) counts the interaction of seeds and images three times, and stretched twice of these; here it is twice
    and once, for the spread over seeds on the observed images has all of it already.

    Args:
        values: (S, B) `v_sb`, the metric of each seed's run on each resampled test set.
        observed: (S,) `v_s`, the same on the test set as it is.
        draws: (S, B) rows of `seed_draws`, the same for every point.

    Returns:
        (B,) float64; NaN where no seed was drawn, or a value is undefined, or S is 0.
    """
    n = len(observed)
    if not n:
        return np.full(values.shape[1], np.nan)
    return np.asarray(values.mean(axis=0) + observed @ (seed_weights(draws, confidence) - 1 / n))


def resample(
    scores: Scores,
    labels: np.ndarray,
    groups: np.ndarray,
    pairs: PairColumns,
    metric: str,
    replicates: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """`metric` of R runs on B test sets, each made of as many groups as there are, drawn with replacement.

    Args:
        scores: (R, N) of the runs.
        labels: (N,) 0 safe, 1 unsafe.
        groups: (N,) names or numbers; images of one group are drawn together.
        pairs: columns of the safe and of the unsafe halves, each (P,) int.
        metric: one of `BOOTSTRAP_METRICS`.

    Returns:
        (R, B) float64; NaN where the drawn images do not define the metric.

    Raises:
        DataError: as `weighted_metric`, or a pair whose halves are in two groups.

    >>> image, none = np.arange(3), np.zeros(0, int)
    >>> scores = Scores.of_probabilities(image[None] / 2)
    >>> args = scores, np.array([0, 1, 1]), image, (none, none), "accuracy", 4, np.random.default_rng(0)
    >>> resample(*args).shape
    (1, 4)
    """
    index, count = group_index(groups, pairs)
    return weighted_metric(scores, labels, pairs, index, group_draws(count, replicates, generator), metric)


def group_index(groups: np.ndarray, pairs: PairColumns = NO_PAIRS) -> tuple[np.ndarray, int]:
    """Numbers 0…G-1 of the images' groups (N,) and G; raises DataError where a pair's halves are in two groups."""
    names, index = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    safe, unsafe = (np.asarray(half) for half in pairs)
    if len(apart := np.flatnonzero(index[safe] != index[unsafe])):
        a, b = names[index[safe[apart[0]]]], names[index[unsafe[apart[0]]]]
        raise DataError(f"The halves of {len(apart)} pairs are in two groups each (such as '{a}' and '{b}').")
    return index, len(names)


def weighted_metric(
    scores: Scores, labels: np.ndarray, pairs: PairColumns, group: np.ndarray, draws: np.ndarray, metric: str
) -> np.ndarray:
    """`metric` on test sets in which every image of group g stands `draws[g, b]` times, without making them.

    AUROC is `Σ_i w_i (C_<(s_i) + C_≤(s_i)) / 2 / (W₊ W₋)` over unsafe images i, where `C_<(s)` and `C_≤(s)` are the
    weights of safe images below s and up to s: exact with ties. The places in the order are found once a run. The rest
    are weighted means over images, or over pairs with their group's weight: one matrix product for all runs.

    Args:
        scores, labels, pairs, metric: as for `resample`.
        group: (N,) int, in [0, G).
        draws: (G, B) whole numbers from 0.

    Returns:
        (R, B) float64, equal to the metric on the physically repeated images; NaN where it is undefined.

    Raises:
        DataError: an unknown metric, probabilities outside [0, 1], other labels, shapes that do not match.
    """
    if metric not in BOOTSTRAP_METRICS:
        raise DataError(f"Metric '{metric}' cannot be resampled; those that can: {', '.join(BOOTSTRAP_METRICS)}.")
    truth = checked_labels(torch.as_tensor(labels))
    values = torch.as_tensor(np.ascontiguousarray(getattr(scores, _COMPUTED_OF.get(metric, "probabilities"))))
    if metric not in _COMPUTED_OF:
        values = checked_probs(values)
    if labels.shape != values.shape[1:]:
        raise DataError(
            f"Scores are (R, N) for labels (N,); they have shapes {tuple(values.shape)} and {labels.shape}."
        )
    safe, unsafe = checked_pairs(pairs, values.shape[1], values.device)
    if group.shape != labels.shape or (len(group) and not 0 <= group.min() <= group.max() < len(draws)):
        raise DataError(
            f"Groups are (N,) numbers below the {len(draws)} rows of the draws; they have shape {group.shape} for "
            f"{len(labels)} images and go up to {group.max() if len(group) else '–'}."
        )
    out = np.full((len(values), draws.shape[1]), np.nan)
    for first in range(0, len(values), _RUNS_AT_ONCE):
        rows = slice(first, first + _RUNS_AT_ONCE)
        if metric == "auroc":
            _auroc(values[rows].numpy(), truth.numpy(), group, draws, out[rows])
            continue
        if metric in _PAIR_TERMS:
            terms, unit = _PAIR_TERMS[metric](values[rows][:, safe], values[rows][:, unsafe]), group[safe.numpy()]
        elif metric == "accuracy":
            terms, unit = ((values[rows] >= 0.5) == truth.bool()).double(), group
        else:
            terms, unit = (values[rows].double() - truth).square(), group
        _means(terms.numpy(), unit, draws, out[rows])
    return out


def interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over the last axis: the (1 - c)/2 and (1 + c)/2 quantiles, NaN replicates left out.

    Args:
        values: (..., B) float.

    Returns:
        low (...,) and high (...,), float64; NaN where all replicates are undefined.
    """
    known = ~np.isnan(values).all(axis=-1)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.nanquantile(np.where(known[..., None], values, 0), tails, axis=-1)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


@dataclass(frozen=True)
class PointReplicates:
    """The points of a curve on one test set, each with its value in every replicate.

    Args:
        points: one row a point: `POINT_COLUMNS`, then `n_real`, `n_pair_images`, `n_images` (means over seeds),
            `n_seeds`, `mean`, `low`, `high`, and `half_width`, of the interval over seeds and test groups by their
            variances (NaN for one seed, whose `low` and `high` are over test groups alone); sorted by `POINT_COLUMNS`,
            heads as in the table. Real data alone stands under one arm.
        replicates: (P, B) float64, rows as in `points`; replicate b saw the same seeds and test groups in all of them.
        test, metric: what was bootstrapped.
        confidence: of the intervals, and what the replicates are stretched for (`seed_weights`).
        by_seed: (P, S, 1 + B) the metric of each seed's run, on the test set as it is and on each resampled one; NaN
            where a point lacks a seed.
    """

    points: pd.DataFrame
    replicates: np.ndarray
    test: str
    metric: str
    confidence: float
    by_seed: np.ndarray

    @classmethod
    def over(
        cls,
        rows: pd.DataFrame,
        values: np.ndarray,
        test: str,
        metric: str,
        replicates: int,
        rng: np.random.Generator,
        confidence: float,
    ) -> PointReplicates:
        """The points of R runs, their seeds drawn anew; the same draws stand at every point.

        Args:
            rows: (R,) of a results table, a row a run.
            values: (R, 1 + B) the metric of each run, on the test set as it is and on each resampled one; (R, 1) where
                the test set is taken as fixed. Runs whose first value is NaN do not count.
            test, metric, replicates, confidence: see the class.
            rng: draws the seeds.
        """
        import pandas as pd

        seeds, seed_of_row = np.unique(rows["seed"], return_inverse=True)
        draws = seed_draws(len(seeds), replicates, rng)
        made, drawn, every = [], [], []
        for name, own in point_groups(rows.reset_index(drop=True)):
            at = own.index.to_numpy()
            at = at[~np.isnan(values[at, 0])]
            resampled = values[at, 1:] if values.shape[1] > 1 else np.broadcast_to(values[at], (len(at), replicates))
            drawn.append(over_seeds(resampled, values[at, 0], draws[seed_of_row[at]], confidence))
            every.append(np.full((len(seeds), values.shape[1]), np.nan))
            every[-1][seed_of_row[at]] = values[at]
            mean = {"n_seeds": len(at), "mean": values[at, 0].mean() if len(at) else np.nan}
            sizes: dict[str, Any] = dict(own[["n_real", "n_pair_images", "n_images"]].mean())
            made.append(dict(zip(POINT_COLUMNS, name, strict=True)) | sizes | mean)
        low, high = interval(np.stack(drawn), confidence)
        by_seed = np.stack(every)
        width = Errors.of(by_seed).half_width(confidence)
        points = pd.DataFrame(made).assign(low=low, high=high, half_width=width)
        return cls(points, np.stack(drawn), test, metric, confidence, by_seed)

    @property
    def heads(self) -> list[str]:
        """Return the heads, in the order of the table."""
        return [str(head) for head in dict.fromkeys(self.points["head"])]

    def lines(self, head: str) -> list[Line]:
        """The lines of one head, in reading order."""
        return lines_of(self.points[self.points["head"] == head])

    def rows(self, head: str, line: Line) -> dict[int, int]:
        """The row of `points` of a head's line at each budget, ascending; real data alone is the same in both arms."""
        own = (self.points["head"] == head) & (self.points["control"] == line.control)
        if line.control != "none":
            own &= (self.points["arm"] == line.arm) & np.isclose(self.points["ratio"], line.ratio or 0.0)
        mine = self.points[own].sort_values("budget")
        return dict(zip(mine["budget"].tolist(), mine.index.tolist(), strict=True))


def bootstrap_points(
    frame: pd.DataFrame,
    scores: ScoresFolder | str | Path,
    test: str,
    metric: str,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> PointReplicates:
    """Every point of a curve with the interval that another draw of seeds *and* of test images would move it in.

    Runs whose metric is undefined on the test set do not count; a replicate that drew none of a point's seeds is NaN
    there. With a single seed the intervals hold the spread over test images alone.

    Args:
        frame: a results table, see `guardtrain.curves.results.ResultsTable.read`; of the slices, `all` is taken.
        scores: the scores folder beside it.
        test, metric: name of a test set, and one of `BOOTSTRAP_METRICS`.
        replicates, seed: how many draws (B), and their seed.

    Raises:
        DataError: an unknown test set or metric, runs without scores, or points that mix experiments.

    >>> # bootstrap_points(ResultsTable("out/results.parquet").read(), "out/scores", "pairs", "auroc").points
    """
    check_metric(frame, metric)
    rows = one_baseline(frame[(frame["test"] == test) & (frame["slice_kind"] == "all")])
    if rows.empty:
        raise DataError(f"The results have no test set '{test}'; they have: {', '.join(frame['test'].unique())}.")
    summarise(rows, metric)  # refuses mixed experiments
    folder = scores if isinstance(scores, ScoresFolder) else ScoresFolder(scores)
    keys, kept, records = folder.read(test)
    place = {key: index for index, key in enumerate(keys.tolist())}
    if missing := [run for run in rows["run"] if run not in place]:
        raise DataError(f"{folder.path} has no scores on '{test}' of {len(missing)} runs, such as {missing[0]}.")
    pairs = record_pairs(records)[0].numpy(), record_pairs(records)[1].numpy()
    group, n_groups = group_index(records.groups, pairs)
    group_rng, seed_rng = np.random.default_rng(seed).spawn(2)
    draws = np.ones((n_groups, replicates + 1), dtype=np.uint16)  # the first column is the test set as it is
    draws[:, 1:] = group_draws(n_groups, replicates, group_rng)
    values = weighted_metric(kept[[place[run] for run in rows["run"]]], records.labels, pairs, group, draws, metric)
    return PointReplicates.over(rows, values, test, metric, replicates, seed_rng, confidence)


def seed_replicates(frame: pd.DataFrame, test: str, metric: str, replicates: int = 1000) -> PointReplicates:
    """Resample every point of a curve over its seeds alone: no scores are needed, and the test images count as fixed.

    Args:
        frame, test, replicates: as of `bootstrap_points`; the same draw of seeds stands at every point.
        metric: any of `guardtrain.curves.results.METRICS`.

    Raises:
        DataError: an unknown test set or metric, or points that mix experiments.
    """
    check_metric(frame, metric)
    rows = one_baseline(frame[(frame["test"] == test) & (frame["slice_kind"] == "all") & frame[metric].notna()])
    if rows.empty:
        raise DataError(f"The results have no {METRICS[metric]} on a test set '{test}'.")
    summarise(rows, metric)  # refuses mixed experiments
    values, rng = rows[metric].to_numpy(float)[:, None], np.random.default_rng(0)
    return PointReplicates.over(rows, values, test, metric, replicates, rng, CONFIDENCE)


def point_groups(rows: pd.DataFrame) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The rows of each point by its `POINT_COLUMNS`, sorted by them but for heads, which stay in the table's order."""
    place = {head: number for number, head in enumerate(dict.fromkeys(rows["head"]))}
    groups = rows.groupby(list(POINT_COLUMNS), sort=True, observed=True)
    return sorted(groups, key=lambda group: place[group[0][0]])


def bootstrap_difference(boot: PointReplicates, a: Mapping[str, Any], b: Mapping[str, Any]) -> pd.DataFrame:
    """Mean under `a` minus under `b` at each common budget, with the interval of the replicates' differences.

    The same seeds and test groups stand on both sides of a replicate, so what they share cancels.

    Args:
        boot: of `bootstrap_points`.
        a, b: what selects either side, such as `{"arm": "replace", "control": "paired", "ratio": 0.5}`.

    Returns:
        One row a head and common budget: `head`, `budget`, `difference`, `low`, `high`.

    Raises:
        DataError: a side that selects nothing, or a point twice.
    """
    sides = []
    for selection in (a, b):
        side = select(boot.points, selection)
        if side.empty or side.duplicated(["head", "budget"]).any():
            found = "No point" if side.empty else "Several points at one budget"
            raise DataError(f"{found} of {METRICS[boot.metric]} on '{boot.test}' for {dict(selection)}.")
        sides.append(side.assign(row=side.index)[["head", "budget", "mean", "row"]])
    both = sides[0].merge(sides[1], on=["head", "budget"], suffixes=("_a", "_b"))  # in the order of budgets
    change = boot.replicates[both["row_a"].to_numpy()] - boot.replicates[both["row_b"].to_numpy()]
    low, high = interval(change, boot.confidence)
    return both[["head", "budget"]].assign(difference=both["mean_a"] - both["mean_b"], low=low, high=high)


def _means(terms: np.ndarray, unit: np.ndarray, draws: np.ndarray, out: np.ndarray) -> None:
    """Weighted means over the last axis of (R, K) `terms` into (R, B) `out`; their groups are `unit` (K,)."""
    by_group = np.zeros((len(terms), len(draws)))
    if not len(unit):
        return
    order = np.argsort(unit, kind="stable")
    present, start = np.unique(unit[order], return_index=True)
    by_group[:, present] = np.add.reduceat(terms[:, order], start, axis=1)
    sizes = np.bincount(unit, minlength=len(draws)).astype(np.float64)
    width = max(1, _BLOCK_BYTES // (8 * len(draws)))
    for first in range(0, draws.shape[1], width):
        weights = draws[:, first : first + width].astype(np.float64)
        total = sizes @ weights
        out[:, first : first + width] = by_group @ weights / np.where(total > 0, total, np.nan)


def _auroc(scores: np.ndarray, labels: np.ndarray, group: np.ndarray, draws: np.ndarray, out: np.ndarray) -> None:
    """Put weighted AUROC of (R, N) `scores` into (R, B) `out`, as many replicates at a time as the cache holds."""
    safe, unsafe = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    most = len(group) * int(draws.max(initial=0)) ** 2  # that a product of two weights can be
    exact = np.float32 if most < 1 << 24 else np.float64  # whole numbers up to there, in half the memory
    orders = np.argsort(scores[:, safe], axis=1)
    less, up_to = (np.empty((len(scores), len(unsafe)), dtype=np.int64) for _ in range(2))
    for run, order in enumerate(orders):
        ranked, sought = scores[run, safe[order]], scores[run, unsafe]
        less[run] = np.searchsorted(ranked, sought, "left")
        up_to[run] = np.searchsorted(ranked, sought, "right")
    tied = [np.flatnonzero(high > low) for low, high in zip(less, up_to, strict=True)]
    width = max(16, _CACHE_BYTES // (np.dtype(exact).itemsize * max(1, len(safe))))
    for first in range(0, draws.shape[1], width):
        block = torch.from_numpy(draws[:, first : first + width].astype(exact))
        of_safe, of_unsafe = block[torch.from_numpy(group[safe])], block[torch.from_numpy(group[unsafe])]
        couples = of_safe.sum(0, dtype=torch.float64) * of_unsafe.sum(0, dtype=torch.float64)
        couples[couples == 0] = torch.nan
        below = torch.zeros((len(safe) + 1, block.shape[1]), dtype=block.dtype)  # weight of the k lowest safe images
        drawn, passed = torch.empty_like(of_safe), torch.empty_like(of_unsafe)
        for run, order in enumerate(orders):
            torch.index_select(of_safe, 0, torch.from_numpy(order), out=drawn)
            torch.cumsum(drawn, 0, out=below[1:])
            torch.index_select(below, 0, torch.from_numpy(less[run]), out=passed)
            won = passed.mul_(of_unsafe).sum(0, dtype=torch.float64)
            if len(equal := tied[run]):
                more = below[torch.from_numpy(up_to[run, equal])] - below[torch.from_numpy(less[run, equal])]
                won += more.mul_(of_unsafe[torch.from_numpy(equal)]).sum(0, dtype=torch.float64) / 2
            out[run, first : first + width] = (won / couples).numpy()
