"""A contact sheet: pairs side by side, a row for each category."""

from __future__ import annotations

import numpy as np
from PIL import Image

from guardtrain.scenes.features import CATEGORIES
from guardtrain.scenes.source import SceneSource


def contact_sheet(
    pairs_per_category: int = 4,
    seed: int = 0,
    pool: str = "test",
    size: int = 64,
    zoom: int = 2,
    categories: list[str] | None = None,
) -> Image.Image:
    """Pairs as (safe, unsafe) side by side, one row a category in the order of `features.CATEGORIES`.

    Args:
        pairs_per_category: pairs in a row.
        seed: of the pool.
        pool: pairs or test.
        size: pixels of a scene as rendered.
        zoom: whole-number enlargement, pixels stay square.
        categories: which rows; None is all nine.

    Raises:
        ConfigError: as `SceneSource`.
    """
    rows = list(CATEGORIES) if categories is None else categories
    source = SceneSource(pool, 2 * pairs_per_category * len(rows), seed=seed, categories=rows, size=size)
    tiles = source.images(range(source.n)).repeat(zoom, axis=1).repeat(zoom, axis=2)
    side, gap = size * zoom, max(2, 2 * zoom)
    width = pairs_per_category * (2 * side + 1) + (pairs_per_category - 1) * gap
    sheet = np.full((len(rows) * (side + gap) - gap, width, 3), 255, np.uint8)
    for k in range(pairs_per_category * len(rows)):
        column, row = divmod(k, len(rows))  # pair k shows category k modulo their number
        x, y = column * (2 * side + 1 + gap), row * (side + gap)
        sheet[y : y + side, x : x + side] = tiles[2 * k]
        sheet[y : y + side, x + side + 1 : x + 2 * side + 1] = tiles[2 * k + 1]
    return Image.fromarray(sheet)
