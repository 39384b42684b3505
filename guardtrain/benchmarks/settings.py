"""What `guardtrain benchmark` is told: guards, data sets, what each guard is judged on, and what is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from guardtrain.benchmarks.training_images import LEAVE_OUT, require_choice
from guardtrain.benchmarks.vision_language_settings import VisionLanguageSettings
from guardtrain.errors import ConfigError

FORMATS = ("png", "svg", "pdf")


@dataclass
class BenchmarkSettings:
    """`guardtrain benchmark`: guards, yours and those of others, on the same images.

    Args:
        guards: folders or names on the Hugging Face Hub; yours first, for others are compared with the first. Also
            `{path: …, name: …, categories: […], point: …, revision: …}`. Scores that others published are
            `{scores: FILE, name: …, categories: […]}`: a table of `id` (or `image`) and `score`, with a column
            `decision` (safe, unsafe, review) where one half is no threshold. None where `vlm` is judged alone.
        data_sets: what they are judged on; `data=…` is the same. Each is a table of images, a folder with safe/ and
            unsafe/, a store, or NAME or NAME:PART of a data config: all its test sets, or one, or its pool `real` or
            `pairs`, whole (a folder of such a name is `./NAME`). Also `{NAME: {path: …, …}}` with further settings of
            the source, `{NAME: {_target_: …}}`, `{NAME: {config: …}}`, and `made_by: ENCODER` beside them for
            embeddings of which you know that this encoder made them.
        compare_with: the name of the guard that others are compared with; null for the first.
        categories: which categories a guard is judged on, by its name: `{NAME: [Sexual]}`, `[]` for all; null for
            those that a published guard was made for, and all for yours.
        points: the operating point of a guard, by its name; null for its default.
        in_distribution: data sets whose like your guards were trained on, or those of each guard by its name; null
            for those of the data config that a guard says it was trained on.
        real: values of `source` whose images are photographs, beside the usual ones (real, laion5b, …). A value here
            and in `generated` and `categories` that no data set has is an error, unless it ends in a question mark.
        generated: those whose images came out of a generator, beside the usual ones (generated, lexica, …).
        training_images: what becomes of images that a guard was trained on: `leave_out` of its figures, or `keep`.
        vlm: a vision-language model that is asked about the images besides; none without `vlm.model`.
        reference: published figures to show beside yours, where your data have a category (and source) of that name:
            `unsafebench`, its paper's and what others measured on its images; null for none.
        replicates: of the bootstrap.
        confidence: of intervals.
        seed: of the bootstrap.
        trusted_heads: dotted names of head definitions outside guardtrain that may be imported.
        checkpoint: where encoders' weights lie: a path, or `{ENCODER: PATH}`; null for where the guards say.
        device: auto, cpu, cuda, cuda:1, mps.
        batch_size: images a forward pass of an encoder.
        formats: of the figure: png, pdf, svg.
        out: folder of tables, scores, figure and report; started again there, nothing is scored twice.
        data_dir: where data configs look for files; default: `$GUARDTRAIN_DATA`, else `data`.
        cache_dir: where embeddings are kept; default: `$GUARDTRAIN_CACHE`, else `~/.cache/guardtrain`.
    """

    guards: Any = field(default_factory=list)
    data_sets: Any = MISSING
    compare_with: str | None = None
    categories: Any = None  # mappings, which typed as such nobody could add to
    points: Any = None
    in_distribution: Any = None
    real: list[str] = field(default_factory=list)
    generated: list[str] = field(default_factory=list)
    training_images: str = LEAVE_OUT
    vlm: VisionLanguageSettings = field(default_factory=VisionLanguageSettings)
    reference: str | None = "unsafebench"
    replicates: int = 1000
    confidence: float = 0.95
    seed: int = 0
    trusted_heads: list[str] = field(default_factory=list)
    checkpoint: Any = None
    device: str = "auto"
    batch_size: int = 256
    formats: list[str] = field(default_factory=lambda: ["png", "pdf"])
    out: str = MISSING
    data_dir: str = MISSING
    cache_dir: str = MISSING

    def __post_init__(self) -> None:
        require_choice(self.training_images)
        if self.replicates < 20:
            raise ConfigError(f"replicates is {self.replicates}; intervals need at least 20, better 1000.")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(f"confidence is {self.confidence:g}; allowed: from 0.5 to below 1.")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; it must be at least 1.")
        if unknown := [name for name in self.formats if name not in FORMATS]:
            raise ConfigError(f"formats has '{unknown[0]}'; allowed: {', '.join(FORMATS)}.")
        if both := {_plain(name) for name in self.real} & {_plain(name) for name in self.generated}:
            raise ConfigError(f"The source '{sorted(both)[0]}' is listed as real and as generated.")
        for name in ("categories", "points"):
            if not isinstance(getattr(self, name), Mapping | None):
                raise ConfigError(f"{name} must be a mapping by guard, such as '{name}={{NAME: …}}'.")


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
