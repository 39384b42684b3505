"""What a curve shows, in sentences: only what its intervals allow to say, and always beside its control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from guardtrain.curves.bootstrap import PointReplicates
from guardtrain.curves.comparisons import BEST, Comparison, comparisons
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
    whole_slices,
)
from guardtrain.curves.summary import check_panels

if TYPE_CHECKING:
    import pandas as pd

_LEAST_SAVING = 0.05  # an end of a multiplier's interval that is printed as 1.0 is 1
_NAMES = {"brier": "Brier score", "ece": "Calibration error"}


@dataclass(frozen=True)
class Finding:
    """One thing the curve shows: what it is about, and the sentences."""

    subject: str
    sentences: tuple[str, ...]


def findings(
    frame: pd.DataFrame,
    panels: Sequence[tuple[str, str]] | None = None,
    boots: Mapping[tuple[str, str], PointReplicates] | None = None,
    in_domain: str | None = None,
    multiplied: Sequence[PointReplicates] = (),
    compared: Sequence[Comparison] | None = None,
) -> list[Finding]:
    """Say what may be said of a curve: a finding a head and panel, then the data multiplier, then the shortcut.

    What real data alone would need where it was never measured to do as well stands apart, under its own heading. A
    sentence claims a difference only where its interval leaves out none; everything else is "no difference shown".

    Args:
        frame, panels, boots: as for `comparisons`.
        in_domain: the test set that shares the training images' contexts, see `guardtrain.curves.shortcut.shortcuts`.
        multiplied: bootstraps whose data multiplier is told.
        compared: the `comparisons` of these panels, from who has them; None makes them.
    """
    whole = whole_slices(frame)
    chosen = check_panels(whole, panels if panels is not None else default_panels(whole))
    compared = comparisons(whole, chosen, boots) if compared is None else compared
    several = len({c.head for c in compared}) > 1
    out = []
    for head, test, metric in dict.fromkeys((c.head, c.test, c.metric) for c in compared):
        own = [c for c in compared if (c.head, c.test, c.metric) == (head, test, metric)]
        subject = f"{_NAMES.get(metric, METRICS[metric])} on '{test}'" + (f", {head} head" if several else "")
        sentences = []
        whose = " with the same head" if several else ""
        names = {BEST: "the best real-only head", "none": f"real data alone{whose}"}
        for kind, name in (names | {kind: f"their {name}" for kind, name in CONTROL_NAMES.items()}).items():
            sentences += _against([c for c in own if c.kind == kind], name)
        if not any(c.kind in CONTROL_NAMES for c in own):
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
    out += [Finding("Heads that are made of pairs", (line,)) for line in pairless_lines(whole)]
    return out + _shortcut(whole, in_domain, several, boots)


def _against(compared: Sequence[Comparison], what: str) -> list[str]:
    """Better, worse, and not shown, a sentence each, along the whole curve."""
    sentences = []
    for better, word in ((True, "Better than"), (False, "Worse than")):
        if part := [(c, places) for c in compared if (places := c.shown(better))]:
            listed = "; ".join(f"{c.line.label()} {c.where(places)} (most: {c.most(places)})" for c, places in part)
            sentences.append(f"{word} {what}: {listed}.")
    if none := [c for c in compared if not c.shown(True) and not c.shown(False)]:
        listed = "; ".join(f"{c.line.label()} ({c.missed() or 'no interval'})" for c in none)
        sentences.append(f"No difference from {what} shown: {listed}.")
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
    """Say what the interval allows to say of a multiplier."""
    told = estimate.text(1)
    if np.isnan(estimate.low) or estimate.undefined > 0.05:
        return f"no multiplier against {what} could be computed"
    if estimate.low > 1 + _LEAST_SAVING:
        return f"{used:,.0f} images do the work of {told} times as many {what}"
    if estimate.high < 1 - _LEAST_SAVING:
        return f"{used:,.0f} images do the work of only {told} times as many {what}"
    return f"against {what} no saving is shown ({told})"


def _shortcut(
    whole: pd.DataFrame,
    in_domain: str | None,
    several: bool,
    boots: Mapping[tuple[str, str], PointReplicates] | None,
) -> list[Finding]:
    """How real data alone does where contexts are shared, and on pairs."""
    out = []
    for found in shortcuts(whole, in_domain, boots):
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


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
