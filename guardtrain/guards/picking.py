"""Which run of a curve becomes a guard: the best by a metric, on validation images unless a test set is named.

Where there are pairs, a run is judged on images of both pools and has the mean of the two: in a confounded real pool
the context gives the label away, so real images alone would pick the run that learned the context.

Every metric chooses among the runs that tell the classes apart as well as the best one: whose AUROC, the mean over the
pools, is at most a standard error below its. Else a calibration error would pick a head that says ½ of everything, a
margin the head with the largest logits, and a metric of pairs one that is lost on real images.

Controls are what mixtures with pairs are compared with; they are picked where `pick.control` or `pick.run` names one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.curves.engine import Run
from guardtrain.curves.results import LOWER_IS_BETTER, METRICS, NO_CONTROLS
from guardtrain.curves.statistics import number_text
from guardtrain.errors import ConfigError
from guardtrain.guards.pick_values import Values, error_of, mean_of, on_tests, on_validation
from guardtrain.guards.settings import PICK_TEST, PickSettings
from guardtrain.training.pools import Pools
from guardtrain.training.recipe import PAIR_AWARE

if TYPE_CHECKING:
    import pandas as pd

_FILTERS = ("head", "run", "budget", "ratio", "arm", "control", "seed")
_SETTING = ["head", "budget", "ratio", "arm", "control"]
_SHOWN = 20
_RIGHT = "pair_both_right"
_NOISE = 2.0  # standard errors, beyond which a run is far behind on pairs


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
        near: how many of them (runs, or settings) tell the classes apart as well as the best one.
        controls: how many runs are controls that nothing named, and no candidates.
        beside: the run beside the best by each metric, on each set of images: lines of text.
        behind: a sentence for each set of pairs on which it is far behind the best.
    """

    run: str
    of: int
    metric: str | None = None
    value: float = float("nan")
    on: str = ""
    is_test: bool = False
    setting_of: int = 0
    near: int = 0
    controls: int = 0
    beside: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()

    @property
    def about(self) -> dict[str, Any]:
        """Return the pick as plain data, for the guard's config; empty where nothing was picked."""
        if self.metric is None:
            return {}
        marked = {"is_test": True} if self.is_test else {}
        return {"of": self.of, "metric": self.metric, "value": self.value, "on": self.on, **marked}

    @property
    def text(self) -> str:
        """Return the pick as it is printed; nothing where there was no choice."""
        if self.metric is None:
            return ""
        lines = [f"picked of {self.of} runs by {self.metric} on {self.on}: {self.value:.3f}"]
        if self._among:
            lines.append(f"  {self._among}")
        if self.controls:
            lines.append(f"  {self.controls} controls are no candidates unless pick.control names them")
        lines += [*self.beside, *(f"! {text}" for text in self.behind)]
        return "\n".join(lines)

    @property
    def _among(self) -> str:
        """How many were compared by the metric, where these are not all."""
        what, units = ("settings", self.setting_of) if self.setting_of else ("runs", self.of)
        if self.near >= units:
            return ""
        told = "are compared by it, with an AUROC within a standard error of the best"
        return f"{self.near} of the {units} {what} {told}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the guard's card must know of the pick; nothing where there was no choice."""
        if self.metric is None or self.of < 2:
            return ()
        by = f"{self.metric} on {self.on}"
        if self.setting_of:
            by = f"the mean over seeds of {by}, the best of {self.setting_of} settings, and then the best of its seeds"
        text = f"The run was picked of {self.of} by {by}: "
        if self.is_test:
            return (f"{text}its metrics there are better than they will be elsewhere.", *self.behind)
        return (
            f"{text}{self.value:.3f}, which is better than it will be elsewhere, as the best of several always is. The "
            "figures to quote are those on the test sets: they had no part in the choice. Where the same images set "
            "the thresholds, the rates found there are a little too good for the same reason.",
            *([f"{self._among}."] if self._among else []),
            *self.behind,
        )


