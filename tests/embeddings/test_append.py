"""Appending: only what is missing is embedded, the store is the old one until it is the new one, and faults say so."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
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
from guardtrain.errors import ConfigError, DataError, EncoderError, StoreError
from guardtrain.records import Records
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


class Tabled(EncodedPictures):
    """PNGs in a folder, with a table of one's own."""

    def __init__(self, folder: Path, n: int, **table: Any) -> None:
        super().__init__(n)
        self.files = [folder / f"{i}.png" for i in range(n)]
        self.table = {"label": [i % 2 for i in range(n)]} | table
        for i, file in enumerate(self.files):
            if not file.exists():
                file.write_bytes(EncodedPictures.encoded(self, i))

    def records(self) -> Records:
        ids, images = [f"r{i}" for i in range(self.n)], [str(file) for file in self.files]
        return Records.from_columns(id=ids, image=images, **self.table)

    def content_key(self) -> str:
        return f"{self.n} {[file.stat().st_mtime_ns for file in self.files]}"

    def encoded(self, i: int) -> bytes:
        return self.files[i].read_bytes()


def test_what_the_store_has_is_renewed_and_what_contradicts_it_is_refused(
    tmp_path: Path, encoder: FakeEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "store"
    table = {"category": ["a"] * 6, "split": ["train"] * 6, "edited": [True] * 6, "width": list(range(6))}
    extract(Tabled(tmp_path, 6, **table), STORED, folder, shard_size=4, progress=False, load=lambda _: FakeEncoder())
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    mended = Tabled(tmp_path, 8, label=[1, 1, 0, 1, 0, 0, 0, 1], category=[None] * 4 + ["b"] * 4)
    told = (
        r"2 of 8 records have another label in the store .*, which has them already: r0 \(0 there, 1 now\), "
        r"r5 \(1 there, 0 now\)\. Mend those that are wrong, or add disputed=first \(.*\) or disputed=last "
    )
    with pytest.raises(DataError, match=told):
        append_records(folder, mended, progress=False)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not encoder.batches
    kept = append_records(folder, mended, progress=False, disputed="first").read().records
    assert kept.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert kept.categories.tolist() == ["a"] * 4 + ["b", "a", "b", "b"]  # r5 is left as it is, empty cells say nothing
    assert "renewed, nothing embedded anew: category of 1 row (such as r4: 'a', now 'b')" in caplog.text
    assert kept.splits.tolist() == ["train"] * 6 + [None] * 2
    assert kept.edited.tolist() == [True] * 6 + [False] * 2
    assert kept.column("width").tolist()[:6] == list(range(6))
    new = append_records(folder, mended, progress=False, disputed="last").read().records
    assert new.labels.tolist() == mended.table["label"]
    assert new.categories.tolist() == ["a"] * 4 + ["b"] * 4
    assert "label of 2 rows (such as r0: 0, now 1); category of 1 row (such as r5: 'a', now 'b')" in caplog.text
    assert sum(encoder.batches) == 2
    assert verify_store(folder).ok
    with pytest.raises(ConfigError, match="disputed is 'drop'; allowed: error, first, last"):
        append_records(folder, mended, disputed="drop")


def test_another_image_under_an_id_that_is_there_is_refused(tmp_path: Path, encoder: FakeEncoder) -> None:
    folder = tmp_path / "store"
    first = Tabled(tmp_path, 4)
    extract(first, STORED, folder, progress=False, load=lambda _: FakeEncoder())
    first.files[1].write_bytes(first.encoded(1))  # newer, and the same
    first.files[2].write_bytes(first.encoded(3))
    os.utime(first.files[2], ns=(2**62, 2**62))
    (tmp_path / "moved").mkdir()
    moved = Tabled(tmp_path / "moved", 6)
    moved.files[0].write_bytes(first.encoded(3))
    for source, name in ((Tabled(tmp_path, 6), "r2"), (moved, "r0")):
        with pytest.raises(DataError, match=f"1 of 6 records are other images now than those in .*: {name}. Give them"):
            append_records(folder, source, progress=False, disputed="last")
    assert not encoder.batches
    grown = append_records(folder, moved, progress=False, disputed="first")
    np.testing.assert_allclose(grown.matrix(), expected(6), atol=1e-6)
    assert grown.metadata()["image"].to_pylist() == [str(f) for f in (first.files[0], *moved.files[1:])]


def test_records_that_do_not_go_with_those_there_are_refused_before_anything_is_embedded(
    tmp_path: Path, encoder: FakeEncoder
) -> None:
    folder = tmp_path / "store"
    first = Tabled(tmp_path, 4, pair_id=["p", "p", None, None])
    extract(first, STORED, folder, progress=False, load=lambda _: FakeEncoder())
    with pytest.raises(DataError, match="with what is to be added these do not: p "):
        append_records(folder, Tabled(tmp_path, 6, pair_id=[None] * 4 + ["p", "p"]), progress=False)
    assert not encoder.batches
    # a pair whose first half was there alone is one as soon as both are
    grown = append_records(folder, Tabled(tmp_path, 6, pair_id=[None] * 3 + ["q", "q", None]), progress=False)
    assert grown.read().records.pair_ids.tolist() == ["p", "p", None, "q", "q", None]


@pytest.mark.parametrize("number", range(1, 12))
def test_a_crash_while_rows_are_added_and_renewed_does_both_or_neither(
    tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder = tmp_path / "store"
    extract(Tabled(tmp_path, 5), STORED, folder, progress=False, load=lambda _: FakeEncoder())
    source = Tabled(tmp_path, 6, pair_id=[None] * 4 + ["q", "q"])
    replaced, count = Path.replace, 0

    def crash(self: Path, target: Path) -> Path:
        nonlocal count
        count += ".append" not in self.parts
        if count >= number:
            raise SystemExit
        return replaced(self, target)

    monkeypatch.setattr(Path, "replace", crash)
    with suppress(SystemExit):
        append_records(folder, source, progress=False)
    monkeypatch.setattr(Path, "replace", replaced)
    pairs = EmbeddingStore.open(folder).read().records.pair_ids.tolist()
    assert pairs in ([None] * 5, [None] * 4 + ["q", "q"])
    assert verify_store(folder).ok
    assert append_records(folder, source, progress=False).read().records.pair_ids.tolist() == [None] * 4 + ["q", "q"]
