"""`python -m tests.bench.intervals`: how often the intervals we print cover a truth that is known, by simulation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtr

from guardtrain.bins import bin_of
from guardtrain.calibration_error import calibration_error
from guardtrain.curves.bootstrap import group_draws, weighted_metric
from guardtrain.curves.families import Errors, family
from guardtrain.curves.scores import Scores

EXPERIMENTS = 300


def probabilities(kind: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What a head says of n images, (n,), and how probable unsafe really is."""
    score = rng.normal(0, 1.5, n)
    p = expit(score)
    if kind == "shifted":
        return p, expit(score - 0.45)
    if kind == "wrong in one bin":
        p = np.where(rng.random(n) < 0.4, 0.97, p)
        return p, np.where(p == 0.97, 0.77, p)
    return p, expit((0.57 if kind == "too sure" else 1.0) * score)


def calibration_errors() -> None:
    """Coverage of the calibration error's interval at a true error of 0 and of about .08."""
    for kind in ("right", "too sure", "shifted", "wrong in one bin"):
        rng = np.random.default_rng(0)
        p, q = probabilities(kind, 1_000_000, rng)
        truth = float(np.abs(np.bincount(bin_of(p, 15), p - q)).sum() / len(p))
        for n in (60, 200, 1000):
            rows = []
            for _ in range(EXPERIMENTS):
                p, q = probabilities(kind, n, rng)
                found = calibration_error(p, rng.random(n) < q, bin_of(p, 15), rng, replicates=400)
                rows.append((found.low <= truth <= found.high, found.high - found.low, found.value, found.measured))
            covered, width, value, measured = np.mean(rows, axis=0)
            print(
                f"calibration error {truth:.3f} ({kind}), n = {n:>5,}: covered {covered:.3f}; mean width {width:.3f}, "
                f"told {value:.3f}, measured {measured:.3f}",
                flush=True,
            )


@dataclass(frozen=True)
class World:
    """Runs of known skill on images of shared difficulty: seeds and test groups are crossed, as in a curve.

    Args:
        skill: (F,) of F points, a mean over seeds; the points are budgets × lines.
        spread: (F,) its standard deviation over seeds, half of whose variance a seed has at all points.
        seeds, pairs: how many.
    """

    skill: np.ndarray
    spread: np.ndarray
    seeds: int
    pairs: int

    def population(self) -> np.ndarray:
        """(F,) AUROC over seeds and images without number."""
        return np.asarray(ndtr(self.skill / np.sqrt(2 * (PAIR**2 + IMAGE**2 + NOISE**2) + self.spread**2)))

    def scores(self, rng: np.random.Generator) -> np.ndarray:
        """(F, S, 2 · pairs) logits of a draw; the halves of a pair stand side by side, the safe one first."""
        shared, own = rng.normal(size=(2, len(self.skill), self.seeds))
        shared[:] = shared[:1]
        skill = self.skill[:, None] + self.spread[:, None] * np.sqrt(0.5) * (shared + own)
        difficulty = rng.normal(0, PAIR, self.pairs).repeat(2) + rng.normal(0, IMAGE, 2 * self.pairs)
        unsafe = np.tile([0.0, 1.0], self.pairs)
        noise = rng.normal(0, NOISE, (len(self.skill), self.seeds, 2 * self.pairs))
        return skill[..., None] * unsafe + difficulty + noise


PAIR, IMAGE, NOISE = 0.6, 0.5, 0.6
BUDGETS = {64: (1.0, 0.35), 512: (1.5, 0.15), 2048: (1.9, 0.06)}  # skill and its spread over seeds
LINES = (0.0, 0.1, 0.1, 0.2)  # skill on top: real only, and pairs at three ratios
REPLICATES = 300


def crossed(experiments: int = EXPERIMENTS, cases: Sequence[tuple[int, int]] = ((5, 150), (20, 150), (5, 600))) -> None:
    """Coverage of a point's interval, of a difference's, and of all differences from real data alone at once."""
    for seeds, pairs in cases:
        made = [(skill + more, spread) for skill, spread in BUDGETS.values() for more in LINES]
        world = World(np.array([skill for skill, _ in made]), np.array([spread for _, spread in made]), seeds, pairs)
        points, alone, together, width = [], [], [], []
        for experiment in range(experiments):
            found = covered(world, np.random.default_rng(experiment))
            for kept, one in zip((points, alone, together, width), found, strict=True):
                kept.append(one)
        told = [f"n = {n:,}: {share:.3f}" for n, share in zip(BUDGETS, np.mean(points, axis=(0, 2)), strict=True)]
        print(
            f"{seeds} seeds, {pairs} pairs: points {', '.join(told)}; one difference {np.mean(alone):.3f}; all "
            f"{np.shape(alone)[1]} at once {np.mean(together):.3f}, {np.mean(width):.2f} times as wide",
            flush=True,
        )


def covered(world: World, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, bool, float]:
    """Of one curve: which points (budgets, lines) and differences are covered, whether all of these are, the factor."""
    truth, logits = world.population(), world.scores(rng)
    count, images = len(truth), 2 * world.pairs
    halves = np.arange(0, images, 2), np.arange(1, images, 2)
    draws = np.ones((world.pairs, REPLICATES + 1), dtype=np.uint16)
    draws[:, 1:] = group_draws(world.pairs, REPLICATES, rng)
    scores = Scores.of_logits(logits.reshape(-1, images).astype(np.float32))
    labels, group = np.tile([0, 1], world.pairs), np.arange(world.pairs).repeat(2)
    values = weighted_metric(scores, labels, halves, group, draws, "auroc").reshape(count, world.seeds, -1)
    errors = Errors.of(values)
    points = (np.abs(errors.mean - truth) <= errors.half_width(0.95)).reshape(len(BUDGETS), len(LINES))
    pairs = np.array([at for at in range(count) if at % len(LINES)])
    real = pairs - pairs % len(LINES)
    found = family(values[pairs] - values[real])
    missed = np.abs(found.difference - (truth[pairs] - truth[real]))
    return points, missed <= found.alone, bool((missed <= found.together).all()), found.factor


PARTS = {"calibration": calibration_errors, "crossed": crossed}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
