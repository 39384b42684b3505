"""One truth about some images written down in every way that people write labels, in every place that is read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from guardtrain.embeddings import StoreSource
from guardtrain.records import Records
from guardtrain.sources import (
    ArraysSource,
    HuggingFaceSource,
    ManifestSource,
    ParquetImagesSource,
    WebDatasetSource,
)
from tests.sources.tiny import png, write_tar

Read = Callable[..., Records]  # takes the reader's `labels` and `where`


@dataclass(frozen=True)
class Encoding:
    """How labels are written.

    Args:
        name: of the way.
        cells: of safe and of unsafe.
        clear: whether it can be read without being told more.
        column: what the column is called.
        classes: names of the numbers, for `datasets`' ClassLabel.
        kind: Arrow's or pandas' type of the column; None for what Python's values become.
        empty: whether the last image has no label.
    """

    name: str
    cells: tuple[Any, Any]
    clear: bool
    column: str = "label"
    classes: tuple[str, ...] = ()
    kind: Any = None
    empty: bool = False

    def values(self, truth: Sequence[int]) -> list[Any]:
        """A cell for each image."""
        found = [self.cells[label] for label in truth]
        return [*found[:-1], None] if self.empty else found

    def array(self, truth: Sequence[int]) -> pa.Array:
        """The cells as Arrow has them."""
        values = self.values(truth)
        if isinstance(self.kind, pa.DataType):
            return pa.array(values, self.kind)
        if self.kind is not None:
            return pa.array(pd.Series(values, dtype=self.kind), from_pandas=True)
        return pa.array(values)

    @property
    def typed(self) -> bool:
        """Whether only a file with types (Parquet) can hold it."""
        return bool(self.classes) or self.kind is not None


def _categories(*values: Any) -> pd.CategoricalDtype:
    return pd.CategoricalDtype(list(values))


ENCODINGS = [
    Encoding("words", ("safe", "unsafe"), True),
    Encoding("words in any case", ("Safe", "UNSAFE"), True),
    Encoding("sfw and nsfw", ("sfw", "nsfw"), True),
    Encoding("other words", ("neutral", "porn"), False),
    Encoding("yes and no", ("no", "yes"), False),
    Encoding("yes and no in a column of unsafe", ("no", "yes"), True, "is_unsafe"),
    Encoding("yes and no in a column of safe", ("yes", "no"), False, "is_safe"),
    Encoding("bool", (False, True), True),
    Encoding("bool in a column of safe", (True, False), False, "isSafe"),
    Encoding("int", (0, 1), True),
    Encoding("int in a column of safe", (1, 0), False, "sfw"),
    Encoding("plus and minus one", (-1, 1), False),
    Encoding("one and two", (1, 2), False),
    Encoding("float", (0.0, 1.0), True),
    Encoding("text of int", ("0", "1"), True),
    Encoding("text of float", ("0.0", "1.0"), True),
    Encoding("words, one missing", ("safe", "unsafe"), False, empty=True),
    Encoding("int, one missing", (0, 1), False, empty=True),
    Encoding("nullable int", (0, 1), True, kind="Int64"),
    Encoding("nullable bool", (False, True), True, kind="boolean"),
    Encoding("nullable bool, one missing", (False, True), False, kind="boolean", empty=True),
    Encoding("int8", (0, 1), True, kind=pa.int8()),
    Encoding("decimal", (0, 1), True, kind=pa.decimal128(3, 1)),
    Encoding("bytes", (b"safe", b"unsafe"), True, kind=pa.binary()),
    Encoding("string view", ("safe", "unsafe"), True, kind=pa.string_view()),
    Encoding("categorical", ("safe", "unsafe"), True, kind=_categories("safe", "unsafe", "unused")),
    Encoding("categorical, the other way", ("safe", "unsafe"), True, kind=_categories("unsafe", "safe")),
    Encoding("categorical of other words", ("ok", "gore"), False, kind=_categories("gore", "ok")),
    Encoding("categorical of int", (0, 1), True, kind=_categories(1, 0)),
    Encoding("categorical, one missing", ("safe", "unsafe"), False, kind=_categories("unsafe", "safe"), empty=True),
    Encoding("lists", (["safe"], ["unsafe"]), False, kind=pa.list_(pa.string())),
    *[
        Encoding(f"class label {' '.join(names)}", cells, clear, classes=names)
        for names, cells, clear in [
            (("safe", "unsafe"), (0, 1), True),
            (("unsafe", "safe"), (1, 0), True),
            (("nsfw", "sfw"), (1, 0), True),
            (("0", "1"), (0, 1), True),
            (("1", "0"), (1, 0), True),
            (("porn", "neutral"), (1, 0), False),
            (("neutral", "porn"), (0, 1), False),
        ]
    ],
    Encoding("class label of float", (1.0, 0.0), True, classes=("unsafe", "safe")),
    Encoding("class label, one without", (1, 0), False, classes=("unsafe", "safe"), empty=True),
]


def table_of(encoding: Encoding, truth: Sequence[int], **columns: Any) -> pa.Table:
    """The label column with others, and what `datasets` says of it in the schema."""
    table = pa.table({**columns, encoding.column: encoding.array(truth)})
    if not encoding.classes:
        return table
    feature = {"names": list(encoding.classes), "_type": "ClassLabel"}
    about = {"info": {"features": {encoding.column: feature}}}
    return table.replace_schema_metadata({b"huggingface": json.dumps(about).encode()})


def _write(table: pa.Table, path: Path) -> str:
    """The table as the ending of `path` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".csv":
        table.to_pandas().to_csv(path, index=False)
    else:
        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    return str(path)


