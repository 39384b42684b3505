"""Drawn data sets that drawn guards have judged, for the tests of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardtrain.benchmarks.outcomes import Outcome
from guardtrain.benchmarks.slices import Judged
from guardtrain.records import Records

CATEGORIES = ("Hate", "Sexual", "Violence")


def judged(
    n: int = 120, guards: int = 3, seed: int = 0, pairs: int = 0, name: str = "drawn", missing: float = 0.0
) -> Judged:
    """`n` images of three categories and two sources, then `pairs` pairs; logits with ties, flagged from 0.5 on.

    A share `missing` of each guard's images, others for each, is without a verdict, and as many are set aside.
    """
    g = np.random.default_rng(seed)
    labels = [*(g.random(n) < 0.4).astype(int), *[0, 1] * pairs]
    total = n + 2 * pairs
    records = Records.from_columns(
        id=[f"{name}{i}" for i in range(total)],
        label=labels,
        category=np.array(CATEGORIES)[g.integers(0, 3, total)],
        source=np.array(["Laion5B", "Lexica"])[g.integers(0, 2, total)],
        pair_id=[None] * n + [f"p{i // 2}" for i in range(2 * pairs)],
    )
    logits = np.round(g.normal(size=(guards, total)) + np.array(labels) * np.linspace(1.5, 0.5, guards)[:, None], 1)
    outcomes = np.zeros(logits.shape, dtype=np.int8)
    fate = np.random.default_rng(seed + 1).random(logits.shape)
    outcomes[fate < missing] = g.choice([Outcome.UNDECIDED, Outcome.REFUSED, Outcome.NO_ANSWER, Outcome.UNREADABLE])
    outcomes[fate > 1 - missing] = Outcome.SET_ASIDE
    return Judged(name, tuple(f"g{k}" for k in range(guards)), records, logits, logits >= 0.5, outcomes)


def of(labels: Sequence[int], flagged: Sequence[bool], **columns: Sequence[str | None]) -> Judged:
    """One guard with these decisions."""
    records = Records.from_columns(id=[f"r{i}" for i in range(len(labels))], label=list(labels), **columns)
    calls = np.array([flagged], dtype=bool)
    return Judged("data", ("g0",), records, calls.astype(float), calls)
