"""Images that a guard has no verdict on: nobody else's figures move, differences are of common images, bounds hold."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from guardtrain.benchmarks.coverage import coverage_notes, coverage_rows
from guardtrain.benchmarks.effectiveness import Entrant, How, difference_rows, evaluate, metric_rows, tidy
from guardtrain.benchmarks.measures import METRICS, measures_of
from guardtrain.benchmarks.outcomes import Outcome
from guardtrain.benchmarks.report import findings
from guardtrain.benchmarks.resampling import resampled
from guardtrain.benchmarks.shift import shift_rows
from guardtrain.benchmarks.slices import Judged, Slice
from guardtrain.benchmarks.tables import benchmark_tables
from guardtrain.benchmarks.tables_detail import detail_tables
from guardtrain.benchmarks.tables_text import text_of
from tests.benchmarks.judged import judged

HOW = How(replicates=40)
WHOLE = {"judged_on": "all", "category": "all", "source": "all"}


def rows_of(data: Judged, reference: int = 0) -> pd.DataFrame:
    one = evaluate(data, [Entrant(name) for name in data.guards], HOW, reference)
    return tidy([*metric_rows(one), *coverage_rows(one), *difference_rows(one), *shift_rows(one)])


def alone(data: Judged, k: int) -> Judged:
    return Judged(data.name, (data.guards[k],), data.records, data.logits[[k]], data.flagged[[k]], data.outcomes[[k]])


def at(frame: pd.DataFrame, **wanted: str) -> pd.Series:
    rows = frame[np.logical_and.reduce([(frame[name] == what).to_numpy() for name, what in wanted.items()])]
    assert len(rows) == 1, wanted
    return rows.iloc[0]


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.3]))
def test_a_guards_figures_are_the_same_whoever_stands_beside_it(seed: int, missing: float) -> None:
    """To the last bit, intervals too: whatever another lacks, answers, or is judged on."""
    data = judged(80, guards=3, seed=seed, pairs=8, missing=missing)
    silent = data.outcomes.copy()
    silent[2] = np.where(data.labels, Outcome.REFUSED, silent[2])
    beside = replace_outcomes(data, silent)
    for k in (0, 1):
        own = rows_of(alone(data, k))
        for whole in (rows_of(data), rows_of(beside), rows_of(beside, reference=2)):
            mine = whole[(whole["guard"] == f"g{k}") & whole["kind"].isin(["metric", "shift"])]
            wanted = own[own["kind"].isin(["metric", "shift"])]
            pd.testing.assert_frame_equal(
                mine.astype(object).reset_index(drop=True), wanted.astype(object).reset_index(drop=True)
            )


def replace_outcomes(data: Judged, outcomes: np.ndarray) -> Judged:
    return Judged(data.name, data.guards, data.records, data.logits, data.flagged, outcomes)


def test_figures_are_of_the_images_with_verdicts_and_differences_of_those_that_both_have() -> None:
    data = judged(200, guards=3, seed=3, pairs=10, missing=0.2)
    frame, y = rows_of(data), data.labels
    for k, name in enumerate(data.guards):
        own = data.known[k]
        row = at(frame, kind="metric", guard=name, metric="f1", **WHOLE)
        assert row["value"] == pytest.approx(f1_score(y[own], data.flagged[k][own]))
        assert (row["n_images"], row["n_unsafe"]) == (own.sum(), (own & y).sum())
        gone = data.counted[k] & ~own
        assert (row["n_missing_unsafe"], row["n_missing_safe"]) == ((gone & y).sum(), (gone & ~y).sum())
        auroc = at(frame, kind="metric", guard=name, metric="auroc", **WHOLE)["value"]
        assert auroc == pytest.approx(roc_auc_score(y[own], data.logits[k][own]))
        if k == 0:
            continue
        both = own & data.known[0]
        row = at(frame, kind="difference", guard=name, metric="f1", **WHOLE)
        wanted = f1_score(y[both], data.flagged[k][both]) - f1_score(y[both], data.flagged[0][both])
        assert row["value"] == pytest.approx(wanted)
        assert (row["n_images"], row["n_unsafe"]) == (both.sum(), (both & y).sum())
        assert (row["n_missing_unsafe"], row["n_missing_safe"]) == ((~both & y).sum(), (~both & ~y).sum())
        (sentence,) = [one for one in findings(frame, "g0") if one.startswith(f"{name} against g0")]
        assert f"(on common images: {(~both & y).sum()} unsafe and {(~both & ~y).sum()} safe ones miss" in sentence


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_bounds_are_the_least_and_the_most_over_all_that_the_missing_could_have_been(seed: int) -> None:
    g = np.random.default_rng(seed)
    whole = judged(12, guards=1, seed=seed, pairs=2)
    outcomes = np.zeros(whole.flagged.shape, dtype=np.int8)
    outcomes[0, g.permutation(16)[:5]] = [Outcome.REFUSED] * 4 + [Outcome.SET_ASIDE]
    data = replace_outcomes(whole, outcomes)
    found = rows_of(data)
    places = np.flatnonzero(outcomes[0] == Outcome.REFUSED)
    tried: dict[str, list[float]] = {name: [] for name in METRICS}
    for verdicts in product([False, True], repeat=4):
        flagged, logits = whole.flagged.copy(), whole.logits.copy()
        flagged[0, places], logits[0, places] = verdicts, np.where(verdicts, np.inf, -np.inf)
        full = np.where(outcomes == Outcome.REFUSED, 0, outcomes).astype(np.int8)
        one = Judged(whole.name, whole.guards, whole.records, logits, flagged, full)
        table = measures_of(resampled(one, {Slice(): np.ones(16, dtype=bool)}, 0, 0)).table
        for name in METRICS:
            tried[name].append(float(table[name][0, 0, 0]))
    for name, values in tried.items():
        if np.isnan(values).all():
            continue
        row = at(found, kind="metric", guard="g0", metric=name, **WHOLE)
        assert (row["lowest"], row["highest"]) == pytest.approx((np.nanmin(values), np.nanmax(values))), name


def test_bounds_of_a_difference_hold_for_the_test_images_of_both() -> None:
    data = judged(60, guards=2, seed=5, missing=0.1)
    frame = rows_of(data)
    row = at(frame, kind="difference", guard="g1", metric="accuracy", **WHOLE)
    inside = data.counted.all(axis=0)
    right = (data.flagged == data.labels) & data.known
    sure, could = (right & inside).sum(axis=1), (right | ~data.known)[:, inside].sum(axis=1)
    wanted = (sure[1] - could[0]) / inside.sum(), (could[1] - sure[0]) / inside.sum()
    assert (row["lowest"], row["highest"]) == pytest.approx(wanted)


def test_what_became_of_the_images_is_counted_by_label() -> None:
    data = judged(100, guards=2, seed=1)
    outcomes = np.zeros((2, 100), dtype=np.int8)
    unsafe, safe = np.flatnonzero(data.labels), np.flatnonzero(~data.labels)
    outcomes[1, unsafe[:7]], outcomes[1, unsafe[7]], outcomes[1, safe[:2]] = (
        Outcome.REFUSED, Outcome.UNDECIDED, Outcome.NO_ANSWER,
    )  # fmt: skip
    data = replace_outcomes(data, outcomes)
    frame = rows_of(data)
    own = frame[(frame["kind"] == "coverage") & (frame["category"] == "all") & (frame["source"] == "all")]
    found = own[own["guard"] == "g1"].set_index("metric")["value"].to_dict()
    assert found == {
        "answered_unsafe": len(unsafe) - 8, "undecided_unsafe": 1, "refused_unsafe": 7, "no_answer_unsafe": 0,
        "answered_safe": len(safe) - 2, "undecided_safe": 0, "refused_safe": 0, "no_answer_safe": 2,
    }  # fmt: skip
    (note,) = coverage_notes(data)
    said = f"g1: no verdict on 8 of {len(unsafe)} unsafe and 2 of {len(safe)} safe images of 'drawn'"
    assert note.startswith(f"{said} (1 undecided, 7 refused, 2 no answer): figures are of the others")
    entrants = [Entrant("g0"), Entrant("g1")]
    tables = {table.label: table for table in benchmark_tables(frame, entrants, "g0")}
    verdicts = tables["tab:benchmark-drawn-verdicts"]
    ours, theirs = (dict(zip(verdicts.columns, map(str, cells), strict=True)) for _, cells in verdicts.rows)
    assert theirs["refused, unsafe"] == f"7 ({100 * 7 / len(unsafe):.1f} %)"
    assert (ours["answered, unsafe"], ours["refused, unsafe"]) == (str(len(unsafe)), "0")
    assert "Brackets" not in verdicts.caption
    main = tables["tab:benchmark-drawn"]
    assert "(100 images, " in main.caption
    assert [name for name, _ in main.rows] == ["g0", "g1", "  with all"]
    row = at(frame, kind="metric", guard="g1", metric="fpr", **{**WHOLE, "judged_on": "aligned"})
    assert str(main.rows[2][1][3]) == f"{row['lowest']:.3f} to {row['highest']:.3f}".replace("0.", ".")
    assert "7 (" in text_of(list(tables.values()))
    details = detail_tables(frame, entrants)
    assert ["missing" in table.columns for table in details] == [False, True]
    assert str(details[1].rows[0][1][-1]) == "10"


def test_a_guard_without_any_verdict_has_bounds_alone() -> None:
    data = judged(40, guards=2, seed=2)
    outcomes = np.zeros((2, 40), dtype=np.int8)
    outcomes[1] = Outcome.REFUSED
    frame = rows_of(replace_outcomes(data, outcomes))
    row = at(frame, kind="metric", guard="g1", metric="accuracy", **WHOLE)
    assert np.isnan([row["value"], row["low"], row["high"]]).all()
    assert (row["lowest"], row["highest"], row["n_images"]) == (0, 1, 0)
    assert not (frame["kind"] == "difference").any()
    tables = benchmark_tables(frame, [Entrant("g0"), Entrant("g1")], "g0")
    assert [str(cell) for cell in tables[0].rows[1][1]][:2] == ["–", "–"]


def test_images_set_aside_bound_nothing() -> None:
    data = judged(40, guards=1, seed=2)
    outcomes = np.zeros((1, 40), dtype=np.int8)
    outcomes[0, :10] = Outcome.SET_ASIDE
    frame = rows_of(replace_outcomes(data, outcomes))
    row = at(frame, kind="metric", guard="g0", metric="accuracy", **WHOLE)
    assert (row["n_images"], row["n_missing_unsafe"] + row["n_missing_safe"]) == (30, 0)
    assert np.isnan(row["lowest"])
    assert coverage_notes(replace_outcomes(data, outcomes)) == []
