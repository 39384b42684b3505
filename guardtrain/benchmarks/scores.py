"""What guards say of data sets, image by image: computed once, kept in a folder, read again after that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from guardtrain.benchmarks.effectiveness import Entrant
from guardtrain.benchmarks.outcomes import Outcome
from guardtrain.benchmarks.slices import Judged
from guardtrain.encoders.spec import EncoderSpec, external_spec
from guardtrain.errors import DataError, EncoderError
from guardtrain.files import replace_file
from guardtrain.records import Records
from guardtrain.sources.base import EmbeddingSource, Source

if TYPE_CHECKING:
    import pyarrow as pa

    from guardtrain.embeddings import Embeddings
    from guardtrain.guards.guard import Guard

_DECIDING = ("id", "label", "category", "source", "pair_id", "group")
_ROWS = 65_536  # embeddings read at once


@dataclass(frozen=True, eq=False)
class DataSet:
    """Records that guards are judged on.

    Args:
        name: what tables call it.
        source: of images, or of embeddings.
        ids: which of its records; None for all.
        origin: the data config it is of; None for a file of the user's.
        made_by: the encoder that made the source's embeddings, where the user knows and the source does not say.
        pool: whether it is a whole pool of `origin`, which guards are trained on, and no test set.
    """

    name: str
    source: Source
    ids: tuple[str, ...] | None = None
    origin: str | None = None
    made_by: EncoderSpec | None = None
    pool: bool = False

    @cached_property
    def records(self) -> Records:
        """The records judged."""
        records = self.source.records()
        if self.ids is None:
            return records
        place = {str(name): row for row, name in enumerate(records.ids)}
        return records.take([place[name] for name in self.ids])

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of all that decides scores and metrics: images or embeddings, ids, labels, slices, groups."""
        parts = [self.source.content_key(), self.made_by.fingerprint if self.made_by else ""]
        columns = [self.records.column(name).tolist() for name in _DECIDING]
        return hashlib.sha256(json.dumps([parts, columns], default=str).encode()).hexdigest()

    @property
    def spec(self) -> EncoderSpec | None:
        """The encoder of embeddings that the source brings; None for images."""
        if not isinstance(self.source, EmbeddingSource):
            return None
        return self.made_by or external_spec(self.source.encoder_description(), self.source.embeddings().shape[1])


@dataclass(frozen=True, eq=False)
class Contender:
    """A guard in a benchmark.

    Args:
        guard: as loaded.
        entrant: its name, and what it is judged on.
        point: the operating point.
        checkpoint: where its encoder's weights lie; None for where its spec says.
        told: whether the user said what it is judged on.
    """

    guard: Guard
    entrant: Entrant
    point: str
    checkpoint: str | None = None
    told: bool = False
    asks: ClassVar[bool] = False  # about the images themselves
    scored: ClassVar[bool] = False  # elsewhere: it reads nothing

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the guard's files and its operating point."""
        return hashlib.sha256(json.dumps([self.guard.about["sha256"], self.point]).encode()).hexdigest()

    def asked(self, data: DataSet, say: Callable[[str], None]) -> Scores | None:
        """Scores of one that is asked about the images, or that brings them; None for guards, which read embeddings."""
        return None


def require_readable(contenders: Sequence[Contender], sets: Sequence[DataSet]) -> None:
    """Refuse data sets that bring embeddings which a guard does not read, before anything is computed.

    Raises:
        EncoderError: naming the guard, the data set and what differs.
        DataError: embeddings, where a contender is asked about images.
    """
    for data in sets:
        spec = data.spec
        for contender in contenders:
            if spec is not None and contender.asks:
                raise DataError(
                    f"The data set '{data.name}' brings embeddings, and {contender.entrant.name} is asked about "
                    "images. Give those."
                )
            guard = contender.guard
            if spec is None or contender.scored or not (differing := spec.diff(guard.spec)):
                continue
            what = f"config: {data.origin}" if data.origin else "path: …"
            if spec.family in ("external", "clip-retrieval"):
                why = (
                    f"Of {spec.label} nothing more is known. If it is the same encoder, say so: "
                    f"'data={{{data.name}: {{{what}, made_by: {guard.spec.label}}}}}'. Otherwise give the images"
                )
            else:
                why = f"They differ in {'; '.join(differing)}. Give the images"
            raise EncoderError(
                f"The data set '{data.name}' brings embeddings of {spec.label}, and the guard {contender.entrant.name} "
                f"reads those of {guard.spec.label}. {why} themselves: each guard then gets embeddings of its own "
                "encoder."
            )


