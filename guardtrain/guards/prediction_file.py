"""Predictions on disk: written part by part, resumed where they stopped, put in place only when they are whole."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from guardtrain.errors import DataError
from guardtrain.files import only_process, replace_file

_PLAN = "plan.json"
_KEY = b"guardtrain.part"
_NEAR = pa.struct(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
        pa.field("pair_id", pa.string()),
    ]
)


def schema(categories: bool, neighbours: bool, named: bool = False) -> pa.Schema:
    """The columns of predictions, those of `Predictions.rows`.

    Args:
        categories: there are thresholds of single categories.
        neighbours: training images are named.
        named: categories of unsafe images are named.
    """
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("probability", pa.float64()),
        pa.field("decision", pa.string()),
        pa.field("point", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("frame", pa.int32()),
        pa.field("frames", pa.int32()),
        pa.field("frames_judged", pa.int32()),
    ]
    if categories:
        fields.append(pa.field("categories", pa.map_(pa.string(), pa.string())))
    if named:
        fields.append(pa.field("category", pa.string()))
        fields.append(pa.field("category_probabilities", pa.map_(pa.string(), pa.float64())))
    if neighbours:
        fields.append(pa.field("neighbours", pa.list_(_NEAR)))
    return pa.schema(fields)


def json_line(row: Mapping[str, Any]) -> str:
    """A row as one line of JSON."""
    return json.dumps(_plain(row), ensure_ascii=False) + "\n"


def csv_cells(row: Mapping[str, Any]) -> list[Any]:
    """A row as the cells of a CSV; what is none in CSV, a mapping or a list, is JSON in its cell.

    >>> csv_cells({"id": "a.png", "probability": 0.5, "error": None, "categories": [("fire", "unsafe")]})
    ['a.png', 0.5, None, '{"fire": "unsafe"}']
    """
    cells = _plain(row).values()
    return [json.dumps(cell, ensure_ascii=False) if isinstance(cell, dict | list) else cell for cell in cells]


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with Arrow's maps as mappings."""
    plain = dict(row)
    for name in ("categories", "category_probabilities"):
        if isinstance(plain.get(name), list):
            plain[name] = dict(plain[name])
    return plain


class PredictionFile:
    """The predictions of one command, in the making.

    Beside the file, in a hidden folder, stand the parts that are done; each says of which images it is, as they were.

    Args:
        out: the file to be, .parquet, .csv, .jsonl or .ndjson.
        plan: what decides the rows besides the images: guard, point, …; parts of another plan are thrown away.
        columns: of the rows; see `schema`.
    """

    def __init__(self, out: Path, plan: Mapping[str, Any], columns: pa.Schema) -> None:
        self.out, self.columns = out, columns
        self.folder = out.parent / f".{out.name}.parts"
        self._plan = json.dumps(dict(plan), sort_keys=True)

    @contextmanager
    def writing(self) -> Iterator[PredictionFile]:
        """Hold the file's lock; what others left of another plan is removed.

        Raises:
            DataError: another process is writing this file.
        """
        refusal = DataError(f"Another process is writing {self.out}; wait for it, or give another out=…")
        with only_process(self.folder / ".lock", refusal):
            plan = self.folder / _PLAN
            if not plan.is_file() or plan.read_text(encoding="utf-8") != self._plan:
                for part in self.folder.glob("part-*.parquet"):
                    part.unlink()
                replace_file(plan, lambda path: path.write_text(self._plan, encoding="utf-8"))
            yield self

    def part(self, number: int, key: str) -> pa.Table | None:
        """A part that is done, if it is of the images with this key."""
        path = self._path(number)
        try:
            if (pq.read_schema(path).metadata or {}).get(_KEY) != key.encode():
                return None
            return pq.read_table(path)
        except (OSError, pa.ArrowException):
            return None

    def write_part(self, number: int, key: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Keep the rows of a part; returns them as a table."""
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=self.columns)
        named = table.replace_schema_metadata({_KEY: key.encode()})
        replace_file(self._path(number), lambda path: pq.write_table(named, path, compression="zstd"))
        return table

    def finish(self, parts: int) -> None:
        """Put the file in place, made of so many parts, and remove them."""

        def whole(temporary: Path) -> None:
            if self.out.suffix == ".parquet":
                with pq.ParquetWriter(temporary, self.columns, compression="zstd") as writer:
                    for table in self._tables(parts):
                        writer.write_table(table)
                return
            if self.out.suffix == ".csv":
                with temporary.open("w", encoding="utf-8", newline="") as file:
                    lines = csv.writer(file)
                    lines.writerow(self.columns.names)
                    for table in self._tables(parts):
                        lines.writerows(map(csv_cells, table.to_pylist()))
                return
            with temporary.open("w", encoding="utf-8") as file:
                for table in self._tables(parts):
                    file.writelines(json_line(row) for row in table.to_pylist())

        replace_file(self.out, whole)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _tables(self, parts: int) -> Iterator[pa.Table]:
        for number in range(parts):
            yield pq.read_table(self._path(number)).replace_schema_metadata(None)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"
