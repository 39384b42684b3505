"""Embedding again after the table was mended: the store says what the table says, at once, and nothing is computed."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from guardtrain.embeddings import EmbeddingStore, StoreSource, embed, journal
from guardtrain.embeddings.build import build_store
from guardtrain.embeddings.extraction import extract
from guardtrain.embeddings.rows import StoredRows
from guardtrain.embeddings.verify import verify_store
from guardtrain.records import Records
from tests.embeddings.fake_encoder import SPEC, EncodedPictures, FakeEncoder, Pictures, expected
from tests.embeddings.test_extraction import contents

N = 11  # in shards of 4, 4 and 3


class Tabled(EncodedPictures):
    """Pictures with a table of one's own; `damaged` cannot be read."""

    def __init__(self, table: dict[str, Any] | None = None, damaged: tuple[int, ...] = ()) -> None:
        super().__init__(N, damaged=dict.fromkeys(damaged, b""))
        self.table = {"label": [i % 2 for i in range(N)]} | (table or {})

    def records(self) -> Records:
        ids, images = [f"r{i}" for i in range(N)], [f"/p/{i}.png" for i in range(N)]
        return Records.from_columns(id=ids, image=images, **self.table)


FIRST = {
    "category": ["fire"] * N,
    "pair_id": [f"p{i // 2}" if i < 8 else None for i in range(N)],
    "split": ["train"] * N,
    "caption": [f"c{i}" for i in range(N)],
}
MENDED = {
    "label": [1 - i % 2 for i in range(N)],
    "category": ["fire"] * 5 + [None] * 6,
    "pair_id": [f"q{i // 2}" if i >= 2 else None for i in range(10)] + [None],
    "split": ["train"] * 10 + ["val"],
    "group": [f"q{i // 2}" for i in range(10)] + ["g"],
    "edited": [i < 3 for i in range(N)],
    "source": ["web"] * N,
    "width": list(range(N)),  # new; `caption` is gone
}


def made(folder: Path, source: Pictures, *, load: bool = True, **options: Any) -> EmbeddingStore:
    def encoder(_: Any) -> FakeEncoder:
        assert load, "nothing was left to be embedded"
        return FakeEncoder()

    return extract(source, SPEC, folder, shard_size=4, progress=False, load=encoder, **options)


def test_every_column_is_the_tables_of_today(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "a"
    made(folder, Tabled(FIRST))
    before = contents(folder)
    key = StoreSource(str(folder)).content_key()
    mapped = EmbeddingStore.open(folder).matrix()
    rows = np.asarray(mapped).copy()
    assert isinstance(mapped, StoredRows)
    made(folder, Tabled(MENDED), load=False)
    after = contents(folder)
    assert after == contents_of_a_new_one(tmp_path / "b", Tabled(MENDED))  # to the last byte, sums and all
    assert {name for name in after if after[name] != before[name]} == {
        f"{part}_000{i}.{end}"
        for i in range(3)
        for part, end in (("metadata/metadata", "parquet"), ("checksums/checksums", "sha256"))
    }
    np.testing.assert_array_equal(mapped, rows)  # what was open stays valid
    assert StoreSource(str(folder)).content_key() == key  # and what was computed of the embeddings
    assert StoreSource(str(folder)).records().labels.tolist() == MENDED["label"]
    said = caplog.text
    assert "renewed, nothing embedded anew: label of 11 rows (such as r0: 0, now 1)" in said
    assert "category of 6 rows (such as r5: 'fire', now empty)" in said
    assert "edited of 3 rows (such as r0: False, now True)" in said
    assert "width of 11 rows (such as r0: empty, now 0)" in said
    assert "caption of 11 rows (such as r0: 'c0', now empty)" in said
    caplog.clear()
    made(folder, Tabled(MENDED), load=False)
    assert contents(folder) == after
    assert "renewed" not in caplog.text


def contents_of_a_new_one(folder: Path, source: Pictures) -> dict[str, bytes]:
    made(folder, source)
    return contents(folder)


def test_only_shards_that_change_are_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made(tmp_path, Tabled())
    before = contents(tmp_path)
    labels = [i % 2 for i in range(N)]
    labels[5] = 0
    made(tmp_path, Tabled({"label": labels}), load=False)
    after = contents(tmp_path)
    changed = [name for name in after if after[name] != before[name]]
    assert sorted(changed) == ["checksums/checksums_0001.sha256", "metadata/metadata_0001.parquet"]
    assert "label of 1 row (such as r5: 1, now 0)" in caplog.text


def test_of_what_is_set_aside_the_pair_is_todays(tmp_path: Path) -> None:
    """r5 cannot be read. First it is the half of r4, then, mended, that of r0: whose pair is broken changes with it."""
    first = {"pair_id": [None] * 4 + ["p", "p"] + [None] * 5}
    mended = {"pair_id": ["p"] + [None] * 4 + ["p"] + [None] * 5}
    usable = [f"r{i}" for i in range(N) if i not in (0, 5)]
    made(tmp_path / "a", Tabled(first, damaged=(5,)))
    assert "r4" not in StoreSource(str(tmp_path / "a")).records().ids
    made(tmp_path / "a", Tabled(mended, damaged=(5,)), load=False)
    assert StoreSource(str(tmp_path / "a")).records().ids.tolist() == usable
    assert EmbeddingStore.open(tmp_path / "a").read().records.ids.tolist() == usable
    assert pq.read_table(tmp_path / "a" / "quarantine.parquet")["pair_id"].to_pylist() == ["p"]
    assert contents(tmp_path / "a") == contents_of_a_new_one(tmp_path / "b", Tabled(mended, damaged=(5,)))


def test_the_cache_gives_the_labels_and_pairs_of_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "__kwdefaults__", extract.__kwdefaults__ | {"load": lambda _: FakeEncoder()})
    embed(Tabled({"pair_id": [None] * 4 + ["p", "p"] + [None] * 5}, damaged=(5,)), SPEC, tmp_path, progress=False)
    today = Tabled({"label": MENDED["label"], "pair_id": ["p"] + [None] * 4 + ["p"] + [None] * 5, "x": ["y"] * N}, (5,))
    found = embed(today, SPEC, tmp_path, progress=False)
    kept = [i for i in range(N) if i not in (0, 5)]
    assert found.records.table.equals(today.records().take(kept).table)
    np.testing.assert_allclose(found.matrix, expected(N)[kept], atol=1e-6)


