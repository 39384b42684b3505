"""Data sets of the Hugging Face hub, by name, or from a local copy without network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from guardtrain.errors import DataError
from guardtrain.file_names import path_text
from guardtrain.installing import install_line
from guardtrain.sources.class_names import card_features, named, with_class_names
from guardtrain.sources.guessing import may_be_images, without_image_column
from guardtrain.sources.images import is_url
from guardtrain.sources.parquet_rows import ParquetRows, holds_bytes, holds_images
from guardtrain.sources.paths import files_named, is_saved_folder, local_path, refuse_saved_folder
from guardtrain.sources.row_source import RowImageSource
from guardtrain.sources.rows import ImageRows, TableRows, located
from guardtrain.sources.stacking import stacked
from guardtrain.sources.tables import FORMATS, TEXT_FORMATS, read_table
from guardtrain.sources.unclear import Unclear
from guardtrain.words import listed

_ANSWER_SECONDS = 5.0  # for the hub's first answer
_NO_ANSWER = {"ConnectionError", "ConnectError", "ConnectTimeout", "TimeoutException"}  # of several HTTP libraries
_OURS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}


@dataclass
class HuggingFaceSource(RowImageSource):
    """Images of a data set of the Hugging Face hub, through `datasets` (`pip install 'guardtrain[hf]'`).

    Args:
        name: the data set, `OWNER/NAME`.
        config, revision: its configuration; a branch, tag or commit.
        split: one of its splits, such as `train`; None takes all, and their names as the records' `split`.
        path: a local copy instead: a folder (or glob) of Parquet, CSV or JSON files as on the hub, or what
            `save_to_disk` wrote. No network and, but for the latter, no `datasets` is needed. Numbers of classes are
            read by the names in the files, or in the data set's card (`README.md`) beside them.
        columns, labels, where, derive, constants, pairs, unpaired, source: see `RowMapping`. An image column is one of
            type Image, of binary data, or the text column that `columns.image` names, of paths and URLs; files on the
            hub are read with your login.

    Images are read from memory-mapped or Parquet files one at a time. Ids default to the split (or the file's name) and
    the row.

    Raises (on `records`, `content_key`):
        DataError: no access (gated, offline, not found), each with what to do; columns or values at fault.
    """

    name: str | None = None
    config: str | None = None
    revision: str | None = None
    path: str | None = None

    @property
    def _origin(self) -> str:
        return f"the data set {self.path or self.name}"

    @property
    def _kept_split(self) -> str | None:
        return None  # `split` is the hub's, and chosen on opening

    def _open(self) -> ImageRows:
        image = self.columns.get("image")
        if not self.name and not self.path:
            raise Unclear(
                "A data set of the Hugging Face hub has a name there, or a local copy has a path.",
                [("Give one of them", [("name", "OWNER/NAME"), ("path", "FOLDER")])],
            )
        if self.path is None:
            return ArrowRows(self._loaded_splits(), image, self._origin)
        folder = Path(self.path).expanduser()
        if is_saved_folder(self.path):
            return ArrowRows(self._saved_splits(folder), image, self._origin)
        refuse_saved_folder(self.path, self._origin)  # a file of such a folder
        files = split_files(self.path, self.config, self.split, self._origin)
        rows = _file_rows([file for file, _ in files], image, self._origin)
        rows.table = named(rows.table, card_features(folder, self.config))
        if self.split is None and "split" not in rows.table.column_names and any(split for _, split in files):
            lengths = _lengths(rows, files)
            splits = [_OURS.get(split or "") for (_, split), n in zip(files, lengths, strict=True) for _ in range(n)]
            rows.table = rows.table.append_column("split", pa.array(splits, pa.string()))
        return rows

    def _loaded_splits(self) -> dict[str, Any]:
        """`datasets.Dataset`s by split, from the hub or its cache."""
        datasets = _datasets()
        assert self.name is not None
        unreachable = _unreachable(self.name)
        try:
            with nullcontext() if unreachable is None else _offline():
                found = datasets.load_dataset(self.name, self.config, split=self.split, revision=self.revision)
        except Exception as error:  # of datasets, huggingface_hub, httpx, fsspec …
            raise DataError(explained(unreachable or error, self.name)) from error
        return dict(found) if self.split is None else {self.split: found}

    def _saved_splits(self, folder: Path) -> dict[str, Any]:
        datasets = _datasets()
        try:
            found = datasets.load_from_disk(str(folder))
        except Exception as error:
            raise DataError(f"{self._origin} cannot be read: {str(error).splitlines()[0]}") from error
        if not isinstance(found, dict):
            return {self.split or "train": found}
        if self.split is not None and self.split not in found:
            raise DataError(f"{self._origin} has no split '{self.split}'. It has: {listed(found)}.")
        return dict(found) if self.split is None else {self.split: found[self.split]}


class ArrowRows:
    """Rows of `datasets.Dataset`s, memory-mapped; several splits one after another."""

    hint = ""

    def __init__(self, splits: dict[str, Any], image: str | None, origin: str) -> None:
        parts = [found.data.table for found in splits.values()]
        found = [f.name for f in parts[0].schema if all(holds_images(part.schema, f.name) for part in parts)]
        image = image or ("image" if "image" in found or not found else found[0])
        if image not in parts[0].column_names:
            raise without_image_column(image, parts[0].column_names, found or may_be_images(parts[0]), origin)
        for split, part in zip(splits, parts, strict=True):
            if differing := sorted(set(part.column_names) ^ set(parts[0].column_names)):
                raise DataError(f"The split {split} of {origin} has other columns than the first: {listed(differing)}.")
        self.image_columns = (image, *(name for name in found if name != image))
        try:
            images = [part.select(list(self.image_columns)) for part in parts]
            self._images = pa.concat_tables(images, promote_options="permissive")
        except pa.ArrowException as error:
            raise DataError(f"The splits of {origin} hold images in different ways: {error}") from None
        schemas = [found.features.arrow_schema for found in splits.values()]
        table = stacked([self._other_columns(part, schema) for part, schema in zip(parts, schemas, strict=True)])
        if len(splits) > 1 and "split" not in table.column_names:
            names = [_OURS.get(split) for split, part in zip(splits, parts, strict=True) for _ in range(part.num_rows)]
            table = table.append_column("split", pa.array(names, pa.string()))
        self.table = table
        self.ids = [f"{s}/{i:06d}" for s, part in zip(splits, parts, strict=True) for i in range(part.num_rows)]
        self.key = "\n".join(f"{split}|{found._fingerprint}" for split, found in splits.items())

    def _other_columns(self, part: pa.Table, schema: pa.Schema) -> pa.Table:
        """All of a split but the images, and of its image structs the paths; class labels by name."""
        table = part.drop_columns([name for name in part.column_names if holds_images(part.schema, name)])
        for name in self.image_columns:
            column = part[name]
            if pa.types.is_struct(column.type):
                table = table.append_column(f"{name}.path", pc.struct_field(column, "path"))
            elif not holds_bytes(column.type):
                table = table.append_column(f"{name}.path", column)
        return with_class_names(table, schema)

    def cell(self, row: int, column: str) -> bytes | str | None:
        """See `ImageRows`."""
        value = self._images[column][row].as_py()
        if isinstance(value, dict):
            value = value["bytes"] if value.get("bytes") is not None else value.get("path")
        return value if isinstance(value, bytes) else located(value, "")

    def uri(self, row: int, column: str) -> str | None:
        """See `ImageRows`."""
        return None if holds_bytes(self._images.schema.field(column).type) else self.cell(row, column)  # type: ignore[return-value]


def split_files(path: str, config: str | None, split: str | None, origin: str) -> list[tuple[str, str | None]]:
    """The files of a local copy, each with its split by the hub's naming; None where the name does not say.

    Such names are `data/train-00000-of-00002.parquet`, `test.csv` and `validation/0.parquet`.

    Raises:
        DataError: no files, or none of that split.
    """
    path = local_path(path)
    files = files_named(path, FORMATS, "Parquet, CSV or JSON files")
    folder = Path(path).expanduser()
    if not is_url(path) and not folder.is_dir():
        return [(file, None) for file in files]  # named one by one
    base = path.rstrip("/") if is_url(path) else path_text(folder.absolute())
    inside = {file: file.removeprefix(base).lstrip("/") for file in files}
    if config is not None and (of := [f for f in files if config in inside[f].split("/")[:-1]]):
        files = of
    for besides in (TEXT_FORMATS, (".json",)):  # tables of metadata beside the data, and what describes them
        files = [file for file in files if not file.lower().endswith(besides)] or files
    known = {file: _split_of(inside[file]) for file in files}
    if split is None or not any(known.values()):
        if split not in (None, "train"):
            raise DataError(
                f"{origin} has no split '{split}': none of its files names one, such as {listed(files, 3)}."
            )
        return [(file, known[file]) for file in files]
    wanted = [file for file in files if known[file] == split or _names_split(inside[file], split)]
    if not wanted:
        found = sorted({name for name in known.values() if name})
        raise DataError(f"{origin} has no files of the split '{split}'; splits found: {listed(found)}.")
    return [(file, split) for file in wanted]


def _split_of(file: str) -> str | None:
    return next((name for name in _OURS if _names_split(file, name)), None)


def _names_split(file: str, split: str) -> bool:
    return re.search(rf"(^|[/._-]){re.escape(split)}([/._-])", file) is not None


def _file_rows(files: list[str], image: str | None, origin: str) -> Any:
    parquet = [file for file in files if file.endswith(".parquet")]
    if parquet and len(parquet) < len(files):
        raise DataError(f"{origin} mixes Parquet and other files: {listed(files, 4)}. Name one kind with `path`.")
    if parquet:
        return ParquetRows(files, image, origin)
    table = stacked([read_table(file) for file in files])
    root = files[0].rpartition("/")[0]
    return TableRows(table, image or "image", root, Path(files[0]).stem, origin)


def _lengths(rows: Any, files: list[tuple[str, str | None]]) -> list[int]:
    if isinstance(rows, ParquetRows):
        return rows.lengths
    return [read_table(file).num_rows for file, _ in files]


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"Data sets of the hub are read with the package `datasets`: {install_line('hf')}. A local copy of "
            "Parquet files needs no package: give its folder as `path`."
        ) from None
    return datasets


def _unreachable(name: str) -> Exception | None:
    """Why the hub does not answer; None where it does, or is switched off.

    `datasets` on its own asks again for half a minute, a line or two each time, before it looks into its cache.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        get_hf_file_metadata(hf_hub_url(name, "README.md", repo_type="dataset"), timeout=_ANSWER_SECONDS)
    except Exception as error:  # an answer, such as that there is no such thing, is for loading to explain
        return error if {kind.__name__ for kind in type(error).__mro__} & _NO_ANSWER else None
    return None


@contextmanager
def _offline() -> Iterator[None]:
    """Inside, `datasets` takes what its cache has and asks nobody."""
    import datasets
    from huggingface_hub import constants

    places: tuple[Any, ...] = (constants, datasets.config)
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = True
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def explained(error: Exception, name: str) -> str:
    """Say what is wrong and what to do about it."""
    chain: list[BaseException] = [error]
    while (further := chain[-1].__cause__ or chain[-1].__context__) is not None and further not in chain:
        chain.append(further)
    kinds = {kind.__name__ for one in chain for kind in type(one).__mro__}
    text = " ".join(str(one) for one in chain)
    page = f"https://huggingface.co/datasets/{name}"
    copy = (
        f"Or work from a local copy: where there is access, `hf download {name} --repo-type dataset --local-dir DIR`, "
        "and here path=DIR (of this source)."
    )
    if "GatedRepoError" in kinds or "gated" in text.lower():
        return (
            f"The data set {name} is gated: (1) open {page}, log in and accept its terms (some are granted by hand, "
            f"which takes days); (2) `hf auth login`, or set HF_TOKEN; (3) start again. {copy}"
        )
    if "OfflineModeIsEnabled" in kinds or "OfflineModeIsEnabled" in text:
        return (
            f"The data set {name} is not in the cache of `datasets`, and HF_HUB_OFFLINE forbids to fetch it: unset it "
            f"where there is a network. {copy}"
        )
    if kinds & {"DatasetNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError"}:
        return (
            f"There is no data set {name} on the hub that you may see ({str(error).splitlines()[0]}): check the name "
            f"(and revision) at {page}; a private one needs `hf auth login`. {copy}"
        )
    if kinds & {*_NO_ANSWER, "LocalEntryNotFoundError"}:
        return f"The hub cannot be reached for the data set {name} ({str(error).splitlines()[0]}). {copy}"
    return f"The data set {name} cannot be loaded: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
