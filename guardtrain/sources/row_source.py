"""The image source over rows with image cells: records by a mapping, images read on demand."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from guardtrain.records import Records
from guardtrain.sources.derived import Derived
from guardtrain.sources.images import decode_image
from guardtrain.sources.mapping import PairColumns, RowMapping
from guardtrain.sources.rows import ImageRows, cell_bytes


@dataclass(kw_only=True)
class RowImageSource(ABC):
    """An `EncodedImageSource` whose images lie in rows; the settings are those of `RowMapping`.

    Pickled, it takes its settings only: another process opens the files itself.
    """

    columns: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    where: dict[str, Any] = field(default_factory=dict)
    derive: dict[str, Derived] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    pairs: PairColumns | None = None
    unpaired: str = "error"
    split: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        _ = self._mapping  # a wrong setting is an error at once

    def records(self) -> Records:
        """The checked records; read once."""
        return self._loaded[0]

    def content_key(self) -> str:
        """Hex sha256 over the files' sizes and times (or ETags), and over which row and column each image is in.

        Labels have no part in it, as far as they lie outside the files that hold the images.
        """
        _, rows, columns = self._loaded
        digest = hashlib.sha256(f"{type(self).__name__}\0{self._rows.key}\0".encode())
        digest.update(rows.astype("<i8").tobytes())
        digest.update("\0".join(columns).encode())
        return digest.hexdigest()

    def image(self, i: int) -> Image.Image:
        """Image of record `i`, RGB."""
        return decode_image(self.encoded(i))

    def encoded(self, i: int) -> bytes:
        """The file of record `i`, as it is stored."""
        records, rows, columns = self._loaded
        return cell_bytes(self._rows, int(rows[i]), str(columns[i]), str(records.ids[i]), self._origin)

    @property
    @abstractmethod
    def _origin(self) -> str:
        """Return what messages call the source."""

    @property
    def _kept_split(self) -> str | None:
        return self.split

    @abstractmethod
    def _open(self) -> ImageRows:
        """The rows; called once."""

    @cached_property
    def _mapping(self) -> RowMapping:
        return RowMapping(
            self.columns,
            self.labels,
            self.where,
            self.derive,
            self.constants,
            self.pairs,
            self.unpaired,
            self._kept_split,
            self.source,
        )

    @cached_property
    def _rows(self) -> ImageRows:
        return self._open()

    @cached_property
    def _loaded(self) -> tuple[Records, np.ndarray, np.ndarray]:
        return self._mapping.records(self._rows, self._rows.image_columns[0], self._origin)

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
