"""What labels mean: however they are written and wherever they stand, they are right or refused, never inverted."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.embeddings import EmbeddingStore, StoreSource
from guardtrain.embeddings.build import build_store
from guardtrain.embeddings.selection import write_record_table
from guardtrain.errors import DataError
from guardtrain.records import CELLS, Records
from guardtrain.sources import ArraysSource, HuggingFaceSource, ManifestSource, ParquetImagesSource
from guardtrain.sources.labels import LabelsUnclear, read_labels
from tests.sources.encodings import ENCODINGS, READERS, Encoding, Read, can_hold, saved_to_disk, table_of
from tests.sources.tiny import hub_image, png

TRUTHS = st.lists(st.integers(0, 1), min_size=3, max_size=7).filter(lambda truth: 0 < sum(truth[:-1]) < len(truth) - 1)
PAIRS = [(reader, encoding) for reader in READERS for encoding in ENCODINGS if can_hold(reader, encoding)]


def told(read: Read, encoding: Encoding, truth: Sequence[int]) -> None:
    """Check that labels are the truth where they are clear; else refused, with a setting that makes them so."""
    wanted = list(truth[:-1]) if encoding.empty else list(truth)
    try:
        found = read().labels.tolist()
    except LabelsUnclear as error:
        assert not encoding.clear
        if isinstance(encoding.cells[0], list):
            return  # no cells that can be mapped
        if encoding.empty and not any(name == "where" for _, lines in error.steps for name, _ in lines):
            return  # read by what chooses no rows
        ways: list[dict[str, Mapping[str, Any]]] = [{}]
        for _, lines in error.steps:
            ways = [{**way, name: value} for way in ways for name, value in lines]
        answers = [read(**way).labels.tolist() for way in ways if not encoding.empty or "where" in way]
        assert wanted in answers
        return
    assert encoding.clear
    assert found == wanted


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(PAIRS), TRUTHS)
def test_labels_are_right_or_refused_whatever_their_encoding(pair: tuple[str, Encoding], truth: list[int]) -> None:
    reader, encoding = pair
    with tempfile.TemporaryDirectory() as folder:
        told(READERS[reader](Path(folder), encoding, truth), encoding, truth)


@pytest.mark.parametrize("reader", READERS)
def test_every_encoding_once(reader: str, tmp_path: Path) -> None:
    truth = [0, 1, 1, 0, 1]
    for number, encoding in enumerate(ENCODINGS):
        if can_hold(reader, encoding):
            (folder := tmp_path / str(number)).mkdir()
            told(READERS[reader](folder, encoding, truth), encoding, truth)


@pytest.mark.parametrize("encoding", [one for one in ENCODINGS if one.classes], ids=lambda one: one.name)
def test_what_datasets_itself_saved(encoding: Encoding, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    told(saved_to_disk(tmp_path, encoding, [0, 1, 1, 0]), encoding, [0, 1, 1, 0])


def classes(labels: list[Any], names: Sequence[str]) -> pa.Table:
    """A table with a column `label` of class labels."""
    encoding = Encoding("", (0, 1), True, classes=tuple(names), kind=pa.int64())
    table = table_of(encoding, [0] * len(labels), id=[f"i{k}" for k in range(len(labels))])
    return table.set_column(1, "label", pa.array(labels)).replace_schema_metadata(table.schema.metadata)


def unclear(*args: Any, **more: Any) -> LabelsUnclear:
    with pytest.raises(LabelsUnclear) as caught:
        read_labels(*args, **more)
    return caught.value


def test_numbers_that_have_names_are_mapped_by_name(tmp_path: Path) -> None:
    pq.write_table(classes([0, 1, 1], ["unsafe", "safe"]), tmp_path / "t.parquet")
    with pytest.raises(LabelsUnclear) as caught:
        ManifestSource(str(tmp_path / "t.parquet"), labels={"0": 1, "1": 0}).records()
    assert "(0 is 'unsafe', 1 is 'safe'), and `labels` maps numbers (0, 1)" in str(caught.value)
    assert str(caught.value).endswith("The same by name:\n  labels={unsafe: 1, safe: 0}")
    ((_, [(setting, value)]),) = caught.value.steps
    read = ManifestSource(str(tmp_path / "t.parquet"), **{setting: value}).records()
    assert read.labels.tolist() == [1, 0, 0]
    codes = pa.array(["b", "a"]).dictionary_encode()
    assert unclear(codes, {0: 0, 1: 1}, "x").steps[0][1] == [("labels", {"b": 0, "a": 1})]
    # numbers that are names themselves
    assert read_labels(pa.array([3, 7]).dictionary_encode(), {3: 1, 7: 0, 9: 0}, "x").labels.to_pylist() == [1, 0]


def test_files_that_number_their_classes_differently(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name, names in (("a", ["safe", "unsafe"]), ("b", ["unsafe", "safe"])):
        table = classes([0, 1], names).append_column("image", pa.array([png(0), png(1)]))
        pq.write_table(table.drop_columns(["id"]), tmp_path / "d" / f"{name}.parquet")
    assert ParquetImagesSource(str(tmp_path / "d")).records().labels.tolist() == [0, 1, 1, 0]
    bare = pa.table({"label": [0, 1], "image": [png(0), png(1)]})
    pq.write_table(bare, tmp_path / "d" / "c.parquet")
    with pytest.raises(DataError, match="Column 'label' has names for its numbers in some of the files"):
        ParquetImagesSource(str(tmp_path / "d")).records()


def test_the_card_of_a_data_set_names_its_classes(tmp_path: Path) -> None:
    card = """---
