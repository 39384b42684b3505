"""CSV and JSON lines as spreadsheets and people's programs write them."""

from __future__ import annotations

import codecs
import csv
import io
import re
import shlex
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from guardtrain.errors import DataError

# The longer ones first: UTF-32's begins as UTF-16's does.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SAID = re.compile(r'"?sep=([^\n\r"])"?(\r\n|\r|\n)')  # a spreadsheet's own line above the header
_HEAD = 512  # bytes that tell UTF-16 without a mark
_SHOWN = 60
_BLOCK = 1 << 24  # bytes that Arrow parses at a time; a row must fit, and some hold whole documents


def decoded(content: bytes, path: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 as spreadsheets write them.

    Raises:
        DataError: another encoding, with how to write it anew.
    """
    for mark, name in _MARKS:
        if content.startswith(mark):
            return _in(name, content[len(mark) :], path)
    head = content[: _HEAD - 1 if len(content) % 2 else _HEAD]
    first, second = head[::2].count(0), head[1::2].count(0)
    if max(first, second) > len(head) // 4 and not min(first, second):  # letters, and nothing but nulls beside them
        return _in("utf-16-be" if first else "utf-16-le", content, path)
    return _in("utf-8", content, path)


def _in(name: str, content: bytes, path: str) -> str:
    try:
        return content.decode(name)
    except UnicodeDecodeError as error:
        if name != "utf-8":
            raise DataError(f"The table {path} begins as {name.upper()} and is none: {error.reason}.") from None
        raise DataError(_another_encoding(content, error.start, path)) from None


def _another_encoding(content: bytes, place: int, path: str) -> str:
    """Return an error's text for a table that is not UTF-8: most often a spreadsheet's, of Western Europe."""
    start = content.rfind(b"\n", 0, place) + 1
    line = content[start:].split(b"\n", 1)[0].strip()
    number = content.count(b"\n", 0, place) + 1
    before = line[: place - start].decode("utf-8", "replace")[-_SHOWN // 2 :]
    try:
        read = before + line[place - start :][: _SHOWN // 2].decode("cp1252")
    except UnicodeDecodeError:
        return (
            f"The table {path} is not UTF-8 (line {number}, byte {content[place]:#04x} behind {before!r}), nor "
            "Windows-1252 or Latin-1. Write it anew as UTF-8."
        )
    file = PurePosixPath(path)
    new = shlex.quote(str(file.with_name(f"{file.stem}-utf8{file.suffix}")))
    return (
        f"The table {path} is not UTF-8. As Windows-1252 (which holds Latin-1's letters) line {number} reads {read!r}; "
        f"if that is right, write it anew as UTF-8:\n  iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(path)} > {new}"
    )


def csv_table(text: str, delimiter: str, text_columns: set[str]) -> pa.Table:
    """The table in a CSV: its columns by their names without blanks around them, of which none may be there twice.

    Where the header has such blanks, cells have none either. Columns without a name, which spreadsheets put behind the
    last one, are left out.

    Args:
        text: all of it; a first line `sep=;` is the delimiter's.
        delimiter: the one by the file's ending; another counts where that one is not in the header.
        text_columns: that stay text.

    Raises:
        ValueError, pyarrow.ArrowException, csv.Error: it is none.
    """
    from pyarrow import csv as pa_csv

    if not text.strip():
        raise ValueError("it is empty")
    if said := _SAID.match(text):
        delimiter, text = said[1], text[said.end() :]
    else:
        delimiter = _delimiter(text, delimiter)
    lines = io.StringIO(text, newline="")
    written = next(csv.reader(lines, delimiter=delimiter))
    header = [name.strip() for name in written]
    names = [name for name in header if name]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the header repeats {', '.join(duplicates)}")
    body = lines.read()
    if not body.strip("\r\n"):
        return pa.table({name: pa.nulls(0, pa.string()) for name in names})
    table = pa_csv.read_csv(
        io.BytesIO(body.encode()),
        read_options=pa_csv.ReadOptions(
            column_names=[name or f"\0{i}" for i, name in enumerate(header)],
            block_size=_BLOCK,
        ),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in names if name in text_columns},
            include_columns=names,
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    return table if written == header else _trimmed(table)


def _trimmed(table: pa.Table) -> pa.Table:
    """`table` with text without blanks around it: whoever writes one behind each delimiter means none of them."""
    for i, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            text = pc.utf8_trim_whitespace(table[i])
            table = table.set_column(i, field.name, pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text))
    return table


def _delimiter(text: str, usual: str) -> str:
    """Find what separates the columns: the usual delimiter, or the only other one that the header has.

    Names of columns have no tabs, so a tab in the header is the delimiter.
    """
    found = [sign for sign in _DELIMITERS if _columns(text, sign) > 1]
    if "\t" in found:
        return "\t"
    if usual in found or not found:
        return usual
    if len(found) > 1:
        names = " and ".join(_DELIMITERS[sign] for sign in found)
        raise ValueError(
            f"its header has {names}, and which of them separates columns is not clear. A first line sep={found[0]} "
            "says it"
        )
    return found[0]


def _columns(text: str, delimiter: str) -> int:
    """How many columns the header has by this delimiter; 0 where quotes do not end before one."""
    try:
        return len(next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)))
    except csv.Error:
        return 0