@dataclass(frozen=True, eq=False)
class Scores:
    """One guard's answers on one data set.

    Args:
        table: `id`, `logit`, `probability` (null where it gives none), `decision` (safe, unsafe, review) of each image
            that it has a verdict on; `trained_on` and `fitted_on` where the guard knows what it was made of.
        computed: whether it was computed now.
        without: why it has none, for ids of others; an id in neither is of an image that could not be read.
        words: of ids, what a model that is asked has said.
    """

    table: pa.Table
    computed: bool
    without: Mapping[str, Outcome] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)

    def marked(self, column: str) -> set[str] | None:
        """The ids for which a column (`trained_on`, `fitted_on`) is true; None where the guard does not know."""
        if column not in self.table.column_names:
            return None
        return set(self.table.filter(self.table[column])["id"].to_pylist())

    def outcomes(self, ids: Sequence[str], set_aside: Collection[str] = ()) -> np.ndarray:
        """(N,) int8, what became of each image; see `Outcome`. Those of `set_aside` are not the guard's test images."""
        judged = set(self.table["id"].to_pylist())
        return np.array(
            [
                Outcome.SET_ASIDE
                if one in set_aside
                else Outcome.ANSWERED
                if one in judged
                else self.without.get(one, Outcome.UNREADABLE)
                for one in ids
            ],
            dtype=np.int8,
        )


class ScoresFolder:
    """Scores by guard and data set, under keys that change with all that changes them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, contender: Contender, data: DataSet) -> Path:
        """Where the scores of a guard on a data set lie."""
        key = hashlib.sha256(f"{contender.digest}\0{data.digest}".encode()).hexdigest()
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in f"{contender.entrant.name}-{data.name}")
        return self.path / f"{name[:80]}-{key[:16]}.parquet"

    def read(self, contender: Contender, data: DataSet) -> Scores | None:
        """The scores of an earlier run; None where there are none, or a file that cannot be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = self.file(contender, data)
        if not file.is_file():
            return None
        try:
            return Scores(pq.read_table(file), computed=False)
        except (OSError, pa.ArrowException):
            return None

    def write(self, contender: Contender, data: DataSet, table: pa.Table) -> None:
        """Keep scores."""
        import pyarrow.parquet as pq

        replace_file(self.file(contender, data), lambda path: pq.write_table(table, path, compression="zstd"))


def score_all(
    contenders: Sequence[Contender],
    sets: Sequence[DataSet],
    folder: ScoresFolder,
    embedded: Callable[[Contender, DataSet], Embeddings],
    say: Callable[[str], None],
) -> dict[tuple[str, str], Scores]:
    """The scores of every guard on every data set; those of earlier runs are read, the others computed and kept.

    Args:
        contenders, sets: guards and data sets.
        folder: where scores are kept.
        embedded: embeddings of a data set's source by a guard's encoder; asked once an encoder and data set.
        say: tells the user what is scored.

    Returns:
        (guard, data set) to scores, by names.
    """
    out = {}
    for data in sets:
        kept: dict[str, Embeddings] = {}
        there = 0
        for contender in contenders:
            if (answered := contender.asked(data, say)) is not None:  # it keeps its own answers
                out[contender.entrant.name, data.name] = answered
                there += not answered.computed
                continue
            found = folder.read(contender, data)
            if found is None:
                fingerprint = contender.guard.spec.fingerprint
                if fingerprint not in kept:
                    kept[fingerprint] = _chosen(embedded(contender, data), data)
                table = _scored(contender, kept[fingerprint])
                folder.write(contender, data, table)
                found = Scores(table, computed=True)
            else:
                there += 1
            out[contender.entrant.name, data.name] = found
        were = f", {there} of them before" if there else ""
        guards = f"{len(contenders)} guard{'s' if len(contenders) > 1 else ''}"
        say(f"{data.name}: {len(data.records):,} images scored by {guards}{were}")
    return out


def _chosen(found: Embeddings, data: DataSet) -> Embeddings:
    """The embeddings of a data set's records, without those that were set aside."""
    if data.ids is None:
        return found
    place = {str(name): row for row, name in enumerate(found.records.ids)}
    return found.take([place[name] for name in data.ids if name in place])


