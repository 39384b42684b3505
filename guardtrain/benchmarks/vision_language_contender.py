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
_LEAST = 1e-6  # certainty has no logit; words without a probability are as certain as this


@dataclass(frozen=True, eq=False)
class AskedModel:
    """Stand-in for a guard: what a benchmark asks one besides its scores.

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
        """Return the model that is asked."""
        return cast(AskedModel, self.guard)

    @property
    def digest(self) -> str:
        """Return the key of the model and what it is asked."""
        return hashlib.sha256(json.dumps(asdict(self.model.settings), sort_keys=True).encode()).hexdigest()

    def asked(self, data: DataSet, say: Callable[[str], None]) -> Scores:
        """Ask about the images, but those that it was asked about before.

        An image that it gives no verdict on is missing from its figures, and bounds them; one without an answer is
        asked about the next time.

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
        fates = {name: Outcome(fate) for name, fate in zip(ids, judged.outcomes.tolist(), strict=True)}
        without = {name: fate for name, fate in fates.items() if fate != Outcome.ANSWERED}
        words = {name: text for name, text in zip(ids, judged.answers, strict=True) if text is not None}
        return Scores(_table(ids, judged), judged.asked > 0, without, words)


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

    there = np.flatnonzero(judged.outcomes == Outcome.ANSWERED)
    p, unsafe = judged.probabilities[there], judged.unsafe[there]
    certain = np.clip(np.where(np.isnan(p), unsafe, p), _LEAST, 1 - _LEAST)
    return pa.table(
        {
            "id": pa.array([ids[place] for place in there], pa.string()),
            "logit": np.log(certain) - np.log1p(-certain),
            "probability": pa.array(p, mask=np.isnan(p)),
            "decision": pa.array(np.where(unsafe, "unsafe", "safe").tolist(), pa.string()),
        }
    )
