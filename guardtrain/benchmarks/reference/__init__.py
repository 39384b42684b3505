"""Figures that others published, as data with their source; none is ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class PublishedFigure:
    """One number of a published table.

    Args:
        paper: the file it stands in, one of `papers()`.
        table: the table's name in that file.
        number: the table's in the paper; None where the source gives none.
        what: what the table shows.
        source: the paper or data set.
        row, column: where it stands, such as a classifier and a source.
        value: as published; not all papers give percent.
        second_hand: read in what others copied from the source, not in the source itself.
    """

    paper: str
    table: str
    number: int | None
    what: str
    source: str
    row: str
    column: str
    value: float
    second_hand: bool


def papers() -> list[str]:
    """The names `published_tables` knows.

    >>> papers()
    ['on_unsafebench', 'safetypairs', 'unsafebench']
    """
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def published_tables(name: str = "unsafebench") -> dict[str, dict[str, Any]]:
    """Tables by name, each with `what`, `source`, `table` (its number in the paper; None where the source gives none).

    `metric` says which of ours all figures of a table are, `unit: percent` that they are in percent. A table that was
    not read in its source, but where others had copied it, says so in `read_from`.

    >>> published_tables()["composition"]["rows"]["all"]["all"]
    10146
    """
    import yaml

    tables: dict[str, dict[str, Any]] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text("utf-8"))
    return tables


def published_figures(*names: str) -> Iterator[PublishedFigure]:
    """Every number of some papers (default: of all), a row each.

    >>> next(f.value for f in published_figures("unsafebench") if (f.row, f.column) == ("NudeNet", "lexica"))
    0.596
    """
    for paper in names or papers():
        for name, table in published_tables(paper).items():
            about = (paper, name, table["table"], " ".join(table["what"].split()), table["source"])
            for row, columns in table["rows"].items():
                for column, value in columns.items():
                    yield PublishedFigure(*about, str(row), str(column), float(value), "read_from" in table)
