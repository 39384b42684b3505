"""The test scores at chosen points of a curve, and what is drawn from them: reliability and ROC, seed by seed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from guardtrain.bins import bin_of
from guardtrain.calibration_error import chance_alone
from guardtrain.curves.results import CONTROLS
from guardtrain.curves.scores import Scores, ScoresFolder
from guardtrain.curves.statistics import NO_INTERVAL, Line, half_width, lines_of, select, share_text, whole_slices
from guardtrain.errors import ConfigError, DataError
from guardtrain.mixtures import ARMS

if TYPE_CHECKING:
    import pandas as pd

N_BINS = 15  # as the calibration error of the results table has them
LEGEND_METRICS = ("auroc", "ece", "brier")


@dataclass
class PointChoice:
    """Which points of a curve are looked at closely; what is null selects nothing out.

    Args:
        budget: null takes the largest.
        ratio: share of pair images; 0 is real data alone.
        arm: `replace` or `add`.
        control: `none` (real data alone), `paired`, `unpaired` or `real`.
    """

    budget: int | None = None
    ratio: float | None = None
    arm: str | None = None
    control: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("arm", ARMS), ("control", CONTROLS)):
            if getattr(self, name) not in (None, *allowed):
                raise ConfigError(f"plot.point.{name} is '{getattr(self, name)}'; allowed: {', '.join(allowed)}.")


@dataclass(frozen=True)
class PointScores:
    """One point of a curve on one test set.

    Args:
        head, line, budget, test: which point.
        labels: (N,) 0 safe, 1 unsafe.
        scores: (S, N), a row a seed.
        metrics: mean over seeds and half of its 95 % Student t interval, of `LEGEND_METRICS`; of the calibration error,
            which has no interval, NaN.
        chance: the calibration error that right probabilities would show by chance, mean over seeds.
    """

    head: str
    line: Line
    budget: int
    test: str
    labels: np.ndarray
    scores: Scores
    metrics: dict[str, tuple[float, float]]
    chance: float


def point_scores(
    frame: pd.DataFrame,
    scores: ScoresFolder | str | Path,
    choice: PointChoice | None = None,
    tests: Iterable[str] | None = None,
) -> list[PointScores]:
    """The scores of every chosen point, on each test set.

    Args:
        frame: a results table, see `guardtrain.curves.results.ResultsTable.read`; of the slices, `all` counts.
        scores: the scores folder beside it.
        choice: which points; None for each line at the largest budget.
        tests: names of test sets; None for all.

    Returns:
        Test by test and head by head in the order of the table, lines in reading order.

    Raises:
        DataError: a test set or point that the results do not have, runs without scores, or points that mix
            experiments.
    """
    whole = whole_slices(frame)
    known = [str(test) for test in dict.fromkeys(whole["test"])]
    wanted = known if tests is None else list(tests)
    if missing := [test for test in wanted if test not in known]:
        raise DataError(f"Unknown test set '{missing[0]}'; the results have: {', '.join(known)}.")
    chosen = chosen_points(frame, choice)
    folder = scores if isinstance(scores, ScoresFolder) else ScoresFolder(scores)
    out = []
    for test in wanted:
        keys, kept, records = folder.read(test)
        place = {key: index for index, key in enumerate(keys.tolist())}
        rows = chosen[chosen["test"] == test]
        if without := [run for run in rows["run"] if run not in place]:
            raise DataError(f"{folder.path} has no scores on '{test}' of {len(without)} runs, such as {without[0]}.")
        for head in dict.fromkeys(rows["head"]):
            for line in lines_of(rows[rows["head"] == head]):
                point = {"head": head, "arm": line.arm, "control": line.control}
                own = select(rows, point | {"ratio": float(line.ratio or 0)}).sort_values("seed")
                if own["seed"].duplicated().any():
                    raise DataError(
                        f"Several runs share head {head}, {line.label(both_arms=True)}, budget {own['budget'].iloc[0]} "
                        "and a seed: they differ in their recipe. Select the runs of one."
                    )
                metrics = {name: _mean(own[name].to_numpy(float)) for name in LEGEND_METRICS}
                metrics |= {name: (metrics[name][0], np.nan) for name in NO_INTERVAL}
                at = kept[[place[run] for run in own["run"]]]
                budget = int(own["budget"].iloc[0])
                rng = np.random.default_rng(0)
                chance = float(np.mean([chance_alone(p, bin_of(p, N_BINS), rng) for p in at.probabilities]))
                out.append(PointScores(str(head), line, budget, test, records.labels, at, metrics, chance))
    return out


def reliability(probabilities: np.ndarray, labels: np.ndarray, n_bins: int = N_BINS) -> tuple[np.ndarray, ...]:
    """Compute what a reliability diagram draws (Niculescu-Mizil and Caruana, ICML 2005), for S runs at once.

    Bins are [i/n, (i+1)/n), the last with 1: those of the calibration error.

    Args:
        probabilities: (S, N) float in [0, 1].
        labels: (N,) 0 safe, 1 unsafe.
        n_bins: how many, K.

    Returns:
        Mean probability, share unsafe, and share of the images in each bin, each (S, K) float64; the first two are NaN
        in an empty bin. `Σ_k share |mean - unsafe|` is the calibration error.
    """
    bins = bin_of(probabilities, n_bins).clip(max=n_bins - 1)
    flat = (bins + n_bins * np.arange(len(probabilities))[:, None]).ravel()
    shape = (len(probabilities), n_bins)
    count = np.bincount(flat, minlength=shape[0] * n_bins).reshape(shape)
    predicted = np.bincount(flat, probabilities.ravel().astype(np.float64), shape[0] * n_bins).reshape(shape)
    unsafe = np.bincount(flat, np.tile(labels, len(probabilities)), shape[0] * n_bins).reshape(shape)
    size = np.where(count > 0, count, np.nan)
    return predicted / size, unsafe / size, count / probabilities.shape[1]


def roc(scores: np.ndarray, labels: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The ROC curve of S runs at given false-positive rates, ties joined by a straight line.

    Averaging these over runs is vertical averaging (Fawcett, "An introduction to ROC analysis", Pattern Recognition
    Letters 27(8), 2006, section 7).

    Args:
        scores: (S, N) float: logits, or what else ranks.
        labels: (N,) 0 safe, 1 unsafe, both there.
        at: (G,) false-positive rates, ascending in [0, 1].

    Returns:
        (S, G) float64 true-positive rates; at a rate where the curve rises, its upper end.

    Raises:
        DataError: labels of one class.
    """
    n_unsafe = int(labels.sum())
    n_safe = len(labels) - n_unsafe
    if not n_unsafe or not n_safe:
        raise DataError("A ROC curve needs safe and unsafe images; the test set has one kind.")
    out = np.empty((len(scores), len(at)))
    for row, values in enumerate(scores):
        order = np.argsort(-values, kind="stable")
        last = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)  # the last of each run of ties
        tp = np.append(0, np.cumsum(labels[order])[last]) / n_unsafe
        fp = np.append(0, np.cumsum(1 - labels[order])[last]) / n_safe
        out[row] = np.interp(at, fp, tp)  # of several points at one rate it takes the last, the upper one
    return out


