"""Shards embedded on a Ray cluster: an actor holds the encoder and takes whole shards, the driver writes them.

Plain actors, for a shard is both what is written at once and where the model's passes begin anew: split over the
stages of Ray Data's pipelines, its pixels would go through the object store and its images share other passes, whose
floats differ in their last bits. The driver writes, because the lock of the store is its alone, the store then needs
no disk that all machines share, and a shard is small (4096 rows of 768 float16 are 6 MB).
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from guardtrain.embeddings.forwarding import EmbeddedRows, processors
from guardtrain.embeddings.quarantine import SetAside
from guardtrain.embeddings.worker import Crew, Job, Made, Worker
from guardtrain.encoders import EncoderSpec
from guardtrain.errors import EngineError, GuardtrainError
from guardtrain.installing import install_line
from guardtrain.own_code import own_modules

DEATHS_A_SHARD = 3  # more, and it is the shard that kills its workers
_AHEAD = 2  # shards an actor has: the one it embeds and the next, so that it need not wait for the driver
_LOOK_SECONDS = 0.5  # how often progress is asked for
_WAIT_SECONDS = 30.0  # for room in a cluster, before it is said that we wait


@dataclass(frozen=True)
class RayEngine:
    """Ray, here or on a cluster.

    The stores are those of `LocalEngine` byte for byte where an actor's threads share processors as the local
    worker's do: one thread a worker, which is what up to eight processors make.

    Args:
        actors: processes with an encoder each; None for as many as there is room for.
        cpus_per_actor: processors of each: its threads read, decode and, on the CPU, embed.
        gpus_per_actor: GPUs of each; half a GPU is .5.
        address: of a cluster: `auto`, `HOST:PORT` or `ray://HOST:10001`; None starts Ray on this machine, for this
            job alone, unless the program has started it already.
    """

    actors: int | None = None
    cpus_per_actor: float = 1
    gpus_per_actor: float = 0
    address: str | None = None

    @contextmanager
    def crew(self, job: Job) -> Iterator[Crew]:
        """Actors with the encoder loaded, or loading it.

        Raises:
            EngineError: no Ray, no cluster, or no room in it.
            GuardtrainError: what an actor says of the encoder.
        """
        ray = _ray()
        ours = not ray.is_initialized()
        if ours:
            self._connect(ray)
        try:
            crew = _RayCrew(ray, job, self, self._size(ray))
            try:
                yield crew
            finally:
                crew.dismiss()
        finally:
            if ours:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address is None:
            options |= {"num_cpus": processors(), "include_dashboard": False}
        start(ray, self.address, "engine.address", address=self.address or "local", **options)

    def _size(self, ray: Any) -> int:
        """How many actors there are to be: as many as are asked for, else as the machines hold at once."""
        found = room(ray, self.cpus_per_actor, self.gpus_per_actor)
        if found:
            return self.actors or found
        lacking = no_room(ray, "an actor", self.cpus_per_actor, self.gpus_per_actor)
        settings = "engine.cpus_per_actor and engine.gpus_per_actor"
        if self.address is None:
            raise EngineError(f"{lacking} Set {settings}, or engine.address.")
        print(f"{lacking} It is waited for until one comes; {settings} ask for less.", file=sys.stderr, flush=True)
        return self.actors or 1  # a cluster may grow


def start(ray: Any, address: str | None, setting: str, /, **options: Any) -> None:
    """Start a Ray on this machine, or find the one at `address`, which the user gives by `setting`.

    Args:
        ray: the module.
        address, setting: for the error; None where it is started here.
        options: of `ray.init`.

    Raises:
        EngineError: it cannot be had.
    """
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, ImportError, TimeoutError) as error:
        where = "here" if address is None else f"at {setting}={address}"
        raise EngineError(f"Ray cannot be had {where}: {_first_line(error)}") from None


def room(ray: Any, cpus: float, gpus: float) -> int:
    """How many processes of so many processors and GPUs the machines of a Ray hold at once.

    Args:
        ray: the module, connected.
        cpus, gpus: of each; fractions are fine.
    """
    held = 0
    for node in ray.nodes():
        there = node["Resources"] if node["Alive"] else {}
        places = [there.get(name, 0) / asked for name, asked in (("CPU", cpus), ("GPU", gpus)) if asked]
        held += math.floor(min(places, default=1) + 1e-9)
    return held


def no_room(ray: Any, what: str, cpus: float, gpus: float) -> str:
    """Return an error's text for a `room` of 0: what is asked for, and the most that a machine has."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = " and ".join(f"{max((one.get(name, 0) for one in nodes), default=0):g}" for name in ("CPU", "GPU"))
    return f"No machine of Ray has room for {what} of {cpus:g} processors and {gpus:g} GPUs; the most is {most}."


