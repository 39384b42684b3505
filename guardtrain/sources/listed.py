"""Sources whose records say where their images lie."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from guardtrain.errors import DataError
from guardtrain.records import Records
from guardtrain.sources.images import files_key, open_image, read_encoded


class ListedImages:
    """The images of records that say where they lie: the pixels half of a source."""

    def records(self) -> Records:
        """The checked records."""
        raise NotImplementedError

    def image(self, i: int) -> Image.Image:
        """Image of record `i`, RGB."""
        return open_image(self._uri(i))

    def encoded(self, i: int) -> bytes:
        """The file of record `i`, as it is."""
        return read_encoded(self._uri(i))

    @property
    def _origin(self) -> str:
        return "the records"

    def _uri(self, i: int) -> str:
        uri = self.records().image_uri(i)
        if uri is None:
            raise DataError(f"Record {self.records().ids[i]} of {self._origin} has no image.")
        return uri


@dataclass
class RecordsSource(ListedImages):
    """Records that are there already, as a source of their images."""

    table: Records

    def records(self) -> Records:
        """The records."""
        return self.table

    def content_key(self) -> str:
        """See `files_key`: paths, sizes and modification times; raises DataError where images are missing."""
        return files_key(self.table, self._origin)
