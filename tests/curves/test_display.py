"""The figure: what is drawn is the summary, and it can be read."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure

from guardtrain.curves.display import CurveDisplay
from guardtrain.curves.display_style import STYLE
from guardtrain.curves.paid import CostSettings
from guardtrain.curves.statistics import summarise
from guardtrain.errors import ConfigError, DataError


def drawn(ax: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}


def test_lines_and_bands_are_the_summary(frames: Any) -> None:
    frame = frames()
    display = CurveDisplay.from_results(frame, [("pairs", "auroc"), ("pairs", "pair_both_right")]).plot()
    names = {"none": "real only", "paired": "pairs ½ (replace)", "unpaired": "unpaired ½ (control)"}
    for ax, metric in zip(display.axes_, ("auroc", "pair_both_right"), strict=True):
        points = summarise(frame[frame["test"] == "pairs"], metric)
        lines = drawn(ax)
        assert len(lines) == len(ax.collections) == 5
        for control, name in names.items():
            own = points[(points["control"] == control) & (points["ratio"] <= 0.5)]
            np.testing.assert_allclose(lines[name].get_xdata(), own["budget"])
            np.testing.assert_allclose(lines[name].get_ydata(), own["mean"])
            band = ax.collections[list(lines).index(name)].get_paths()[0].vertices
            for x, low, high in own[["budget", "low", "high"]].itertuples(index=False):
                there = band[band[:, 0] == x, 1]
                assert (there.min(), there.max()) == pytest.approx((low, high))


def test_axes_and_legend_say_what_is_drawn(frames: Any) -> None:
    display = CurveDisplay.from_results(frames(), title="Scenes").plot()
    assert display.figure_ is not None
    assert [ax.get_ylabel() for ax in display.axes_] == [
        "AUROC\non test set 'contexts'",
        "AUROC\non test set 'pairs'",
        "Pairs with both sides right\non test set 'pairs'",
    ]
    ax = display.axes_[1]
    assert ax.get_xlabel() == "Budget n (labelled images)"
    assert ax.get_xscale() == "log"
    display.figure_.canvas.draw()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["16", "64", "256"]
    assert ax.get_title(loc="left") == "200 images, 100 pairs"
    legend = display.figure_.legends[0]
    assert [t.get_text() for t in legend.get_texts() if t.get_text()] == list(drawn(ax))
    assert "means over 4 seeds" in legend.get_title().get_text()
    assert "95 % Student t intervals" in legend.get_title().get_text()
    assert display.figure_.get_suptitle() == "Scenes"
    assert display.figure_.get_figwidth() == 7.0


def test_nothing_overlaps_or_leaves_the_page(frames: Any) -> None:
    grid = {"arms": ("replace", "add"), "controls": ("paired", "unpaired"), "heads": ("linear", "mlp")}
    for display in (CurveDisplay.from_results(frames()), CurveDisplay.from_results(frames(**grid))):
        figure = display.plot().figure_
        assert figure is not None
        figure.canvas.draw()
        page, legend = figure.bbox, figure.legends[0].get_window_extent()
        boxes = [ax.get_tightbbox() for ax in display.axes_]
        assert all(box.y0 > legend.y1 for box in boxes), "the legend stands below the panels"
        for box in [legend, *boxes]:
            assert page.x0 - 1 <= box.x0
            assert box.x1 <= page.x1 + 1
            assert page.y0 - 1 <= box.y0
        for i, one in enumerate(boxes):
            assert not any(one.overlaps(other) for other in boxes[i + 1 :])


def test_controls_share_the_colour_and_differ_without_it(frames: Any) -> None:
    lines = drawn(CurveDisplay.from_results(frames(), [("pairs", "auroc")]).plot().axes_[0])
    pairs, control = lines["pairs ½ (replace)"], lines["unpaired ½ (control)"]
    assert pairs.get_color() == control.get_color()
    assert pairs.get_linestyle() != control.get_linestyle()
    assert control.get_markerfacecolor() == "white"
    looks = {(x.get_linestyle(), x.get_marker(), x.get_markerfacecolor() == "white") for x in lines.values()}
    assert len(looks) == len(lines), "each line can be told in grey print"


def test_files_are_written_twice_the_same(frames: Any, tmp_path: Path) -> None:
    frame = frames()
    first = CurveDisplay.from_results(frame).save(tmp_path / "a")
    second = CurveDisplay.from_results(frame).save(tmp_path / "b")
    assert [p.name for p in first] == ["curve.png", "curve.svg"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["curve.png", "curve.svg"]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    svg = first[1].read_text()
    assert ">real only</text>" in svg, "text stays text"
    assert "<dc:date>" not in svg


def test_one_seed_says_so(frames: Any) -> None:
    display = CurveDisplay.from_results(frames(seeds=1)).plot()
    assert "One seed: no bands." in display.caption()


def test_panels_without_values_are_left_out_with_a_note(frames: Any) -> None:
    frame = frames()
    display = CurveDisplay.from_results(frame, [("contexts", "pair_both_right"), ("pairs", "auroc")])
    assert [(p.test, p.metric) for p in display.panels] == [("pairs", "auroc")]
    assert "Pairs with both sides right has no values on 'contexts'" in display.caption()
    with pytest.raises(DataError, match="Nothing to draw"):
        CurveDisplay.from_results(frame, [("contexts", "pair_both_right")])


def test_one_budget_is_drawn_over_added_images(frames: Any) -> None:
    controls = ("paired", "unpaired", "real")
    frame = frames(budgets=(400,), ratios=(0.0, 0.05, 0.2), arms=("add",), controls=controls, tests=("pairs",))
    display = CurveDisplay.from_results(frame, [("pairs", "auroc")]).plot()
    assert display.x == "n_pair_images"
    lines = drawn(display.axes_[0])
    assert list(lines) == ["real only", "pairs (add)", "unpaired (control)", "more real (control)"]
    assert all(lines[name].get_xdata().tolist() == [0, 20, 80] for name in list(lines)[1:])
    points = summarise(frame, "auroc")
    np.testing.assert_allclose(
        lines["pairs (add)"].get_ydata(),
        points[points["control"].isin(["none", "paired"])].sort_values("ratio")["mean"],
    )
    assert display.axes_[0].get_xlabel() == "Images added to 400 real (pairs: two each)"


def test_images_used_on_the_x_axis(frames: Any) -> None:
    frame = frames(arms=("add",), tests=("pairs",))
    lines = drawn(CurveDisplay.from_results(frame, [("pairs", "auroc")], x="images").plot().axes_[0])
    assert lines["real only"].get_xdata().tolist() == [16, 64, 256]
    assert lines["pairs ½ (add)"].get_xdata().tolist() == [24, 96, 384]


def test_what_was_paid_on_the_x_axis(frames: Any) -> None:
    """At n = 256 with pairs ½: 128 real images and 64 pairs, or 128 halves of as many pairs."""
    frame = frames(tests=("pairs",), ratios=(0.0, 0.5))
    ends = {}
    for x in ("labels", "contexts", "cost"):
        costs = CostSettings(label=1, edit=4, check=0.5)
        display = CurveDisplay.from_results(frame, [("pairs", "auroc")], x=x, costs=costs).plot()
        ends[x] = {name: line.get_xdata()[-1] for name, line in drawn(display.axes_[0]).items()}
    pairs, control = "pairs ½ (replace)", "unpaired ½ (control)"
    assert ends["labels"] == {"real only": 256, pairs: 128 + 64, control: 128 + 64}
    assert ends["contexts"] == {"real only": 256, pairs: 128 + 64, control: 256}
    assert ends["cost"] == {"real only": 256, pairs: 128 + 64 * 5.5, control: 128 + 64 * 5.5}
    assert display.axes_[0].get_xlabel() == "Cost of labels, edits, checks"
    with pytest.raises(ConfigError, match="all 0"):
        CostSettings(0, 0, 0)
    with pytest.raises(ConfigError, match=r"plot\.costs\.edit is -1"):
        CostSettings(edit=-1)


def test_figures_are_laid_out_in_their_own_style(frames: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many marks an axis has hangs on the style: with others when it is laid out, labels leave the page."""
    sizes: list[Any] = []
    laid_out = Figure.draw_without_rendering

    def noted(figure: Figure) -> None:
        sizes.append(rcParams["ytick.labelsize"])
        laid_out(figure)

    monkeypatch.setattr(Figure, "draw_without_rendering", noted)
    CurveDisplay.from_results(frames(), [("pairs", "auroc")]).save(tmp_path, formats=["svg"])
    CurveDisplay.from_results(frames(), [("pairs", "auroc")]).svg()
    assert sizes == [STYLE["ytick.labelsize"]] * 2


