"""What is said of a curve: nothing that its interval does not allow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from guardtrain.curves.bootstrap import bootstrap_difference, bootstrap_points
from guardtrain.curves.efficiency import LineReplicates, data_multiplier
from guardtrain.curves.findings import Comparison, comparisons, findings
from guardtrain.curves.statistics import Line
from tests.curves.scored_curve import scored_curve

REAL, PAIRS, CONTROL = (Line("replace", c, r) for c, r in (("none", 0.0), ("paired", 0.5), ("unpaired", 0.5)))


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    return scored_curve(tmp_path_factory.mktemp("curve"))


def told(found: Any) -> str:
    return "\n".join(f"{f.subject}: {s}" for f in found for s in f.sentences)


def test_comparisons_are_paired_t_intervals_at_the_largest_budget(curve: tuple[pd.DataFrame, Path]) -> None:
    frame = curve[0]
    found = comparisons(frame, [("pairs", "auroc")])
    assert len(found) == 4, "two ratios, each against real data alone and its control"
    one = next(c for c in found if (c.line, c.other) == (PAIRS, REAL))
    whole = frame[(frame["slice_kind"] == "all") & (frame["test"] == "pairs") & (frame["budget"] == 256)]
    a, b = (
        whole[(whole["control"] == line.control) & (whole["ratio"] == line.ratio)].sort_values("seed")["auroc"]
        for line in (PAIRS, REAL)
    )
    change = a.to_numpy() - b.to_numpy()
    interval = stats.t.interval(0.95, len(change) - 1, loc=change.mean(), scale=stats.sem(change))
    assert (one.budget, one.difference) == (256, pytest.approx(change.mean()))
    assert (one.low, one.high) == pytest.approx(interval)


def test_comparisons_are_bootstrapped_where_the_scores_are(curve: tuple[pd.DataFrame, Path]) -> None:
    boot = bootstrap_points(*curve, "pairs", "auroc", 100)
    found = comparisons(curve[0], [("pairs", "auroc")], {("pairs", "auroc"): boot})
    one = next(c for c in found if (c.line, c.other) == (PAIRS, CONTROL))
    sides = [{"arm": line.arm, "control": line.control, "ratio": line.ratio} for line in (PAIRS, CONTROL)]
    expected = bootstrap_difference(boot, sides[0], sides[1]).query("budget == 256").iloc[0]
    assert (one.difference, one.low, one.high) == tuple(expected[["difference", "low", "high"]])


@pytest.mark.parametrize(
    ("metric", "low", "high", "better"),
    [
        ("auroc", 0.01, 0.03, True),
        ("auroc", -0.03, -0.01, False),
        ("brier", -0.03, -0.01, True),
        ("ece", 0.01, 0.03, False),
        ("auroc", -0.001, 0.03, None),
        ("auroc", 0.0004, 0.03, None),  # would be printed as +.000
        ("auroc", float("nan"), float("nan"), None),
    ],
)
def test_a_side_is_better_only_where_the_interval_says_so(metric: str, low: float, high: float, better: Any) -> None:
    made = Comparison("h", "t", metric, 16, PAIRS, REAL, (low + high) / 2, low, high)
    assert made.better is better


def test_no_sentence_claims_what_its_interval_does_not(curve: tuple[pd.DataFrame, Path]) -> None:
    frame, scores = curve
    panels = [("pairs", "auroc"), ("contexts", "auroc"), ("pairs", "brier")]
    boots = {panel: bootstrap_points(frame, scores, *panel, 200) for panel in panels}
    text = told(findings(frame, panels, boots, multiplied=[boots[panels[0]]]))
    assert "Better than real data alone at n = 256: pairs ½ (replace)" in text
    seen = 0
    for sentence in text.splitlines():
        worse_is_higher = "Brier" in sentence
        for value, low, high in re.findall(r"([+−][\d.]+) \[([+−][\d.]+), ([+−][\d.]+)\]", sentence):
            ends = [float(end.replace("−", "-")) for end in (low, value, high)]
            assert ends == sorted(ends)
            seen += 1
            if "No difference" in sentence:
                assert ends[0] <= 0 <= ends[2]
            else:
                assert (ends[0] > 0) == (("Better" in sentence) != worse_is_higher)
                assert ends[0] > 0 or ends[2] < 0
    assert seen == len(comparisons(frame, panels)) == 12


def test_the_multiplier_is_told_with_its_control(curve: tuple[pd.DataFrame, Path]) -> None:
    frame, scores = curve
    boot = bootstrap_points(frame, scores, "pairs", "auroc", 200)
    found = findings(frame, [("pairs", "auroc")], {("pairs", "auroc"): boot}, multiplied=[boot])
    (sentence,) = (s for f in found for s in f.sentences if s.startswith("Pairs ½ (replace)"))
    lines = [LineReplicates.of(boot, line) for line in (REAL, CONTROL, PAIRS)]
    for baseline, what in ((lines[0], "real images"), (lines[1], "unpaired images")):
        estimate = data_multiplier(baseline, lines[2])[2]  # 64, the middle of five budgets
        part = next(p for p in sentence.split(";") if what in p)
        assert estimate.text(1) in part
        claimed = "do the work of" in part
        assert claimed == (round(estimate.low, 1) > 1 or round(estimate.high, 1) < 1)


def test_without_a_control_it_says_what_is_not_shown(curve: tuple[pd.DataFrame, Path]) -> None:
    frame = curve[0]
    assert "No control was run" in told(findings(frame[frame["control"] != "unpaired"]))
    assert "No control was run" not in told(findings(frame))


def test_one_seed_claims_nothing(curve: tuple[pd.DataFrame, Path]) -> None:
    frame, scores = curve
    one = frame[frame["seed"] == 0]
    boots = {("pairs", "auroc"): bootstrap_points(one, scores, "pairs", "auroc", 50)}
    for text in (told(findings(one)), told(findings(one, [("pairs", "auroc")], boots, multiplied=[*boots.values()]))):
        assert "(no interval)" in text
        assert "Better" not in text
        assert "do the work of" not in text


def test_the_shortcut_is_told_where_the_test_sets_show_it(curve: tuple[pd.DataFrame, Path]) -> None:
    text = told(findings(curve[0]))
    assert re.search(r"Real data alone at n = 256 has AUROC \.\d+ ± \.\d+ on 'contexts', and gets both sides", text)
    assert "Shortcut" not in told(findings(curve[0][curve[0]["test"] == "pairs"]))
    assert "If 'contexts' is not of the real pool's kind" in text
    named = told(findings(curve[0], in_domain="contexts"))
    assert "has AUROC" in named and "plot.in_domain" not in named
    assert "Shortcut" not in told(findings(curve[0], in_domain=""))
