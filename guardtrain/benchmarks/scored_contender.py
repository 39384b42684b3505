"""Scores that others published as a contender of a benchmark: a table of images and what a guard said of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from guardtrain.benchmarks.effectiveness import Entrant
from guardtrain.benchmarks.outcomes import Outcome
from guardtrain.benchmarks.scores import Contender, DataSet, Scores
from guardtrain.encoders.spec import EncoderSpec
from guardtrain.errors import DataError
from guardtrain.guards.known_images import KnownImages
from guardtrain.guards.operating_points import DECISIONS
from guardtrain.sources.tables import read_table
from guardtrain.words import listed, near

if TYPE_CHECKING:
    import pyarrow as pa

    from guardtrain.guards.guard import Guard

IDS = ("id", "image")  # columns that name the image, the first that is there
SCORE, DECISION = "score", "decision"
THRESHOLD = 0.5  # of scores without decisions


@dataclass(frozen=True, eq=False)
class ScoredTable:
    """A guard that is known by its scores alone, as far as a benchmark asks one for more.

    Args:
        path: of the table.
        about: in place of a guard's `config.json`.
        known_images: none, for nobody says what it was trained on.
    """

    path: Path
    about: Mapping[str, Any]
    known_images: KnownImages = field(default_factory=KnownImages)

    @property
    def spec(self) -> EncoderSpec:
        """No encoder's: the images were judged elsewhere."""
        return EncoderSpec("external", self.path.name, name=f"unknown: its scores are in {self.path.name}")


@dataclass(frozen=True, eq=False)
class ScoredContender(Contender):
    """A guard of others in a benchmark, by its scores; build one with `scored_contender`.

    Args:
        table: as `Scores` has it: `id`, `logit`, `probability`, `decision`.
    """

    table: pa.Table = field(kw_only=True)
    scored: ClassVar[bool] = True

    @cached_property
    def _place(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.table["id"].to_pylist())}

    def asked(self, data: DataSet, say: Callable[[str], None]) -> Scores:
        """Return its scores of a data set's images; one that its table lacks has no answer, which bounds figures.

        Raises:
            DataError: its table has no image of the data set.
        """
        ids = [str(name) for name in data.records.ids]
        rows = [self._place[name] for name in ids if name in self._place]
        if not rows:
            path = cast(ScoredTable, self.guard).path
            raise DataError(
                f"The scores {path} are of no image of '{data.name}': they name images such as "
                f"'{next(iter(self._place), '')}', and the data set's ids are such as '{ids[0]}'."
            )
        without = {name: Outcome.NO_ANSWER for name in ids if name not in self._place}
        return Scores(self.table.take(rows), computed=True, without=without)


def scored_contender(path: str, name: str, categories: tuple[str, ...] = (), told: bool = False) -> ScoredContender:
    """Read the scores that a guard of others gave as a contender.

    Args:
        path: of a table with `id` or `image` (the ids of the data sets), `score` (the higher, the more unsafe), and
            `decision` (safe, unsafe or review). Without decisions a score is a probability, and unsafe from one half
            on. An image without a score has no answer.
        name: what tables call it.
        categories: that it is judged on; () for all.
        told: whether the user said so.

    Raises:
        DataError: no such table or column, an image twice, scores that are no numbers, decisions of another name, or
            scores outside [0, 1] without decisions.
    """
    table = read_table(path, IDS)
    named, origin = set(table.column_names), f"the scores {path}"
    key = next((column for column in IDS if column in named), None)
    if key is None or SCORE not in named:
        lacking = "id or image" if key is None else SCORE
        hint = near("id" if key is None else SCORE, table.column_names)
        raise DataError(f"There is no column {lacking} in {origin}.{hint} It has: {listed(table.column_names, 30)}.")
    frame = table.select([key, SCORE, *([DECISION] if DECISION in named else [])]).to_pandas()
    try:
        frame[SCORE] = frame[SCORE].astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(f"Column '{SCORE}' of {origin} holds values that are no numbers.") from None
    frame = frame[frame[SCORE].notna()]
    if frame.empty:
        raise DataError(f"There is no score in {origin}.")
    frame[key] = frame[key].astype(str)
    if (twice := frame[key].duplicated()).any():
        raise DataError(f"In {origin} image '{frame.loc[twice, key].iloc[0]}' has several scores; it needs one.")
    scores = frame[SCORE].to_numpy()
    shares = bool(scores.min() >= 0 and scores.max() <= 1)
    if DECISION in frame:
        decisions = frame[DECISION].astype(str).str.strip().str.lower()
        if (other := ~decisions.isin(DECISIONS)).any():
            raise DataError(
                f"Column '{DECISION}' of {origin} has '{frame.loc[other, DECISION].iloc[0]}'; a decision is one of "
                f"{', '.join(DECISIONS)}."
            )
        point = "its decisions"
    elif shares:
        decisions = frame[SCORE].ge(THRESHOLD).map({True: "unsafe", False: "safe"})
        point = f"unsafe from a score of {THRESHOLD:g} on"
    else:
        raise DataError(
            f"Scores of {origin} lie in [{scores.min():g}, {scores.max():g}]; without a column '{DECISION}' they are "
            "to be probabilities, in [0, 1]. Give decisions (safe, unsafe), or probabilities."
        )
    about = {"imported": {"scores": path}, "training": {"paper": f"scores in {Path(path).name}"}}
    return ScoredContender(
        cast("Guard", ScoredTable(Path(path), about)),
        Entrant(name, categories, True, None),
        point,
        told=told,
        table=_table(frame[key].tolist(), scores, shares, decisions.tolist()),
    )


def _table(ids: list[str], scores: np.ndarray, shares: bool, decisions: list[str]) -> pa.Table:
    import pyarrow as pa

    # certainty has no logit; the largest and smallest that floats know keep the order of the others
    within = np.clip(scores, np.finfo(float).tiny, 1 - np.finfo(float).epsneg) if shares else scores
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "logit": np.log(within) - np.log1p(-within) if shares else scores,
            "probability": pa.array(scores, pa.float64(), mask=np.full(len(scores), not shares)),
            "decision": pa.array(decisions, pa.string()),
        }
    )
