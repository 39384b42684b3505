"""Verifying: every kind of damage is found and said of the right shard, and what is whole is not doubted."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guardtrain.embeddings import EmbeddingStore
from guardtrain.embeddings.build import build_store
from guardtrain.embeddings.checksums import read_checksums
from guardtrain.embeddings.verify import remove_damaged, verify_store
from guardtrain.errors import StoreError
from guardtrain.records import Records
from tests.embeddings.fake_encoder import SPEC
from tests.embeddings.test_build import store_of
from tests.embeddings.test_store import clip_retrieval_store, noise, records_of, write

SHARD_1 = "img_emb/img_emb_0001.npy", "metadata/metadata_0001.parquet"


def flip_a_bit(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def with_value(file: Path, value: float) -> None:
    matrix = np.load(file)
    matrix[1, 2] = value
    np.save(file, matrix)


def without_sums(folder: Path) -> None:
    shutil.rmtree(folder / "checksums")


def shorter(file: Path) -> None:
    pq.write_table(pq.read_table(file).slice(1), file)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "matrix lost": (lambda s: (s / SHARD_1[0]).unlink(), "img_emb/img_emb_0001.npy is missing"),
    "metadata lost": (lambda s: (s / SHARD_1[1]).unlink(), "metadata/metadata_0001.parquet is missing"),
    "matrix cut": (
        lambda s: (s / SHARD_1[0]).write_bytes((s / SHARD_1[0]).read_bytes()[:-4]),
        "img_emb/img_emb_0001.npy is no whole array",
    ),
    "matrix empty": (lambda s: (s / SHARD_1[0]).write_bytes(b""), "img_emb/img_emb_0001.npy is no whole array"),
    "metadata cut": (
        lambda s: (s / SHARD_1[1]).write_bytes((s / SHARD_1[1]).read_bytes()[:-9]),
        "metadata/metadata_0001.parquet is no whole Parquet file",
    ),
    "a bit of a value": (lambda s: flip_a_bit(s / SHARD_1[0], -5), "img_emb/img_emb_0001.npy is not what was written"),
    "a bit of the metadata": (lambda s: flip_a_bit(s / SHARD_1[1], 40), "metadata_0001.parquet"),
    "not finite": (lambda s: with_value(s / SHARD_1[0], np.nan), "1 rows are not finite, first row 1"),
    "rows": (lambda s: shorter(s / SHARD_1[1]), "3 embeddings and metadata of 2"),
    "sums": (
        lambda s: (s / "checksums" / "checksums_0001.sha256").write_text("x\n"),
        "checksums/checksums_0001.sha256 is no list of checksums",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_can_be_made_good(tmp_path: Path, damage: str) -> None:
    write(tmp_path, noise(9), 3)
    assert verify_store(tmp_path).ok
    spoil, said = DAMAGE[damage]
    spoil(tmp_path)
    found = verify_store(tmp_path)
    assert [(check.number, len(check.problems)) for check in found.damaged] == [(1, 1)]
    assert said in found.damaged[0].problems[0]
    assert not found.problems
    remove_damaged(found)
    assert not any((tmp_path / name).exists() for name in (*SHARD_1, "checksums/checksums_0001.sha256"))
    with pytest.raises(StoreError, match="2 of 3 shards are written"):
        EmbeddingStore.open(tmp_path)
    write(tmp_path, noise(9), 3)
    assert verify_store(tmp_path).ok


def test_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    write(tmp_path, noise(5), 3)
    if (command := shutil.which("sha256sum")) is None:
        pytest.skip("no sha256sum here")
    sums = sorted((tmp_path / "checksums").iterdir())
    for file in sums:
        subprocess.run([command, "--check", "--strict", str(file)], cwd=tmp_path, check=True, capture_output=True)
    assert list(read_checksums(sums[1])) == list(SHARD_1)


def test_a_store_without_sums_is_verified_with_a_note(tmp_path: Path) -> None:
    write(tmp_path, noise(9), 3)
    without_sums(tmp_path)
    found = verify_store(tmp_path)
    assert found.ok
    assert found.notes == ("no checksums were noted when it was written, so that contents could not be compared",)


def test_norms_are_asked_for_where_the_encoder_normalises(tmp_path: Path) -> None:
    spec = replace(SPEC, normalize=True)
    matrix = noise(9, 64)
    unit = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    store_of(tmp_path / "unit", records_of(9), unit, spec)
    assert verify_store(tmp_path / "unit").ok
    unit[5] *= 1.02
    store_of(tmp_path / "odd", records_of(9), unit, spec)
    found = verify_store(tmp_path / "odd")
    assert [(check.number, check.problems) for check in found.damaged] == [
        (1, ("1 rows are not of unit norm, first row 1",))
    ]
    store_of(tmp_path / "free", records_of(9), unit)
    assert verify_store(tmp_path / "free").ok


def test_damage_of_the_whole(tmp_path: Path) -> None:
    write(tmp_path, noise(9), 3)
    without_sums(tmp_path)
    file = tmp_path / "encoder.json"
    kept = file.read_text()
    file.write_text(kept.replace('"normalize": false', '"normalize": true'))
    assert "The encoder spec was edited" in verify_store(tmp_path).problems[0]
    file.write_text(replace(SPEC, model="other", dim=4).to_json())
    assert verify_store(tmp_path).problems == (
        "extraction.json was written for another encoder than encoder.json describes",
        "encoder.json says 4 dimensions, and the embeddings have 3",
    )
    file.write_text(kept)
    np.save(tmp_path / SHARD_1[0], noise(3, 5))
    assert verify_store(tmp_path).problems == ("the shards have different dimensions: 3, 5",)
    np.save(tmp_path / SHARD_1[0], noise(3))
    pq.write_table(pq.read_table(tmp_path / "metadata" / "metadata_0000.parquet"), tmp_path / SHARD_1[1])
    assert verify_store(tmp_path).problems == ("3 ids are there more than once: r0, r1, r2",)
    (tmp_path / "extraction.json").write_text("{")
    assert "is not the plan of an extraction" in verify_store(tmp_path).problems[0]
    with pytest.raises(StoreError, match="no embedding store at"):
        verify_store(tmp_path / "none")


def test_a_shard_of_the_wrong_length_is_no_shard_of_the_plan(tmp_path: Path) -> None:
    write(tmp_path, noise(9), 3)
    plan = json.loads((tmp_path / "extraction.json").read_text())
    (tmp_path / "extraction.json").write_text(json.dumps(plan | {"rows": 8}))
    (check,) = verify_store(tmp_path).damaged
    assert (check.number, check.problems) == (2, ("has 3 rows, which are not those of extraction.json",))


def test_a_store_of_clip_retrieval(tmp_path: Path) -> None:
    clip_retrieval_store(tmp_path, 11)
    found = verify_store(tmp_path)
    assert found.ok
    assert len(found.shards) == 11
    assert "which encoder made it is not known" in found.notes[0]
    (tmp_path / "img_emb" / "img_emb_03.npy").unlink()
    found = verify_store(tmp_path)
    assert found.damaged[0].problems == ("img_emb/img_emb_03.npy is missing",)
    with pytest.raises(StoreError, match="cannot make its shards again"):
        remove_damaged(found)
    (tmp_path / "metadata" / "metadata_03.parquet").unlink()
    assert [check.number for check in verify_store(tmp_path).damaged] == [3]


def test_a_list_of_shards_is_what_counts(tmp_path: Path) -> None:
    write(tmp_path / "a", noise(12), 3)
    kept = np.arange(12)
    built = build_store(tmp_path / "b", [EmbeddingStore.open(tmp_path / "a")], kept, "test")
    shutil.copy(built.shards[0].matrix, tmp_path / "b" / "img_emb" / "img_emb_0009.npy")
    found = verify_store(tmp_path / "b")
    assert found.ok
    assert found.notes == ("files of shards that are none of it, left by a command that was cut off: 9",)
    assert len(EmbeddingStore.open(tmp_path / "b")) == 12
    for file in (built.shards[3].matrix, built.shards[3].metadata):
        file.unlink()  # the last one, which nothing but the list tells of
    found = verify_store(tmp_path / "b")
    assert [check.number for check in found.damaged] == [3]
    remove_damaged(found)
    assert verify_store(tmp_path / "b").ok
    np.testing.assert_array_equal(EmbeddingStore.open(tmp_path / "b").matrix(), noise(12)[:9])
    assert verify_store(tmp_path / "a").ok  # whose files these are, too
    (tmp_path / "b" / "contents.json").write_text('{"shards": [{}]}')
    assert "is not the list of a store's shards" in verify_store(tmp_path / "b").problems[0]
    with pytest.raises(StoreError, match="is not the list of a store's shards"):
        EmbeddingStore.open(tmp_path / "b")


def test_nothing_is_left_of_a_store_that_is_damaged_throughout(tmp_path: Path) -> None:
    records = Records.from_table(pa.table({"id": ["a"], "label": [0]}))
    store_of(tmp_path, records, noise(1))
    (tmp_path / "img_emb" / "img_emb_0000.npy").unlink()
    with pytest.raises(StoreError, match=r"Every shard of .* is damaged"):
        remove_damaged(verify_store(tmp_path))
