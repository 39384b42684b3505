"""File names as text: the file is found again, whatever bytes its name has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardtrain.file_names import open_on_disk, path_on_disk, path_text

# of one file at a time: two names of which one is the other escaped are told apart below
_names = st.binary(min_size=1, max_size=20).filter(
    lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")
)


@given(_names)
def test_every_name_is_text_and_leads_back_to_its_file(tmp_path_factory: pytest.TempPathFactory, name: bytes) -> None:
    folder = tmp_path_factory.mktemp("names")
    path = folder / os.fsdecode(name)
    path.write_bytes(name)
    text = path_text(path)
    text.encode()  # what a table, JSON and a terminal do
    assert path_text(text) == text
    with open_on_disk(text) as file:
        assert file.read() == name


def test_a_file_that_is_called_so_to_the_letter_comes_first(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xe9")).write_text("byte")
    assert Path(path_on_disk(f"{tmp_path}/\\xe9")).read_text() == "byte"
    (tmp_path / "\\xe9").write_text("letters")
    assert Path(path_on_disk(f"{tmp_path}/\\xe9")).read_text() == "letters"
    assert path_on_disk(f"{tmp_path}/none\\xe9") == f"{tmp_path}/none\\xe9"
    assert path_on_disk("plain/name.png") == "plain/name.png"
