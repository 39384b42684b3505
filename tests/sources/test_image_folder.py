"""Image folders: the layout, and what is said where the folder has another."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from guardtrain.errors import DataError
from guardtrain.sources import EncodedImageSource, ImageFolderSource


def put(file: Path, colour: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2), (colour, 0, 0)).save(file)


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        ImageFolderSource(str(root)).records()
    return str(caught.value)


def test_labels_categories_and_ids_come_from_the_path(tmp_path: Path) -> None:
    put(tmp_path / "unsafe" / "fire" / "deep" / "b.JPG")
    put(tmp_path / "unsafe" / "a.png")
    put(tmp_path / "safe" / "lamp" / "c.webp", 200)
    put(tmp_path / "safe" / ".hidden" / "d.png")
    (tmp_path / "safe" / "notes.txt").write_text("no image")
    source = ImageFolderSource(str(tmp_path), source="mine")
    records = source.records()
    assert records.ids.tolist() == ["safe/lamp/c.webp", "unsafe/a.png", "unsafe/fire/deep/b.JPG"]
    assert records.labels.tolist() == [0, 1, 1]
    assert records.categories.tolist() == ["lamp", None, "fire"]
    assert set(records.sources) == {"mine"}
    assert isinstance(source, EncodedImageSource)
    assert [source.encoded(i) for i in range(3)] == [(tmp_path / name).read_bytes() for name in records.ids]
    assert source.image(0).getpixel((0, 0))[0] > 150
    assert source.content_key() == ImageFolderSource(str(tmp_path)).content_key()


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "safe").symlink_to(tmp_path / "elsewhere")
    assert ImageFolderSource(str(tmp_path / "root")).records().ids.tolist() == ["safe/a.png"]


def test_errors_name_what_was_found(tmp_path: Path) -> None:
    assert f"no image folder at {tmp_path}/none" in refused(tmp_path / "none")
    put(tmp_path / "train" / "safe" / "a.png")
    (tmp_path / "README").write_text("")
    assert "must hold the folders safe and unsafe; it holds: README, train/" in refused(tmp_path)
    (tmp_path / "safe").mkdir()
    (tmp_path / "unsafe").mkdir()
    assert "images outside safe and unsafe, in train" in refused(tmp_path)


def test_empty_folders_are_refused_with_the_endings(tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir()
    (tmp_path / "safe" / "a.heic").write_text("")
    message = refused(tmp_path)
    assert "no images under" in message
    assert ".jpeg .jpg" in message
