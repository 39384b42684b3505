from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from guardtrain.curves.bootstrap import bootstrap_points
from guardtrain.curves.efficiency import LineReplicates, data_multiplier
from guardtrain.curves.efficiency_summary import efficiency_text
from guardtrain.curves.results import METRICS, ResultRow, ResultsTable
from guardtrain.curves.scores import Scores, ScoresFolder
from guardtrain.curves.statistics import Line
from guardtrain.metrics import auroc, pair_both_right, record_pairs
from guardtrain.records import Records

BUDGETS = (16, 32, 64, 128, 256, 512)


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    """Runs whose scores separate the classes by log2 of the budget; pairs count as four times as many images."""
    import torch

    folder = tmp_path_factory.mktemp("curve")
    labels = np.tile([0, 1], 150)
    records = Records.from_columns(
        id=[f"t{i}" for i in range(300)], label=labels, pair_id=[f"p{i // 2}" for i in range(300)]
    )
    generator = np.random.default_rng(0)
    table, scores = ResultsTable(folder / "results.parquet"), ScoresFolder(folder / "scores")
    scores.write_test_records("pairs", records)
    rows, keys, values = [], [], []
    image_noise = generator.normal(size=300)
    for seed in range(4):
        for budget in BUDGETS:
            for control, ratio, worth in (("none", 0.0, 1), ("paired", 1.0, 4), ("unpaired", 1.0, 2)):
                logits = (
                    0.25 * np.log2(worth * budget) * (2 * labels - 1) + image_noise + generator.normal(size=300) / 4
                )
                key = f"{len(keys):016x}"
                keys.append(key)
                values.append(1 / (1 + np.exp(-logits)))
                probs = torch.tensor(values[-1][None])
                rows.append(
                    ResultRow(
                        run=key,
                        head="linear",
                        arm="replace",
                        control=control,
                        budget=budget,
                        ratio=ratio,
                        n_real=0 if ratio else budget,
                        n_pair_images=budget if ratio else 0,
                        n_images=budget,
                        seed=seed,
                        test="pairs",
                        n_test=300,
                        n_unsafe=150,
                        n_pairs=150,
                        auroc=float(auroc(probs, torch.tensor(labels))),
                        pair_both_right=float(pair_both_right(probs, record_pairs(records))),
                        lr=0.1,
                        l2=1.0,
                        steps=1,
                        seconds=0.0,
                        encoder="e",
                        data="toy",
                    )
                )
    scores.write(keys, {"pairs": Scores.of_probabilities(np.array(values, dtype=np.float32))})
    table.append(rows)
    return table.read(), folder / "scores"


def test_the_table_shows_the_multipliers_of_the_middle_budgets(curve: tuple[pd.DataFrame, Path]) -> None:
    frame, scores = curve
    text = efficiency_text(frame, scores, replicates=200)
    assert "× at n = 32" in text
    assert "× at n = 64" in text
    boot = bootstrap_points(frame, scores, "pairs", "auroc", 200)
    real, pairs = (
        LineReplicates.of(boot, line) for line in (Line("replace", "none", 0.0), Line("replace", "paired", 1.0))
    )
    expected = data_multiplier(real, pairs)[1]
    row = next(line for line in text.splitlines() if line.startswith("  pairs only"))
    assert expected.text(1) in row
    assert 2.5 < expected.value < 6.5  # the truth is 4
    assert max(map(len, text.splitlines())) <= 100


def test_nothing_is_said_where_there_is_nothing_to_compare(curve: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    frame, scores = curve
    assert efficiency_text(frame[frame["control"] != "none"], scores) == ""
    assert efficiency_text(frame[frame["seed"] == 0], scores) == ""
    assert efficiency_text(frame[frame["budget"] < 64], scores) == ""
    assert efficiency_text(frame.assign(pair_both_right=np.nan), scores) == ""
    assert efficiency_text(frame, tmp_path / "gone") == ""


def test_a_ceiling_has_no_multiplier(curve: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    """Every run as good as all others, but for chance: what is told is that nothing can be."""
    frame, scores = curve
    keys, kept, records = ScoresFolder(scores).read("pairs")
    level = ScoresFolder(tmp_path / "scores")
    level.write_test_records("pairs", records)
    noise = np.random.default_rng(0).normal(0, 0.3, kept.ranked.shape)
    level.write(keys, {"pairs": Scores.of_logits(6 * records.labels - 3 + noise)})
    text = efficiency_text(frame, level.path, replicates=200)
    assert " ".join(text.split()).startswith(
        "No data multiplier on 'pairs': from n = 16 to 512 real data alone gets better by no more than chance "
        "(Accuracy: linear 1.00 to 1.00), "
    )
    # AUROC at its ceiling, and pairs that more images do get right: their share is told
    budgets = frame.set_index("run").loc[keys, "budget"].to_numpy()
    shift = np.random.default_rng(1).normal(0, 1, len(keys))[:, None] * 64 / budgets[:, None]
    other = ScoresFolder(tmp_path / "other")
    other.write_test_records("pairs", records)
    other.write(keys, {"pairs": Scores.of_logits(6 * records.labels - 3 + noise + 3 * shift)})
    assert f"Data efficiency, {METRICS['pair_both_right']} on 'pairs'" in efficiency_text(
        frame, other.path, replicates=200
    )
