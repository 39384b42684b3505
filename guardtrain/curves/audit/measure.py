"""The audit of a data set's pools and test sets: every question that one asks before believing a gain from pairs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from guardtrain.curves.audit.attributes import AttributeScores, Gap, gaps
from guardtrain.curves.audit.clues import Clue, clues
from guardtrain.curves.audit.duplicates import NearDuplicates, near_duplicates
from guardtrain.curves.audit.files import LookedAt, look
from guardtrain.curves.audit.geometry import PairGeometry, pair_geometry
from guardtrain.curves.audit.labels import LabelCheck, Reading, check_labels
from guardtrain.curves.audit.readout import Readout, corrected, readability
from guardtrain.curves.audit.settings import AuditSettings
from guardtrain.curves.audit.stacked import StackedRows
from guardtrain.embeddings import Embeddings
from guardtrain.metrics import record_pairs
from guardtrain.records import SAFE, UNSAFE
from guardtrain.training.pools import Pools

LABELS = {SAFE: "safe", UNSAFE: "unsafe"}
_MOST_SOURCES = 6  # tested one against the rest, the largest first


@dataclass(frozen=True)
class Question:
    """One property, asked of the images of one label.

    Args:
        kind: edited, pool or source.
        name: "edited", "pair pool", or "source 'lexica'".
        label: SAFE or UNSAFE.
        readout: the answer.
        same_as: name of an earlier question of this label that divides the images in the same two; then the answer
            is that one's.
    """

    kind: str
    name: str
    label: int
    readout: Readout
    same_as: str = ""


@dataclass(frozen=True)
class Association:
    """How well `edited` alone tells the label in one part of the data.

    Args:
        part: real, pairs, "real + pairs", or "test NAME".
        counts: (safe unedited, safe edited, unsafe unedited, unsafe edited).
        cramers_v: √(χ²/N) of the 2 × 2 table, 0 to 1; NaN where nothing or everything is edited.
        odds: odds of being safe when edited over when not, 0.5 added to each count (Haldane, Annals of Human Genetics
            20, 1956); NaN likewise.
        auroc: of `edited` as the only score, in whichever direction is better, .5 to 1.
    """

    part: str
    counts: tuple[int, int, int, int]
    cramers_v: float
    odds: float
    auroc: float


@dataclass(frozen=True)
class Audit:
    """All answers.

    Args:
        data, encoder: what was audited.
        settings: how.
        sizes: part -> (images, unsafe images, edited images, pairs).
        questions, associations, duplicates: see there.
        geometry: part with pairs -> its pairs' similarities.
        looked: part -> what could be had of its files.
        clues: what tells the label without looking at the image, a line for each part and property.
        checks: labels and pairs that are doubted, part by part.
        gaps: between values of the attribute, where there is such a column.
    """

    data: str
    encoder: str
    settings: AuditSettings
    sizes: dict[str, tuple[int, int, int, int]]
    questions: tuple[Question, ...]
    associations: tuple[Association, ...]
    duplicates: tuple[NearDuplicates, ...]
    geometry: dict[str, PairGeometry]
    looked: dict[str, LookedAt]
    clues: tuple[Clue, ...]
    checks: tuple[LabelCheck, ...]
    gaps: tuple[Gap, ...]


def audit_pools(
    pools: Pools,
    settings: AuditSettings,
    say: Callable[[str], None] = lambda text: None,
    sources: Mapping[str, Any] | None = None,
) -> Audit:
    """Audit the training pools (what is held out for a test set is not in them) and the test sets.

    The order of the records does not matter: draws are made in the order of the ids.

    Args:
        pools: of `guardtrain.training.pools.make_pools`.
        settings: how much to measure.
        say: told what is being measured.
        sources: by part ("real", "pairs", "test NAME") the source that its records came from, so that image files can
            be looked at and the order of the rows is known.
    """
    parts = {"real": pools.real} | ({} if pools.pairs is None else {"pairs": pools.pairs})
    parts = {name: _in_order(part) for name, part in parts.items()}
    tests = {name: _in_order(part) for name, part in pools.tests.items()}
    everything = parts | {f"test {name}": part for name, part in tests.items()}
    say("audit: what tells the label without looking at an image")
    looked = {
        name: look(part, (sources or {}).get(name), most=settings.max_images, seed=settings.seed)
        for name, part in everything.items()
    }
    told = clues(
        {name: known for name, (known, _) in looked.items()},
        folds=settings.folds,
        replicates=settings.replicates,
        seed=settings.seed,
    )
    say("audit: reading the labels")
    checks, readings = check_labels(everything, folds=settings.folds, most=settings.max_compared, seed=settings.seed)
    say("audit: reading edited, pool and source within one label")
    questions = _questions(parts, settings)
    say("audit: duplicates and pair differences")
    associations = [association(name, *_columns([part])) for name, part in everything.items()]
    if "pairs" in parts:
        associations.insert(2, association("real + pairs", *_columns(list(parts.values()))))
    couples = [("real", "pairs")] if "pairs" in parts else []
    couples += [(pool, f"test {test}") for test in tests for pool in parts]
    named = {name: (name, part.records.ids, part.matrix) for name, part in everything.items()}
    duplicates = [
        near_duplicates(
            named[a],
            named[b],
            threshold=settings.duplicate_cosine,
            most=settings.max_compared,
            seed=settings.seed,
        )
        for a, b in couples
    ]
    real = StackedRows([pools.real.matrix])  # in its own order, which is that of its files
    means = [real.take(np.flatnonzero(pools.real.records.labels == label)).mean() for label in LABELS]
    geometry = {}
    for name, part in everything.items():
        safe, unsafe = (half.numpy() for half in record_pairs(part.records))
        if len(safe) >= 2:
            geometry[name] = pair_geometry(
                StackedRows([part.matrix], safe),
                StackedRows([part.matrix], unsafe),
                part.records.categories[unsafe],
                means[UNSAFE] - means[SAFE],
                most=settings.max_images,
                replicates=settings.replicates,
                seed=settings.seed,
            )
    return Audit(
        pools.name,
        pools.spec.label,
        settings,
        {name: _size(part) for name, part in everything.items()},
        tuple(questions),
        tuple(associations),
        tuple(duplicates),
        geometry,
        {name: how for name, (_, how) in looked.items()},
        tuple(told),
        tuple(checks),
        tuple(_gaps(everything, readings, settings)),
    )


def _gaps(parts: Mapping[str, Embeddings], readings: Mapping[str, Reading], settings: AuditSettings) -> list[Gap]:
    """Gaps between values of the attribute in the parts that have such a column."""
    scored = {}
    for name, reading in readings.items():
        records = parts[name].records
        if settings.attribute in records.table.column_names:
            own = records.take(reading.rows)
            scored[name] = AttributeScores(reading.logits, own.labels, own.groups, own.column(settings.attribute))
    return gaps(scored, replicates=settings.replicates, seed=settings.seed)


def association(part: str, labels: np.ndarray, edited: np.ndarray) -> Association:
    """`Association` of (N,) labels and (N,) bool.

    >>> association("a", np.array([0, 0, 1, 1]), np.array([True, True, False, False])).cramers_v
    1.0
    """
    table = np.array([[((labels == label) & (edited == flag)).sum() for flag in (False, True)] for label in LABELS])
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    counts = (int(table[0, 0]), int(table[0, 1]), int(table[1, 0]), int(table[1, 1]))
    if not (rows.all() and columns.all()):
        return Association(part, counts, np.nan, np.nan, 0.5)
    shares = table[:, 1] / rows
    odds = np.log(table + 0.5)
    determinant = float(table[0, 0] * table[1, 1]) - float(table[0, 1] * table[1, 0])
    v = abs(determinant) / np.sqrt(np.prod(rows.astype(float)) * np.prod(columns.astype(float)))
    ratio = float(np.exp(odds[0, 1] - odds[0, 0] - odds[1, 1] + odds[1, 0]))
    return Association(part, counts, float(v), ratio, float(0.5 + abs(shares[0] - shares[1]) / 2))


def _questions(parts: dict[str, Embeddings], settings: AuditSettings) -> list[Question]:
    x = StackedRows([part.matrix for part in parts.values()])  # a readout draws some of them, and reads only those
    labels, edited = _columns(list(parts.values()))
    groups = np.concatenate([part.records.groups for part in parts.values()]).astype(str)
    pool = np.concatenate([np.full(len(part), name) for name, part in parts.items()])
    sources = np.concatenate([part.records.sources for part in parts.values()])
    names, counts = np.unique([s for s in sources if s is not None], return_counts=True)
    largest = [str(names[i]) for i in np.argsort(-counts, kind="stable")[:_MOST_SOURCES]]
    everything = np.ones(len(x), dtype=bool)
    known = np.array([s is not None for s in sources], dtype=bool)
    asked = [("edited", "edited", edited, everything, ("edited", "unedited"))]
    asked.append(("pool", "pair pool", pool == "pairs", everything, ("in the pair pool", "in the real pool")))
    if len(names) == 2:
        largest = largest[:1]  # the other is its complement
    if len(names) == 1:
        largest = []  # nothing to tell it from
    for name in largest:
        words = (f"from {name}", f"not from {name}")
        asked.append(("source", f"source '{name}'", np.asarray(sources == name, dtype=bool), known, words))
    out, readouts = list[Question](), dict[tuple[int, str], Readout]()
    for label in LABELS:
        divided: dict[bytes, str] = {}
        for kind, name, has, counted, words in asked:
            rows = np.flatnonzero((labels == label) & counted)
            own = has[rows]
            canonical = own if not len(own) or own[0] else ~own
            key = rows.tobytes() + canonical.tobytes()
            if key in divided and own.any() and not own.all():
                out.append(Question(kind, name, label, readouts[label, divided[key]], divided[key]))
                continue
            divided[key] = name
            readouts[label, name] = readability(
                x.take(rows),
                own,
                groups[rows],
                folds=settings.folds,
                most=settings.max_images,
                permutations=settings.permutations,
                replicates=settings.replicates,
                seed=[settings.seed, label, zlib.crc32(name.encode())],
                words=words,
            )
            out.append(Question(kind, name, label, readouts[label, name]))
    judged = dict(zip(readouts, corrected(list(readouts.values())), strict=True))
    return [replace(question, readout=judged[question.label, question.same_as or question.name]) for question in out]


def _in_order(part: Embeddings) -> Embeddings:
    return part.take(np.argsort(part.records.ids.astype(str), kind="stable"))


def _columns(parts: list[Embeddings]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and `edited` of the parts together."""
    return (
        np.concatenate([part.records.labels for part in parts]),
        np.concatenate([part.records.edited for part in parts]),
    )


def _size(part: Embeddings) -> tuple[int, int, int, int]:
    records = part.records
    return len(records), int(records.labels.sum()), int(records.edited.sum()), len(record_pairs(records)[0])
