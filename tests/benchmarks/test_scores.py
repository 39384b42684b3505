"""Scores are computed once, anew for corrected labels and other guards; what a guard lacks is its own affair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from guardtrain.benchmarks.effectiveness import Entrant
from guardtrain.benchmarks.outcomes import Outcome
from guardtrain.benchmarks.scores import (
    Contender,
    DataSet,
    Scores,
    ScoresFolder,
    judged_by,
    score_all,
    scores_table,
)
from guardtrain.embeddings import Embeddings
from guardtrain.errors import DataError
from guardtrain.guards.guard import Guard
from guardtrain.records import Records
from tests.guards.toys import SPEC, toy_guard, toy_images


@dataclass
class Images:
    """Records whose images never change."""

    table: Records

    def records(self) -> Records:
        return self.table

    def content_key(self) -> str:
        return "the same images"


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    return toy_guard(tmp_path_factory.mktemp("guard") / "g").guard


def data(labels: np.ndarray) -> DataSet:
    return DataSet("d", Images(Records.from_columns(id=[f"r{i}" for i in range(len(labels))], label=labels)))


def test_nothing_is_scored_twice_but_what_changed(tmp_path: Path, guard: Guard) -> None:
    x, y = toy_images(60)
    asked: list[str] = []

    def embedded(contender: Contender, of: DataSet) -> Embeddings:
        asked.append(contender.entrant.name)
        keep = np.arange(60) != 7  # an image that cannot be read
        return Embeddings(of.records.take(np.flatnonzero(keep)), x[keep], SPEC)

    one, other = (Contender(guard, Entrant(name), point) for name, point in (("a", "balanced"), ("b", "strict")))
    folder, said = ScoresFolder(tmp_path), list[str]()
    scores = score_all([one, other], [data(y)], folder, embedded, said.append)
    assert asked == ["a"], "one encoder embeds once"
    again = score_all([one, other], [data(y)], folder, embedded, said.append)
    assert asked == ["a"]
    assert said[-1] == "d: 60 images scored by 2 guards, 2 of them before"
    assert again["b", "d"].table.equals(scores["b", "d"].table)
    np.testing.assert_allclose(scores["a", "d"].table["logit"].to_numpy(), guard.logits(np.delete(x, 7, 0)))
    score_all([one], [data(1 - y)], folder, embedded, said.append)
    assert asked == ["a", "a"], "corrected labels are other data"
    folder.file(one, data(y)).write_bytes(b"half")
    score_all([one], [data(y)], folder, embedded, said.append)
    assert asked == ["a"] * 3, "a damaged file is made again"

    judged = judged_by([one, other], data(y), scores, {("b", "d"): ["r0", "r7"]})
    assert (len(judged.records), judged.guards) == (60, ("a", "b"))
    assert np.flatnonzero(~judged.known[0]).tolist() == [7]
    assert np.flatnonzero(~judged.known[1]).tolist() == [0, 7]
    assert judged.outcomes[:, 7].tolist() == [Outcome.UNREADABLE, Outcome.SET_ASIDE]
    for k, point in enumerate(("balanced", "strict")):
        wanted = guard.points[point].decide(guard.logits(x)) == 1
        np.testing.assert_array_equal(judged.flagged[k], wanted & judged.known[k])
    table = scores_table([one, other], [data(y)], scores)
    assert table["guard"].to_pylist() == ["a"] * 60 + ["b"] * 60
    assert table["label"].to_pylist() == y.tolist() * 2
    assert table["outcome"].to_pylist() == (["answered"] * 7 + ["unreadable"] + ["answered"] * 52) * 2
    assert [place for place, value in enumerate(table["logit"].to_pylist()) if value is None] == [7, 67]


def test_what_one_guard_lacks_is_no_other_guards_affair(guard: Guard) -> None:
    """Also where it lacks everything; a data set that nobody could judge is refused."""
    nothing = pa.table({"id": pa.array([], pa.string()), "logit": [], "decision": pa.array([], pa.string())})
    mute = Scores(nothing, computed=True, without={"r0": Outcome.REFUSED})
    said = Scores(pa.table({"id": ["r1"], "logit": [2.0], "decision": ["unsafe"]}), computed=True)
    both = [Contender(guard, Entrant(name), "strict") for name in "ab"]
    judged = judged_by(both, data(np.array([0, 1])), {("a", "d"): said, ("b", "d"): mute})
    assert judged.outcomes.tolist() == [
        [Outcome.UNREADABLE, Outcome.ANSWERED],
        [Outcome.REFUSED, Outcome.UNREADABLE],
    ]
    with pytest.raises(DataError, match="No image of 'd' could be judged by any of a, b"):
        judged_by(both, data(np.array([0, 1])), {("a", "d"): mute, ("b", "d"): mute})
