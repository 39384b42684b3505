"""`guardtrain plan` from a curve's folder, from the embedded pilot, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.curves.scored_curve import scored_curve

Run = Callable[..., str]


def test_a_plan_is_made_of_a_curve_or_of_the_scenes(run: Run, tmp_path: Path) -> None:
    scored_curve(tmp_path / "pilot", budgets=(16, 64, 256), ratios=(0.0, 0.5), seeds=4)
    text = run("plan", f"results={tmp_path / 'pilot'}", "difference=0.05")
    assert "Seeds that show a difference of .050 in AUROC on 'pairs' in 80 % of curves" in " ".join(text.split())
    assert "pairs ½ (replace) − unpaired ½ (control)" in text and "the 60 test groups" in text
    assert "the embedded scenes" in " ".join(run("plan").split())


def test_what_is_no_pilot_is_refused(run: Run) -> None:
    assert "There are no results at nowhere" in run("plan", "results=nowhere", code=2)
    assert "power is 1; it must be above .05 and below 1" in run("plan", "power=1", code=2)
    assert "The embedded pilot has AUROC" in run("plan", "metric=brier", code=2)
