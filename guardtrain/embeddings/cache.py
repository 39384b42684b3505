"""Embeddings of any source: read where they exist, made and kept where they do not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from guardtrain.embeddings import quarantine
from guardtrain.embeddings.store import Embeddings, EmbeddingStore, Plan, read_plan
from guardtrain.encoders.resolve import resolve_spec
from guardtrain.encoders.spec import LOADABLE, EncoderSettings, EncoderSpec, external_spec, require_same
from guardtrain.errors import ConfigError, DataError, StoreError
from guardtrain.records import Records
from guardtrain.sources.base import EmbeddingSource, ImageSource, Source

if TYPE_CHECKING:
    from guardtrain.embeddings.worker import Engine


def embed(
    source: Source,
    encoder: EncoderSettings | EncoderSpec | None,
    cache_dir: str | Path,
    *,
    shard_size: int | None = None,
    storage: str = "float32",
    workers: int | None = None,
    progress: bool | None = None,
    label: str | None = None,
    text: str | None = None,
    on_error: str = "quarantine",
    retry: bool = False,
    engine: Engine | None = None,
) -> Embeddings:
    """The embeddings of `source`'s records, in their order, but for those that could not be embedded.

    Images: the store of this encoder and these images under `cache_dir` is read, without torch, where it is complete;
    otherwise it is made, or gone on with. What is returned is always what the files hold, so it does not depend on
    whether they were there. The records are the source's own of today, so a corrected label needs no new embedding.
    Records that were set aside (see `extract`) are left out, and so is the other half of their pair; a warning says so
    each time.

    Embeddings: they are returned as they are.

    Args:
        source: an image source or an embedding source.
        encoder: settings or a spec; None where the source brings embeddings. An embedding source that records its
            encoder (a store) must have been made by this one.
        cache_dir: where stores and resolved specs are kept.
        shard_size, storage, workers, progress, label, text, on_error, retry, engine: see `extract`.

    Raises:
        ConfigError: images and no encoder.
        DataError, StoreError, EncoderError: see `extract` and `EmbeddingStore.open`.
        StoreError: nothing can be kept under `cache_dir`.
    """
    cache = Path(cache_dir).expanduser()
    if isinstance(source, EmbeddingSource):
        matrix = source.embeddings()
        spec = external_spec(source.encoder_description(), matrix.shape[1])
        if encoder is not None and (spec.family in LOADABLE or isinstance(encoder, EncoderSpec)):
            require_same(spec, _spec(encoder, cache), f"the source {_named(source)}")
        return Embeddings(source.records(), matrix, spec)
    if not isinstance(source, ImageSource):
        raise DataError(f"The source {_named(source)} gives neither images nor embeddings.")
    if encoder is None:
        raise ConfigError(f"The source {_named(source)} gives images: an encoder must be set.")
    spec = _spec(encoder, cache)
    records = source.records()
    from guardtrain.embeddings.extraction import SHARD_SIZE, content_key, extract, set_aside_in

    folder = store_folder(cache, spec, records, content_key(source, records, text), storage)
    store = _complete(folder)
    if store is None:
        _require_writable(folder, cache)
    whole = store is not None and len(store) == len(records)
    if store is None or (not whole and (retry or on_error == "raise")):
        store = extract(
            source,
            encoder,
            folder,
            shard_size=SHARD_SIZE if shard_size is None else shard_size,
            storage=storage,
            workers=workers,
            progress=progress,
            label=label,
            spec=spec,
            text=text,
            on_error=on_error,
            retry=retry,
            engine=engine,
            wait=True,  # another job of the same sweep is making the same store
        )
    store.require(spec)
    if len(store) == len(records):
        return Embeddings(records, store.matrix(), store.spec)
    plan = read_plan(folder)
    assert plan is not None, "the store was made here"
    set_aside = set_aside_in(folder, plan)
    kind = "images" if text is None else "texts"
    quarantine.refuse_too_many(set_aside, len(records), kind)
    stored, rows, halves = quarantine.rows_left(records, set_aside)
    quarantine.warn(set_aside, len(records), label or kind, folder, halves)
    return Embeddings(records.take(rows), store.matrix().take(stored), store.spec)


def store_folder(cache: Path, spec: EncoderSpec, records: Records, content_key: str, storage: str = "float32") -> Path:
    """Where the store of these images under this encoder lies; the path changes with all that changes the numbers."""
    work = hashlib.sha256(f"{content_key}\0{records.digest()}\0{storage}".encode()).hexdigest()
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in spec.label)
    return cache / f"{name}-{spec.fingerprint[:12]}" / work[:16]


def _spec(encoder: EncoderSettings | EncoderSpec, cache: Path) -> EncoderSpec:
    return encoder if isinstance(encoder, EncoderSpec) else resolve_spec(encoder, memo=cache / "specs")


def _require_writable(folder: Path, cache: Path) -> None:
    """Know before the work that it can be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StoreError(
            f"Embeddings cannot be kept under {cache} ({error.strerror or error}). Give a folder that can be written "
            "to: cache_dir=FOLDER, or the environment variable GUARDTRAIN_CACHE."
        ) from error


def _complete(folder: Path) -> EmbeddingStore | None:
    plan: Plan | None = read_plan(folder)
    if plan is None:
        return None
    try:
        return EmbeddingStore.open(folder)
    except StoreError:
        return None


def _named(source: Any) -> str:
    path = getattr(source, "path", None) or getattr(source, "root", None)
    return f"{type(source).__name__}({path})" if path else type(source).__name__
