"""A small curve with its test scores on disk: logits whose separation grows with log2 of the budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from guardtrain.curves.folder import RESULTS_FILE, SCORES_FOLDER
from guardtrain.curves.results import ResultRow, ResultsTable
from guardtrain.curves.scores import Scores, ScoresFolder
from guardtrain.metrics import record_pairs, record_slices, sliced_guard_metrics
from guardtrain.records import Records

if TYPE_CHECKING:
    import pandas as pd

WORTH = {
    "none": 1,
    "paired": 8,
    "shuffled": 5,
    "unpaired": 3,
    "balanced": 1.5,
    "real": 1.5,
}  # real images that one image of each kind is worth
N = 120


def made_records(paired: bool) -> Records:
    """120 images in two categories and two sources, as 60 pairs or none."""
    return Records.from_columns(
        id=[f"t{i}" for i in range(N)],
        label=np.tile([0, 1], N // 2),
        pair_id=[f"p{i // 2}" if paired else None for i in range(N)],
        category=["O1: Hate" if i < 40 else "O5: Weapons" for i in range(N)],
        source=["lexica" if i < 80 else "laion" for i in range(N)],
    )


def scored_curve(
    folder: Path,
    budgets: Sequence[int] = (16, 32, 64, 128, 256),
    ratios: Sequence[float] = (0.0, 0.5, 1.0),
    controls: Sequence[str] = ("paired", "unpaired"),
    arm: str = "replace",
    heads: Sequence[str] = ("linear",),
    seeds: int = 4,
) -> tuple[pd.DataFrame, Path]:
    """Write `results.parquet` and `scores/` into `folder`.

    Returns:
        The results as they are read back, and the scores folder.
    """
    rng = np.random.default_rng(0)
    tests = {"pairs": made_records(True), "contexts": made_records(False)}
    labels = tests["pairs"].labels.astype(np.int64)
    table, scores = ResultsTable(folder / RESULTS_FILE), ScoresFolder(folder / SCORES_FOLDER)
    for name, records in tests.items():
        scores.write_test_records(name, records)
    noise = {name: rng.normal(size=N) for name in tests}
    rows, keys = [], []
    kept: dict[str, list[np.ndarray]] = {name: [] for name in tests}
    grid = [
        (head, ratio, control, budget, seed)
        for head in heads
        for ratio in ratios
        for control in (("none",) if ratio == 0 else controls)
        for budget in budgets
        for seed in range(seeds)
    ]
    for _, ratio, control, budget, _ in grid:
        extra = round(budget * ratio)
        images = budget + extra if arm == "add" else budget
        worth = images + extra * (WORTH[control] - 1)
        for name in tests:
            gain = np.log2(worth if name == "pairs" else budget)
            logits = 0.08 * gain * (2 * labels - 1) + noise[name] + rng.normal(size=N) / 2
            kept[name].append((1 / (1 + np.exp(-logits))).astype(np.float32))
    measured = {  # all runs at once: one after another takes twenty times as long
        name: sliced_guard_metrics(
            torch.from_numpy(np.array(kept[name])),
            torch.from_numpy(labels),
            record_pairs(records),
            record_slices(records),
        )
        for name, records in tests.items()
    }
    for place, (head, ratio, control, budget, seed) in enumerate(grid):
        key = f"{place:016x}"
        keys.append(key)
        extra = round(budget * ratio)
        images = budget + extra if arm == "add" else budget
        pair_images = 0 if control in ("real", "balanced") else extra
        for name, records in tests.items():
            safe, unsafe = (half.numpy() for half in record_pairs(records))
            for (kind, part), values in measured[name].items():
                mask = record_slices(records)[kind, part]
                named = {"recall_at_fpr": "recall_at_fpr5"}
                rows.append(
                    ResultRow(
                        run=key,
                        head=head,
                        arm=arm,
                        control=control,
                        budget=budget,
                        ratio=ratio,
                        n_real=images - pair_images,
                        n_pair_images=pair_images,
                        n_images=images,
                        seed=seed,
                        test=name,
                        slice_kind=kind,
                        slice=part,
                        n_test=int(mask.sum()),
                        n_unsafe=int(labels[mask].sum()),
                        n_pairs=int((mask[safe] & mask[unsafe]).sum()),
                        lr=0.1,
                        l2=1.0,
                        steps=10,
                        seconds=0.25,
                        encoder="f00d" * 16,
                        data="toy_data & more",
                        **{named.get(m, m): float(v[place]) for m, v in values.items()},
                    )
                )
    scores.write(keys, {name: Scores.of_probabilities(np.array(values)) for name, values in kept.items()})
    table.append(rows)
    return table.read(), folder / SCORES_FOLDER
