"""A head that is another one without pairs is never shown in silence under its own name."""

from __future__ import annotations

from typing import Any

from guardtrain.curves.findings import findings
from guardtrain.curves.pairless import pairless_lines
from guardtrain.curves.statistics import whole_slices
from guardtrain.curves.summary import run_text, summary_text

HEADS = ("linear", "pair_direction")


def test_a_curve_says_which_runs_are_the_other_head(frames: Any) -> None:
    frame = frames(heads=HEADS, controls=("paired", "unpaired", "real"))
    (line,) = pairless_lines(whole_slices(frame))
    assert line.startswith(
        "pair_direction is made of pairs: runs without one (real data alone, the unpaired control, the more real "
        "control) are gda under its name."
    )
    assert " ".join(line.split()) in " ".join(summary_text(frame).split())
    assert [each.sentences for each in findings(frame) if each.subject == "Heads that are made of pairs"] == [(line,)]
    assert pairless_lines(whole_slices(frame[frame["control"] == "paired"])) == []
    assert "made of pairs" not in summary_text(frame[frame["head"] == "linear"])
    (line,) = pairless_lines(whole_slices(frame[frame["control"].isin(["paired", "none"])]))
    assert "runs without one (real data alone) are gda" in line


def test_a_run_says_what_it_is(frames: Any) -> None:
    frame = frames(heads=HEADS)
    for control, pairless in (("none", True), ("unpaired", True), ("paired", False)):
        own = frame[(frame["control"] == control) & (frame["head"] == "pair_direction")]
        text = run_text(own[own["run"] == own["run"].iloc[0]])
        assert ("there is none here: this is gda" in text) == pairless
    of_one_image = own.assign(n_pair_images=1)
    assert "this is gda" in run_text(of_one_image[of_one_image["run"] == own["run"].iloc[0]])
