"""Small multiples: every panel is the summary of its slice, on shared axes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from guardtrain.curves.display_categories import CategoryDisplay
from guardtrain.errors import DataError
from tests.curves.scored_curve import scored_curve


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return scored_curve(tmp_path_factory.mktemp("curve"), budgets=(16, 64), seeds=3)[0]


def test_panels_are_the_means_of_their_slices(frame: pd.DataFrame) -> None:
    display = CategoryDisplay.from_results(frame).plot()
    slices = [("category", "O1: Hate"), ("category", "O5: Weapons"), ("source", "laion"), ("source", "lexica")]
    for (kind, name), ax in zip(slices, display.axes_, strict=True):
        own = frame[(frame["test"] == "pairs") & (frame["slice_kind"] == kind) & (frame["slice"] == name)]
        expected = own[own["control"] == "none"].groupby("budget")["auroc"].mean()
        line = next(line for line in ax.get_lines() if line.get_label() == "real only")
        np.testing.assert_allclose(line.get_ydata(), expected)
        assert ax.get_title(loc="left").startswith(f"{kind} {name}\n")
        assert f"{own['n_test'].iloc[0]} images" in ax.get_title(loc="left")
    assert len({ax.get_ylim() for ax in display.axes_}) == len({ax.get_xlim() for ax in display.axes_}) == 1
    assert "categories and sources of test set 'pairs'" in display.caption()
    assert "category 'O5: Weapons'" in display.alt()


def test_test_set_and_metric_can_be_chosen(frame: pd.DataFrame) -> None:
    display = CategoryDisplay.from_results(frame, "contexts", "brier")
    assert {(p.test, p.metric) for p in display.panels} == {("contexts", "brier")}


def test_a_kind_with_one_slice_repeats_the_whole_and_is_left_out(frame: pd.DataFrame) -> None:
    one = frame[frame["slice"] != "laion"]
    assert {p.slice_kind for p in CategoryDisplay.from_results(one).panels} == {"category"}  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="No test set has two categories or two sources"):
        CategoryDisplay.from_results(frame[frame["slice_kind"] == "all"])
    rest = frame[(frame["slice_kind"] == "all") | (frame["test"] == "contexts")]
    with pytest.raises(DataError, match=r"Test set 'pairs' has two.*With slices: contexts"):
        CategoryDisplay.from_results(rest, "pairs")


def test_slices_of_one_class_are_shown_by_accuracy(frame: pd.DataFrame) -> None:
    sliced = frame["slice_kind"] != "all"
    no_auroc = frame.assign(auroc=frame["auroc"].where(~sliced))
    assert {p.metric for p in CategoryDisplay.from_results(no_auroc).panels} == {"accuracy"}
    partly = frame.assign(auroc=frame["auroc"].where(frame["slice"] != "laion"))
    display = CategoryDisplay.from_results(partly)
    assert {p.metric for p in display.panels} == {"auroc"}
    assert "AUROC has no values in source 'laion': left out." in display.caption()


@pytest.mark.parametrize(("test", "metric"), [("wild", None), (None, "auc"), ("pairs", "auc")])
def test_unknown_names_are_refused(frame: pd.DataFrame, test: str | None, metric: str | None) -> None:
    with pytest.raises(DataError, match="Unknown"):
        CategoryDisplay.from_results(frame, test, metric)
