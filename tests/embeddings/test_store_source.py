"""Stores as sources: ours as they are, clip-retrieval's with labels from their metadata or a manifest."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guardtrain.embeddings import EmbeddingStore, StoreSource
from guardtrain.embeddings.renewal import renewal
from guardtrain.errors import ConfigError, DataError, StoreError
from guardtrain.records import Records
from guardtrain.sources import EmbeddingSource, ImageSource
from tests.embeddings.test_build import store_of
from tests.embeddings.test_store import noise


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Two shards as clip-retrieval writes them, with a column of its own kind of label."""
    (tmp_path / "s" / "img_emb").mkdir(parents=True)
    (tmp_path / "s" / "metadata").mkdir()
    for i in range(2):
        np.save(
            tmp_path / "s" / "img_emb" / f"img_emb_{i}.npy", np.float16(i) + np.array([[0] * 3, [0.5] * 3], np.float16)
        )
        table = pa.table(
            {
                "image_path": [f"/d/{2 * i}.jpg", f"/d/{2 * i + 1}.jpg"],
                "caption": ["a", "b"],
                "NSFW": ["UNLIKELY", "NSFW"],
            }
        )
        pq.write_table(table, tmp_path / "s" / "metadata" / f"metadata_{i}.parquet")
    return str(tmp_path / "s")


def refused(source: StoreSource) -> str:
    with pytest.raises(DataError) as caught:
        source.records()
    return str(caught.value)


def test_labels_from_the_metadata(store: str) -> None:
    source = StoreSource(store, columns={"label": "NSFW"}, labels={"UNLIKELY": 0, "NSFW": 1})
    assert source.records().labels.tolist() == [0, 1, 0, 1]
    assert source.records().ids.tolist() == [f"/d/{i}.jpg" for i in range(4)]
    assert source.records().image_uris() == [f"/d/{i}.jpg" for i in range(4)]
    assert source.embeddings()[:, 0].tolist() == [0, 0.5, 1, 1.5]
    assert source.encoder_description()["family"] == "clip-retrieval"
    assert isinstance(source, EmbeddingSource)
    assert not isinstance(source, ImageSource)
    assert len(source.content_key()) == 64


def test_where_keeps_rows_of_records_and_matrix(store: str) -> None:
    source = StoreSource(store, columns={"label": "NSFW"}, labels={"UNLIKELY": 0, "NSFW": 1}, where={"caption": "b"})
    assert source.records().ids.tolist() == ["/d/1.jpg", "/d/3.jpg"]
    assert source.embeddings()[:, 0].tolist() == [0.5, 1.5]


