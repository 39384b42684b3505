"""JSON that people have: arrays of rows, data frames, Label Studio's export, COCO's annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from guardtrain.errors import DataError
from guardtrain.sources import Derived, ManifestSource
from guardtrain.sources.tables import read_table


def rows(tmp_path: Path, value: Any, name: str = "t.json") -> list[dict[str, Any]]:
    (tmp_path / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return read_table(str(tmp_path / name)).to_pylist()


def refused(tmp_path: Path, value: Any) -> str:
    with pytest.raises(DataError) as caught:
        rows(tmp_path, value)
    return str(caught.value)


ROWS = [{"image": "a.png", "label": 1, "x": None}, {"image": "b.png", "label": 0, "x": [1]}]


def test_rows_in_every_way_that_pandas_writes_them(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)
    assert rows(tmp_path, ROWS) == ROWS
    for text in (
        frame.to_json(orient="records"),
        frame.to_json(orient="records", lines=True),
        frame.to_json(),
        json.dumps(frame.to_dict(orient="list")),
        json.dumps({"version": 1, "data": ROWS}),
    ):
        assert rows(tmp_path, text) == ROWS, text
    assert rows(tmp_path, json.dumps(ROWS, indent=1), "t.jsonl") == ROWS
    assert rows(tmp_path, json.dumps(ROWS), "t.jsonl") == ROWS


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "it is no JSON"),
        ([], "it is empty"),
        ([1], "it is no array of objects"),
        ("3", "it is no array of objects"),
        ({"a": [{"b": 1}], "c": [{"d": 1}, {"d": 2}]}, "it is an object that holds a, c, and not one list of rows"),
        ({"a.png": 1, "b.png": 0}, "Rows are read from an array of objects"),
    ],
)
def test_what_is_no_table_is_said(tmp_path: Path, value: Any, said: str) -> None:
    assert said in refused(tmp_path, value)


def test_integers_of_any_size_are_text_beside_others(tmp_path: Path) -> None:
    wide = [{"id": 2**70, "label": 1, "x": {"y": [2**64]}}, {"id": 3, "label": 0, "x": {"y": [-1]}}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, wide)))
    records = ManifestSource(str(tmp_path / "t.jsonl")).records()
    assert records.ids.tolist() == [str(2**70), "3"]
    assert json.loads(records.column("x")[0]) == {"y": [2**64]}


def _task(number: int, image: str, *choices: list[str], skipped: bool = False) -> dict[str, Any]:
    """A task as Label Studio exports it, with an annotation for each list of choices."""
    annotations = [
        {
            "id": 10 * number + i,
            "was_cancelled": skipped,
            "result": [
                {"value": {"choices": chosen}, "from_name": "choice", "to_name": "image", "type": "choices"},
                {"value": {"rating": 4}, "from_name": "sure", "to_name": "image", "type": "rating"},
            ],
        }
        for i, chosen in enumerate(choices)
    ]
    return {"id": number, "annotations": annotations, "data": {"image": image}, "predictions": [], "meta": {}}


def test_label_studio(tmp_path: Path) -> None:
    tasks = [
        _task(1, "/data/upload/1/ab-a.png", ["Safe"]),
        _task(2, "/data/local-files/?d=more/b%20c.png", ["Unsafe"], ["Unsafe"]),
        _task(3, "https://studio.example/data/upload/1/c.png", ["Safe"], ["Unsafe"]),
        _task(4, "s3://bucket/d.png", ["Safe"], skipped=True),
    ]
    found = rows(tmp_path, tasks)
    assert [row["image"] for row in found] == [
        "upload/1/ab-a.png",
        "more/b c.png",
        "upload/1/c.png",
        "s3://bucket/d.png",
    ]
    assert [row["choice"] for row in found] == ["Safe", "Unsafe", "Safe, Unsafe", None]
    assert [row["sure"] for row in found] == ["4", "4", "4", None]
    columns = {"label": "choice"}
    source = ManifestSource(
        str(tmp_path / "t.json"), columns=columns, labels={"Safe": 0, "Unsafe": 1, "Safe, Unsafe": 1, "null": 0}
    )
    assert source.records().labels.tolist() == [0, 1, 1, 0]
    with pytest.raises(DataError, match=r"Found: 'Safe' \(1\), 'Unsafe' \(1\), 'Safe, Unsafe' \(1\), \(empty\) \(1\)"):
        ManifestSource(str(tmp_path / "t.json"), columns=columns).records()


def test_coco(tmp_path: Path) -> None:
    value = {
        "info": {},
        "images": [{"id": k, "file_name": f"{k}.jpg", "width": 4} for k in range(4)],
        "annotations": [{"id": 9, "image_id": i, "category_id": c, "bbox": [0, 0, 1, 1]}
                        for i, c in ((0, 1), (1, 2), (1, 1), (1, 1), (3, 2), (3, 7))],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "gun"}],
    }  # fmt: skip
    found = rows(tmp_path, value)
    assert [row["category"] for row in found] == ["person", "gun, person", "none", "7, gun"]
    assert [row["width"] for row in found] == [4] * 4
    derive = {"label": Derived("category", r"\bgun\b")}
    records = ManifestSource(str(tmp_path / "t.json"), derive=derive).records()
    assert records.labels.tolist() == [0, 1, 0, 1]
    assert records.ids.tolist() == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert records.categories.tolist() == ["person", "gun, person", "none", "7, gun"]


def test_llavaguards_annotations(tmp_path: Path) -> None:
    ratings = ["Highly Unsafe", "Moderately Unsafe", "Barely Acceptable", "Generally Acceptable"]
    value = [
        {"id": f"smid_{k}", "image": f"/repos/smid/img/b{k}.jpg", "score": score, "category": "O2: Violence",
         "conversations": [{"from": "human", "value": "policy"}, {"from": "gpt", "value": "{}"}]}
        for k, score in enumerate(ratings)
    ]  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps(value))
    derive = {"image": Derived("image", "^/repos/smid/", "")}
    records = ManifestSource(str(tmp_path / "train.json"), columns={"label": "score"}, derive=derive).records()
    assert records.labels.tolist() == [1, 1, 0, 0]
    assert records.image_uris()[0] == f"{tmp_path}/img/b0.jpg"
    assert records.taken is not None
    assert records.taken.unsafe == (("'Highly Unsafe'", 1), ("'Moderately Unsafe'", 1))
    assert records.taken.safe == (("'Barely Acceptable'", 1), ("'Generally Acceptable'", 1))