dataset_info:
- config_name: {first}
  features:
  - {{name: image, dtype: image}}
  - name: label
    dtype: {{class_label: {{names: {{'0': unsafe, '1': safe}}}}}}
- config_name: other
  features:
  - name: label
    dtype: {{class_label: {{names: {names}}}}}
---
# A data set
"""
    pq.write_table(pa.table({"image": [hub_image(0), hub_image(1)], "label": [0, 1]}), tmp_path / "train.parquet")
    (tmp_path / "README.md").write_text(card.format(first="default", names="{'0': unsafe, '1': safe}"))
    assert HuggingFaceSource(path=str(tmp_path)).records().labels.tolist() == [1, 0]
    (tmp_path / "README.md").write_text(card.format(first="default", names="{'0': safe, '1': unsafe}"))
    with pytest.raises(DataError, match=r"numbers the classes of 'label' differently .* config=NAME"):
        HuggingFaceSource(path=str(tmp_path)).records()
    assert HuggingFaceSource(path=str(tmp_path), config="other").records().labels.tolist() == [0, 1]


def test_an_array_of_names_beside_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    features = np.eye(3, dtype=np.float32)
    np.savez(path, x=features, y=np.array([0, 1, 1]), class_names=np.array(["nsfw", "sfw"]))
    assert ArraysSource(str(path), features="x", label="y").records().labels.tolist() == [1, 0, 0]
    np.savez(path, x=features, y=np.array([0, 1, 1]), label_names=np.array([b"gore", b"ok"]))
    with pytest.raises(LabelsUnclear, match=r"Found: 'gore' \(1\), 'ok' \(2\)"):
        ArraysSource(str(path), features="x", label="y").records()
    np.savez(path, x=features, y=np.array([0, 1, 1]), classes=np.array(["a", "b", "c"]))  # one for each row
    assert ArraysSource(str(path), features="x", label="y").records().labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(("name", "accepted"), [("label_text", False), ("label_name", False), ("comment", True)])
def test_words_beside_numbers_that_say_the_contrary(tmp_path: Path, name: str, accepted: bool) -> None:
    path = str(tmp_path / "t.csv")
    Path(path).write_text(f"id,label,{name}\na,0,unsafe\nb,1,safe\n")
    if accepted:
        assert ManifestSource(path).records().labels.tolist() == [0, 1]
        return
    with pytest.raises(LabelsUnclear, match=f"'{name}' beside it says the contrary") as caught:
        ManifestSource(path).records()
    ((_, [(setting, value)]),) = caught.value.steps
    assert ManifestSource(path, **{setting: value}).records().labels.tolist() == [1, 0]
    assert ManifestSource(path, labels={0: 0, 1: 1}).records().labels.tolist() == [0, 1]  # the user has said it
    Path(path).write_text(f"id,label,{name}\na,1,unsafe\nb,0,safe\n")
    assert ManifestSource(path).records().labels.tolist() == [1, 0]


def test_keys_are_read_by_value() -> None:
    cells = ["0", "1.0", None, "True", "yes"]
    read = read_labels(pa.array(cells), {0.0: 0, "1": 1, None: 0, "true": 1}, "x")
    assert read.labels.to_pylist() == [0, 1, 0, 1, 1]  # a file's `yes: 1` is true to YAML
    with pytest.raises(DataError, match=r"labels maps 1 to 1 and 1\.0 to 0, which are the same cell"):
        read_labels(pa.array(["1"]), {"1": 1, "1.0": 0}, "x")
    with pytest.raises(DataError, match=r"it has {'a': 2}"):
        read_labels(pa.array(["a"]), {"a": 2}, "x")


def test_more_than_two_unknown_cells_come_in_one_line_to_complete() -> None:
    error = unclear(pa.array(["a", "b", "c", "safe"]), {}, "the table")
    assert "with a 1 in place of their 0:\n  labels={safe: 0, a: 0, b: 0, c: 0}" in str(error)
    scores = unclear(pa.array(np.linspace(0, 1, 40)), {}, "the table")
    assert "and 20 more" in str(scores)
    ((name, mapping),) = scores.steps[0][1]
    assert name == "labels"
    assert read_labels(pa.array(np.linspace(0, 1, 40)), mapping, "x").labels.to_pylist() == [0] * 40
    many = unclear(pa.array(np.linspace(0, 1, 400)), {}, "the table")
    assert str(many).rstrip().endswith("400 values are too many for labels.")
    (ways,) = [ways for _, ways in unclear(pa.array([None, None], pa.string()), {}, "the table", "y").steps]
    assert ways == [("labels", {"null": 0}), ("labels", {"null": 1})]
    empty = unclear(pa.array(["0.0", "1.0", None]), {}, "the table", "y")
    assert str(empty).endswith("Leave rows without a label out:\n  where={y: [0, 1]}")


def test_a_name_decides_what_bare_flags_mean() -> None:
    flags = pa.array([True, False])
    assert read_labels(flags, {}, "x", "nsfw").labels.to_pylist() == [1, 0]
    assert read_labels(pa.array(["Yes", "no"]), {}, "x", "is_unsafe").labels.to_pylist() == [1, 0]
    for name in ("safe", "isSafe", "is_sfw", "Safety", "not_nsfw"):
        error = unclear(flags, {}, "x", name)
        assert error.steps[0][1][0] == ("labels", {"true": 0, "false": 1})
    for name in ("not_safe", "label", "safe_or_unsafe", "unsafe"):
        assert read_labels(flags, {}, "x", name).labels.to_pylist() == [1, 0]
    assert read_labels(pa.array(["safe", "unsafe"]), {}, "x", "safety").labels.to_pylist() == [0, 1]


def test_records_know_what_was_taken(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,label,split,kind\na,nsfw,train,x\nb,sfw,train,x\nc,nsfw,test,y\nd,SFW,test,x\n")
    records = ManifestSource(str(path)).records()
    assert str(records.taken) == "unsafe: 'nsfw' (2), safe: 'SFW' (1), 'sfw' (1)"
    assert str(ManifestSource(str(path), split="test").records().taken) == "unsafe: 'nsfw' (1), safe: 'SFW' (1)"
    assert str(records.take([0, 2]).taken) == "unsafe: 'nsfw' (2), safe: none"
    assert str(records.without(["kind"]).with_column("source", ["w"] * 4).taken) == str(records.taken)
    assert records.with_column("label", [0, 0, 1, 1]).taken is None
    assert Records.from_columns(id=["a"], label=[0]).taken is None
    assert CELLS not in records.table.column_names
    numbers = tmp_path / "n.csv"
    numbers.write_text("id,label\na,1\nb,0.0\n")
    assert str(ManifestSource(str(numbers)).records().taken) == "unsafe: 1 (1), safe: 0.0 (1)"
    np.savez(tmp_path / "p.npz", without=np.eye(2), with_it=np.eye(2))
    pairs = ArraysSource(str(tmp_path / "p.npz"), safe="without", unsafe="with_it").records()
    assert str(pairs.taken) == "unsafe: 'with_it' (2), safe: 'without' (2)"
    same = ArraysSource(str(tmp_path / "p.npz"), features="without", label=0).records()
    assert str(same.taken) == "unsafe: none, safe: 0 (2)"


def test_a_constant_label_is_a_cell_like_any_other(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(0)]}), tmp_path / "x.parquet")
    for value, label in ((0, 0), (1.0, 1), ("unsafe", 1), (True, 1)):
        source = ParquetImagesSource(str(tmp_path / "x.parquet"), constants={"label": value})
        assert source.records().labels.tolist() == [label]
    with pytest.raises(LabelsUnclear, match=r"constants\.label"):
        ParquetImagesSource(str(tmp_path / "x.parquet"), constants={"label": "maybe"}).records()


def test_a_store_filtered_and_listed_keeps_the_names(tmp_path: Path) -> None:
    (tmp_path / "s" / "img_emb").mkdir(parents=True)
    (tmp_path / "s" / "metadata").mkdir()
    for i, names in enumerate((["unsafe", "safe"], ["safe", "unsafe"])):
        np.save(tmp_path / "s" / "img_emb" / f"img_emb_{i}.npy", np.eye(3, dtype=np.float32))
        table = classes([0, 1, 0], names)
        ids = pa.array([f"{i}/{k}" for k in range(3)])
        pq.write_table(table.set_column(0, "id", ids), tmp_path / "s" / "metadata" / f"metadata_{i}.parquet")
    assert StoreSource(str(tmp_path / "s")).records().labels.tolist() == [1, 0, 1, 0, 1, 0]
    store, kept = EmbeddingStore.open(tmp_path / "s"), np.array([0, 1, 4])
    build_store(tmp_path / "b", [store], kept, "filter")
    assert StoreSource(str(tmp_path / "b")).records().labels.tolist() == [1, 0, 1]
    write_record_table(store, kept, tmp_path / "t.parquet")
    assert ManifestSource(str(tmp_path / "t.parquet")).records().labels.tolist() == [1, 0, 1]
    with pytest.raises(DataError, match=r"is '0' in no row|is 0 in no row"):
        StoreSource(str(tmp_path / "b"), where={"label": 0}).records()


def test_the_labels_of_the_metadata_are_not_read_where_a_manifest_has_them(tmp_path: Path) -> None:
    (tmp_path / "s" / "img_emb").mkdir(parents=True)
    (tmp_path / "s" / "metadata").mkdir()
    np.save(tmp_path / "s" / "img_emb" / "img_emb_0.npy", np.eye(2, dtype=np.float32))
    pq.write_table(pa.table({"id": ["a", "b"], "label": ["cat", "dog"]}), tmp_path / "s/metadata/metadata_0.parquet")
    (tmp_path / "m.csv").write_text("id,label\nb,unsafe\na,safe\n")
    records = StoreSource(str(tmp_path / "s"), manifest=str(tmp_path / "m.csv")).records()
    assert dict(zip(records.ids, records.labels.tolist(), strict=True)) == {"b": 1, "a": 0}
