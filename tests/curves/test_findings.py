"""What is said of a curve: nothing that its interval does not allow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from guardtrain.curves.bootstrap import bootstrap_difference, bootstrap_points
from guardtrain.curves.comparisons import BEST, Comparison, comparisons
from guardtrain.curves.efficiency import LineReplicates, data_multiplier
from guardtrain.curves.findings import findings
from guardtrain.curves.statistics import Line
from tests.curves.scored_curve import scored_curve

REAL, PAIRS, CONTROL = (Line("replace", c, r) for c, r in (("none", 0.0), ("paired", 0.5), ("unpaired", 0.5)))


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    return scored_curve(tmp_path_factory.mktemp("curve"))


def told(found: Any) -> str:
    return "\n".join(f"{f.subject}: {s}" for f in found for s in f.sentences)


def test_comparisons_are_paired_t_intervals_widened_for_their_number(curve: tuple[pd.DataFrame, Path]) -> None:
    frame = curve[0]
    found = comparisons(frame, [("pairs", "auroc")])
    assert len(found) == 4, "two ratios, each against real data alone and its control"
    one = next(c for c in found if (c.line, c.other) == (PAIRS, REAL))
    assert one.budgets == (16, 32, 64, 128, 256) and one.asked == 10
    whole = frame[(frame["slice_kind"] == "all") & (frame["test"] == "pairs")]
    factors = []
    for k, budget in enumerate(one.budgets):
        rows = whole[whole["budget"] == budget]
        a, b = (
            rows[(rows["control"] == line.control) & (rows["ratio"] == line.ratio)].sort_values("seed")["auroc"]
            for line in (PAIRS, REAL)
        )
        change = a.to_numpy() - b.to_numpy()
        half = stats.t.ppf(0.975, len(change) - 1) * stats.sem(change)
        assert one.difference[k] == pytest.approx(change.mean())
        factors.append((one.high[k] - one.low[k]) / 2 / half)
    assert factors == pytest.approx([factors[0]] * 5) and factors[0] > 1.5


def test_comparisons_are_over_test_images_where_the_scores_are(curve: tuple[pd.DataFrame, Path]) -> None:
    """With one budget and one ratio there is one difference, whose interval is the bootstrap's of seeds and groups."""
    frame = curve[0][(curve[0]["budget"] == 256) & (curve[0]["ratio"] != 1)]
    boot = bootstrap_points(frame, curve[1], "pairs", "auroc", 2000)
    one = next(c for c in comparisons(frame, [("pairs", "auroc")], {("pairs", "auroc"): boot}) if c.other == CONTROL)
    sides = [{"arm": line.arm, "control": line.control, "ratio": line.ratio} for line in (PAIRS, CONTROL)]
    expected = bootstrap_difference(boot, sides[0], sides[1]).iloc[0]
    assert one.difference[0] == pytest.approx(expected["difference"])
    assert one.high[0] - one.low[0] == pytest.approx(expected["high"] - expected["low"], rel=0.25)
    alone = next(c for c in comparisons(frame, [("pairs", "auroc")]) if c.other == CONTROL)
    assert one.difference == pytest.approx(alone.difference)


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
    ends = ((low + high) / 2,), (low,), (high,), (0.02,)
    assert Comparison("h", "t", metric, PAIRS, REAL, (16,), *ends, 1).better is better


def test_where_along_the_curve_and_what_would_be_shown_is_said() -> None:
    budgets, ends = (16, 32, 64, 128), ((0.05, 0.06, 0.01, 0.03), (0.01, 0.02, -0.02, 0.01), (0.09, 0.1, 0.04, 0.05))
    one = Comparison("h", "t", "auroc", PAIRS, REAL, budgets, *ends, (0.07, 0.08, 0.04, 0.03), 4)
    assert one.told() == "better at n = 16 to 32 and 128, most +.060 [+.020, +.100] at n = 32"
    none = Comparison(
        "h", "t", "auroc", PAIRS, REAL, budgets, ends[0], (-0.1,) * 4, ends[2], (0.07, 0.08, 0.04, 0.03), 4
    )
    assert none.told() == "no difference shown; ≥ .030 would be, at n = 128"


def test_a_weak_head_gains_nothing_over_the_best_real_only_one(tmp_path: Path) -> None:
    """The second head's runs are the first's, its real ones better by more than pairs make of the first."""
    frame, _ = scored_curve(tmp_path, heads=("weak", "strong"), ratios=(0.0, 0.5), seeds=3)
    strong = (frame["head"] == "strong") & (frame["control"] == "none")
    frame.loc[strong, "auroc"] = frame.loc[strong, "auroc"] * 0.01 + 0.98
    found = comparisons(frame, [("pairs", "auroc")])
    by = {c.kind: c for c in found if c.head == "weak"}
    assert min(by["none"].difference) > 0 > max(by[BEST].difference)
    assert set(by[BEST].heads) == {"strong"}
    assert by[BEST].better is False
    text = told(findings(frame, [("pairs", "auroc")]))
    assert "Worse than the best real-only head: pairs ½ (replace) at every n" in text


def test_no_sentence_claims_what_its_interval_does_not(curve: tuple[pd.DataFrame, Path]) -> None:
    frame, scores = curve
    panels = [("pairs", "auroc"), ("contexts", "auroc"), ("pairs", "brier")]
    boots = {panel: bootstrap_points(frame, scores, *panel, 200) for panel in panels}
    text = told(findings(frame, panels, boots, multiplied=[boots[panels[0]]]))
    assert "Better than real data alone: pairs ½ (replace) at n = 16 and 256 (most: +." in text
    seen = 0
    for sentence in text.splitlines():
        worse_is_higher = "Brier" in sentence
        for value, low, high in re.findall(r"([+−][\d.]+) \[([+−][\d.]+), ([+−][\d.]+)\]", sentence):
            ends = [float(end.replace("−", "-")) for end in (low, value, high)]
            assert ends == sorted(ends)
            seen += 1
            assert "No difference" not in sentence
            assert (ends[0] > 0) == (("Better" in sentence) != worse_is_higher)
            assert ends[0] > 0 or ends[2] < 0
    compared = comparisons(frame, panels, boots)
    assert seen == sum(bool(c.shown(True)) + bool(c.shown(False)) for c in compared) > 0
    assert text.count(" would be, at n = ") == sum(not c.shown(True) and not c.shown(False) for c in compared)


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
        assert "no interval" in text
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
