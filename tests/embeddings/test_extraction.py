"""Extraction: right, resumable byte for byte after any crash, one writer at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guardtrain.embeddings import EmbeddingStore, store
from guardtrain.embeddings.extraction import extract
from guardtrain.embeddings.writing import only_writer
from guardtrain.errors import ConfigError, DataError, StoreError
from guardtrain.records import Records
from tests.embeddings.fake_encoder import SPEC, BatchedPictures, EncodedPictures, FakeEncoder, Pictures, expected

N, SHARD = 17, 5  # shards of 5, 5, 5, 2 and batches of 3 and 2 in each


def run(source: Any, folder: Path, encoder: FakeEncoder | None = None, **options: Any) -> EmbeddingStore:
    made = encoder or FakeEncoder()
    arguments = {"shard_size": SHARD, "progress": False, "workers": 2} | options
    return extract(source, SPEC, folder, load=lambda _: made, **arguments)  # type: ignore[arg-type, return-value]


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an extraction that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    run(Pictures(N), folder)
    return contents(folder)


@pytest.mark.parametrize("source", [Pictures, BatchedPictures, EncodedPictures])
def test_embeddings_are_the_encoders_in_order(tmp_path: Path, source: type[Pictures]) -> None:
    encoder = FakeEncoder()
    found = run(source(N), tmp_path, encoder).read()
    np.testing.assert_allclose(found.matrix, expected(N), atol=1e-6)
    assert found.records.ids.tolist() == [f"r{i}" for i in range(N)]
    assert found.spec == encoder.spec
    assert sorted(encoder.batches) == [2, 2, 2, 2, 3, 3, 3]  # they begin anew with each shard


def test_a_complete_store_loads_no_model(tmp_path: Path, whole: dict[str, bytes]) -> None:
    run(Pictures(N), tmp_path)

    def load(_: Any) -> Any:
        raise AssertionError("nothing was left to do")

    extract(Pictures(N), SPEC, tmp_path, shard_size=SHARD, progress=False, load=load)
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("crash", range(2 + 2 * 4))
def test_a_crash_at_any_write_changes_nothing_in_the_end(
    tmp_path: Path, whole: dict[str, bytes], crash: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = store._write, 0

    def failing(file: Path, writer: Any) -> None:
        nonlocal count
        if count == crash:
            file.with_name(f".{file.name}.99999.tmp").write_bytes(b"half")  # as a writer killed on the way leaves it
            raise OSError("disk full")
        count += 1
        real(file, writer)

    with monkeypatch.context() as patch:
        patch.setattr(store, "_write", failing)
        with pytest.raises(StoreError, match=f"The store {tmp_path} could not be written to: .*disk full"):
            run(Pictures(N), tmp_path)
    if crash > 1:  # once there is a plan, a part says that it is one
        with pytest.raises(StoreError, match=rf"is not complete: {(crash - 2) // 2} of 4"):
            EmbeddingStore.open(tmp_path)
    encoder = FakeEncoder()
    run(Pictures(N), tmp_path, encoder)
    assert contents(tmp_path) == whole
    assert sum(encoder.batches) == N - SHARD * max(0, (crash - 2) // 2)  # what was written is not done again


def test_killed_for_real_and_run_again(tmp_path: Path, whole: dict[str, bytes]) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from fake_encoder import SPEC, FakeEncoder, Pictures\n"
        "from guardtrain.embeddings.extraction import extract\n"
        f"extract(Pictures({N}, delay=0.1), SPEC, Path({str(tmp_path)!r}), shard_size={SHARD}, workers=1, "
        "progress=False, load=lambda _: FakeEncoder())"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        first = tmp_path / "metadata" / "metadata_0000.parquet"
        for _ in range(600):
            if first.exists():
                break
            time.sleep(0.05)
        assert first.exists()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with pytest.raises(StoreError, match=r"is not complete: [123] of 4"):
        EmbeddingStore.open(tmp_path)
    encoder = FakeEncoder()
    run(Pictures(N), tmp_path, encoder)  # the dead process's lock does not hold
    assert contents(tmp_path) == whole
    assert sum(encoder.batches) <= N - SHARD


def test_interrupted_by_the_keyboard(tmp_path: Path, whole: dict[str, bytes]) -> None:
    def at(i: int) -> None:
        if i == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Pictures(N, at), tmp_path)
    with pytest.raises(StoreError, match="is not complete"):
        EmbeddingStore.open(tmp_path)
    run(Pictures(N), tmp_path)
    assert contents(tmp_path) == whole


def test_begun_with_another_shard_size(tmp_path: Path, whole: dict[str, bytes]) -> None:
    def at(i: int) -> None:
        if i == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Pictures(N, at), tmp_path)
    run(Pictures(N), tmp_path, shard_size=4)
    assert contents(tmp_path) == whole


def test_shards_of_another_plan_are_neither_taken_nor_overwritten(tmp_path: Path, whole: dict[str, bytes]) -> None:
    run(Pictures(N), tmp_path)
    (tmp_path / "extraction.json").unlink()
    with pytest.raises(StoreError, match=f"The folder {tmp_path} holds embeddings that guardtrain did not write"):
        run(Pictures(N), tmp_path, shard_size=2)
    assert contents(tmp_path) == {name: data for name, data in whole.items() if name != "extraction.json"}


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(StoreError) as caught:
        run(Pictures(3), tmp_path)
    assert str(caught.value).startswith(f"Process {os.getpid()} on ")
    assert f" is writing to the store {tmp_path}. Wait until it has ended" in str(caught.value)
    assert len(run(Pictures(3), tmp_path)) == 3


def test_a_folder_with_other_work_is_refused(tmp_path: Path) -> None:
    run(Pictures(N), tmp_path)
    with pytest.raises(StoreError, match=r"other work \(other rows, records_digest, content_key\): choose another"):
        run(Pictures(3), tmp_path)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    from guardtrain.sources import ImageFolderSource

    (tmp_path / "safe").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "safe" / "a.png")
    (tmp_path / "safe" / "b.jpg").write_bytes(b"not a picture")
    with pytest.raises(DataError) as caught:
        run(ImageFolderSource(str(tmp_path)), tmp_path / "store", on_error="raise")
    message = str(caught.value)
    assert f"The image of record safe/b.jpg ({tmp_path}/safe/b.jpg) cannot be read: not an image of a known" in message
    (tmp_path / "safe" / "b.jpg").unlink()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    picture.save(tmp_path / "safe" / "a.png")
    (tmp_path / "safe" / "a.png").write_bytes((tmp_path / "safe" / "a.png").read_bytes()[:6000])
    with pytest.raises(DataError, match=r"record safe/a.png .* truncated"):
        run(ImageFolderSource(str(tmp_path)), tmp_path / "store2", on_error="raise")


def test_no_records(tmp_path: Path) -> None:
    class Nothing(Pictures):
        def records(self) -> Records:
            return Records.from_columns(id=["a"], label=[0]).take([])

    with pytest.raises(DataError, match="holds no records"):
        run(Nothing(0), tmp_path)


@pytest.mark.parametrize("options", [{"shard_size": 0}, {"batch_size": 0}, {"storage": "int8"}])
def test_options_out_of_range(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))}"):
        run(Pictures(3), tmp_path, **options)


def test_float16_on_disk(tmp_path: Path) -> None:
    matrix = run(Pictures(N), tmp_path, storage="float16").matrix()
    assert matrix.dtype == np.float16
    np.testing.assert_allclose(matrix, expected(N), atol=1e-3)


def test_what_is_said_without_a_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(Pictures(N), tmp_path, progress=None, label="data.real")
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "Embedding data.real with fake: 17 images"
    assert lines[1].startswith("Embedded 17 images in ")
    assert len(lines) == 2
    run(Pictures(N), tmp_path / "bar", progress=True)
    assert "17/17" in capfd.readouterr().err
    run(Pictures(N), tmp_path / "quiet", progress=False)
    assert capfd.readouterr().err == ""
