"""Images or texts to a store: resumable shard by shard, safe to kill at any moment, nothing lost."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from guardtrain.embeddings import quarantine
from guardtrain.embeddings.arithmetic import AUTO
from guardtrain.embeddings.build import list_set_aside
from guardtrain.embeddings.contents import read_contents
from guardtrain.embeddings.forwarding import EmbeddedRows
from guardtrain.embeddings.progress import reported
from guardtrain.embeddings.quarantine import SetAside
from guardtrain.embeddings.reading import TextReader
from guardtrain.embeddings.renewal import HASH_COLUMN, renewal
from guardtrain.embeddings.shards import Shard
from guardtrain.embeddings.store import (
    PLAN_FILE,
    EmbeddingStore,
    Plan,
    begin,
    committed,
    is_store,
    read_plan,
    write_plan,
    write_shard,
)
from guardtrain.embeddings.worker import Crew, Engine, Job, LocalEngine
from guardtrain.embeddings.writing import named_failures, only_writer
from guardtrain.encoders import EncoderSettings, EncoderSpec, load_encoder, resolve_spec
from guardtrain.errors import ConfigError, DataError, StoreError
from guardtrain.records import Records
from guardtrain.sources.base import EncodedImageSource, ImageSource
from guardtrain.sources.frames import by_first_frame

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder

SHARD_SIZE = 4096
STORAGE = ("float32", "float16")
ON_ERROR = ("quarantine", "raise")

log = logging.getLogger(__name__)


def extract(
    source: ImageSource,
    encoder: EncoderSettings | EncoderSpec,
    folder: str | Path,
    *,
    shard_size: int = SHARD_SIZE,
    batch_size: int | None = None,
    storage: str = "float32",
    workers: int | None = None,
    progress: bool | None = None,
    label: str | None = None,
    spec: EncoderSpec | None = None,
    load: Callable[[EncoderSettings | EncoderSpec], Encoder] = load_encoder,
    text: str | None = None,
    on_error: str = "quarantine",
    retry: bool = False,
    engine: Engine | None = None,
    wait: bool = False,
    known: Collection[str] = (),
) -> EmbeddingStore:
    """Embed every record of `source` into the store at `folder`; what is there already is kept.

    Embeddings are kept by id and image. What the store says of their records is what `source` says today: labels and
    other columns that were mended since are renewed, all at once and without embedding, and a line of the log counts
    them.

    Killed at any moment, it goes on at the first shard that is not wholly written, and the files end up the same byte
    for byte. One process at a time writes to a folder; another is refused, or waits (see `only_writer`).

    What cannot be read (a truncated file, another format, a missing one, a decompression bomb) is set aside: the store
    has no row of it, and `quarantine.parquet` in its folder lists id, uri and reason. More than half of the records is
    an error all the same.

    With `encoder.dtype=auto` the arithmetic is bfloat16 where that is quicker and gives float32's embeddings (see
    `choose_arithmetic`); `extraction.json` says which it was, and a store is finished as it was begun.

    Args:
        source: images and records. The quickest of what it has is used: `images` (see `BatchImageSource`), `encoded`
            (see `EncodedImageSource`; the files' sha256 becomes a column of the metadata), `image`.
        encoder: settings, or the spec of an encoder used before.
        shard_size: rows a shard. A store begun with another size keeps it.
        batch_size: images a forward pass; default: the settings'. It can change the last bits of a float, so results
            with different batch sizes agree within rounding only.
        storage: float32 or float16 on disk.
        workers: threads that read, decode and, on the CPU, embed; default: the processors there are.
        progress: a bar, True or False; None shows one on a terminal, and elsewhere a line at the start and the end.
        label: what is embedded, for the progress bar and lines; default: images.
        spec: what `encoder` resolves to, where the caller knows it already.
        load: how to load the encoder.
        text: embed this column of the records (prompts, captions) with the encoder's text tower, in place of images.
        on_error: `quarantine`, or `raise` at the first record that cannot be embedded.
        retry: try the records in quarantine again, and nothing else. Their files may have changed since; all others
            must hold what they held.
        engine: who makes the shards; default: this process. See `RayEngine`.
        wait: for another process that writes to the folder; it is an error otherwise.
        known: ids of records that could not be embedded before, and need not count again as too many.

    Raises:
        ConfigError: a shard size, batch size, storage type or `on_error` that is not allowed.
        DataError: no records, more than half of them unreadable, or with `on_error=raise` the first that is.
        EncoderError: see `load_encoder`.
        StoreError: embeddings that are not finite, a folder that holds other work, cannot be written to or has another
            writer.
    """
    if shard_size < 1 or (batch_size is not None and batch_size < 1):
        raise ConfigError(f"shard_size and batch_size must be at least 1; they are {shard_size} and {batch_size}.")
    for name, value, allowed in (("storage", storage, STORAGE), ("on_error", on_error, ON_ERROR)):
        if value not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}; it is '{value}'.")
    folder = Path(folder).expanduser()
    records = source.records()
    if not len(records):
        raise DataError(f"{label or 'The source'} holds no records, so there is nothing to embed.")
    spec = spec or (encoder if isinstance(encoder, EncoderSpec) else resolve_spec(encoder))
    plan = Plan(
        len(records), shard_size, records.digest(), content_key(source, records, text), spec.fingerprint, storage
    )
    what, kind = label or ("images" if text is None else "texts"), "images" if text is None else "texts"
    with only_writer(folder, wait=wait):
        begun = _continued(folder, plan, source if text is None else None, retry)
        plan = begun or plan
        missing = _missing(folder, plan, retry)
        grown = read_contents(folder) is not None  # it was added to, so that its list of shards says what is in it
        if retry and grown and missing:
            raise StoreError(
                f"The store {folder} has been added to since: `guardtrain store append` tries again what is set aside "
                "there."
            )
        if missing:
            job = Job(source, records, _with_batch_size(encoder, batch_size), load, text, workers, storage)
            free = begun is None and isinstance(encoder, EncoderSettings) and encoder.dtype == AUTO
            with (engine or LocalEngine()).crew(job) as crew:
                full_spec, arithmetic = crew.settle(None if free else plan.arithmetic)
                if free:
                    plan = replace(plan, arithmetic=arithmetic)
                with named_failures(folder):
                    begin(folder, plan, full_spec)
                _write_shards(folder, plan, records, crew, missing, progress, f"{what} with {spec.label}", kind,
                              on_error, known)  # fmt: skip
        if begun is not None:
            with named_failures(folder):
                renewal(_written(folder, plan, grown), records).write(folder)
                if plan != read_plan(folder):
                    write_plan(folder, plan)  # the same images, whose files were found to be written anew
        set_aside = set_aside_in(folder, plan)
        if grown:
            store = EmbeddingStore.open(folder)
            set_aside = quarantine.still_set_aside(set_aside, store.metadata())
            list_set_aside(store)
        else:
            with named_failures(folder):
                quarantine.write_list(folder, set_aside)
    if set_aside and on_error == "raise":
        raise _unreadable(set_aside[0])
    quarantine.refuse_too_many([e for e in set_aside if e.id not in known], plan.rows - len(known), kind)
    quarantine.warn(set_aside, plan.rows, what, folder)
    return EmbeddingStore.open(folder)


def content_key(source: ImageSource, records: Records, text: str | None = None) -> str:
    """The key of what is embedded: the source's, or that of its texts."""
    return source.content_key() if text is None else TextReader(records, text).content_key()


def _written(folder: Path, plan: Plan, grown: bool) -> tuple[Shard, ...]:
    """The shards that are there: of a store that was added to, those others made, too."""
    if grown:
        return EmbeddingStore.open(folder).shards
    return tuple(shard for number in range(plan.shards) if (shard := committed(folder, plan, number)) is not None)


def set_aside_in(folder: Path, plan: Plan) -> list[SetAside]:
    """The records that a complete store of this plan lacks, in their order."""
    found: list[SetAside] = []
    for number in range(plan.shards):
        shard = committed(folder, plan, number)
        if shard is not None and shard.rows != len(range(*plan.bounds(number))):
            found += quarantine.noted(shard.metadata)
    return found


def _write_shards(
    folder: Path,
    plan: Plan,
    records: Records,
    crew: Crew,
    missing: dict[int, list[int]],
    progress: bool | None,
    what: str,
    kind: str,
    on_error: str,
    known: Collection[str],
) -> None:
    rows = sum(map(len, missing.values()))
    lost, animations = 0, list[int]()
    with (
        reported(progress, plan.rows, plan.rows - rows, what, kind) as advance,
        closing(crew.embed(missing, advance)) as made,
    ):
        for number, result, set_aside in made:
            if set_aside and on_error == "raise":
                raise _unreadable(set_aside[0])
            lost += sum(each.id not in known for each in set_aside)
            animations += result.animations
            _write(folder, plan, number, records, result, set_aside, len(missing[number]))
            if lost > quarantine.MOST_SET_ASIDE * (plan.rows - len(known)):
                break  # and say so, once they are listed
    if animations:
        log.warning("%s", by_first_frame(what, "embedded", records.ids[animations].tolist()))
    if crew.idle_seconds > 1:
        print(
            f"The GPU waited {crew.idle_seconds:.0f} s for images: more processors, smaller images or a nearer "
            "source would make it quicker.",
            file=sys.stderr,
        )


def _write(
    folder: Path,
    plan: Plan,
    number: int,
    records: Records,
    result: EmbeddedRows,
    set_aside: list[SetAside],
    tried: int,
) -> None:
    """Write a shard of new rows, together with those it has where only its quarantine was tried again."""
    start, stop = plan.bounds(number)
    rows, matrix, digests = list(result.rows), result.matrix, list(result.digests)
    if tried < stop - start:
        before = committed(folder, plan, number)
        assert before is not None, "only whole shards are retried in part"
        lost = {each.row for each in quarantine.noted(before.metadata)}
        rows = [row for row in range(start, stop) if row not in lost] + rows
        order = np.argsort(rows)
        matrix = np.concatenate([np.load(before.matrix, allow_pickle=False), matrix])[order]
        digests = [*_digests(before.metadata), *digests]
        digests = [digests[i] for i in order] if digests else []
        rows = sorted(rows)
    kept = records.take(rows)
    if digests and HASH_COLUMN not in kept.table.column_names:
        kept = Records(kept.table.append_column(HASH_COLUMN, pa.array(digests, pa.string())), kept.root)
    with named_failures(folder):
        write_shard(folder, plan, number, matrix, kept, set_aside)


def _digests(metadata: Path) -> list[str]:
    if HASH_COLUMN not in pq.read_schema(metadata).names:
        return []
    return [str(digest) for digest in pq.read_table(metadata, columns=[HASH_COLUMN])[HASH_COLUMN].to_pylist()]


def _missing(folder: Path, plan: Plan, retry: bool) -> dict[int, list[int]]:
    """Shard -> rows to embed: all of those not written; with `retry` the set-aside ones of those that are."""
    missing: dict[int, list[int]] = {}
    for number in range(plan.shards):
        start, stop = plan.bounds(number)
        shard = committed(folder, plan, number)
        if shard is None:
            missing[number] = list(range(start, stop))
        elif retry and shard.rows < stop - start:
            missing[number] = [each.row for each in quarantine.noted(shard.metadata)]
    return missing


def _unreadable(each: SetAside) -> DataError:
    return DataError(
        f"The image of record {each.id} ({each.uri}) cannot be read: {each.reason}. Mend the file, leave the record "
        "out, or have it set aside with on_error=quarantine."
    )


def _with_batch_size(encoder: EncoderSettings | EncoderSpec, batch_size: int | None) -> EncoderSettings | EncoderSpec:
    if isinstance(encoder, EncoderSpec) or batch_size is None:
        return encoder
    return replace(encoder, batch_size=batch_size)


def _continued(folder: Path, plan: Plan, source: ImageSource | None, retry: bool) -> Plan | None:
    """The plan to go on with: the one in the folder where it is of the same work, whatever its shard size.

    Args:
        source: of images.
        retry: some of its files may have changed, if none that is embedded did.
    """
    begun = read_plan(folder)
    if begun is None:
        if is_store(folder):
            raise StoreError(
                f"The folder {folder} holds embeddings that guardtrain did not write, or has lost its {PLAN_FILE}: "
                "choose another folder, or delete that one. A store of others is read as it is, with StoreSource."
            )
        return None
    own = ("shard_size", "arithmetic")  # the store's, whatever is asked for today
    differing = [name for name in vars(plan) if name not in own and getattr(plan, name) != getattr(begun, name)]
    if differing == ["content_key"] and retry and source is not None and _same_files(folder, begun, source):
        return replace(begun, content_key=plan.content_key)
    if not differing:
        return begun
    hint = ""
    if differing == ["content_key"] and not retry and isinstance(source, EncodedImageSource):
        hint = " If the images are the same and only what is known of them was written anew, retry=true goes on there."
    elif "records_digest" in differing and not {"fingerprint", "storage"}.intersection(differing):
        hint = f" `guardtrain store append path={folder} …` adds records that it has not."
    raise StoreError(
        f"The folder {folder} holds a store of other work (other {', '.join(differing)}): choose another folder, or "
        f"delete that one.{hint}"
    )


def _same_files(folder: Path, plan: Plan, source: ImageSource) -> bool:
    """Whether every file that is embedded still holds the bytes it did."""
    import hashlib

    if not isinstance(source, EncodedImageSource):
        return False
    for number in range(plan.shards):
        shard = committed(folder, plan, number)
        if shard is None:
            return False  # embed what is left first: of its files nothing is known
        lost = {each.row for each in quarantine.noted(shard.metadata)}
        rows = [row for row in range(*plan.bounds(number)) if row not in lost]
        digests = _digests(shard.metadata)
        if len(digests) != len(rows):
            return False
        for row, digest in zip(rows, digests, strict=True):
            try:
                if hashlib.sha256(source.encoded(row)).hexdigest() != digest:
                    return False
            except OSError:
                return False
    return True
