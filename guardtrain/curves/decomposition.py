"""Where the gain of pairs over real data alone comes from: re-balancing, domain, pairing, and beside them the loss.

Each control changes one thing more than the one before it, so the differences from one to the next add up to the gain.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from guardtrain.curves.bootstrap import PointReplicates, bootstrap_points, seed_replicates
from guardtrain.curves.comparisons import LEAST, signed
from guardtrain.curves.families import Family, family
from guardtrain.curves.results import METRICS
from guardtrain.curves.statistics import CONFIDENCE, Line, number_text
from guardtrain.errors import DataError
from guardtrain.training.recipe import PAIR_AWARE

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.report import KeptConfig
    from guardtrain.training.settings import LossSettings

GAIN, LOSS = "in all", "loss"
PLAIN = "bce"
STEPS = {
    "balanced": "re-balancing",
    "unpaired": "domain",
    "shuffled": "both halves",
    "paired": "partners",
}
"""The part that each control adds to the one before it, in order; before the first stands real data alone."""

MEANS = {
    "re-balancing": "real images, of which as many are unsafe as in the mixture",
    "domain": "images of the pairs' kind instead of real ones, no two of one pair",
    "both halves": "half as many scenes, each safe and unsafe, but partners drawn at random",
    "partners": "each image beside its own partner",
    LOSS: "the pairs with their loss, less the same pairs with plain cross-entropy (bce)",
}
_WITH_ALL = "grid.controls=[paired,shuffled,unpaired,balanced]"
WIDTH = 100


@dataclass(frozen=True)
class Part:
    """One part of a mixture's gain at K budgets, and on average over log2 n.

    Args:
        name: of `STEPS`, several joined with " + " where a control between them was not run; `LOSS`; or `GAIN`.
        budgets: (K,) ascending.
        along: (K,) its intervals hold for all parts, ratios and budgets of a head at once.
        at: where the part stands among the differences of `along`.
        average, half, detectable: over the budgets; the interval holds for all parts and ratios of a head at once, and
            so does the smallest true average that it would show in 80 of 100 curves.
    """

    name: str
    budgets: tuple[int, ...]
    along: Family
    at: slice
    average: float
    half: float
    detectable: float

    @property
    def difference(self) -> np.ndarray:
        """(K,) of the metric."""
        return self.along.difference[self.at]

    @property
    def width(self) -> np.ndarray:
        """(K,) half widths of the intervals that hold at once."""
        return self.along.together[self.at]

    def text(self) -> str:
        """The average and what its interval allows to say: "+.040 [+.020, +.060]"."""
        if np.isnan(self.half):
            return f"{signed(self.average)} (no interval)"
        low, high = self.average - self.half, self.average + self.half
        told = f"{signed(self.average)} [{signed(low)}, {signed(high)}]"
        return told if low > LEAST or high < -LEAST else f"{told} not shown (≥ {number_text(self.detectable)} would be)"


@dataclass(frozen=True)
class Decomposition:
    """The gain of one mixture over real data alone of the same head, and its parts.

    Args:
        head, test, metric: where.
        line: pairs at some ratio.
        gain: the whole; the parts add up to it, but for the loss.
        parts: in the order of `STEPS`, then the loss where it was measured.
        missing: controls of `STEPS` that were not run.
        needless: those that were not run because they would have changed nothing.
    """

    head: str
    test: str
    metric: str
    line: Line
    gain: Part
    parts: tuple[Part, ...]
    missing: tuple[str, ...]
    needless: tuple[str, ...] = ()


def decompositions(
    boot: PointReplicates, plain: PointReplicates | None = None, needless: Mapping[str, Collection[str]] | None = None
) -> list[Decomposition]:
    """Every mixture of every head taken apart.

    Args:
        boot: of a curve on one test set, see `guardtrain.curves.bootstrap.bootstrap_points`, or
            `guardtrain.curves.bootstrap.seed_replicates` where there are no scores.
        plain: the same of runs under plain cross-entropy, of the same seeds and test images; None where there are none.
        needless: by head the controls that were not run because they would have changed nothing.

    Returns:
        Head by head in the order of the table, ratios in reading order; none where no mixture has a control of `STEPS`.
    """
    out: list[Decomposition] = []
    for head in boot.heads:
        lines = boot.lines(head)
        asked = [(line, chain) for line in lines if line.control == "paired" if len(chain := _chain(line, lines)) > 2]
        if asked and lines[0].control == "none":
            out += _taken_apart(boot, plain, head, asked, (needless or {}).get(head, ()))
    return out


def decomposition_text(found: Sequence[Decomposition]) -> str:
    """The parts, a line each, in words for who knows no statistics; "" where there are none."""
    if not found:
        return ""
    several = len({one.head for one in found}) > 1
    first = found[0]
    budgets = first.gain.budgets
    span = f"average over n = {budgets[0]:,} to {budgets[-1]:,}" if len(budgets) > 1 else f"at n = {budgets[0]:,}"
    what = f"{len({one.head for one in found})} heads" if several else f"{first.head} head"
    title = f"Where the gain comes from, {METRICS[first.metric]} on '{first.test}' · {what} · {span}"
    out = [textwrap.fill(title, WIDTH, subsequent_indent="  ")]
    names = [part.name for one in found for part in (one.gain, *one.parts)]
    stub = max(map(len, names))
    for one in found:
        whose = f"{one.head}: " if several else ""
        out.append(f"  {whose}{one.line.label()} over real only, {GAIN}: {one.gain.text()}")
        out += [f"    {part.name.ljust(stub)}  {part.text()}" for part in one.parts]
    there = [name for name in MEANS if any(name in part.name.split(" + ") for one in found for part in one.parts)]
    for name in there:
        text = f"{name}: {MEANS[name]}"
        out.append(textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    "))
    return "\n".join(out)


def loss_name(loss: LossSettings) -> str:
    """`bce` for plain cross-entropy, `pairs` for one that knows of pairs."""
    unsettled = loss.pairs.gradient is None  # the head says, and some have it
    return "pairs" if loss.pairs.active or unsettled else PLAIN


def _chain(line: Line, lines: Sequence[Line]) -> list[Line]:
    """Real data alone, then the controls of a mixture that were run, then its pairs: each adds one thing."""
    own = [Line(line.arm, control, line.ratio) for control in STEPS]
    return [other for other in lines if other.control == "none"][:1] + [other for other in own if other in lines]


def _taken_apart(
    boot: PointReplicates,
    plain: PointReplicates | None,
    head: str,
    asked: Sequence[tuple[Line, list[Line]]],
    needless: Collection[str],
) -> list[Decomposition]:
    """The mixtures of one head; what is asked of all of them is one family along the curve, and one on average."""
    steps = [control for control in STEPS if control not in needless]
    # pairs are as good as shuffled where nobody looks at partners: what they add is both halves
    names = STEPS | ({"paired": STEPS["shuffled"]} if "shuffled" in needless else {})
    sides: list[tuple[Line, str, list[int], np.ndarray]] = []
    for line, chain in asked:
        rows = [boot.rows(head, other) for other in chain]
        budgets = sorted(set(rows[0]).intersection(*rows[1:]))
        if not budgets:
            continue
        values = [boot.by_seed[[own[n] for n in budgets]] for own in rows]  # each (K, S, 1 + B)
        sides.append((line, GAIN, budgets, values[-1] - values[0]))
        ran = [other.control for other in chain]
        for k in range(1, len(chain)):
            first = steps.index(ran[k - 1]) + 1 if ran[k - 1] in steps else 0
            between = steps[first : steps.index(ran[k]) + 1]
            sides.append((line, " + ".join(names[control] for control in between), budgets, values[k] - values[k - 1]))
        knows = head.endswith(PAIR_AWARE)
        if knows and plain is not None and plain.by_seed.shape[1:] == boot.by_seed.shape[1:]:
            bare = plain.rows(head.removesuffix(PAIR_AWARE), line)
            if common := [n for n in budgets if n in bare]:
                change = values[-1][[budgets.index(n) for n in common]] - plain.by_seed[[bare[n] for n in common]]
                sides.append((line, LOSS, common, change))
    if not sides:
        return []
    along = family(np.concatenate([values for *_, values in sides]), CONFIDENCE)
    means = family(np.stack([_averaged(budgets, values) for _, _, budgets, values in sides]), CONFIDENCE)
    parts: dict[Line, list[Part]] = {}
    start = 0
    for k, (line, name, budgets, _) in enumerate(sides):
        at = slice(start, start := start + len(budgets))
        told = float(means.difference[k]), float(means.together[k]), float(means.detectable[k])
        parts.setdefault(line, []).append(Part(name, tuple(budgets), along, at, *told))
    missing = {line: tuple(c for c in steps if c not in [other.control for other in chain]) for line, chain in asked}
    return [
        Decomposition(head, boot.test, boot.metric, line, gain, tuple(rest), missing[line], tuple(needless))
        for line, (gain, *rest) in parts.items()
    ]


def _averaged(budgets: Sequence[int], values: np.ndarray) -> np.ndarray:
    """(S, 1 + B) mean over log2 n of (K, S, 1 + B), by the trapezoid rule."""
    if len(budgets) == 1:
        return np.asarray(values[0])
    steps = np.log2(np.asarray(budgets, dtype=np.float64))
    weights = np.zeros(len(steps))
    weights[1:] += np.diff(steps) / 2
    weights[:-1] += np.diff(steps) / 2
    return np.asarray(np.tensordot(weights / weights.sum(), values, axes=1))


def check_decomposed(found: Sequence[Decomposition]) -> None:
    """Raises DataError where nothing was taken apart: no controls were run."""
    if not found:
        raise DataError(
            "There is nothing to take a gain apart with: the results have real data alone and pairs, and none of their "
            f"controls {', '.join(list(STEPS)[:-1])}. Run the curve again with {_WITH_ALL}."
        )


def missing_lines(found: Sequence[Decomposition], kept: KeptConfig | None, folder: Path) -> list[str]:
    """Say what was not measured, and the command that adds it to the folder.

    Args:
        kept: of the command that made the results; None where it is not known.
    """
    typed = () if kept is None else kept.overrides
    out = []
    if heads := list(dict.fromkeys(one.head for one in found if "shuffled" in one.needless)):
        out.append(f"  {STEPS['paired']}: none for {' and '.join(heads)}, whose training looks at no image's partner")
    if any("balanced" in one.needless for one in found):
        out.append(f"  {STEPS['balanced']}: none, for these pairs leave the share of unsafe images as it is")
    if absent := [control for control in STEPS if any(control in one.missing for one in found)]:
        names = ", ".join(STEPS[control] for control in absent)
        command = _command([*_without(typed, "grid.controls"), _WITH_ALL, f"out={folder}"])
        out += [f"  Not told apart: {names}, for no such control was run. This adds it:", f"    {command}"]
    told = any(part.name == LOSS for one in found for part in one.parts)
    if not told and any(one.head.endswith(PAIR_AWARE) for one in found):  # the others have no other loss to try
        rest = _without(typed, "loss", "grid.controls", "plot.figures")
        plain = _command([*rest, f"loss={PLAIN}", "grid.controls=[paired]", "plot.figures=[]", f"out={folder}"])
        again = _command([*typed, f"out={folder}"])
        out += ["  Not measured: the loss. These two commands add it:", f"    {plain}", f"    {again}"]
    return out


def needless_controls(boot: PointReplicates, kept: KeptConfig | None) -> dict[str, tuple[str, ...]]:
    """By head the controls that the command named and the curve left out, for they would have changed nothing.

    `balanced` where no mixture changes the share of unsafe images, `shuffled` where training looks at no partner.
    """
    if kept is None:
        return {}
    import yaml

    grid = (yaml.safe_load(kept.yaml) or {}).get("grid") or {}
    asked = [control for control in ("balanced", "shuffled") if control in (grid.get("controls") or ())]
    ran = boot.points.groupby("head")["control"].agg(set).to_dict()
    return {str(head): tuple(c for c in asked if c not in controls) for head, controls in ran.items()}


def replicates_like(like: PointReplicates, rows: pd.DataFrame, scores: Path) -> PointReplicates | None:
    """The bootstrap of other runs on the test images and seeds of `like`; None where they have no scores."""
    replicates = like.by_seed.shape[2] - 1
    if rows.empty:
        return None
    if not replicates:
        return seed_replicates(rows, like.test, like.metric, replicates=1)
    try:
        return bootstrap_points(rows, scores, like.test, like.metric, replicates)
    except DataError:  # scores of these runs are gone
        return None


def _without(typed: Sequence[str], *names: str) -> list[str]:
    """The overrides that set none of `names`, and none of the pairs' weights where the loss is among them."""
    keys = [item.partition("=")[0].lstrip("+~") for item in typed]
    kept = [key not in names and not ("loss" in names and key.startswith("loss.pairs")) for key in keys]
    return [item for item, keep in zip(typed, kept, strict=True) if keep]


def _command(overrides: Sequence[str]) -> str:
    return shlex.join(["guardtrain", "curve", *overrides])
