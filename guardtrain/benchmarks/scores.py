"""What guards say of data sets, image by image: computed once, kept in a folder, read again after that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from guardtrain.benchmarks.effectiveness import Entrant
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
    """

    guard: Guard
    entrant: Entrant
    point: str
    checkpoint: str | None = None
    asks: ClassVar[bool] = False  # about the images themselves

    @property
    def digest(self) -> str:
        """Of the guard's files and its operating point."""
        return hashlib.sha256(json.dumps([self.guard.about["sha256"], self.point]).encode()).hexdigest()

    def asked(self, data: DataSet, say: Callable[[str], None]) -> Scores | None:
        """The scores of one that is asked about the images themselves; None for guards, which read embeddings."""
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
            if spec is None or not (differing := spec.diff(guard.spec)):
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
    """What one guard says of one data set.

    Args:
        table: `id`, `logit`, `probability`, `decision` (safe, unsafe, review) of each image that could be judged.
        computed: whether it was computed now.
    """

    table: pa.Table
    computed: bool


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
    logits = np.concatenate(
        [np.zeros(0)] + [guard.logits(np.asarray(matrix[i : i + _ROWS])) for i in range(0, len(matrix), _ROWS)]
    )
    numbers = guard.points[contender.point].decide(logits)
    return pa.table(
        {
            "id": pa.array([str(name) for name in found.records.ids], pa.string()),
            "logit": logits,
            "probability": guard.calibrator.probabilities(logits),
            "decision": pa.array([DECISIONS[int(number)] for number in numbers], pa.string()),
        }
    )


def judged_by_all(
    contenders: Sequence[Contender], data: DataSet, scores: Mapping[tuple[str, str], Scores]
) -> tuple[Judged, int]:
    """The images of a data set that every guard could judge, with what each said; and how many are left out.

    The other half of a pair that lost one stays, as an image without a pair.

    Raises:
        DataError: no image that all could judge.
    """
    records = data.records
    names = tuple(contender.entrant.name for contender in contenders)
    ids = np.array([str(name) for name in records.ids])
    tables = [scores[name, data.name].table for name in names]
    columns: list[dict[str, tuple[float, str]]] = [
        dict(
            zip(
                table["id"].to_pylist(),
                zip(table["logit"].to_pylist(), table["decision"].to_pylist(), strict=True),
                strict=True,
            )
        )
        for table in tables
    ]
    rows = np.flatnonzero([all(name in column for column in columns) for name in ids])
    if not len(rows):
        raise DataError(f"No image of '{data.name}' could be judged by all of {', '.join(names)}.")
    logits = np.array([[column[name][0] for name in ids[rows]] for column in columns])
    flagged = np.array([[column[name][1] == "unsafe" for name in ids[rows]] for column in columns])
    kept = records if len(rows) == len(records) else records.take(rows)
    return Judged(data.name, names, kept, logits, flagged), len(records) - len(rows)


def scores_table(
    contenders: Sequence[Contender], sets: Sequence[DataSet], scores: Mapping[tuple[str, str], Scores]
) -> pa.Table:
    """All scores as one tidy table: a row a guard and image, with the image's label, category, source and pair."""
    import pyarrow as pa

    parts = []
    for data in sets:
        about = data.records.table.select(["id", "label", "category", "source", "pair_id"])
        place = {name: row for row, name in enumerate(about["id"].to_pylist())}
        for contender in contenders:
            table = scores[contender.entrant.name, data.name].table
            own = about.take(pa.array([place[name] for name in table["id"].to_pylist()], pa.int64()))
            for name in ("logit", "probability", "decision"):
                own = own.append_column(name, table[name])
            for at, (name, value) in enumerate((("guard", contender.entrant.name), ("data", data.name))):
                own = own.add_column(at, name, pa.array([value] * len(own), pa.string()).dictionary_encode())
            parts.append(own)
    return pa.concat_tables(parts).unify_dictionaries()
