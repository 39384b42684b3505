"""What the columns of somebody's table may be: for messages that propose a setting, and for nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from guardtrain.errors import DataError
from guardtrain.sources.cells import Cells
from guardtrain.sources.decoding import endings
from guardtrain.sources.endings import ending_of
from guardtrain.sources.images import is_url
from guardtrain.sources.labels import read_labels
from guardtrain.sources.unclear import Unclear
from guardtrain.words import listed, near

_NAMES = re.compile(
    r"label|class|rating|safe|nsfw|sfw|score|choice|target|annotation|verdict|assessment", re.IGNORECASE
)
_MOST_VALUES = 12  # of a column of labels
_LOOKED_AT = 50  # cells, for names of images
PROPOSED = 3


def may_be_labels(table: pa.Table, besides: Iterable[str] = ()) -> list[str]:
    """The columns that hold two or more labels as they are read without settings, then those of few values and a name
    that says so; the likeliest first."""
    sure, likely = [], []
    for name in table.column_names:
        if name in besides:
            continue
        cells = Cells.of(table[name])
        if not 1 < len(cells.texts) <= _MOST_VALUES:
            continue
        try:
            read_labels(table[name], {}, "", name)
            sure.append(name)
        except DataError:
            if _NAMES.search(name):
                likely.append(name)
    sure.sort(key=lambda name: _NAMES.search(name) is None)
    return sure + likely


def may_be_images(table: pa.Table) -> list[str]:
    """The columns whose cells are called as images are, or are URLs."""
    found = []
    for name in table.column_names:
        texts = [
            cell for cell in table[name].slice(0, _LOOKED_AT).to_pylist() if isinstance(cell, str) and cell.strip()
        ]
        if texts and all(ending_of(text.strip()) in endings() or is_url(text) for text in texts):
            found.append(name)
    return found


def without_labels(table: pa.Table, columns: Mapping[str, str], origin: str, hint: str = "") -> Unclear:
    """The error for a table that has no column of labels.

    Args:
        table: the user's, its columns under the names that the user gave them.
        columns: the setting: our column -> the user's.
        origin: what messages call the table.
        hint: where columns may have been lost.
    """
    known = table.column_names
    proposed = may_be_labels(table, set(columns.values()))[:PROPOSED]
    steps = [("Say which column holds the labels", [("columns", {**columns, "label": name}) for name in proposed])]
    whole = (
        f"{'Or give' if proposed else 'Give'} all rows one, 0 for safe or 1 for unsafe",
        [("constants", {"label": 0})],
    )
    return Unclear(
        f"{origin} has no column 'label'. It has: {listed(known, 30)}.{hint}", [*(steps if proposed else []), whole]
    )


def without_images(table: pa.Table, columns: Mapping[str, str], origin: str) -> DataError:
    """The error for a table that has neither images nor ids; arguments as of `without_labels`."""
    problem = f"{origin} has neither a column 'image' nor 'id'. It has: {listed(table.column_names, 30)}."
    if not (proposed := may_be_images(table)[:PROPOSED]):
        return DataError(f"{problem} Say which of them holds the paths of the images with columns={{image: …}}.")
    known = {**columns}
    if "label" not in known and "label" not in table.column_names and (labels := may_be_labels(table, proposed)):
        known["label"] = labels[0]
    settings = [("columns", {"image": name, **known}) for name in proposed]
    return Unclear(problem, [("Say which column holds the paths of the images", settings)])


def without_image_column(
    wanted: str, names: Sequence[str], proposed: Sequence[str], origin: str
) -> Unclear | DataError:
    """The error for rows that have no column of images by the name that is looked for.

    Args:
        wanted: that name.
        names: of the columns there are.
        proposed: those that may hold images.
        origin: what messages call the rows.
    """
    problem = f"{origin} has no image column '{wanted}'.{near(wanted, names)} It has: {listed(names, 30)}."
    if not proposed:
        return DataError(f"{problem} Say which of them holds the images with columns={{image: …}}.")
    settings = [("columns", {"image": name}) for name in proposed[:PROPOSED]]
    return Unclear(problem, [("Say which column holds the images", settings)])
