"""What pairs are worth, as text: the data multiplier of every line of a curve, with bootstrap intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from guardtrain.curves.bootstrap import bootstrap_points
from guardtrain.curves.efficiency import LineReplicates, area_difference, data_multiplier
from guardtrain.curves.results import METRICS
from guardtrain.curves.statistics import lines_of
from guardtrain.curves.summary import whole_slices

if TYPE_CHECKING:
    import pandas as pd

METRIC = "auroc"
REPLICATES = 1000
_SHOWN = 2  # budgets; from the middle of a curve, where both lines still move
_LEAST_BUDGETS = 3
_CONTROLS = {"unpaired": "unpaired control", "real": "more real control"}


def efficiency_text(frame: pd.DataFrame, scores: Path, replicates: int = REPLICATES) -> str:
    """The multiplier of each line against real data alone, on the first test set that has pairs.

    Args:
        frame: the results of one curve.
        scores: its scores folder.
        replicates: of the bootstrap over seeds and test groups.

    Returns:
        A table a head; "" where there is nothing to compare: no test pairs, one seed, fewer than three budgets, or
        real data alone not run.
    """
    whole = whole_slices(frame)
    paired = whole[whole["pair_both_right"].notna()]
    lines = lines_of(whole)
    real = [line for line in lines if line.control == "none"]
    if paired.empty or not real or len(lines) < 2 or whole["seed"].nunique() < 2 or not scores.is_dir():
        return ""
    if whole["budget"].nunique() < _LEAST_BUDGETS:
        return ""
    test = str(paired["test"].iloc[0])
    boot = bootstrap_points(frame, scores, test, METRIC, replicates)
    blocks = []
    for head in dict.fromkeys(boot.points["head"]):
        baseline = LineReplicates.of(boot, real[0], head)
        budgets = [int(b) for b in baseline.budgets]
        middle = budgets[max(0, len(budgets) // 2 - 2) :][:_SHOWN]
        rows = [["", "area gained", *[f"× at n = {budget:,}" for budget in middle]]]
        for line in lines:
            if line.control == "none":
                continue
            own = LineReplicates.of(boot, line, head)
            multipliers = dict(zip((int(b) for b in own.budgets), data_multiplier(baseline, own), strict=True))
            cells = [multipliers[b].text(1) if b in multipliers else "–" for b in middle]
            name = line.label() if line.control == "paired" else f"  {_CONTROLS[line.control]}"
            rows.append([name, area_difference(own, baseline).text(3), *cells])
        blocks.append(_table(f"Data efficiency, {METRICS[METRIC]} on '{test}' · {head} head · against real only", rows))
    note = (
        "  ×: how many times as many real images do as well ('≥': more than were tried). Area: mean gain over\n"
        "  log2 n. Brackets: 95 % bootstrap intervals over seeds and test groups."
    )
    return "\n\n".join([*blocks, note]) + "\n"


def _table(title: str, rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  " + row[0].ljust(widths[0]) + "".join(cell.rjust(w + 3) for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    rule = "  " + "─" * (sum(widths) + 3 * (len(widths) - 1))
    return "\n".join([title, lines[0], rule, *lines[1:]])
