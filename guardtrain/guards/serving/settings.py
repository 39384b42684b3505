"""What one may set of a guard's web service."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from omegaconf import MISSING

from guardtrain.errors import ConfigError
from guardtrain.guards.base_rates import checked_share
from guardtrain.sources.frames import DEFAULT_FRAMES, most_frames

_POSITIVE = (
    "max_batch",
    "max_queue",
    "max_body_mb",
    "max_buffered_mb",
    "max_images",
    "max_megapixels",
    "max_request_megapixels",
    "max_connections",
    "headers_s",
    "timeout_s",
)
_OR_NOTHING = ("threads", "decode_threads")


@dataclass
class ServeSettings:
    """A guard's web service.

    Args:
        guard: its folder, or its name on the Hugging Face Hub.
        revision: of the Hub: branch, tag or commit.
        prior: share of unsafe images among those that will be sent, for which the probabilities then hold; null for the
            share the guard was made for. No decision changes.
        host: address to listen on; 0.0.0.0 for all of this machine's. There is no login: put a gateway in front.
        port: to listen on; 0 takes a free one.
        device: auto, cpu, cuda, cuda:1, mps.
        checkpoint: where the encoder's weights lie; null for where they lay when the guard was made.
        trusted_heads: dotted names of head definitions outside guardtrain that may be imported.
        threads: of the encoder; null for the processors that this process may run on.
        decode_threads: that read images; null for as many as of the encoder, at most 8.
        max_batch: images a forward pass.
        max_wait_ms: how long the worker waits for images that are being decoded to fill a batch. It never waits where
            nothing is on its way.
        max_queue: images that may be waiting; beyond, requests are told to come back (429).
        max_body_mb: size of a request.
        max_buffered_mb: size of all requests at once; beyond, they are told to come back (429).
        max_images: images (or embeddings) in a request.
        frames: of an animation that are looked at: `first`, `all`, or how many, spread evenly, the first and the last
            among them. It is judged by the likeliest to be unsafe.
        max_megapixels: of an image, however small its file is; an animation may have four times as many in all its
            frames.
        max_request_megapixels: of all images of a request; 32 photographs of a telephone have fewer.
        max_explain: nearest training examples that may be asked for.
        max_connections: open at once. Beyond, those that are held without a request make room; where all have
            requests, new ones are told to come back (503). Where the process may open too few files (`ulimit -n`,
            which is raised as far as the system lets it), there are fewer.
        headers_s: for a request's line and headers to arrive; then the connection is ended.
        timeout_s: for a request to arrive (408), and from then for its answer (503).
        shutdown_s: for answers to what was taken before the end.
        page: whether `/` is a page to drop an image on.
    """

    guard: str = MISSING
    revision: str | None = None
    prior: float | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    device: str = "auto"
    checkpoint: str | None = None
    trusted_heads: list[str] = field(default_factory=list)
    threads: int | None = None
    decode_threads: int | None = None
    max_batch: int = 32
    max_wait_ms: float = 2.0
    max_queue: int = 256
    max_body_mb: float = 32.0
    max_buffered_mb: float = 256.0
    max_images: int = 32
    frames: str = DEFAULT_FRAMES
    max_megapixels: float = 64.0
    max_request_megapixels: float = 400.0
    max_explain: int = 10
    max_connections: int = 4096
    headers_s: float = 10.0
    timeout_s: float = 30.0
    shutdown_s: float = 30.0
    page: bool = True

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be above 0; it is {getattr(self, name)}.")
        for name in _OR_NOTHING:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, or null; it is {value}.")
        for name in ("max_wait_ms", "max_explain", "shutdown_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be 0 or more; it is {getattr(self, name)}.")
        if self.prior is not None:
            checked_share(self.prior)
        most_frames(self.frames)
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port must be a number from 0 to 65535; it is {self.port}.")
        if self.max_images > self.max_queue:
            raise ConfigError(
                f"max_queue is {self.max_queue}, too small for one request of max_images={self.max_images}."
            )
        if self.max_megapixels > self.max_request_megapixels:
            raise ConfigError(
                f"max_request_megapixels is {self.max_request_megapixels:g}, too small for one image of "
                f"max_megapixels={self.max_megapixels:g}."
            )
        if self.max_body_mb > self.max_buffered_mb:
            raise ConfigError(
                f"max_buffered_mb is {self.max_buffered_mb:g}, too small for one request of "
                f"max_body_mb={self.max_body_mb:g}."
            )

    @classmethod
    def of(cls, settings: object) -> ServeSettings:
        """Return the settings of a command's config that are the service's."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})
