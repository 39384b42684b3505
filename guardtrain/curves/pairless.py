"""Heads that are made of pairs, in runs that have none: what they are there, said wherever such runs are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardtrain.curves.results import CONTROL_NAMES

if TYPE_CHECKING:
    import pandas as pd

# What a head is in a run without a complete pair, by their names in the results table. Text heads without texts are
# refused, and what a loss makes of pairs is nothing there: both keep to their names.
WITHOUT_PAIRS = {"pair_direction": "gda"}


def without_pairs(whole: pd.DataFrame) -> pd.Series:
    """(N,) bool: the rows of runs that have no complete pair.

    Args:
        whole: a results table's slices `all`.
    """
    return ~whole["control"].isin(["paired", "shuffled"]) | (whole["n_pair_images"] < 2)


def pairless_lines(whole: pd.DataFrame) -> list[str]:
    """A sentence for each head that is another one in some of its runs.

    Args:
        whole: a results table's slices `all`.
    """
    lines = []
    for head, other in WITHOUT_PAIRS.items():
        own = whole[whole["head"] == head]
        lacking = own[without_pairs(own)]
        if lacking.empty:
            continue
        if len(lacking) == len(own):
            lines.append(
                f"{head} is made of pairs, and there is none here: this is {other}. Take head={other}, or give it "
                "pairs (mixture.ratio or grid.ratios above 0, control paired)."
            )
            continue
        which = {"none": "real data alone"} | {control: f"the {name}" for control, name in CONTROL_NAMES.items()}
        named = [name for control, name in which.items() if (lacking["control"] == control).any()]
        rest = f" ({', '.join(named)})" if named else ""
        lines.append(
            f"{head} is made of pairs: runs without one{rest} are {other} under its name. What it is better by than "
            f"these holds the change of head; the same curve with head={other} shows how much that is."
        )
    return lines
