"""A guard that is there, calibrated anew: its head as it is, probabilities and thresholds from labelled images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from guardtrain.guards.export import Exported, export_guard
from guardtrain.guards.guard import Guard
from guardtrain.guards.parts import TrainedRun
from guardtrain.guards.settings import GuardSettings
from guardtrain.guards.thresholds_rates import Rate
from guardtrain.guards.validation import Validation


def calibrate_guard(
    out: Path,
    guard: Guard,
    validation: Validation,
    settings: GuardSettings,
    say: Callable[[str], None] = lambda _: None,
    left_out: int = 0,
) -> Exported:
    """Write the guard with the calibrator and the thresholds that labelled images ask for, as `export_guard` does.

    Args:
        out: the new guard's directory; a guard that is there is replaced, anything else is not.
        guard: whose head and encoder it has.
        validation: images that the guard was not trained on.
        settings: what decides; name, licence and taxonomy are the guard's where None.
        say: tells the user what takes its time.
        left_out: how many images more there were, which the guard was trained on.

    Raises:
        ConfigError, DataError, GuardError: as of `export_guard`.
    """
    about = guard.about
    settings = replace(
        settings,
        name=settings.name or guard.name,
        licence=settings.licence or about.get("licence"),
        taxonomy=settings.taxonomy or guard.taxonomy,
    )
    run = TrainedRun(
        guard.bank,
        guard.spec,
        about["head"],
        about.get("training") or {},
        tests=about.get("tests") or (),
        categories=guard.categories,
        data=about.get("data") or {},
        notes=_notes(guard, validation, left_out),
        named=None if guard.category_head is None else (guard.category_head, about["category_head"]),
        known=guard.known_images.trained,
        further={key: about[key] for key in ("imported",) if key in about} | {"calibrated_from": _source(guard)},
    )
    return export_guard(out, run, validation, settings, encoder=lambda: guard.encoder, say=say)


def _notes(guard: Guard, validation: Validation, left_out: int) -> tuple[str, ...]:
    """Say for the card whose head it is, and how the guard did with the threshold that it had."""
    imported = bool(guard.about.get("imported"))
    by = "the work of others" if imported else "as it was trained"
    notes = [f"The head is {by} and unchanged; calibration and thresholds were chosen on images of yours."]
    point = guard.points[guard.default_point]
    found = point.decide(guard.logits(validation.embeddings)) == 1
    safe, unsafe = validation.labels == 0, validation.labels == 1
    flagged = Rate.measured(int(found[safe].sum()), int(safe.sum()))
    caught = Rate.measured(int(found[unsafe].sum()), int(unsafe.sum()))
    notes.append(f"At its threshold before ({point.name}) it flags {flagged} of these safe and {caught} of the unsafe.")
    trained = guard.known_images.trained_on(validation.embeddings)
    if trained is None and not imported:
        notes.append(
            "Unknown is whether these images are among its training images: when it was made, nobody kept that."
        )
    if left_out:
        notes.append(f"{left_out:,} images more were among its training images, and left out.")
    if trained is not None and trained.any():
        notes.append(f"{int(trained.sum()):,} of these images are among its training images: rates are too good.")
    kept = [note for note in guard.about.get("notes") or () if note not in _of_points(guard)]
    return (*notes, *map(str, kept))


def _of_points(guard: Guard) -> set[str]:
    """Notes of the thresholds that are replaced."""
    return {note for point in guard.points.points for note in point.notes}


def _source(guard: Guard) -> dict[str, Any]:
    """The guard it comes from: its name and its config's hash."""
    return {"name": guard.name, "sha256": guard.about["sha256"]}


def chosen_rows(ids: tuple[str, ...] | None, names: np.ndarray) -> np.ndarray:
    """Rows of the records called `ids`, those that are there; all for None."""
    if ids is None:
        return np.arange(len(names))
    place = {str(name): row for row, name in enumerate(names)}
    return np.array([place[name] for name in ids if name in place], dtype=np.int64)
