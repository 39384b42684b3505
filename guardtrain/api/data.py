"""Records, embeddings and pools, from files or arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from guardtrain.api.settings import checked, chosen, curve_settings, names_of
from guardtrain.errors import ConfigError, DataError

if TYPE_CHECKING:
    from guardtrain.embeddings import Embeddings
    from guardtrain.encoders.encoder import Encoder
    from guardtrain.encoders.spec import EncoderSettings, EncoderSpec
    from guardtrain.records import Records
    from guardtrain.sources import Source
    from guardtrain.training.pools import HoldOut, Pools

_CACHE = "~/.cache/guardtrain"
_REAL, _PAIRS = "real", "pairs"


def read_records(path: str | Path, **settings: Any) -> Records:
    """The records of a table (CSV, JSON lines, JSON, Parquet) that lists images and labels.

    Args:
        path: the table; image paths in it start from its own folder.
        settings: of `guardtrain.sources.ManifestSource`: `image_root`, `columns` (such as `{"label": "unsafe"}`),
            `labels` (such as `{"porn": 1, "neutral": 0}`), `where`, `split` and others.

    Raises:
        ConfigError: a setting that it does not have.
        DataError: with the file, column, values or images at fault.

    >>> # gt.read_records("pairs.csv", columns={"image": "file", "pair_id": "pair"})
    """
    from guardtrain.sources import ManifestSource

    if not Path(path).is_file() and "://" not in str(path):
        raise DataError(f"There is no table {path}.")
    return checked(ManifestSource, {"path": str(path), **settings}, "read_records").records()


def list_encoders(pattern: str = "*") -> list[str]:
    """The names that `create_encoder` and `embed` know, those that fit a pattern such as `"*b32*"`."""
    return names_of("encoder", pattern)


def create_encoder(name: str, **settings: Any) -> Encoder:
    """The frozen encoder of that name, loaded: `encoder.spec`, and `encoder.encode(images)`.

    Args:
        name: of `list_encoders()`.
        settings: of `conf/encoder`, such as `checkpoint="weights.pt"` or `device="cuda"`.

    Raises:
        ConfigError: an unknown name or setting.
        EncoderError: weights that cannot be had.
    """
    from guardtrain.encoders import load_encoder

    return load_encoder(_encoder_settings(name, settings))


def embed(
    data: Source | Records | str | Path,
    encoder: str | EncoderSettings | EncoderSpec | Encoder | None = None,
    *,
    cache: str | Path | None = None,
    **options: Any,
) -> Embeddings:
    """The embeddings of images, read from the cache where they are there, else made and kept there.

    Args:
        data: what `read_records` gives; a table's or an image folder's path; or a source, such as
            `guardtrain.sources.HuggingFaceSource(…)`, `SceneSource(…)` or one of your own.
        encoder: a name of `list_encoders()`, or what `create_encoder` gives; None where the source brings embeddings.
        cache: the folder of stores; None for `$GUARDTRAIN_CACHE`, else `~/.cache/guardtrain`.
        options: `workers`, `progress`, `storage`, `on_error` and others of `guardtrain.embeddings.embed`.

    Raises:
        DataError, StoreError, EncoderError: files, stores or weights that are missing or wrong.
    """
    from guardtrain.embeddings.cache import embed as embed_source

    folder = cache or os.environ.get("GUARDTRAIN_CACHE") or _CACHE
    return embed_source(_source(data), _spec(encoder), Path(folder).expanduser(), **options)


def from_arrays(
    matrix: np.ndarray, labels: np.ndarray, *, encoder: Mapping[str, Any] | str = "arrays", **columns: Any
) -> Embeddings:
    """Embeddings that you have, with their labels.

    Args:
        matrix: (N, D) float; rows belong to `labels`.
        labels: (N,) 0 safe, 1 unsafe.
        encoder: what made them: a name, or `{"name": …, "normalized": …}`. Guards refuse those of another.
        columns: further columns of the record table, each (N,): `pair_id` (names a pair: one safe and one unsafe row),
            `group` (rows that are no independent evidence), `category`, `source`, `split`, `id`.

    Raises:
        DataError: shapes that do not fit, labels other than 0 and 1, a pair that is none.
    """
    from guardtrain.embeddings import Embeddings
    from guardtrain.encoders.spec import external_spec
    from guardtrain.records import Records

    rows = np.asarray(matrix)
    if rows.ndim != 2 or len(rows) != len(labels):
        raise DataError(f"Embeddings are (N, D) for N labels; they have shapes {rows.shape} and {np.shape(labels)}.")
    columns.setdefault("id", [f"row-{i:06d}" for i in range(len(rows))])
    table = pa.table({"label": np.asarray(labels).tolist(), **{name: list(values) for name, values in columns.items()}})
    records = Records.from_table(table, origin="the arrays")
    said = {"name": encoder} if isinstance(encoder, str) else dict(encoder)
    return Embeddings(records, rows.astype(np.float32, copy=False), external_spec(said, rows.shape[1]))


def hold_out(
    pool: str,
    *,
    groups: int | None = None,
    fraction: float | None = None,
    split: str | None = None,
    categories: tuple[str, ...] | list[str] = (),
) -> HoldOut:
    """A test set that `make_pools` takes out of a pool, in whole groups: exactly one of the four ways.

    Args:
        pool: `real` or `pairs`.
        groups: how many groups; a pair is one.
        fraction: what share of them.
        split: the records whose split says so, such as `test`.
        categories: the records of these categories, which are then in no pool at all.

    Raises:
        ConfigError: another pool, or not exactly one way.
    """
    from guardtrain.training.pools import HoldOut

    ways = {"groups": groups, "fraction": fraction, "split": split, "categories": tuple(categories) or None}
    if pool not in (_REAL, _PAIRS):
        raise ConfigError(f"A test set is held out of '{_REAL}' or '{_PAIRS}'; it is '{pool}'.")
    if sum(value is not None for value in ways.values()) != 1:
        raise ConfigError(f"hold_out needs exactly one of {', '.join(ways)}, such as hold_out('{pool}', fraction=0.5).")
    return HoldOut(pool, groups, fraction, split, tuple(categories))


def make_pools(
    real: Embeddings,
    pairs: Embeddings | None = None,
    *,
    test: Mapping[str, Embeddings | HoldOut],
    name: str = "data",
    seed: int = 0,
) -> Pools:
    """Return what trainings draw from and are tested on, checked: nothing may lie on both sides.

    Args:
        real: the real pool.
        pairs: the pair pool, whose records have `pair_id`; None for real images alone.
        test: test sets by name: embeddings of their own, or what `hold_out` takes out of a pool.
        name: the data's name in results and cards.
        seed: draws what is held out.

    Raises:
        DataError: a record or group in a pool and a test set, a part of one class only, no test set.
        EncoderError: parts that come from different encoders.

    >>> # gt.make_pools(real, pairs, test={"pairs": gt.hold_out("pairs", fraction=0.5)})
    """
    from guardtrain.training.pools import make_pools as checked_pools

    if not test:
        raise DataError("Name at least one test set, such as test={'pairs': gt.hold_out('pairs', fraction=0.5)}.")
    parts = {_REAL: real} if pairs is None else {_REAL: real, _PAIRS: pairs}
    return checked_pools(name, parts, test, seed=seed)


def _encoder_settings(name: str, settings: Mapping[str, Any]) -> EncoderSettings:
    return curve_settings(chosen("encoder", name, settings)).encoder


def _source(data: Source | Records | str | Path) -> Source:
    from guardtrain.records import Records
    from guardtrain.sources import ImageFolderSource, ManifestSource
    from guardtrain.sources.listed import RecordsSource

    if isinstance(data, Records):
        return RecordsSource(data)
    if isinstance(data, (str, Path)):
        return ImageFolderSource(str(data)) if Path(data).is_dir() else ManifestSource(str(data))
    return data


def _spec(encoder: str | EncoderSettings | EncoderSpec | Encoder | None) -> EncoderSettings | EncoderSpec | None:
    from guardtrain.encoders.encoder import Encoder

    if isinstance(encoder, str):
        return _encoder_settings(encoder, {})
    return encoder.spec if isinstance(encoder, Encoder) else encoder
