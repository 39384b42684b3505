"""Rows in JSON: lines of objects, arrays of them, and what Label Studio and COCO's tools export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

NO_CATEGORY = "none"  # of an image in COCO's JSON that nothing is marked in
_LOCAL_FILE = "/data/local-files/?d="  # Label Studio's names of images
_UPLOAD = "/data/upload/"


def json_lines(text: str) -> pa.Table:
    """The table in JSON lines, an object each; an array of objects is taken, too.

    Raises:
        ValueError: it is none; says which line.
    """
    # The standard library rather than pyarrow.json, which turns ids that look like dates into timestamps.
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if not rows and line.lstrip()[0] == "[":
                return json_table(text)
            raise ValueError(f"line {number} is not JSON ({error})") from None
        if isinstance(row, list) and not rows:
            return json_table(text)
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")
        rows.append(row)
    return _table(rows)


def json_table(text: str) -> pa.Table:
    """The table in JSON: an array of objects, alone or the only one in an object; a data frame as pandas writes it; the
    export of Label Studio; COCO's annotations; or JSON lines.

    Of Label Studio's tasks the columns are their data, and what was chosen by the names of the controls; of COCO's
    images `image` (the file's name), `category`, and what the file says of them. Several values of one image stand in
    one cell, sorted, as in `gun, knife`; in COCO's file an image without any has `none`.

    Raises:
        ValueError: none of these; says what it is.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip()[:1] == "{":
            return json_lines(text)
        raise ValueError(f"it is no JSON ({error})") from None
    if isinstance(value, dict):
        if _are_objects(value.get("images")) and isinstance(value.get("annotations"), list):
            return _table(_of_coco(value))
        if (columns := _of_columns(value)) is not None:
            return _table(columns)
        lists = [one for one in value.values() if _are_objects(one)]
        if len(lists) != 1:
            keys = ", ".join(list(value)[:8]) or "nothing"
            raise ValueError(
                f"it is an object that holds {keys}, and not one list of rows. Rows are read from an array of objects, "
                "such as [{image: a.png, label: 1}, …] in JSON, from Label Studio's export and from COCO's annotations"
            )
        (value,) = lists
    if not _are_objects(value):
        raise ValueError("it is no array of objects" if value != [] else "it is empty")
    return _table(map(_of_task, value) if all(map(_is_task, value)) else value)


def values_column(values: list[Any]) -> pa.Array:
    """Values as read from JSON as a column; those of mixed types as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # mixed types, such as ids 1 and "a"; huge numbers
        return pa.array([None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values])


def _table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    if not names:
        raise ValueError("it is empty")
    plain = {name: name if name.strip() in names else name.strip() for name in names}
    return pa.table({plain[name]: values_column([row.get(name) for row in rows]) for name in names})


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _of_columns(value: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of columns `{image: {"0": …, "1": …}, …}` (pandas), or `{image: […], …}`; None of anything else."""
    columns = list(value.values())
    if not columns:
        return None
    if all(isinstance(one, dict) and one.keys() == columns[0].keys() for one in columns) and columns[0]:
        if not all(key.isdigit() for key in columns[0]):
            return None
        columns = [list(one.values()) for one in columns]
    elif not all(isinstance(one, list) and len(one) == len(columns[0]) for one in columns) or len(columns) < 2:
        return None
    return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _of_coco(value: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    names = {one.get("id"): str(one.get("name")) for one in value.get("categories") or [] if isinstance(one, dict)}
    found: dict[Any, list[str]] = {}
    for one in value["annotations"]:
        if isinstance(one, dict):
            number = one.get("category_id")
            found.setdefault(one.get("image_id"), []).append(names.get(number, str(number)))
    for image in value["images"]:
        about = {name: cell for name, cell in image.items() if name not in ("id", "file_name")}
        number = image.get("id")
        category = _joined(found.get(number, [])) or NO_CATEGORY
        yield {"image": image.get("file_name"), "category": category, "image_id": number} | about


def _is_task(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("data"), dict) and any(isinstance(row.get(n), list) for n in ("annotations", "result"))


def _of_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was said of a task, by the names of the controls; annotations that were skipped say nothing."""
    said: dict[str, list[str]] = {}
    given = task["annotations"] if isinstance(task.get("annotations"), list) else [task]
    for annotation in given:
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        for one in annotation.get("result") or []:
            if isinstance(one, dict) and isinstance(one.get("value"), dict) and one.get("from_name"):
                said.setdefault(str(one["from_name"]), []).extend(_choices(one["value"], str(one.get("type"))))
    data = {name: _without_server(cell) for name, cell in task["data"].items()}
    return data | {"task": task.get("id")} | {name: _joined(values) for name, values in said.items()}


def _choices(value: Mapping[str, Any], kind: str) -> list[str]:
    """Return what a control says: the labels of a choice, of a region; a number; a text."""
    found = value.get(kind, value.get("text"))
    flat = found if isinstance(found, list) else [found]
    return [" / ".join(map(str, one)) if isinstance(one, list) else str(one) for one in flat if one is not None]


def _without_server(cell: Any) -> Any:
    """A path from Label Studio's media folder, or from its folder of local files, for what its server calls a file."""
    if not isinstance(cell, str):
        return cell
    if _LOCAL_FILE in cell:
        return unquote(cell.split(_LOCAL_FILE, 1)[1])
    return unquote(re.sub(r"^(https?://[^/]+)?/data/", "", cell)) if _UPLOAD in cell else cell


def _joined(values: Iterable[str]) -> str | None:
    return ", ".join(sorted(set(values))) or None
