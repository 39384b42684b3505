"""CSV and JSON lines in the encodings, delimiters and headers that spreadsheets and other programs write."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.errors import DataError
from guardtrain.sources import ManifestSource
from guardtrain.sources.tables import read_table, without_blank_rows

ROWS = "image,label,kind\na.png,1,grün\nb.png,0,\n"


def table(path: Path, content: bytes | str) -> pa.Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(str(path))


def refused(path: Path, content: bytes | str) -> str:
    with pytest.raises(DataError) as caught:
        table(path, content)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        ROWS.encode("utf-8-sig"),
        ROWS.encode("utf-16"),
        b"\xfe\xff" + ROWS.encode("utf-16-be"),
        ROWS.encode("utf-16-le"),
        ROWS.encode("utf-16-be"),
        ROWS.encode("utf-32"),
        ROWS.replace(",", ";").encode(),
        ROWS.replace(",", "\t").encode("utf-16"),
        ROWS.replace(",", "|").encode(),
        ("sep=;\n" + ROWS.replace(",", ";")).encode(),
        ROWS.replace("\n", "\r").encode(),
        ROWS.replace("\n", "\r\n").encode(),
        ROWS.replace("image,label", " image , label").encode(),
        ROWS.replace("\n", ",\n").encode(),
    ],
)
def test_what_spreadsheets_write_is_one_table(tmp_path: Path, content: bytes) -> None:
    assert table(tmp_path / "t.csv", content).equals(table(tmp_path / "plain.csv", ROWS))


NAMES = st.text("ab;,| é\"'", min_size=1, max_size=4).map(lambda text: f"x{text.strip()}")


@given(st.lists(NAMES, min_size=2, max_size=4, unique=True), st.sampled_from([",", ";", "\t"]), st.data())
@settings(max_examples=60, deadline=None)
def test_the_delimiter_is_found_where_the_header_has_one(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], delimiter: str, data: st.DataObject
) -> None:
    """As the standard library writes and reads it, wherever names hold no other delimiter outside quotes."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    rows = data.draw(st.lists(st.lists(NAMES, min_size=len(names), max_size=len(names)), min_size=1, max_size=3))
    writer.writerows([names, *rows])
    found = table(tmp_path_factory.mktemp("t") / "t.csv", text.getvalue())
    assert found.column_names == names
    assert found.to_pylist() == [dict(zip(names, row, strict=True)) for row in rows]


def test_a_header_that_two_delimiters_divide_is_refused_with_the_way_to_say_which(tmp_path: Path) -> None:
    message = refused(tmp_path / "t.csv", "image;label|x\na.png;1|2\n")
    assert "its header has semicolons and bars" in message
    assert "A first line sep=; says it" in message
    said = table(tmp_path / "t.csv", "sep=;\nimage;label|x\na.png;1|2\n")
    assert said.column_names == ["image", "label|x"]


def test_a_table_in_another_encoding_comes_with_the_command_that_rewrites_it(tmp_path: Path) -> None:
    path = tmp_path / "my table.csv"
    message = refused(path, ROWS.encode("cp1252"))
    assert "line 2 reads 'a.png,1,grün'" in message
    if shutil.which("iconv") is None:
        pytest.skip("there is no iconv")
    subprocess.run(message.splitlines()[-1], shell=True, check=True)
    assert read_table(str(tmp_path / "my table-utf8.csv")).equals(table(tmp_path / "plain.csv", ROWS))
    assert "nor Windows-1252" in refused(path, b"image,label\na\x81.png,1\n")


def test_columns_and_rows_without_anything_are_left_out(tmp_path: Path) -> None:
    found = table(tmp_path / "t.csv", "image,label,,\na.png,1,,\n,,,\nb.png,0,,\n,,,\n")
    assert found.column_names == ["image", "label"]
    assert without_blank_rows(found)["image"].to_pylist() == ["a.png", "b.png"]
    assert ManifestSource(str(tmp_path / "t.csv")).records().labels.tolist() == [1, 0]
    assert table(tmp_path / "t.csv", "image,label\n").num_rows == 0
    assert table(tmp_path / "t.csv", f"image,label\na.png,{'x' * 3_000_000}\n")["image"].to_pylist() == ["a.png"]
    assert "the header repeats a" in refused(tmp_path / "t.csv", "a , a\n1,2\n")


def test_a_mark_before_json_lines(tmp_path: Path) -> None:
    assert table(tmp_path / "t.jsonl", b'\xef\xbb\xbf{"label": 1}\r\n{"label": 0}\r\n')["label"].to_pylist() == [1, 0]
    assert table(tmp_path / "t.jsonl", '{"label": 1}\n'.encode("utf-16"))["label"].to_pylist() == [1]
