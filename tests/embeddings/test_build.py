"""Stores made of rows of others: filtered, deduplicated, merged; they hold the right rows, and nothing is computed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardtrain.embeddings import EmbeddingStore, StoreSource
from guardtrain.embeddings.build import build_store, pieces_of
from guardtrain.embeddings.merge import merge_stores
from guardtrain.embeddings.quarantine import SetAside
from guardtrain.embeddings.renewal import renewal
from guardtrain.embeddings.selection import distinct_rows, matching_rows, read_ids, write_record_table
from guardtrain.embeddings.store import Plan, begin, write_shard
from guardtrain.embeddings.verify import verify_store
from guardtrain.encoders.spec import EncoderSpec
from guardtrain.errors import ConfigError, DataError, EncoderError, StoreError
from guardtrain.records import Records
from tests.embeddings.fake_encoder import SPEC
from tests.embeddings.test_store import clip_retrieval_store, noise, records_of, write


def store_of(folder: Path, records: Records, matrix: np.ndarray, spec: EncoderSpec = SPEC, shard: int = 4) -> Path:
    plan = Plan(len(records), shard, records.digest(), "key", spec.fingerprint)
    begin(folder, plan, spec)
    for i in range(plan.shards):
        rows = np.arange(*plan.bounds(i))
        write_shard(folder, plan, i, matrix[rows], records.take(rows))
    return folder


@given(n=st.integers(1, 20), size=st.integers(1, 8), data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows_make_a_store_of_these_rows(
    tmp_path_factory: pytest.TempPathFactory, n: int, size: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("built")
    write(folder / "a", noise(n), size, "float16")
    store = EmbeddingStore.open(folder / "a")
    kept = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))), dtype=np.int64)
    built = build_store(folder / "b", [store], kept, "test")
    np.testing.assert_array_equal(built.matrix(), store.matrix()[kept])
    assert built.matrix().dtype == np.float16
    assert built.spec == store.spec
    assert built.metadata().equals(store.metadata().take(pa.array(kept)))
    assert verify_store(folder / "b").ok
    pieces = pieces_of(store.shards, kept)
    np.testing.assert_array_equal(np.concatenate([piece.rows for piece in pieces]), kept)
    assert max(len(piece.rows) for piece in pieces) <= size


def test_whole_shards_are_linked_and_others_filled_up(tmp_path: Path) -> None:
    write(tmp_path / "a", noise(20), 4)
    store = EmbeddingStore.open(tmp_path / "a")
    kept = np.array([0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 17])
    built = build_store(tmp_path / "b", [store], kept, "test")
    assert [shard.rows for shard in built.shards] == [4, 2, 4, 4, 1]
    linked = [shard.matrix.stat().st_ino for shard in store.shards[2:4]]
    assert [shard.matrix.stat().st_ino for shard in built.shards[2:4]] == linked


def test_a_part_is_known_to_be_one_and_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a", noise(20), 4)
    store, kept = EmbeddingStore.open(tmp_path / "a"), np.arange(19)

    def stop(rows: int) -> Iterator[None]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_store(tmp_path / "b", [store], kept, "test", stop)
    with pytest.raises(StoreError, match="is not complete: 1 of 5 shards are written"):
        EmbeddingStore.open(tmp_path / "b")
    before = (tmp_path / "b" / "img_emb" / "img_emb_0000.npy").stat().st_ctime_ns
    assert len(build_store(tmp_path / "b", [store], kept, "test")) == 19
    assert (tmp_path / "b" / "img_emb" / "img_emb_0000.npy").stat().st_ctime_ns == before
    with pytest.raises(StoreError, match="holds another store"):
        build_store(tmp_path / "b", [store], kept[1:], "test")
    with pytest.raises(StoreError, match="out is the store"):
        build_store(tmp_path / "a", [store], kept, "test")
    with pytest.raises(StoreError, match="No row is left"):
        build_store(tmp_path / "c", [store], kept[:0], "test")
    assert not (tmp_path / "c").exists()


def test_matching_rows(tmp_path: Path) -> None:
    write(tmp_path / "a", noise(9), 4)  # pairs (0, 1) … (6, 7); even rows are safe and of category fire
    store = EmbeddingStore.open(tmp_path / "a")
    assert matching_rows(store, where={"width": [0, 10, 80]}).tolist() == [0, 1, 8]
    assert matching_rows(store, ids=["r8", "r1", "r0"]).tolist() == [0, 1, 8]
    with pytest.raises(DataError, match=r"one half of 4 pairs of the store .*: p0, p1, p2 and 1 more"):
        matching_rows(store, where={"category": "fire"})
    assert matching_rows(store, where={"category": "fire"}, halves="drop").tolist() == [8]
    assert matching_rows(store, where={"category": "fire"}, ids=["r2", "r8"], halves="complete").tolist() == [2, 3, 8]
    with pytest.raises(DataError, match="Nothing but halves"):
        matching_rows(store, ids=["r1"], halves="drop")
    with pytest.raises(DataError, match=r"1 of 2 ids are not in the store .*: x"):
        matching_rows(store, ids=["r1", "x"])
    with pytest.raises(DataError, match="where names 'colour'"):
        matching_rows(store, where={"colour": 1})
    with pytest.raises(DataError, match=r"'split' of the store .* is 'test' in no row. It holds \(empty\) \(9\)"):
        matching_rows(store, split="test")
    with pytest.raises(ConfigError, match="halves is 'some'"):
        matching_rows(store, halves="some")


def test_ids_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("r1\n\n r2 \n", encoding="utf-8-sig")
    (tmp_path / "ids.csv").write_text("id,x\n01,a\n2,b\n")
    assert read_ids(str(tmp_path / "ids.txt")) == ["r1", "r2"]
    assert read_ids(str(tmp_path / "ids.csv")) == ["01", "2"]
    with pytest.raises(DataError, match="cannot be read"):
        read_ids(str(tmp_path / "none"))
    (tmp_path / "x.csv").write_text("ids\n1\n")
    with pytest.raises(DataError, match=r"no column 'id'\. Did you mean 'ids'"):
        read_ids(str(tmp_path / "x.csv"))


def test_a_record_table_refers_to_rows_of_the_store(tmp_path: Path) -> None:
    write(tmp_path / "a", noise(9), 4)
    store, rows = EmbeddingStore.open(tmp_path / "a"), np.array([2, 3, 8])
    write_record_table(store, rows, tmp_path / "some.parquet")
    source = StoreSource(str(tmp_path / "a"), manifest=str(tmp_path / "some.parquet"))
    assert source.records().ids.tolist() == ["r2", "r3", "r8"]
    assert source.records().pair_ids.tolist() == ["p1", "p1", None]
    np.testing.assert_array_equal(source.embeddings(), store.matrix()[rows])


def test_a_record_table_of_a_store_of_clip_retrieval(tmp_path: Path) -> None:
    clip_retrieval_store(tmp_path / "s", 3)
    store = EmbeddingStore.open(tmp_path / "s")
    rows = matching_rows(store, where={"caption": "a"})
    write_record_table(store, rows, tmp_path / "some.parquet")
    assert pq.read_table(tmp_path / "some.parquet")["id"].to_pylist() == ["/data/0.jpg", "/data/2.jpg", "/data/4.jpg"]
    built = build_store(tmp_path / "b", [store], rows, "filter")
    assert built.spec == store.spec
    assert not (tmp_path / "b" / "encoder.json").exists()


def _copies(folder: Path, hashed: list[str | None] | None, pair_id: list[str | None] | None = None) -> EmbeddingStore:
    """Six images; rows 3 and 4 are copies of rows 0 and 1."""
    matrix = noise(6)
    matrix[3:5] = matrix[:2]
    columns = {} if hashed is None else {"sha256": hashed}
    records = Records.from_columns(
        id=list("abcdef"), label=[0, 1, 0, 0, 0, 1], pair_id=pair_id or [None] * 6, **columns
    )
    return EmbeddingStore.open(store_of(folder, records, matrix))


def test_distinct_rows(tmp_path: Path) -> None:
    rows = _copies(tmp_path / "rows", None)
    told = r"In the store .* 1 image has two labels: b \(1\), e \(0\)\. .*"
    with pytest.raises(DataError, match=told + r"disputed=first \(.*disputed=last \(.* or disputed=drop \("):
        distinct_rows(rows)
    found = distinct_rows(rows, "first")
    assert (found.rows.tolist(), found.removed, found.by_file, found.by_embedding) == ([0, 1, 2, 5], 2, 0, 2)
    assert found.disputed == ((("b", 1), ("e", 0)),)
    assert distinct_rows(rows, "last").rows.tolist() == [0, 2, 4, 5]
    assert distinct_rows(rows, "drop").rows.tolist() == [0, 2, 5]
    with pytest.raises(ConfigError, match="disputed is 'newest'; allowed: error, first, last, drop"):
        distinct_rows(rows, "newest")
    # a and c are one file; d and e are a and b, written anew without loss
    found = distinct_rows(_copies(tmp_path / "hash", ["1", "2", "1", "3", "4", "5"]), "first")
    assert (found.rows.tolist(), found.by_file, found.by_embedding) == ([0, 1, 5], 1, 2)
    found = distinct_rows(_copies(tmp_path / "some", ["1", "1", "2", None, None, "3"]), "first")
    assert (found.rows.tolist(), found.disputed) == ([0, 2, 5], ((("a", 0), ("b", 1)),))


def test_a_half_of_a_pair_is_kept_and_its_copies_go(tmp_path: Path) -> None:
    pairs = [None, "q", None, "p", "q", "p"]
    store = _copies(tmp_path / "s", None, pairs)
    for disputed in ("first", "last"):
        found = distinct_rows(store, disputed)
        assert found.rows.tolist() == [1, 2, 3, 4, 5]  # not row 0, whose copy 3 is half of a pair
        assert (found.removed, found.paired) == (1, 1)
    assert distinct_rows(store, "drop").rows.tolist() == [2, 3, 5]  # without q, whose halves are one image


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([None, "f", "g", "h"]), st.integers(0, 1)), min_size=1, max_size=12
)


@given(rows=ROWS, disputed=st.sampled_from(["first", "last", "drop"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_every_image_one_row_is_kept(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str | None, int]], disputed: str
) -> None:
    """Against images found by following one row to the next, as long as there is another of its file or embedding."""
    folder = tmp_path_factory.mktemp("images")
    hashes = pa.array([file for _, file, _ in rows], pa.string())
    records = Records.from_columns(id=[f"r{i}" for i in range(len(rows))], label=[r[2] for r in rows], sha256=hashes)
    store_of(folder / "a", records, noise(4)[[row[0] for row in rows]])
    images: list[list[int]] = []
    for start in range(len(rows)):
        if any(start in image for image in images):
            continue
        image = {start}
        for _ in rows:
            image |= {
                i for i, row in enumerate(rows) for j in image
                if row[0] == rows[j][0] or (row[1] is not None and row[1] == rows[j][1])
            }  # fmt: skip
        images.append(sorted(image))
    conflicts = [image for image in images if len({rows[i][2] for i in image}) > 1]
    kept = []
    for image in images:
        if image not in conflicts or disputed == "first":
            kept.append(image[0])
        elif disputed == "last":
            kept.append(image[-1])
    found = distinct_rows(EmbeddingStore.open(folder / "a"), disputed)
    assert found.rows.tolist() == sorted(kept)
    assert found.by_file + found.by_embedding == len(rows) - len(images)
    assert len(found.disputed) == len(conflicts)


def test_a_half_whose_other_half_was_set_aside_is_no_record_to_keep(tmp_path: Path) -> None:
    records, matrix = records_of(8), noise(8)  # pairs (0, 1), (2, 3) …
    plan = Plan(8, 4, records.digest(), "key", SPEC.fingerprint)
    begin(tmp_path / "a", plan, SPEC)
    lost = SetAside(2, "r2", "/pictures/2.jpg", "p1", "cut")
    write_shard(tmp_path / "a", plan, 0, matrix[[0, 1, 3]], records.take([0, 1, 3]), [lost])
    write_shard(tmp_path / "a", plan, 1, matrix[4:], records.take([4, 5, 6, 7]))
    store = EmbeddingStore.open(tmp_path / "a")
    assert matching_rows(store, where={"width": [0, 10, 30, 60, 70]}).tolist() == [0, 1, 5, 6]
    assert distinct_rows(store).rows.tolist() == [0, 1, 3, 4, 5, 6]
    assert verify_store(tmp_path / "a").ok
    write(tmp_path / "b", noise(2), 4)
    merged = merge_stores([tmp_path / "b", tmp_path / "a"], tmp_path / "ba", duplicates="first")
    assert len(merged) == 7
    assert merged.read().records.ids.tolist() == ["r0", "r1", "r4", "r5", "r6", "r7"]
    assert pq.read_table(tmp_path / "ba" / "quarantine.parquet")["id"].to_pylist() == ["r2"]


def test_merging(tmp_path: Path) -> None:
    matrix = noise(9)
    records = records_of(9)
    store_of(tmp_path / "a", records.take(np.arange(6)), matrix[:6])
    more = Records.from_columns(id=["r6", "r7", "r8"], label=[0, 1, 0], colour=["red", None, "blue"])
    store_of(tmp_path / "b", more, matrix[6:], shard=2)
    merged = merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "ab")
    np.testing.assert_array_equal(merged.matrix(), matrix)
    both = merged.read().records
    assert both.ids.tolist() == [f"r{i}" for i in range(9)]
    assert both.column("colour").tolist() == [None] * 6 + ["red", None, "blue"]
    assert [shard.matrix.stat().st_ino for shard in merged.shards] == [
        shard.matrix.stat().st_ino for name in "ab" for shard in EmbeddingStore.open(tmp_path / name).shards
    ]
    assert verify_store(tmp_path / "ab").ok
    with pytest.raises(DataError, match=r"6 ids are in the stores more than once: r0 \(.*a and .*ab\), r1"):
        merge_stores([tmp_path / "a", tmp_path / "ab"], tmp_path / "c")
    first = merge_stores([tmp_path / "b", tmp_path / "ab"], tmp_path / "c", duplicates="first")
    np.testing.assert_array_equal(first.matrix(), np.concatenate([matrix[6:], matrix[:6]]))
    with pytest.raises(ConfigError, match="two stores or more; got 1"):
        merge_stores([tmp_path / "a"], tmp_path / "d")
    with pytest.raises(ConfigError, match="allowed: error, first"):
        merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "d", duplicates="last")


def test_rows_of_one_id_that_contradict_each_other_are_not_silently_the_first(tmp_path: Path) -> None:
    """Pairs (r0, r1), (r2, r3); in b r0 and r1 have other labels, r4 is another image, and two categories differ."""
    matrix = noise(5)
    records = records_of(5).with_column("category", list("vwxyz"))
    store_of(tmp_path / "a", records, matrix)
    other = records.with_column("category", ["v", "w", "X", "Y", "z"]).with_column("label", [1, 0, 0, 1, 0])
    moved = matrix.copy()
    moved[4] = -matrix[4]
    store_of(tmp_path / "b", other, moved)
    said: list[str] = []

    def merged(disputed: str) -> EmbeddingStore:
        paths = [tmp_path / "a", tmp_path / "b"]
        return merge_stores(paths, tmp_path / disputed, duplicates="first", disputed=disputed, say=said.append)

    told = (
        r"2 have two labels: r0 \(0 first, 1 later\), r1 \(1 first, 0 later\); 1 name two images, whose embeddings "
        r"differ: r4\. .*disputed=first .*disputed=last .* or disputed=drop"
    )
    with pytest.raises(DataError, match=told):
        merged("error")
    assert not (tmp_path / "error").exists()
    first = merged("first")
    np.testing.assert_array_equal(first.matrix(), matrix)
    assert first.read().records.labels.tolist() == [0, 1, 0, 1, 0]
    assert said[-1].endswith("the first row counts: category of 2 rows (such as r2: first 'x', later 'X')")
    last = merged("last")
    assert last.metadata()["id"].to_pylist() == ["r2", "r3", "r0", "r1", "r4"]
    assert last.read().records.labels.tolist() == [0, 1, 1, 0, 0]
    np.testing.assert_array_equal(last.matrix(), moved[[2, 3, 0, 1, 4]])
    assert merged("drop").metadata()["id"].to_pylist() == ["r2", "r3"]
    again = merge_stores([tmp_path / "a", tmp_path / "a"], tmp_path / "c", duplicates="first")
    assert again.metadata().equals(EmbeddingStore.open(tmp_path / "a").metadata())


def test_a_dropped_half_takes_the_other_with_it(tmp_path: Path) -> None:
    matrix = noise(4)
    store_of(tmp_path / "a", records_of(4), matrix)
    alone = Records.from_columns(id=["r1"], label=[0])
    store_of(tmp_path / "b", alone, matrix[1:2])
    paths = [tmp_path / "a", tmp_path / "b"]
    merged = merge_stores(paths, tmp_path / "c", duplicates="first", disputed="drop")
    assert merged.read().records.ids.tolist() == ["r2", "r3"]
    with pytest.raises(DataError, match="in the merged store these do not: p0"):
        merge_stores(paths, tmp_path / "d", duplicates="first", disputed="last")
    assert not (tmp_path / "d").exists()


def test_stores_that_are_no_record_table_together_are_not_joined(tmp_path: Path) -> None:
    store_of(tmp_path / "a", records_of(4), noise(4))
    store_of(tmp_path / "b", records_of(4).with_column("id", list("wxyz")), noise(4))
    with pytest.raises(DataError, match=r"in the merged store these do not: p0, p1 \(pair 'p0' has 4 records"):
        merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_stores_of_different_encoders_are_not_merged(tmp_path: Path) -> None:
    from dataclasses import replace

    write(tmp_path / "a", noise(3), 4)
    records = Records.from_columns(id=["x"], label=[0])
    store_of(tmp_path / "b", records, noise(1), replace(SPEC, normalize=True))
    with pytest.raises(EncoderError, match=r"the store .*b .* differ in normalize: True, not False"):
        merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_shards_whose_columns_differ_in_type_are_one_table(tmp_path: Path) -> None:
    """Captions all empty in one shard have whatever type its writer liked: whoever reads metadata reads them."""
    folder = tmp_path / "a"
    store_of(folder, records_of(8).with_column("caption", [None] * 4 + list("abcd")), noise(8))
    first = folder / "metadata" / "metadata_0000.parquet"
    table = pq.read_table(first)
    table = table.set_column(table.schema.get_field_index("caption"), "caption", pa.array([np.nan] * 4))
    table = table.set_column(table.schema.get_field_index("width"), "width", pa.array([0.5, 1, 2, 3]))
    pq.write_table(table, first)
    (folder / "checksums" / "checksums_0000.sha256").unlink()
    captions, widths = [None] * 4 + list("abcd"), [0.5, 1, 2, 3, 40, 50, 60, 70]
    store = EmbeddingStore.open(folder)
    for records in (store.read().records, StoreSource(str(folder)).records()):
        assert records.column("caption").tolist() == captions
        assert records.column("width").tolist() == widths  # a fraction in one shard makes fractions, and no text
    found = verify_store(folder)
    assert found.ok
    assert "column 'caption' is of several types (double, string); it is read as text" in found.notes
    kept = np.array([1, 2, 5, 6])
    thinned = build_store(tmp_path / "b", [store], kept, "test")
    assert thinned.metadata()["caption"].to_pylist() == [None, None, "b", "c"]
    assert matching_rows(store, where={"caption": ["a", "d"]}, halves="complete").tolist() == [4, 5, 6, 7]
    other = records_of(8).with_column("id", [f"s{i}" for i in range(8)]).with_column("pair_id", [None] * 8)
    other = other.with_column("caption", list(range(8)))
    store_of(tmp_path / "c", other, noise(8))
    merged = merge_stores([folder, tmp_path / "c"], tmp_path / "d")
    assert merged.metadata()["caption"].to_pylist() == captions + [str(i) for i in range(8)]


def test_class_numbers_in_a_stores_metadata_are_read_by_name_shard_by_shard(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    store_of(folder, records_of(8), noise(8))
    for file, names in (("metadata_0000", ["safe", "unsafe"]), ("metadata_0001", ["unsafe", "safe"])):
        path = folder / "metadata" / f"{file}.parquet"
        table = pq.read_table(path)
        about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(about)}), path)
    labels = [0, 1, 0, 1, 1, 0, 1, 0]
    assert StoreSource(str(folder)).records().labels.tolist() == labels
    store = EmbeddingStore.open(folder)
    build_store(tmp_path / "b", [store], np.array([0, 1, 4, 5]), "test")
    assert StoreSource(str(tmp_path / "b")).records().labels.tolist() == [0, 1, 1, 0]


def test_the_same_command_again_renews_what_was_mended_in_its_sources(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store_of(tmp_path / "a", records_of(12), noise(12))
    kept = np.array([0, 1, 2, 3, 6, 7, 8, 9, 10, 11])  # the first and last shards whole, which are linked

    def built() -> EmbeddingStore:
        return build_store(tmp_path / "b", [EmbeddingStore.open(tmp_path / "a")], kept, "test")

    built()
    files = {path: path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.suffix in (".parquet", ".npy")}
    built()
    assert {path: path.read_bytes() for path in files} == files
    mended = records_of(12).with_column("category", ["a"] * 7 + ["b"] * 5).with_column("split", ["val"] * 12)
    store = EmbeddingStore.open(tmp_path / "a")
    renewal(store.shards, mended).write(tmp_path / "a")
    caplog.clear()
    again = built()
    assert "b: renewed, nothing embedded anew: category of 10 rows (such as r0: 'fire', now 'a')" in caplog.text
    assert again.metadata()["category"].to_pylist() == ["a"] * 5 + ["b"] * 5
    assert again.metadata()["split"].to_pylist() == ["val"] * 10
    np.testing.assert_array_equal(again.matrix(), noise(12)[kept])
    assert verify_store(tmp_path / "b").ok
    assert verify_store(tmp_path / "a").ok
    caplog.clear()
    built()
    assert not caplog.text
