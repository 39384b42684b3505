"""The settings of `guardtrain predict`."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from guardtrain.errors import ConfigError
from guardtrain.guards.base_rates import checked_share
from guardtrain.sources.frames import DEFAULT_FRAMES, most_frames

SUFFIXES = (".parquet", ".csv", ".jsonl", ".ndjson")  # of the tables


@dataclass
class PredictConfig:
    """`guardtrain predict`: images judged by a guard → answers on the screen, or a table of them.

    Args:
        guard: its folder, or its name on the Hugging Face Hub.
        revision: of the Hub: branch, tag or commit.
        inputs: files, folders, globs, URLs, or tables with a column `image`; paths may be given without `inputs=`.
        columns: of such tables, where they are called otherwise: `{image: path, id: name}`.
        out: a table, ending in .parquet, .csv or .jsonl; `-` for JSON lines on stdout; null for answers on the screen.
        overwrite: replace a file that is there.
        point: the operating point; null for the guard's default.
        prior: share of unsafe images among those to be judged, such as 0.02, for which the probabilities then hold;
            null for the share the guard was made for. No decision changes.
        explain: how many of the nearest training images to name with each image.
        frames: of an animation that are looked at: `first`, `all`, or how many, spread evenly, the first and the last
            among them. It is judged by the likeliest to be unsafe.
        max_megapixels: of an image, or of a frame; what is larger counts as unreadable.
        device: auto, cpu, cuda, cuda:1, mps.
        checkpoint: where the encoder's weights lie; null for where they lay when the guard was made.
        trusted_heads: dotted names of head definitions outside guardtrain that may be imported.
        workers: threads that read, decode and, on the CPU, embed; null for the processors there are.
        part_size: images that are kept at once; what a crash can cost at most.
        progress: a bar; null shows one on a terminal.
    """

    guard: str = MISSING
    revision: str | None = None
    inputs: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    out: str | None = None
    overwrite: bool = False
    point: str | None = None
    prior: float | None = None
    explain: int = 0
    frames: str = DEFAULT_FRAMES
    max_megapixels: float = 89.0
    device: str = "auto"
    checkpoint: str | None = None
    trusted_heads: list[str] = field(default_factory=list)
    workers: int | None = None
    part_size: int = 2048
    progress: bool | None = None

    def __post_init__(self) -> None:
        if self.prior is not None:
            checked_share(self.prior)
        if self.explain < 0:
            raise ConfigError(f"explain must be 0 or more; it is {self.explain}.")
        if self.part_size < 1 or (self.workers is not None and self.workers < 1):
            raise ConfigError("part_size and workers must be at least 1.")
        if not 0 < self.max_megapixels < float("inf"):
            raise ConfigError(f"max_megapixels must be above 0; it is {self.max_megapixels}.")
        most_frames(self.frames)
