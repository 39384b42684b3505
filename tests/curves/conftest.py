"""A made-up results table: real data alone, pairs and controls, on a test set of pairs and one without."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest

from guardtrain.curves.results import ResultRow, ResultsTable, run_key

if TYPE_CHECKING:
    import pandas as pd

Frames = Callable[..., "pd.DataFrame"]
GAIN = {"none": 0.0, "paired": 0.16, "unpaired": 0.14, "real": 0.02}


@pytest.fixture(scope="session")
def made_frames(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """A function from a grid to its results table, written and read back from disk once a grid."""
    tmp_path = tmp_path_factory.mktemp("frames")

    @functools.cache
    def make(
        budgets: Sequence[int] = (16, 64, 256),
        ratios: Sequence[float] = (0.0, 0.5, 1.0),
        arms: Sequence[str] = ("replace",),
        controls: Sequence[str] = ("paired", "unpaired"),
        heads: Sequence[str] = ("linear",),
        seeds: int = 4,
        tests: Sequence[str] = ("contexts", "pairs"),
    ) -> pd.DataFrame:
        rng = np.random.default_rng(0)
        rows = []
        for head in heads:
            for ratio in ratios:
                for arm in arms[:1] if ratio == 0 else arms:
                    for control in ("none",) if ratio == 0 else controls:
                        for budget in budgets:
                            for seed in range(seeds):
                                extra = round(budget * ratio)
                                images = budget + extra if arm == "add" else budget
                                pairs = 0 if control == "real" else extra
                                auroc = 0.5 + 0.02 * np.log2(budget) + GAIN[control] * ratio + rng.normal(0, 0.01)
                                settings = [head, ratio, arm, control, budget, seed]
                                for test in tests:
                                    paired = test != "contexts"
                                    rows.append(
                                        ResultRow(
                                            run=run_key({"settings": settings}),
                                            head=head,
                                            arm=arm,
                                            control=control,
                                            budget=budget,
                                            ratio=ratio,
                                            n_real=images - pairs,
                                            n_pair_images=pairs,
                                            n_images=images,
                                            seed=seed,
                                            test=test,
                                            n_test=200,
                                            n_unsafe=100,
                                            n_pairs=100 if paired else 0,
                                            auroc=auroc if paired else 0.97,
                                            brier=0.3 - auroc / 5,
                                            pair_both_right=2 * auroc - 0.95 if paired else None,
                                            pair_margin=auroc - 0.6 if paired else None,
                                            lr=0.1,
                                            l2=0.0,
                                            steps=100,
                                            seconds=0.1,
                                            encoder="demo",
                                            data="scenes",
                                        )
                                    )
        table = ResultsTable(tmp_path / f"results{len(list(tmp_path.iterdir()))}.parquet")
        table.append(rows)
        return table.read()

    return make


@pytest.fixture
def frames(made_frames: Frames) -> Frames:
    """A function from a grid to its results table, for the test to change as it likes."""
    return lambda **grid: made_frames(**grid).copy()
