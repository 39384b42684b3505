"""How many seeds and test images a curve needs to show a difference: from the variances of a pilot."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from guardtrain.curves.comparisons import sides_of
from guardtrain.curves.families import Errors, freedom_of
from guardtrain.curves.results import CONTROL_NAMES, METRICS
from guardtrain.curves.statistics import CONFIDENCE, number_text

if TYPE_CHECKING:
    from guardtrain.curves.bootstrap import PointReplicates

MOST_SEEDS = 200
_WIDTH = 100
_FREEDOM = 94.0  # of the embedded pilot
_SCENES = (
    ("pairs ¼ (replace) − real only", (0.0526, 0.0269, 0.0133), (0.0018, 0.0023, 0.0029)),
    ("pairs ½ (replace) − real only", (0.0486, 0.0252, 0.0122), (0.0025, 0.0028, 0.0034)),
    ("pairs only − real only", (0.0543, 0.0275, 0.0132), (0.0038, 0.0035, 0.0040)),
    ("pairs ¼ (replace) − unpaired ¼ (control)", (0.0504, 0.0243, 0.0102), (0.0, 0.0001, 0.0007)),
    ("pairs ½ (replace) − unpaired ½ (control)", (0.0369, 0.0116, 0.0061), (0.0, 0.0007, 0.0009)),
    ("pairs only − unpaired only (control)", (0.0469, 0.0126, 0.0060), (0.0010, 0.0008, 0.0011)),
)
_FEW = 20  # seeds that are taken where no number of them is enough for the test images at hand


@dataclass(frozen=True)
class Pilot:
    """The sources of variation of one difference at K budgets.

    Args:
        head, name: whose difference: "pairs ¼ (replace) − unpaired ¼ (control)".
        budgets: (K,) ascending.
        seed_sd: (K,) its standard deviation from seed to seed on the same test images.
        image_error: (K,) its standard error from the test images that there are.
        groups: test groups (pairs, or single images) there.
        freedom: degrees of freedom behind each `seed_sd`.
    """

    head: str
    name: str
    budgets: tuple[int, ...]
    seed_sd: tuple[float, ...]
    image_error: tuple[float, ...]
    groups: int
    freedom: float


@dataclass(frozen=True)
class Need:
    """The seeds and images that show a difference at one budget.

    Args:
        seeds: how many; None where even `MOST_SEEDS` are too few for these test images.
        low, high: seeds at the ends of the 95 % interval of the pilot's variance; None as `seeds`.
        groups: test groups that `_FEW` seeds would need, where `seeds` is None; None where seeds alone are too many.
    """

    seeds: int | None
    low: int | None
    high: int | None
    groups: int | None

    def text(self, brackets: bool = True) -> str:
        """ "36 [22, 71]" (or "36" without brackets), "> 200", or "20 × 4,300 groups"."""
        if self.seeds is None:
            return f"> {MOST_SEEDS}" if self.groups is None else f"{_FEW} × {self.groups:,} groups"
        if not brackets:
            return str(self.seeds)
        ends = ["> " + str(MOST_SEEDS) if end is None else str(end) for end in (self.low, self.high)]
        return f"{self.seeds} [{ends[0]}, {ends[1]}]"


def power_of(
    difference: float, seed_sd: float, image_error: float, seeds: int, confidence: float = CONFIDENCE
) -> float:
    """How probably a difference's interval for itself (`Errors.half_width`) leaves zero out, on its side.

    >>> round(power_of(1.0, 1.0, 0.0, 10), 2)  # the power of a t test
    0.8
    """
    from scipy.stats import nct, t

    seed = np.array([seed_sd / np.sqrt(seeds)])
    image = np.array([image_error])
    freedom = float(freedom_of(seed, image, np.array([seeds]))[0])
    quantile = t.ppf((1 + confidence) / 2, freedom)
    return float(nct.sf(quantile, freedom, difference / np.hypot(seed, image)[0]))


def seeds_needed(difference: float, seed_sd: float, image_error: float, power: float) -> int | None:
    """The fewest seeds with this power; None where more than `MOST_SEEDS` are needed, or no number is enough."""
    if power_of(difference, seed_sd, image_error, MOST_SEEDS) < power:
        return None
    low, high = 1, MOST_SEEDS  # power rises with seeds
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(difference, seed_sd, image_error, middle) >= power else (middle, high)
    return high


def needs(pilot: Pilot, difference: float, power: float) -> list[Need]:
    """Return what each budget of a pilot needs."""
    from scipy.stats import chi2

    out = []
    ends = np.sqrt(pilot.freedom / chi2.ppf([0.975, 0.025], pilot.freedom))
    for seed_sd, image_error in zip(pilot.seed_sd, pilot.image_error, strict=True):
        found = seeds_needed(difference, seed_sd, image_error, power)
        low, high = (seeds_needed(difference, seed_sd * end, image_error, power) for end in ends)
        groups = None
        if found is None and power_of(difference, seed_sd, 0.0, _FEW) > power:
            share = next(
                k
                for k in 2.0 ** np.arange(0, 40, 0.25)
                if power_of(difference, seed_sd, image_error / np.sqrt(k), _FEW) >= power
            )
            groups = int(np.ceil(pilot.groups * share / 100) * 100)
        out.append(Need(found, low, high, groups))
    return out


def pilots(boot: PointReplicates, groups: int) -> list[Pilot]:
    """The differences of a curve: pairs against real data alone and against each control, head by head.

    A variance of few seeds is uncertain, so those of all budgets and ratios of one question are taken together: each is
    moved towards their line over log n by as much as their scatter about it is chance (Smyth, "Linear models and
    empirical Bayes methods", Statistical Applications in Genetics and Molecular Biology 3(1), 2004).

    Args:
        boot: of a curve on one test set, see `guardtrain.curves.bootstrap.bootstrap_points`.
        groups: of the test set.
    """
    out: list[Pilot] = []
    for head in boot.heads:
        for kind in ("none", *CONTROL_NAMES):
            sides = sides_of(boot, head, kind)
            if not sides:
                continue
            ours, theirs = [row for side in sides for row in side.ours], [row for side in sides for row in side.theirs]
            errors = Errors.of(boot.by_seed[ours] - boot.by_seed[theirs])
            if errors.n_seeds.min() < 2:
                continue
            which = np.concatenate([np.full(len(side.budgets), k) for k, side in enumerate(sides)])
            n = np.concatenate([np.array(side.budgets, dtype=float) for side in sides])
            variance, freedom = moderated(errors.seed**2 * errors.n_seeds, errors.n_seeds.min() - 1, np.log2(n), which)
            for k, side in enumerate(sides):
                assert side.other is not None
                own, name = which == k, f"{side.line.label()} − {side.other.label()}"
                values = tuple(np.sqrt(variance[own]).tolist()), tuple(errors.image[own].tolist())
                out.append(Pilot(head, name, tuple(side.budgets), *values, groups, freedom))
    return out


def moderated(variance: np.ndarray, freedom: int, x: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, float]:
    """Variances (F,) moved towards their trend over `x`, and the degrees of freedom that they are then worth.

    Args:
        variance: of `freedom` degrees each.
        x: (F,) what they change with.
        which: (F,) whose; each has a level of its own, all have one slope.
    """
    from scipy.special import digamma, polygamma

    kept = variance > 0
    level = (which[:, None] == np.unique(which)).astype(float)
    design = np.column_stack([level, x - x.mean()])
    rank = int(np.linalg.matrix_rank(design[kept]))
    spare = int(kept.sum()) - rank
    if spare < 2:
        return variance, float(freedom)
    told = np.log(variance[kept]) - digamma(freedom / 2) + np.log(freedom / 2)  # unbiased for the log of the true one
    found = np.linalg.lstsq(design[kept], told, rcond=None)[0]
    trend = design @ found
    scatter = float(((told - trend[kept]) ** 2).sum() / spare) - float(polygamma(1, freedom / 2))
    tried = 2.0 ** np.arange(-1, 9, 0.125)  # prior degrees of freedom
    prior = float(tried[np.argmin(np.abs(polygamma(1, tried / 2) - max(scatter, 0)))])
    prior = min(prior, freedom * float(kept.sum()) / rank)  # no more than what the line itself is known by
    centre = np.exp(trend + digamma(prior / 2) - np.log(prior / 2))
    return (prior * centre + freedom * variance) / (prior + freedom), prior + freedom


def plan_text(
    found: Sequence[Pilot], difference: float, power: float, test: str, metric: str, seeds: int, what: str
) -> str:
    """The seeds that each comparison needs at each budget, and from which budget on the pilot's are enough.

    Args:
        seeds: of the pilot.
        what: the pilot is, for the title.
    """
    budgets = sorted({n for pilot in found for n in pilot.budgets})
    several = len({pilot.head for pilot in found}) > 1
    told = {pilot: dict(zip(pilot.budgets, needs(pilot, difference, power), strict=True)) for pilot in found}
    for brackets in (True, False):  # where there is room
        rows = [["", *(f"n = {n:,}" for n in budgets)]]
        for pilot, own in told.items():
            name = f"{pilot.head}: {pilot.name}" if several else pilot.name
            rows.append([name, *(own[n].text(brackets) if n in own else "" for n in budgets)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        if sum(widths) + 2 * len(widths) <= _WIDTH:
            break
    lines = [
        "  " + row[0].ljust(widths[0]) + "".join(cell.rjust(w + 2) for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    title = (
        f"Seeds that show a difference of {number_text(difference)} in {METRICS[metric]} on '{test}' in "
        f"{100 * power:.0f} % of curves · {what}"
    )
    enough = []
    for pilot, own in told.items():
        shown = [n for n in pilot.budgets if (s := own[n].seeds) is not None and s <= seeds]
        from_on = next((n for n in shown if all(m in shown for m in pilot.budgets if m >= n)), None)
        if from_on is not None:
            enough.append(f"{pilot.head + ': ' if several else ''}{pilot.name} from n = {from_on:,} on")
    notes = [
        f"For one comparison at one n, whose interval is over seeds and the {found[0].groups:,} test groups (pairs, or "
        "single images). Brackets: seeds at the ends of the 95 % interval of the pilot's variance. "
        f"'{_FEW} × 4,300 groups': no number of seeds up to {MOST_SEEDS} is enough for these images; {_FEW} are with "
        "so many groups.",
        f"With {seeds} seeds it is shown: " + ("; ".join(enough) if enough else "nowhere") + ".",
    ]
    folded = [textwrap.fill(note, _WIDTH, initial_indent="  ", subsequent_indent="  ") for note in notes]
    return "\n".join(
        [textwrap.fill(title, _WIDTH, subsequent_indent="  "), *(line.rstrip() for line in lines), *folded]
    )


def embedded_pilots() -> tuple[list[Pilot], int]:
    """The pilot that comes with guardtrain: AUROC on 'counterfactual' of the scenes, linear head; and its seeds.

    Of `guardtrain curve head=linear grid.seeds=30 'grid.budgets=[64,256,1024]' 'grid.controls=[paired,unpaired]'`.
    """
    budgets = (64, 256, 1024)
    return [Pilot("linear", name, budgets, seeds, images, 1000, _FREEDOM) for name, seeds, images in _SCENES], 30
