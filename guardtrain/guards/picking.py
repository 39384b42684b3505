"""Which run of a curve becomes a guard: the best by a metric, on validation images unless a test set is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from guardtrain.curves.engine import FALSE_POSITIVE_RATE, Run, metric_column
from guardtrain.curves.folder import VALIDATION_FOLDER
from guardtrain.curves.results import METRICS
from guardtrain.curves.validation import PAIRS, REAL, ValidationScores, unseen
from guardtrain.errors import ConfigError, DataError
from guardtrain.guards.settings import PICK_TEST, PickSettings
from guardtrain.metrics import record_pairs, sliced_guard_metrics
from guardtrain.records import Records
from guardtrain.training.pools import Pools

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 20  # safe and unsafe images each, below which a metric on validation says little
_FILTERS = ("run", "budget", "ratio", "arm", "control", "seed")
_SETTING = ["budget", "ratio", "arm", "control"]
_SHOWN = 20


@dataclass(frozen=True)
class Picked:
    """A run and why it is this one.

    Args:
        run: its key.
        of: how many runs there were to pick from.
        metric: what it was picked by; None where it was the only one.
        value: of the run.
        on: which images the metric is of, in words.
        is_test: whether these are a test set.
        setting_of: of how many settings its own is the best by the mean over seeds; 0 where runs were compared.
    """

    run: str
    of: int
    metric: str | None = None
    value: float = float("nan")
    on: str = ""
    is_test: bool = False
    setting_of: int = 0

    @property
    def about(self) -> dict[str, Any]:
        """The same as plain data, for the guard's config; empty where nothing was picked."""
        if self.metric is None:
            return {}
        marked = {"is_test": True} if self.is_test else {}
        return {"of": self.of, "metric": self.metric, "value": self.value, "on": self.on, **marked}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the guard's card must know of the pick; nothing where there was no choice."""
        if self.metric is None or self.of < 2:
            return ()
        by = f"{self.metric} on {self.on}"
        if self.setting_of:
            by = f"the mean over seeds of {by}, the best of {self.setting_of} settings, and then the best of its seeds"
        text = f"The run was picked of {self.of} by {by}: "
        if self.is_test:
            return (f"{text}its metrics there are better than they will be elsewhere.",)
        return (
            f"{text}{self.value:.3f}, which is better than it will be elsewhere, as the best of several always is. The "
            "figures to quote are those on the test sets: they had no part in the choice. Where the same images set "
            "the thresholds, the rates found there are a little too good for the same reason.",
        )


def pick_run(results: pd.DataFrame, pools: Pools, runs: Mapping[str, Run], folder: Path, pick: PickSettings) -> Picked:
    """The best run by `pick`.

    Args:
        results: rows of the results table, of `runs` alone.
        pools: of the curve.
        runs: its runs by key.
        folder: of the curve.
        pick: which.

    Raises:
        ConfigError: no metric or test set, or none of that name; nothing left.
        DataError: too few validation images, or runs that were not scored on them.
    """
    left = results[results["slice_kind"] == "all"].drop_duplicates("run")
    for name in _FILTERS:
        if (wanted := getattr(pick, name)) is None:
            continue
        known = sorted(left[name].unique())
        left = left[left[name] == wanted]
        if left.empty:
            raise ConfigError(
                f"No run is left with pick.{name}={wanted}; there are: {', '.join(map(str, known[:_SHOWN]))}."
            )
    if len(left) == 1 and pick.metric is None:
        return Picked(str(left["run"].iloc[0]), 1)
    metric = _allowed("metric", pick.metric, list(METRICS))
    if pick.on == PICK_TEST:
        test = _allowed("test", pick.test, sorted(results["test"].unique()))
        mine = results[(results["slice_kind"] == "all") & (results["test"] == test)].set_index("run")[metric]
        values, on = mine.reindex(left["run"]).to_numpy(dtype=float), f"the test set {test}"
    elif pick.test is not None:
        raise ConfigError(
            f"pick.test is '{pick.test}', and pick.on is '{pick.on}'. Leave pick.test out, or say pick.on={PICK_TEST} "
            "to pick on a test set: its figures are then no longer those of unseen images, and the card says so."
        )
    else:
        values, on = _on_validation(pools, [runs[key] for key in left["run"]], folder, metric)
    left = left.assign(value=values)[~np.isnan(values)]
    if left.empty:
        raise ConfigError(f"{metric} is not defined on {on} for any run; pick by another metric.")
    count, settings = len(left), 0
    lowest = "lower is better" in METRICS[metric]
    if pick.best == "setting":
        means = left.groupby(_SETTING, sort=False)["value"].mean()
        settings = len(means)
        best = means.idxmin() if lowest else means.idxmax()
        left = left[(left[_SETTING] == list(best)).all(axis=1)]
    row = left.loc[left["value"].idxmin() if lowest else left["value"].idxmax()]
    return Picked(str(row["run"]), count, metric, float(row["value"]), on, pick.on == PICK_TEST, settings)


