"""`guardtrain predict` from files to a table, whatever happens in between."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from guardtrain.commands.predict import as_overrides
from guardtrain.config_checks import typed
from guardtrain.embeddings import EmbeddingStore
from guardtrain.guards import bulk
from guardtrain.guards.calibration import Identity
from guardtrain.guards.guard import Guard
from guardtrain.guards.predict_settings import PredictConfig
from guardtrain.guards.thresholds_rules import percent
from tests.commands.test_told_labels import pasted
from tests.conftest import ROOT
from tests.guards.serving.conftest import files, guard, guard_folder
from tests.sources.animations import animation

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
    text = run("predict", f"guard={guard_folder}", "photos", "part_size=5", "out=predictions.parquet")
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
    command = ["predict", "photos/00.img.png", "out=predictions.parquet"]
    assert "is there already" in run(*command, f"guard={guard_folder}", code=2)
    assert "There is no directory" in run(*command, "guard=./nowhere", code=2)  # the guard comes first
    run(*command, f"guard={guard_folder}", "overwrite=true")
    assert pq.read_metadata("predictions.parquet").num_rows == 1


def test_answers_on_the_screen(run, guard: Guard, guard_folder: Path, photos: list[str]) -> None:
    before = sorted(Path().rglob("*"))
    lines = run("predict", f"guard={guard_folder}", *photos).splitlines()
    assert sorted(Path().rglob("*")) == before  # no table that nobody asked for
    found = guard.predict(photos)
    point = guard.points[guard.default_point]
    limit = guard.calibrator.probabilities(np.array([point.threshold]))[0]
    for name, p, decision, category in zip(
        photos, found.probabilities, found.decision, found.category or (), strict=True
    ):
        (line,) = [one for one in lines if one.startswith(f"{name} ")]
        if decision is None:
            reason = "the file is empty" if name.endswith("empty.png") else "Truncated File Read"
            assert re.split("  +", line) == [name, "–", f"unreadable: {reason}"]
            continue
        said = f"flagged: {category}" if decision == "unsafe" else "not flagged"
        _, shown, text = re.split("  +", line)
        digits = len(shown) - 1
        assert digits >= 2 and float(shown) == round(p, digits)
        assert text == f"{said} (unsafe from {f'{limit:.{digits}f}'.removeprefix('0')})"
        assert (float(shown) >= round(limit, digits)) == (decision == "unsafe")
    assert set(found.decision) == {"safe", "unsafe", None}
    assert "unreadable  2 (14.3%)" in lines
    alone = run("predict", f"guard={guard_folder}", photos[0]).splitlines()
    assert len(alone) == 2 and alone[1].split() == lines[1].split()  # counts of one image say nothing more
    assert f"probabilities where {percent(guard.prior)} of images are unsafe" in alone[0]
    elsewhere = run("predict", f"guard={guard_folder}", photos[0], "prior=0.9").splitlines()
    assert "probabilities where 90 % of images are unsafe" in elsewhere[0]
    _, shown, said = re.split("  +", elsewhere[1])
    p, odds = found.probabilities[0], 9 / (guard.prior / (1 - guard.prior))
    assert float(shown) == pytest.approx(p * odds / (1 - p + p * odds), abs=0.0051) and float(shown) > p + 0.01
    assert said.split(" (")[0] == re.split("  +", alone[1])[2].split(" (")[0]  # no decision changes


def test_many_images_do_not_flood_the_screen(
    run, guard_folder: Path, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from guardtrain.commands import predict

    monkeypatch.setattr(predict, "SHOWN", 3)
    monkeypatch.setattr(predict, "NAMED", 1)
    lines = run("predict", f"guard={guard_folder}", "photos").splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("photos/")] == [*photos[:3], "photos/03 half.jpg"]
    assert "… and 1 more that are unreadable" in lines
    assert any("The first 3 are shown; out=predictions.csv" in line for line in lines)
    assert "images      14" in lines and "unreadable  2 (14.3%)" in lines


def test_a_csv_has_what_the_json_lines_have(run, guard_folder: Path, photos: list[str]) -> None:
    run("predict", f"guard={guard_folder}", *photos[:5], "out=p.csv", "explain=1")
    run("predict", f"guard={guard_folder}", *photos[:5], "out=p.jsonl", "explain=1")
    with open("p.csv", encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    rows = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    for cell, row in zip(cells, rows, strict=True):
        assert list(cell) == list(row)
        for name, value in row.items():
            text = cell[name]
            read = json.loads(text) if isinstance(value, dict | list) else None if not text else type(value)(text)
            assert read == value


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (0.524, ".52  not flagged (unsafe from .74)"),
        (0.7389, ".739  not flagged (unsafe from .740)"),  # as .74 it would look flagged
        (0.7404, ".74  flagged: fire (unsafe from .74)"),
        (0.9999, "1.00  flagged: fire (unsafe from .74)"),
    ],
)
def test_an_answer_shows_why_it_is_one(p: float, said: str) -> None:
    from guardtrain.guards.answers import Answers

    logit = np.log(0.74 / 0.26)
    point = SimpleNamespace(threshold=logit)
    guard: Any = SimpleNamespace(points={"it": point}, calibration=SimpleNamespace(calibrator=Identity()))
    decision = "unsafe" if p >= 0.74 else "safe"
    row = {"id": "a.png", "error": None, "probability": p, "decision": decision}
    row["category"] = "fire" if decision == "unsafe" else None
    assert Answers(guard, "it", ["a.png"]).line(row) == f"a.png  {said}"


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


def test_animations_are_judged_by_their_likeliest_frame(
    run, guard: Guard, guard_folder: Path, photos: list[str], files: list[bytes]
) -> None:
    order = np.argsort(guard.predict(files).probabilities)
    scenes = [Image.open(io.BytesIO(files[i])).convert("RGB").resize((64, 64)) for i in order]
    Path("photos/z.gif").write_bytes(animation("GIF", [*(scenes[i % 5] for i in range(19)), scenes[-1]]))
    Path("photos/zz.webp").write_bytes(animation("WEBP", [scenes[-1], *scenes[:2]]))
    command = ["predict", f"guard={guard_folder}", "photos", "out=predictions.parquet", "overwrite=true"]
    text = run(*command)
    assert "animations  2, judged by the likeliest of up to 8 frames each (frames=all looks at more)" in text
    rows = {row["id"]: row for row in pq.read_table("predictions.parquet").to_pylist()}
    assert len(rows) == len(photos) + 2
    told = {name: tuple(row[key] for key in ("frame", "frames", "frames_judged")) for name, row in rows.items()}
    assert told["photos/z.gif"] == (19, 20, 8)
    assert told["photos/zz.webp"] == (0, 3, 3)
    assert {told[name] for name in photos if rows[name]["error"] is None} == {(None, 1, 1)}
    assert {told[name] for name in photos if rows[name]["error"]} == {(None, None, None)}
    assert rows["photos/z.gif"]["probability"] == pytest.approx(
        guard.predict("photos/z.gif").probabilities[0], abs=1e-5
    )
    text = run(*command, "frames=first")  # other rows, so that nothing of the first is kept
    assert "animations  2, judged by their first frame" in text
    first = {row["id"]: row for row in pq.read_table("predictions.parquet").to_pylist()}["photos/z.gif"]
    assert (first["frame"], first["frames"], first["frames_judged"]) == (0, 20, 1)
    assert first["probability"] < rows["photos/z.gif"]["probability"]
    assert "judged by all their frames" in run(*command, "frames=all")
    assert "frames is 'some'; it is first, all, or" in run(*command, "frames=some", code=2)


def test_folders_are_gone_through_once_and_what_is_passed_over_is_said(
    run, guard_folder: Path, photos: list[str]
) -> None:
    Path("photos/notes.txt").write_text("")
    Path("photos/latest").symlink_to(".")
    Path("photos/up").symlink_to("..")
    text = run("predict", f"guard={guard_folder}", "photos", "photos/00.img.png", "photos/*.jpg", "out=p.parquet")
    assert text.splitlines()[:2] == [
        "passed over: 1 .txt",
        "passed over: 3 taken already by another path: photos/latest (is photos), photos/up (is "
        f"{Path.cwd()}), {Path.cwd()}/photos/03 half.jpg (is photos/03 half.jpg)",
    ]
    ids = pq.read_table("p.parquet")["id"].to_pylist()
    assert sorted(ids) == photos


def test_a_table_whose_images_are_in_another_column(run, guard_folder: Path, photos: list[str]) -> None:
    Path("list.csv").write_text("img;name\nphotos/00.img.png;first\nphotos\\01.img.png;second\n")
    command = ["predict", f"guard={guard_folder}", "list.csv"]
    (line,) = pasted(run(*command, code=2))
    assert line == "columns={image: img}"
    run(*command, line, "out=predictions.parquet")
    table = pq.read_table("predictions.parquet")
    assert table["id"].to_pylist() == ["photos/00.img.png", "photos\\01.img.png"]
    assert table["error"].null_count == 2


_ONE_AFTER_THE_OTHER = """
import sys
from guardtrain.cli import main
command = []
for word in sys.argv[1:]:
    if word != ";":
        command.append(word)
        continue
    print(end="\\x1e", flush=True)
    if code := main(command):
        sys.exit(code)
    sys.stdout.flush()
    command = []
