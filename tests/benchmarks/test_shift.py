"""From real to generated images, and from data like the training's to other data: differences of what is there."""

from __future__ import annotations

import numpy as np
import pytest

from guardtrain.benchmarks.effectiveness import Entrant, How, evaluate, metric_rows, tidy
from guardtrain.benchmarks.shift import Likeness, distribution_rows, shift_rows
from guardtrain.errors import ConfigError
from tests.benchmarks.judged import CATEGORIES, judged

HOW = How(replicates=200)


def test_the_shift_is_generated_less_real_and_within_categories_the_mean_of_theirs() -> None:
    data = judged(400, guards=2)
    one = evaluate(data, [Entrant("g0"), Entrant("g1", ("Sexual", "Hate"))], HOW)
    shifts, metrics = tidy(shift_rows(one)), tidy(metric_rows(one))

    def at(frame, guard, category, source=None):
        keep = (frame["guard"] == guard) & (frame["category"] == category) & (frame["judged_on"] == "aligned")
        keep &= frame["metric"] == "f1"
        rows = frame[keep & ((frame["source"] == source) if source else True)]
        return rows.iloc[0]

    for guard, categories in (("g0", CATEGORIES), ("g1", ("Hate", "Sexual"))):
        changes = {}
        for category in ("all", *categories):
            lexica, laion = (at(metrics, guard, category, source)["value"] for source in ("Lexica", "Laion5B"))
            changes[category] = lexica - laion
            assert at(shifts, guard, category)["value"] == pytest.approx(lexica - laion)
        within = at(shifts, guard, "within categories")
        assert within["value"] == pytest.approx(np.mean([changes[name] for name in categories]))
        assert within["low"] < within["value"] < within["high"]
    assert at(shifts, "g0", "all")["n_images"] == 400


def test_sources_that_are_neither_have_no_shift() -> None:
    data = judged(60, guards=1)
    plain = type(data)(
        data.name, data.guards, data.records.with_column("source", ["mine"] * 60), data.logits, data.flagged
    )
    assert shift_rows(evaluate(plain, [Entrant("g0")], HOW)) == []
    named = How(replicates=50, real=("Laion5B",), generated=("mine",))
    assert shift_rows(evaluate(plain, [Entrant("g0")], named)) == [], "only one side is there"


def test_in_and_out_of_distribution_are_means_over_data_sets() -> None:
    entrants = [Entrant("g0", trained_on="home"), Entrant("g1", published=True)]
    sets = [evaluate(judged(150, 2, seed, name=name), entrants, HOW) for seed, name in enumerate(("a", "b", "c"))]
    values = {
        (row["guard"], one.judged.name): row["value"]
        for one in sets
        for _, row in tidy(metric_rows(one)).iterrows()
        if row["metric"] == "f1" and row["category"] == "all" and row["source"] == "all" and row["judged_on"] == "all"
    }
    rows = tidy(distribution_rows(sets, Likeness(None, {"a": "home"})))
    rows = rows[rows["metric"] == "f1"]
    mine = rows[rows["guard"] == "g0"].set_index(
        ["data", rows[rows["guard"] == "g0"]["versus"].astype(object).fillna("")]
    )["value"]
    outside = (values["g0", "b"] + values["g0", "c"]) / 2
    assert mine["in", ""] == pytest.approx(values["g0", "a"])
    assert mine["out", ""] == pytest.approx(outside)
    assert mine["out", "in"] == pytest.approx(outside - values["g0", "a"])
    theirs = rows[rows["guard"] == "g1"]
    assert set(theirs["data"]) == {"out", "all data sets"}, "nothing is known of what it was trained on"
    assert distribution_rows(sets[:1], Likeness(None, {})) == []
    said = Likeness(["c"], {})
    assert [said.inside(one, 0) for one in sets] == [False, False, True]
    with pytest.raises(ConfigError, match="in_distribution names 'd'; the data sets are a"):
        Likeness({"g0": ["d"]}, {}).check(["a"])
