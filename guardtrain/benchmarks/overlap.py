"""Images of a data set that a guard was made of: known again, left out of its figures, and told."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from guardtrain.benchmarks.training_images import KEEP, LEAVE_OUT
from guardtrain.guards.known_images import FITTED, TRAINED

if TYPE_CHECKING:
    from guardtrain.benchmarks.scores import Contender, DataSet, Scores
    from guardtrain.guards.guard import Guard

_HOW = f"training_images={KEEP} keeps such images in"


def set_aside(
    contenders: Sequence[Contender],
    sets: Sequence[DataSet],
    scores: Mapping[tuple[str, str], Scores],
    training_images: str = LEAVE_OUT,
) -> dict[tuple[str, str], Collection[str]]:
    """(guard, data set) to ids of the images that the guard was trained on, which are none of its test images."""
    if training_images == KEEP:
        return {}
    names = ((contender.entrant.name, data.name) for contender in contenders for data in sets)
    return {key: found for key in names if (found := scores[key].marked(TRAINED))}


def overlap_notes(
    contenders: Sequence[Contender],
    data: DataSet,
    scores: Mapping[tuple[str, str], Scores],
    training_images: str = LEAVE_OUT,
) -> list[str]:
    """In a sentence each, how many images of a data set guards were trained on, or calibrated and given thresholds."""
    ids = {str(one) for one in data.records.ids}
    out = []
    for contender in contenders:
        name, found = contender.entrant.name, scores[contender.entrant.name, data.name]
        trained, fitted = (len(ids & (found.marked(column) or set())) for column in (TRAINED, FITTED))
        if trained:
            out.append(told_trained(name, trained, len(ids), f"images of '{data.name}'", training_images))
        if fitted:
            out.append(
                f"{fitted:,} of {len(ids):,} images of '{data.name}' are among those that {name}'s probabilities and "
                "thresholds were fitted on: its figures there are of images that they suit."
            )
    return out


def told_trained(
    guard: str, count: int, of: int, images: str, training_images: str, left_out: str = "left out of its figures"
) -> str:
    """How many of the images a guard was trained on, and what became of those."""
    became = f"{left_out} ({_HOW})" if training_images == LEAVE_OUT else "they are kept, and its figures too good"
    return f"{count:,} of {of:,} {images} were among {guard}'s training images: {became}."


def unknown_note(guards: Mapping[str, Guard]) -> list[str]:
    """Which guards do not know what they were trained on, in one sentence.

    Args:
        guards: by name, without what is asked.
    """
    lost = [name for name, guard in guards.items() if guard.known_images.trained is None]
    if not lost:
        return []
    return [
        f"Unknown is which images {', '.join(lost)} {'were' if len(lost) > 1 else 'was'} trained on (guards of others, "
        "and those made earlier, do not keep it): figures are too good where they are among these."
    ]