"""


@pytest.mark.apart
def test_names_that_are_no_utf8_in_a_locale_that_is_not_utf8(
    guard_folder: Path, files: list[bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "set" / "unsafe"
    folder.mkdir(parents=True)
    for name, content in ((b"caf\xe9.png", files[0]), ("é.png".encode(), files[3]), (b"\xff broken.png", b"")):
        (folder / os.fsdecode(name)).write_bytes(content)
    names = ["caf\\xe9.png", "é.png", "\\xff broken.png"]
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}

    def said(*commands: Sequence[str | bytes], **environment: str) -> list[str]:
        """What commands print, one after the other in a process that starts in this environment."""
        words = [word for command in commands for word in (*command, ";")]
        done = subprocess.run(
            [sys.executable, "-c", _ONE_AFTER_THE_OTHER, *words],
            cwd=tmp_path,
            env=plain | environment,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode().split("\x1e")[1:]

    table = tmp_path / "set" / "list.csv"
    table.write_text("image\n" + "".join(f"unsafe/{name}\n" for name in names), encoding="utf-8")
    judge = ("predict", f"guard={guard_folder}", "out=-")
    embed = ("embed", "source=image_folder", "source.root=set", "encoder=demo", "out=store")
    # what one locale wrote another goes on with, and a table lists them by these names
    said(embed, PYTHONUTF8="1")
    folder_said, two_said, table_said, again = said(
        (*judge, "set/unsafe"), (*judge, b"set/unsafe/caf\xe9.png", "set/unsafe/é.png"), (*judge, "set/list.csv"), embed
    )
    rows = [json.loads(line) for line in folder_said.splitlines()]
    assert [row["id"] for row in rows] == [f"set/unsafe/{name}" for name in names]
    assert [row["error"] for row in rows] == [None, None, "the file is empty"]
    assert [json.loads(line)["id"] for line in two_said.splitlines()] == [row["id"] for row in rows[:2]]
    assert again
    store = EmbeddingStore.open(tmp_path / "store")
    assert store.metadata()["id"].to_pylist() == [f"unsafe/{name}" for name in names[:2]]
    assert [(each.id, each.uri, each.reason) for each in store.set_aside()] == [
        (f"unsafe/{names[2]}", f"set/unsafe/{names[2]}", "the file is empty")
    ]
    listed = [json.loads(line) for line in table_said.splitlines()]
    assert [row["probability"] for row in listed] == [row["probability"] for row in rows]


def test_stdout_holds_rows_and_nothing_else(
    run, guard_folder: Path, photos: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from guardtrain.cli import main

    assert main(["predict", f"guard={guard_folder}", "photos", "out=-"]) == 0
    captured = capsys.readouterr()
    assert [json.loads(line)["id"] for line in captured.out.splitlines()] == photos
    assert "unreadable  2" in captured.err


def test_what_was_cut_off_goes_on(run, guard_folder: Path, photos: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["predict", f"guard={guard_folder}", "photos", "part_size=4", "out=predictions.parquet"]
    run(*command[:-1], "out=whole.parquet")
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
        (["photos", "out=p.txt"], "ends in .parquet, .csv, .jsonl, .ndjson, or is -"),
        (["photos", "point=lax"], "no operating point 'lax'; this guard has: strict"),
        (["photos", "prior=2"], "prior is the share of unsafe images where the guard works, between 0 and 1"),
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
