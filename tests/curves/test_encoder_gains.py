"""What pairs are worth by encoder: gains and their intervals, against other arithmetic on made-up curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from guardtrain.curves.collecting.encoders import encoder_gains, encoder_names, gains_text
from guardtrain.errors import DataError
from tests.curves.scored_curve import scored_curve

GAINS = {"good": 0.05, "poor": 0.25}  # the better encoder gains less
START = {"good": 0.8, "poor": 0.5}


def _rows(seeds: int = 6, noise: float = 0.01, **change: Any) -> pd.DataFrame:
    """Two encoders, one budget more of one of them, and a control, which is in no gain."""
    rng = np.random.default_rng(0)
    rows = []
    for name, gain in GAINS.items():
        for budget in (16, 64, 256, 1024)[: 3 + (name == "poor")]:
            for control, more in (("none", 0.0), ("paired", gain), ("unpaired", 9.0)):
                for seed in range(seeds):
                    value = START[name] + more + rng.normal(0, noise)
                    rows.append(
                        {
                            "folder": "nowhere", "kind": "curve", "run": f"{name}-{budget}-{control}-{seed}",
                            "head": "linear", "arm": "replace", "control": control, "budget": budget, "seed": seed,
                            "ratio": 0.5 * (control != "none"), "test": "pairs", "slice_kind": "all", "slice": "all",
                            "n_test": 100, "n_unsafe": 50, "n_pairs": 50, "n_real": budget, "n_pair_images": 0,
                            "n_images": budget, "auroc": value, "encoder": name[0] * 64, "data": "made",
                            "encoder.name": name,
                        }
                        | dict.fromkeys(["average_precision", "f1", "accuracy", "recall_at_fpr5"], 0.5)
                        | dict.fromkeys(["pair_both_right", "pair_ranking", "pair_margin", "lr", "l2"], 0.5)
                        | {"brier": 1 - value, "ece": 0.1, "steps": 1, "seconds": 1.0}
                        | change
                    )  # fmt: skip
    return pd.DataFrame(rows)


def test_gains_are_paired_differences_and_hold_at_once() -> None:
    rows = _rows()
    found = encoder_gains(rows, "pairs", "auroc")
    assert found is not None and not found.images
    assert [(one.encoder, one.budget) for one in found.gains] == [
        ("poor", 256), ("good", 256), ("poor", 16), ("good", 16),
    ], "at the smallest and the largest budget of both, the largest gain first"  # fmt: skip
    wide = rows.pivot_table(index=["encoder.name", "budget", "seed"], columns="control", values="auroc")
    factors = []
    for one in found.gains:
        own = wide.loc[one.encoder, one.budget]
        change = own["paired"] - own["none"]
        alone = stats.t.ppf(0.975, 5) * stats.sem(change)
        assert one.change[0] == pytest.approx(change.mean())
        assert one.real[0] == pytest.approx(own["none"].mean())
        assert one.pairs == pytest.approx((own["paired"].mean(), stats.t.ppf(0.975, 5) * stats.sem(own["paired"])))
        factors.append(one.change[1] / alone)
    np.testing.assert_allclose(factors, factors[0], rtol=1e-6)
    assert 1.3 < factors[0] < 2.5, "six differences are asked"
    assert [(more, less, n) for more, less, _, _, n, *_ in found.apart] == [("poor", "good", 16), ("poor", "good", 256)]
    apart = found.apart[0][5] - (wide.loc["poor", 16].mean()["paired"] - wide.loc["poor", 16].mean()["none"])
    assert apart == pytest.approx(-(wide.loc["good", 16].mean()["paired"] - wide.loc["good", 16].mean()["none"]))


def test_what_differs_by_chance_alone_is_not_told_apart() -> None:
    found = encoder_gains(_rows(noise=0.3), "pairs", "auroc")
    assert found is not None and found.apart == ()
    assert "No two encoders' gains with one head are told apart." in gains_text(found)


def test_a_lower_brier_score_is_the_larger_gain() -> None:
    found = encoder_gains(_rows(), "pairs", "brier")
    assert found is not None and [one.encoder for one in found.gains] == ["poor", "good"] * 2
    assert all(one.change[0] < 0 for one in found.gains)
    assert {(more, less) for more, less, *_ in found.apart} == {("poor", "good")}


def test_with_scores_intervals_are_over_test_images_too(tmp_path: Path) -> None:
    frame, _ = scored_curve(tmp_path, budgets=(16, 256), ratios=(0.0, 0.5))
    rows = frame.assign(folder=str(tmp_path), kind="curve")
    both = pd.concat([rows.assign(encoder="a" * 64), rows.assign(encoder="b" * 64)], ignore_index=True)
    found = encoder_gains(both, "pairs", "auroc")
    assert found is not None and found.images
    assert found.apart == (), "the same curve twice"
    assert {one.encoder for one in found.gains} == {"a" * 12, "b" * 12}
    alone = encoder_gains(both.assign(folder="nowhere"), "pairs", "auroc")
    assert alone is not None and not alone.images
    assert "over seeds and test images" in gains_text(found) and "over seeds that" in gains_text(alone)


def test_there_is_nothing_to_tell_of_one_encoder_or_without_pairs() -> None:
    rows = _rows()
    assert encoder_gains(rows[rows["encoder.name"] == "good"], "pairs", "auroc") is None
    assert encoder_gains(rows[rows["control"] != "paired"], "pairs", "auroc") is None
    assert encoder_gains(rows.assign(kind="train"), "pairs", "auroc") is None
    single = encoder_gains(_rows(seeds=1), "pairs", "auroc")
    assert single is not None and "[" not in gains_text(single), "one seed has no intervals"
    twice = pd.concat([rows, rows.assign(run=rows["run"] + "b", l2=9.0)])
    with pytest.raises(DataError, match=r"Several runs share .* they differ in l2"):
        encoder_gains(twice, "pairs", "auroc")


def test_a_name_of_two_encoders_names_neither() -> None:
    rows = _rows()
    assert set(encoder_names(rows)) == {"good", "poor"}
    assert set(encoder_names(rows.assign(**{"encoder.name": "demo"}))) == {"g" * 12, "p" * 12}
    assert set(encoder_names(rows.drop(columns="encoder.name"))) == {"g" * 12, "p" * 12}
