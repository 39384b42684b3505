"""Tiny harmless images, and data sets of them in the layouts that sources read."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(shade: int) -> bytes:
    """A PNG of one grey."""
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def shade(image: Image.Image) -> int:
    """The grey of `png`."""
    return int(image.getpixel((0, 0))[0])


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> None:
    """A tar of these members, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_shards(folder: Path, shards: int = 3, each: int = 4) -> None:
    """`00000.tar`, … of samples k with an image of shade k, a JSON, a class and a caption."""
    for shard in range(shards):
        members = []
        for k in range(shard * each, (shard + 1) * each):
            about = {"key": f"{k:08d}", "category": f"c{k % 3}", "width": 5}
            members += [
                (f"{k:08d}.png", png(k)),
                (f"{k:08d}.json", json.dumps(about).encode()),
                (f"{k:08d}.cls", str(k % 2).encode()),
                (f"{k:08d}.txt", b"a grey\n"),
            ]
        write_tar(folder / f"{shard:05d}.tar", members)


def hub_image(shade: int, name: str | None = None) -> dict[str, Any]:
    """A cell of Hugging Face's type Image."""
    return {"bytes": png(shade), "path": name}


def write_hub_parquet(path: Path, columns: dict[str, list[Any]], labels: dict[str, list[str]] | None = None) -> None:
    """A Parquet file as `datasets` writes it; `labels` names the classes of ClassLabel columns."""
    features: dict[str, Any] = {name: {"names": names, "_type": "ClassLabel"} for name, names in (labels or {}).items()}
    table = pa.table(columns)
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(about), path, row_group_size=2)
