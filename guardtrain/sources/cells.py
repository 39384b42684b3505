"""The cells of a user's column as text, however they are stored: 1, 1.0, "1" and "1.0" are one value."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from guardtrain.grammar import WORD_KEYS

# Of whole parts that begin with a zero none: 007 is a name.
_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+")
NULL = "null"  # the name of an empty cell, where one is wanted


def text_of(value: Any) -> str | None:
    """How a cell is written in a mapping or a filter: 1, 1.0 and True are `1`, `1` and `true`; null is None.

    >>> [text_of(value) for value in (1.0, -0.0, True, b"x", [1, None], float("nan"))]
    ['1', '0', 'true', 'x', '[1, null]', None]
    """
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        return same(repr(float(value)))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def same(text: str) -> str:
    """Return what all spellings of a value have in common: numbers by their value, `True` and `TRUE` as `true`.

    >>> [same(text) for text in ("1.0", "+1", "-0", "1e3", "0.50", "007", " True ", "Fire")]
    ['1', '1', '0', '1000', '0.5', '007', 'true', 'Fire']
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        if _WHOLE.fullmatch(text):
            return str(int(text))  # exact, however long
        number = float(text)
        return str(int(number)) if number.is_integer() else repr(number)
    return text.lower() if text.lower() in ("true", "false") else text


def shown(text: str | None) -> str:
    """A cell's text as messages show it: numbers, `true` and `false` bare, everything else in quotes.

    >>> [shown(text) for text in ("nsfw", "1", "true", None)]
    ["'nsfw'", '1', 'true', '(empty)']
    """
    if text is None:
        return "(empty)"
    plain = _NUMBER.fullmatch(text) or same(text) in ("true", "false")
    return text if plain else repr(text)


def as_value(text: str) -> Any:
    """A cell's text as a number, true or false, where it is one and loses nothing: how people write it in a setting.

    >>> [as_value(text) for text in ("1.0", "007", "True", "nsfw")]
    [1, '007', True, 'nsfw']
    """
    plain = same(text)
    if plain in ("true", "false"):
        return plain == "true"
    if not _NUMBER.fullmatch(plain):
        return text
    return int(plain) if _WHOLE.fullmatch(plain) else float(plain)


def with_text_keys(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    """`mapping` with its keys as text: YAML and the command line make numbers, true and null of such keys.

    >>> with_text_keys({-1: 0, 2.0: 1, True: 1, None: 0})
    {'-1': 0, '2': 1, 'true': 1, 'null': 0}
    """
    made = {}
    for key, value in mapping.items():
        text = "nan" if key != key else text_of(key)  # a word in somebody's table
        made[NULL if text is None else WORD_KEYS.get(text, text)] = value
    return made


def plain_column(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray:
    """`column` without a dictionary (a pandas categorical, class names): its values themselves."""
    column = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column], column.type)
    return pc.cast(column, column.type.value_type) if pa.types.is_dictionary(column.type) else column


@dataclass(frozen=True)
class Cells:
    """The distinct cells of a column of N rows.

    Args:
        texts: K distinct texts, in the order they first come; None for empty cells.
        rows: (N,) int64, for each row the place of its text.
        names: what the numbers of the column stand for, where it is a dictionary (class names, a categorical).
    """

    texts: tuple[str | None, ...]
    rows: np.ndarray
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, column: pa.ChunkedArray | pa.Array) -> Cells:
        """The cells of a column of any type."""
        names: tuple[str, ...] = ()
        if pa.types.is_dictionary(column.type):
            chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
            found = {tuple(str(text_of(v)) for v in chunk.dictionary.to_pylist()) for chunk in chunks}
            names = found.pop() if len(found) == 1 else ()  # of several files that number alike
        column = plain_column(column)
        if pa.types.is_nested(column.type):
            column = pa.chunked_array([pa.array([text_of(v) for v in column.to_pylist()], pa.string())])
        encoded = pc.dictionary_encode(column, null_encoding="encode").combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):  # no rows
            return cls((), np.zeros(0, dtype=np.int64), names)
        texts = tuple(text_of(v) for v in encoded.dictionary.to_pylist())
        rows = np.asarray(encoded.indices.to_numpy(zero_copy_only=False)).astype(np.int64)
        return cls(texts, rows, names)

    @cached_property
    def counts(self) -> np.ndarray:
        """(K,) int64, how many rows have each text."""
        return np.bincount(self.rows, minlength=len(self.texts))

    def listed(self, most: int = 20) -> str:
        """`'Safe' (12), 1 (3) and 4 more`, for messages."""
        found = [f"{shown(t)} ({n:,})" for t, n in zip(self.texts, self.counts, strict=True)]
        more = len(found) - most
        return (", ".join(found[:most]) or "none") + (f" and {more} more" if more > 0 else "")