def _scored(contender: Contender, found: Embeddings) -> pa.Table:
    import pyarrow as pa

    from guardtrain.guards.operating_points import DECISIONS

    guard, matrix = contender.guard, found.matrix
    blocks = [np.zeros(0)]
    made_of: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(matrix), _ROWS):
        rows = np.asarray(matrix[start : start + _ROWS])
        blocks.append(guard.logits(rows))
        for name, mask in guard.known_images.made_of(rows).items():
            made_of.setdefault(name, []).append(mask)
    logits = np.concatenate(blocks)
    numbers = guard.points[contender.point].decide(logits)
    return pa.table(
        {
            "id": pa.array([str(name) for name in found.records.ids], pa.string()),
            "logit": logits,
            "probability": guard.calibrator.probabilities(logits),
            "decision": pa.array([DECISIONS[int(number)] for number in numbers], pa.string()),
            **{name: np.concatenate(masks) for name, masks in made_of.items()},
        }
    )


SetAside = Mapping[tuple[str, str], Collection[str]]
"""(guard, data set) to ids of images that are not among the guard's test images, such as those it was trained on."""


def judged_by(
    contenders: Sequence[Contender],
    data: DataSet,
    scores: Mapping[tuple[str, str], Scores],
    set_aside: SetAside | None = None,
) -> Judged:
    """All images of a data set, with what each guard said of them or why it said nothing.

    Args:
        contenders: K guards.
        data: the data set.
        scores: (guard, data set) to scores, by names.
        set_aside: images that do not count for a guard.

    Raises:
        DataError: no image that any of them has a verdict on.
    """
    records = data.records
    names = tuple(contender.entrant.name for contender in contenders)
    ids = [str(name) for name in records.ids]
    logits, flagged = np.full((len(names), len(ids)), np.nan), np.zeros((len(names), len(ids)), dtype=bool)
    outcomes = np.zeros((len(names), len(ids)), dtype=np.int8)
    for k, name in enumerate(names):
        found = scores[name, data.name]
        outcomes[k] = found.outcomes(ids, (set_aside or {}).get((name, data.name), ()))
        rows, there = _rows_of(found.table, ids)
        logits[k, there] = found.table["logit"].to_numpy()[rows]
        flagged[k, there] = np.array(found.table["decision"].to_pylist(), dtype=object)[rows] == "unsafe"
    judged = Judged(data.name, names, records, logits, flagged, outcomes)
    if not judged.known.any():
        raise DataError(
            f"No image of '{data.name}' could be judged by any of {', '.join(names)}."
            if judged.counted.any()
            else f"All {len(ids):,} images of '{data.name}' are among the training images of {', '.join(names)}: there "
            "is nothing to judge. Name other images, or training_images=keep to see figures that are too good."
        )
    return judged


def _rows_of(table: pa.Table, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the table that are of one of `ids`, and the places of those among `ids`; both (M,) int64."""
    place = {name: row for row, name in enumerate(table["id"].to_pylist())}
    there = [at for at, name in enumerate(ids) if name in place]
    return np.array([place[ids[at]] for at in there], dtype=np.int64), np.array(there, dtype=np.int64)


def scores_table(
    contenders: Sequence[Contender],
    sets: Sequence[DataSet],
    scores: Mapping[tuple[str, str], Scores],
    set_aside: SetAside | None = None,
) -> pa.Table:
    """All scores as one tidy table: a row a guard and image, with the image's label, category, source and pair.

    `outcome` says whether the guard has a verdict that counts, and if not why; without a verdict logit, probability and
    decision are null.
    """
    import pyarrow as pa

    parts = []
    for data in sets:
        about = data.records.table.select(["id", "label", "category", "source", "pair_id"])
        ids = about["id"].to_pylist()
        for contender in contenders:
            name = contender.entrant.name
            found, own = scores[name, data.name], about
            rows, there = _rows_of(found.table, ids)
            at = np.full(len(ids), -1)
            at[there] = rows
            taken = pa.array(at, mask=at < 0)
            outcomes = found.outcomes(ids, (set_aside or {}).get((name, data.name), ()))
            own = own.append_column("outcome", pa.array([Outcome(one).word for one in outcomes.tolist()], pa.string()))
            for column in ("logit", "probability", "decision"):
                own = own.append_column(column, found.table[column].take(taken))
            own = own.append_column("words", pa.array([found.words.get(one) for one in ids], pa.string()))
            for first, (column, value) in enumerate((("guard", name), ("data", data.name))):
                own = own.add_column(first, column, pa.array([value] * len(own), pa.string()).dictionary_encode())
            parts.append(own)
    return pa.concat_tables(parts).unify_dictionaries()
