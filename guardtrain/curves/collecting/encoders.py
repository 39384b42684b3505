"""What pairs are worth with each encoder: the gain over real data alone of curves that differ in the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from guardtrain.curves.collecting.reading import CURVE
from guardtrain.curves.comparisons import LEAST, sides_of, signed
from guardtrain.curves.families import family
from guardtrain.curves.folder import SCORES_FOLDER
from guardtrain.curves.resampled import FOR_VARIANCES
from guardtrain.curves.results import LOWER_IS_BETTER, METRICS, NO_CONTROLS, RESULTS_SCHEMA
from guardtrain.curves.statistics import NO_INTERVAL, Line, number_text
from guardtrain.errors import DataError
from guardtrain.words import text_table

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.bootstrap import PointReplicates

NAME = "encoder.name"


@dataclass(frozen=True)
class Gain:
    """The gain of pairs over real data alone, of the same head at one budget.

    Args:
        encoder, head, line, budget: where.
        real, pairs: mean and half width of either.
        change: the gain, and the half width of its interval, which holds for all gains and all differences between two
            encoders' at once; NaN where there is none.
    """

    encoder: str
    head: str
    line: Line
    budget: int
    real: tuple[float, float]
    pairs: tuple[float, float]
    change: tuple[float, float]


@dataclass(frozen=True)
class EncoderGains:
    """The gains of several encoders by one metric on one test set.

    Args:
        gains: at the smallest and the largest budget that all encoders have; the largest gain first.
        apart: (encoder, other, head, line, budget, mean, half width) of differences between two encoders' gains that
            their interval leaves no doubt of: the first gains more.
        images: whether intervals are over test images, too, and not over seeds alone.
    """

    test: str
    metric: str
    gains: tuple[Gain, ...]
    apart: tuple[tuple[str, str, str, Line, int, float, float], ...]
    images: bool


def encoder_names(rows: pd.DataFrame) -> pd.Series:
    """The name of each row's encoder: as its config has it, and where that is not known, or names two, its fingerprint.

    Args:
        rows: of `guardtrain.curves.collecting.reading.Collected`.
    """
    marks = rows["encoder"].astype(str).str[:12]
    if NAME not in rows:
        return marks
    names = rows[NAME].where(rows[NAME].notna(), None)
    both = rows.groupby(NAME)["encoder"].nunique()
    return marks.where(names.isna() | names.map(both).gt(1), names)


def encoder_gains(rows: pd.DataFrame, test: str, metric: str) -> EncoderGains | None:
    """The gains of the curves among `rows`; None where there are not two encoders with pairs and real data alone.

    Args:
        rows: of `guardtrain.curves.collecting.reading.Collected`, judged by the same images.
        test, metric: by what.

    Raises:
        DataError: a point has several runs of one seed.
    """
    own = rows[(rows["kind"] == CURVE) & (rows["slice"] == "all") & (rows["test"] == test)]
    own = own[own["control"].isin(NO_CONTROLS) & own[metric].notna()]
    both = own.groupby("encoder")["control"].nunique() == len(NO_CONTROLS)
    own = own[own["encoder"].isin(both.index[both])]
    if own["encoder"].nunique() < 2:
        return None
    own = own.assign(_name=encoder_names(own))
    for column in ("seed", "budget"):
        common = set.intersection(*(set(part[column]) for _, part in own.groupby("encoder")))
        wanted = common if column == "seed" else {*sorted(common)[:1], *sorted(common)[-1:]}
        own = own[own[column].isin(wanted)]
    if own.empty:
        return None
    parts = {str(part["_name"].iloc[0]): part for _, part in own.groupby("encoder", sort=False)}
    boots, images = _boots(parts, test, metric)
    found = [
        (name, head, side.line, n, ours, theirs)
        for name, boot in boots.items()
        for head in boot.heads
        for side in sides_of(boot, head, "none")
        for n, ours, theirs in zip(side.budgets, side.ours, side.theirs, strict=True)
    ]
    return _told(found, boots, test, metric, images) if found else None


def _boots(parts: dict[str, pd.DataFrame], test: str, metric: str) -> tuple[dict[str, PointReplicates], bool]:
    """Each encoder's points, all on the same resampled test sets where all have scores, else over seeds alone."""
    from guardtrain.curves.bootstrap import BOOTSTRAP_METRICS, bootstrap_points, seed_replicates

    parts = {name: part[[*RESULTS_SCHEMA.names, "folder"]] for name, part in parts.items()}
    folders = {
        name: [Path(folder) / SCORES_FOLDER for folder in part["folder"].unique()] for name, part in parts.items()
    }
    if metric in BOOTSTRAP_METRICS and all(len(own) == 1 and own[0].is_dir() for own in folders.values()):
        try:
            made = {n: bootstrap_points(part, folders[n][0], test, metric, FOR_VARIANCES) for n, part in parts.items()}
        except DataError:  # some runs have no scores; what is wrong with the runs themselves is told below
            made = {}
        if len({boot.by_seed.shape[1:] for boot in made.values()}) == 1:
            return made, True
    return {name: seed_replicates(part, test, metric, replicates=1) for name, part in parts.items()}, False