def _named(encoding: Encoding) -> dict[str, str]:
    return {} if encoding.column == "label" else {"label": encoding.column}


def _manifest(ending: str) -> Callable[[Path, Encoding, Sequence[int]], Read]:
    def reader(folder: Path, encoding: Encoding, truth: Sequence[int]) -> Read:
        table = table_of(encoding, truth, id=[f"i{k}" for k in range(len(truth))])
        path = _write(table, folder / f"t{ending}")
        return lambda **more: ManifestSource(path, columns=_named(encoding), **more).records()

    return reader


def _images(folder: Path, encoding: Encoding, truth: Sequence[int]) -> Read:
    path = _write(table_of(encoding, truth, image=[png(0)] * len(truth)), folder / "x.parquet")
    return lambda **more: ParquetImagesSource(path, columns=_named(encoding), **more).records()


def _hub(ending: str) -> Callable[[Path, Encoding, Sequence[int]], Read]:
    def reader(folder: Path, encoding: Encoding, truth: Sequence[int]) -> Read:
        _write(table_of(encoding, truth, image=["a.png"] * len(truth)), folder / "data" / f"train{ending}")
        columns = {"image": "image", **_named(encoding)}
        return lambda **more: HuggingFaceSource(path=str(folder), columns=columns, **more).records()

    return reader


def _tars(member: str) -> Callable[[Path, Encoding, Sequence[int]], Read]:
    """Labels in `.json` or `.cls` members, or in the Parquet file beside the tar."""

    def reader(folder: Path, encoding: Encoding, truth: Sequence[int]) -> Read:
        members, columns = [], _named(encoding)
        for k, cell in enumerate(encoding.values(truth)):
            members.append((f"{k:04d}.png", png(0)))
            if member == "json":
                members.append((f"{k:04d}.json", json.dumps({encoding.column: cell}).encode()))
            if member == "cls" and cell is not None:
                members.append((f"{k:04d}.cls", str(cell).encode()))
        write_tar(folder / "00000.tar", members)
        if member == "parquet":
            table = table_of(encoding, truth, key=[f"{k:04d}" for k in range(len(truth))])
            _write(table, folder / "00000.parquet")
        settings = {"columns": {} if member == "cls" else columns, "index_dir": str(folder / "index")}
        return lambda **more: WebDatasetSource(str(folder / "00000.tar"), **settings, **more).records()

    return reader


