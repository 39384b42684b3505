"""Which categories a guard is judged on: a detector of sexual images is not blamed for hate (Qu et al., CCS 2025)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guardtrain.errors import ConfigError
from guardtrain.words import listed, near

# UnsafeBench's categories for each head of MultiHeaded, by the name of its file.
_MULTIHEADED = "https://github.com/YitingQu/unsafe-diffusion"
_HEADS = {
    "sexual": "Sexual",
    "violent": "Violence",
    "disturbing": "Shocking",
    "hateful": "Hate",
    "political": "Political",
}


def plain_name(name: str) -> str:
    """A category or source as it is compared: lower case, letters and digits alone.

    >>> plain_name("Self-harm") == plain_name("self harm")
    True
    """
    return "".join(c for c in str(name).lower() if c.isalnum())


def declared_categories(about: Mapping[str, Any]) -> tuple[str, ...]:
    """The categories that a guard says it judges; () for all.

    Published guards say so in their config (`guardtrain import-guard` writes what the UnsafeBench paper judges them on;
    of MultiHeaded the categories of the heads that were imported). A guard of one's own is judged on all, whatever
    categories it was trained on.

    Args:
        about: the guard's `config.json`.
    """
    imported = about.get("imported")
    if not imported:
        return ()
    told = tuple((about.get("taxonomy") or {}).get("categories") or ())
    if told or (about.get("training") or {}).get("url") != _MULTIHEADED:
        return told
    files = (str(name).rpartition(".")[0] for name in imported.get("files", {}))
    return tuple(_HEADS[name] for name in files if name in _HEADS)


def matched(wanted: Sequence[str], there: Iterable[str]) -> tuple[str, ...]:
    """Return the categories of a data set that a guard judges, in the data set's spelling and order.

    >>> matched(["Sexual"], ["hate", "sexual"])
    ('sexual',)
    """
    names = {plain_name(name) for name in wanted}
    return tuple(name for name in there if plain_name(name) in names)


def require_there(setting: str, wanted: Iterable[str], there: Iterable[str]) -> None:
    """Refuse categories or sources that no data set has: images would be chosen by less than was asked for.

    Args:
        setting: what named them.
        wanted: names; one that ends in a question mark may be missing.
        there: those of all data sets.

    Raises:
        ConfigError: a name that is not there, with what is near.
    """
    found = sorted(set(there))
    known = {plain_name(name) for name in found}
    for name in wanted:
        if plain_name(name) not in known and not name.endswith("?"):
            raise ConfigError(
                f"{setting} names '{name}', which no data set has.{near(name, found)} They have: {listed(found, 20)}. "
                f"One that may be missing ends in a question mark: '{name}?'."
            )
