"""Appending: only what is missing is embedded, the store is the old one until it is the new one, and faults say so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from guardtrain.embeddings import EmbeddingStore, StoreSource, append
from guardtrain.embeddings.append import SomeRecords, append_records
from guardtrain.embeddings.extraction import extract
from guardtrain.embeddings.verify import remove_damaged, verify_store
from guardtrain.encoders import EncoderSettings
from guardtrain.errors import DataError, EncoderError, StoreError
from tests.embeddings.fake_encoder import SPEC, BatchedPictures, EncodedPictures, FakeEncoder, Pictures, expected
from tests.embeddings.test_store import clip_retrieval_store, noise, write

STORED = replace(SPEC, dim=6)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    """The encoder that appending loads: the weights of its spec are nowhere."""
    model = FakeEncoder()
    monkeypatch.setattr(append, "resolve_spec", lambda _: STORED)
    monkeypatch.setattr(extract, "__kwdefaults__", extract.__kwdefaults__ | {"load": lambda _: model})
    return model


def begun(folder: Path, n: int, **options: Any) -> EmbeddingStore:
    return extract(Pictures(n), STORED, folder, shard_size=4, progress=False, load=lambda _: FakeEncoder(), **options)


def added(folder: Path, source: Pictures) -> tuple[EmbeddingStore, list[str]]:
    said: list[str] = []
    return append_records(folder, source, progress=False, say=said.append), said


@pytest.mark.parametrize("source", [Pictures, BatchedPictures])
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_what_is_missing_is_embedded(tmp_path: Path, encoder: FakeEncoder, source: type, storage: str) -> None:
    begun(tmp_path, 6, storage=storage)
    grown, said = added(tmp_path, source(11))
    assert said == ["6 of 11 records are there already"]
    assert sum(encoder.batches) == 5
    assert grown.matrix().dtype == storage
    np.testing.assert_allclose(grown.matrix(), expected(11), atol=1e-6 if storage == "float32" else 1e-3)
    assert grown.read().records.ids.tolist() == [f"r{i}" for i in range(11)]
    assert verify_store(tmp_path).ok
    assert not (tmp_path / ".append").exists()
    again, _ = added(tmp_path, source(11))
    assert (len(again), sum(encoder.batches)) == (11, 5)
    assert len(added(tmp_path, source(12))[0]) == 12


def test_cut_off_it_is_the_old_store_and_goes_on(tmp_path: Path, encoder: FakeEncoder) -> None:
    begun(tmp_path, 6)

    def stop(i: int) -> None:
        if i == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        added(tmp_path, Pictures(11, at=stop))
    assert len(EmbeddingStore.open(tmp_path)) == 6
    assert verify_store(tmp_path).ok
    assert len(added(tmp_path, Pictures(11))[0]) == 11


def test_cut_off_while_shards_are_added(tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path, 6)
    link, linked = append.link_shard, 0

    def one(*arguments: Any) -> None:
        nonlocal linked
        linked += 1
        link(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(append, "link_shard", one)
    with pytest.raises(KeyboardInterrupt):
        added(tmp_path, Pictures(11))
    np.testing.assert_allclose(EmbeddingStore.open(tmp_path).matrix(), expected(6), atol=1e-6)
    monkeypatch.setattr(append, "link_shard", link)
    computed = sum(encoder.batches)
    np.testing.assert_allclose(added(tmp_path, Pictures(11))[0].matrix(), expected(11), atol=1e-6)
    assert sum(encoder.batches) == computed


def test_a_lost_shard_is_made_again_by_what_made_it(tmp_path: Path, encoder: FakeEncoder) -> None:
    begun(tmp_path, 6)
    added(tmp_path, Pictures(11))
    (tmp_path / "img_emb" / "img_emb_0000.npy").unlink()
    (tmp_path / "img_emb" / "img_emb_0002.npy").unlink()
    found = verify_store(tmp_path)
    assert [check.number for check in found.damaged] == [0, 2]
    remove_damaged(found)
    assert len(begun(tmp_path, 6)) == 6  # the first of them
    assert verify_store(tmp_path).ok
    grown, said = added(tmp_path, Pictures(11))
    assert said == ["6 of 11 records are there already"]
    np.testing.assert_allclose(grown.matrix(), expected(11), atol=1e-6)


def test_what_cannot_be_embedded_is_listed_until_it_can(tmp_path: Path, encoder: FakeEncoder) -> None:
    begun(tmp_path, 6)

    def broken(i: int) -> None:
        if i == 9:
            raise OSError("cut")

    assert len(added(tmp_path, Pictures(11, at=broken))[0]) == 10
    listed = pq.read_table(tmp_path / "quarantine.parquet").to_pylist()
    assert [(each["id"], "cut" in each["reason"]) for each in listed] == [("r9", True)]
    grown, said = added(tmp_path, Pictures(11))
    assert said == ["10 of 11 records are there already"]
    assert grown.metadata()["id"].to_pylist() == [*(f"r{i}" for i in range(11) if i != 9), "r9"]
    assert not (tmp_path / "quarantine.parquet").exists()
    assert verify_store(tmp_path).ok


def test_a_pair_is_whole_again_once_its_half_is_mended(tmp_path: Path, encoder: FakeEncoder) -> None:
    """Pairs (r0, r1), (r2, r3), (r4, r5); r1 and both of the last are damaged, then r1 and r5 are mended."""

    def paired(*damaged: int, key: str) -> EncodedPictures:
        source = EncodedPictures(6, damaged=dict.fromkeys(damaged, b""))
        records = source.records().with_column("pair_id", [f"p{i // 2}" for i in range(6)])
        source.records = lambda: records  # type: ignore[method-assign]
        source.content_key = lambda: key  # type: ignore[method-assign]
        return source

    def usable() -> list[str]:
        again = StoreSource(str(tmp_path)).records()
        assert again.ids.tolist() == EmbeddingStore.open(tmp_path).read().records.ids.tolist()
        assert all(again.pair_ids == [f"p{int(i[1:]) // 2}" for i in again.ids])
        return sorted(again.ids)

    begun = paired(1, 4, 5, key="begun")
    extract(begun, STORED, tmp_path, shard_size=4, progress=False, load=lambda _: FakeEncoder())
    assert usable() == ["r2", "r3"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    added(tmp_path, begun)  # nothing was mended: no error, and nothing changes
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    grown, _ = added(tmp_path, paired(4, key="mended"))
    assert usable() == ["r0", "r1", "r2", "r3"]
    matrix, there = np.asarray(grown.matrix()), [int(i[1:]) for i in grown.metadata()["id"].to_pylist()]
    np.testing.assert_allclose(matrix, expected(6)[there], atol=1e-6)
    assert [each["id"] for each in pq.read_table(tmp_path / "quarantine.parquet").to_pylist()] == ["r4"]
    extract(begun, STORED, tmp_path, progress=False, load=lambda _: FakeEncoder())  # and nothing of it is undone
    assert [each["id"] for each in pq.read_table(tmp_path / "quarantine.parquet").to_pylist()] == ["r4"]
    with pytest.raises(StoreError, match="has been added to since: `guardtrain store append` tries again"):
        extract(begun, STORED, tmp_path, progress=False, load=lambda _: FakeEncoder(), retry=True)
    added(tmp_path, paired(key="all"))
    assert usable() == [f"r{i}" for i in range(6)]
    assert verify_store(tmp_path).ok
    assert not (tmp_path / "quarantine.parquet").exists()


def test_stores_that_cannot_be_added_to(tmp_path: Path, encoder: FakeEncoder) -> None:
    clip_retrieval_store(tmp_path / "theirs", 2)
    with pytest.raises(EncoderError, match="does not say which encoder made it"):
        added(tmp_path / "theirs", Pictures(3))
    write(tmp_path / "other", noise(3, 6), 4)  # of the encoder without dim, which is the same
    begun(tmp_path / "ours", 3)

    class Embedded:
        records = Pictures(3).records

    with pytest.raises(DataError, match="only images are appended"):
        append_records(tmp_path / "ours", Embedded())  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="no embedding store at"):
        added(tmp_path / "none", Pictures(3))


def test_another_encoder_is_refused_before_anything_is_embedded(
    tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path, 3)
    monkeypatch.setattr(append, "resolve_spec", lambda _: replace(STORED, model="other"))
    with pytest.raises(EncoderError, match=r"They differ in model: 'other', not 'fake'"):
        append_records(tmp_path, Pictures(5), encoder=EncoderSettings(model="other"), progress=False)
    assert not encoder.batches
    assert len(EmbeddingStore.open(tmp_path)) == 3


def test_some_records_give_images_in_the_ways_the_whole_does() -> None:
    rows = np.array([4, 1])
    some = SomeRecords(BatchedPictures(6), rows)
    assert some.records().ids.tolist() == ["r4", "r1"]
    np.testing.assert_array_equal(some.images([1, 0]), BatchedPictures(6).images([1, 4]))
    assert not hasattr(SomeRecords(Pictures(6), rows), "images")
    np.testing.assert_array_equal(SomeRecords(Pictures(6), rows).image(1), Pictures(6).image(1))
    assert some.content_key() != SomeRecords(BatchedPictures(6), rows[::-1]).content_key()

    class Encoded(Pictures):
        def encoded(self, i: int) -> bytes:
            return bytes([i])

        def image(self, i: int) -> Image.Image:
            raise AssertionError

    assert SomeRecords(Encoded(6), rows).encoded(0) == b"\4"
