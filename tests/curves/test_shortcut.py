"""The shortcut check: which test set it takes, and that its figures are those of the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from guardtrain.curves.shortcut import shortcuts


def renamed(frame: pd.DataFrame, **names: str) -> pd.DataFrame:
    return frame.replace({"test": names})


def test_the_figures_are_those_of_real_data_alone(frames: Any) -> None:
    frame = frames(heads=("mlp", "linear"))
    found = shortcuts(frame)
    assert [one.head for one in found] == ["mlp", "linear"]
    for one in found:
        own = frame[(frame["head"] == one.head) & (frame["control"] == "none") & (frame["budget"] == one.budget)]
        assert one.budget == frame["budget"].max()
        assert np.isclose(one.auroc["mean"], own.loc[own["test"] == "contexts", "auroc"].mean())
        assert np.isclose(one.right["mean"], own.loc[own["test"] == "pairs", "pair_both_right"].mean())


def test_the_set_called_in_domain_is_taken_beside_any_others(frames: Any) -> None:
    frame = frames()
    wild = renamed(frame[frame["test"] == "contexts"], contexts="wild")
    three = pd.concat([renamed(frame, contexts="in_domain"), wild])
    (one,) = shortcuts(three)
    assert (one.in_domain, one.test, one.guessed, one.doubt()) == ("in_domain", "pairs", False, "")
    (two,) = shortcuts(three, "wild")
    assert (two.in_domain, two.guessed) == ("wild", False)
    assert not shortcuts(pd.concat([frame, wild])), "two sets without pairs, neither named"


def test_without_a_name_the_only_set_without_pairs_is_a_guess(frames: Any) -> None:
    (one,) = shortcuts(frames())
    assert (one.in_domain, one.guessed) == ("contexts", True)
    assert "'contexts'" in one.doubt()


def test_nothing_to_check(frames: Any) -> None:
    frame = frames()
    assert not shortcuts(frame, ""), "switched off"
    assert not shortcuts(frame[frame["test"] == "pairs"]), "no set without pairs"
    assert not shortcuts(frame[frame["test"] == "contexts"]), "no pairs"
    assert not shortcuts(frame[frame["control"] != "none"]), "no real data alone"
    largest = frame["budget"].max()
    apart = frame[(frame["test"] == "pairs") == (frame["budget"] == largest)]
    assert not shortcuts(apart), "no budget that both have"
    holes = frame.assign(pair_both_right=frame["pair_both_right"].where(frame["budget"] < largest))
    assert [one.budget for one in shortcuts(holes)] == [sorted(frame["budget"].unique())[-2]]
