"""What pairs are worth, as text: the data multiplier of every line of a curve, with bootstrap intervals."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from guardtrain.curves.bootstrap import PointReplicates, bootstrap_points
from guardtrain.curves.efficiency import Estimate, LineReplicates, area_difference, data_multiplier
from guardtrain.curves.outlook import HEADING, outlook_lines
from guardtrain.curves.results import METRICS
from guardtrain.curves.scores import ScoresFolder
from guardtrain.curves.statistics import Line, lines_of
from guardtrain.curves.summary import WIDTH, whole_slices

if TYPE_CHECKING:
    import pandas as pd

METRIC = "auroc"
REPLICATES = 1000
_SHOWN = 2  # budgets; from the middle of a curve, where both lines still move
_LEAST_BUDGETS = 3
_CONTROLS = {"unpaired": "unpaired control", "real": "more real control"}


@dataclass(frozen=True)
class LineEfficiency:
    """What one line gains over real data alone: area under the curve, and the multiplier at each budget."""

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
        replicates, seeds: of the bootstrap: how many, and seeds of each point.
    """

    head: str
    test: str
    metric: str
    data: str
    budgets: tuple[int, ...]
    lines: tuple[LineEfficiency, ...]
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
    for head in dict.fromkeys(boot.points["head"]):
        baseline = LineReplicates.of(boot, next(line for line in lines if line.control == "none"), head)
        made = []
        for line in lines_of(boot.points[boot.points["head"] == head]):
            if line.control != "none":
                own = LineReplicates.of(boot, line, head)
                at = (int(b) for b in own.budgets)
                multipliers = dict(zip(at, data_multiplier(baseline, own), strict=True))
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
                boot.replicates.shape[1],
                tuple(int(n) for n in mine["n_seeds"]),
            )
        )
    return out


def efficiency_text(
    frame: pd.DataFrame,
    scores: Path,
    replicates: int = REPLICATES,
    boot: PointReplicates | None = None,
    outlook: bool = False,
) -> str:
    """The multiplier of each line against real data alone of the same head, on the first test set that has pairs.

    Args:
        frame: the results of one curve.
        scores: its scores folder.
        replicates: of the bootstrap over seeds and test groups.
        boot: that bootstrap, where it is there already.
        outlook: whether to say below, where real data alone never does as well, what it would need by extrapolation.

    Returns:
        A table, in which several heads stand below each other; "" where there is nothing to compare: see
        `efficiency_test`.
    """
    test = efficiency_test(frame, scores)
    if test is None:
        return ""
    boot = boot or bootstrap_points(frame, scores, test, METRIC, replicates)
    heads = measure_efficiency(frame, boot)
    budgets = sorted({n for head in heads for n in head.budgets})
    middle = budgets[max(0, len(budgets) // 2 - 2) :][:_SHOWN]
    rows = [["", "area gained", *[f"× at n = {budget:,}" for budget in middle]]]
    for head in heads:
        if len(heads) > 1:
            rows.append([head.head, *[""] * (len(middle) + 1)])
        for part in head.lines:
            cells = [part.multipliers[b].text(1) if b in part.multipliers else "–" for b in middle]
            name = part.line.label() if part.line.control == "paired" else f"  {_CONTROLS[part.line.control]}"
            rows.append(["  " * (len(heads) > 1) + name, part.area.text(3), *cells])
    what, whose = (f"{len(heads)} heads", " of the same head") if len(heads) > 1 else (f"{heads[0].head} head", "")
    title = f"Data efficiency, {METRICS[METRIC]} on '{test}' · {what} · against real only{whose}"
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
