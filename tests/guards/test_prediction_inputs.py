from __future__ import annotations

import os
from pathlib import Path

import pytest

from guardtrain.errors import DataError
from guardtrain.guards.prediction_inputs import InputImage, content_key, input_images
from guardtrain.sources.unclear import Unclear
from tests.sources.tiny import hub_image, png, write_hub_parquet


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("p/b.JPG", "p/a.png", "p/sub/c.webp", "p/.hidden.png", "p/.git/d.png", "p/notes.txt", "one.jpeg"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    return tmp_path


def ids(*inputs: str) -> list[str]:
    return [image.id for image in input_images(inputs)]


def test_folders_files_globs_and_braces(folder: Path) -> None:
    assert ids("p") == ["p/a.png", "p/b.JPG", "p/sub/c.webp"]
    assert ids("one.jpeg", "p/sub") == ["one.jpeg", "p/sub/c.webp"]
    assert ids("p/*.png") == ["p/.hidden.png", "p/a.png"]
    assert ids("p/**/*.webp") == ["p/sub/c.webp"]
    assert ids("p/{a.png,b.JPG}") == ["p/a.png", "p/b.JPG"]
    assert ids(f"{folder}/p/a.png") == [f"{folder}/p/a.png"]
    assert ids("p/notes.txt") == ["p/notes.txt"]  # named, so it is tried
    assert all(Path(str(image.uri)).is_file() for image in input_images(["p", "p/*.png", "one.jpeg"]))


def test_tables_name_images_relative_to_themselves(folder: Path) -> None:
    (folder / "p" / "list.csv").write_text("image,id,label\na.png,first,1\n/x/y.png,0002,0\n,third,0\n")
    found = list(input_images(["p/list.csv"]))
    assert found == [InputImage("first", "p/a.png"), InputImage("0002", "/x/y.png"), InputImage("third", None)]
    (folder / "bare.csv").write_text("image\np/a.png\n")
    assert list(input_images(["bare.csv"])) == [InputImage("p/a.png", "./p/a.png")]


def test_tables_whose_columns_are_called_otherwise(folder: Path) -> None:
    (folder / "p" / "list.csv").write_text("name;img;label\n0007;a.png;1\n;sub\\c.webp;0\n;;\n")
    with pytest.raises(
        Unclear, match=r"has no image column 'image'. Did you mean 'img'\? It has: name, img, label"
    ) as caught:
        ids("p/list.csv")
    ((_, ((setting, columns),)),) = caught.value.steps
    assert (setting, columns) == ("columns", {"image": "img"})
    found = list(input_images(["p/list.csv"], columns={**columns, "id": "name"}))
    assert found == [InputImage("0007", "p/a.png"), InputImage("row 1", "p/sub/c.webp")]
    with pytest.raises(DataError, match=r"no column 'imge' \(wanted for image\). Did you mean 'img'"):
        list(input_images(["p/list.csv"], columns={"image": "imge"}))
    (folder / "list.json").write_text('[{"image": "p/a.png", "id": 1}]')
    assert list(input_images(["list.json"])) == [InputImage("1", "./p/a.png")]


def test_tables_that_hold_the_images_themselves(folder: Path) -> None:
    cells = {"picture": [hub_image(1, "one.png"), hub_image(2), {"bytes": None, "path": None}], "n": [7, 8, 9]}
    write_hub_parquet(folder / "t.parquet", cells)
    images = list(input_images(["t.parquet"]))
    assert [image.id for image in images] == ["one.png", "t/000001", "t/000002"]
    assert [image.read() for image in images[:2]] == [png(1), png(2)]
    with pytest.raises(OSError, match="names no image"):
        images[2].read()
    assert [image.id for image in input_images(["t.parquet"], columns={"id": "n"})] == ["7", "8", "9"]
    before = content_key(images)
    stat = (folder / "t.parquet").stat()
    os.utime("t.parquet", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert content_key(list(input_images(["t.parquet"]))) != before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere", "no images at nowhere"),
        ("p/*.gif", "no images at"),
        ("empty", "no images in empty"),
        ("no.csv", "no table"),
        ("bad.csv", "no image column 'image'. It has: path"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, given: str, said: str) -> None:
    (folder / "empty").mkdir()
    (folder / "bad.csv").write_text("path\na.png\n")
    with pytest.raises(DataError, match=said):
        list(input_images([given]))


def test_the_key_changes_with_the_files(folder: Path) -> None:
    images = list(input_images(["p"]))
    before = content_key(images)
    assert content_key(images) == before
    assert content_key(images[:2]) != before
    file = folder / "p" / "a.png"
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert content_key(images) != before
    file.unlink()
    assert content_key(images) != before
