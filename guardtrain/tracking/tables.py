"""A curve's tables as trackers show them: the means over seeds, the runs, and the last point of each line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardtrain.curves.results import METRICS
from guardtrain.curves.statistics import POINT, default_panels, line_points, lines_of, summarise

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = ("run", "head", "arm", "control", "budget", "ratio", "n_real", "n_pair_images", "n_images", "seed", "test")


def curve_tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """`summary`: a row a point, test set and metric, with mean and interval; `runs`: a row a run and test set.

    Args:
        frame: the curve's rows of the results table; slices other than `all` are left out.
    """
    import pandas as pd

    whole = frame[frame["slice_kind"] == "all"]
    defined = [metric for metric in METRICS if whole[metric].notna().any()]
    parts = [summarise(whole, metric).assign(metric=metric).dropna(subset=["mean"]) for metric in defined]
    summary = pd.concat(parts, ignore_index=True).drop(columns=["slice_kind", "slice"])
    names = list(dict.fromkeys(["test", "metric", *(n for n in POINT if n in summary.columns), *summary.columns]))
    return {"summary": summary[names], "runs": whole[[*_SHOWN, *defined, "seconds"]].reset_index(drop=True)}


def last_points(frame: pd.DataFrame) -> dict[str, float]:
    """The mean at the largest budget of each line, by `TEST/METRIC/LINE`, of the metrics that are shown first."""
    whole = frame[frame["slice_kind"] == "all"]
    several, out = len(whole["head"].unique()) > 1, {}
    for test, metric in default_panels(whole):
        for head, own in whole[whole["test"] == test].groupby("head"):
            points = summarise(own, metric)
            for line in lines_of(own):
                mine = line_points(points, line, with_baseline=False)
                name = "/".join([test, metric, *([str(head)] if several else []), line.label()])
                out[name] = float(mine["mean"].iloc[-1])
    return out
