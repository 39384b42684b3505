"""Stores in the real `embedding-reader`, which clip-retrieval's tools read with: the same rows beside the same ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guardtrain.embeddings import EmbeddingStore
from guardtrain.embeddings.build import build_store
from guardtrain.embeddings.merge import merge_stores
from guardtrain.records import Records
from tests.embeddings.test_build import store_of
from tests.embeddings.test_store import clip_retrieval_store, noise, write

embedding_reader = pytest.importorskip("embedding_reader")


def read_by_it(folder: Path, column: str) -> tuple[np.ndarray, list[str]]:
    """All rows and one column of the metadata, five rows at a time."""
    reader = embedding_reader.EmbeddingReader(
        str(folder / "img_emb"), "parquet_npy", metadata_folder=str(folder / "metadata"), meta_columns=[column]
    )
    batches = list(reader(batch_size=5, show_progress=False))
    matrix = np.concatenate([matrix for matrix, _ in batches])
    assert matrix.shape == (reader.count, reader.dimension)
    return matrix, [value for _, table in batches for value in table[column]]


@pytest.mark.parametrize(("n", "size"), [(1, 4), (12, 4), (23, 2)])
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_ours_open_there(tmp_path: Path, n: int, size: int, storage: str) -> None:
    matrix = noise(n, 6)
    write(tmp_path, matrix, size, storage)
    theirs, ids = read_by_it(tmp_path, "id")
    np.testing.assert_array_equal(theirs, matrix.astype(storage))
    assert ids == [f"r{i}" for i in range(n)]
    alone = embedding_reader.EmbeddingReader(str(tmp_path / "img_emb"), "npy")
    np.testing.assert_array_equal(next(iter(alone(batch_size=n, show_progress=False)))[0], theirs)


def test_so_do_stores_that_were_joined_and_thinned_out(tmp_path: Path) -> None:
    write(tmp_path / "a", noise(9), 2)
    more = Records.from_columns(id=["x", "y", "z"], label=[0, 1, 0])
    store_of(tmp_path / "b", more, noise(3))
    merged = merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "ab")
    some = build_store(tmp_path / "some", [merged], np.array([0, 3, 4, 5, 10]), "test")
    for store in (merged, some):
        theirs, ids = read_by_it(store.path, "id")
        np.testing.assert_array_equal(theirs, store.matrix())
        assert ids == store.metadata()["id"].to_pylist()


@pytest.mark.parametrize("shards", [1, 10, 11, 101])
def test_clip_retrievals_layout_reads_the_same_here_and_there(tmp_path: Path, shards: int) -> None:
    matrix = clip_retrieval_store(tmp_path, shards)
    theirs, paths = read_by_it(tmp_path, "image_path")
    store = EmbeddingStore.open(tmp_path)
    np.testing.assert_array_equal(theirs, matrix)
    np.testing.assert_array_equal(store.matrix(), theirs)
    assert store.metadata()["image_path"].to_pylist() == paths


def test_columns_that_differ_from_partition_to_partition(tmp_path: Path) -> None:
    """clip-retrieval writes through pandas, so a caption that no image of a partition has is a column of nulls."""
    clip_retrieval_store(tmp_path, 2)
    file = tmp_path / "metadata" / "metadata_1.parquet"
    table = pa.table({"image_path": ["/data/2.jpg", "/data/3.jpg"], "caption": pa.nulls(2), "width": [1.0, 2.0]})
    pq.write_table(table, file)
    metadata = EmbeddingStore.open(tmp_path).metadata()
    assert metadata["caption"].to_pylist() == ["a", None, None, None]
    assert metadata["width"].to_pylist() == [None, None, 1.0, 2.0]
