"""`where` and its kind: what no row has is named with its neighbour, and numbers are numbers however written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardtrain.errors import DataError
from guardtrain.sources import ArraysSource, ManifestSource, PairColumns, ParquetImagesSource
from guardtrain.sources.cells import Cells, same
from guardtrain.sources.choosing import rows_matching
from tests.sources.tiny import hub_image, write_hub_parquet

TABLE = pa.table(
    {
        "category": ["Self-Harm", "Hate", "Hate", None],
        "level": [0.0, 1.0, 2.5, None],
        "text": ["0.0", "1", "007", "true"],
        "flag": [True, False, True, None],
        "classes": pa.array(["b", "a", "b", "a"]).dictionary_encode(),
    }
)


def kept(**where: Any) -> list[bool]:
    return rows_matching(TABLE, where, "the table").tolist()


def refused(**where: Any) -> str:
    with pytest.raises(DataError) as caught:
        rows_matching(TABLE, where, "the table")
    return str(caught.value)


def test_a_value_that_no_row_has_is_named_with_its_neighbour() -> None:
    assert kept(category=["Self-Harm", "Hate"]) == [True, True, True, False]
    message = refused(category=["Self-harm", "Hate"])
    assert "where: 'category' of the table is 'Self-harm' in no row. Did you mean 'Self-Harm'?" in message
    assert "It holds 'Self-Harm' (1), 'Hate' (2), (empty) (1)." in message
    assert message.endswith("A value that may be missing ends in a question mark: 'Self-harm?'.")
    assert "'level' of the table is 7 in no row. It holds 0 (1)" in refused(level=7)
    assert "is (empty) in no row" in refused(text=None)
    assert "Number 1 has the name 'a'." in refused(classes=1)


def test_a_value_with_a_question_mark_may_be_missing() -> None:
    assert kept(category=["Self-harm?", "Hate?"]) == [False, True, True, False]
    assert kept(category="Gore?") == [False] * 4
    table = pa.table({"text": ["why?", "why"]})
    assert rows_matching(table, {"text": "why?"}, "x").tolist() == [True, False]  # where one really ends so


def test_values_are_compared_by_what_they_are() -> None:
    for zero in (0, 0.0, "0", "0.0", -0.0):
        assert kept(level=zero)[0]
        assert kept(text=zero)[0]
    assert kept(level=[2.5, None]) == [False, False, True, True]
    assert kept(text="007") == [False, False, True, False]
    assert "is 7 in no row" in refused(text=7)  # a name, though of digits
    assert kept(flag=True) == kept(flag="TRUE") == [True, False, True, False]
    assert kept(text=True) == [False, False, False, True]


@given(st.one_of(st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_number_is_the_same_in_every_spelling(number: float) -> None:
    assert same(str(number)) == same(f" {number!r} ")
    if float(number).is_integer() and abs(number) < 2**53:
        assert same(str(number)) == same(f"{int(number)}.0") == str(int(number))
    assert float(same(str(number))) == float(number)


def test_nested_cells_are_text() -> None:
    cells = Cells.of(pa.array([["a"], ["a", None], [], None]))
    assert cells.texts == ('["a"]', '["a", null]', "[]", None)
    assert rows_matching(pa.table({"x": [[1], [2]]}), {"x": "[1]"}, "t").tolist() == [True, False]


def test_the_halves_of_no_pair_are_swapped_by_a_value_that_is_not_there(tmp_path: Path) -> None:
    columns = {"good": [hub_image(1)] * 2, "bad": [hub_image(2)] * 2, "best": ["left", "right"]}
    write_hub_parquet(tmp_path / "p.parquet", columns)
    wrong = PairColumns("good", "bad", swapped={"best": "Right"})
    with pytest.raises(DataError, match=r"pairs\.swapped: 'best' .* is 'Right' in no row\. Did you mean 'right'"):
        ParquetImagesSource(str(tmp_path), pairs=wrong).records()
    records = ParquetImagesSource(str(tmp_path), pairs=PairColumns("good", "bad", swapped={"best": "right"})).records()
    assert str(records.taken) == "unsafe: 'bad' (1), 'good' (1), safe: 'bad' (1), 'good' (1)"


def test_what_leaves_no_row_together_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,label,kind,origin\na,safe,x,web\nb,unsafe,y,book\n")
    with pytest.raises(DataError, match=r"where leaves no row of .*: 'origin' holds 'web' \(1\), 'book' \(1\)"):
        ManifestSource(str(tmp_path / "t.csv"), where={"kind": "x", "origin": "book"}).records()


def test_where_of_arrays_names_their_keys(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "a.npz", x=np.eye(2), y=np.array(["safe", "unsafe"]), kind=np.array(["k", "l"]))
    with pytest.raises(DataError, match=r"where: 'kind' of the arrays .* is 'K' in no row\. Did you mean 'k'"):
        ArraysSource(str(tmp_path / "a.npz"), features="x", label="y", where={"kind": ["K", "l"]}).records()