def _arrays(ending: str) -> Callable[[Path, Encoding, Sequence[int]], Read]:
    """Labels in an array beside the features, or in a table of metadata."""

    def reader(folder: Path, encoding: Encoding, truth: Sequence[int]) -> Read:
        own, settings = {}, {}
        if ending == ".npz":
            own = {encoding.column: np.array(encoding.values(truth))}
        else:
            settings = {"metadata": _write(table_of(encoding, truth), folder / f"m{ending}")}
        np.savez(folder / "f.npz", features=np.eye(len(truth), dtype=np.float32), **own)
        path = str(folder / "f.npz")
        return lambda **more: ArraysSource(
            path, features="features", label=encoding.column, **settings, **more
        ).records()

    return reader


def _store(ending: str | None) -> Callable[[Path, Encoding, Sequence[int]], Read]:
    """Labels in the metadata of a store, or in a manifest beside it."""

    def reader(folder: Path, encoding: Encoding, truth: Sequence[int]) -> Read:
        (folder / "s" / "img_emb").mkdir(parents=True)
        np.save(folder / "s" / "img_emb" / "img_emb_0.npy", np.eye(len(truth), dtype=np.float32))
        own = {"image_path": [f"i{k}" for k in range(len(truth))]}
        bare = pa.table(own)
        _write(table_of(encoding, truth, **own) if ending is None else bare, folder / "s/metadata/metadata_0.parquet")
        settings: dict[str, Any] = {"columns": _named(encoding)}
        if ending is not None:
            manifest = _write(table_of(encoding, truth, id=own["image_path"]), folder / f"m{ending}")
            settings = {"manifest": manifest, "manifest_columns": _named(encoding)}
        return lambda **more: StoreSource(str(folder / "s"), **settings, **more).records()

    return reader


READERS: dict[str, Callable[[Path, Encoding, Sequence[int]], Read]] = {
    "manifest .csv": _manifest(".csv"),
    "manifest .jsonl": _manifest(".jsonl"),
    "manifest .parquet": _manifest(".parquet"),
    "parquet_images": _images,
    "hugging_face .csv": _hub(".csv"),
    "hugging_face .jsonl": _hub(".jsonl"),
    "hugging_face .parquet": _hub(".parquet"),
    "webdataset json": _tars("json"),
    "webdataset cls": _tars("cls"),
    "webdataset sidecar": _tars("parquet"),
    "arrays .npz": _arrays(".npz"),
    "arrays with .csv": _arrays(".csv"),
    "arrays with .parquet": _arrays(".parquet"),
    "store": _store(None),
    "store with .csv": _store(".csv"),
    "store with .parquet": _store(".parquet"),
}


def can_hold(reader: str, encoding: Encoding) -> bool:
    """Whether what the reader reads can hold labels so written: types and names are kept by Parquet alone."""
    if encoding.kind == pa.binary() and reader in ("parquet_images", "hugging_face .parquet"):
        return False  # which take binary columns for images
    if encoding.typed:
        return reader.endswith((".parquet", "sidecar")) or reader in ("parquet_images", "store")
    if reader.endswith(".npz"):
        return not encoding.empty  # there would be objects, which are never loaded
    # `cls` is a text of its own, whatever a column would be called
    return reader != "webdataset cls" or encoding.column == "label"


def saved_to_disk(folder: Path, encoding: Encoding, truth: Sequence[int]) -> Read:
    """What `datasets` itself writes with `save_to_disk`."""
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(encoding.classes))}
    )
    images = [{"bytes": png(0), "path": None}] * len(truth)
    made = datasets.Dataset.from_dict({"image": images, "label": encoding.values(truth)}, features=features)
    made.save_to_disk(folder / "saved")
    return lambda **more: HuggingFaceSource(path=str(folder / "saved"), **more).records()


def npz_of(**arrays: Any) -> bytes:
    """An `.npz` in memory."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
