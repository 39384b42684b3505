"""What a user's labels mean: names decide, bare numbers count where nothing says otherwise, the rest is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from guardtrain.errors import DataError
from guardtrain.records import SAFE, UNSAFE
from guardtrain.sources.cells import NULL, Cells, as_value, same, shown, with_text_keys
from guardtrain.sources.unclear import Setting, Unclear

DEFAULT_LABELS = {
    **dict.fromkeys(("safe", "sfw", "0", "false"), SAFE),
    **dict.fromkeys(("unsafe", "nsfw", "1", "true"), UNSAFE),
}
# LlavaGuard's four ratings: its authors count the upper two as compliant.
_RATINGS = {
    **dict.fromkeys(("generally acceptable", "barely acceptable"), SAFE),
    **dict.fromkeys(("moderately unsafe", "highly unsafe"), UNSAFE),
}
FLAGS = {**dict.fromkeys(("0", "false", "no"), False), **dict.fromkeys(("1", "true", "yes"), True)}
_SWITCHES = {**FLAGS, "off": False, "on": True}  # YAML makes true and false of all these words

# Words in the name of a column that say what true means in it.
_OF_SAFE = {"safe", "safety", "sfw", "benign", "harmless", "clean", "ok", "okay", "appropriate", "acceptable", "normal"}
_OF_UNSAFE = {"unsafe", "nsfw", "harmful", "inappropriate", "violation", "violates", "flagged", "toxic", "explicit"}
_NOT = {"not", "non", "no", "un", "isnt", "isn"}
_LISTED = 12  # values of which each way is a line to copy
_MAPPED = 200  # values that one line maps; a column of more is none of labels


class LabelsUnclear(Unclear):
    """Labels that are not certain, with settings that make them so."""


@dataclass(frozen=True)
class ReadLabels:
    """A label column, read.

    Args:
        labels: (N,) int8, 1 is unsafe.
        cells: (N,) dictionary of strings: what stood in the column, as messages show it.
    """

    labels: pa.Array
    cells: pa.Array


def read_labels(
    column: pa.ChunkedArray | pa.Array,
    labels: Mapping[Any, int],
    origin: str,
    name: str = "label",
    *,
    where: bool = True,
) -> ReadLabels:
    """A label column as 0 (safe) and 1 (unsafe).

    Without `labels`, the words safe, sfw, unsafe and nsfw (in any case) count, LlavaGuard's ratings from Generally
    Acceptable to Highly Unsafe, and 0, 1, true and false, which are safe and unsafe in this order: but not in a column
    whose name says that true is safe (`is_safe`). In a column whose name says that true is unsafe, yes and no count,
    too.

    Args:
        column: of any type; numbers are read by value, a dictionary (class names, a categorical) by its names.
        labels: cell -> 0 or 1, instead of these; `null` stands for empty cells.
        origin: what messages call the table.
        name: what the column is called there.
        where: whether the reader has a setting of that name, which can leave rows out.

    Raises:
        DataError: a mapping to anything but 0 and 1, or one that contradicts itself.
        LabelsUnclear: cells that are not mapped, or that are by number where they have names.
    """
    cells = Cells.of(column)
    given = _checked(labels)
    place = f"The label column '{name}' of {origin}"
    if given:
        _refuse_numbers(given, cells.names, place)
    else:
        _refuse_reversed(cells, name, place)
    known = given or DEFAULT_LABELS | (_switches(FLAGS) if _says(name) == UNSAFE else {})
    find = _finder(known if given else known | _RATINGS, bool(given))
    codes = [find(text) for text in cells.texts]
    if None in codes:
        raise _unmapped(cells, codes, given, known, name if where else None, place)
    return ReadLabels(
        pa.array(np.asarray(codes, dtype=np.int8)[cells.rows] if codes else np.zeros(0, np.int8)),
        pa.DictionaryArray.from_arrays(
            pa.array(cells.rows.astype(np.int32)), pa.array([shown(text) for text in cells.texts], pa.string())
        ),
    )


def read_flags(column: pa.ChunkedArray | pa.Array, name: str, origin: str) -> pa.Array:
    """A yes/no column (bool, 0/1, true/false, yes/no in any case) as bool; null is False."""
    cells = Cells.of(column)
    flags = [False if text is None else FLAGS.get(same(text).lower()) for text in cells.texts]
    if None in flags:
        odd = [shown(text) for text, flag in zip(cells.texts, flags, strict=True) if flag is None]
        raise DataError(f"Column '{name}' of {origin} must be true or false; it also holds {', '.join(odd[:8])}.")
    return pa.array(np.asarray(flags, dtype=bool)[cells.rows] if flags else np.zeros(0, bool))


def refuse_other_words(
    read: ReadLabels, name: str, columns: Mapping[str, pa.ChunkedArray], labels: Mapping[Any, int], origin: str
) -> None:
    """Raise where labels are bare numbers and a column of words beside them (`label_text`) says the contrary.

    Args:
        read: the labels.
        name: their column.
        columns: the others of the table.
        labels: the user's; nothing is compared where they say what the numbers mean.

    Raises:
        LabelsUnclear: which names the column of words.
    """
    if labels or not len(read.labels) or any(text.startswith("'") for text in read.cells.dictionary.to_pylist()):
        return
    values = read.labels.to_numpy(zero_copy_only=False)
    for other, column in columns.items():
        if not re.fullmatch(rf"{re.escape(name)}s?[ _.-]?(names?|text|str|string|words?)", other, re.IGNORECASE):
            continue
        cells = Cells.of(column)
        meant = [DEFAULT_LABELS.get(text.strip().lower()) if text and not same(text).isdigit() else None
                 for text in cells.texts]  # fmt: skip
        told = np.array([-1 if one is None else one for one in meant], dtype=np.int64)[cells.rows]
        if bool(((told >= 0) & (told != values)).any()):
            raise LabelsUnclear(
                f"Column '{name}' of {origin} holds numbers, and '{other}' beside it says the contrary in words.",
                [("Take the words", [("columns", {"label": other})])],
            )


def _checked(labels: Mapping[Any, int]) -> dict[str, int]:
    given = with_text_keys(labels)
    if nested := {key: value for key, value in given.items() if isinstance(value, Mapping)}:
        # what `labels.0.5=1` makes, where the dot is a setting's
        whole = {key: value for key, value in given.items() if key not in nested} | _flat(nested)
        raise LabelsUnclear(
            f"labels is a mapping of cells to 0 or 1; it has {nested}.", [("Give it as a whole", [("labels", whole)])]
        )
    if bad := {key: value for key, value in given.items() if value not in (SAFE, UNSAFE)}:
        raise DataError(f"labels maps to 0 (safe) or 1 (unsafe); it has {bad}.")
    by_value: dict[str, tuple[str, int]] = {}
    for key, value in given.items():
        first, before = by_value.setdefault(same(key), (key, int(value)))
        if before != value:
            raise DataError(f"labels maps {first} to {before} and {key} to {value}, which are the same cell.")
    return {key: int(value) for key, value in given.items()}


def _flat(nested: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """`{"0": {"5": 1}}` as `{"0.5": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{start}{key}.") if isinstance(value, Mapping) else {f"{start}{key}": value}
    return flat


def _finder(known: Mapping[str, int], given: bool) -> Callable[[str | None], int | None]:
    """How a cell's label is found: as it is written, by its value, in any case; and yes where the user said true."""
    by_value = {same(key): value for key, value in known.items()}
    folded: dict[str, set[int]] = {}
    for key, value in known.items():
        folded.setdefault(same(key).lower(), set()).add(value)
    in_any_case = {key: values.pop() for key, values in folded.items() if len(values) == 1}

    def find(text: str | None) -> int | None:
        if text is None:
            return known.get(NULL) if given else None
        for mapping, key in ((known, text), (by_value, same(text)), (in_any_case, same(text).lower())):
            if key in mapping:
                return mapping[key]
        switch = _SWITCHES.get(text.strip().lower()) if given and not same(text).isdigit() else None
        return None if switch is None else by_value.get("true" if switch else "false")

    return find


def _switches(words: Mapping[str, bool]) -> dict[str, int]:
    return {word: UNSAFE if flag else SAFE for word, flag in words.items()}


def _says(name: str) -> int | None:
    """Return what true means in a column of this name: `UNSAFE`, `SAFE`, or None where the name does not say.

    >>> [_says(name) for name in ("unsafe", "isNSFW", "is_safe", "not safe", "label", "safe_or_unsafe")]
    [1, 1, 0, 1, None, None]
    """
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    words = [word.removeprefix("is") if word.removeprefix("is") in _OF_SAFE | _OF_UNSAFE else word for word in words]
    meant = set()
    for before, word in zip(["", *words], words, strict=False):
        if word in _OF_SAFE | _OF_UNSAFE:
            meant.add((word in _OF_UNSAFE) != (before in _NOT))
    return None if len(meant) != 1 else UNSAFE if meant.pop() else SAFE


def _refuse_numbers(given: Mapping[str, int], names: Sequence[str], place: str) -> None:
    """Raise where `labels` maps numbers of a column that has names for them."""
    if not names or any(same(name).lstrip("-").isdigit() for name in names):
        return
    known = {same(name) for name in names}
    numbers = [key for key in given if same(key).lstrip("-").isdigit() and same(key) not in known]
    if not numbers:
        return
    by_name = {names[int(same(key))]: given[key] for key in numbers if 0 <= int(same(key)) < len(names)}
    by_name |= {key: value for key, value in given.items() if key not in numbers and key != NULL}
    numbered = ", ".join(f"{number} is {name!r}" for number, name in list(enumerate(names))[:_LISTED])
    raise LabelsUnclear(
        f"{place} has class names ({numbered}), and `labels` maps numbers ({', '.join(numbers)}). Names are what is "
        "read.",
        [("The same by name", [("labels", by_name or dict.fromkeys(names, SAFE))])],
    )


def _refuse_reversed(cells: Cells, name: str, place: str) -> None:
    """Raise where flags stand in a column whose name says that true is safe."""
    if _says(name) != SAFE:
        return
    flags = {text: FLAGS[same(text).lower()] for text in cells.texts if text and same(text).lower() in FLAGS}
    if not flags:
        return
    as_named = {text: SAFE if flag else UNSAFE for text, flag in flags.items()}
    raise LabelsUnclear(
        f"{place} holds {' and '.join(flags)}, and its name says that {_true(flags)} is safe, where 1 and true are "
        "unsafe by default.",
        [
            (
                "Say which it is",
                [("labels", as_named), ("labels", {text: UNSAFE - label for text, label in as_named.items()})],
            )
        ],
    )


def _true(flags: Mapping[str, bool]) -> str:
    return next((text for text, flag in flags.items() if flag), "1")


def _unmapped(
    cells: Cells,
    codes: Iterable[int | None],
    given: Mapping[str, int],
    known: Mapping[str, int],
    name: str | None,
    place: str,
) -> LabelsUnclear:
    """The error for cells that `known` does not have, with the mappings that would."""
    mapped = {text: code for text, code in zip(cells.texts, codes, strict=True) if text is not None}
    # beside cells that say nothing, a bare 1 says nothing either: in {1, 2} it may be the safe one
    sure = {text: code for text, code in mapped.items() if code is not None and (given or shown(text) != text)}
    unknown = [text for text in mapped if text not in sure] if None in mapped.values() else []
    steps: list[tuple[str, Sequence[Setting]]] = []
    if unknown and len(mapped) <= _LISTED:
        base = dict(given) or sure
        ways = [dict.fromkeys(unknown, SAFE), dict.fromkeys(unknown, UNSAFE)]
        if len(unknown) == 2 and not sure:
            ways = [dict(zip(unknown, way, strict=True)) for way in ((SAFE, UNSAFE), (UNSAFE, SAFE))]
        sentence = "Say which are safe (0) and which unsafe (1)"
        if len(unknown) > 2:
            ways, sentence = ways[:1], "Say which are unsafe, with a 1 in place of their 0"
        steps.append((sentence, [("labels", {**base, **way}) for way in ways]))
    elif unknown and len(mapped) <= _MAPPED:
        whole = {**(dict(given) or sure), **dict.fromkeys(unknown, SAFE)}
        steps.append(("Say which are unsafe, with a 1 in place of their 0", [("labels", whole)]))
    if None in cells.texts and not mapped:
        steps.append(("All are empty: say what that means", [("labels", {NULL: SAFE}), ("labels", {NULL: UNSAFE})]))
    elif None in cells.texts and name is not None and len(mapped) <= _MAPPED:
        steps.append(("Leave rows without a label out", [("where", {name: [as_value(text) for text in mapped]})]))
    many = f" {len(mapped):,} values are too many for labels." if len(mapped) > _MAPPED else ""
    return LabelsUnclear(
        f"{place} holds values that are not mapped to safe or unsafe. Found: {cells.listed()}. Mapped: "
        f"{', '.join(f'{key}={value}' for key, value in known.items())}.{many}",
        steps,
    )
