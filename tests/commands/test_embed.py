"""`guardtrain embed`: damaged files, texts, a second try, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guardtrain.embeddings import EmbeddingStore

SOURCE = ["source=manifest", "source.path=photos/table.csv"]


@pytest.fixture
def photos(run: Callable[..., str]) -> Path:
    """Twelve scenes with captions, one file of them damaged and one gone."""
    run("scenes", "pool=real", "n=12", "out=photos")
    folder = Path("photos")
    files = sorted(path.relative_to(folder) for path in folder.glob("images/*.png"))
    lines = [f"{file},{i % 2},{'' if i == 5 else f'a drawn scene {i}'}" for i, file in enumerate(files)]
    (folder / "table.csv").write_text("\n".join(["image,label,text", *lines]) + "\n")
    (folder / files[3]).write_bytes((folder / files[3]).read_bytes()[:300])
    return folder


def test_damaged_files_are_set_aside_and_tried_again(run: Callable[..., str], photos: Path) -> None:
    text = run("embed", *SOURCE, "out=store")
    assert ": 1 of 12 cannot be embedded and are set aside, the first: " in text
    assert "11 embeddings" in text
    assert "source: 12 labels, unsafe: 1 (6), safe: 0 (6)\n" in text
    (aside,) = pq.read_table("store/quarantine.parquet").to_pylist()
    assert "truncated" in aside["reason"]
    mended = Path(aside["uri"])
    mended.write_bytes(sorted(mended.parent.glob("*.png"))[0].read_bytes())
    assert "other content_key" in run("embed", *SOURCE, "out=store", code=2)
    assert "12 embeddings" in run("embed", *SOURCE, "out=store", "retry=true")
    assert not Path("store/quarantine.parquet").exists()


def test_mended_labels_are_renewed_without_embedding(run: Callable[..., str], photos: Path) -> None:
    run("embed", *SOURCE, "out=store")
    embedded = {path.name: path.read_bytes() for path in Path("store/img_emb").iterdir()}
    table = (photos / "table.csv").read_text().splitlines()
    mended = [table[0], *(",".join([image, "01"[label == "0"], text]) for image, label, text in
                          (line.split(",") for line in table[1:]))]  # fmt: skip
    (photos / "table.csv").write_text("\n".join(mended) + "\n")
    text = run("embed", *SOURCE, "out=store")
    assert "store: renewed, nothing embedded anew: label of 11 rows (such as " in text
    labels = EmbeddingStore.open("store").read().records.labels.tolist()
    assert labels == [1 - i % 2 for i in range(12) if i != 3]
    assert {path.name: path.read_bytes() for path in Path("store/img_emb").iterdir()} == embedded
    run("store", "verify", "path=store")
    assert "renewed" not in run("embed", *SOURCE, "out=store")
    (photos / "table.csv").write_text("\n".join(mended[:-1]) + "\n")
    text = run("embed", *SOURCE, "out=store", code=2)
    assert "other rows, records_digest, content_key" in text
    assert "`guardtrain store append path=store …` adds records that it has not." in text


def test_labels_inside_the_images_files_are_renewed_on_demand(run: Callable[..., str], photos: Path) -> None:
    images = [path.read_bytes() for path in sorted(photos.glob("images/*.png")) if path.stat().st_size > 300]
    for labels in ([0, 1] * 5, [1, 1] * 5):
        table = pa.table({"image": images[:10], "label": labels})
        pq.write_table(table, "a.parquet")
        source = ["source=parquet_images", "source.path=a.parquet", "out=store"]
        if labels[0]:
            text = run("embed", *source, code=2)
            assert "other content_key" in text
            assert "retry=true goes on there" in text
            assert "label of 5 rows (such as a/000000: 0, now 1)" in run("embed", *source, "retry=true")
        assert "renewed" not in run("embed", *source)
        assert EmbeddingStore.open("store").read().records.labels.tolist() == labels


def test_the_cache_says_so_each_time(run: Callable[..., str], photos: Path) -> None:
    for _ in range(2):
        text = run("embed", *SOURCE)
        assert ": 1 of 12 cannot be embedded and are set aside" in text
        assert "11 records" in text
    assert "cannot be read: " in run("embed", *SOURCE, "on_error=raise", code=2)


def test_texts(run: Callable[..., str], photos: Path) -> None:
    assert "11 embeddings" in run("embed", *SOURCE, "input=text", "out=texts", "storage=float16")
    store = EmbeddingStore.open("texts")
    assert store.matrix().dtype == np.float16
    assert pq.read_table("texts/quarantine.parquet")["reason"].to_pylist() == ["no text"]
    assert "no column 'caption' of texts" in run("embed", *SOURCE, "input=text", "text_column=caption", code=2)
    assert "reads text" in run("embed", *SOURCE, "input=text", "encoder=mobilenetv2", code=2)


@pytest.mark.parametrize("setting", ["input=audio", "storage=int8", "on_error=ignore", "workers=0"])
def test_settings_outside_the_allowed(run: Callable[..., str], setting: str) -> None:
    name = setting.partition("=")[0]
    assert f"{name} is " in run("embed", setting, code=2)
