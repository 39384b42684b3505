"""Statistics of a curve: means and intervals over seeds, seed-paired differences, its lines and panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.curves.results import CONTROLS, METRICS
from guardtrain.errors import DataError
from guardtrain.mixtures import OF_REAL

if TYPE_CHECKING:
    import pandas as pd


LINE = ("arm", "control", "ratio")
POINT = ("head", *LINE, "budget", "test", "slice_kind", "slice")
POINT_COLUMNS = ("head", *LINE, "budget")  # of a bootstrap
OF_SEEDS = "seeds (draws of the training images; the test sets are fixed)"  # what a t interval covers, in captions
CONFIDENCE = 0.95
NO_INTERVAL = ("ece",)  # each run's has chance added to it, which no mean over runs takes off

_FRACTIONS = {0.5: "½", 0.25: "¼", 0.75: "¾", 0.125: "⅛", 0.375: "⅜", 0.625: "⅝", 0.875: "⅞", 1 / 3: "⅓", 2 / 3: "⅔"}


def half_width(std: np.ndarray, n: np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray:
    """Half the width of Student's t interval of a mean: `t_{(1+c)/2, n-1} · std / √n`.

    Args:
        std: (K,) standard deviations with n - 1 in the denominator.
        n: (K,) numbers of values.

    Returns:
        (K,) float64, NaN where `n` is below 2.
    """
    from scipy.special import stdtrit  # the quantile alone; scipy.stats takes a second to import

    n = np.asarray(n, dtype=np.float64)
    freedom = np.where(n >= 2, n - 1, np.nan)
    return np.asarray(stdtrit(freedom, (1 + confidence) / 2) * np.asarray(std, dtype=np.float64) / np.sqrt(n))


def summarise(
    frame: pd.DataFrame, metric: str, by: Sequence[str] = POINT, confidence: float = CONFIDENCE
) -> pd.DataFrame:
    """Mean of `metric` over seeds with Student's t interval, one row for each combination of `by`.

    The interval covers the variation over seeds, that is over draws of the training mixture (and initialisations), with
    the test set fixed. It does not cover what another test set would have given. A calibration error has none, see
    `NO_INTERVAL`.

    Args:
        frame: a results table, see `guardtrain.curves.results.ResultsTable.read`.
        metric: one of `METRICS`; seeds where it is undefined are left out, and `n_seeds` does not count them.
        by: the columns that make a point.

    Returns:
        The columns of `by`, then `n_images`, `n_pair_images` (means), `n_seeds`, `mean`, `std`, `low`, `high`,
        `half_width`, sorted by `by`. One seed: `std` and the interval are NaN. None: `mean` is NaN too.

    Raises:
        DataError: an unknown metric or column, or a point with one seed twice, or with several encoders or data
            sets: averaging those would mix different experiments.
    """
    check_metric(frame, metric)
    by = list(by)
    if unknown := [name for name in by if name not in frame.columns]:
        raise DataError(f"The results have no column {', '.join(unknown)}; they have {', '.join(frame.columns)}.")
    _refuse_mixed(frame, by)
    grouped = frame.groupby(by, sort=True, observed=True, dropna=False)
    out = grouped.agg(
        n_images=("n_images", "mean"),
        n_pair_images=("n_pair_images", "mean"),
        n_seeds=(metric, "count"),
        mean=(metric, "mean"),
        std=(metric, "std"),
    ).reset_index()
    width = half_width(out["std"].to_numpy(), out["n_seeds"].to_numpy(), confidence)
    out["half_width"] = np.nan if metric in NO_INTERVAL else width
    out.insert(len(out.columns) - 1, "low", out["mean"] - out["half_width"])
    out.insert(len(out.columns) - 1, "high", out["mean"] + out["half_width"])
    return out


def select(frame: pd.DataFrame, selection: Mapping[str, Any]) -> pd.DataFrame:
    """The rows whose columns equal `selection`; floats within rounding.

    Raises:
        DataError: a column the frame does not have.
    """
    keep = np.ones(len(frame), dtype=bool)
    for name, value in selection.items():
        if name not in frame.columns:
            raise DataError(f"The results have no column '{name}'; they have {', '.join(frame.columns)}.")
        column = frame[name].to_numpy()
        keep &= np.isclose(column.astype(float), value) if isinstance(value, float) else column == value
    return frame.loc[keep]


def one_baseline(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with real data alone (control none) under one arm's name: with ratio 0 both arms are the same mixture.

    A baseline that was run in both arms is kept once, the first of each point and seed.
    """
    baseline = frame["control"] == "none"
    if not baseline.any():
        return frame
    merged = frame.copy()
    merged.loc[baseline, "arm"] = frame.loc[baseline, "arm"].iloc[0]
    same = [*POINT, "seed", "encoder", "data"]
    return merged.loc[~(baseline & merged.duplicated(subset=same))]


