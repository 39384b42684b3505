"""Rankings of runs that the same images judged, one for each set of images; and which runs are in none, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from guardtrain.curves.collecting.contents import contents_of, named_apart
from guardtrain.curves.collecting.ranking import Ranking, rank
from guardtrain.curves.results import METRICS
from guardtrain.curves.tuning.settings import LOG_LOSS
from guardtrain.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_RUN = ["folder", "run"]


def rankings(
    rows: pd.DataFrame, settings: Sequence[str], metric: str, test: str | None, slice_name: str
) -> tuple[list[Ranking], list[str]]:
    """Rank the runs that the same images judged, and say in a line each which ones are left out.

    Args:
        rows: of `Collected`.
        settings: names of its columns of settings.
        metric: what is ranked by.
        test: the test set; None for each run's own, the first with pairs, else the first by name.
        slice_name: of the test set.

    Raises:
        DataError: a test set, slice or metric that no run has.
    """
    import pandas as pd

    tests = sorted(rows["test"].unique())
    if test is not None and test not in tests:
        raise DataError(f"No run has a test set '{test}'; there are: {', '.join(tests)}.")
    rows = rows.assign(_run=rows.groupby(_RUN, sort=False, dropna=False).ngroup())
    whole = rows[rows["slice"] == "all"]
    whole = whole.assign(_content=pd.Series(contents_of(whole, settings), whole.index, dtype=object))
    judged = _judged(whole, test)
    contents = list(dict.fromkeys(judged["_content"]))
    names = named_apart(contents) if len(contents) > 1 else [""]
    left_out = _left_out(whole, judged, f"no test set '{test}'", ", ".join(name for name in tests if name != test))
    found = []
    for content, name in zip(contents, names, strict=True):
        mine = judged[judged["_content"] == content]
        where = f"'{content.test}'" + (f" of {name}" if name else "")
        there = rows[rows["_run"].isin(mine["_run"]) & (rows["slice"] == slice_name)]
        own = there[there["test"] == content.test]
        left_out += _left_out(mine, own, f"no slice '{slice_name}' of {where}")
        known = own[own[metric].notna()] if metric in own else own.iloc[:0]
        lost = own[~own["_run"].isin(known["_run"])]
        theirs = [other for other in (LOG_LOSS, *METRICS) if other in lost and lost[other].notna().any()]
        left_out += _left_out(own, known, f"no {metric} on {where}", ", ".join(theirs))
        if known.empty:
            continue
        sets = whole[whole["_run"].isin(known["_run"])].groupby("test")["_content"].nunique()
        beside = [other for other, count in sets.items() if count == 1 and other != content.test]
        left_out += [f"'{other}' beside {where}: there it is {n} different sets" for other, n in sets.items() if n > 1]
        found.append(rank(known, there[there["test"].isin(beside)], settings, metric, name))
    if found:
        return found, left_out
    on = f" on '{test}'" if test is not None else ""
    slices = sorted(rows.loc[rows["test"].isin([test] if test else tests), "slice"].unique())
    if slice_name not in slices:
        raise DataError(f"No run has a slice '{slice_name}'{on}; there are: {', '.join(slices)}.")
    raise DataError(f"No run has a value of {metric}{on} ({slice_name}); give metric=… or test=…")


def _judged(whole: pd.DataFrame, test: str | None) -> pd.DataFrame:
    """A row a run: that of the test set it is ranked by."""
    own = whole if test is None else whole[whole["test"] == test]
    paired = own["n_pairs"].fillna(0) > 0 if "n_pairs" in own else False
    own = own.assign(_paired=paired).sort_values(["_paired", "test"], ascending=[False, True], kind="stable")
    return own.drop_duplicates("_run").sort_index()


def _left_out(before: pd.DataFrame, after: pd.DataFrame, why: str, others: str = "") -> list[str]:
    """A line that counts the runs of `before` that are not in `after`; none where there are all."""
    count = len(set(before["_run"]) - set(after["_run"]))
    theirs = f" (there are: {others})" if others else ""
    return [f"{count} run{'s' * (count != 1)}: {why}{theirs}"] if count else []
