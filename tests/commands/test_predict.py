"""`guardtrain predict` from files to a table, whatever happens in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from guardtrain.commands.predict import as_overrides
from guardtrain.config import PredictConfig
from guardtrain.config_checks import typed
from guardtrain.guards import bulk
from guardtrain.guards.guard import Guard
from tests.guards.serving.conftest import files, guard, guard_folder

__all__ = ["files", "guard", "guard_folder"]


@pytest.fixture
def photos(tmp_path: Path, files: list[bytes]) -> list[str]:
    """Names of images in the folder `photos`, with two broken ones among them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, content in enumerate(files):
        (folder / f"{i:02d}.img.png").write_bytes(content)
    (folder / "03 half.jpg").write_bytes(files[1][:300])
    (folder / "05 empty.png").write_bytes(b"")
    return sorted(f"photos/{path.name}" for path in folder.iterdir())


def expected_rows(guard: Guard, photos: list[str], **options: Any) -> list[dict[str, Any]]:
    near = {"probability", "category_probabilities"}
    return [{key: pytest.approx(value, abs=1e-5) if key in near and value is not None else value
             for key, value in row.items()} for row in guard.predict(photos, **options).rows()]  # fmt: skip


def test_a_folder_becomes_a_table(run, guard: Guard, guard_folder: Path, photos: list[str]) -> None:
    text = run("predict", f"guard={guard_folder}", "photos", "part_size=5")
    rows = pq.read_table("predictions.parquet").to_pylist()
    for row, wanted in zip(rows, expected_rows(guard, photos), strict=True):
        if row["error"]:
            assert wanted["error"]
            assert (row["probability"], row["decision"]) == (None, None)
        else:
            assert row | {"category_probabilities": dict(row["category_probabilities"])} == wanted
    assert {row["category"] is None for row in rows} == {True, False}
    flagged = sum(row["decision"] == "unsafe" for row in rows)
    assert [line.split()[:2] for line in text.splitlines() if line.split()[:1] in (["flagged"], ["unreadable"])] == [
        ["flagged", str(flagged)],
        ["unreadable", "2"],
    ]
    assert not list(Path().glob(".*parts"))
    assert "is there already" in run("predict", f"guard={guard_folder}", "photos", code=2)
    run("predict", f"guard={guard_folder}", "photos/00.img.png", "overwrite=true")
    assert pq.read_metadata("predictions.parquet").num_rows == 1


def test_lines_of_json_with_neighbours_at_another_point(
    run, guard: Guard, guard_folder: Path, photos: list[str]
) -> None:
    run("predict", f"guard={guard_folder}", *photos, "out=p.jsonl", "point=review", "explain=2")
    rows = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    for row, wanted in zip(rows, expected_rows(guard, photos, point="review", explain=2), strict=True):
        assert list(row) == list(wanted)
        assert [near["id"] for near in row["neighbours"]] == [near["id"] for near in wanted["neighbours"]]
        assert (row["id"], row["decision"], row["point"]) == (wanted["id"], wanted["decision"], "review")
    assert {row["decision"] for row in rows} >= {"review", None}


def test_stdout_holds_rows_and_nothing_else(
    run, guard_folder: Path, photos: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from guardtrain.cli import main

    assert main(["predict", f"guard={guard_folder}", "photos", "out=-"]) == 0
    captured = capsys.readouterr()
    assert [json.loads(line)["id"] for line in captured.out.splitlines()] == photos
    assert "unreadable  2" in captured.err


def test_what_was_cut_off_goes_on(run, guard_folder: Path, photos: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["predict", f"guard={guard_folder}", "photos", "part_size=4"]
    run(*command, "out=whole.parquet")
    real, seen = bulk.judged, []

    def counted(judge: Any, images: Any, **options: Any) -> Any:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append([image.id for image in images])
        return real(judge, images, **options)

    monkeypatch.setattr(bulk, "judged", counted)
    assert "continues where it stopped" in run(*command, code=130)
    assert not Path("predictions.parquet").exists()
    touched = Path(photos[5])  # in the second part, which is then made again
    touched.write_bytes(touched.read_bytes())
    seen.clear()
    monkeypatch.setattr(bulk, "judged", lambda *a, **k: (seen.append([i.id for i in a[1]]), real(*a, **k))[1])
    run(*command)
    assert seen == [photos[i : i + 4] for i in range(4, len(photos), 4)]
    assert pq.read_table("predictions.parquet").equals(pq.read_table("whole.parquet"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to judge"),
        (["nowhere"], "no images at nowhere"),
        (["photos", "out=p.csv"], "ends in .parquet, .jsonl, .ndjson, or is -"),
        (["photos", "point=lax"], "no operating point 'lax'; this guard has: strict"),
        (["photos", "explain=-1"], "explain must be 0 or more"),
        (["photos", "part_size=0"], "at least 1"),
        (["photos", "colour=red"], "no setting 'colour'"),
    ],
)
def test_what_is_wrong_is_named(run, guard_folder: Path, photos: list[str], arguments: list[str], said: str) -> None:
    text = run("predict", f"guard={guard_folder}", *arguments, code=2)
    assert said in text
    assert "Traceback" not in text


def test_a_guard_that_is_not_there_is_named(run, photos: list[str]) -> None:
    assert "There is no directory nowhere, and" in run("predict", "guard=./nowhere", "photos", code=2)


def test_paths_are_told_from_settings() -> None:
    assert as_overrides(["guard=g", "+x=1", "~y", "-m", "a", "./b=c.jpg", "--cfg", "job", "point=strict"]) == [
        "guard=g", "+x=1", "~y", "-m", "--cfg", "job", "point=strict", "inputs=['a','./b=c.jpg']",
    ]  # fmt: skip
    assert as_overrides(["guard=g", "inputs=[a]"]) == ["guard=g", "inputs=[a]"]
    assert as_overrides([]) == []


_PIECES = ["\\", "'", '"', "$", "{", "}", "${a}", "\\${", "\\'", "[", "]", ",", ":", " ", "a", "="]
_NASTY = st.lists(st.sampled_from(_PIECES), min_size=1, max_size=8).map("".join)
_ANY = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@given(st.lists(_NASTY | _ANY, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_path_survives_the_way_through_hydra(paths: list[str]) -> None:
    (override,) = as_overrides([f"./{path}" for path in paths])
    parsed = OverridesParser.create().parse_override(override)
    config = OmegaConf.structured(PredictConfig(guard="g"))
    OmegaConf.update(config, "inputs", parsed.value())  # as Hydra does it
    assert typed(config, PredictConfig).inputs == [f"./{path}" for path in paths]
