"""Tars of samples, as webdataset reads and img2dataset writes them."""

from __future__ import annotations

from dataclasses import dataclass, field

from guardtrain.errors import ConfigError
from guardtrain.sources.row_source import RowImageSource
from guardtrain.sources.rows import ImageRows
from guardtrain.sources.tar_rows import TarRows


@dataclass
class WebDatasetSource(RowImageSource):
    """Images in tars, a sample being the members of one name: `0001.jpg`, `0001.json`, `0001.cls`, `0001.txt`.

    Each tar is read through once for where its members lie; that index is kept, and members are then read by offset,
    in any order. A `pipe:` and a compressed tar cannot be sought in: they are copied to a temporary file when first
    needed, `spooled` of them at a time.

    Args:
        path: a tar, a folder of tars, a glob, a brace pattern such as `shards/{00000..00012}.tar`; local or an fsspec
            URL; or `pipe:COMMAND` (braces allowed), which the shell runs and whose output is a tar.
        columns, labels, where, derive, constants, pairs, unpaired, split, source: see `RowMapping`. `columns.image`
            names the image member by its suffix, such as `jpg` or `front.jpg`; it may be left out where samples have
            one image each.
        sidecar: join the Parquet file beside each tar by its column `key` (img2dataset writes one).
        index_dir: where the indices are kept; default: `tar-index` in `$GUARDTRAIN_CACHE`, else `~/.cache/guardtrain`.
        spooled: temporary files at a time.

    The columns are the keys of `.json`, `cls` and `txt` (the members' texts); without a label column `cls` is the
    label. Ids are the tar's name and the sample's key. Samples without an image are left out, with a line that says
    how many.

    A pipe's index is kept by its command: where the stream is found to be another one later, that is an error.

    Raises (on `records`, `content_key`, `image`):
        DataError: no tars, damaged ones, commands that fail, columns or values at fault.
    """

    path: str = field(kw_only=False)
    sidecar: bool = True
    index_dir: str | None = None
    spooled: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spooled < 1:
            raise ConfigError(f"spooled must be at least 1; it is {self.spooled}.")

    @property
    def _origin(self) -> str:
        return f"the tars {self.path}"

    def _open(self) -> ImageRows:
        named = [self.columns["image"]] if "image" in self.columns else []
        if self.pairs is not None:
            named = [self.pairs.names_of] if self.pairs.names_of else [self.pairs.safe, self.pairs.unsafe]
        return TarRows(
            self.path,
            tuple(named),
            sidecar=self.sidecar,
            index_dir=self.index_dir,
            spooled=self.spooled,
            labelled="label" in self.columns or "label" in self.constants or self.pairs is not None,
            origin=self._origin,
        )
