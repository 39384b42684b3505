"""Metrics and intervals of a benchmark against torchmetrics, scikit-learn and scipy; what each guard is judged on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score
from torchmetrics.functional.classification import binary_accuracy, binary_f1_score, binary_stat_scores

from guardtrain.benchmarks.effectiveness import (
    Entrant,
    Evaluated,
    How,
    difference_rows,
    evaluate,
    metric_rows,
    tidy,
)
from guardtrain.benchmarks.measures import percentiles
from guardtrain.benchmarks.report import findings
from guardtrain.benchmarks.slices import Judged, source_family
from guardtrain.benchmarks.tables import is_better
from guardtrain.records import Records
from tests.benchmarks.judged import judged, of

HOW = How(replicates=400)


def evaluated(data: Judged, *categories: tuple[str, ...], how: How = HOW) -> Evaluated:
    wanted = [*categories, *[()] * (len(data.guards) - len(categories))]
    return evaluate(data, [Entrant(name, part) for name, part in zip(data.guards, wanted, strict=True)], how)


@pytest.fixture(scope="module")
def data() -> Judged:
    return judged(300, guards=3, pairs=20)


@pytest.fixture(scope="module")
def frame(data: Judged) -> pd.DataFrame:
    one = evaluated(data, (), ("sexual",))
    return tidy([*metric_rows(one), *difference_rows(one)])


def value(frame: pd.DataFrame, **wanted: str) -> pd.Series:
    keep = np.logical_and.reduce([(frame[name] == what).to_numpy() for name, what in wanted.items()])
    rows = frame[keep]
    assert len(rows) == 1, wanted
    return rows.iloc[0]


def test_metrics_are_those_of_scikit_learn_and_torchmetrics_in_every_slice(data: Judged, frame: pd.DataFrame) -> None:
    y = data.labels
    for category, source in (("all", "all"), ("Hate", "all"), ("all", "Lexica"), ("Sexual", "Laion5B")):
        mask = np.ones(len(y), dtype=bool)
        for wanted, column in ((category, data.records.categories), (source, data.records.sources)):
            mask &= (column == wanted) | (wanted == "all")
        for k, guard in enumerate(data.guards):
            flagged, logits = data.flagged[k][mask], data.logits[k][mask]
            tp, fp, tn, fn, _ = binary_stat_scores(torch.tensor(flagged).float(), torch.tensor(y[mask])).tolist()
            given, truth = torch.tensor(flagged).float(), torch.tensor(y[mask])
            expected = {
                "f1": binary_f1_score(given, truth).item(),
                "accuracy": binary_accuracy(given, truth).item(),
                "auroc": roc_auc_score(y[mask], logits),
                "precision": precision_score(y[mask], flagged),
                "recall": recall_score(y[mask], flagged),
                "fpr": fp / (fp + tn),
                "fnr": fn / (fn + tp),
                "flag_rate": flagged.mean(),
            }
            place = {"kind": "metric", "guard": guard, "judged_on": "all", "category": category, "source": source}
            for metric, wanted_value in expected.items():
                found = value(frame, **place, metric=metric)
                assert found["value"] == pytest.approx(wanted_value, abs=1e-6), (metric, place)
                assert found["low"] <= found["value"] + 1e-12
                assert found["high"] >= found["value"] - 1e-12
                assert found["n_images"] == mask.sum()


def test_a_guard_is_judged_on_its_categories_beside_all_safe_images(data: Judged, frame: pd.DataFrame) -> None:
    y = data.labels
    kept = ~y | (data.records.categories == "Sexual")
    aligned = {"kind": "metric", "guard": "g1", "judged_on": "aligned", "category": "all", "source": "all"}
    found = value(frame, **aligned, metric="f1")
    assert found["value"] == pytest.approx(f1_score(y[kept], data.flagged[1][kept]))
    assert (found["n_images"], found["n_unsafe"]) == (kept.sum(), (kept & y).sum())
    own = frame[(frame["guard"] == "g1") & (frame["judged_on"] == "aligned") & (frame["kind"] == "metric")]
    assert set(own["category"]) == {"all", "Sexual"}
    # and compared on what both are judged on
    change = value(frame, **{**aligned, "kind": "difference"}, metric="f1")
    both = [f1_score(y[kept], data.flagged[k][kept]) for k in (1, 0)]
    assert change["value"] == pytest.approx(both[0] - both[1])
    assert change["versus"] == "g0"
    # a general guard's figures are the same either way
    everyone = [{**aligned, "guard": "g2", "judged_on": name} for name in ("all", "aligned")]
    assert len({value(frame, **place, metric="auroc")["value"] for place in everyone}) == 1


def test_pairs_count_where_both_sides_are_right(data: Judged, frame: pd.DataFrame) -> None:
    safe, unsafe = data.pairs
    wanted = (data.flagged[0][unsafe] & ~data.flagged[0][safe]).mean()
    place = {"kind": "metric", "guard": "g0", "judged_on": "all", "category": "all", "source": "all"}
    found = value(frame, **place, metric="pair_both_right")
    assert found["value"] == pytest.approx(wanted)
    assert found["n_pairs"] == 20


def test_shares_of_independent_images_have_exact_intervals() -> None:
    y, flagged = [0] * 40 + [1] * 30, [True] * 3 + [False] * 37 + [True] * 22 + [False] * 8
    frame = tidy(metric_rows(evaluated(of(y, flagged))))
    wanted = {"fpr": (3, 40), "recall": (22, 30), "precision": (22, 25), "accuracy": (59, 70)}
    for metric, (count, total) in wanted.items():
        found = value(frame, judged_on="all", metric=metric)
        ends = binomtest(count, total).proportion_ci(0.95, "exact")
        np.testing.assert_allclose([found["low"], found["high"]], [ends.low, ends.high], atol=1e-9)
        assert found["interval"] == "clopper-pearson"
    jaccard = binomtest(22, 33).proportion_ci(0.95, "exact")
    f1 = value(frame, judged_on="all", metric="f1")
    np.testing.assert_allclose([f1["low"], f1["high"]], [2 * j / (1 + j) for j in (jaccard.low, jaccard.high)])


def test_f1s_interval_holds_its_promise() -> None:
    g, covered = np.random.default_rng(0), 0
    truth = 2 * 0.24 / (2 * 0.24 + 0.06 + 0.12)  # recall 2/3 of .36 unsafe, FPR 3/32 of .64
    for _ in range(60):
        kind = g.choice(4, 80, p=[0.24, 0.12, 0.06, 0.58])  # hit, miss, alarm, right
        frame = tidy(metric_rows(evaluated(of((kind < 2).astype(int), (kind == 0) | (kind == 2)), how=How(20))))
        row = value(frame, judged_on="all", metric="f1")
        covered += row["low"] <= truth <= row["high"]
    assert covered / 60 > 0.9


def test_aurocs_interval_is_that_of_scipys_bootstrap(data: Judged) -> None:
    free = judged(300, guards=1, seed=4)
    found = value(
        tidy(metric_rows(evaluated(free, how=How(2000)))), judged_on="all", category="all", source="all", metric="auroc"
    )
    rng = np.random.default_rng(0)
    scored = bootstrap((free.labels, free.logits[0]), roc_auc_score, paired=True, vectorized=False, n_resamples=300,
                       method="percentile", rng=rng)  # fmt: skip
    low, high = scored.confidence_interval
    np.testing.assert_allclose([found["low"], found["high"]], [low, high], atol=0.012)
    assert found["interval"] == "bootstrap"


def test_larger_groups_are_drawn_whole_and_nothing_wrong_still_has_an_interval() -> None:
    y, groups = [0, 1] * 20, [f"g{i // 8}" for i in range(40)]
    flagged = [bool(label) ^ (i < 8) for i, label in enumerate(y)]
    row = value(tidy(metric_rows(evaluated(of(y, flagged, group=groups)))), judged_on="all", metric="accuracy")
    assert row["interval"] == "bootstrap"
    assert row["low"] < binomtest(32, 40).proportion_ci(0.95, "exact").low, "five groups are not forty images"
    perfect = tidy(metric_rows(evaluated(of(y, [bool(label) for label in y]))))
    for metric, total in (("auroc", 20), ("recall", 20), ("accuracy", 40)):
        row = value(perfect, judged_on="all", metric=metric)
        assert (row["value"], row["high"]) == (1, 1)
        assert row["low"] == pytest.approx(binomtest(total, total).proportion_ci(0.95, "exact").low)


def test_what_is_not_defined_is_left_out() -> None:
    frame = tidy(metric_rows(evaluated(of([0, 0, 0], [False, True, False]))))
    assert set(frame["metric"]) == {"accuracy", "fpr", "flag_rate", "precision"}


def test_a_guard_against_its_twin_is_no_different() -> None:
    data = judged(100, guards=2)
    twins = Judged(data.name, data.guards, data.records, data.logits[[0, 0]], data.flagged[[0, 0]])
    rows = tidy(difference_rows(evaluated(twins)))
    assert len(rows) > 20
    assert (rows[["value", "low", "high"]].to_numpy() == 0).all()


def test_differences_on_the_same_images_are_narrower_than_the_two_apart(data: Judged) -> None:
    near = data.logits[0] + np.random.default_rng(0).normal(size=len(data.labels)) / 10
    close = Judged(
        data.name,
        ("a", "b"),
        data.records,
        np.stack([data.logits[0], near]),
        np.stack([data.logits[0] >= 0.5, near >= 0.5]),
    )
    one = evaluated(close)
    place = {"judged_on": "all", "category": "all", "source": "all", "metric": "auroc"}
    change, alone = value(tidy(difference_rows(one)), **place), value(tidy(metric_rows(one)), **place, guard="a")
    assert change["high"] - change["low"] < 0.5 * (alone["high"] - alone["low"])


def test_safe_images_without_a_category_stand_beside_every_category() -> None:
    y, flagged = [0, 0, 0, 1, 1, 1], [True, False, False, True, False, True]
    frame = tidy(metric_rows(evaluated(of(y, flagged, category=[None] * 3 + ["Hate", "Hate", "Spam"]))))
    row = value(frame, judged_on="all", category="Spam", metric="precision")
    assert (row["n_images"], row["n_unsafe"], row["value"]) == (4, 1, 0.5)


def test_two_images_do_not_show_that_a_guard_is_better() -> None:
    """One guard right on both, the other wrong: each draw says so, and none can say how sure that is."""
    records = Records.from_columns(id=["a", "b"], label=[0, 1])
    logits = np.array([[-1.0, 1.0], [1.0, -1.0]])
    frame = tidy(difference_rows(evaluated(Judged("d", ("good", "bad"), records, logits, logits > 0))))
    row = value(frame, judged_on="all", metric="accuracy")
    assert row["value"] == -1
    assert np.isnan([row["low"], row["high"]]).all()
    assert is_better(row) is None
    (sentence,) = findings(frame, "good")
    assert "F1 −1.00, too few images for an interval" in sentence
    assert "worse" not in sentence


def test_percentiles_are_numpys() -> None:
    values = np.random.default_rng(0).normal(size=(4, 5, 201))
    values[0, 0, :50] = np.nan
    values[1, 1, :150] = np.nan
    low, high = percentiles(values, 0.9)
    wanted = np.nanquantile(values, [0.05, 0.95], axis=-1)
    assert np.isnan([low[1, 1], high[1, 1]]).all(), "most replicates do not define it"
    low[1, 1], high[1, 1] = wanted[:, 1, 1]
    np.testing.assert_allclose([low, high], wanted)


@pytest.mark.parametrize(
    ("source", "family"), [("LAION-5B", "real"), ("lexica", "generated"), ("mine", "real"), ("x", None), (None, None)]
)
def test_sources_are_told_apart_by_their_names(source: str | None, family: str | None) -> None:
    assert source_family(source, real=["Mine"]) == family
