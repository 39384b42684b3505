from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from guardtrain.errors import DataError
from guardtrain.guards.looking import UNSEEN
from guardtrain.guards.prediction_file import PredictionFile, schema

PLAN = {"guard": "g", "point": "strict"}


def rows(start: int, count: int) -> list[dict[str, Any]]:
    near = [{"id": "t", "label": 1, "similarity": 0.5, "pair_id": None}]
    judged = {"probability": 0.25, "decision": "safe", "error": None, "categories": {"O1": "safe"}, "neighbours": near}
    judged |= {"frame": 2, "frames": 5, "frames_judged": 4}
    judged |= {"category": "O1", "category_probabilities": {"O1": 0.75, "O2": 0.25}}
    failed = {"probability": None, "decision": None, "error": "truncated", "categories": {}, "neighbours": []}
    failed |= {"category": None, "category_probabilities": {}, **UNSEEN}
    return [
        {"id": str(i), "point": "strict", **(failed if i % 3 == 2 else judged)} for i in range(start, start + count)
    ]


def make(out: Path, plan: dict[str, str] = PLAN) -> PredictionFile:
    return PredictionFile(out, plan, schema(categories=True, neighbours=True, named=True))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_parts_become_one_file_and_nothing_is_left_beside_it(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"p{suffix}"
    with make(out).writing() as file:
        file.write_part(0, "a", rows(0, 4))
        file.write_part(1, "b", rows(4, 3))
        assert not out.exists()
        file.finish(2)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    if suffix == ".parquet":
        maps = ("categories", "category_probabilities")
        found = [row | {name: dict(row[name]) for name in maps} for row in pq.read_table(out).to_pylist()]
    else:
        found = [json.loads(line) for line in out.read_text().splitlines()]
    assert found == rows(0, 7)


def test_a_part_counts_only_for_the_images_it_was_made_of(tmp_path: Path) -> None:
    out = tmp_path / "p.parquet"
    with make(out).writing() as file:
        file.write_part(0, "a", rows(0, 4))
        file.write_part(1, "b", rows(4, 3))
    with make(out).writing() as file:
        first = file.part(0, "a")
        assert first is not None
        assert first["id"].to_pylist() == ["0", "1", "2", "3"]
        assert file.part(0, "other") is None
        assert file.part(2, "c") is None
        torn = file.folder / "part-000001.parquet"
        torn.write_bytes(torn.read_bytes()[:-10])
        assert file.part(1, "b") is None
    with make(out, {**PLAN, "point": "lax"}).writing() as file:
        assert file.part(0, "a") is None


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    file = make(tmp_path / "p.parquet")
    file.folder.mkdir()
    with FileLock(file.folder / ".lock"), pytest.raises(DataError, match="Another process"), file.writing():
        pass
