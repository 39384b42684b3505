"""Scores are computed once, anew for corrected labels and other guards, and compared where every guard has one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from guardtrain.benchmarks.effectiveness import Entrant
from guardtrain.benchmarks.scores import (
    Contender,
    DataSet,
    Scores,
    ScoresFolder,
    judged_by_all,
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

    judged, left = judged_by_all([one, other], data(y), scores)
    assert (left, len(judged.records), judged.guards) == (1, 59, ("a", "b"))
    for k, point in enumerate(("balanced", "strict")):
        wanted = guard.points[point].decide(guard.logits(np.delete(x, 7, 0))) == 1
        np.testing.assert_array_equal(judged.flagged[k], wanted)
    table = scores_table([one, other], [data(y)], scores)
    assert table["guard"].to_pylist() == ["a"] * 59 + ["b"] * 59
    assert table["label"].to_pylist() == np.delete(y, 7).tolist() * 2


def test_images_that_no_guard_shares_are_refused(guard: Guard) -> None:

    nothing = Scores(pa.table({"id": pa.array([], pa.string()), "logit": [], "decision": []}), computed=True)
    with pytest.raises(DataError, match="No image of 'd' could be judged by all of a"):
        judged_by_all([Contender(guard, Entrant("a"), "strict")], data(np.array([0, 1])), {("a", "d"): nothing})