def state(folder: Path) -> list[int]:
    """The labels that a reader finds; the store must be whole."""
    store = EmbeddingStore.open(folder)
    found = verify_store(folder)
    assert found.ok, [check.problems for check in found.shards]
    labels: list[int] = store.read().records.labels.tolist()
    assert StoreSource(str(folder)).records().labels.tolist() == labels
    return labels


@pytest.mark.parametrize("step", ["replace", "unlink"])
def test_a_crash_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    old, new = Tabled(FIRST).table["label"], MENDED["label"]
    original = getattr(Path, step)
    seen = []
    for number in range(1, 40):
        folder = tmp_path / f"s{number}"
        made(folder, Tabled(FIRST))
        count = 0

        def crash(self: Path, *arguments: Any, at: int = number, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count >= at:  # nothing is done any more, in no `finally` either
                raise SystemExit
            return original(self, *arguments, **options)

        monkeypatch.setattr(Path, step, crash)
        try:
            made(folder, Tabled(MENDED), load=False)
            ended = True
        except SystemExit:
            ended = False
        monkeypatch.setattr(Path, step, original)
        assert state(folder) in (old, new)
        seen.append(state(folder) == new)
        other = build_store(tmp_path / f"t{number}", [EmbeddingStore.open(folder)], np.arange(N), "test")
        assert other.read().records.labels.tolist() == state(folder)  # a copy of what counts, with its sums
        assert verify_store(other.path).ok
        made(folder, Tabled(MENDED), load=False)
        assert state(folder) == new
        assert not (folder / journal.FOLDER).exists()
        if ended:
            break
    assert ended
    assert seen == sorted(seen)  # once it is new it is never old again
    assert step == "unlink" or not all(seen)


def test_killed_for_real_it_is_finished_by_the_next(tmp_path: Path) -> None:
    made(tmp_path, Tabled(FIRST))
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from guardtrain.embeddings import journal\n"
        "from tests.embeddings.test_renewal import MENDED, Tabled, made\n"
        "journal.finish = lambda folder: os.kill(os.getpid(), signal.SIGKILL) if journal.unfinished(folder) else None\n"
        "made(Path(sys.argv[1]), Tabled(MENDED))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[2], env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / journal.FOLDER).is_dir()
    assert any("not in place yet" in note for note in verify_store(tmp_path).notes)
    assert state(tmp_path) == MENDED["label"]
    made(tmp_path, Tabled(MENDED), load=False)
    assert not (tmp_path / journal.FOLDER).exists()
    assert pq.read_table(tmp_path / "metadata" / "metadata_0000.parquet")["label"].to_pylist() == MENDED["label"][:4]
