"""`guardtrain store` from end to end on the embedded scenes: what it does, what it says, what it refuses."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from guardtrain.embeddings import EmbeddingStore
from guardtrain.embeddings.verify import verify_store
from tests.embeddings.test_store import clip_retrieval_store, noise, write


def test_a_store_is_embedded_and_added_to(run, tmp_path: Path) -> None:
    run("embed", "source=scenes", "source.n=24", "out=a", "shard_size=10")
    text = run("store", "append", "path=a", "source=scenes", "source.n=30")
    assert "24 of 30 records are there already" in text
    assert "a: 30 embeddings, 6 of them new" in text
    text = run("store", "info", "path=a")
    assert "30 x 256 float32 in 4 shards" in text
    assert "label       0 15, 1 15" in text
    assert "encoder     demo (open_clip)" in text
    assert verify_store("a").ok  # unit norms among it


def test_filtering_and_merging(run, tmp_path: Path) -> None:
    write(tmp_path / "a", noise(30), 8)
    ids = [f"r{i}" for i in range(5)]
    Path("ids.txt").write_text("\n".join(ids))
    assert "halves=complete" in run("store", "filter", "path=a", "ids=ids.txt", "out=b", code=2)
    assert "b: 6 of 30 rows of a" in run("store", "filter", "path=a", "ids=ids.txt", "halves=complete", "out=b")
    run("store", "filter", "path=a", "ids=ids.txt", "halves=drop", "out=b.parquet")
    assert pq.read_table("b.parquet")["id"].to_pylist() == ids[:4]
    assert "6 ids are in the stores more than once" in run("store", "merge", "paths=[a,b]", "out=c", code=2)
    assert "c: 30 embeddings of 2 stores" in run("store", "merge", "paths=[b,a]", "out=c", "duplicates=first")
    np.testing.assert_array_equal(EmbeddingStore.open("c").matrix(), noise(30))


def test_contradictions_are_counted_and_the_way_out_works(run, tmp_path: Path) -> None:
    matrix = noise(8)
    matrix[5] = matrix[2]  # r2 is safe, r5 unsafe; both are halves of pairs
    write(tmp_path / "a", matrix, 3)
    text = run("store", "dedup", "path=a", "out=d", code=2)
    assert "In the store a 1 image has two labels: r2 (0), r5 (1)." in text
    text = run("store", "dedup", "path=a", "out=d", "disputed=drop")
    assert "1 of 8 images are there before: 1 by their embeddings" in text
    assert "1 are there with two labels (disputed=drop): r2 (0) and r5 (1)" in text
    assert EmbeddingStore.open("d").metadata()["id"].to_pylist() == ["r0", "r1", "r6", "r7"]
    write(tmp_path / "b", -matrix, 3)
    merge = ["store", "merge", "paths=[a,b]", "duplicates=first"]
    assert "8 name two images, whose embeddings differ: r0, r1, r2 and 5 more" in run(*merge, "out=m", code=2)
    assert "m: 8 embeddings of 2 stores" in run(*merge, "out=m", "disputed=last")
    np.testing.assert_array_equal(EmbeddingStore.open("m").matrix(), -matrix)


def test_records_that_are_there_with_another_label(run, tmp_path: Path) -> None:
    run("scenes", "pool=real", "n=8", "out=photos")
    with Path("photos/records.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    def written(count: int, other: int) -> list[str]:
        """A table of the first `count`, of which `other` have the other label."""
        lines = [f"{row['image']},{int(row['label']) ^ (i < other)}" for i, row in enumerate(rows[:count])]
        Path("photos/own.csv").write_text("\n".join(["image,label", *lines]) + "\n")
        return ["source=manifest", "source.path=photos/own.csv"]

    run("embed", *written(6, 0), "out=s")
    append = ["store", "append", "path=s", *written(8, 2)]
    text = run(*append, code=2)
    assert "2 of 8 records have another label in the store s, which has them already: images/" in text
    text = run(*append, "disputed=last")
    assert "s: renewed, nothing embedded anew: label of 2 rows (such as images/" in text
    assert "s: 8 embeddings, 2 of them new" in text
    labels = [int(row["label"]) ^ (i < 2) for i, row in enumerate(rows)]
    assert EmbeddingStore.open("s").read().records.labels.tolist() == labels


def test_a_manifest_that_contradicts_a_store_comes_with_lines_that_work(run, tmp_path: Path) -> None:
    write(tmp_path / "s", noise(40), 16)
    labels = [int(i in (3, 4)) ^ (i % 2) for i in range(40)]
    Path("m.csv").write_text("id,label\n" + "".join(f"r{i},{label}\n" for i, label in enumerate(labels)))
    audit = ["audit", "data=stores", "encoder=precomputed", "data.real.path=s", "data.real.manifest=m.csv",
             "data.pairs=null", "~data.test.counterfactual", "permutations=1", "replicates=100", "folds=2"]  # fmt: skip
    text = run(*audit, code=2)
    assert "2 of 40 records of the manifest m.csv have another label in the store s: r3 (1 there, 0 in the" in text
    lines = [line.strip() for line in text.splitlines() if "data.real.disputed=" in line]
    assert lines == [f"data.real.disputed={value}" for value in ("first", "last", "drop")]
    for line, counts in zip(lines, ((20, 20), (20, 20), (19, 19)), strict=True):
        assert f"unsafe: 1 ({counts[0]}), safe: 0 ({counts[1]})" in run(*audit, line)


def test_damage_is_shown_and_said_what_to_do_about(run, tmp_path: Path) -> None:
    write(tmp_path / "s", noise(9), 3)
    text = run("store", "verify", "path=s")
    assert text.count("  whole") == 3
    (tmp_path / "s" / "img_emb" / "img_emb_0001.npy").write_bytes(b"cut")
    text = run("store", "verify", "path=s", code=2)
    assert "       1          –      –  –         img_emb/img_emb_0001.npy is no whole array" in text
    assert "s is damaged: 1 of 3 shards. Delete s/img_emb/img_emb_0001.npy s/metadata/metadata_0001.parquet" in text
    assert "run the `guardtrain embed` that made it again" in text
    text = run("store", "verify", "path=s", "repair=true", code=2)
    assert "deleted   s/img_emb/img_emb_0001.npy" in text
    text = run("store", "verify", "path=s", code=2)
    assert "img_emb/img_emb_0001.npy is missing" in text
    write(tmp_path / "s", noise(9), 3)
    run("store", "verify", "path=s")
    (tmp_path / "s" / "encoder.json").write_text("{}")
    assert "wrong: encoder.json: The encoder spec lacks" in run("store", "verify", "path=s", code=2)


def test_many_shards_are_not_all_listed(run, tmp_path: Path) -> None:
    write(tmp_path / "s", noise(50), 1)
    assert "All 50 are whole." in run("store", "verify", "path=s")
    (tmp_path / "s" / "metadata" / "metadata_0031.parquet").unlink()
    text = run("store", "verify", "path=s", code=2)
    assert "metadata/metadata_0031.parquet is missing" in text
    assert "49 others are whole." in text


def test_a_store_of_clip_retrieval(run, tmp_path: Path) -> None:
    clip_retrieval_store(tmp_path / "s", 3)
    assert "6 x 4 float16 in 3 shards" in run("store", "info", "path=s")
    text = run("store", "verify", "path=s")
    assert "of an encoder that is not known" in text
    assert "whole (no checksums)" in text
    assert "does not say which encoder made it" in run("store", "append", "path=s", "source=scenes", code=2)
    assert "3 of 6 rows of s" in run("store", "filter", "path=s", "where={caption: a}", "out=a")
    matrix = noise(6, 4)
    matrix[[3, 5]] = matrix[0]
    for i in range(3):
        np.save(tmp_path / "s" / "img_emb" / f"img_emb_{i}.npy", matrix[2 * i : 2 * i + 2])
    text = run("store", "dedup", "path=s", "out=d")
    assert "2 of 6 images are there before: 2 by their embeddings" in text
    assert len(EmbeddingStore.open("d")) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vrify", "path=s"], "There is no action 'vrify'. Did you mean 'verify'? Allowed: info, verify"),
        (["path=s"], "no value yet: action"),
        ([], "no value yet: action"),
        (["verify"], "`store verify` needs path: give path=…"),
        (["verify", "path=none"], "There is no embedding store at none"),
        (["info", "path=none"], "There is no embedding store at none"),
        (["verify", "path=s", "out=x"], "`store verify` has no setting 'out'. Allowed: path, repair."),
        (["verify", "path=s", "paht=x"], "There is no setting 'paht'. Did you mean 'path'?"),
        (["append", "path=s"], "`store append` needs source: give source=manifest source.path=PATH"),
        (["append", "path=s", "source=nothing"], "no 'nothing' among the options of source. There are: "),
        (["merge", "out=x", "paths=[s]"], "two stores or more; got 1"),
        (["filter", "path=s", "out=x"], "needs something to keep rows by"),
        (["filter", "path=s", "out=x", "where=fire"], "where must be a mapping"),
        (["filter", "path=s", "out=x", "where={colour: red}"], "where names 'colour'"),
        (["filter", "path=s", "out=s", "ids=ids.txt"], "ids of ids.txt cannot be read"),
        (["filter", "path=s", "out=s", "where={width: 80}"], "out is the store s itself"),
        (["dedup", "path=s", "out=x", "disputed=mine"], "disputed is 'mine'; allowed: error, first, last, drop"),
        (["verify", "path=s", "disputed=last"], "`store verify` has no setting 'disputed'"),
        (["dedup", "path=s", "out=file/x"], "The store file/x could not be written to: Not a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_named(run, tmp_path: Path, arguments: list[str], message: str) -> None:
    write(tmp_path / "s", noise(9), 3)
    (tmp_path / "file").write_text("")
    text = run("store", *arguments, code=2)
    assert message in text
    assert "Traceback" not in text


def test_help_lists_the_actions(run) -> None:
    for arguments in (["--help"], ["verify", "--help"]):
        text = run("store", *arguments)
        assert "usage: guardtrain store {info|verify|append|merge|filter|dedup} [GROUP=OPTION]" in text
        assert "guardtrain store verify path=stores/photos" in text
