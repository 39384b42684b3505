"""A vision-language model as a contender of a benchmark: it is asked about the images, without encoder or head."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from guardtrain.benchmarks.effectiveness import Entrant
from guardtrain.benchmarks.outcomes import Outcome
from guardtrain.benchmarks.scores import Contender, DataSet, Scores
from guardtrain.benchmarks.vision_language import Judged, score_images
from guardtrain.benchmarks.vision_language_prompt import UNSAFEBENCH, prompt_text
from guardtrain.benchmarks.vision_language_settings import VisionLanguageSettings
from guardtrain.encoders.spec import EncoderSpec
from guardtrain.errors import DataError
from guardtrain.sources.base import ImageSource

if TYPE_CHECKING:
    import pyarrow as pa

    from guardtrain.guards.guard import Guard

POINT = "its answer"
ANSWERS = "answers"  # a folder of the cache: whatever the benchmark, no image is paid for twice
_LEAST = 1e-6  # certainty has no logit; words without log-probabilities are as certain as this


@dataclass(frozen=True, eq=False)
class AskedModel:
    """What a benchmark asks a guard besides its scores.

    Args:
        settings: the model's.
        folder: of its answers.
    """

    settings: VisionLanguageSettings
    folder: Path
    about: Mapping[str, Any] = field(default_factory=lambda: {"training": {"data": "nothing of this (zero-shot)"}})

    @property
    def spec(self) -> EncoderSpec:
        """No encoder's, and no embeddings': it looks at the images."""
        return EncoderSpec("external", self.settings.model, name=f"none: {self.settings.model} is asked")


@dataclass(frozen=True, eq=False)
class AskedContender(Contender):
    """A vision-language model in a benchmark; build one with `asked_contender`."""

    asks: ClassVar[bool] = True

    @property
    def model(self) -> AskedModel:
        """What is asked."""
        return cast(AskedModel, self.guard)

    @property
    def digest(self) -> str:
        """Of the model and what it is asked."""
        return hashlib.sha256(json.dumps(asdict(self.model.settings), sort_keys=True).encode()).hexdigest()

    def asked(self, data: DataSet, say: Callable[[str], None]) -> Scores:
        """What it says of the images: those it was asked about before are not asked again.

        An answer that is neither yes nor no leaves the image undecided (probability .5, not flagged); an image without
        an answer is left out, and asked about the next time.

        Raises:
            DataError: embeddings without images.
            GuardtrainError: see `score_images`.
        """
        source = data.source
        if not isinstance(source, ImageSource):
            raise DataError(f"The data set '{data.name}' has no images, and {self.entrant.name} is asked about images.")
        every = [str(name) for name in source.records().ids]
        rows = list(range(len(every)))
        if data.ids is not None:
            place = {name: row for row, name in enumerate(every)}
            rows = [place[name] for name in data.ids]
        judged = score_images(self.model.settings, source, rows, self.model.folder, say=say)
        ids = [every[row] for row in rows]
        without = {ids[place]: Outcome.NO_ANSWER for place in judged.problems}
        return Scores(_table(ids, judged), computed=judged.asked > 0, without=without)


def asked_contender(settings: VisionLanguageSettings, cache: Path) -> AskedContender:
    """The contender of a model, whose answers are kept in a folder of `cache`.

    It is judged on the categories that it is asked about, where those are UnsafeBench's or yours; with a prompt of your
    own on all.

    Raises:
        ConfigError: settings or a prompt that cannot be used.
    """
    settings.check()
    prompt_text(settings)
    categories = () if settings.prompt is not None else tuple(settings.categories or UNSAFEBENCH)
    if set(categories) == set(UNSAFEBENCH):
        categories = ()  # all that the benchmark knows
    entrant = Entrant(settings.label, categories, True, None)
    return AskedContender(cast("Guard", AskedModel(settings, cache / ANSWERS)), entrant, POINT)


def _table(ids: list[str], judged: Judged) -> pa.Table:
    import pyarrow as pa

    answered = np.array([text is not None for text in judged.answers], dtype=bool)
    p = judged.probabilities[answered]
    abstained = np.isnan(p)
    filled = np.where(abstained, 0.5, np.clip(p, _LEAST, 1 - _LEAST))
    decided = np.where(abstained, "review", np.where(filled >= 0.5, "unsafe", "safe"))
    return pa.table(
        {
            "id": pa.array([name for name, there in zip(ids, answered, strict=True) if there], pa.string()),
            "logit": np.log(filled) - np.log1p(-filled),
            "probability": filled,
            "decision": pa.array(decided.tolist(), pa.string()),
        }
    )