def _told(
    found: Sequence[tuple[str, str, Line, int, int, int]],
    boots: dict[str, PointReplicates],
    test: str,
    metric: str,
    images: bool,
) -> EncoderGains:
    """The gains with intervals that hold at once, and those that two encoders differ in."""
    change = np.stack([boots[name].by_seed[ours] - boots[name].by_seed[theirs] for name, *_, ours, theirs in found])
    couples = [(a, b) for a, b in combinations(range(len(found)), 2) if found[a][1:4] == found[b][1:4]]
    between = [change[[a]] - change[[b]] for a, b in couples]
    whole = family(np.concatenate([change, *between]))
    half = np.full(len(whole.alone), np.nan) if metric in NO_INTERVAL else whole.together
    sign = -1 if metric in LOWER_IS_BETTER else 1

    def point(name: str, row: int) -> tuple[float, float]:
        points = boots[name].points
        return float(points["mean"].to_numpy()[row]), float(points["half_width"].to_numpy()[row])

    gains = [
        Gain(name, head, line, n, point(name, theirs), point(name, ours), (float(whole.difference[f]), float(half[f])))
        for f, (name, head, line, n, ours, theirs) in enumerate(found)
    ]
    apart = []
    for place, (a, b) in enumerate(couples, len(found)):
        difference, width = sign * float(whole.difference[place]), float(half[place])
        more, less = (a, b) if difference > 0 else (b, a)
        if abs(difference) - width > LEAST:
            apart.append((found[more][0], found[less][0], *found[a][1:4], abs(difference), width))
    gains.sort(key=lambda one: (-one.budget, -sign * one.change[0]))
    return EncoderGains(test, metric, tuple(gains), tuple(apart), images)


def gains_text(found: EncoderGains) -> str:
    """The gains as text: a table a budget, the largest first, then which encoders' gains are told apart."""
    several = len({one.line for one in found.gains}) > 1
    out = [f"What pairs are worth with each encoder: {METRICS[found.metric]} on '{found.test}'"]
    header = ("", "encoder", "head", "real only", "pairs", "gain of pairs")
    for n in dict.fromkeys(one.budget for one in found.gains):
        rows = [header]
        for place, one in enumerate((one for one in found.gains if one.budget == n), 1):
            mean, half = one.change
            gain = signed(mean) + ("" if np.isnan(half) else f" [{signed(mean - half)}, {signed(mean + half)}]")
            named = f"{one.head}, {one.line.label()}" if several else one.head
            rows.append((str(place), one.encoder, named, _mean(one.real), _mean(one.pairs), gain))
        out += [f"  n = {n:,}", *text_table(rows)]
    if np.isfinite([one.change[1] for one in found.gains]).any():
        over = "seeds and test images" if found.images else "seeds"
        out.append(f"  Brackets: 95 % intervals over {over} that hold for all gains and their differences at once.")
        for name, other, head, line, n, mean, half in found.apart:
            what = f"{head}, {line.label()}" if several else head
            ends = f"[{signed(mean - half)}, {signed(mean + half)}]"
            out.append(f"  {name} gains more than {other}: {what}, n = {n:,}, by {number_text(mean)} {ends}")
        if not found.apart:
            out.append("  No two encoders' gains with one head are told apart.")
    return "\n".join(out)


def _mean(value: tuple[float, float]) -> str:
    return number_text(value[0]) + ("" if np.isnan(value[1]) else f"±{number_text(value[1])}")
