"""An encoder at work on the shards of a source: the same in this process as on another machine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from guardtrain.embeddings.arithmetic import choose_arithmetic
from guardtrain.embeddings.forwarding import EmbeddedRows, Forwarder, torch_threads
from guardtrain.embeddings.quarantine import SetAside
from guardtrain.embeddings.reading import make_reader
from guardtrain.encoders import EncoderSettings, EncoderSpec
from guardtrain.records import Records
from guardtrain.sources.base import ImageSource

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder

Made = tuple[int, EmbeddedRows, list[SetAside]]  # a shard, its embeddings, and the records that have none


@dataclass(frozen=True)
class Job:
    """The rows to be embedded, and the means to do it.

    Args:
        source, records: the images.
        encoder: settings, or the spec of an encoder used before.
        load: how to load it.
        text: the column that is embedded in place of images.
        workers: threads of a worker; None for the processors it has.
        storage: float32 or float16, what the store will hold.
    """

    source: ImageSource
    records: Records
    encoder: EncoderSettings | EncoderSpec
    load: Callable[[EncoderSettings | EncoderSpec], Encoder]
    text: str | None = None
    workers: int | None = None
    storage: str = "float32"


class Crew(Protocol):
    """Whoever makes shards: one worker, or many."""

    @property
    def idle_seconds(self) -> float:
        """How long a GPU waited for images."""
        ...

    def settle(self, arithmetic: str | None) -> tuple[EncoderSpec, str]:
        """Embed in this arithmetic; None lets it be chosen (see `choose_arithmetic`).

        Returns:
            the spec with the model's dimensions, and the arithmetic.
        """
        ...

    def embed(self, shards: Mapping[int, Sequence[int]], advance: Callable[[int], None]) -> Generator[Made, None, None]:
        """Each of `shards` (number -> rows), in any order; `advance` is told how many rows each step was."""
        ...


class Engine(Protocol):
    """Where shards are made."""

    def crew(self, job: Job) -> AbstractContextManager[Crew]:
        """Workers for a job, with the encoder loaded; they end with the context."""
        ...


class Worker:
    """A loaded encoder on a job's records.

    Args:
        job: the work.
        processors: that are its to use; default: all there are.
    """

    def __init__(self, job: Job, processors: int | None = None) -> None:
        self._job, self._processors = job, processors
        self._settled: str | None = None
        self._use(job.load(job.encoder))

    @property
    def idle_seconds(self) -> float:
        """See `Crew.idle_seconds`."""
        return self._forwarder.idle_seconds

    def settle(self, arithmetic: str | None) -> tuple[EncoderSpec, str]:
        """See `Crew.settle`; asked again for what it was, it does nothing."""
        job = self._job
        if arithmetic is None:
            self._use(choose_arithmetic(self._model, self._reader, len(job.records), lambda: job.load(job.encoder)))
            arithmetic = self._model.arithmetic
        elif arithmetic not in (self._settled, self._model.arithmetic):
            self._model.use_bfloat16()
        self._settled = arithmetic
        return self._model.spec, self._model.arithmetic

    def embed(self, shards: Mapping[int, Sequence[int]], advance: Callable[[int], None]) -> Generator[Made, None, None]:
        """See `Crew.embed`; in the order they are given."""
        # Threads deliberately: as many as processors we may run on, whatever torch guesses from the machine.
        with (
            torch_threads(self._forwarder.threads),
            closing(embed_shards(self._job.records, self._forwarder, list(shards.values()), advance)) as made,
        ):
            for number, (result, set_aside) in zip(shards, made, strict=True):
                yield number, result, set_aside

    def _use(self, model: Encoder) -> None:
        job = self._job
        self._model = model
        self._reader = make_reader(job.source, job.records, model, job.text)
        self._forwarder = Forwarder(self._reader, model, job.workers, self._processors)


class LocalEngine:
    """This process."""

    @contextmanager
    def crew(self, job: Job) -> Iterator[Crew]:
        """One worker with all processors."""
        yield Worker(job)


def embed_shards(
    records: Records,
    forwarder: Forwarder,
    shards: Iterable[Sequence[int]],
    advance: Callable[[int], None] = lambda rows: None,
) -> Generator[tuple[EmbeddedRows, list[SetAside]], None, None]:
    """Yield what goes into each shard: the embeddings of its rows, and the records that have none.

    Args:
        records: of the source.
        forwarder: a model on the source's records.
        shards: the rows of each.
        advance: told how many rows each step was.
    """
    pair_ids = records.pair_ids
    with closing(forwarder.run(shards, advance)) as results:
        for result in results:
            yield (
                result,
                [
                    SetAside(f.row, str(records.ids[f.row]), records.image_uri(f.row), pair_ids[f.row], f.reason)
                    for f in result.failures
                ],
            )
