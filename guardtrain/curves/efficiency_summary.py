"""What pairs are worth, as text: the data multiplier of every line of a curve, with bootstrap intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from guardtrain.curves.bootstrap import PointReplicates, bootstrap_points
from guardtrain.curves.efficiency import Estimate, LineReplicates, area_difference, data_multiplier, rises
from guardtrain.curves.outlook import HEADING, outlook_lines
from guardtrain.curves.resampled import REPLICATES
from guardtrain.curves.results import CONTROL_NAMES, METRICS
from guardtrain.curves.scores import ScoresFolder
from guardtrain.curves.statistics import Line, lines_of, number_text, whole_slices
from guardtrain.curves.summary import WIDTH

if TYPE_CHECKING:
    import pandas as pd

METRICS_TOLD = ("auroc", "pair_both_right", "accuracy")  # the first by which more real images make a head better
_SHOWN = 2  # budgets; from the middle of a curve, where both lines still move
_LEAST_BUDGETS = 3


@dataclass(frozen=True)
class LineEfficiency:
    """The gain of one line over real data alone: area under the curve, and the multiplier at each budget."""

    line: Line
    area: Estimate
    multipliers: dict[int, Estimate]


@dataclass(frozen=True)
class HeadEfficiency:
    """The efficiency of every line of one head, by one metric on one test set, in reading order.

    Args:
        head, test, metric, data: what was measured.
        budgets: of real data alone.
        lines: all but real data alone.
        rises: whether more real images make the head better by more than chance; else there are no multipliers.
        real: real data alone at the first and at the last budget, as text.
        replicates, seeds: of the bootstrap: how many, and seeds of each point.
    """

    head: str
    test: str
    metric: str
    data: str
    budgets: tuple[int, ...]
    lines: tuple[LineEfficiency, ...]
    rises: bool
    real: tuple[str, str]
    replicates: int
    seeds: tuple[int, ...]


def efficiency_test(frame: pd.DataFrame, scores: Path) -> str | None:
    """The test set whose efficiency is told: the first that has pairs and scores.

    None where there is nothing to compare: no test pairs, one seed, fewer than three budgets, real data alone not run,
    or no scores.
    """
    whole = whole_slices(frame)
    paired = whole[whole["pair_both_right"].notna()]
    lines = lines_of(whole)
    real = [line for line in lines if line.control == "none"]
    if paired.empty or not real or len(lines) < 2 or whole["seed"].nunique() < 2 or not scores.is_dir():
        return None
    if whole["budget"].nunique() < _LEAST_BUDGETS:
        return None
    kept = set(ScoresFolder(scores).tests())
    return next((str(test) for test in dict.fromkeys(paired["test"]) if test in kept), None)


def measure_efficiency(frame: pd.DataFrame, boot: PointReplicates) -> list[HeadEfficiency]:
    """Area and multiplier of every line against real data alone, head by head.

    Args:
        frame: the results of one curve.
        boot: its bootstrap on one test set.

    Raises:
        DataError: no real data alone.
    """
    lines = lines_of(boot.points)
    out = []
    for head in boot.heads:
        baseline = LineReplicates.of(boot, next(line for line in lines if line.control == "none"), head)
        made, room = [], rises(baseline)
        for line in boot.lines(head):
            if line.control != "none":
                own = LineReplicates.of(boot, line, head)
                at = (int(b) for b in own.budgets)
                multipliers = dict(zip(at, data_multiplier(baseline, own), strict=True)) if room else {}
                made.append(LineEfficiency(line, area_difference(own, baseline), multipliers))
        mine = boot.points[boot.points["head"] == head]
        out.append(
            HeadEfficiency(
                str(head),
                boot.test,
                boot.metric,
                str(frame["data"].iloc[0]),
                tuple(int(b) for b in baseline.budgets),
                tuple(made),
                room,
                (number_text(baseline.mean[0]), number_text(baseline.mean[-1])),
                boot.replicates.shape[1],
                tuple(int(n) for n in mine["n_seeds"]),
            )
        )
    return out


def efficiency_text(
    frame: pd.DataFrame,
    scores: Path,
    replicates: int = REPLICATES,
    boots: Callable[[str], PointReplicates] | None = None,
    outlook: bool = False,
) -> str:
    """The multiplier of each line against real data alone of the same head, on the first test set that has pairs.

    It is told by the first metric of `METRICS_TOLD` by which more real images make a head better by more than chance.

    Args:
        frame: the results of one curve.
        scores: its scores folder.
        replicates: of the bootstrap over seeds and test groups.
        boots: gives that bootstrap by a metric; None makes it here.
        outlook: whether to say below, where real data alone never does as well, what it would need by extrapolation.

    Returns:
        A table, in which several heads stand below each other; "" where there is nothing to compare: see
        `efficiency_test`.
    """
    test = efficiency_test(frame, scores)
    if test is None:
        return ""
    for metric in METRICS_TOLD:
        boot = boots(metric) if boots else bootstrap_points(frame, scores, test, metric, replicates)
        heads = measure_efficiency(frame, boot)
        if any(head.rises for head in heads):
            break
    else:
        return _no_room(heads)
    budgets = sorted({n for head in heads for n in head.budgets})
    middle = budgets[max(0, len(budgets) // 2 - 2) :][:_SHOWN]
    rows = [["", "area gained", *[f"× at n = {budget:,}" for budget in middle]]]
    for head in heads:
        if len(heads) > 1:
            rows.append([head.head, *[""] * (len(middle) + 1)])
        for part in head.lines:
            if len(heads) > 1 and part.line.control != "paired":
                continue  # of several heads nobody would read the controls, which the decomposition tells anyway
            cells = [part.multipliers[b].text(1) if b in part.multipliers else "–" for b in middle]
            name = part.line.label() if part.line.control == "paired" else f"  {CONTROL_NAMES[part.line.control]}"
            rows.append(["  " * (len(heads) > 1) + name, part.area.text(3), *cells])
    what, whose = (f"{len(heads)} heads", " of the same head") if len(heads) > 1 else (f"{heads[0].head} head", "")
    title = f"Data efficiency, {METRICS[metric]} on '{test}' · {what} · against real only{whose}"
    blocks = [_table(title, rows)]
    ragged = any(set(part.multipliers) != set(head.budgets) for head in heads for part in head.lines)
    shared = ", of the budgets that both have" if ragged else ""
    note = (
        "  ×: how many times as many real images do as well ('≥': more than were tried). Area: mean gain over\n"
        f"  log2 n{shared}. Brackets: 95 % bootstrap intervals over seeds and test groups."
    )
    told = outlook_lines(boot) if outlook else []
    if told:
        folded = [textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ") for line in told]
        note += "\n\n" + "\n".join([HEADING, *folded])
    return "\n\n".join([*blocks, note]) + "\n"


def _no_room(heads: Sequence[HeadEfficiency]) -> str:
    """Why no multiplier is told."""
    one = heads[0]
    tried = ", ".join(METRICS[metric] for metric in METRICS_TOLD)
    told = ", ".join(f"{head.head} {head.real[0]} to {head.real[1]}" for head in heads)
    text = (
        f"No data multiplier on '{one.test}': from n = {one.budgets[0]:,} to {one.budgets[-1]:,} real data alone gets "
        f"better by no more than chance ({METRICS[one.metric]}: {told}), so that there is no number of real images to "
        f"compare pairs with. Tried: {tried}."
    )
    return textwrap.fill(text, WIDTH, subsequent_indent="  ") + "\n"


def _table(title: str, rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  "
        + row[0].ljust(widths[0])
        + "".join(cell.rjust(w + 3) for cell, w in zip(row[1:], widths[1:], strict=True)).rstrip()
        for row in rows
    ]
    lines = [line.rstrip() for line in lines]
    rule = "  " + "─" * (sum(widths) + 3 * (len(widths) - 1))
    return "\n".join([title, lines[0], rule, *lines[1:]])
