"""Tables whose columns' types differ: the wider type where there is one, text where there is none, nothing lost."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardtrain.sources.cells import text_of
from guardtrain.sources.stacking import as_text, stacked


@pytest.mark.parametrize(
    ("first", "second", "kind", "values"),
    [
        (pa.array([None], pa.float64()), pa.array(["a"]), pa.string(), [None, "a"]),  # as pandas writes an empty column
        (pa.array([float("nan")]), pa.array(["a"]), pa.string(), [None, "a"]),
        (pa.array([None], pa.null()), pa.array([3]), pa.int64(), [None, 3]),
        (pa.array([1, 2], pa.int8()), pa.array([300]), pa.int64(), [1, 2, 300]),
        (pa.array([1]), pa.array([0.5]), pa.float64(), [1.0, 0.5]),
        (pa.array([True]), pa.array([0]), pa.string(), ["true", "0"]),
        (pa.array([7]), pa.array(["007"]), pa.string(), ["7", "007"]),
        (pa.array([2**60 + 1]), pa.array([0.5]), pa.string(), [str(2**60 + 1), "0.5"]),  # no float64 holds it
        (pa.array([2**63], pa.uint64()), pa.array([-1]), pa.string(), [str(2**63), "-1"]),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"]), pa.string(), ["a", "b"]),
        (pa.array([["a", "b"]]), pa.array(["c"]), pa.string(), ['["a", "b"]', "c"]),
        (pa.array([{"x": 1}]), pa.array([{"x": "é"}]), pa.string(), ['{"x": 1}', '{"x": "é"}']),
    ],
)
def test_a_column_of_two_types(first: pa.Array, second: pa.Array, kind: pa.DataType, values: list[Any]) -> None:
    tables = [pa.table({"x": first, "n": [0] * len(first)}), pa.table({"x": second, "n": [1] * len(second)})]
    both = stacked(tables)
    assert both.schema.field("x").type == kind
    assert both["x"].to_pylist() == values
    assert both.schema.field("n").type == pa.int64()  # the others stay what they are
    assert stacked(tables[::-1])["x"].to_pylist() == values[len(first) :] + values[: len(first)]


def test_columns_that_some_lack_are_empty_there_and_metadata_is_the_first_ones() -> None:
    one = pa.table({"a": [1], "b": ["x"]}).replace_schema_metadata({"of": "one"})
    two = pa.table({"c": [True], "a": ["y"]}).replace_schema_metadata({"of": "two"})
    both = stacked([one, two])
    assert both.to_pylist() == [{"a": "1", "b": "x", "c": None}, {"a": "y", "b": None, "c": True}]
    assert both.schema.metadata == {b"of": b"one"}


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=3)
)


@given(st.lists(st.lists(CELLS, max_size=4), min_size=1, max_size=4))
def test_no_cell_is_lost_whatever_the_types(parts: list[list[Any]]) -> None:
    kept = [[value for value in part if type(value) in (type(None), type(part[0]))] for part in parts]
    tables = [pa.table({"x": pa.array(part)}) for part in kept]
    both = stacked(tables)["x"].to_pylist()
    for got, given_ in zip(both, [value for part in kept for value in part], strict=True):
        assert text_of(got) == text_of(given_)


def test_what_becomes_text_is_named_with_its_types() -> None:
    schemas = [pa.schema([("x", pa.float64()), ("y", pa.int8())]), pa.schema([("x", pa.string()), ("y", pa.int64())])]
    assert as_text(schemas) == {"x": ["double", "string"]}
    assert as_text(schemas[:1]) == {}
