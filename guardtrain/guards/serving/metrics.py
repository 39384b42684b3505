"""What the service counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ServiceMetrics:
    """The metrics of one service, in a registry of their own."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(
        self, waiting: Callable[[], float], buffered: Callable[[], float], connected: Callable[[], float]
    ) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.guard = Info("guardtrain_guard", "The guard that is served", registry=registry)
        self.requests = Counter(
            "guardtrain_requests", "Requests by route and HTTP status", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "guardtrain_request_seconds",
            "Time from a request's head to its answer",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "guardtrain_batch_size", "Images (or requests of embeddings) a batch", buckets=_SIZES, registry=registry
        )
        self.batch_seconds = Histogram(
            "guardtrain_batch_seconds", "Time of a batch in encoder and head", buckets=_SECONDS, registry=registry
        )
        self.decode_seconds = Histogram(
            "guardtrain_decode_seconds", "Time to read and scale an image", buckets=_SECONDS, registry=registry
        )
        self.images = Counter(
            "guardtrain_images",
            "Inputs by what became of them: judged, or unreadable",
            ["outcome"],
            registry=registry,
        )
        self.decisions = Counter(
            "guardtrain_decisions",
            "Decisions at the point that was asked for",
            ["point", "decision"],
            registry=registry,
        )
        queue = Gauge("guardtrain_queue_depth", "Images that have no answer yet", registry=registry)
        queue.set_function(waiting)
        held = Gauge("guardtrain_buffered_bytes", "Bytes of requests that are held in memory", registry=registry)
        held.set_function(buffered)
        connections = Gauge("guardtrain_connections", "Connections that are open", registry=registry)
        connections.set_function(connected)
        self.ended = Counter(
            "guardtrain_connections_ended",
            "Connections that the service ended: slow, unused when others needed room, or refused",
            ["reason"],
            registry=registry,
        )

    def connection_ended(self, reason: str) -> None:
        """Count it."""
        self.ended.labels(reason).inc()

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
