from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from guardtrain.errors import GuardError
from guardtrain.guards.neighbours import Neighbours


def _drawn(n: int = 2000, dim: int = 6) -> Neighbours:
    g = np.random.default_rng(0)
    rows = g.normal(size=(n, dim))
    pairs = [None if i % 3 else f"p{i}" for i in range(n)]
    return Neighbours.of(5 * rows, g.integers(0, 2, n), np.arange(n), pairs)


def test_the_nearest_come_first_by_cosine() -> None:
    kept = _drawn()
    x = np.random.default_rng(1).normal(size=(1030, 6)) * 7  # more than are compared at once
    found = kept.nearest(x, 25)
    assert len(found) == len(x)
    cosines = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ kept.embeddings.T.astype(np.float64)
    for row, near in list(zip(cosines, found, strict=True))[::103]:
        assert [one.similarity for one in near] == pytest.approx(np.sort(row)[::-1][:25].tolist(), abs=1e-6)
        places = [int(one.id) for one in near]
        assert [one.similarity for one in near] == pytest.approx(row[places].tolist(), abs=1e-6)
        assert [one.label for one in near] == kept.labels[places].tolist()
        assert [one.pair_id for one in near] == [kept.pair_ids[i] for i in places]


def test_the_same_image_twice_comes_in_order() -> None:
    kept = Neighbours.of(np.repeat(np.eye(2), 3, axis=0), [0] * 6, list("abcdef"), [None] * 6)
    (near,) = kept.nearest(np.array([[1.0, 0.0]]), 4)
    assert [one.id for one in near] == ["a", "b", "c", "d"]
    assert near[0].similarity == 1.0


def test_written_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    kept = _drawn(30)
    kept.write(tmp_path / "n.safetensors")
    again = Neighbours.read(tmp_path / "n.safetensors")
    np.testing.assert_array_equal(again.embeddings, kept.embeddings)
    np.testing.assert_array_equal(again.labels, kept.labels)
    assert (again.ids, again.pair_ids) == (kept.ids, kept.pair_ids)


@pytest.mark.parametrize("said", [{}, {"ids": "[]", "pair_ids": "[]"}, {"ids": "no", "pair_ids": "[]"}], ids=str)
def test_another_content_is_refused(tmp_path: Path, said: dict[str, str]) -> None:
    rows = {"embeddings": np.zeros((2, 3), dtype=np.float32), "labels": np.zeros(2, dtype=np.int8)}
    save_file(rows, tmp_path / "n.safetensors", metadata=said)
    with pytest.raises(GuardError, match="Export the guard again"):
        Neighbours.read(tmp_path / "n.safetensors")
    (tmp_path / "n.safetensors").write_bytes(b"no")
    with pytest.raises(GuardError, match="Export the guard again"):
        Neighbours.read(tmp_path / "n.safetensors")
