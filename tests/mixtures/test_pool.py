from __future__ import annotations

import numpy as np
import pytest

from guardtrain.errors import MixtureError
from guardtrain.mixtures import Pool
from guardtrain.records import Records


def test_from_records_takes_category_group_and_pair() -> None:
    records = Records.from_columns(
        id=["b", "a", "c"], label=[1, 0, 1], category=["gun", "gun", None], pair_id=["p", "p", None]
    )
    pool = Pool.from_records(records, name="pairs")
    assert pool.labels.tolist() == [1, 0, 1] and pool.labels.dtype == np.int8
    assert pool.strata.tolist() == ["gun", "gun", ""]
    assert pool.groups.tolist() == ["p", "p", "c"]
    assert pool.canonical.tolist() == [1, 0, 2]
    safe, unsafe = pool.pairs
    assert (safe.tolist(), unsafe.tolist(), pool.n_pairs) == ([1], [0], 1)


def test_pairs_come_in_the_order_of_their_ids() -> None:
    pool = Pool(list("dcba"), [0, 1, 1, 0], pair_ids=["q", "p", "q", "p"])
    safe, unsafe = pool.pairs
    assert pool.ids[safe].tolist() == ["a", "d"] and pool.ids[unsafe].tolist() == ["c", "b"]


def test_take_by_rows_and_by_mask() -> None:
    pool = Pool(list("abc"), [0, 1, 0], strata=list("xyz"), name="left")
    assert pool.take([2, 0]).ids.tolist() == ["c", "a"]
    kept = pool.take(np.array([False, True, True]))
    assert kept.strata.tolist() == ["y", "z"] and kept.name == "left"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ids": [], "labels": []}, "left pool is empty"),
        ({"ids": ["a", "b"], "labels": [0]}, r"'labels' of the left pool has shape \(1,\); there are 2 ids"),
        ({"ids": ["a", "b"], "labels": [0, 2]}, "must be 0 .* they are 0, 2"),
        ({"ids": ["a", "a"], "labels": [0, 1]}, "repeated: a"),
    ],
)
def test_malformed_pools_are_refused(columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(MixtureError, match=message):
        Pool(**columns, name="left")  # type: ignore[arg-type]


def test_broken_pairs_are_named_with_what_there_is() -> None:
    pool = Pool(list("abcd"), [0, 1, 0, 0], pair_ids=["p", "p", "q", None], name="pairs")
    with pytest.raises(
        MixtureError, match=r"1 of 2 pairs of the pairs pool are broken: q.*1 safe and 0 unsafe of pair 'q'"
    ):
        _ = pool.pairs
    twice = Pool(list("ab"), [1, 1], pair_ids=["p", "p"])
    with pytest.raises(MixtureError, match="0 safe and 2 unsafe of pair 'p'"):
        _ = twice.pairs