class _Actor:
    """A worker process of Ray. The encoder is loaded by a method: Ray hides what constructors raise."""

    def __init__(self, job: Job, share: int, folder: str) -> None:
        self._job, self._share, self._folder = job, share, folder
        self._worker: Worker | None = None
        self._at = (-1, 0)  # the shard, and how many rows of it are done

    def load(self) -> None:
        """Load the encoder, in the folder that relative paths start from."""
        if Path(self._folder).is_dir():  # on another machine it need not be there
            os.chdir(self._folder)
        self._worker = Worker(self._job, self._share)

    def settle(self, arithmetic: str | None) -> tuple[EncoderSpec, str]:
        """See `Crew.settle`."""
        assert self._worker is not None
        return self._worker.settle(arithmetic)

    def embed(
        self, number: int, rows: Sequence[int], arithmetic: str, storage: str
    ) -> tuple[EmbeddedRows, list[SetAside], float]:
        """A shard, its embeddings in the store's type, and how long the GPU has waited in all."""
        assert self._worker is not None
        self._worker.settle(arithmetic)
        self._at = (number, 0)
        ((_, result, set_aside),) = self._worker.embed({number: rows}, self._advance)
        with np.errstate(over="ignore"):  # the driver refuses what has become infinite
            result = replace(result, matrix=result.matrix.astype(storage, copy=False))
        return result, set_aside, self._worker.idle_seconds

    def at(self) -> tuple[int, int]:
        """The shard that is being embedded, and how many of its rows are done; answered at any time."""
        return self._at

    def _advance(self, rows: int) -> None:
        self._at = (self._at[0], self._at[1] + rows)


@dataclass(eq=False)
class _Member:
    """The driver's view of an actor."""

    actor: Any
    loading: Any  # the reference of its `load`; None once it has
    tasks: deque[tuple[int, Any]] = field(default_factory=deque)  # shard and reference, in the order they were given
    asked: Any = None  # the reference of an `at`
    idle_seconds: float = 0.0

    @property
    def next(self) -> Any:
        """The reference of what it will have done next; None where it has nothing to do."""
        return self.loading if self.loading is not None else self.tasks[0][1] if self.tasks else None