def pick_run(results: pd.DataFrame, pools: Pools, runs: Mapping[str, Run], folder: Path, pick: PickSettings) -> Picked:
    """The best run by `pick`, see the module.

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
    left, controls = _candidates(results, pick)
    if len(left) == 1 and pick.metric is None:
        return Picked(str(left["run"].iloc[0]), 1)
    metric = _allowed("metric", pick.metric, list(METRICS))
    keys = left["run"].tolist()
    if pick.on == PICK_TEST:
        test = _allowed("test", pick.test, sorted(results["test"].unique()))
        shown = on_tests(results, keys)
        judges, nobody = [one for one in shown if one.name == test], ""
    elif pick.test is not None:
        raise ConfigError(
            f"pick.test is '{pick.test}', and pick.on is '{pick.on}'. Leave pick.test out, or say pick.on={PICK_TEST} "
            "to pick on a test set: its figures are then no longer those of unseen images, and the card says so."
        )
    else:
        judges, nobody = on_validation(pools, [runs[key] for key in keys], folder)
        shown = judges
    heads = dict(zip(keys, left["head"], strict=True)) if len(set(left["head"])) > 1 else {}
    short = {key: _short(runs[key], heads.get(key)) for key in keys}  # the best by another metric may be any of them
    own = [one for one in judges if one.has_pairs or not metric.startswith("pair_")]
    if not own:
        raise ConfigError(f"{metric} needs pairs, and there are none to judge the runs by. Pick by another metric.")
    on = f"the test set {own[0].name}" if pick.on == PICK_TEST else _images(own, nobody)
    left = left.set_index("run").assign(value=mean_of(own, metric), auroc=mean_of(judges, "auroc"))
    left = left.assign(error=error_of(judges)).dropna(subset=["value", "auroc"])
    if left.empty:
        raise ConfigError(f"{metric} is not defined on {on} for any run; pick by another metric.")
    lowest = metric in LOWER_IS_BETTER
    if pick.best == "setting":
        means = left.groupby(_SETTING, sort=False)[["value", "auroc", "error"]].mean()
        best, near = _best(means, lowest)
        mine = left[(left[_SETTING] == list(best)).all(axis=1)]["value"]
        run, settings = str(mine.idxmin() if lowest else mine.idxmax()), len(means)
    else:
        (run, near), settings = _best(left, lowest), 0
    value = float(left["value"][run])
    beside, behind = _beside(shown, run, short)
    is_test = pick.on == PICK_TEST
    return Picked(run, len(left), metric, value, on, is_test, settings, near, controls, beside, behind)


def _images(values: Sequence[Values], nobody: str) -> str:
    """Which validation images these are, in words."""
    first, *others = (f"{one.images} validation images of {one.name}" for one in values)
    told = " and ".join([first, *(text.replace(" validation images", "") for text in others)])
    return f"{'both pools (the mean of the two), ' if others else ''}{told} that {nobody} was trained on"


def _candidates(results: pd.DataFrame, pick: PickSettings) -> tuple[pd.DataFrame, int]:
    """A row a run to pick from, and how many runs were left out for being controls that nothing names.

    Of equals the first is picked: the one of fewest images, in whatever order the runs came to their end.
    """
    left = (
        results[results["slice_kind"] == "all"].drop_duplicates("run").sort_values(["budget", "ratio", "seed", "run"])
    )
    for name in _FILTERS:
        if (wanted := getattr(pick, name)) is None:
            continue
        column = left[name]
        if name == "head":  # by its own name, whatever its training knows of
            column, wanted = column.str.removesuffix(PAIR_AWARE), str(wanted).removesuffix(PAIR_AWARE)
        known = sorted(column.unique())
        left = left[column == wanted]
        if left.empty:
            raise ConfigError(
                f"No run is left with pick.{name}={wanted}; there are: {', '.join(map(str, known[:_SHOWN]))}."
            )
    if pick.run is not None or pick.control is not None:
        return left, 0
    named = left["control"].isin(NO_CONTROLS)
    if not named.any():
        found = sorted(left["control"].unique())
        raise ConfigError(
            f"The {len(left)} runs left to pick from are controls ({', '.join(found)}), which are what mixtures with "
            f"pairs are compared with. To make a guard of one all the same, name them: pick.control={found[0]}."
        )
    return left[named], int((~named).sum())


def _best(units: pd.DataFrame, lowest: bool) -> tuple[Any, int]:
    """The best by `value` of those whose `auroc` is within a standard error of the highest, and how many these are."""
    top = units.iloc[int(units["auroc"].argmax())]
    near = units[top["auroc"] - units["auroc"] <= np.hypot(units["error"], top["error"])]
    return near["value"].idxmin() if lowest else near["value"].idxmax(), len(near)


def _beside(values: Sequence[Values], run: str, short: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Lines that show a run beside the best by each metric and set, and a sentence where it is far behind on pairs."""
    rows: list[list[str]] = [["", *(cell for one in values for cell in (one.name, "", ""))]]
    rows.append(["", *["picked", "best", ""] * len(values)])
    behind = []
    for metric, name in METRICS.items():
        cells = [name.removesuffix(" (lower is better)")]
        for one in values:
            column = one.metrics[metric].dropna()
            if run not in column:
                cells += ["–", "–", ""]
                continue
            best = str(column.idxmin() if metric in LOWER_IS_BETTER else column.idxmax())
            cells += [number_text(column[run]), number_text(column[best]), "" if best == run else short[best]]
            if metric == _RIGHT and (text := _far_behind(one, run, best, short)):
                behind.append(text)
        if any(cell != "–" for cell in cells[1:] if cell):
            rows.append(cells)
    widths = [max(len(row[i]) for row in rows[1:]) for i in range(len(rows[0]))]
    lines = []
    for row in rows[1:]:
        numbers = [
            cell.ljust(width) if i % 3 == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(("  " + "  ".join(numbers)).rstrip())
    head = "  " + " " * widths[0]
    for i, one in enumerate(values):
        head += "  " + one.name.ljust(sum(widths[3 * i + 1 : 3 * i + 4]) + 4)
    return (head.rstrip(), *lines), tuple(behind)


def _far_behind(values: Values, run: str, best: str, short: Mapping[str, str]) -> str:
    """A sentence where a run gets both sides of pairs right less often than the best one, by more than noise."""
    shares = values.metrics[_RIGHT]
    mine, theirs = float(shares[run]), float(shares[best])
    keys = values.metrics.index.tolist()
    counts = values.counts[np.array([keys.index(run), keys.index(best)]), 2]
    error = float(np.sqrt((np.array([mine * (1 - mine), theirs * (1 - theirs)]) / np.maximum(counts, 1)).sum()))
    if theirs - mine <= _NOISE * error:
        return ""
    return (
        f"Far behind on the pairs of {values.name}: both sides are right of {number_text(mine)} of them, and of "
        f"{number_text(theirs)} by the best run to pick from ({short[best]}; pick.run={best})."
    )


def _short(run: Run, head: str | None) -> str:
    """A run in a few signs: "n 2,048, ρ 0.5, seed 3", after its head where there are several."""
    point = run.point
    arm = "" if point.arm == "replace" else f" {point.arm}"
    control = "" if point.control in NO_CONTROLS else f" {point.control}"
    named = "" if head is None else f"{head}, "
    return f"{named}n {point.budget:,}, ρ {point.ratio:g}{arm}{control}, seed {point.seed}"


def _allowed(key: str, value: str | None, allowed: Sequence[str]) -> str:
    if value in allowed:
        return str(value)
    said = "is not given" if value is None else f"is '{value}'"
    raise ConfigError(f"This is a curve's folder, and pick.{key} {said}; give one of: {', '.join(allowed)}.")