def _allowed(key: str, value: str | None, allowed: Sequence[str]) -> str:
    if value in allowed:
        return str(value)
    said = "is not given" if value is None else f"is '{value}'"
    raise ConfigError(f"This is a curve's folder, and pick.{key} {said}; give one of: {', '.join(allowed)}.")


def _on_validation(pools: Pools, runs: Sequence[Run], folder: Path, metric: str) -> tuple[np.ndarray, str]:
    """(R,) the metric of each run on validation images that it was not trained on, and which these are, in words.

    The same images judge all runs, if enough were used by none of them; else all runs of a seed, whose mixtures are
    nested, and every seed has other images of the same number.
    """
    scores = ValidationScores(folder / VALIDATION_FOLDER, pools)
    name = PAIRS if metric.startswith("pair_") else REAL
    if name not in scores.parts:
        raise ConfigError(f"{metric} needs pairs, and this data has no pool of pairs. {_OTHERWISE}")
    records = scores.parts[name].records
    probabilities = scores.read(name, [run.key for run in runs])
    free = np.stack([unseen(pools, run.mixture, records) for run in runs])
    judges: dict[int | None, np.ndarray] = {None: np.logical_and.reduce(free, axis=0)}
    seeds: list[int | None] = [None] * len(runs)
    shared = _enough(records, judges[None])
    if not shared:
        seeds = [run.point.seed for run in runs]
        judges = {seed: np.logical_and.reduce(free[np.array(seeds) == seed], axis=0) for seed in dict.fromkeys(seeds)}
    values = np.empty(len(runs))
    for seed, mask in judges.items():
        if not _enough(records, mask):
            raise DataError(_too_few(name, records, mask, seed, runs))
        mine = np.array([of == seed for of in seeds])
        found = sliced_guard_metrics(
            torch.from_numpy(probabilities[mine]),
            torch.from_numpy(records.labels.astype(np.int64)),
            record_pairs(records),
            {("all", "all"): mask},
            fpr=FALSE_POSITIVE_RATE,
        )
        columns = {metric_column(own): column for own, column in found["all", "all"].items()}
        values[mine] = columns[metric].numpy()
    counts = sorted({int(mask.sum()) for mask in judges.values()})
    many = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    nobody = "no run" if shared else "no run of the same seed"
    return values, f"{many} validation images of the {name} pool that {nobody} to pick from was trained on"


_OTHERWISE = "Or pick on a test set (pick.on=test pick.test=NAME): the guard's card says so then."


def _enough(records: Records, mask: np.ndarray) -> bool:
    unsafe = int(records.labels[mask].sum())
    return FEWEST <= unsafe <= int(mask.sum()) - FEWEST


def _too_few(name: str, records: Records, mask: np.ndarray, seed: int | None, runs: Sequence[Run]) -> str:
    unsafe = int(records.labels[mask].sum())
    largest = max(run.point.budget for run in runs)
    return (
        f"Picking on validation takes at least {FEWEST} safe and {FEWEST} unsafe images of the {name} pool that no run "
        f"to pick from was trained on; of seed {seed} there are {int(mask.sum()) - unsafe} and {unsafe}: runs of up to "
        f"{largest:,} images leave no more. Pick among fewer (pick.budget=…, pick.ratio=…, pick.control=…), or mark "
        f"records with split: val and run the curve again. {_OTHERWISE}"
    )
