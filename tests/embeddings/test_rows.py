"""Rows that lie in files: whatever they are indexed with, they are what one array of them all would give."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardtrain.embeddings.rows import MatrixFile, StoredRows
from guardtrain.errors import StoreError

FILES = [3, 1, 0, 5]
N, DIM = sum(FILES), 4
WHOLE = np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float16)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> StoredRows:
    folder = tmp_path_factory.mktemp("rows")
    parts = np.split(WHOLE, np.cumsum(FILES)[:-1])
    for i, part in enumerate(parts):
        # as others may write them, too: columns first
        np.save(folder / f"{i}.npy", np.asfortranarray(part) if i == 3 else part)
    return StoredRows([MatrixFile(folder / f"{i}.npy", n) for i, n in enumerate(FILES)], DIM, np.float16)


def slices() -> st.SearchStrategy[slice]:
    return st.slices(N)


@given(
    chosen=st.lists(st.integers(-N, N - 1), max_size=30),
    mask=st.lists(st.booleans(), min_size=N, max_size=N),
    cut=slices(),
    taken=st.lists(st.integers(-N, N - 1), max_size=30),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_indexing_is_numpys(
    rows: StoredRows, chosen: list[int], mask: list[bool], cut: slice, taken: list[int]
) -> None:
    index = np.array(chosen, dtype=np.int64)
    np.testing.assert_array_equal(rows[index], WHOLE[index])
    np.testing.assert_array_equal(rows[np.array(mask)], WHOLE[np.array(mask)])
    np.testing.assert_array_equal(rows[cut], WHOLE[cut])
    np.testing.assert_array_equal(rows[cut, 1:3], WHOLE[cut, 1:3])
    some = rows.take(np.array(taken, dtype=np.int64))
    expected = WHOLE[np.array(taken, dtype=np.int64)]
    assert some.shape == expected.shape
    np.testing.assert_array_equal(some, expected)
    if taken:
        again = np.array(chosen, dtype=np.int64) % len(taken)
        np.testing.assert_array_equal(some.take(again)[:], expected[again])
        np.testing.assert_array_equal(some[-1, 2], expected[-1, 2])
        np.testing.assert_array_equal(np.concatenate(list(some.blocks(3))), expected)


def test_it_stands_where_an_array_would(rows: StoredRows) -> None:
    assert (len(rows), rows.ndim, rows.dtype) == (N, 2, np.float16)
    single = np.asarray(rows, dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, WHOLE.astype(np.float32))
    np.testing.assert_array_equal(np.concatenate([rows, rows]), np.concatenate([WHOLE, WHOLE]))
    assert (rows == WHOLE).all()
    assert (rows == rows.take(np.arange(N))).all()
    np.testing.assert_array_equal(rows @ np.ones(DIM, np.float16), WHOLE @ np.ones(DIM, np.float16))
    np.testing.assert_array_equal(np.stack(list(rows)), WHOLE)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(rows)), WHOLE)
    with pytest.raises(ValueError, match="without being copied"):
        np.array(rows, copy=False)


@pytest.mark.parametrize("key", [N, -N - 1, [0, N], np.ones(N + 1, dtype=bool), [[0]], [0.5], "a"])
def test_what_is_no_row_is_refused(rows: StoredRows, key: object) -> None:
    with pytest.raises(IndexError):
        rows[key]


def test_what_is_given_can_be_written_to_and_the_files_stay(rows: StoredRows) -> None:
    for got in (rows[0], rows[:2], rows[[0, 1]], np.asarray(rows)):
        got[...] = 7
    np.testing.assert_array_equal(rows, WHOLE)


def test_large_files_are_read_in_parts(rows: StoredRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardtrain.embeddings.rows._BLOCK_BYTES", 4 * DIM * 2)
    monkeypatch.setattr("guardtrain.embeddings.rows._SCATTERED_ROWS", 1)
    order = np.random.default_rng(1).permutation(N)
    np.testing.assert_array_equal(rows[order], WHOLE[order])
    np.testing.assert_array_equal(rows[:], WHOLE)
    np.testing.assert_array_equal(rows[[0, 8]], WHOLE[[0, 8]])


def test_a_row_that_is_not_finite_is_named_where_it_is_used(tmp_path: Path) -> None:
    matrix = np.ones((4, 2))
    matrix[2, 1] = np.nan
    matrix[3, 0] = 1e300  # more than a float32 holds
    np.save(tmp_path / "a.npy", matrix)
    rows = StoredRows([MatrixFile(tmp_path / "a.npy", 4)], 2, np.float32)
    assert rows[:2].tolist() == [[1, 1], [1, 1]]
    with pytest.raises(StoreError, match=r"a\.npy holds values that are not finite, first in row 2"):
        rows[[1, 2, 0]]
    with pytest.raises(StoreError, match="first in row 3"):
        rows[3]


def test_a_file_that_changed_meanwhile(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 2), np.float32))
    rows = StoredRows([MatrixFile(tmp_path / "a.npy", 4)], 2, np.float32)
    np.save(tmp_path / "a.npy", np.ones((3, 2), np.float32))
    with pytest.raises(StoreError, match="was changed while it was in use"):
        rows[0]
    (tmp_path / "a.npy").unlink()
    with pytest.raises(StoreError, match="is no whole array any more"):
        rows[0]


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_no_file_stays_open(tmp_path: Path) -> None:
    files = []
    for i in range(40):
        np.save(tmp_path / f"{i}.npy", np.full((2, 2), i, np.float32))
        files.append(MatrixFile(tmp_path / f"{i}.npy", 2))
    rows = StoredRows(files, 2, np.float32)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert rows[::2, 0].tolist() == list(range(40))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
