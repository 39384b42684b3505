"""What a curve shows, in sentences: only what its intervals allow to say, and always beside its control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.curves.bootstrap import PointReplicates, bootstrap_difference
from guardtrain.curves.efficiency import Estimate, LineReplicates, data_multiplier, rises
from guardtrain.curves.outlook import HEADING, outlook_lines
from guardtrain.curves.pairless import pairless_lines
from guardtrain.curves.results import CONTROL_NAMES, METRICS
from guardtrain.curves.shortcut import shortcuts
from guardtrain.curves.statistics import (
    Line,
    default_panels,
    lines_of,
    number_text,
    paired_difference,
)
from guardtrain.curves.summary import check_panels, whole_slices

if TYPE_CHECKING:
    import pandas as pd

LOWER_IS_BETTER = ("brier", "ece")
_LEAST = 5e-4  # an end of an interval that is printed as zero is zero
_LEAST_SAVING = 0.05  # an end of a multiplier's interval that is printed as 1.0 is 1
_NAMES = {"brier": "Brier score", "ece": "Calibration error"}


@dataclass(frozen=True)
class Comparison:
    """One line minus another at their largest common budget, with a 95 % interval.

    Args:
        head, test, metric, budget: where.
        line, other: what is compared.
        difference, low, high: of the metric; the ends are NaN where one seed leaves no interval.
    """

    head: str
    test: str
    metric: str
    budget: int
    line: Line
    other: Line
    difference: float
    low: float
    high: float

    @property
    def better(self) -> bool | None:
        """Whether the line is better; None where the interval, as it is printed, holds zero."""
        if not (self.low > _LEAST or self.high < -_LEAST):
            return None
        return (self.difference > 0) != (self.metric in LOWER_IS_BETTER)

    def text(self) -> str:
        """The difference and its interval: "+.101 [+.093, +.109]"."""
        if np.isnan(self.low):
            return f"{_signed(self.difference)} (no interval)"
        return f"{_signed(self.difference)} [{_signed(self.low)}, {_signed(self.high)}]"


@dataclass(frozen=True)
class Finding:
    """One thing the curve shows: what it is about, and the sentences."""

    subject: str
    sentences: tuple[str, ...]


def comparisons(
    frame: pd.DataFrame,
    panels: Sequence[tuple[str, str]] | None = None,
    boots: Mapping[tuple[str, str], PointReplicates] | None = None,
) -> list[Comparison]:
    """Pairs against real data alone and against each of their controls, on every panel.

    Args:
        frame: a results table.
        panels: (test set, metric) pairs; None for `guardtrain.curves.statistics.default_panels`.
        boots: bootstraps by (test, metric): then intervals are over seeds and test groups. Without one they are
            Student's t over seeds, matched by seed.

    Raises:
        DataError: an empty table, or a test set or metric that is unknown.
    """
    whole = whole_slices(frame)
    chosen = check_panels(whole, panels if panels is not None else default_panels(whole))
    out = []
    for head in dict.fromkeys(whole["head"]):
        for test, metric in chosen:
            rows = whole[(whole["head"] == head) & (whole["test"] == test) & whole[metric].notna()]
            lines = lines_of(rows) if len(rows) else []
            for line in (line for line in lines if line.control == "paired"):
                for other in lines:
                    control = other.control in CONTROL_NAMES and (other.arm, other.ratio) == (line.arm, line.ratio)
                    if control or other.control == "none":
                        boot = (boots or {}).get((test, metric))
                        found = _compared(rows, str(head), test, metric, line, other, boot)
                        out += [] if found is None else [found]
    return out


def findings(
    frame: pd.DataFrame,
    panels: Sequence[tuple[str, str]] | None = None,
    boots: Mapping[tuple[str, str], PointReplicates] | None = None,
    in_domain: str | None = None,
    multiplied: Sequence[PointReplicates] = (),
) -> list[Finding]:
    """What may be said of a curve: a finding a head and panel, then the data multiplier, then the shortcut.

    What real data alone would need where it was never measured to do as well stands apart, under its own heading. A
    sentence claims a difference only where its interval leaves out none; everything else is "no difference shown".

    Args:
        frame, panels, boots: as for `comparisons`.
        in_domain: the test set that shares the training images' contexts, see `guardtrain.curves.shortcut.shortcuts`.
        multiplied: bootstraps whose data multiplier is told.
    """
    compared = comparisons(frame, panels, boots)
    several = len({c.head for c in compared}) > 1
    out = []
    for head, test, metric in dict.fromkeys((c.head, c.test, c.metric) for c in compared):
        own = [c for c in compared if (c.head, c.test, c.metric) == (head, test, metric)]
        subject = f"{_NAMES.get(metric, METRICS[metric])} on '{test}'" + (f", {head} head" if several else "")
        sentences = _against([c for c in own if c.other.control == "none"], "real data alone")
        for control, name in CONTROL_NAMES.items():
            if part := [c for c in own if c.other.control == control]:
                sentences += _against(part, f"their {name}")
        if not any(c.other.control in CONTROL_NAMES for c in own):
            sentences.append(
                "No control was run: how much of this is the pairing, and how much more data of this domain, is "
                "not shown."
            )
        out.append(Finding(subject, tuple(sentences)))
    for boot in multiplied:
        out += _multiplied(boot, several)
        if told := outlook_lines(boot):
            subject = f"{HEADING}: {_NAMES.get(boot.metric, METRICS[boot.metric])} on '{boot.test}'"
            out.append(Finding(subject, tuple(told)))
    whole = whole_slices(frame)
    out += [Finding("Heads that are made of pairs", (line,)) for line in pairless_lines(whole)]
    return out + _shortcut(whole, in_domain, several)


def _compared(
    rows: pd.DataFrame, head: str, test: str, metric: str, line: Line, other: Line, boot: PointReplicates | None
) -> Comparison | None:
    a, b = _selection(line), _selection(other)
    if boot is not None:
        points = bootstrap_difference(boot, a, b)
        points = points[points["head"] == head]
    else:
        points = paired_difference(rows, metric, a, b)
    if points.empty:
        return None
    last = points.sort_values("budget").iloc[-1]
    low, high = float(last["low"]), float(last["high"])
    if rows["seed"].nunique() < 2:  # with one seed the bootstrap holds the test images' spread alone
        low = high = float("nan")
    return Comparison(head, test, metric, int(last["budget"]), line, other, float(last["difference"]), low, high)


def _selection(line: Line) -> dict[str, Any]:
    if line.control == "none":  # the same in both arms
        return {"control": "none"}
    return {"arm": line.arm, "control": line.control, "ratio": float(line.ratio or 0)}


def _against(compared: Sequence[Comparison], what: str) -> list[str]:
    """Better, worse, and not shown, a sentence each."""
    if not compared:
        return []
    budgets = {c.budget for c in compared}
    at = f" at n = {budgets.pop():,}" if len(budgets) == 1 else " at the largest common n"
    sentences = []
    for better, word in ((True, "Better than"), (False, "Worse than")):
        if part := [c for c in compared if c.better is better]:
            listed = "; ".join(f"{c.line.label()} {c.text()}" for c in part)
            sentences.append(f"{word} {what}{at}: {listed}.")
    if part := [c for c in compared if c.better is None]:
        listed = "; ".join(f"{c.line.label()} {c.text()}" for c in part)
        sentences.append(f"No difference from {what} shown{at}: {listed}.")
    return sentences


def _multiplied(boot: PointReplicates, several: bool) -> list[Finding]:
    """The multiplier in the middle of the curve, against real data alone and against the unpaired control."""
    lines = lines_of(boot.points)
    real = next((line for line in lines if line.control == "none"), None)
    if real is None or boot.points["budget"].nunique() < 3 or boot.points["n_seeds"].max() < 2:
        return []
    out = []
    for head in dict.fromkeys(boot.points["head"]):
        baseline = LineReplicates.of(boot, real, head)
        n = baseline.budgets[(len(baseline.budgets) - 1) // 2]
        sentences = []
        if not rises(baseline):
            sentences.append(
                f"None is told: from n = {int(baseline.budgets[0]):,} to {int(baseline.budgets[-1]):,} real data alone "
                f"gets no better by more than chance ({number_text(baseline.mean[0])} to "
                f"{number_text(baseline.mean[-1])})."
            )
        for line in [] if sentences else [line for line in lines if line.control == "paired"]:
            own = LineReplicates.of(boot, line, head)
            if n not in own.budgets:
                continue
            at = int(np.flatnonzero(own.budgets == n)[0])
            used = own.n_images[at]
            sentences.append(
                f"{_upper(line.label())}: {_times(data_multiplier(baseline, own)[at], used, 'real images')}."
            )
            for control, name in (
                ("unpaired", "unpaired images"),
                ("balanced", "real images as balanced"),
                ("real", "images of more real data"),
            ):
                other = Line(line.arm, control, line.ratio)
                if other in lines:
                    against = data_multiplier(LineReplicates.of(boot, other, head), own)[at]
                    sentences[-1] = sentences[-1][:-1] + f"; {_times(against, used, name)}."
        if sentences:
            subject = (
                f"Data multiplier at n = {int(n):,}, {_NAMES.get(boot.metric, METRICS[boot.metric])} on '{boot.test}'"
            )
            out.append(Finding(subject + (f", {head} head" if several else ""), tuple(sentences)))
    return out


def _times(estimate: Estimate, used: float, what: str) -> str:
    """What the interval allows to say of a multiplier."""
    told = estimate.text(1)
    if np.isnan(estimate.low) or estimate.undefined > 0.05:
        return f"no multiplier against {what} could be computed"
    if estimate.low > 1 + _LEAST_SAVING:
        return f"{used:,.0f} images do the work of {told} times as many {what}"
    if estimate.high < 1 - _LEAST_SAVING:
        return f"{used:,.0f} images do the work of only {told} times as many {what}"
    return f"against {what} no saving is shown ({told})"


def _shortcut(whole: pd.DataFrame, in_domain: str | None, several: bool) -> list[Finding]:
    """How real data alone does where contexts are shared, and on pairs."""
    out = []
    for found in shortcuts(whole, in_domain):
        sentence = (
            f"Real data alone at n = {found.budget:,} has AUROC {_mean(found.auroc)} on '{found.in_domain}', and gets "
            f"both sides right of {_mean(found.right)} of the pairs of '{found.test}'."
        )
        told = (sentence, found.doubt()) if found.guessed else (sentence,)
        out.append(Finding("Shortcut check" + (f", {found.head} head" if several else ""), told))
    return out


def _mean(point: pd.Series) -> str:
    half = float(point["half_width"])
    return number_text(float(point["mean"])) + (f" ± {number_text(half)}" if np.isfinite(half) else "")


def _signed(value: float) -> str:
    return ("−" if value < 0 else "+") + number_text(abs(value))


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
