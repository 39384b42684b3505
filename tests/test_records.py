"""The record table: what it accepts, what it refuses and how it says so."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from guardtrain.errors import DataError
from guardtrain.records import SCHEMA, Records
from guardtrain.sources import ManifestSource

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Valid rows of a record table: singles and pairs, groups inside one split."""
    ids = draw(st.lists(TEXT, min_size=1, max_size=12, unique=True))
    pairs = draw(st.integers(0, len(ids) // 2))
    table = []
    for i, record_id in enumerate(ids):
        pair = i // 2 if i < 2 * pairs else None
        table.append(
            {
                "id": record_id,
                "image": draw(st.none() | TEXT),
                "label": i % 2 if pair is not None else draw(st.integers(0, 1)),
                "category": draw(st.none() | TEXT),
                "source": draw(st.none() | TEXT),
                "pair_id": None if pair is None else f"pair {pair}",
                "edited": draw(st.booleans()),
                "split": None,
                "group": None,
            }
        )
    for i, row in enumerate(table):
        first = table[i - 1] if row["pair_id"] is not None and i % 2 else None
        row["split"] = draw(st.sampled_from(["train", "val", "test", None])) if first is None else first["split"]
    return table


def written(folder: Path, table: list[dict[str, Any]], ending: str) -> Path:
    """`table` in a file, by means other than ours."""
    file = folder / f"records{ending}"
    if ending == ".csv":
        with file.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, list(table[0]))
            writer.writeheader()
            writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in table)
    elif ending == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(table), file)
    return file


def awkward(record_id: str) -> list[dict[str, Any]]:
    return [dict.fromkeys(SCHEMA.names) | {"id": record_id, "label": 1, "edited": False}]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@given(table=rows())
@example(table=awkward("0001"))
@example(table=awkward("NA"))
@example(table=awkward("2024-01-01"))
@example(table=awkward("true"))
@example(table=awkward('a,"b'))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_survives_each_format(tmp_path: Path, ending: str, table: list[dict[str, Any]]) -> None:
    records = ManifestSource(str(written(tmp_path, table, ending))).records()
    assert records.table.select(SCHEMA.names).to_pylist() == table
    assert records.table.select(SCHEMA.names).schema.types == SCHEMA.types


def test_missing_optional_columns_are_empty() -> None:
    records = Records.from_columns(id=["a", "b"], label=[0, 1])
    assert records.table.column_names == SCHEMA.names
    assert records.categories.tolist() == [None, None]
    assert records.edited.tolist() == [False, False]
    assert records.groups.tolist() == ["a", "b"]


def test_further_columns_are_kept() -> None:
    records = Records.from_columns(id=["a"], label=[0], camera=["phone"])
    assert records.column("camera").tolist() == ["phone"]


def test_empty_text_is_no_pair() -> None:
    records = Records.from_columns(id=["a", "b", "c"], label=[0, 1, 1], pair_id=["", "", ""], category=["", "x", ""])
    assert records.pair_ids.tolist() == [None, None, None]
    assert records.categories.tolist() == [None, "x", None]


@pytest.mark.parametrize("edited", [[True, None], pa.nulls(2)])
def test_unknown_edited_is_false(edited: Any) -> None:
    records = Records.from_columns(id=["a", "b"], label=[0, 1], edited=edited)
    assert records.table["edited"].null_count == 0
    assert not records.edited[1]


def test_dictionary_and_large_string_columns_are_read() -> None:
    table = pa.table(
        {
            "id": pa.array(["a", "b"], pa.large_string()),
            "label": pa.array([0.0, 1.0]),
            "category": pa.array(["x", "x"]).dictionary_encode(),
        }
    )
    assert Records.from_table(table).categories.tolist() == ["x", "x"]


def refused(**columns: Any) -> str:
    with pytest.raises(DataError) as caught:
        Records.from_table(pa.table(columns), origin="my.csv")
    return str(caught.value)


def test_a_missing_column_is_named_with_those_there_are() -> None:
    message = refused(id=["a"], unsafe=[1])
    assert "my.csv has no column 'label'" in message
    assert "id, unsafe" in message


def test_an_empty_id_is_named_by_row() -> None:
    assert "'id' of my.csv is empty in rows 1" in refused(id=["a", ""], label=[0, 1])


def test_a_label_beyond_0_and_1_is_named_with_its_records() -> None:
    message = refused(id=["a", "b", "c"], label=[0, 2, 1])
    assert "must be 0 (safe) or 1 (unsafe); it is 2 in records b" in message


