"""Image folders: the layout, and what is said where the folder has another."""

from __future__ import annotations

import os
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
    assert str(records.taken) == "unsafe: unsafe/ (2), safe: safe/ (1)"
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
    (tmp_path / "safe" / "a.xcf").write_text("")
    message = refused(tmp_path)
    assert "no images under" in message
    assert ".jpe .jpeg .jpf .jpg" in message


def test_a_folder_counts_once_whatever_links_lead_back_to_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("unsafe/a.png", "unsafe/fire/b.png", "safe/c.png", "cover.png"):
        put(tmp_path / name)
    for link, to in (("unsafe/latest", "."), ("unsafe/up", ".."), ("safe/deep", "."), ("all", ".")):
        (tmp_path / link).symlink_to(to)
    (tmp_path / "safe" / "notes.txt").write_text("")
    records = ImageFolderSource(str(tmp_path)).records()
    assert records.ids.tolist() == ["safe/c.png", "unsafe/a.png", "unsafe/fire/b.png"]
    said = [message.removeprefix(f"{tmp_path}: ") for message in caplog.messages]
    assert said == [
        "passed over: 1 .txt",
        f"passed over: 3 taken already by another path: {tmp_path}/safe/deep (is {tmp_path}/safe), "
        f"{tmp_path}/unsafe/latest (is {tmp_path}/unsafe), {tmp_path}/unsafe/up (is {tmp_path})",
        "passed over: 1 in no folder, neither safe nor unsafe: cover.png",
    ]


@pytest.mark.parametrize("link", ["safe/more", "safe/a.png"])
def test_a_link_that_would_give_an_image_two_labels_is_refused(tmp_path: Path, link: str) -> None:
    put(tmp_path / "unsafe" / "fire" / "a.png")
    put(tmp_path / "safe" / "c.png")
    (tmp_path / link).symlink_to(tmp_path / "unsafe" / ("fire/a.png" if link.endswith(".png") else "fire"))
    message = refused(tmp_path)
    assert f"{tmp_path}/{link} is a link to {tmp_path}/unsafe/fire" in message
    assert "the same images would be safe and unsafe" in message
    (tmp_path / link).unlink()
    (tmp_path / "Safe").symlink_to("unsafe")
    assert "would be safe and unsafe" in refused(tmp_path)


def test_names_that_are_no_utf8_are_ids_like_others(tmp_path: Path) -> None:
    put(tmp_path / "safe" / "a.png")
    fire = tmp_path / "unsafe" / os.fsdecode(b"feu \xe9")
    for name, content in ((b"\xe8.png", 90), (b"broken.png", None)):
        put(fire / "b.png", content or 0)
        (fire / "b.png").rename(fire / os.fsdecode(name))
    source = ImageFolderSource(str(tmp_path))
    records = source.records()
    assert records.ids.tolist() == ["safe/a.png", "unsafe/feu \\xe9/\\xe8.png", "unsafe/feu \\xe9/broken.png"]
    assert records.categories.tolist() == [None, "feu \\xe9", "feu \\xe9"]
    assert [source.image(i).getpixel((0, 0))[0] for i in range(3)] == [0, 90, 0]
    key = source.content_key()
    os.utime(fire / os.fsdecode(b"\xe8.png"), ns=(1, 1))
    assert ImageFolderSource(str(tmp_path)).content_key() != key
