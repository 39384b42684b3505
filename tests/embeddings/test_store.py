"""Stores on disk: any shard size gives back what went in, clip-retrieval's own are read, damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardtrain.embeddings import Embeddings, EmbeddingStore
from guardtrain.embeddings.store import Plan, begin, write_shard
from guardtrain.errors import DataError, EncoderError, StoreError
from guardtrain.records import SCHEMA, Records
from tests.embeddings.fake_encoder import SPEC


def records_of(n: int) -> Records:
    return Records.from_columns(
        id=[f"r{i}" for i in range(n)],
        label=[i % 2 for i in range(n)],
        image=[f"{i}.jpg" if i % 3 else None for i in range(n)],
        category=[None if i % 2 else "fire" for i in range(n)],
        pair_id=[f"p{i // 2}" if i < n // 2 * 2 else None for i in range(n)],
        width=[i * 10 for i in range(n)],
        root=Path("/pictures"),
    )


def write(folder: Path, matrix: np.ndarray, shard_size: int, storage: str = "float32") -> Plan:
    records = records_of(len(matrix))
    plan = Plan(len(matrix), shard_size, records.digest(), "key", SPEC.fingerprint, storage)
    begin(folder, plan, SPEC)
    for shard in range(plan.shards):
        start, stop = plan.bounds(shard)
        write_shard(folder, plan, shard, matrix[start:stop], records.take(np.arange(start, stop)))
    return plan


def noise(n: int, dim: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32)


@given(n=st.integers(1, 25), shard_size=st.integers(1, 30), storage=st.sampled_from(["float32", "float16"]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shard_size_gives_back_what_went_in(
    tmp_path_factory: pytest.TempPathFactory, n: int, shard_size: int, storage: str
) -> None:
    folder = tmp_path_factory.mktemp("store")
    matrix = noise(n)
    write(folder, matrix, shard_size, storage)
    store = EmbeddingStore.open(folder)
    back = store.read()
    assert len(store) == n
    assert back.matrix.dtype == storage
    assert (back.matrix == matrix.astype(storage)).all()
    assert back.spec == SPEC
    records = records_of(n)
    without_image = [name for name in records.table.column_names if name != "image"]
    assert back.records.table.select(without_image).equals(records.table.select(without_image))
    assert back.records.image_uris() == records.image_uris()


def test_the_layout_is_clip_retrievals(tmp_path: Path) -> None:
    write(tmp_path, noise(5), 2)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == [
        "checksums/checksums_0000.sha256",
        "checksums/checksums_0001.sha256",
        "checksums/checksums_0002.sha256",
        "encoder.json",
        "extraction.json",
        "img_emb/img_emb_0000.npy",
        "img_emb/img_emb_0001.npy",
        "img_emb/img_emb_0002.npy",
        "metadata/metadata_0000.parquet",
        "metadata/metadata_0001.parquet",
        "metadata/metadata_0002.parquet",
    ]
    metadata = pq.read_table(tmp_path / "metadata" / "metadata_0000.parquet")
    assert metadata.column_names == [*SCHEMA.names, "width", "image_path"]
    assert metadata["image_path"].to_pylist() == [None, "/pictures/1.jpg"]


def clip_retrieval_store(folder: Path, shards: int = 11) -> np.ndarray:
    """What clip-retrieval itself writes: unpadded numbers as wide as needed, float16, no encoder, no labels."""
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    digits = len(str(shards - 1))
    matrix = noise(2 * shards, 4).astype(np.float16)
    for i in range(shards):
        np.save(folder / "img_emb" / f"img_emb_{i:0{digits}d}.npy", matrix[2 * i : 2 * i + 2])
        table = pa.table({"image_path": [f"/data/{2 * i}.jpg", f"/data/{2 * i + 1}.jpg"], "caption": ["a", None]})
        pq.write_table(table, folder / "metadata" / f"metadata_{i:0{digits}d}.parquet")
    return matrix


@pytest.mark.parametrize("shards", [1, 11])
def test_a_store_of_clip_retrieval_is_opened(tmp_path: Path, shards: int) -> None:
    matrix = clip_retrieval_store(tmp_path / "s", shards)
    store = EmbeddingStore.open(tmp_path / "s")
    assert (store.matrix() == matrix).all()
    assert (store.spec.family, store.spec.dim) == ("clip-retrieval", 4)
    assert store.metadata()["image_path"].to_pylist() == [f"/data/{i}.jpg" for i in range(2 * shards)]
    with pytest.raises(DataError, match=r"the store .* has no column 'id' \(it has: image_path, caption\)"):
        store.read()


def refused(folder: Path) -> str:
    with pytest.raises(StoreError) as caught:
        EmbeddingStore.open(folder)
    return str(caught.value)


def test_no_store(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert f"no embedding store at {tmp_path}: it must hold img_emb/ and metadata/; it holds photos." in refused(
        tmp_path
    )
    assert "no embedding store at" in refused(tmp_path / "none")
    (tmp_path / "img_emb").mkdir()
    assert "has no img_emb/img_emb_*.npy" in refused(tmp_path)


@pytest.mark.parametrize("lost", ["metadata/metadata_0001.parquet", "img_emb/img_emb_0001.npy"])
def test_a_part_is_known_to_be_a_part(tmp_path: Path, lost: str) -> None:
    write(tmp_path, noise(5), 2)
    (tmp_path / lost).unlink()
    assert "is not complete: 2 of 3 shards are written. Run the command" in refused(tmp_path)


def test_a_cut_file_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    write(tmp_path, noise(50), 25)
    file = tmp_path / "img_emb" / "img_emb_0001.npy"
    file.write_bytes(file.read_bytes()[:-4])
    assert "is not complete: 1 of 2" in refused(tmp_path)
    (tmp_path / "extraction.json").unlink()
    assert "img_emb_0001.npy is no whole array" in refused(tmp_path)


def test_damage_in_a_store_of_others(tmp_path: Path) -> None:
    clip_retrieval_store(tmp_path, 3)
    metadata = tmp_path / "metadata" / "metadata_1.parquet"
    pq.write_table(pa.table({"image_path": ["a"]}), metadata)
    assert "Shard 1 of the store" in refused(tmp_path)
    assert "has 2 embeddings and metadata of 1" in refused(tmp_path)
    metadata.write_text("cut")
    assert "is no whole Parquet file" in refused(tmp_path)
    metadata.unlink()
    assert "Shard 1 of the store" in refused(tmp_path)
    assert "has embeddings and no metadata" in refused(tmp_path)
    (tmp_path / "img_emb" / "img_emb_1.npy").unlink()
    assert "lacks shard 1: it has 2, up to 2" in refused(tmp_path)


def test_matrices_of_other_kinds_are_refused(tmp_path: Path) -> None:
    clip_retrieval_store(tmp_path, 2)
    np.save(tmp_path / "img_emb" / "img_emb_1.npy", np.zeros((2, 5), np.float16))
    assert "have different dimensions: 4, 5" in refused(tmp_path)
    np.save(tmp_path / "img_emb" / "img_emb_1.npy", np.zeros((2, 4), int))
    assert "must be (rows, dimensions) of floating type; it is (2, 4) int64" in refused(tmp_path)
    np.save(tmp_path / "img_emb" / "img_emb_1.npy", np.array([{}, {}]), allow_pickle=True)
    assert "is no whole array" in refused(tmp_path)


def test_dimensions_must_be_those_of_the_encoder(tmp_path: Path) -> None:
    write(tmp_path, noise(5), 8)
    spec = SPEC.to_dict() | {"dim": 9}
    (tmp_path / "encoder.json").write_text(json.dumps(spec))
    assert "says 9 dimensions, and the embeddings of" in refused(tmp_path)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    matrix = noise(6)
    matrix[4, 1] = np.inf
    with pytest.raises(StoreError, match="The embeddings of 1 images are not finite as float32, first r4"):
        write(tmp_path / "ours", matrix, 3)
    with pytest.raises(StoreError, match="not finite as float16, first r0"):
        write(tmp_path / "half", np.full((2, 3), 1e6), 3, "float16")
    folder = tmp_path / "theirs"
    clip_retrieval_store(folder, 2)
    np.save(folder / "img_emb" / "img_emb_1.npy", np.array([[0, 0, 0, 0], [0, np.nan, 0, 0]], np.float16))
    with pytest.raises(StoreError, match=r"img_emb_1.npy holds values that are not finite, first in row 1"):
        np.asarray(EmbeddingStore.open(folder).matrix())


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    write(tmp_path, noise(5), 8)
    store = EmbeddingStore.open(tmp_path)
    assert store.require(SPEC) is store
    with pytest.raises(EncoderError, match=r"encoder of the store .* They differ in normalize: False, not True"):
        store.require(replace(SPEC, normalize=True))


def test_take_keeps_rows_together() -> None:
    matrix = noise(4)
    some = Embeddings(records_of(4), matrix, SPEC).take([3, 0])
    assert some.records.ids.tolist() == ["r3", "r0"]
    assert (some.matrix == matrix[[3, 0]]).all()
    assert (len(some), some.dim) == (2, 3)
    with pytest.raises(StoreError, match="4 records cannot have embeddings of shape"):
        Embeddings(records_of(4), noise(5), SPEC)
