"""`guardtrain scenes`: the embedded testbed as image files, a record table and a contact sheet."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from guardtrain.config import ScenesConfig
from guardtrain.config_checks import typed

_SHEET = "contact_sheet.png"

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Write what `config` (see `ScenesConfig`) describes."""
    settings = typed(config, ScenesConfig)

    import pyarrow.csv
    from PIL import Image
    from rich.progress import track

    from guardtrain.files import note_drawn
    from guardtrain.scenes import SceneSource, contact_sheet

    source = SceneSource(pool=settings.pool, n=settings.n, seed=settings.seed, size=settings.size)
    records = source.records()
    folder = Path(settings.out)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    if settings.masks:
        (folder / "masks").mkdir(exist_ok=True)
        note_drawn([folder / "masks" / "*.png"])
    for i in track(range(len(records)), description="rendering", transient=True):
        source.image(i).save(folder / "images" / f"{records.ids[i]}.png")
        if settings.masks:
            Image.fromarray(np.asarray(source.mask(i))).save(folder / "masks" / f"{records.ids[i]}.png")
    table = records.with_column("image", [f"images/{record}.png" for record in records.ids]).table
    pyarrow.csv.write_csv(table, folder / "records.csv")
    note_drawn([folder / _SHEET])
    contact_sheet().save(folder / _SHEET)
    log.info("%d images    %s", len(records), folder / "images")
    log.info("records       %s", folder / "records.csv")
    log.info("contact sheet %s", folder / _SHEET)
