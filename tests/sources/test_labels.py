"""What labels mean: however they are written and wherever they stand, they are right or refused, never inverted."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.sources.labels import LabelsUnclear
from tests.sources.encodings import ENCODINGS, READERS, Encoding, Read, can_hold, saved_to_disk

TRUTHS = st.lists(st.integers(0, 1), min_size=3, max_size=7).filter(lambda truth: 0 < sum(truth[:-1]) < len(truth) - 1)
PAIRS = [(reader, encoding) for reader in READERS for encoding in ENCODINGS if can_hold(reader, encoding)]


def told(read: Read, encoding: Encoding, truth: Sequence[int]) -> None:
    """Check that labels are the truth where they are clear; else refused, with a setting that makes them so."""
    wanted = list(truth[:-1]) if encoding.empty else list(truth)
    try:
        found = read().labels.tolist()
    except LabelsUnclear as error:
        assert not encoding.clear
        if isinstance(encoding.cells[0], list):
            return  # no cells that can be mapped
        if encoding.empty and not any(name == "where" for _, lines in error.steps for name, _ in lines):
            return  # read by what chooses no rows
        ways: list[dict[str, Mapping[str, Any]]] = [{}]
        for _, lines in error.steps:
            ways = [{**way, name: value} for way in ways for name, value in lines]
        answers = [read(**way).labels.tolist() for way in ways if not encoding.empty or "where" in way]
        assert wanted in answers
        return
    assert encoding.clear
    assert found == wanted


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(PAIRS), TRUTHS)
def test_labels_are_right_or_refused_whatever_their_encoding(pair: tuple[str, Encoding], truth: list[int]) -> None:
    reader, encoding = pair
    with tempfile.TemporaryDirectory() as folder:
        told(READERS[reader](Path(folder), encoding, truth), encoding, truth)


@pytest.mark.parametrize("reader", READERS)
def test_every_encoding_once(reader: str, tmp_path: Path) -> None:
    truth = [0, 1, 1, 0, 1]
    for number, encoding in enumerate(ENCODINGS):
        if can_hold(reader, encoding):
            (folder := tmp_path / str(number)).mkdir()
            told(READERS[reader](folder, encoding, truth), encoding, truth)


@pytest.mark.parametrize("encoding", [one for one in ENCODINGS if one.classes], ids=lambda one: one.name)
def test_what_datasets_itself_saved(encoding: Encoding, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    told(saved_to_disk(tmp_path, encoding, [0, 1, 1, 0]), encoding, [0, 1, 1, 0])