def over_rows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over rows (S, K) without NaN, and half of its 95 % Student t interval: (K,) each, NaN where undefined."""
    known = ~np.isnan(values)
    n = known.sum(axis=0)
    size = np.where(n > 0, n, np.nan)
    mean = np.where(known, values, 0).sum(axis=0) / size
    spread = np.where(known, values - mean, 0)
    std = np.sqrt((spread**2).sum(axis=0) / np.where(n > 1, n - 1, np.nan))
    return mean, half_width(std, n)


def _mean(values: np.ndarray) -> tuple[float, float]:
    mean, half = over_rows(values[:, None])
    return float(mean[0]), float(half[0])


def chosen_points(frame: pd.DataFrame, choice: PointChoice | None = None) -> pd.DataFrame:
    """The rows of the chosen points; None chooses each line at the largest budget.

    Raises:
        DataError: a setting that no row has; the message names what there is.
    """
    choice = choice or PointChoice()
    whole = whole_slices(frame)
    baseline = whole["control"] == "none"  # it is the same in both arms, and stands under one
    given = {f.name: getattr(choice, f.name) for f in fields(choice) if getattr(choice, f.name) is not None}
    rows = whole
    for name, value in given.items():
        kept = select(rows, {name: float(value) if name == "ratio" else value})
        if name == "arm" and (len(kept) or baseline[rows.index].all()):
            kept = rows[(rows["arm"] == value) | baseline[rows.index]]
        if kept.empty:
            there = sorted(rows[name].unique())
            shown = [share_text(v) if name == "ratio" else f"{v:,}" if name == "budget" else str(v) for v in there]
            told = share_text(value) if name == "ratio" else value
            others = [f"{k} {v}" for k, v in given.items() if k != name]
            among = (
                f" among those with {', '.join(others[: list(given).index(name)])}" if list(given).index(name) else ""
            )
            raise DataError(f"The results have no point with {name} {told}{among}; they have {', '.join(shown)}.")
        rows = kept
    if choice.budget is None:
        rows = rows[rows["budget"] == rows["budget"].max()]
    return rows
