"""What cannot be embedded is set aside with its reason, through crashes, and tried again; nothing else is lost."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from guardtrain.embeddings import EmbeddingStore, StoreSource, embed, store
from guardtrain.embeddings.extraction import extract
from guardtrain.errors import ConfigError, DataError, StoreError
from guardtrain.records import Records
from guardtrain.sources import ManifestSource
from tests.embeddings.fake_encoder import SPEC, EncodedPictures, FakeEncoder, Pictures, expected
from tests.sources.animations import KINDS, coloured, colours

N = 17
DAMAGED = {2: b"", 5: b"<html>", 6: b"\x89PNG\r\n\x1a\n", 7: b"no", 8: b"no", 9: b"no", 16: b"GIF89a"}  # 5..9: a shard
LEFT = [i for i in range(N) if i not in DAMAGED]


def run(source: Any, folder: Path, encoder: FakeEncoder | None = None, **options: Any) -> EmbeddingStore:
    made = encoder or FakeEncoder()
    arguments = {"shard_size": 5, "progress": False, "workers": 2} | options
    return extract(source, SPEC, folder, load=lambda _: made, **arguments)  # type: ignore[arg-type, return-value]


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def listed(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "quarantine.parquet").to_pylist()  # type: ignore[no-any-return]


def test_the_rest_is_embedded_and_all_are_accounted_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = FakeEncoder()
    found = run(EncodedPictures(N, damaged=DAMAGED), tmp_path, encoder).read()
    assert found.records.ids.tolist() == [f"r{i}" for i in LEFT]
    np.testing.assert_allclose(np.asarray(found.matrix), expected(N)[LEFT], atol=1e-6)
    assert sum(encoder.batches) == len(LEFT)
    assert [(row["row"], row["id"]) for row in listed(tmp_path)] == [(i, f"r{i}") for i in DAMAGED]
    reasons = {row["row"]: row["reason"] for row in listed(tmp_path)}
    assert reasons[2] == "the file is empty"
    assert reasons[5] == "not an image of a known format: the file begins with b'<html>'"
    assert "7 of 17 cannot be embedded and are set aside, the first: r2: the file is empty." in caplog.text
    digests = found.records.column("sha256")
    assert len(set(digests)) == len(LEFT)
    assert all(len(digest) == 64 for digest in digests)


def test_animations_are_embedded_by_their_first_frame_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = EncodedPictures(N, damaged={i: coloured(kind, 4) for i, kind in zip((1, 4, 8, 16), KINDS, strict=False)})
    found = run(source, tmp_path).read()
    assert len(found.records) == N
    first = FakeEncoder().forward(torch.from_numpy(np.full((1, 4, 4, 3), colours(4)[0], np.uint8))).numpy()
    assert np.asarray(found.matrix)[1] == pytest.approx(first[0], abs=0.02)
    (line,) = caplog.messages
    assert line.endswith("4 animations are embedded by the first frame, of which a label is taken to be: r1, r4, r8, …")


def test_sources_without_bytes_have_a_quarantine_too(tmp_path: Path) -> None:
    def at(i: int) -> None:
        if i == 3:
            raise ValueError("lost in the cloud")

    found = run(Pictures(N, at), tmp_path)
    assert len(found) == N - 1
    assert [row["reason"] for row in listed(tmp_path)] == ["lost in the cloud"]
    assert "sha256" not in found.metadata().column_names


def test_without_damage_there_is_no_list(tmp_path: Path) -> None:
    run(EncodedPictures(N), tmp_path)
    assert not (tmp_path / "quarantine.parquet").exists()


def test_more_than_half_is_an_error_that_shows_reasons(tmp_path: Path) -> None:
    broken = EncodedPictures(N, damaged=dict.fromkeys(range(9), b""))
    for _ in range(2):  # when it is written, and when it is there
        with pytest.raises(
            DataError, match=r"9 of 17 images cannot be embedded, more than half; the first:\n  r0: the"
        ):
            run(broken, tmp_path)
    run(EncodedPictures(N, damaged=dict.fromkeys(range(8), b"")), tmp_path / "half")


def test_strict(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The image of record r2 \(None\) cannot be read: the file is empty"):
        run(EncodedPictures(N, damaged=DAMAGED), tmp_path, on_error="raise")
    run(EncodedPictures(N, damaged=DAMAGED), tmp_path)
    with pytest.raises(DataError, match="record r2"):  # nor is a quarantine taken over
        run(EncodedPictures(N, damaged=DAMAGED), tmp_path, on_error="raise")
    with pytest.raises(ConfigError, match="on_error must be one of quarantine, raise"):
        run(EncodedPictures(N), tmp_path, on_error="ignore")


@pytest.mark.parametrize("crash", range(2, 15, 2))
def test_a_crash_leaves_the_quarantine_exact(tmp_path: Path, crash: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run(EncodedPictures(N, damaged=DAMAGED), tmp_path / "whole")
    real, count = store._write, 0

    def failing(file: Path, writer: Any) -> None:
        nonlocal count
        count += 1
        if count > crash:
            raise OSError("killed")
        real(file, writer)

    with monkeypatch.context() as patch:
        patch.setattr(store, "_write", failing)
        if crash < 10:
            with pytest.raises(StoreError, match=r"could not be written to: .*killed"):
                run(EncodedPictures(N, damaged=DAMAGED), tmp_path / "killed")
        else:
            run(EncodedPictures(N, damaged=DAMAGED), tmp_path / "killed")
            (tmp_path / "killed" / "quarantine.parquet").unlink()  # killed right before the list was written
    run(EncodedPictures(N, damaged=DAMAGED), tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_only_the_quarantine_is_tried_again(tmp_path: Path) -> None:
    run(EncodedPictures(N, damaged=DAMAGED), tmp_path / "store")
    before, encoder = contents(tmp_path / "store"), FakeEncoder()
    run(EncodedPictures(N, damaged=DAMAGED), tmp_path / "store", encoder, retry=True)
    assert contents(tmp_path / "store") == before
    assert encoder.batches == []
    mended = EncodedPictures(N, damaged={2: b"", 5: b"no"})
    run(mended, tmp_path / "store", encoder, retry=True)
    assert sum(encoder.batches) == 5
    run(mended, tmp_path / "fresh")
    assert contents(tmp_path / "store") == contents(tmp_path / "fresh")


def test_mended_files_are_tried_again_where_the_others_are_as_they_were(tmp_path: Path) -> None:
    class Files(EncodedPictures):
        key = "before"

        def content_key(self) -> str:
            return self.key

    run(Files(N, damaged=DAMAGED), tmp_path)
    mended = Files(N, damaged={2: b""})
    mended.key = "after"
    with pytest.raises(StoreError, match="other content_key"):
        run(mended, tmp_path)
    changed = Files(N, damaged={0: mended.encoded(1)})
    changed.key = "after"
    with pytest.raises(StoreError, match="other content_key"):
        run(changed, tmp_path, retry=True)
    assert len(run(mended, tmp_path, retry=True)) == N - 1


class Paired(EncodedPictures):
    """Pairs of neighbours; the last record is alone."""

    def records(self) -> Records:
        pairs = [f"p{i // 2}" if i < self.n - 1 else None for i in range(self.n)]
        return super().records().with_column("pair_id", pairs)


def test_a_pair_that_loses_a_half_loses_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = Paired(N, damaged={2: b"", 8: b"", 9: b"", 16: b""})
    left = [i for i in range(N) if i not in (2, 3, 8, 9, 16)]
    monkeypatch.setattr("guardtrain.embeddings.extraction.load_encoder", lambda _: FakeEncoder())
    monkeypatch.setattr(extract, "__kwdefaults__", extract.__kwdefaults__ | {"load": lambda _: FakeEncoder()})
    for _ in range(2):  # cold and warm
        caplog.clear()
        found = embed(source, SPEC, tmp_path, shard_size=5, progress=False)
        assert found.records.ids.tolist() == [f"r{i}" for i in left]
        np.testing.assert_allclose(np.asarray(found.matrix), expected(N)[left], atol=1e-6)
        assert ": 4 of 17 cannot be embedded and are set aside" in caplog.text
        assert "With them go the other halves of 1 pairs." in caplog.text
    (folder,) = (p.parent for p in tmp_path.rglob("encoder.json"))
    assert len(EmbeddingStore.open(folder)) == N - 4
    assert EmbeddingStore.open(folder).read().records.ids.tolist() == found.records.ids.tolist()
    again = StoreSource(str(folder))
    assert again.records().ids.tolist() == found.records.ids.tolist()
    assert (np.asarray(again.embeddings()) == np.asarray(found.matrix)).all()


def test_good_and_damaged_files_on_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A hundred good ones and fifty damaged: 150 accounted for."""
    rng = np.random.default_rng(0)
    caplog.set_level(logging.WARNING)
    lines = ["id,image,label"]
    for i in range(150):
        file = tmp_path / f"{i}.jpg"
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(file)
        if i >= 100:
            content = file.read_bytes()
            kinds = [content[: i * len(content) // 170], b"", b"\0" * 500, b"<svg/>", content[:200] + rng.bytes(300)]
            file.write_bytes(kinds[i % 5])
        lines.append(f"{i},{i}.jpg,{i % 2}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    found = run(ManifestSource(str(tmp_path / "table.csv")), tmp_path / "store", shard_size=40)
    aside = {row["id"]: row for row in listed(tmp_path / "store")}
    ids = set(found.read().records.ids)
    assert ids | aside.keys() == {str(i) for i in range(150)}
    assert not ids & aside.keys()
    assert {str(i) for i in range(100)} <= ids
    assert len(aside) >= 40
    assert all(row["reason"] and row["uri"] == str(tmp_path / f"{row['id']}.jpg") for row in aside.values())


def test_a_manifest_may_name_what_was_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(Paired(N, damaged={2: b"", 16: b""}), tmp_path / "store")

    def manifest(*ids: int, pairs: bool = True) -> StoreSource:
        rows = [f"r{i},{i % 2},{'' if i == N - 1 or not pairs else f'p{i // 2}'}" for i in ids]
        (tmp_path / "m.csv").write_text("\n".join(["id,label,pair_id", *rows]))
        return StoreSource(str(tmp_path / "store"), manifest=str(tmp_path / "m.csv"))

    found = manifest(5, 16, 4, 3, 2)
    assert found.records().ids.tolist() == ["r5", "r4"]
    np.testing.assert_allclose(np.asarray(found.embeddings()), expected(N)[[5, 4]], atol=1e-6)
    assert "m.csv: 2 of 5 cannot be embedded and are set aside, the first: r16: the file is empty." in caplog.text
    assert "With them go the other halves of 1 pairs." in caplog.text
    assert manifest(3, 2, pairs=False).records().ids.tolist() == ["r3"]  # which pairs there are, the manifest says
    with pytest.raises(DataError, match=r"1 of 3 records of the manifest .* are not in the store .*: r99\."):
        manifest(16, 99, 0, pairs=False).records()
    with pytest.raises(DataError, match=r"None of the 2 records of the manifest .* is left: r2: the file is empty"):
        manifest(2, 3).records()
