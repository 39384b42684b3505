"""`embed`: the same numbers cold, warm and resumed; a key that covers what changes them; no torch when warm."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guardtrain.embeddings import StoreSource, embed, extraction
from guardtrain.embeddings.writing import only_writer
from guardtrain.encoders import EncoderSettings, load_encoder, resolve_spec
from guardtrain.errors import ConfigError, DataError, EncoderError, StoreError
from guardtrain.sources import ArraysSource, ImageFolderSource, ManifestSource


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> EncoderSettings:
    """timm's smallest model with random weights, in a file."""
    import timm
    import torch
    from safetensors.torch import save_file

    file = tmp_path_factory.mktemp("weights") / "test_vit.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model("test_vit", num_classes=2).state_dict(), str(file))
    return EncoderSettings(
        name="tiny", family="timm", model="test_vit", checkpoint=str(file), batch_size=2, device="cpu"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five small pictures and their table."""
    rng = np.random.default_rng(0)
    lines = ["image,label"]
    for i in range(5):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{i % 2}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def manifest(folder: Path) -> ManifestSource:
    return ManifestSource(str(folder / "table.csv"))


def stores(cache: Path) -> list[str]:
    return sorted(p.parent.relative_to(cache).as_posix() for p in cache.rglob("encoder.json"))


def test_jobs_that_want_the_same_embeddings_wait_for_the_first(
    folder: Path, tmp_path: Path, settings: EncoderSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    first = embed(manifest(folder), settings, tmp_path / "cache", progress=False)
    (name,) = stores(tmp_path / "cache")
    store = tmp_path / "cache" / name
    (store / "metadata" / "metadata_0000.parquet").unlink()
    found = []
    job = threading.Thread(
        target=lambda: found.append(embed(manifest(folder), settings, tmp_path / "cache", progress=False))
    )
    with only_writer(store):
        job.start()
        said = ""
        while job.is_alive() and "waiting for it" not in said:
            time.sleep(0.02)
            said += capfd.readouterr().err
        assert re.search(rf"Process {os.getpid()} on .* is writing to the store {store}: waiting for it\.", said)
        assert not (store / "metadata" / "metadata_0000.parquet").exists()
    job.join()
    assert (found[0].matrix == first.matrix).all()


def test_cold_warm_and_resumed_give_the_same_bits(folder: Path, tmp_path: Path, settings: EncoderSettings) -> None:
    cache = tmp_path / "cache"
    source = manifest(folder)
    cold = embed(source, settings, cache, shard_size=2, progress=False)
    np.testing.assert_allclose(
        cold.matrix, load_encoder(settings).encode_images([source.image(i) for i in range(5)]), atol=1e-5
    )
    warm = embed(manifest(folder), settings, cache, progress=False)
    assert (warm.matrix == cold.matrix).all()
    assert warm.spec == cold.spec
    (store,) = stores(cache)
    assert store.startswith(f"tiny-{cold.spec.fingerprint[:12]}/")
    assert len(store.split("/")[1]) == 16
    (cache / store / "metadata" / "metadata_0001.parquet").unlink()
    resumed = embed(manifest(folder), settings, cache, progress=False)
    assert (resumed.matrix == cold.matrix).all()


def test_a_spec_finds_what_its_settings_made(
    folder: Path, tmp_path: Path, settings: EncoderSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = embed(manifest(folder), settings, tmp_path / "cache", progress=False)
    again = embed(manifest(folder), made.spec, tmp_path / "cache", progress=False)
    assert (again.matrix == made.matrix).all()
    assert (embed(manifest(folder), made.spec, tmp_path / "new", progress=False).matrix - made.matrix).max() < 1e-5


def test_a_warm_cache_imports_no_torch(folder: Path, tmp_path: Path, settings: EncoderSettings) -> None:
    cache = tmp_path / "cache"
    matrix = embed(manifest(folder), settings, cache, progress=False).matrix
    code = (
        "import sys\n"
        "from guardtrain.embeddings import embed\n"
        "from guardtrain.encoders import EncoderSettings\n"
        "from guardtrain.sources import ManifestSource\n"
        f"found = embed(ManifestSource({str(folder / 'table.csv')!r}), {settings!r}, {str(cache)!r})\n"
        "print(found.matrix[:].tobytes().hex(), [m for m in ('torch', 'timm', 'open_clip') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{np.asarray(matrix).tobytes().hex()} []\n"


def test_corrected_labels_need_no_new_embedding(folder: Path, tmp_path: Path, settings: EncoderSettings) -> None:
    cache = tmp_path / "cache"
    embed(manifest(folder), settings, cache, progress=False)
    table = folder / "table.csv"
    table.write_text(table.read_text().replace("2.png,0", "2.png,1"))
    assert embed(manifest(folder), settings, cache, progress=False).records.labels.tolist() == [0, 1, 1, 1, 0]
    assert len(stores(cache)) == 1


def test_whatever_changes_the_numbers_makes_another_store(
    folder: Path, tmp_path: Path, settings: EncoderSettings
) -> None:
    cache = tmp_path / "cache"
    first = embed(manifest(folder), settings, cache, progress=False)
    for count, changed in enumerate(
        (
            replace(settings, normalize=False),
            replace(settings, crop_pct=0.5),
            replace(settings, mean=[0.1, 0.1, 0.1]),
            replace(settings, dtype="bfloat16"),
        ),
        start=2,
    ):
        assert not np.array_equal(embed(manifest(folder), changed, cache, progress=False).matrix, first.matrix)
        assert len(stores(cache)) == count
    half = embed(manifest(folder), settings, cache, storage="float16", progress=False)
    assert half.matrix.dtype == np.float16
    Image.new("RGB", (20, 24), (255, 0, 0)).save(folder / "3.png")
    now = embed(manifest(folder), settings, cache, progress=False)
    assert (now.matrix[3] != first.matrix[3]).any()
    assert (now.matrix[:3] == first.matrix[:3]).all()
    table = folder / "table.csv"
    table.write_text("image,label\n4.png,0\n0.png,0\n")
    assert embed(manifest(folder), settings, cache, progress=False).records.ids.tolist() == ["4.png", "0.png"]
    assert len(stores(cache)) == 8


def test_what_changes_no_number_makes_none(folder: Path, tmp_path: Path, settings: EncoderSettings) -> None:
    cache = tmp_path / "cache"
    embed(manifest(folder), settings, cache, progress=False)
    embed(manifest(folder), replace(settings, batch_size=5, device="auto"), cache, shard_size=3, progress=False)
    assert len(stores(cache)) == 1


def test_a_touched_file_is_embedded_again(folder: Path, tmp_path: Path, settings: EncoderSettings) -> None:
    cache = tmp_path / "cache"
    embed(manifest(folder), settings, cache, progress=False)
    stat = (folder / "0.png").stat()
    os.utime(folder / "0.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1000))
    embed(manifest(folder), settings, cache, progress=False)
    assert len(stores(cache)) == 2


def test_embeddings_are_taken_as_they_are(
    tmp_path: Path, settings: EncoderSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "extract", lambda *a, **k: pytest.fail("nothing is to be extracted"))
    matrix = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float16)
    np.savez(tmp_path / "a.npz", f=matrix, y=np.array([0, 1, 0, 1]))
    source = ArraysSource(str(tmp_path / "a.npz"), features="f", label="y", encoder={"name": "m"})
    for encoder in (None, settings):  # of an encoder known by name only, nothing can be compared
        found = embed(source, encoder, tmp_path / "cache")
        assert (found.matrix == matrix).all()
        assert (found.spec.family, found.spec.name, found.spec.dim) == ("external", "m", 3)
    with pytest.raises(EncoderError, match="family: 'external', not 'timm'"):
        embed(source, resolve_spec(settings), tmp_path / "cache")


def test_a_store_of_another_encoder_is_refused(folder: Path, tmp_path: Path, settings: EncoderSettings) -> None:
    cache = tmp_path / "cache"
    made = embed(manifest(folder), settings, cache, progress=False)
    path = str(cache / stores(cache)[0])
    found = embed(StoreSource(path), settings, cache)
    assert (found.matrix == made.matrix).all()
    assert found.records.labels.tolist() == made.records.labels.tolist()
    assert embed(StoreSource(path), None, cache).spec == made.spec
    with pytest.raises(EncoderError) as caught:
        embed(StoreSource(path), replace(settings, normalize=False, name="other"), cache)
    assert f"The encoder of the source StoreSource({path}) (tiny) is not the one wanted (other)" in str(caught.value)
    assert "normalize: True, not False" in str(caught.value)


def test_images_need_an_encoder(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ManifestSource\(.*table.csv\) gives images: an encoder must be set"):
        embed(manifest(folder), None, tmp_path)
    with pytest.raises(DataError, match="The source object gives neither images nor embeddings"):
        embed(object(), None, tmp_path)  # type: ignore[arg-type]


def test_the_cache_does_not_lie_about_missing_images(folder: Path, tmp_path: Path, settings: EncoderSettings) -> None:
    (folder / "1.png").unlink()
    with pytest.raises(DataError, match="1 of 5 images"):
        embed(manifest(folder), settings, tmp_path / "cache", progress=False)
    (folder / "safe").mkdir()
    (folder / "0.png").rename(folder / "safe" / "0.png")
    root = folder / "root"
    root.mkdir()
    (folder / "safe").rename(root / "safe")
    assert len(embed(ImageFolderSource(str(root)), settings, tmp_path / "cache", progress=False)) == 1


def test_a_cache_that_cannot_be_written_to_is_named_before_anything_is_embedded(
    folder: Path, settings: EncoderSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").write_text("no folder")
    monkeypatch.setattr(extraction, "extract", None)  # never reached
    with pytest.raises(StoreError, match=r"cannot be kept under \S*file/cache .*cache_dir=FOLDER.*GUARDTRAIN_CACHE"):
        embed(manifest(folder), settings, folder / "file" / "cache")


def test_a_cache_that_may_only_be_read_serves_what_it_holds(
    folder: Path, settings: EncoderSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as readonly:
        readonly.setattr("guardtrain.embeddings.cache.TemporaryFile", refused)  # root may write anywhere
        with pytest.raises(StoreError, match=r"Permission denied.*cache_dir=FOLDER"):
            embed(manifest(folder), settings, folder / "cache")
    made = embed(manifest(folder), settings, folder / "cache", progress=False)
    monkeypatch.setattr("guardtrain.embeddings.cache.TemporaryFile", refused)
    again = embed(manifest(folder), settings, folder / "cache")
    np.testing.assert_array_equal(again.matrix, made.matrix)
