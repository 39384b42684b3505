"""Images to a store: resumable shard by shard, safe to kill at any moment."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.embeddings.store import (
    PLAN_FILE,
    EmbeddingStore,
    Plan,
    begin,
    committed,
    is_store,
    read_plan,
    write_shard,
)
from guardtrain.encoders import EncoderSettings, EncoderSpec, load_encoder, resolve_spec
from guardtrain.errors import ConfigError, DataError, GuardtrainError, StoreError
from guardtrain.records import Records
from guardtrain.sources.base import BatchImageSource, ImageSource

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder

SHARD_SIZE = 4096
STORAGE = ("float32", "float16")
_AHEAD = 2  # batches decoded beyond the one the encoder works on


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
) -> EmbeddingStore:
    """Embed every image of `source` into the store at `folder`; what is there already is kept.

    Killed at any moment, it goes on at the first shard that is not wholly written, and the files end up the same byte
    for byte. One process at a time writes to a folder; another waits.

    Args:
        source: images and records; with `images` (see `BatchImageSource`) and images of the model's size, no PIL.
        encoder: settings, or the spec of an encoder used before.
        shard_size: rows a shard. A store begun with another size keeps it.
        batch_size: images a forward pass; default: the settings'. It can change the last bits of a float, so results
            with different batch sizes agree within rounding only.
        storage: float32 or float16 on disk.
        workers: threads that read and decode; default: the processors there are.
        progress: a bar, True or False; None shows one on a terminal, and elsewhere a line at the start and the end.
        label: what is embedded, for the progress bar and lines; default: images.
        spec: what `encoder` resolves to, where the caller knows it already.
        load: how to load the encoder.

    Raises:
        ConfigError: a shard size, batch size or storage type that is not allowed.
        DataError: no records, missing images, or an image that cannot be read, with its record and file.
        EncoderError: see `load_encoder`.
        StoreError: embeddings that are not finite, or a folder that holds other work.
    """
    if shard_size < 1 or (batch_size is not None and batch_size < 1):
        raise ConfigError(f"shard_size and batch_size must be at least 1; they are {shard_size} and {batch_size}.")
    if storage not in STORAGE:
        raise ConfigError(f"storage must be one of {', '.join(STORAGE)}; it is '{storage}'.")
    folder = Path(folder).expanduser()
    records = source.records()
    if not len(records):
        raise DataError(f"{label or 'The source'} holds no records, so there is nothing to embed.")
    spec = spec or (encoder if isinstance(encoder, EncoderSpec) else resolve_spec(encoder))
    plan = Plan(len(records), shard_size, records.digest(), source.content_key(), spec.fingerprint, storage)
    with _only_writer(folder):
        plan = _continued(folder, plan)
        todo = [i for i in range(plan.shards) if committed(folder, plan, i) is None]
        if todo:
            model = load(_with_batch_size(encoder, batch_size))
            begin(folder, plan, model.spec)
            rows = sum(stop - start for start, stop in map(plan.bounds, todo))
            # Threads deliberately: as many as processors we may run on, whatever torch guesses from the machine.
            with (
                _torch_threads(workers or _processors()),
                _reported(progress, plan.rows, plan.rows - rows, f"{label or 'images'} with {spec.label}") as advance,
            ):
                _write_shards(source, records, model, folder, plan, todo, workers or _processors(), advance)
    return EmbeddingStore.open(folder)


def _with_batch_size(encoder: EncoderSettings | EncoderSpec, batch_size: int | None) -> EncoderSettings | EncoderSpec:
    if isinstance(encoder, EncoderSpec) or batch_size is None:
        return encoder
    return replace(encoder, batch_size=batch_size)


def _continued(folder: Path, plan: Plan) -> Plan:
    """The plan to go on with: the one in the folder where it is of the same work, whatever its shard size."""
    begun = read_plan(folder)
    if begun is None:
        if is_store(folder):
            raise StoreError(
                f"The folder {folder} holds embeddings that guardtrain did not write, or has lost its {PLAN_FILE}: "
                "choose another folder, or delete that one. A store of others is read as it is, with StoreSource."
            )
        return plan
    if replace(begun, shard_size=plan.shard_size) == plan:
        return begun
    differing = [name for name in vars(plan) if name != "shard_size" and getattr(plan, name) != getattr(begun, name)]
    raise StoreError(
        f"The folder {folder} holds a store of other work (other {', '.join(differing)}): choose another folder, or "
        "delete that one."
    )


def _write_shards(
    source: ImageSource,
    records: Records,
    model: Encoder,
    folder: Path,
    plan: Plan,
    todo: list[int],
    workers: int,
    advance: Callable[[int], None],
) -> None:
    # Batches start anew with each shard: the same images share a forward pass whether or not a run was interrupted.
    batches = [
        (shard, np.arange(first, min(first + model.batch_size, stop)))
        for shard in todo
        for start, stop in [plan.bounds(shard)]
        for first in range(start, stop, model.batch_size)
    ]
    parts: list[np.ndarray] = []
    for (shard, rows), inputs in zip(batches, _inputs(source, records, model, batches, workers), strict=True):
        parts.append(model.forward(inputs).cpu().numpy())
        start, stop = plan.bounds(shard)
        if rows[-1] + 1 == stop:
            write_shard(folder, plan, shard, np.concatenate(parts), records.take(np.arange(start, stop)))
            parts = []
        advance(len(rows))


def _inputs(
    source: ImageSource, records: Records, model: Encoder, batches: list[tuple[int, np.ndarray]], workers: int
) -> Iterator[Any]:
    """The model's input for each batch, decoded a few batches ahead while the model works."""
    import torch

    def one(i: int) -> torch.Tensor:
        try:
            return model.preprocess(source.image(i))
        except GuardtrainError:
            raise
        except Exception as error:  # Pillow's plugins and fsspec's file systems raise errors of any kind
            raise DataError(
                f"The image of record {records.ids[i]} ({records.image_uri(i)}) cannot be read: {error!r}. "
                "Mend the file, or leave the record out."
            ) from error

    def whole(rows: np.ndarray) -> torch.Tensor:
        return model.prepare(source.images(rows))  # type: ignore[attr-defined]

    batched = isinstance(source, BatchImageSource)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    pending: deque[list[Future[torch.Tensor]]] = deque()
    try:
        for number in range(len(batches) + _AHEAD):
            if number < len(batches):
                rows = batches[number][1]
                pending.append(
                    [pool.submit(whole, rows)] if batched else [pool.submit(one, int(i)) for i in rows],
                )
            if number >= _AHEAD:
                done = [future.result() for future in pending.popleft()]
                yield done[0] if batched else torch.stack(done)
    finally:
        # On an error or Ctrl-C, do not decode what nobody will use.
        pool.shutdown(wait=True, cancel_futures=True)


def _processors() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """The lock of a store. The system gives it up when its holder dies, kill -9 included."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another process is writing {folder}: waiting for it.", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _reported(progress: bool | None, total: int, done: int, what: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, or one line at the start and one at the end."""
    from rich.console import Console

    console = Console(stderr=True)
    if progress is False:
        yield lambda rows: None
        return
    if progress or console.is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(f"Embedding {what}", total=total, completed=done)
            yield lambda rows: bar.advance(task, rows)
        return
    started = time.perf_counter()
    kept = f", {done:,} done before" if done else ""
    print(f"Embedding {what}: {total:,} images{kept}", file=sys.stderr, flush=True)
    yield lambda rows: None
    seconds = time.perf_counter() - started
    rate = (total - done) / max(seconds, 1e-9)
    print(f"Embedded {total - done:,} images in {seconds:.1f} s ({rate:.0f} a second)", file=sys.stderr, flush=True)
