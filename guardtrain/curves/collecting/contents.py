"""Which runs were measured on the very same images: `in_domain` is the name of many data sets' own test set.

Runs can be ranked against each other where the same images judged them. A results table does not hold its images, so
two test sets are taken for one where the data's name, all counts and every setting that makes the set are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from guardtrain.curves.collecting.reading import VALIDATION_TEST

if TYPE_CHECKING:
    import pandas as pd

_COUNTS = ("n_test", "n_unsafe", "n_pairs")


@dataclass(frozen=True)
class Content:
    """A test set by what it holds.

    Args:
        test: its name.
        data: the data's name.
        counts: images, unsafe images and pairs; None for what is not known.
        settings: those that make it, by name; none where nobody knows them.
    """

    test: str
    data: str
    counts: tuple[Any, ...]
    settings: tuple[tuple[str, str], ...]


def contents_of(rows: pd.DataFrame, settings: Sequence[str]) -> list[Content]:
    """Return what the test set of every row holds.

    Nobody knows the settings of runs of an earlier command in a curve's folder: theirs is the set of the same name,
    data and counts, if all that are known are one.

    Args:
        rows: of `Collected`, those of whole test sets.
        settings: names of its columns of settings.
    """
    names = [name for name in settings if name.startswith("data.")]
    columns = [name for name in ("test", "data", *_COUNTS, *names) if name in rows]
    found = []
    for row in rows[columns].to_dict("records"):
        known = {name: value for name, value in row.items() if value is not None and value == value}
        making = _making(row["test"], {name: known[name] for name in names if name in known})
        counts = tuple(known.get(name) for name in _COUNTS)
        found.append(Content(row["test"], str(known.get("data", "")), counts, making))
    alike: dict[Content, set[Content]] = {}
    for content in found:
        if content.settings:
            alike.setdefault(replace(content, settings=()), set()).add(content)
    only = {content: next(iter(same)) for content, same in alike.items() if len(same) == 1}
    return [only.get(content, content) for content in found]


def _making(test: str, known: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The settings, of all of a run's data, that decide what its test set holds."""
    prefixes = [f"data.test.{test}."]
    if (pool := known.get(f"data.test.{test}.hold_out")) is not None:
        # sets that are held out of one pool leave each other what they do not take
        others = [name for name in known if name.endswith(".hold_out") and known[name] == pool]
        prefixes = [f"data.{pool}.", "data.hold_out_seed", *(name.removesuffix("hold_out") for name in others)]
    if test == VALIDATION_TEST:
        prefixes = ["data."]
    return tuple(sorted((name, repr(value)) for name, value in known.items() if name.startswith(tuple(prefixes))))


def named_apart(contents: Sequence[Content]) -> list[str]:
    """A name for each: the data's, and where that does not tell those of one test apart the counts and settings, too.

    >>> named_apart([Content("t", "a", (1,), ()), Content("t", "b", (1,), ())])
    ['a', 'b']
    """
    names = []
    for content in contents:
        others = [other for other in contents if (other.test, other.data) == (content.test, content.data)]
        own, parts = dict(content.settings), [content.data]
        if len({other.counts for other in others}) > 1:
            parts.append(f"{int(content.counts[0] or 0):,} images")
        for name in dict.fromkeys(name for other in others for name, _ in other.settings):
            if len({dict(other.settings).get(name) for other in others}) > 1:
                parts.append(f"{name} {own.get(name, '–')}")
        names.append(", ".join(parts))
    return names
