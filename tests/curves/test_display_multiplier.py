"""The multiplier plot: marks and bars are the estimates, and what is censored looks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from guardtrain.curves.bootstrap import bootstrap_points
from guardtrain.curves.display_multiplier import MultiplierDisplay, multiplier_panels
from guardtrain.curves.efficiency import LineReplicates, data_multiplier
from guardtrain.curves.statistics import Line
from guardtrain.errors import DataError
from tests.curves.scored_curve import scored_curve

Curve = tuple[pd.DataFrame, Path]


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> Curve:
    return scored_curve(tmp_path_factory.mktemp("curve"))


@pytest.fixture(scope="module")
def boot(curve: Curve) -> Any:
    return bootstrap_points(*curve, "pairs", "auroc", 200)


def test_marks_and_bars_are_the_estimates(boot: Any) -> None:
    display = MultiplierDisplay.from_replicates([boot]).plot()
    assert [[own.line.control for own in panel.family] for panel in display.panels] == [["paired", "unpaired"]] * 2
    real = LineReplicates.of(boot, Line("replace", "none", 0.0))
    for panel, ax in zip(display.panels, display.axes_, strict=True):
        singles = [line for line in ax.get_lines() if len(line.get_xdata()) == 1]
        bars = [line for line in ax.get_lines() if len(line.get_xdata()) == 2 and len(set(line.get_xdata())) == 1]
        expected = [
            estimate for own in panel.family for estimate in data_multiplier(real, LineReplicates.of(boot, own.line))
        ]
        value = {"^": np.inf, "v": -np.inf}
        drawn = [m for m in singles if m.get_markersize() > 3]
        assert len(drawn) == len(expected)
        for mark, estimate in zip(drawn, expected, strict=True):
            bound = np.clip(estimate.value, estimate.floor, estimate.ceiling)
            assert mark.get_ydata()[0] == pytest.approx(bound)
            assert value.get(mark.get_marker(), estimate.value) == estimate.value
            if np.isinf(estimate.value):
                assert mark.get_markerfacecolor() == "white", "a bound is open"
        spans = [e for e in expected if e.low != e.high]
        assert len(bars) == len(spans)
        for bar, estimate in zip(bars, spans, strict=True):
            ends = np.clip([estimate.low, estimate.high], estimate.floor, estimate.ceiling)
            assert bar.get_ydata() == pytest.approx(ends)


def test_axes_and_caption_say_what_is_drawn(boot: Any) -> None:
    display = MultiplierDisplay.from_replicates([boot]).plot()
    figure = display.figure_
    assert figure is not None
    figure.canvas.draw()
    assert display.axes_[0].get_xscale() == display.axes_[0].get_yscale() == "log"
    assert [t.get_text() for t in display.axes_[0].get_xticklabels()][:1] == ["16"]
    assert "1×" in [t.get_text() for t in display.axes_[0].get_yticklabels()]
    assert len({ax.get_ylim() for ax in display.axes_}) == 1
    told = figure.legends[0].get_title().get_text().replace("\n", " ")
    assert "Open triangles: real data alone never does as well" in told
    assert "200 bootstrap replicates over 4 seeds and test groups" in told
    assert "unpaired ½ (control)" in [t.get_text() for t in figure.legends[0].get_texts()]
    assert "pairs only" in display.alt()


def test_a_bound_is_not_joined_to_what_was_measured(boot: Any) -> None:
    display = MultiplierDisplay.from_replicates([boot]).plot()
    censored = 0
    for panel, ax in zip(display.panels, display.axes_, strict=True):
        joined = [line for line in ax.get_lines() if line.get_alpha() == 0.6]
        for own, line in zip(panel.family, joined, strict=True):
            infinite = [np.isinf(e.value) for e in own.estimates]
            np.testing.assert_array_equal(np.isnan(line.get_ydata()), infinite)
            censored += sum(infinite)
    assert censored


def test_panels_are_those_that_can_be_resampled(curve: Curve) -> None:
    frame, scores = curve
    assert multiplier_panels(frame) == [("pairs", "auroc"), ("pairs", "pair_both_right")]
    assert multiplier_panels(frame, [("contexts", "brier"), ("pairs", "ece")]) == [("contexts", "brier")]
    with pytest.raises(DataError, match="can be resampled: auroc, accuracy, brier"):
        MultiplierDisplay.from_results(frame, scores, [("pairs", "f1")])
    with pytest.raises(DataError, match="Unknown metric 'auc'"):
        MultiplierDisplay.from_results(frame, scores, [("pairs", "auc")])


def test_without_a_baseline_at_two_budgets_there_is_none(curve: Curve) -> None:
    frame, scores = curve
    with pytest.raises(DataError, match="real data alone at 64, and 4 other lines"):
        MultiplierDisplay.from_results(frame[frame["budget"] == 64], scores)
    with pytest.raises(DataError, match="at no budget"):
        MultiplierDisplay.from_results(frame[frame["control"] != "none"], scores)
    with pytest.raises(DataError, match="0 other lines"):
        MultiplierDisplay.from_results(frame[frame["control"] == "none"], scores)
