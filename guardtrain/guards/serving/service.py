"""A guard behind a batcher: what is asked goes in, results come out, whoever the client is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guardtrain.embeddings.forwarding import processors
from guardtrain.errors import GuardtrainError
from guardtrain.guards.looking import Seen, UnreadableImage
from guardtrain.guards.predicting import ImageJudge, Verdicts
from guardtrain.guards.serving.batching import Batcher, Closed, QueueFull
from guardtrain.guards.serving.connections import Connections
from guardtrain.guards.serving.messages import NearImage, PredictAnswer, Result
from guardtrain.guards.serving.metrics import ServiceMetrics
from guardtrain.guards.serving.problems import Problem, readable, without_bytes
from guardtrain.guards.serving.reading import MEGABYTE, Asked, Buffers
from guardtrain.guards.serving.settings import ServeSettings
from guardtrain.sources.frames import STILLS


@dataclass(frozen=True)
class _Job:
    """An image's bytes, or all embeddings of a request, and how many neighbours to name."""

    content: bytes | np.ndarray
    explain: int


@dataclass(frozen=True)
class _ReadyJob:
    """An image as it was seen, or embeddings (N, D)."""

    seen: Seen | None
    embeddings: np.ndarray | None
    explain: int


@dataclass(frozen=True)
class _Judged:
    """An answer, and of an image by which frame it was judged."""

    verdicts: Verdicts
    seen: Mapping[str, Any] = field(default_factory=dict)


