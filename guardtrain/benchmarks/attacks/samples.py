"""Which images are attacked: test sets of a data config, without embedding anything, in an order the seed decides."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from guardtrain.errors import DataError
from guardtrain.records import Records
from guardtrain.sources.frames import holds_animation


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of a test set.

    Args:
        name: of the test set.
        source: where the images come from, an image source.
        rows: (N,) int64, their places in the source.
        records: their records.
        animations: ids of those whose files have been asked for and go on after the first frame, which is attacked.
    """

    name: str
    source: Any
    rows: np.ndarray
    records: Records
    animations: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def content_key(self) -> str:
        """Hex sha256 that changes with the images."""
        return str(self.source.content_key())

    def content(self, i: int) -> bytes:
        """The file of image `i`; of a source that draws its images, a PNG of it.

        Raises:
            DataError: it cannot be read.
        """
        row = int(self.rows[i])
        try:
            if hasattr(self.source, "encoded"):
                content = bytes(self.source.encoded(row))
                if holds_animation(content):
                    self.animations.add(str(self.records.ids[i]))
                return content
            file = io.BytesIO()
            self.source.image(row).save(file, "PNG", compress_level=1)
            return file.getvalue()
        except OSError as error:
            raise DataError(f"Image {self.records.ids[i]} of test set {self.name} cannot be read: {error}") from error

    def order(self, seed: int) -> np.ndarray:
        """(N,) int64: all images, shuffled; the halves of a pair stay next to each other.

        It depends on the ids and the seed alone: the same images in another order, or fewer of them, are drawn alike.
        """
        pairs, ids = self.records.pair_ids, self.records.ids
        units: dict[str, list[int]] = {}
        for i, (pair, name) in enumerate(zip(pairs, ids, strict=True)):
            units.setdefault(f"image\0{name}" if pair is None else f"pair\0{pair}", []).append(i)
        drawn = sorted(units, key=lambda unit: hashlib.sha256(f"{seed}\0{unit}".encode()).digest())
        ordered = [sorted(units[unit], key=lambda i: str(ids[i])) for unit in drawn]
        return np.array([i for unit in ordered for i in unit], dtype=np.int64)


def image_sets(
    name: str, pools: Mapping[str, Any], tests: Mapping[str, Any], wanted: Sequence[str] | None, seed: int
) -> list[ImageSet]:
    """The test sets of a data config as images; those held out of a pool are the same as in training.

    Args:
        name: of the data.
        pools: sources of the pools, `real` and perhaps `pairs`.
        tests: of each test set a source, or the `HoldOut` that makes it.
        wanted: names of test sets; None for all.
        seed: `data.hold_out_seed`.

    Raises:
        DataError: no such test set; one without images; pools and tests that share records.
    """
    from guardtrain.training.pools import HoldOut, pools_of_records

    if unknown := [test for test in wanted or () if test not in tests]:
        raise DataError(f"There is no test set '{unknown[0]}'; there are: {', '.join(tests)}.")
    chosen = list(tests) if wanted is None else list(wanted)
    held = {test: what for test, what in tests.items() if isinstance(what, HoldOut)}
    made = {test: what.records() for test, what in tests.items() if test not in held and test in chosen}
    if any(test in held for test in chosen):
        parts = pools_of_records(name, {key: source.records() for key, source in pools.items()}, held, seed=seed)
        made |= {test: parts.tests[test].records for test in held if test in chosen}
    found = []
    for test in chosen:
        source = pools[held[test].pool] if test in held else tests[test]
        if not hasattr(source, "image"):
            raise DataError(
                f"The test set {test} has embeddings and no images, and attacks change images. Name test sets of "
                "images with tests=[…], or data that has them."
            )
        place = {str(one): row for row, one in enumerate(source.records().ids)}
        rows = np.array([place[str(one)] for one in made[test].ids], dtype=np.int64)
        found.append(ImageSet(test, source, rows, made[test]))
    return found
