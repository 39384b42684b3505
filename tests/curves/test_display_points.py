"""Reliability and ROC figures: what is drawn is scikit-learn's curves, averaged over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score, roc_curve

from guardtrain.curves.display_points import ReliabilityDisplay, RocDisplay
from guardtrain.curves.point_scores import PointChoice
from guardtrain.errors import DataError
from tests.curves.scored_curve import scored_curve

Curve = tuple[pd.DataFrame, Path]


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> Curve:
    return scored_curve(tmp_path_factory.mktemp("curve"))


def curves_of(ax: Any) -> list[Any]:
    return [line for line in ax.get_lines() if line.get_color() != "0.55" and len(line.get_xdata()) > 0]


def test_roc_lines_are_scikit_learns_averaged(curve: Curve) -> None:
    display = RocDisplay.from_results(*curve, tests=["pairs"]).plot()
    assert len(display.panels) == 2, "a panel a ratio, each with real data alone, pairs and control"
    for panel, ax in zip(display.panels, display.axes_, strict=True):
        assert [p.line.control for p in panel.points] == ["none", "paired", "unpaired"]
        for point, line in zip(panel.points, curves_of(ax), strict=True):
            at = line.get_xdata()
            each = []
            for scores in point.scores.probabilities:
                rate, found, _ = roc_curve(point.labels, scores, drop_intermediate=False)
                upper = pd.Series(found).groupby(rate).max()
                each.append([upper[upper.index <= f + 1e-12].iloc[-1] for f in at])
            np.testing.assert_allclose(line.get_ydata(), np.mean(each, axis=0), atol=1e-9)  # no ties: steps
        texts = [t.get_text() for t in ax.get_legend().get_texts()]
        for point, text in zip(panel.points, texts, strict=True):
            mean = np.mean([roc_auc_score(point.labels, s) for s in point.scores.ranked])
            assert f"AUROC {mean:.3f}".replace("0.", ".") in text


def test_reliability_points_are_scikit_learns_averaged(curve: Curve) -> None:
    display = ReliabilityDisplay.from_results(*curve, PointChoice(64, 0.5, "replace", "paired"), ["pairs"]).plot()
    (panel,), (ax,) = display.panels, display.axes_
    (point,), (line,) = panel.points, curves_of(ax)
    edges = np.linspace(0, 1, 16)
    found: dict[int, list[tuple[float, float]]] = {}
    for scores in point.scores.probabilities:
        unsafe, predicted = calibration_curve(point.labels, scores, n_bins=15)
        for x, y in zip(predicted, unsafe, strict=True):
            found.setdefault(int(np.searchsorted(edges, x) - 1), []).append((x, y))
    expected = np.array([np.mean(found[k], axis=0) for k in sorted(found)])
    np.testing.assert_allclose(np.column_stack([line.get_xdata(), line.get_ydata()]), expected, atol=1e-6)
    assert "ECE" in ax.get_legend().get_texts()[0].get_text()
    assert "n = 64" in ax.get_legend().get_title().get_text()


@pytest.mark.parametrize("kind", [ReliabilityDisplay, RocDisplay])
@pytest.mark.parametrize("seeds", [4, 1])
def test_nothing_overlaps_or_leaves_the_page(curve: Curve, kind: Any, seeds: int) -> None:
    frame, scores = curve
    display = kind.from_results(frame[frame["seed"] < seeds], scores).plot()
    figure = display.figure_
    assert figure is not None
    figure.canvas.draw()
    boxes = [ax.get_tightbbox() for ax in display.axes_]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 - 1 <= box.x0
        assert figure.bbox.y0 - 1 <= box.y0
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y1 <= figure.bbox.y1 + 1
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
    assert (seeds == 1) == ("One seed: no bands" in display.caption())


def test_axes_of_the_users_own(curve: Curve) -> None:
    from matplotlib.figure import Figure

    display = RocDisplay.from_results(*curve, PointChoice(control="none"), ["pairs"])
    figure = Figure()
    ax = figure.subplots()
    assert display.plot(ax=ax).figure_ is figure
    assert len(curves_of(ax)) == 1


def test_a_test_set_of_one_class_is_left_out(tmp_path: Path) -> None:
    frame, scores = scored_curve(tmp_path, budgets=(16,), seeds=2)
    points = RocDisplay.from_results(frame, scores).panels[0].points
    from dataclasses import replace

    one = [replace(p, labels=np.zeros_like(p.labels)) for p in points]
    with pytest.raises(DataError, match="Test set 'pairs' has images of one class: left out"):
        RocDisplay.from_points(one)


def test_heads_with_real_data_alone_share_a_roc_panel(tmp_path: Path) -> None:
    frame, scores = scored_curve(tmp_path, budgets=(16, 64), ratios=(0.0,), heads=("mlp", "linear", "knn"), seeds=2)
    display = RocDisplay.from_results(frame, scores, tests=["pairs"]).plot()
    (ax,) = display.axes_
    legend = ax.get_legend()
    assert legend is not None
    names = [text.get_text().split("  ")[0] for text in legend.get_texts()]
    assert names == ["mlp", "linear", "knn"]
    assert "3 heads" in ax.get_title(loc="left")
    assert len(RocDisplay.from_results(frame, scores).panels) == 2, "one a test set"
    assert len(ReliabilityDisplay.from_results(frame, scores, tests=["pairs"]).panels) == 3
