"""Folders gone through once: against a search of our own over folders and links that Hypothesis draws."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from guardtrain.files import note_drawn
from guardtrain.sources.endings import Wanted
from guardtrain.sources.walk import Walk

_FOLDERS = ["root", "root/a", "root/a/b", "root/c", "root/.h", "out", "out/d", "out/d/e"]
_file = st.tuples(st.sampled_from(_FOLDERS), st.sampled_from(["1.png", "2.JPG", "3.txt", "4", ".5.png"]))
_link = st.tuples(
    st.sampled_from(_FOLDERS),
    st.sampled_from(["l1", "l2.png", "l3.txt"]),
    st.sampled_from([*_FOLDERS, "root/1.png", "root/a/2.JPG", "out/d/1.png", "out/3.txt", "nowhere", "."]),
)


def build(folder: Path, files: list[tuple[str, str]], links: list[tuple[str, str, str]]) -> Path:
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for where, name in files:
        (folder / where / name).write_bytes(b"GIF89a no image, but its header" if name == "4" else b"")
    for where, name, to in links:
        if not os.path.lexists(folder / where / name):
            (folder / where / name).symlink_to(folder / to)
    return folder / "root"


def reachable(root: Path, wanted: Wanted) -> tuple[set[str], int]:
    """The real files below `root` and behind its links that are wanted by a name, and how many names there are."""
    folders, todo, files, names = set(), [os.path.realpath(root)], set(), 0
    while todo:
        folder = todo.pop()
        if folder in folders:
            continue
        folders.add(folder)
        for entry in os.scandir(folder):
            real = os.path.realpath(entry.path)
            if entry.name.startswith("."):
                continue
            if not Path(real).is_dir():
                names += 1
                files |= {real} if wanted(entry.path) and Path(real).exists() else set()
            elif not (entry.is_symlink() and f"{folder}/".startswith(f"{real}/")):  # else it leads to what is around it
                todo.append(real)
    return files, names


@given(st.lists(_file, max_size=12), st.lists(_link, max_size=8), st.randoms())
@settings(max_examples=150)
def test_every_file_is_accounted_for_and_none_twice(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[tuple[str, str]],
    links: list[tuple[str, str, str]],
    shuffle: random.Random,
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    root = build(folder, files, links)
    wanted = Wanted((".png", ".jpg"))
    walk = Walk(wanted)
    taken = list(walk.files([str(root)]))
    there = [path for path in taken if Path(path).exists()]  # links to nothing are for the reader to tell
    real = [os.path.realpath(path) for path in there]
    assert len(set(real)) == len(real)
    expected, names = reachable(root, wanted)
    assert set(real) == expected
    passed_links = sum(not Path(path).is_dir() for path, _ in walk.links)
    assert len(taken) + passed_links + walk.passed.total() == names
    assert not any("/." in os.path.relpath(path, folder) for path in taken)
    # the same, made in another order
    again = tmp_path_factory.mktemp("tree")
    shuffle.shuffle(files)
    build(again, files, links)
    second = Walk(wanted)
    moved = [path.replace(str(again), str(folder)) for path in second.files([str(again / "root")])]
    assert moved == taken
    assert second.passed == walk.passed
    assert len(second.links) == len(walk.links)


def test_a_real_path_comes_before_a_link(tmp_path: Path) -> None:
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "1.png").write_bytes(b"")
    (tmp_path / "a").symlink_to("z")
    (tmp_path / "0.png").symlink_to("z/1.png")
    (tmp_path / "self.png").symlink_to("self.png")
    walk = Walk()
    assert list(walk.files([str(tmp_path)])) == [f"{tmp_path}/z/1.png", f"{tmp_path}/self.png"]
    assert walk.links == [(f"{tmp_path}/a", f"{tmp_path}/z"), (f"{tmp_path}/0.png", f"{tmp_path}/z/1.png")]
    # a link that is asked for is followed, and is not a folder twice
    assert list(Walk().files([f"{tmp_path}/a", f"{tmp_path}/z"])) == [f"{tmp_path}/z/1.png"]
    assert list(Walk().files([f"{tmp_path}/a"])) == [f"{tmp_path}/a/1.png"]


def test_what_is_passed_over_is_said_by_its_kind(tmp_path: Path) -> None:
    for name in (
        "a.txt",
        "b.TXT",
        "c.tga",
        "README",
        "2024-05-01 22.05",
        ".d.png",
        ".e.txt",
        "f.png",
        "mine/sheet.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("Python is no portable pixmap")
    image = Image.new("RGB", (3, 3))
    image.save(tmp_path / "0123456789abcdef", "WEBP")
    image.save(tmp_path / "shot 10.30", "JPEG")
    image.save(tmp_path / "mine" / "photo.png")
    note_drawn([tmp_path / "mine" / "sheet.png", tmp_path / "mine" / "sheet.svg"])
    note_drawn([tmp_path / "mine" / "sheet.png"])
    walk = Walk()
    names = [os.path.relpath(path, tmp_path) for path in walk.files([str(tmp_path)])]
    assert names == ["0123456789abcdef", "f.png", "shot 10.30", "mine/photo.png"]
    assert walk.lines() == [
        "passed over: 2 .txt, 2 without an ending, 1 .tga, "
        f"1 drawn by guardtrain ({tmp_path}/mine/sheet.png), 1 hidden ({tmp_path}/.d.png)"
    ]


def test_many_kinds_and_links_stay_one_line_each(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"a.e{number:02d}").write_text("")
        (tmp_path / f"l{number:02d}").symlink_to(".")
    walk = Walk()
    assert list(walk.files([str(tmp_path)])) == []
    kinds = ", ".join(f"1 .e{number:02d}" for number in range(8))
    links = ", ".join(f"{tmp_path}/l{number:02d} (is {tmp_path})" for number in range(3))
    assert walk.lines() == [
        f"passed over: {kinds}, 4 of 4 other endings",
        f"passed over: 12 taken already by another path: {links} and 9 more",
    ]


def test_a_pipe_without_an_ending_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert list(Walk().files([str(tmp_path)])) == []
