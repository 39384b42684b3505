"""What stands where an image should and is none: not waited for, not read without end, and no mistake of the table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guardtrain.errors import DataError
from guardtrain.records import Records
from guardtrain.sources import images
from guardtrain.sources.images import files_key, read_encoded


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "zero.jpg"):
        with pytest.raises(OSError, match="not a file but a pipe or a device"):
            read_encoded(str(tmp_path / name))
    with pytest.raises(IsADirectoryError):
        read_encoded(str(tmp_path))


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)  # of which nothing is on the disk
    with pytest.raises(OSError, match=r"too large for an image \(0\.7 GB"):
        read_encoded(str(tmp_path / "a.jpg"))


def test_a_link_to_nothing_is_a_damaged_file_and_not_a_wrong_folder(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "there.jpg").write_bytes(b"1")
    names = ["gone.jpg", "loop.jpg", "there.jpg"]

    def key(*names: str) -> str:
        records = Records.from_columns(root=tmp_path, id=names, image=names, label=[0] * len(names))
        return files_key(records, "the table")

    before = key(*names)
    assert key(*names) == before
    (tmp_path / "nothing.jpg").write_bytes(b"2")
    assert key(*names) != before  # it can be read now
    with pytest.raises(DataError, match=r"1 of 2 images of the table do not exist, the first: .*never\.jpg"):
        key("there.jpg", "never.jpg")
