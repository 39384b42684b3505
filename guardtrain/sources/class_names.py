"""Class names in place of the numbers that `datasets` writes: its columns hold numbers, and the schema their names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from guardtrain.errors import DataError

_METADATA = b"huggingface"  # of a schema that `datasets` wrote


def with_class_names(table: pa.Table, schema: pa.Schema | None = None) -> pa.Table:
    """`table` with the numbers of class labels replaced by the names that its schema's metadata gives them.

    A column of class labels becomes a dictionary column, as a pandas categorical is one, with the names in the order of
    their numbers; class labels inside lists and structs become text there. A number without a name, such as the -1 of
    images that nobody labelled, becomes null. String views, of which Arrow cannot take rows, become strings.

    Args:
        table: as it was read.
        schema: where the metadata is; default: the table's own.
    """
    for index, field in enumerate(table.schema):
        if pa.types.is_string_view(field.type):
            table = table.set_column(index, field.name, pc.cast(table[index], pa.large_string()))
    return named(table, features_of(table.schema if schema is None else schema))


def features_of(schema: pa.Schema) -> Mapping[str, Any]:
    """Return what `datasets` says of the columns, by name; nothing where it did not write the file."""
    try:
        found = json.loads((schema.metadata or {})[_METADATA])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def card_features(folder: Path, config: str | None) -> dict[str, Any]:
    """The class labels that the card of a data set (`README.md`, as the hub keeps it) tells the names of, by column.

    Args:
        folder: of the local copy.
        config: a configuration; None for all of them, which must not contradict each other.

    Raises:
        DataError: configurations that number the classes of a column differently, and none is chosen.
    """
    import yaml

    card = folder / "README.md"
    try:
        text = card.read_text(encoding="utf-8").partition("---\n")[2].partition("\n---")[0]
        about = yaml.safe_load(text)
        told = about.get("dataset_info", []) if isinstance(about, dict) else []
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    found: dict[str, dict[str, Any]] = {}
    for one in told if isinstance(told, list) else [told]:
        if not isinstance(one, dict) or (config is not None and one.get("config_name", config) != config):
            continue
        for column in one.get("features") or []:
            kind = column.get("dtype") if isinstance(column, dict) else None
            names = (kind.get("class_label") or {}).get("names") if isinstance(kind, dict) else None
            if isinstance(names, dict):  # number -> name
                names = [names[number] for number in sorted(names, key=int)]
            if not names:
                continue
            feature = {"_type": "ClassLabel", "names": [str(name) for name in names]}
            if found.setdefault(column["name"], feature) != feature:
                raise DataError(
                    f"{card} numbers the classes of '{column['name']}' differently in its configurations: say which "
                    "one this is with config=NAME."
                )
    return found


def named(table: pa.Table, features: Mapping[str, Any]) -> pa.Table:
    """`table` with class names as `features` tells them; see `with_class_names`."""
    for name, feature in features.items():
        if name not in table.column_names or not _holds_names(feature):
            continue
        column = table[name]
        if (names := class_names(feature)) is not None:
            column = _of_numbers(column, names)
        else:
            column = pa.chunked_array([pa.array([_decoded(v, feature) for v in column.to_pylist()])])
        table = table.set_column(table.schema.get_field_index(name), name, column)
    kept = {key: value for key, value in (table.schema.metadata or {}).items() if key != _METADATA}
    return table.replace_schema_metadata(kept or None)  # whose columns are no longer what that says


def class_names(feature: Any) -> list[str] | None:
    """The names of a ClassLabel in the order of their numbers; None where a feature is none."""
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    return [str(name) for name in feature.get("names") or []]


def as_named(numbers: pa.Array | pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """Whole numbers as a dictionary column of `names`; those without a name become null."""
    there = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, len(names)))
    places = pc.cast(pc.if_else(there, numbers, pa.scalar(None, numbers.type)), pa.int32())
    chunks = places.chunks if isinstance(places, pa.ChunkedArray) else [places]
    texts = pa.array(names, pa.string())
    kind = pa.dictionary(pa.int32(), pa.string())
    return pa.chunked_array([pa.DictionaryArray.from_arrays(chunk, texts) for chunk in chunks], kind)


def _of_numbers(column: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """A column of numbers (of floating ones where some are missing) by their names; text stays as it is."""
    if pa.types.is_floating(column.type):
        try:
            column = pc.cast(column, pa.int64())
        except pa.ArrowInvalid:  # no numbers of classes
            return column
    return as_named(column, names) if pa.types.is_integer(column.type) else column


def _inner(feature: Any) -> Any:
    """Return the type of a list's items, in each way that `datasets` has written lists; None of no list."""
    if isinstance(feature, list):
        return feature[0] if feature else None
    return feature.get("feature") if isinstance(feature, dict) and "_type" in feature else None


def _holds_names(feature: Any) -> bool:
    if class_names(feature) is not None:
        return True
    if (inner := _inner(feature)) is not None:
        return _holds_names(inner)
    return isinstance(feature, dict) and "_type" not in feature and any(map(_holds_names, feature.values()))


def _decoded(value: Any, feature: Any) -> Any:
    """A nested cell with the numbers of its class labels replaced."""
    if (names := class_names(feature)) is not None:
        number = isinstance(value, int) and not isinstance(value, bool)
        return (names[value] if 0 <= value < len(names) else None) if number else value
    inner = _inner(feature)
    if inner is not None and isinstance(value, list):
        return [_decoded(one, inner) for one in value]
    if inner is not None and isinstance(value, dict):  # a list of structs, kept as a struct of lists
        return {key: _decoded(one, {"feature": inner.get(key), "_type": "List"}) for key, one in value.items()}
    if isinstance(feature, dict) and isinstance(value, dict):
        return {key: _decoded(one, feature.get(key)) for key, one in value.items()}
    return value
