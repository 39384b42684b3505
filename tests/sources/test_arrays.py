"""Embeddings a user has: both forms, both directions of the label, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from guardtrain.errors import DataError
from guardtrain.sources import ArraysSource, EmbeddingSource, ImageSource


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "table.npz"
    np.savez(
        path,
        features=np.arange(12, dtype=np.float16).reshape(4, 3),
        smokes=np.array([0, 1, 1, 0], dtype=np.int8),
        name=np.array(["a", "b", "c", "d"]),
        kind=np.array(["x", "x", "y", "y"]),
        couple=np.array(["p", "p", "q", "q"]),
    )
    return str(path)


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "pairs.npz"
    safe = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(path, without=safe, with_it=safe + 100, pair=np.array(["p0", "p1"]), kind=np.array(["x", "y"]))
    return str(path)


def refused(source: ArraysSource) -> str:
    with pytest.raises(DataError) as caught:
        source.records()
    return str(caught.value)


def test_the_table_form(table: str) -> None:
    source = ArraysSource(
        table, features="features", label="smokes", id="name", category="kind", pair_id="couple",
        encoder={"name": "m", "normalized": False},
    )  # fmt: skip
    records = source.records()
    assert records.ids.tolist() == list("abcd")
    assert records.labels.tolist() == [0, 1, 1, 0]
    assert records.categories.tolist() == ["x", "x", "y", "y"]
    assert records.pair_ids.tolist() == ["p", "p", "q", "q"]
    assert source.embeddings().dtype == np.float16
    assert source.embeddings()[2].tolist() == [6, 7, 8]
    assert source.encoder_description() == {"name": "m", "normalized": False}
    assert isinstance(source, EmbeddingSource)
    assert not isinstance(source, ImageSource)


def test_either_value_can_be_the_unsafe_one(table: str) -> None:
    one = ArraysSource(table, features="features", label="smokes")
    other = ArraysSource(table, features="features", label="smokes", labels={"0": 1, "1": 0})
    assert (one.records().labels + other.records().labels).tolist() == [1, 1, 1, 1]
    named = ArraysSource(table, features="features", label="kind", labels={"x": 0, "y": 1})
    assert named.records().labels.tolist() == [0, 0, 1, 1]


def test_one_label_for_all_and_ids_by_row(table: str) -> None:
    records = ArraysSource(table, features="features", label=0, constants={"source": "food"}).records()
    assert records.labels.tolist() == [0, 0, 0, 0]
    assert records.ids.tolist()[:2] == ["table/000000", "table/000001"]
    assert set(records.sources) == {"food"}


def test_where_keeps_rows_of_records_and_matrix(table: str) -> None:
    source = ArraysSource(table, features="features", label="smokes", id="name", where={"kind": "y"})
    assert source.records().ids.tolist() == ["c", "d"]
    assert source.embeddings().tolist() == [[6, 7, 8], [9, 10, 11]]


def test_keep_split(table: str, tmp_path: Path) -> None:
    (tmp_path / "meta.csv").write_text("id,label,split\n007,safe,train\n8,unsafe,test\n9,safe,test\n10,safe,train\n")
    source = ArraysSource(
        table, features="features", label="label", id="id", split="split", metadata=str(tmp_path / "meta.csv"),
        keep_split="test",
    )  # fmt: skip
    assert source.records().ids.tolist() == ["8", "9"]
    assert source.embeddings()[:, 0].tolist() == [3, 6]


def test_npy_with_a_metadata_table(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.eye(3))
    (tmp_path / "meta.csv").write_text("id,label\n007,safe\n8,unsafe\n9,safe\n")
    source = ArraysSource(str(tmp_path / "f.npy"), label="label", id="id", metadata=str(tmp_path / "meta.csv"))
    assert source.records().ids.tolist() == ["007", "8", "9"]
    assert source.embeddings().dtype == np.float32


def test_the_pairs_form(pairs: str) -> None:
    source = ArraysSource(pairs, safe="without", unsafe="with_it", pair_id="pair", category="kind", edited="unsafe")
    records = source.records()
    assert records.ids.tolist() == ["p0/safe", "p0/unsafe", "p1/safe", "p1/unsafe"]
    assert records.labels.tolist() == [0, 1, 0, 1]
    assert records.pair_ids.tolist() == ["p0", "p0", "p1", "p1"]
    assert records.categories.tolist() == ["x", "x", "y", "y"]
    assert records.edited.tolist() == [False, True, False, True]
    assert source.embeddings()[:, 0].tolist() == [0, 100, 3, 103]


def test_the_pairs_form_the_other_way_round(pairs: str) -> None:
    source = ArraysSource(pairs, safe="with_it", unsafe="without", edited="safe", where={"kind": ["y"]})
    assert source.records().edited.tolist() == [True, False]
    assert source.embeddings()[:, 0].tolist() == [103, 3]
    assert source.records().pair_ids.tolist() == ["pairs/000001"] * 2


def test_missing_keys_come_with_those_there_are(table: str, pairs: str) -> None:
    message = refused(ArraysSource(table, features="feature", label="smokes"))
    assert "no key 'feature' (wanted for features)" in message
    assert "Did you mean 'features'?" in message
    assert "features (4, 3) float16, smokes (4,) int8" in message
    assert "`features` must name the array" in refused(ArraysSource(table, label=0))
    assert "`label` must name the array of labels" in refused(ArraysSource(table, features="features"))
    assert "name either `features`" in refused(ArraysSource(pairs, safe="without"))
    assert "`edited` is one of safe, unsafe, none, both; it is 'yes'" in refused(
        ArraysSource(pairs, safe="without", unsafe="with_it", edited="yes")
    )
    assert "constants names 'sourc'" in refused(
        ArraysSource(table, features="features", label=0, constants={"sourc": "x"})
    )


def test_arrays_that_do_not_fit(tmp_path: Path) -> None:
    path = str(tmp_path / "odd.npz")
    features = np.zeros((3, 2), np.float32)
    features[1, 0] = np.nan
    np.savez(path, bad=features, ints=np.zeros((3, 2), int), flat=np.zeros(3), good=np.ones((3, 2)), two=np.zeros(2),
             more=np.ones((4, 2)))  # fmt: skip
    assert "1 rows of 'bad'" in refused(ArraysSource(path, features="bad", label=0))
    assert "rows 1" in refused(ArraysSource(path, features="bad", label=0))
    assert "(3, 2) int64" in refused(ArraysSource(path, features="ints", label=0))
    assert "(3,) float64" in refused(ArraysSource(path, features="flat", label=0))
    assert "has 2 rows where the features have 3" in refused(ArraysSource(path, features="good", label="two"))
    assert "must be 1-d" in refused(ArraysSource(path, features="good", label="more"))
    assert "must have the same shape" in refused(ArraysSource(path, safe="good", unsafe="more"))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    np.save(tmp_path / "o.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "o.npz", allow_pickle=True, features=np.zeros((2, 2)), label=objects)
    assert "Pickled arrays can run code" in refused(ArraysSource(str(tmp_path / "o.npy"), label=0))
    message = refused(ArraysSource(str(tmp_path / "o.npz"), features="features", label="label"))
    assert "'label' of the arrays" in message
    assert "Pickled arrays can run code" in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no arrays at" in refused(ArraysSource(str(tmp_path / "none.npz"), features="f", label=0))
    assert "ending '.pt'" in refused(ArraysSource("x.pt", features="f", label=0))
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01")
    assert "cannot be read" in refused(ArraysSource(str(tmp_path / "cut.npy"), label=0))


@pytest.mark.data
def test_the_masks(data_dir: Path) -> None:
    real = ArraysSource(str(data_dir / "masks/real.npz"), features="features", label="with_mask", id="id")
    assert real.embeddings().shape == (3426, 1280)
    assert real.records().labels.sum() == 2164
    pairs = ArraysSource(
        str(data_dir / "masks/pairs.npz"), safe="without_mask", unsafe="with_mask", pair_id="pair_id", edited="unsafe"
    )
    with np.load(data_dir / "masks/pairs.npz") as arrays:
        assert (pairs.embeddings()[1::2] == arrays["with_mask"]).all()
    assert pairs.records().edited.tolist() == [False, True] * 200