def test_axes_of_the_users_own(frames: Any) -> None:
    display = CurveDisplay.from_results(frames(), [("pairs", "auroc")])
    figure = Figure()
    ax = figure.subplots()
    assert display.plot(ax=ax).figure_ is figure
    assert not figure.legends
    assert len(drawn(ax)) == 5
    with pytest.raises(DataError, match="1 panels need as many axes; 2"):
        display.plot(figure.subplots(1, 2))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": "n"}, ConfigError, "allowed: auto, budget, images, labels, contexts, cost, n_pair_images"),
        ({"x": "n_pair_images"}, DataError, "the results have 16, 64, 256"),
        ({"panels": [("wild", "auroc")]}, DataError, "Unknown test set 'wild'"),
        ({"panels": [("pairs", "auc")]}, DataError, "Unknown metric 'auc'"),
    ],
)
def test_wrong_requests_are_refused(frames: Any, changes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        CurveDisplay.from_results(frames(), **changes)


def test_a_figure_is_as_wide_as_the_column(frames: Any) -> None:
    display = CurveDisplay.from_results(frames(), width=3.3).plot()
    figure = display.figure_
    assert figure is not None
    figure.canvas.draw()
    assert figure.get_figwidth() == 3.3
    boxes = [ax.get_tightbbox() for ax in display.axes_]
    assert max(box.x1 for box in boxes) <= figure.bbox.x1 + 1
    assert all(above.y0 > below.y1 for above, below in pairwise(boxes)), "below each other"
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert "" not in names, "one column has no gaps"


def test_formats_are_chosen_and_checked(frames: Any, tmp_path: Path) -> None:
    display = CurveDisplay.from_results(frames())
    assert [p.name for p in display.save(tmp_path, "mine", ["pdf"])] == ["mine.pdf"]
    with pytest.raises(ConfigError, match="Unknown format 'gif'; allowed: png, svg, pdf"):
        display.save(tmp_path, formats=["gif"])


def test_the_reports_svg_has_outlines_and_no_caption_and_leaves_the_figure_as_it_was(frames: Any) -> None:
    display = CurveDisplay.from_results(frames()).plot()
    assert display.figure_ is not None
    told = display.figure_.legends[0].get_title().get_text()
    svg = display.svg()
    assert "<text" not in svg
    assert display.figure_.legends[0].get_title().get_text() == told
    assert display.svg() == svg


def test_the_figure_in_words_has_its_last_values(frames: Any) -> None:
    frame = frames()
    points = summarise(frame[frame["test"] == "pairs"], "auroc").query("budget == 256 and control == 'none'")
    alt = CurveDisplay.from_results(frame, [("pairs", "auroc")]).alt()
    assert f"real only {points['mean'].item():.3f}".replace("0.", ".") in alt
    assert "budgets n from 16 to 256 images" in alt


def test_importing_is_light() -> None:
    modules = "display, display_base, display_categories, point_scores, results, scores, statistics, summary, tables"
    code = f"import sys; from guardtrain.curves import {modules}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "scipy", "pandas", "rich", "torch"} & set(loaded)


def test_drawing_leaves_pyplot_out(frames: Any, tmp_path: Path) -> None:
    frames().to_parquet(tmp_path / "frame.parquet")
    code = (
        "import sys, pandas; from guardtrain.curves.display import CurveDisplay;"
        "CurveDisplay.from_results(pandas.read_parquet(sys.argv[1]), [('pairs', 'auroc')]).plot(); print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "frame.parquet")]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "matplotlib.figure" in loaded
    assert "matplotlib.pyplot" not in loaded


def test_heads_with_real_data_alone_are_lines_of_one_panel(frames: Any) -> None:
    heads = tuple("hgfedcba")
    frame = frames(heads=heads, ratios=(0.0,), tests=("pairs",))
    display = CurveDisplay.from_results(frame, [("pairs", "auroc")]).plot()
    (ax,) = display.axes_
    lines = drawn(ax)
    assert tuple(lines) == heads, "in the order of the table"
    assert ax.get_title(loc="left") == "8 heads · 200 images, 100 pairs"
    for head, line in lines.items():
        points = summarise(frame[frame["head"] == head], "auroc").sort_values("budget")
        np.testing.assert_allclose(line.get_ydata(), points["mean"])
    looks = {(line.get_color(), line.get_marker(), str(line.get_linestyle())) for line in lines.values()}
    assert len(looks) == len(heads)
    assert display.figure_ is not None
    texts = [t.get_text() for t in display.figure_.legends[0].get_texts()]
    assert [t for t in texts if t] == list(heads)
    assert all(f"{head} ." in display.alt() for head in heads)


def test_panels_of_several_heads_share_their_axis_and_stand_in_columns(frames: Any) -> None:
    frame = frames(heads=("linear", "mlp"))
    frame.loc[frame["head"] == "mlp", "auroc"] -= 0.1
    kinds = [("pairs", "auroc"), ("pairs", "pair_both_right")]
    display = CurveDisplay.from_results(frame, kinds).plot()
    limits = [ax.get_ylim() for ax in display.axes_]
    assert limits[0] == limits[2]
    assert limits[1] == limits[3]
    assert limits[0] != limits[1]
    assert [ax.get_title(loc="left").splitlines()[0] for ax in display.axes_] == ["linear"] * 2 + ["mlp"] * 2
    places = [ax.get_subplotspec() for ax in display.axes_]
    assert [(p.rowspan.start, p.colspan.start) for p in places] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    means = summarise(frame[frame["test"] == "pairs"], "auroc")["mean"]
    assert limits[0][0] < means.min() < means.max() < limits[0][1]


def test_two_seeds_are_two_dots_and_no_band(frames: Any) -> None:
    """An interval of two seeds is 12.7 standard errors to either side: it would fill the panel."""
    frame = frames(seeds=2, tests=("pairs",))
    frame.loc[(frame["budget"] == 16) & (frame["seed"] == 0), "auroc"] += 0.2
    display = CurveDisplay.from_results(frame, [("pairs", "auroc")]).plot()
    means = summarise(frame, "auroc")["mean"]
    (ax,) = display.axes_
    low, high = ax.get_ylim()
    assert low < means.min() < means.max() < high
    assert all(np.isnan(band.get_paths()[0].vertices).all() if band.get_paths() else True for band in ax.collections)
    dots = np.concatenate([line.get_ydata() for line in ax.lines if line.get_linestyle() == "None"])
    np.testing.assert_allclose(np.sort(dots), np.sort(frame["auroc"].to_numpy()), atol=1e-12)
    assert "Dots: the two seeds; an interval of two is 12.7" in display.caption()
    assert "Bands" not in display.caption()
    three = CurveDisplay.from_results(frames(tests=("pairs",)), [("pairs", "auroc")]).caption()
    assert "Dots" not in three and "Bands: 95 %" in three and "leave a panel" not in three


def test_no_band_of_shares_ends_beyond_them(frames: Any) -> None:
    frame = frames(seeds=3, tests=("pairs",))
    frame["auroc"] = np.where(frame["seed"] == 0, 0.9, 0.999)  # ± .14: to 1.1
    assert summarise(frame, "auroc")["high"].max() > 1.05
    display = CurveDisplay.from_results(frame, [("pairs", "auroc")]).plot()
    ends = np.concatenate([path.vertices[:, 1] for band in display.axes_[0].collections for path in band.get_paths()])
    assert ends.max() == 1 and ends.min() < 0.9
    frame["pair_margin"] = np.where(frame["seed"] == 0, 0.5, 3)  # of logits, which have no end
    display = CurveDisplay.from_results(frame, [("pairs", "pair_margin")]).plot()
    ends = np.concatenate([path.vertices[:, 1] for band in display.axes_[0].collections for path in band.get_paths()])
    assert ends.max() > 3


@pytest.mark.parametrize("budgets", [(15, 30, 60, 90, 120, 150, 301, 602, 903, 1204, 1506), (16, 17, 18, 2048)])
def test_labels_of_uneven_budgets_do_not_touch(frames: Any, budgets: tuple[int, ...]) -> None:
    for width in (3.3, 5.6, 7.0):
        frame = frames(budgets=budgets, ratios=(0.0,), tests=("pairs",), seeds=2)
        display = CurveDisplay.from_results(frame, [("pairs", "auroc")], width=width).plot()
        assert display.figure_ is not None
        display.figure_.canvas.draw()
        labels = [t for t in display.axes_[0].get_xticklabels() if t.get_text()]
        assert (labels[0].get_text(), labels[-1].get_text()) == (f"{budgets[0]}", f"{budgets[-1]:,}")
        boxes = [label.get_window_extent() for label in labels]
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
