"""On how many unsafe and safe images each guard has a verdict, and why not on the others: rows, a table, sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.benchmarks.bounds import SHOWN_FROM
from guardtrain.benchmarks.effectiveness import Evaluated
from guardtrain.benchmarks.outcomes import Outcome
from guardtrain.benchmarks.slices import ALL, Judged
from guardtrain.curves.statistics import number_text
from guardtrain.curves.tables import Cell, Table

if TYPE_CHECKING:
    import pandas as pd

COVERAGE = "coverage"
SIDES = ("unsafe", "safe")
_MEANT = {
    Outcome.UNDECIDED: "its words tell no verdict for certain",
    Outcome.REFUSED: "it or a filter would not say",
    Outcome.NO_ANSWER: "nothing came back",
    Outcome.UNREADABLE: "the image could not be read",
    Outcome.SET_ASIDE: "it was trained on the image, which is none of its test images",
}


def column(outcome: Outcome, side: str) -> str:
    """The `metric` of a row: `no_answer_unsafe`."""
    return f"{outcome.name.lower()}_{side}"


def coverage_rows(evaluated: Evaluated) -> list[tuple[Any, ...]]:
    """Rows of kind `coverage`: how many unsafe and how many safe images met each outcome, of how many (`n_images`).

    Of all images for every guard, of other slices where a guard lacks a verdict there.
    """
    judged, rows = evaluated.judged, []
    outcomes = [one for one in Outcome if one == Outcome.ANSWERED or (judged.outcomes == one).any()]
    for k, guard in enumerate(judged.guards):
        for part, place in evaluated.slices(None, aligned=False):
            mask = evaluated.masks[place]
            whole = part.category == ALL and part.source == ALL
            if not whole and judged.known[k, mask].all():
                continue
            start = (COVERAGE, guard, None, judged.name, ALL, part.category, part.source, part.kind)
            pairs = evaluated.whole_size(place)[2]
            for side, of in zip(SIDES, (mask & judged.labels, mask & ~judged.labels), strict=True):
                total = int(of.sum())
                size = (total, total if side == "unsafe" else 0, pairs)
                for one in outcomes:
                    count = float((judged.outcomes[k, of] == one).sum())
                    rows.append((*start, column(one, side), count, None, None, None, *size, None))
    return rows


def coverage_table(rows: pd.DataFrame, guards: Sequence[str], data: str) -> Table | None:
    """Table what became of the unsafe and of the safe images, a guard a row; None where all have a verdict on all.

    Args:
        rows: of the data set.
        guards: in order.
        data: its name.
    """
    own = rows[(rows["kind"] == COVERAGE) & (rows["category"] == ALL) & (rows["source"] == ALL)]
    found = {(row["guard"], row["metric"]): row for row in own.to_dict("records")}
    there = [one for one in Outcome if any((guard, column(one, SIDES[0])) in found for guard in guards)]
    if len(there) < 2:
        return None
    lines = []
    for guard in guards:
        parts = [found[guard, column(one, side)] for one in there for side in SIDES]
        lines.append((guard, tuple(_count_cell(row["value"], row["n_images"]) for row in parts)))
    unsafe, safe = (int(found[guards[0], column(Outcome.ANSWERED, side)]["n_images"]) for side in SIDES)
    meant = "; ".join(f"{one.word}: {_MEANT[one]}" for one in there if one != Outcome.ANSWERED)
    caption = (
        f"Verdicts on '{data}'. Of {unsafe:,} unsafe and {safe:,} safe images, how many each guard has a verdict on, "
        f"which are those that its figures are of. {meant[0].upper()}{meant[1:]}."
    )
    columns = tuple(f"{one.word}, {side}" for one in there for side in SIDES)
    return Table(caption, f"tab:benchmark-{_label(data)}-verdicts", "", columns, tuple(lines))


def _count_cell(count: float, total: float) -> Cell:
    return Cell(f"{count:,.0f}", f"({100 * count / total:.1f} %)" if count and count < total else "")


def coverage_notes(judged: Judged) -> list[str]:
    """In a sentence each, on how many images of a data set guards have no verdict, and why."""
    alike: dict[str, list[str]] = {}
    for k, guard in enumerate(judged.guards):
        missing = judged.counted[k] & ~judged.known[k]
        if not missing.any():
            continue
        count = int(missing.sum())
        sides = zip(SIDES, (judged.labels, ~judged.labels), strict=True)
        by_label = " and ".join(
            f"{int((missing & side).sum()):,} of {int((judged.counted[k] & side).sum()):,} {name}"
            for name, side in sides
        )
        why = ", ".join(
            f"{number:,} {one.word}" for one in Outcome if (number := int((judged.outcomes[k, missing] == one).sum()))
        )
        if (judged.outcomes[k, missing] == Outcome.UNREADABLE).all():
            what = f"{count:,} image{'s' if count > 1 else ''} of '{judged.name}' could not be read, {by_label}"
        else:
            what = f"no verdict on {by_label} images of '{judged.name}' ({why})"
        shown = count > SHOWN_FROM * judged.counted[k].sum()
        bounds = "; what they could be with those stands below them" if shown else ""
        alike.setdefault(f"{what}: figures are of the others{bounds}.", []).append(guard)
    return [f"{', '.join(guards)}: {what}" for what, guards in alike.items()]


def bounds_shown(row: pd.Series | None) -> bool:
    """Whether so many images of a figure are missing that its bounds stand beside it."""
    if row is None or np.isnan(float(row["lowest"])):
        return False
    missing = float(row["n_missing_unsafe"] + row["n_missing_safe"])
    return missing > SHOWN_FROM * (float(row["n_images"]) + missing)


def bounds_cell(row: pd.Series | None) -> Cell:
    """The bounds of a figure: `.612 to .830`; nothing where few or no images are missing."""
    if row is None or not bounds_shown(row):
        return Cell("")
    return Cell(f"{number_text(float(row['lowest']))} to {number_text(float(row['highest']))}")


def _label(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())
