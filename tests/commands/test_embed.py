"""`guardtrain embed`: damaged files, texts, a second try, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
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
    (aside,) = pq.read_table("store/quarantine.parquet").to_pylist()
    assert "truncated" in aside["reason"]
    mended = Path(aside["uri"])
    mended.write_bytes(sorted(mended.parent.glob("*.png"))[0].read_bytes())
    assert "other content_key" in run("embed", *SOURCE, "out=store", code=2)
    assert "12 embeddings" in run("embed", *SOURCE, "out=store", "retry=true")
    assert not Path("store/quarantine.parquet").exists()


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