class GuardService:
    """A guard that many ask at once.

    Args:
        judge: the guard in steps.
        settings: limits and thread counts.
    """

    def __init__(self, judge: ImageJudge, settings: ServeSettings) -> None:
        self.judge, self.guard, self.settings = judge, judge.guard, settings
        threads = settings.threads or processors()
        self.buffers = Buffers(int(settings.max_buffered_mb * MEGABYTE))
        self.metrics = ServiceMetrics(
            lambda: self.batcher.waiting, lambda: self.buffers.held, lambda: self.connections.number
        )
        self.connections = Connections(
            settings.max_connections, settings.headers_s, 2 * settings.timeout_s, self.metrics.connection_ended
        )
        self.batcher: Batcher[_Job, _ReadyJob, _Judged] = Batcher(
            self._prepare,
            self._work,
            max_batch=settings.max_batch,
            max_wait=settings.max_wait_ms / 1e3,
            max_waiting=settings.max_queue,
            threads=settings.decode_threads or min(8, threads),
            begin=lambda: _use_threads(threads),
            begin_preparing=lambda: _use_threads(1),  # the frames of an animation go through the encoder there
            observe=self._observe,
        )

    async def answer(self, asked: Asked, point: str | None = None, explain: int | None = None) -> PredictAnswer:
        """The guard's answer.

        Args:
            asked: images or embeddings.
            point: the operating point of `decision`; None for the guard's default.
            explain: how many nearest training examples to name.

        Raises:
            Problem: an unknown point (422), embeddings that are refused (422), no image that can be read (422), more
                pixels than one request may have (413), too much waiting (429), no answer in time or at the end of the
                service (503).
        """
        point, explain = self._point(point), self._explain(explain)
        if asked.embeddings is not None:
            judged = await self._judge_embeddings(asked, explain)
            results = [self._result(str(i), judged, i, point, explain) for i in range(len(judged.verdicts))]
            return PredictAnswer(point=point, results=results)
        if not self.judge.reads_images:
            raise Problem(422, f"This guard reads embeddings of {self.guard.spec.label} only; send `embeddings`.")
        contents = [content for _, content in asked.images if isinstance(content, bytes)]
        await self._refuse_much(contents)
        outcomes = iter(await self._outcomes([_Job(content, explain) for content in contents]))
        results, errors = [], []
        for number, (name, content) in enumerate(asked.images):
            outcome = content if isinstance(content, Problem) else next(outcomes)
            if isinstance(outcome, _Judged):
                results.append(self._result(name, outcome, 0, point, explain))
                continue
            if not isinstance(outcome, UnreadableImage | Problem):
                raise _told(outcome, None)
            reason = without_bytes(str(outcome))
            errors.append((number, reason))
            self.metrics.images.labels("unreadable").inc()
            results.append(Result(id=name, probability=None, decision=None, decisions={}, error=reason))
        if len(errors) == len(results):
            number, text = errors[0]
            raise Problem(422, f"The image cannot be read: {text}.", f"images[{number}]")
        return PredictAnswer(point=point, results=results)

    async def _refuse_much(self, contents: Sequence[bytes]) -> None:
        """Images that would keep all threads busy beyond the time for an answer are refused before one is decoded."""
        most = self.settings.max_request_megapixels
        if len(contents) < 2 and STILLS * self.settings.max_megapixels <= most:
            return  # one has its own limit, which is lower
        found = await asyncio.to_thread(lambda: sum(map(self.judge.size, contents))) / 1e6
        if found > most:
            what = "The image has" if len(contents) == 1 else f"The {len(contents)} images have"
            raise Problem(
                413,
                f"{what} {found:,.0f} megapixels together; the most of one request is {most:,g}. Send fewer at once, "
                "or smaller ones; of an animation, all its frames count.",
                "images",
            )

    async def _judge_embeddings(self, asked: Asked, explain: int) -> _Judged:
        spec = self.guard.spec
        assert asked.embeddings is not None
        if asked.fingerprint not in (None, spec.fingerprint):
            raise Problem(
                422,
                f"The embeddings are of an encoder with another fingerprint than this guard's, {spec.label} "
                f"({spec.fingerprint[:12]}…).",
                "fingerprint",
            )
        (outcome,) = await self._outcomes([_Job(asked.embeddings, explain)])
        if isinstance(outcome, _Judged):
            return outcome
        raise _told(outcome, "embeddings")

    async def _outcomes(self, jobs: Sequence[_Job]) -> list[_Judged | BaseException]:
        """Return what became of each job."""
        if not jobs:
            return []
        try:
            futures = self.batcher.submit(jobs)
        except QueueFull:
            raise Problem(429, f"{self.settings.max_queue} images are waiting already.") from None
        except Closed:
            raise Problem(503, "The service is about to end.") from None
        # on a timeout and where the client went away they are cancelled: nobody waits any more
        waited: list[asyncio.Future[_Judged]] = [asyncio.wrap_future(future) for future in futures]
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return list(await asyncio.gather(*waited, return_exceptions=True))
        except TimeoutError:
            raise Problem(503, f"No answer within {self.settings.timeout_s:g} seconds: too much to do.") from None

    def _point(self, name: str | None) -> str:
        points = self.guard.points
        if name is not None and name not in points:
            have = ", ".join(points)
            raise Problem(422, f"There is no operating point '{readable(name)}'; this guard has: {have}.", "point")
        return points.default if name is None else name

    def _explain(self, number: int | None) -> int:
        most = self.settings.max_explain
        if number is not None and not 0 <= number <= most:
            raise Problem(422, f"`explain` may be from 0 to {most}.", "explain")
        return number or 0

    def _result(self, name: str, judged: _Judged, i: int, point: str, explain: int) -> Result:
        verdicts = judged.verdicts
        decisions: dict[str, Any] = {name: values[i] for name, values in verdicts.decisions.items()}
        categories: dict[str, Any] = dict(verdicts.categories[i])
        shares = zip(verdicts.category_names, verdicts.category_probabilities[i].tolist(), strict=True)
        self.metrics.images.labels("judged").inc()
        self.metrics.decisions.labels(point, decisions[point]).inc()
        return Result(
            id=name,
            probability=float(verdicts.probabilities[i]),
            decision=decisions[point],
            decisions=decisions,
            categories=categories,
            category=verdicts.category(point)[i],
            category_probabilities=dict(shares),
            neighbours=[NearImage(**vars(near)) for near in verdicts.neighbours[i][:explain]],
            **judged.seen,
        )

    def _prepare(self, job: _Job) -> _ReadyJob:
        if isinstance(job.content, np.ndarray):
            return _ReadyJob(None, job.content, job.explain)
        started = time.perf_counter()
        seen = self.judge.look(job.content)
        self.metrics.decode_seconds.observe(time.perf_counter() - started)
        return _ReadyJob(seen, None, job.explain)

    def _work(self, jobs: list[_ReadyJob]) -> list[_Judged]:
        """All images in one pass of the encoder and one of the head; each request's embeddings by themselves."""
        if len(jobs) > 1 and any(job.embeddings is not None for job in jobs):
            images = [job for job in jobs if job.embeddings is None]
            judged = iter(self._work(images) if images else [])
            return [next(judged) if job.embeddings is None else self._work([job])[0] for job in jobs]
        if jobs[0].embeddings is not None:
            return [_Judged(self.judge.judge(jobs[0].embeddings, jobs[0].explain))]
        seen = [job.seen for job in jobs if job.seen is not None]
        whole = self.judge.judge(self.judge.embed([one.pixels for one in seen]), max(job.explain for job in jobs))
        return [_Judged(whole.of(i), one.columns()) for i, one in enumerate(seen)]

    def _observe(self, size: int, seconds: float) -> None:
        self.metrics.batch_size.observe(size)
        self.metrics.batch_seconds.observe(seconds)


def _told(error: BaseException, where: str | None) -> BaseException:
    """Turn what the asker can mend into a problem; a fault of ours stays as it is."""
    return Problem(422, without_bytes(str(error)), where) if isinstance(error, GuardtrainError) else error


def _use_threads(number: int) -> None:
    import torch

    torch.set_num_threads(number)
