"""Record columns made from the text of others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from guardtrain.errors import ConfigError, DataError
from guardtrain.records import SCHEMA
from guardtrain.words import listed, near


@dataclass
class Derived:
    """A record column made from the text of another.

    Args:
        column: the column it is made from; of an image column `c` of images kept inside their table, `c.path` holds the
            files' names.
        pattern: a regular expression.
        replace: what each match is replaced by; None makes a yes/no column: whether the pattern is found.
    """

    column: str = ""
    pattern: str = ""
    replace: str | None = None


def check_names(setting: str, names: Mapping[str, Any]) -> None:
    """Raise where a setting that makes record columns names one that there is not.

    Raises:
        ConfigError: which.
    """
    for name in names:
        if name not in SCHEMA.names:
            raise ConfigError(f"{setting} names '{name}', no column of the record table ({', '.join(SCHEMA.names)}).")


def with_derived(table: pa.Table, derive: Mapping[str, Derived], origin: str, hidden: tuple[str, ...] = ()) -> pa.Table:
    """`table` with the columns that `derive` makes, one after another; an empty cell stays empty.

    Args:
        table: with the user's columns.
        derive: our column -> how it is made from another.
        origin: what messages call the table.
        hidden: columns that messages do not list.

    Raises:
        DataError: a column that there is not.
        ConfigError: a pattern or replacement that is none.
    """
    for name, rule in derive.items():
        column = _derived(table, name, rule, origin, hidden)
        index = table.schema.get_field_index(name)
        table = table.append_column(name, column) if index < 0 else table.set_column(index, name, column)
    return table


def named_column(
    table: pa.Table, name: str, wanted_for: str, origin: str, hidden: tuple[str, ...] = ()
) -> pa.ChunkedArray:
    """The column `name` of the user's table.

    Raises:
        DataError: there is none, with what is near.
    """
    if name not in table.column_names:
        known = [column for column in table.column_names if column not in hidden]
        raise DataError(
            f"{origin} has no column '{name}' (wanted for {wanted_for}).{near(name, known)} "
            f"It has: {listed(known, 30)}."
        )
    return table[name]


def _derived(table: pa.Table, name: str, rule: Derived, origin: str, hidden: tuple[str, ...]) -> pa.Array:
    texts = named_column(table, rule.column, f"derive.{name}", origin, hidden).to_pylist()
    try:
        pattern = re.compile(rule.pattern)
        made: list[Any]
        if rule.replace is None:
            made = [None if t is None else pattern.search(str(t)) is not None for t in texts]
        else:
            made = [None if t is None else pattern.sub(rule.replace, str(t)) for t in texts]
    except (re.error, IndexError) as error:
        raise ConfigError(f"derive.{name}: '{rule.pattern}' → '{rule.replace}' is not usable: {error}.") from None
    return pa.array(made, pa.bool_() if rule.replace is None else pa.string())
