from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.embeddings import Embeddings
from guardtrain.encoders.spec import external_spec
from guardtrain.errors import DataError
from guardtrain.guards.validation import Validation, unused_rows
from guardtrain.mixtures import Mixture
from guardtrain.records import Records
from guardtrain.training.pools import Pools

SPEC = external_spec({"name": "toy"}, 1)


def _part(name: str, groups: list[str], labels: list[int] | None = None) -> Embeddings:
    n = len(groups)
    ids = [f"{name}{i}" for i in range(n)]
    records = Records.from_columns(id=ids, label=labels or [i % 2 for i in range(n)], group=groups)
    return Embeddings(records, np.arange(n, dtype=np.float32)[:, None], SPEC)


GROUPS = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=12)


@settings(max_examples=40, deadline=None)
@given(real=GROUPS, pairs=GROUPS, data=st.data())
def test_no_group_that_the_run_saw_is_in_it(real: list[str], pairs: list[str], data: st.DataObject) -> None:
    used = data.draw(st.lists(st.integers(0, len(real) - 1), unique=True))
    used_pairs = data.draw(st.lists(st.integers(0, len(pairs) - 1), unique=True))
    pools = Pools("toy", _part("r", real), _part("p", pairs), {})
    drawn = np.array(used, dtype=np.int64), np.array(used_pairs, dtype=np.int64)
    mixture = Mixture("replace", "paired", 8, 0.5, 0, *drawn)
    rows = unused_rows(pools, mixture)
    seen = {real[i] for i in used} | {pairs[i] for i in used_pairs}
    assert rows.tolist() == [i for i, group in enumerate(real) if group not in seen]


@settings(max_examples=40, deadline=None)
@given(groups=st.lists(st.integers(0, 9), min_size=12, max_size=40), limit=st.integers(11, 45), seed=st.integers(0, 3))
def test_a_limit_takes_whole_groups_at_random(groups: list[int], limit: int, seed: int) -> None:
    part = _part("r", [str(g) for g in groups])
    rows = np.arange(len(groups))
    try:
        found = Validation.of(part, rows, "here", limit=limit, seed=seed)
    except DataError:
        return  # what was left had one class, or a single group is larger than the limit
    kept = found.embeddings[:, 0].astype(int)
    assert len(kept) <= limit
    assert (np.diff(kept) > 0).all()
    inside = {groups[i] for i in kept}
    assert kept.tolist() == [i for i, group in enumerate(groups) if group in inside]
    assert found.groups.tolist() == [str(groups[i]) for i in kept]
    assert found.labels.tolist() == [i % 2 for i in kept]
    assert ("at random" in found.origin) == (len(groups) > limit)
    again = Validation.of(part, rows, "here", limit=limit, seed=seed)
    np.testing.assert_array_equal(again.embeddings, found.embeddings)


def test_one_class_alone_says_what_to_do() -> None:
    part = _part("r", list("abcd"), [1, 1, 0, 0])
    with pytest.raises(DataError, match=r"0 safe and 2 unsafe images \(here\).*validation=NAME"):
        Validation.of(part, np.array([0, 1]), "here", limit=9, seed=0)
    with pytest.raises(DataError, match="0 safe and 0 unsafe"):
        Validation.of(part, np.array([], dtype=np.int64), "here", limit=9, seed=0)
