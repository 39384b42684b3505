"""Guards × test sets × attacks, block by block: what is done is kept, a run that was cut off goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from guardtrain.benchmarks.attacks.blocks import Image, attacked_rows
from guardtrain.benchmarks.attacks.samples import ImageSet
from guardtrain.benchmarks.attacks.settings import UNCHANGED, Attack, AttackSettings
from guardtrain.benchmarks.attacks.target import Target
from guardtrain.benchmarks.training_images import LEAVE_OUT
from guardtrain.errors import DataError
from guardtrain.files import only_process, replace_file

PARTS = ".parts"
_VERSION = 1  # of what a part holds; a change makes old ones worthless
_KEY = b"guardtrain.attack"
IMAGE_COLUMNS = pa.schema(
    [
        pa.field("guard", pa.string(), nullable=False),
        pa.field("test", pa.string(), nullable=False),
        pa.field("attack", pa.string(), nullable=False),
        pa.field("strength", pa.float64(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("pair_id", pa.string()),
        pa.field("group", pa.string()),
        pa.field("logit", pa.float64(), nullable=False),
        pa.field("right", pa.bool_(), nullable=False),
        pa.field("right_float", pa.bool_()),
        pa.field("linf", pa.float64()),
        pa.field("l2", pa.float64()),
        pa.field("linf_file", pa.float64()),
        pa.field("needed", pa.float64()),
        pa.field("steps", pa.int64(), nullable=False),
        pa.field("flat", pa.bool_(), nullable=False),
        pa.field("trained_on", pa.bool_()),
    ]
)


@dataclass(frozen=True, eq=False)
class Parts:
    """Finished blocks, a file each; a block is known by all that decides it.

    Args:
        folder: where they lie.
    """

    folder: Path

    @contextmanager
    def writing(self) -> Iterator[Parts]:
        """Hold the folder's lock.

        Raises:
            DataError: another process works on this folder.
        """
        refusal = DataError(f"Another process attacks into {self.folder.parent}; wait, or give another out=…")
        with only_process(self.folder / ".lock", refusal):
            yield self

    def rows(self, key: dict[str, Any], make: Callable[[], list[dict[str, Any]]]) -> pa.Table:
        """The block with this key: as it was kept, or made now and kept."""
        text = json.dumps(key, sort_keys=True)
        path = self.folder / f"{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:32]}.parquet"
        try:
            kept = pq.read_table(path, schema=None)
            if (kept.schema.metadata or {}).get(_KEY) == text.encode(errors="surrogateescape"):
                kept = kept.replace_schema_metadata(None)
                if "trained_on" not in kept.column_names:  # of a guard that was made before it knew its images
                    kept = kept.append_column(IMAGE_COLUMNS.field("trained_on"), pa.nulls(len(kept), pa.bool_()))
                return kept
        except (OSError, pa.ArrowException):
            pass  # not there, or not whole: made again
        table = pa.Table.from_pylist(make(), schema=IMAGE_COLUMNS)
        named = table.replace_schema_metadata({_KEY: text.encode(errors="surrogateescape")})
        replace_file(path, lambda temporary: pq.write_table(named, temporary, compression="zstd"))
        return table


@dataclass(frozen=True)
class Job:
    """A guard on a test set.

    Args:
        name: what the guard is called, once in a run.
        target: the guard.
        images: the test set.
        batch_size: images a gradient.
    """

    name: str
    target: Target
    images: ImageSet
    batch_size: int


def attack_guard(
    job: Job,
    settings: AttackSettings,
    parts: Parts,
    advance: Callable[[str, int, int], None] = lambda title, done, total: None,
) -> pa.Table:
    """Every image looked at as it is, and the correctly classified ones under every attack: rows of `IMAGE_COLUMNS`.

    Args:
        job: the guard and the test set.
        settings: attacks, samples, seed, block.
        parts: what is done.
        advance: told the attack's title, and how many of how many images are done.

    Raises:
        DataError: images that cannot be read, or none that the guard classifies correctly.
    """
    order = job.images.order(settings.seed)
    tables: list[pa.Table] = []
    chosen: list[int] = []
    counted = 0
    for start in range(0, len(order), settings.block):
        places = order[start : start + settings.block].tolist()
        table = _block(job, UNCHANGED, places, settings.seed, parts)
        tables.append(table)
        own = table["trained_on"].to_pylist() if settings.training_images == LEAVE_OUT else [False] * len(places)
        right = table["right"].to_pylist()
        chosen += [place for place, ok, trained in zip(places, right, own, strict=True) if ok and not trained]
        counted += sum(not trained for trained in own)
        advance(UNCHANGED.label, min(len(chosen), settings.samples), settings.samples)
        if len(chosen) >= settings.samples:
            break
    chosen = chosen[: settings.samples]
    if not counted:
        raise DataError(
            f"All {len(order):,} images of {job.images.name} are among {job.name}'s training images: there is nothing "
            "to attack. Name other images, or training_images=keep to attack these."
        )
    if not chosen:
        raise DataError(
            f"The guard {job.name} classifies none of the {counted} images of {job.images.name} correctly at its "
            f"point '{job.target.point.name}': there is nothing to attack. Are the labels the right way round?"
        )
    for attack in settings.plan():
        if attack.needs_gradient and not job.target.gives_gradient():
            continue
        for start in range(0, len(chosen), settings.block):
            part = chosen[start : start + settings.block]
            tables.append(_block(job, attack, part, settings.seed, parts))
            advance(attack.label, start + len(part), len(chosen))
    return pa.concat_tables(tables)


def _block(job: Job, attack: Attack, places: Sequence[int], seed: int, parts: Parts) -> pa.Table:
    images, guard = job.images, job.target.guard
    records = images.records.take(places)
    key = {
        "version": _VERSION,
        "guard": guard.about["sha256"],
        "encoder": guard.spec.fingerprint,
        "name": job.name,
        "point": [job.target.point.name, job.target.point.threshold],
        "test": images.name,
        "content": images.content_key,
        "ids": [str(one) for one in records.ids],
        "labels": records.labels.tolist(),
        "attack": asdict(attack),
        "seed": seed,
    }

    def make() -> list[dict[str, Any]]:
        labels = records.labels.tolist()
        block = [Image(str(records.ids[k]), labels[k], images.content(place)) for k, place in enumerate(places)]
        about = {"guard": job.name, "test": images.name, "attack": attack.name, "strength": attack.strength}
        rows = attacked_rows(job.target, attack, block, seed, job.batch_size)
        return [
            about | {"title": attack.label, "id": image.id, "label": image.label} | rows[k]
            for k, image in enumerate(block)
        ]

    # pairs and groups are of today, whatever they were when the block was kept: no attack depends on them
    known = {"pair_id": records.pair_ids, "group": records.groups}
    table = parts.rows(key, make)
    for name, values in known.items():
        cells = pa.array([None if value is None else str(value) for value in values], pa.string())
        table = table.set_column(IMAGE_COLUMNS.get_field_index(name), IMAGE_COLUMNS.field(name), cells)
    return table