class _RayCrew:
    """The actors and their work. One that dies is replaced, and its shards are given out again.

    Args:
        ray: the module, connected.
        job: the work.
        engine: what an actor is to have.
        size: how many there are to be.
    """

    def __init__(self, ray: Any, job: Job, engine: RayEngine, size: int) -> None:
        self._ray, self._size, self._storage = ray, size, job.storage
        self._share = max(1, int(engine.cpus_per_actor))
        _send_whole(ray)
        self._made = ray.remote(
            num_cpus=engine.cpus_per_actor,
            num_gpus=engine.gpus_per_actor,
            max_restarts=0,
            concurrency_groups={"asked": 1},  # a thread of its own, so that `at` is answered while a shard is embedded
        )(_Actor)
        try:
            self._job = ray.put(job)  # once a machine, not once an actor
        except (TypeError, AttributeError) as error:  # pickle's, in many lines
            name, why = type(job.source).__name__, _first_line(error.__cause__ or error)
            raise EngineError(f"The source {name} cannot be sent to Ray's actors: {why}") from None
        self._arithmetic: str | None = None
        self._deaths: Counter[int | None] = Counter()
        self._members = [self._hire() for _ in range(size)]

    @property
    def idle_seconds(self) -> float:
        """How long a GPU waited for images, on average."""
        return sum(member.idle_seconds for member in self._members) / max(1, len(self._members))

    def settle(self, arithmetic: str | None) -> tuple[EncoderSpec, str]:
        """See `Crew.settle`: the first actor that is ready says it, and all others do as it does."""
        while True:
            member = self._first_loaded()
            try:
                spec, found = self._ray.get(member.actor.settle.remote(arithmetic))
            except self._ray.exceptions.RayTaskError as error:
                raise _cause(error) from None
            except self._ray.exceptions.RayError as error:
                self._replace(member, error)
            else:
                self._arithmetic = found if arithmetic is None else arithmetic
                return spec, found

    def embed(self, shards: Mapping[int, Sequence[int]], advance: Callable[[int], None]) -> Generator[Made, None, None]:
        """See `Crew.embed`; in the order they are done."""
        waiting = deque(shards)
        shown: Counter[int] = Counter()  # rows of a shard that `advance` was told of
        while waiting or any(member.tasks for member in self._members):
            self._give_out(waiting, shards)
            awaited = {member.next: member for member in self._members if member.next is not None}
            done, _ = self._ray.wait(list(awaited), timeout=_LOOK_SECONDS)
            self._look(shown, advance)
            for member in map(awaited.__getitem__, done):
                if member.loading is not None:
                    self._finish_loading(member)
                    continue
                number, reference = member.tasks[0]
                try:
                    result, set_aside, member.idle_seconds = self._ray.get(reference)
                except self._ray.exceptions.RayTaskError as error:
                    raise _cause(error) from None
                except self._ray.exceptions.RayError as error:  # the actor died, or its machine with what it had made
                    for lost, _ in reversed(member.tasks):
                        waiting.appendleft(lost)
                        advance(-shown.pop(lost, 0))
                    self._replace(member, error, number)
                    continue
                member.tasks.popleft()
                advance(len(shards[number]) - shown.pop(number, 0))
                yield number, result, set_aside

    def dismiss(self) -> None:
        """End all actors, whatever they are doing."""
        for member in self._members:
            self._ray.kill(member.actor)

    def _give_out(self, waiting: deque[int], shards: Mapping[int, Sequence[int]]) -> None:
        """Each actor its next shards: first one each, and towards the end no second one, which others could have."""
        assert self._arithmetic is not None
        loaded = [member for member in self._members if member.loading is None]
        for held in range(_AHEAD):
            for member in loaded:
                if len(member.tasks) == held and len(waiting) > held * self._size:
                    number = waiting.popleft()
                    reference = member.actor.embed.remote(number, shards[number], self._arithmetic, self._storage)
                    member.tasks.append((number, reference))

    def _look(self, shown: Counter[int], advance: Callable[[int], None]) -> None:
        """Ask those at work how far they are, and pass on what they answered."""
        for member in self._members:
            if member.asked is not None and self._ray.wait([member.asked], timeout=0)[0]:
                try:
                    number, rows = self._ray.get(member.asked)
                except self._ray.exceptions.RayError:
                    number, rows = -1, 0  # dead, which its task will tell
                if member.tasks and number == member.tasks[0][0] and rows > shown[number]:
                    advance(rows - shown[number])
                    shown[number] = rows
                member.asked = None
            if member.asked is None and member.tasks:
                member.asked = member.actor.at.options(concurrency_group="asked").remote()

    def _hire(self) -> _Member:
        actor = self._made.remote(self._job, self._share, str(Path.cwd()))
        return _Member(actor, actor.load.remote())

    def _first_loaded(self) -> _Member:
        """An actor with the encoder loaded."""
        said, started = False, time.monotonic()
        while True:
            for member in self._members:
                if member.loading is None:
                    return member
            done, _ = self._ray.wait([member.loading for member in self._members], timeout=_LOOK_SECONDS)
            for member in [each for each in self._members if each.loading in done]:
                self._finish_loading(member)
            if not said and time.monotonic() - started > _WAIT_SECONDS:
                said = True
                print("Waiting for Ray to find room for an actor and load the encoder.", file=sys.stderr, flush=True)

    def _finish_loading(self, member: _Member) -> None:
        try:
            self._ray.get(member.loading)
            member.loading = None
        except self._ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except self._ray.exceptions.RayError as error:
            self._replace(member, error)

    def _replace(self, member: _Member, error: Exception, shard: int | None = None) -> None:
        """A new actor in the place of one that died, unless too many have.

        Raises:
            EngineError: at this shard, or while loading the encoder, for the fourth time.
        """
        self._deaths[shard] += 1
        if self._deaths[shard] > DEATHS_A_SHARD:
            doing = "before they embedded anything" if shard is None else f"at shard {shard}"
            raise EngineError(
                f"{self._deaths[shard]} of Ray's actors died {doing}: too little memory, or a file that crashes its "
                f"decoder? Ray says: {_first_line(error)} What is written is kept; the same command goes on from there."
            )
        self._ray.kill(member.actor)
        self._members[self._members.index(member)] = self._hire()


def _send_whole(ray: Any) -> None:
    """Let a source of the user's own go to the actors with its module, whose file need not be on their machines."""
    for module in own_modules():
        ray.cloudpickle.register_pickle_by_value(module)


def _ray() -> Any:
    """The module, quiet."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")  # what it prints of actors that die; we redo their work
    os.environ.setdefault("RAY_worker_niceness", "0")  # else all else on this machine goes before its workers
    try:
        import ray
    except ImportError:
        raise EngineError(
            f"engine=ray needs Ray, which is not installed: {install_line('ray')}. engine=local does without."
        ) from None
    return ray


def _cause(error: Any) -> BaseException:
    """Return what an actor's method raised, without Ray's wrapping; with its traceback if it is no message to users."""
    cause: BaseException = error.cause
    if not isinstance(cause, GuardtrainError):
        cause.add_note(f"In an actor of Ray:\n{error}")
    return cause


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
