from __future__ import annotations

from guardtrain.metrics import record_pair_index, record_pairs, record_slices
from guardtrain.records import Records


def _records() -> Records:
    return Records.from_columns(
        id=list("abcdefg"),
        label=[1, 0, 0, 1, 1, 0, 1],
        category=["gun", "gun", "fire", "fire", None, "fire", "fire"],
        source=["real", "made", None, None, "real", None, None],
        pair_id=["q", "q", "p", "p", None, "r", "r"],
    )


def test_pairs_are_numbered_by_their_ids() -> None:
    assert record_pair_index(_records()).tolist() == [1, 1, 0, 0, -1, 2, 2]
    safe, unsafe = record_pairs(_records())
    assert (safe.tolist(), unsafe.tolist()) == ([2, 1, 5], [3, 0, 6])


def test_half_a_pair_is_no_pair() -> None:
    records = _records().take([6, 0, 1, 2])
    assert record_pair_index(records).tolist() == [-1, 0, 0, -1]
    safe, unsafe = record_pairs(records)
    assert (safe.tolist(), unsafe.tolist()) == ([2], [1])


def test_without_pairs() -> None:
    records = _records().take([4])
    assert record_pair_index(records).tolist() == [-1]
    assert [half.shape[0] for half in record_pairs(records)] == [0, 0]


def test_slices_by_category_and_source() -> None:
    slices = record_slices(_records())
    assert list(slices) == [
        ("all", "all"),
        ("category", "fire"),
        ("category", "gun"),
        ("source", "made"),
        ("source", "real"),
    ]
    assert slices["all", "all"].all()
    assert slices["category", "fire"].nonzero()[0].tolist() == [2, 3, 5, 6]
    assert slices["source", "real"].nonzero()[0].tolist() == [0, 4]
