"""Collected runs ranked: runs that differ in the seed alone are one row, with an interval over them."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.curves.collecting.reading import CURVE, NULL, TUNE, Collected
from guardtrain.curves.results import CONTROLS, METRICS, NO_CONTROLS
from guardtrain.curves.statistics import NO_INTERVAL, half_width, number_text
from guardtrain.curves.tables import Table, mean_cell
from guardtrain.curves.tuning.settings import LOG_LOSS, lower_is_better
from guardtrain.errors import ConfigError
from guardtrain.grammar import setting
from guardtrain.sources.cells import shown, text_of
from guardtrain.sources.choosing import chosen_values
from guardtrain.words import listed, text_table

if TYPE_CHECKING:
    import pandas as pd

_MIXTURE = ("data", "encoder", "head", "arm", "control", "budget", "ratio")
_NAMES = {LOG_LOSS: "Log loss (lower is better)"}


@dataclass(frozen=True)
class Ranking:
    """Runs by settings, best first.

    Args:
        frame: a row a setting: the columns `by`, and `mean`, `half_width`, `n_seeds`, of each other test set
            `mean NAME` and `half_width NAME`, and of the first seed `folder`, `kind`, `run`, `seed`, `holds_head`.
        by: the settings that differ.
        metric, test, slice: what it is ranked by.
        tests: the other test sets.
        data: which data set's the test set is, where there are several.
    """

    frame: pd.DataFrame
    by: tuple[str, ...]
    metric: str
    test: str
    slice: str
    tests: tuple[str, ...]
    data: str = ""


def keep(collected: Collected, where: Mapping[str, Any] | None) -> pd.DataFrame:
    """The rows whose columns have the values that `where` asks for, as in the sources of records.

    Raises:
        ConfigError: a column that is not there, or values that leave nothing.
        DataError: a value that no run has.
    """
    rows, kept = collected.rows, np.ones(len(collected.rows), dtype=bool)
    if where is not None and not isinstance(where, Mapping):
        raise ConfigError(f"where must be a mapping, such as where='{{head: mlp}}'; it is {where!r}.")
    for name, wanted in (where or {}).items():
        if name not in rows:
            near = difflib.get_close_matches(str(name), list(rows.columns), n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else f" There are: {', '.join(rows.columns)}."
            raise ConfigError(f"where names '{name}', and no run has such a column.{hint}")
        given = list(wanted) if isinstance(wanted, (list, tuple)) else [wanted]
        values = [NULL if value is None else text_of(value) for value in given]
        texts = [text_of(v) for v in rows[name].astype(object).where(rows[name].notna(), None)]
        there = sorted(set(texts), key=lambda text: (text is None, str(text)))
        chosen = chosen_values(values, there, f"where: '{name}' of the runs", listed(map(shown, there), 20))
        kept &= np.array([text in chosen for text in texts], dtype=bool)
        if not kept.any():
            raise ConfigError(
                f"No run has all that `where` asks for: with what is before it, none has {name} {wanted}."
            )
    return rows[kept]


def rank(mine: pd.DataFrame, others: pd.DataFrame, settings: Sequence[str], metric: str, data: str = "") -> Ranking:
    """Rows of one test set grouped over the settings that differ, and the groups ranked by their mean over seeds.

    Args:
        mine: rows of one slice of the test set, with a value of the metric.
        others: rows of the same slice and runs, of other test sets that are shown beside.
        settings: names of the columns of settings.
        metric: what is ranked by.
        data: the data set's name, where it must be said.
    """
    test, slice_name = str(mine["test"].iloc[0]), str(mine["slice"].iloc[0])
    by = [name for name in (*_MIXTURE, *settings) if name in mine and len(mine[name].unique()) > 1]
    by = [name for name in by if not (name.startswith("head.") and _told_by(mine, "head", name))]
    if "encoder.name" in by and mine["encoder.name"].notna().all() and _told_by(mine, "encoder.name", "encoder"):
        # a name says more than a fingerprint; what else an encoder is made of, it tells
        by = [name for name in by if name == "encoder.name" or name.partition(".")[0] != "encoder"]
        by.insert(0, by.pop(by.index("encoder.name")))
    for more in ("folder", "run"):
        # two runs of one seed and the same settings differ in what is not known of them: they are no repeats
        if not mine.duplicated([*by, "seed"]).any():
            break
        by.append(more)
    mine = mine.assign(_group=_groups(mine, by))
    first = mine.sort_values(["holds_head", "seed"], ascending=[False, True], kind="stable").drop_duplicates("_group")
    frame = first.set_index("_group")[list(dict.fromkeys([*by, "folder", "kind", "run", "seed", "holds_head"]))].copy()
    frame[["mean", "half_width", "n_seeds"]] = _means(mine, metric)
    beside = sorted(others["test"].unique())
    group_of = mine.set_index(["folder", "run", "seed"])["_group"]
    for name in beside:
        part = others[others["test"] == name]
        keys = list(zip(part["folder"], part["run"], part["seed"], strict=True))
        part = part.assign(_group=group_of.reindex(keys).to_numpy()).dropna(subset=["_group"])
        if len(part) and part[metric].notna().any():
            frame[[f"mean {name}", f"half_width {name}"]] = _means(part, metric)[["mean", "half_width"]]
    beside = [name for name in beside if f"mean {name}" in frame]
    frame = frame.sort_values("mean", ascending=lower_is_better(metric), kind="stable").reset_index(drop=True)
    shown = tuple(name for name in by if len(frame[name].dropna().unique()) > 1)
    return Ranking(frame, shown, metric, test, slice_name, tuple(beside), data)


def _told_by(rows: pd.DataFrame, name: str, other: str) -> bool:
    """Whether what a row has in `name` says what it has in `other`: a column for it would say nothing more."""
    return name in rows and bool((rows.groupby(name)[other].nunique(dropna=False) < 2).all())


def _groups(rows: pd.DataFrame, by: Sequence[str]) -> np.ndarray:
    """The number of each row's group; what is not known equals itself, and 1 is 1.0 but not true."""
    if not by:
        return np.zeros(len(rows), dtype=np.int64)
    keys = rows[list(by)].astype(object).where(rows[list(by)].notna(), None)
    numbers: dict[tuple[Any, ...], int] = {}
    values = [tuple((isinstance(v, bool), v) for v in row) for row in keys.itertuples(index=False, name=None)]
    return np.array([numbers.setdefault(row, len(numbers)) for row in values])


