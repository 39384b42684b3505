"""The scores folder: what goes in comes out, in order, on the records it was scored on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from guardtrain.curves.scores import Scores, ScoresFolder
from guardtrain.errors import DataError
from guardtrain.records import Records

RECORDS = Records.from_columns(
    id=["a", "b", "c"], label=[0, 1, 1], pair_id=["p", "p", None], image=["x/a.png", "x/b.png", None], root=Path("/r")
)
OTHER = Records.from_columns(id=["d", "e"], label=[0, 1])


of = Scores.of_probabilities


@pytest.fixture
def folder(tmp_path: Path) -> ScoresFolder:
    made = ScoresFolder(tmp_path / "scores")
    made.write_test_records("pairs", RECORDS)
    made.write_test_records("web/real", OTHER)
    return made


def test_round_trip_over_parts(folder: ScoresFolder) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 40, (12, 3)).astype(np.float32), rng.random((1, 3), np.float32)
    names = [f"{i:016x}" for i in range(13)]
    folder.write(names[:12], {"pairs": Scores.of_logits(first), "web/real": of(rng.random((12, 2)))})
    folder.write(names[12:], {"pairs": of(second)})  # as parts were, before logits were kept
    keys, scores, records = folder.read("pairs")
    assert keys.tolist() == names
    assert scores.ranked.dtype == np.float32
    np.testing.assert_array_equal(scores.ranked, np.concatenate([first, second]))
    np.testing.assert_allclose(scores.probabilities, np.concatenate([expit(first), second]), rtol=1e-6)
    np.testing.assert_allclose(scores.log_odds, np.concatenate([first, logit(second.astype(float))]), rtol=1e-6)
    assert records.ids.tolist() == ["a", "b", "c"]
    assert records.image_uri(0) == "/r/x/a.png"
    assert folder.read("web/real")[1].ranked.shape == (12, 2)
    assert folder.tests() == ["pairs", "web/real"]


def test_no_scores_yet(folder: ScoresFolder) -> None:
    keys, scores, _ = folder.read("pairs")
    assert keys.shape == (0,)
    assert scores.ranked.shape == (0, 3)


def test_of_a_run_scored_twice_the_first_counts_and_order_is_kept(folder: ScoresFolder) -> None:
    folder.write(["b", "a"], {"pairs": of(np.array([[0.1] * 3, [0.2] * 3]))})
    folder.write(["c", "a"], {"pairs": of(np.array([[0.3] * 3, [0.9] * 3]))})
    keys, scores, _ = folder.read("pairs")
    assert keys.tolist() == ["b", "a", "c"]
    np.testing.assert_allclose(scores.ranked[:, 0], [0.1, 0.2, 0.3])


def test_parts_need_no_pickle(folder: ScoresFolder) -> None:
    part = folder.write(["a"], {"pairs": of(np.zeros((1, 3))), "web/real": Scores.of_logits(np.zeros((1, 2)))})
    with np.load(part, allow_pickle=False) as arrays:
        assert {name: arrays[name].dtype.kind for name in arrays.files} == {
            "run_keys": "U",
            "tests": "U",
            "digests": "U",
            "scores_0": "f",
            "logits_1": "f",
        }


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (of(np.zeros((2, 3))), r"shape \(2, 3\); needed: \(1, 3\)"),
        (of(np.full((1, 3), 1.5)), r"probabilities in \[0, 1\]; found 1.5"),
        (of(np.array([[0.0, 1.0, np.nan]])), "NaN"),
        (Scores.of_logits(np.array([[0.0, 1.0, np.inf]])), "Logits on test set 'pairs' must be finite"),
    ],
)
def test_wrong_scores_are_refused(folder: ScoresFolder, scores: Scores, message: str) -> None:
    with pytest.raises(DataError, match=message):
        folder.write(["a"], {"pairs": scores})
    assert folder.read("pairs")[1].ranked.shape == (0, 3)


def test_repeated_keys_and_unknown_tests_are_refused(folder: ScoresFolder) -> None:
    with pytest.raises(DataError, match="2 were given, 1 distinct"):
        folder.write(["a", "a"], {"pairs": of(np.zeros((2, 3)))})
    with pytest.raises(DataError, match=r"no records of test set 'new' \(it has: pairs, web/real\)"):
        folder.write(["a"], {"new": of(np.zeros((1, 3)))})
    with pytest.raises(DataError, match="no records of test set 'new'"):
        folder.read("new")


def test_changed_ids_are_refused_with_what_changed(folder: ScoresFolder) -> None:
    with pytest.raises(DataError, match=r"1 ids are gone \(such as c\), 1 are new \(such as z\)"):
        folder.write_test_records("pairs", Records.from_columns(id=["a", "b", "z"], label=[0, 1, 1]))
    with pytest.raises(DataError, match="another order"):
        folder.write_test_records("pairs", RECORDS.take([2, 1, 0]))


def test_a_corrected_label_replaces_the_old_one(folder: ScoresFolder) -> None:
    folder.write(["a"], {"web/real": of(np.zeros((1, 2)))})
    folder.write_test_records("web/real", OTHER.with_column("label", np.array([1, 1], np.int8)))
    assert folder.read("web/real")[2].labels.tolist() == [1, 1]


def test_scores_of_other_records_are_refused_when_read(folder: ScoresFolder) -> None:
    folder.write(["a"], {"web/real": of(np.zeros((1, 2)))})
    next(folder.path.glob("test-web*")).unlink()
    folder.write_test_records("web/real", Records.from_columns(id=["y", "z"], label=[0, 1]))
    with pytest.raises(DataError, match="scored on other records"):
        folder.read("web/real")


def test_a_damaged_part_is_named(folder: ScoresFolder) -> None:
    part = folder.write(["a"], {"pairs": of(np.zeros((1, 3)))})
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(DataError, match=r"part-000000.npz cannot be read"):
        folder.read("pairs")
