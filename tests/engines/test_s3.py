from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.conftest import Guardtrain, files, heads, rows

pytestmark = pytest.mark.engines
POOLS = {"real": ("pool=real", "n=160"), "pairs": ("pool=pairs", "n=160")}


@pytest.fixture
def guardtrain(tmp_path: Path, s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Guardtrain:
    """Commands in a folder with two pools of images, which are in the bucket `images` as well."""
    import s3fs

    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    command = Guardtrain(tmp_path, s3_server)
    bucket = s3fs.S3FileSystem(skip_instance_cache=True)
    bucket.mkdirs("images", exist_ok=True)
    for name, about in POOLS.items():
        command("scenes", *about, f"out={name}")
        bucket.put(str(tmp_path / name), f"images/{name}", recursive=True)
    return command


def test_a_bucket_gives_what_a_folder_gives(guardtrain: Guardtrain, tmp_path: Path) -> None:
    """An extraction, a sweep, its guards, and the images that one of them judges."""
    here = guardtrain("embed", "source=manifest", "source.path=real/records.csv", "out=here")
    there = guardtrain("embed", "source=manifest", "source.path=s3://images/real/records.csv", "out=there")
    assert "160 embeddings" in here
    assert "160 embeddings" in there
    arrays = [{n: c for n, c in files(tmp_path / out).items() if n.endswith(".npy")} for out in ("here", "there")]
    assert arrays[0] == arrays[1] != {}
    sweep = ["train", "-m", "mixture.budget=16,32", "data=manifest", "selection=fixed", "trainer.threads=1"]
    sweep += ["hydra.sweep.subdir=${mixture.budget}"]
    pools = [[f"data.{name}.path={place}{name}/records.csv" for name in POOLS] for place in ("", "s3://images/")]
    guardtrain(*sweep, *pools[0], "out=from_folder")
    text = guardtrain(*sweep, *pools[1], "out=from_bucket")
    assert "2 done, 0 skipped, 0 failed" in text
    assert heads(tmp_path / "from_bucket") == heads(tmp_path / "from_folder") != {}
    assert rows(tmp_path / "from_bucket", "run", "data") == rows(tmp_path / "from_folder", "run", "data")
    guardtrain("export", "run=from_bucket/32", "out=guard")
    judged = [
        guardtrain("predict", "guard=guard", f"{place}real/records.csv", f"out={out}.parquet")
        for place, out in (("", "p"), ("s3://images/", "q"))
    ]
    assert all("160" in text for text in judged)