def whole_slices(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of slice `all`, real data alone once; raises DataError where there are none."""
    if frame.empty:
        raise DataError("The results are empty: nothing to show yet.")
    whole = frame[frame["slice_kind"] == "all"]
    if whole.empty:
        raise DataError("The results hold slices only: no row has slice_kind 'all'.")
    return one_baseline(whole)


@dataclass(frozen=True)
class Line:
    """One line of a curve: an arm with a control at a ratio (None where the line runs over ratios)."""

    arm: str
    control: str
    ratio: float | None

    def label(self, both_arms: bool = False) -> str:
        """Readable name: "real only", "pairs ½ (replace)", "unpaired ½ (control)", "pairs only".

        Args:
            both_arms: whether controls must say which arm they belong to.
        """
        if self.control == "none":
            return "real only"
        thing = {"paired": "pairs", "real": "more real"}.get(self.control, self.control)
        if self.ratio == 1 and self.arm == "replace" and self.control not in OF_REAL:
            share = " only"
        else:
            share = "" if self.ratio is None else f" {share_text(self.ratio)}"
        if self.control == "paired":
            return thing + share + ("" if share == " only" else f" ({self.arm})")
        return thing + share + (f" ({self.arm}, control)" if both_arms else " (control)")

    @property
    def order(self) -> tuple[Any, ...]:
        """Sort key: real only, then arm by arm and ratio by ratio the pairs and after them their controls."""
        return (self.control != "none", self.arm == "add", self.ratio or 0.0, CONTROLS.index(self.control))


def lines_of(frame: pd.DataFrame, over_ratios: bool = False) -> list[Line]:
    """The lines in `frame` in reading order; with `over_ratios` one line an arm and control, whatever the ratio."""
    found = {
        Line(str(arm), str(control), None if over_ratios else float(ratio))
        for arm, control, ratio in frame[list(LINE)].drop_duplicates().itertuples(index=False)
    }
    return sorted(found, key=lambda line: line.order)


def line_points(points: pd.DataFrame, line: Line, with_baseline: bool = True) -> pd.DataFrame:
    """The rows of a `summarise` table that belong to `line`, with a column `added`, sorted by budget and `added`.

    `added` is how many images came on top of the budget (add arm) or took real images' places (replace arm); for pairs
    and the unpaired control that is the number of pair images.

    Args:
        with_baseline: whether a line over ratios starts at real data alone, its point at `added` = 0.
    """
    import pandas as pd

    own = (points["arm"] == line.arm) & (points["control"] == line.control)
    if line.ratio is not None:
        own &= points["ratio"] == line.ratio
    elif with_baseline:
        own |= points["control"] == "none"
    mine = points.loc[own]
    on_top = mine["n_images"] - mine["budget"]
    added = on_top if line.arm == "add" else mine["budget"] * mine["ratio"]
    return mine.assign(added=pd.to_numeric(added).round().astype(int)).sort_values(["budget", "added"])


def share_text(ratio: float) -> str:
    """A ratio the way people write it: ½, ⅓, .05, 0."""
    if ratio == 0:
        return "0"
    for value, text in _FRACTIONS.items():
        if abs(ratio - value) < 1e-3:
            return text
    return number_text(ratio, 3).rstrip("0").rstrip(".") if ratio < 1 else f"{ratio:g}"


def number_text(value: float, digits: int = 3) -> str:
    """A number as the tables write it: .812, −.020, 1.00, – where it is undefined."""
    if not np.isfinite(value):
        return "–"
    text = f"{abs(value):.{digits}f}"
    if not text.startswith("0."):
        text = f"{abs(value):.{digits - 1}f}"  # as wide as the others
    sign = "−" if value < 0 and float(text) != 0 else ""
    return sign + (text[1:] if text.startswith("0.") else text)


def default_panels(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """(test, metric) worth showing first: AUROC on every test set, then both sides right where there are pairs."""
    whole = frame[frame["slice_kind"] == "all"]
    tests = list(dict.fromkeys(whole["test"]))
    return [
        (test, metric)
        for metric in ("auroc", "pair_both_right")
        for test in tests
        if whole.loc[whole["test"] == test, metric].notna().any()
    ]


def telling_panel(frame: pd.DataFrame, panels: Sequence[tuple[str, str]] | None = None) -> tuple[str, str]:
    """The (test, metric) of which more is told than of others: the first of a test set with pairs, else the first.

    Args:
        frame: rows of slice `all` of a results table.
        panels: to choose from; None for `default_panels`.
    """
    chosen = panels or default_panels(frame)
    paired = set(frame.loc[frame["pair_both_right"].notna(), "test"])
    return next((panel for panel in chosen if panel[0] in paired), chosen[0])


def seeds_text(counts: np.ndarray | Sequence[int]) -> str:
    """How many seeds the points have: "5 seeds", "3–5 seeds", "1 seed"."""
    low, high = int(np.min(counts)), int(np.max(counts))
    return f"{low}–{high} seeds" if low != high else f"{high} seed{'s' * (high != 1)}"


def check_metric(frame: pd.DataFrame, metric: str) -> None:
    """Raises DataError where `metric` is none of `METRICS`, or `frame` is empty or lacks it."""
    if metric not in METRICS:
        raise DataError(f"Unknown metric '{metric}'; there are: {', '.join(METRICS)}.")
    if metric not in frame.columns:
        raise DataError(f"The results have no column '{metric}'; they have {', '.join(frame.columns)}.")
    if frame.empty:
        raise DataError("The results are empty: nothing to summarise yet.")


def _refuse_mixed(frame: pd.DataFrame, by: Sequence[str]) -> None:
    """One experiment a point: each seed once, one encoder, one data set."""
    keys = list(by)
    for name, what in (("encoder", "encoders"), ("data", "data sets")):
        if name in frame.columns and name not in by:
            several = frame.groupby(keys, observed=True)[name].nunique()
            if (several > 1).any():
                values = ", ".join(map(str, frame[name].unique()[:4]))
                raise DataError(f"The results hold several {what} ({values}): select one, or add '{name}' to `by`.")
    if "seed" not in by and (double := frame.duplicated(subset=[*keys, "seed"])).any():
        row = frame.loc[double].iloc[0]
        same = frame.loc[(frame[[*keys, "seed"]] == row[[*keys, "seed"]]).all(axis=1)]
        ignored = {"run", "seconds", *METRICS, *keys}
        vary = [c for c in frame.columns if c not in ignored and len(same[c].unique()) > 1]
        raise DataError(
            f"Several runs share {_worded({k: row[k] for k in [*keys, 'seed']})}; they differ in "
            f"{', '.join(vary) or 'nothing but the run key'}. Select one of them, or add the column to `by`."
        )


def _worded(selection: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in selection.items())
