"""Where a gain comes from: the parts add up, each is what its control says, and what lacks is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from guardtrain.curves.bootstrap import bootstrap_points, seed_replicates
from guardtrain.curves.decomposition import (
    GAIN,
    LOSS,
    decomposition_text,
    decompositions,
    loss_name,
    missing_lines,
    needless_controls,
)
from guardtrain.curves.display_decomposition import DecompositionDisplay
from guardtrain.curves.folder import keep_keys, kept_keys, keys_of_losses
from guardtrain.curves.headline import best_real_line, headline
from guardtrain.curves.report import KeptConfig
from guardtrain.curves.statistics import whole_slices
from guardtrain.errors import DataError
from guardtrain.training.recipe import PAIR_AWARE
from guardtrain.training.settings import LossSettings, PairSettings
from tests.curves.scored_curve import scored_curve

BUDGETS = (32, 64, 128)
CONTROLS = ("paired", "shuffled", "unpaired", "balanced")


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    folder = tmp_path_factory.mktemp("curve")
    return scored_curve(folder, BUDGETS, (0.0, 0.5), CONTROLS, heads=("linear", "mlp"), seeds=4)


def _mean(frame: pd.DataFrame, **selection: Any) -> float:
    """Of AUROC over budgets and seeds; on evenly spaced budgets, by the trapezoid rule."""
    whole = whole_slices(frame)
    for name, value in selection.items():
        whole = whole[whole[name] == value]
    by_budget = whole.groupby("budget")["auroc"].mean().to_numpy()
    return float(((by_budget[1:] + by_budget[:-1]) / 2).mean())


def test_the_parts_are_the_steps_from_control_to_control_and_add_up(curve: tuple[pd.DataFrame, Path]) -> None:
    frame, scores = curve
    found = decompositions(bootstrap_points(frame, scores, "pairs", "auroc", 60))
    assert [(one.head, one.line.ratio) for one in found] == [("linear", 0.5), ("mlp", 0.5)]
    for one in found:
        assert [part.name for part in one.parts] == ["re-balancing", "domain", "both halves", "partners"]
        assert not one.missing
        where = {"test": "pairs", "head": one.head}
        means = [_mean(frame, **where, control="none")]
        means += [_mean(frame, **where, control=c, ratio=one.line.ratio) for c in reversed(CONTROLS)]
        np.testing.assert_allclose([part.average for part in one.parts], np.diff(means), atol=1e-9)
        assert one.gain.average == pytest.approx(means[-1] - means[0])
        np.testing.assert_allclose(sum(part.difference for part in one.parts), one.gain.difference, atol=1e-12)
        assert all((part.width > 0).all() and part.half > 0 for part in (one.gain, *one.parts))


def test_a_control_that_lacks_is_said_with_the_command_that_adds_it(curve: tuple[pd.DataFrame, Path]) -> None:
    frame = curve[0][(curve[0]["control"] != "unpaired") & (curve[0]["head"] == "linear")]
    frame = frame.assign(head=f"linear{PAIR_AWARE}")
    found = decompositions(seed_replicates(frame, "pairs", "auroc", 1))
    assert [part.name for part in found[0].parts] == ["re-balancing", "domain + both halves", "partners"]
    kept = KeptConfig("grid: {controls: [paired, shuffled]}", ("data=masks", "grid.controls=[paired]", "loss.l2=1"))
    text = "\n".join([decomposition_text(found), *missing_lines(found, kept, Path("out/here"))])
    assert "  domain: images of the pairs' kind" in text and "  both halves: " in text
    assert "Not told apart: domain, for no such control was run." in text
    again = "guardtrain curve data=masks loss.l2=1 'grid.controls=[paired,shuffled,unpaired,balanced]' out=out/here"
    assert again in text
    assert (
        "guardtrain curve data=masks loss.l2=1 loss=bce 'grid.controls=[paired]' 'plot.figures=[]' out=out/here" in text
    )
    assert f"linear{PAIR_AWARE}: pairs" not in text and "over real only, in all: +" in text


def test_a_control_that_would_change_nothing_is_no_part(curve: tuple[pd.DataFrame, Path]) -> None:
    frame = curve[0][curve[0]["control"] != "balanced"]
    boot = seed_replicates(frame, "pairs", "auroc", 1)
    kept = KeptConfig("grid: {controls: [paired, shuffled, unpaired, balanced]}", ())
    assert needless_controls(boot, kept) == dict.fromkeys(("linear", "mlp"), ("balanced",))
    assert needless_controls(boot, None) == {}
    found = decompositions(boot, needless=needless_controls(boot, kept))
    assert [part.name for part in found[0].parts] == ["domain", "both halves", "partners"]
    assert "re-balancing: none, for these pairs leave the share" in "\n".join(missing_lines(found, kept, Path("x")))


def test_where_training_looks_at_no_partner_pairs_add_both_halves(curve: tuple[pd.DataFrame, Path]) -> None:
    frame = curve[0][curve[0]["control"] != "shuffled"]
    boot = seed_replicates(frame, "pairs", "auroc", 1)
    kept = KeptConfig("grid: {controls: [paired, shuffled, unpaired, balanced]}", ())
    found = decompositions(boot, needless=needless_controls(boot, kept))
    assert [part.name for part in found[0].parts] == ["re-balancing", "domain", "both halves"]
    told = "\n".join(missing_lines(found, kept, Path("x")))
    assert (
        "partners: none for linear and mlp, whose training looks at no image's partner" in told
        and "Not told" not in told
    )


def test_the_loss_is_the_same_pairs_under_plain_cross_entropy(curve: tuple[pd.DataFrame, Path]) -> None:
    plain = curve[0][curve[0]["control"] == "paired"]
    frame = curve[0].assign(head=curve[0]["head"].replace("mlp", "mlp" + PAIR_AWARE))
    plain = plain.assign(auroc=plain["auroc"] - 0.02)
    found = decompositions(*(seed_replicates(rows, "pairs", "auroc", 1) for rows in (frame, plain)))
    assert found[0].head == "linear" and LOSS not in [part.name for part in found[0].parts], "it has no other loss"
    part = found[1].parts[-1]
    assert part.name == LOSS and part.average == pytest.approx(0.02) and "+.020" in part.text()
    assert missing_lines(found, None, Path("x")) == []
    few = decompositions(*(seed_replicates(r, "pairs", "auroc", 1) for r in (frame, plain[plain["seed"] < 3])))
    assert few[1].parts[-1].name != LOSS, "other seeds do not pair"
    assert any("Not measured: the loss" in line for line in missing_lines(few, None, Path("x")))
    assert missing_lines(few[:1], None, Path("x")) == [], "nor is another loss asked for"


def test_the_folder_knows_the_runs_of_each_loss(tmp_path: Path) -> None:
    keep_keys(tmp_path, ["b", "a"], "pairs")
    keep_keys(tmp_path, ["c"], "bce")
    assert keys_of_losses(tmp_path) == {"pairs": ["a", "b"], "bce": ["c"]} and kept_keys(tmp_path) == {"c"}
    keep_keys(tmp_path, ["a"])
    assert kept_keys(tmp_path) == {"a"} and keys_of_losses(tmp_path) == {}
    bare = PairSettings(mass=0, centring=0, logistic=0, offset=0, contrastive=0, gradient=0)
    assert (loss_name(LossSettings(pairs=PairSettings(mass=0.5))), loss_name(LossSettings(pairs=bare))) == (
        "pairs",
        "bce",
    )


def test_nothing_is_taken_apart_without_controls(curve: tuple[pd.DataFrame, Path]) -> None:
    frame = curve[0][curve[0]["control"].isin(["none", "paired"])]
    found = decompositions(seed_replicates(frame, "pairs", "auroc", 1))
    assert found == [] and decomposition_text(found) == ""
    with pytest.raises(DataError, match=r"grid\.controls=\[paired,shuffled,unpaired,balanced\]"):
        DecompositionDisplay.of(found)


def test_the_figure_has_a_panel_a_mixture_with_every_part(curve: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    found = decompositions(seed_replicates(curve[0], "pairs", "auroc", 1))
    display = DecompositionDisplay.of(found).plot()
    assert [ax.get_title(loc="left") for ax in display.axes_][:2] == [
        "linear\npairs ½ (replace)",
        "mlp\npairs ½ (replace)",
    ]
    for one, ax in zip(found, display.axes_, strict=True):
        drawn = {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}
        assert list(drawn) == [GAIN, *(part.name for part in one.parts)]
        np.testing.assert_allclose(drawn["domain"].get_ydata(), one.parts[1].difference)
        low, high = ax.get_ylim()
        assert all(((part.difference > low) & (part.difference < high)).all() for part in one.parts)
    assert "hold for all lines and points of a head at once" in display.caption()
    assert "partners" in display.alt()
    assert [path.name for path in display.save(tmp_path, formats=["png"])] == ["decomposition.png"]


def test_the_headline_compares_the_best_mixture_with_the_best_real_head(curve: tuple[pd.DataFrame, Path]) -> None:
    frame, scores = curve
    boot = bootstrap_points(frame, scores, "pairs", "auroc", 200)
    real = best_real_line(boot)
    means = {
        head: boot.points.query("head == @head and control == 'none'")["mean"].to_numpy() for head in ("linear", "mlp")
    }
    np.testing.assert_array_equal(real.mean, np.maximum(means["linear"], means["mlp"]))
    found = headline(boot)
    assert found is not None and found.heads == 2 and found.n in BUDGETS
    text = " ".join(found.text().split())
    assert text.startswith(f"AUROC {found.target:g} on 'pairs', {found.head} head: ".replace(" 0.", " ."))
    assert "real images alone (the best head at each n). One pair is worth, in real images at n = " in text
    assert [line.control for line, _ in found.needed] == ["paired", "none"]
    best = max(float(boot.points.query("control == 'paired' and head == @found.head")["mean"].max()), found.target)
    assert found.target <= best and found.target > real.mean[0]
    assert headline(bootstrap_points(frame[frame["control"] == "none"], scores, "pairs", "auroc", 20)) is None