def _means(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    found = rows.groupby("_group")[metric].agg(["mean", "std", "count"])
    width = half_width(found["std"].to_numpy(), found["count"].to_numpy())
    found["half_width"] = np.nan if metric in NO_INTERVAL else width
    found["n_seeds"] = found["count"]
    return found[["mean", "half_width", "n_seeds"]]


def ranking_text(ranking: Ranking, show: int) -> str:
    """The ranking as text: a title, the best rows, and what the intervals are."""
    frame, where = ranking.frame.head(show), "" if ranking.slice == "all" else f" ({ranking.slice})"
    count = len(ranking.frame)
    of = f" of {ranking.data}" if ranking.data else ""
    title = f"{_name(ranking.metric)} on '{ranking.test}'{of}{where} · {count} setting{'s' * (count != 1)}"
    rows = [["", *ranking.by, ranking.test, *ranking.tests, "seeds"]]
    for number, row in enumerate(frame.to_dict("records"), 1):
        values = [_value(name, row[name]) for name in ranking.by]
        scores = [_score(row["mean"], row["half_width"])]
        scores += [_score(row[f"mean {name}"], row[f"half_width {name}"]) for name in ranking.tests]
        rows.append([str(number), *values, *scores, str(int(row["n_seeds"]))])
    lines = text_table(rows)
    if len(ranking.frame) > show:
        lines.append(f"  … and {len(ranking.frame) - show} more (show=N)")
    if (frame["n_seeds"] > 1).any():
        lines.append("  ±: half of a 95 % Student t interval over seeds; none is corrected for how many are compared.")
    if len(ranking.frame) > 1 and ranking.frame["kind"].iloc[0] != TUNE:
        lines.append("  The first of many on a test set looks better there than it will elsewhere.")
    return "\n".join([title, *lines])


def ranking_table(ranking: Ranking) -> Table:
    """The ranking for Markdown and LaTeX: settings as rows, test sets as columns."""
    rows = []
    for row in ranking.frame.to_dict("records"):
        name = ", ".join(f"{by} {_value(by, row[by])}" for by in ranking.by) or str(row["folder"])
        cells = [mean_cell(row["mean"], row["half_width"])]
        cells += [mean_cell(row[f"mean {test}"], row[f"half_width {test}"]) for test in ranking.tests]
        rows.append((name, tuple(cells)))
    counts = sorted({int(n) for n in ranking.frame["n_seeds"]})
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else f"{counts[0]} seeds"
    part = "" if ranking.slice == "all" else f", {ranking.slice}"
    of = f" of {ranking.data}" if ranking.data else ""
    caption = f"{_name(ranking.metric)}{part}, ranked on '{ranking.test}'{of}: means over {seeds}"
    caption += " ± half of a 95 % Student t interval, each by itself." if counts[-1] > 1 else "."
    return Table(caption, f"tab:results-{ranking.metric}", "test set", (ranking.test, *ranking.tests), tuple(rows))


def as_guard(ranking: Ranking) -> str:
    """A line that says what makes the first row's run a guard, or why nothing does.

    Controls are what mixtures with pairs are compared with: the first row that is none is taken, where there is one.
    """
    frame, which = ranking.frame, "the first"
    if "control" in frame:
        none = ~frame["control"].isin(CONTROLS) | frame["control"].isin(NO_CONTROLS)
        if none.any() and not none.iloc[0]:
            frame, which = frame[none], "the first that is no control"
    return f"{which} as a guard: {_export_command(frame.iloc[0])}"


def _export_command(row: pd.Series) -> str:
    folder = str(row["folder"])
    if row["kind"] == TUNE:
        if (Path(folder) / "best" / "head.json").is_file():
            return shlex.join(["guardtrain", "export", setting("run", f"{folder}/best")])
        return f"the search in {folder} has not trained its best run yet; the same `guardtrain tune` goes on"
    if row["holds_head"]:
        return shlex.join(["guardtrain", "export", setting("run", folder)])
    if row["kind"] == CURVE:
        return shlex.join(["guardtrain", "export", setting("run", folder), f"pick.run={row['run']}"])
    return f"the head of run {row['run']} is no longer in {folder}: a later run there took its place; train it again"


def _name(metric: str) -> str:
    return _NAMES.get(metric) or METRICS[metric]


def _score(mean: float, half: float) -> str:
    return number_text(mean) if np.isnan(half) else f"{number_text(mean)}±{number_text(half)}"


def _value(name: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)[:12] if name == "encoder" else str(value)