def test_a_label_of_another_type_is_refused() -> None:
    assert "Column 'label' of my.csv holds double" in refused(id=["a"], label=[0.5])


def test_repeated_ids_are_named_and_counted() -> None:
    message = refused(id=[f"i{k // 2}" for k in range(14)], label=[0] * 14)
    assert "must be unique; repeated: i0, i1, i2, i3, i4 and 2 more" in message


def test_an_unknown_split_is_named() -> None:
    message = refused(id=["a", "b"], label=[0, 1], split=["train", "dev"])
    assert "one of train, val, test or empty; it is 'dev' in records b" in message


@pytest.mark.parametrize(
    ("label", "pair_id", "said"),
    [
        ([0, 0], ["p", "p"], "pair 'p' has 2 records, 0 unsafe: a, b"),
        ([0, 1, 1], ["p", "p", "p"], "pair 'p' has 3 records, 2 unsafe: a, b, c"),
        ([0, 0, 1], ["p", "p", "p"], "pair 'p' has 3 records, 1 unsafe: a, b, c"),
        ([1], ["p"], "pair 'p' has 1 records, 1 unsafe: a"),
        ([0, 1], ["p", None], "pair 'p' has 1 records, 0 unsafe: a"),
    ],
)
def test_a_broken_pair_is_named_with_its_records(label: list[int], pair_id: list[str | None], said: str) -> None:
    message = refused(id=list("abc")[: len(label)], label=label, pair_id=pair_id)
    assert "exactly one safe and one unsafe" in message
    assert said in message


def test_a_pair_over_two_groups_is_refused() -> None:
    message = refused(id=["a", "b"], label=[0, 1], pair_id=["p", "p"], group=["g", "h"])
    assert "records of a pair belong to one group" in message
    assert message.endswith("p.")


def test_a_pair_over_two_splits_is_refused() -> None:
    message = refused(id=["a", "b"], label=[0, 1], pair_id=["p", "p"], split=["train", "test"])
    assert "never split over train, val and test" in message


def test_a_group_over_two_splits_is_refused() -> None:
    message = refused(id=["a", "b"], label=[0, 1], group=["g", "g"], split=["train", None])
    assert "in several: g" in message


def test_groups_fall_back_to_pair_then_id() -> None:
    records = Records.from_columns(
        id=["a", "b", "c", "d"], label=[0, 1, 0, 1], pair_id=["p", "p", None, None], group=[None, None, "g", None]
    )
    assert records.groups.tolist() == ["p", "p", "g", "d"]


def test_images_are_found_under_the_root() -> None:
    images = ["a/b.jpg", "/abs.jpg", "s3://bucket/c.jpg", None]
    records = Records.from_columns(id=list("abcd"), label=[0, 1, 0, 1], image=images, root=Path("/data"))
    assert records.image_uris() == ["/data/a/b.jpg", "/abs.jpg", "s3://bucket/c.jpg", None]
    assert [records.image_uri(i) for i in range(4)] == records.image_uris()


def test_take_keeps_order_and_may_halve_a_pair() -> None:
    records = Records.from_columns(id=["a", "b"], label=[0, 1], pair_id=["p", "p"])
    half = records.take(np.array([1]))
    assert half.ids.tolist() == ["b"]
    assert half.pair_ids.tolist() == ["p"]
    assert records.take([1, 0]).ids.tolist() == ["b", "a"]


def test_with_column_replaces_and_checks() -> None:
    records = Records.from_columns(id=["a", "b"], label=[0, 1])
    assert records.with_column("split", ["train", "test"]).splits.tolist() == ["train", "test"]
    assert records.with_column("camera", [1, 2]).column("camera").tolist() == [1, 2]
    with pytest.raises(DataError, match="must be one of train, val, test"):
        records.with_column("split", ["train", "dev"])


def test_the_digest_depends_on_ids_and_their_order_only() -> None:
    records = Records.from_columns(id=["a", "b"], label=[0, 1])
    assert records.digest() == hashlib.sha256(b"a\0b\0").hexdigest()
    assert records.digest() == Records.from_columns(id=["a", "b"], label=[1, 1]).digest()
    assert records.digest() != records.take([1, 0]).digest()
    assert records.digest() != Records.from_columns(id=["ab", ""[:0] or "c"], label=[0, 1]).digest()


def test_no_records_are_allowed() -> None:
    assert len(Records.from_columns(id=pa.array([], pa.string()), label=pa.array([], pa.int8()))) == 0