def test_labels_from_a_manifest_in_its_order(store: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("file,unsafe,topic,split\n/d/3.jpg,1,fire,test\n/d/0.jpg,0,lamp,train\n")
    columns = {"id": "file", "label": "unsafe", "category": "topic"}
    source = StoreSource(store, manifest=str(tmp_path / "m.csv"), manifest_columns=columns)
    assert source.records().ids.tolist() == ["/d/3.jpg", "/d/0.jpg"]
    assert source.records().categories.tolist() == ["fire", "lamp"]
    assert source.records().image_uris() == ["/d/3.jpg", "/d/0.jpg"]
    assert source.embeddings()[:, 0].tolist() == [1.5, 0]
    test = StoreSource(store, manifest=str(tmp_path / "m.csv"), manifest_columns=columns, split="test")
    assert test.embeddings()[:, 0].tolist() == [1.5]


def test_manifest_rows_the_store_lacks_are_named(store: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("id,label\n3.jpg,1\n/d/0.jpg,0\n")
    message = refused(StoreSource(store, manifest=str(tmp_path / "m.csv")))
    assert "1 of 2 records of the manifest" in message
    assert "are not in the store" in message
    assert "3.jpg. Ids there look like: /d/0.jpg, /d/1.jpg, /d/2.jpg" in message
    (tmp_path / "n.csv").write_text("ids,label\na,1\n")
    assert "manifest_columns={id: …}" in refused(StoreSource(store, manifest=str(tmp_path / "n.csv")))


def test_a_store_without_labels_says_how_to_give_them(store: str) -> None:
    message = refused(StoreSource(store))
    assert "has no labels (metadata: NSFW, caption, image_path)" in message
    assert "columns={label: …}, or give a `manifest`" in message
    assert "'UNLIKELY' (2), 'NSFW' (2)" in refused(StoreSource(store, columns={"label": "NSFW"}))


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no embedding store at"):
        StoreSource(str(tmp_path)).records()


PAIRED = {
    "id": [f"r{i}" for i in range(6)],
    "label": [0, 1, 0, 1, 0, 1],
    "pair_id": ["p", "p", "q", "q", None, None],
    "category": ["a"] * 6,
}


def labelled(folder: Path, labels: list[int], **more: object) -> StoreSource:
    """A store that guardtrain wrote, and a manifest of it with other labels of some rows."""
    if not (folder / "s").exists():
        store_of(folder / "s", Records.from_columns(**PAIRED), noise(6))
    table = PAIRED | {"label": ["unsafe" if label else "safe" for label in labels], "category": ["a", "b"] + ["a"] * 4}
    pq.write_table(pa.table(table), folder / "m.parquet")
    return StoreSource(str(folder / "s"), manifest=str(folder / "m.parquet"), **more)  # type: ignore[arg-type]


def test_a_manifest_that_contradicts_the_store_is_refused_unless_one_says_which_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mended = [1, 0, 0, 1, 0, 0]
    text = refused(labelled(tmp_path, mended))
    assert "3 of 6 records of the manifest " in text
    assert "r0 (0 there, 1 in the manifest), r1 (1 there, 0 in the manifest), r5 (1 there, 0 in" in text
    assert [line.strip() for line in text.splitlines() if "disputed=" in line] == [
        "disputed=first", "disputed=last", "disputed=drop",
    ]  # fmt: skip
    last = labelled(tmp_path, mended, disputed="last").records()
    assert last.labels.tolist() == mended
    assert last.categories.tolist() == ["a", "b"] + ["a"] * 4
    assert "counts: category of 1 row (such as r1: 'a', there 'b')" in caplog.text
    first = labelled(tmp_path, mended, disputed="first").records()
    assert first.labels.tolist() == PAIRED["label"]
    assert first.taken is not None
    dropped = labelled(tmp_path, [1, 1, 0, 1, 0, 0], disputed="drop")  # r0, and with it r1; r5
    assert dropped.records().ids.tolist() == ["r2", "r3", "r4"]
    np.testing.assert_array_equal(dropped.embeddings()[:], noise(6)[2:5])
    caplog.clear()
    assert labelled(tmp_path, [0, 1, 0, 1, 0, 1]).records().labels.tolist() == PAIRED["label"]
    with pytest.raises(ConfigError, match="disputed is 'manifest'; allowed: error, first, last, drop"):
        labelled(tmp_path, mended, disputed="manifest")


def test_a_manifest_of_before_the_stores_labels_were_mended_is_noticed(tmp_path: Path) -> None:
    source = labelled(tmp_path, [0, 1, 0, 1, 0, 1])
    source.records()
    mended = Records.from_columns(**(PAIRED | {"label": [0, 1, 0, 1, 1, 1]}))
    renewal(EmbeddingStore.open(tmp_path / "s").shards, mended).write(tmp_path / "s")
    assert "1 of 6 records" in refused(labelled(tmp_path, [0, 1, 0, 1, 0, 1]))


def test_labels_of_another_kind_in_the_store_do_not_contradict_the_manifest(store: str, tmp_path: Path) -> None:
    for i in range(2):
        path = tmp_path / "s" / "metadata" / f"metadata_{i}.parquet"
        pq.write_table(pq.read_table(path).append_column("label", pa.array(["cat", "dog"])), path)
    (tmp_path / "m.csv").write_text("id,label\n/d/0.jpg,1\n/d/3.jpg,0\n")
    assert StoreSource(store, manifest=str(tmp_path / "m.csv")).records().labels.tolist() == [1, 0]
