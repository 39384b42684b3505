"""What a file of weights does not say, such as which class is unsafe: taken from names that are clear, or asked.

A guard that was imported the wrong way round gives sensible figures of the wrong sign, so nothing is guessed here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from guardtrain.errors import ConfigError, GuardError
from guardtrain.grammar import quoted
from guardtrain.sources.cells import text_of
from guardtrain.words import listed

# What safe images are called; where one of two classes has such a name, the other is the unsafe one.
SAFE_NAMES = frozenset({"safe", "sfw", "normal", "neutral", "benign", "0", "false", "-1"})
_PLAIN = re.compile(r"-?(0|[1-9]\d*)|[A-Za-z][\w.-]*", re.ASCII)
_NOT_TEXT = ("null", "nan", "inf", "infinity", "true", "false")  # what Hydra reads as no text


class Unsaid(GuardError):
    """A file that does not say something, and settings that do; each of them is one way to say it.

    Args:
        message: what is not known.
        settings: complete settings, such as `kind.unsafe=nsfw`.
        after: what else there is to know, below the settings.
    """

    def __init__(self, message: str, settings: Sequence[str], after: str = "") -> None:
        self.message, self.settings, self.after = message, tuple(settings), after
        super().__init__(self.text())

    def text(self, line: Callable[[str], str] = lambda setting: setting) -> str:
        """The whole message, each setting written by `line`, as a command for instance."""
        lines = [self.message, *(f"  {line(setting)}" for setting in self.settings)]
        return "\n".join([*lines, *([self.after] if self.after else [])])


@dataclass(frozen=True)
class Classes:
    """The classes that a classifier tells apart, and which of them are unsafe.

    Args:
        names: of all, in the classifier's order.
        unsafe: places of the unsafe ones among them; at least one, and not all.
        why: how that is known.
    """

    names: tuple[str, ...]
    unsafe: tuple[int, ...]
    why: str

    def __str__(self) -> str:
        safe = [name for place, name in enumerate(self.names) if place not in self.unsafe]
        return f"unsafe: {_names([self.names[place] for place in self.unsafe])}; safe: {_names(safe)} ({self.why})"


def unsafe_among(classes: Sequence[Any], given: Any, what: str) -> Classes:
    """Which of a classifier's classes are unsafe: those that the user names, else that of two whose names are clear.

    Args:
        classes: names or numbers, in the classifier's order.
        given: `kind.unsafe`: a class or a list of them; None where the user says nothing.
        what: of the classifier, for errors.

    Raises:
        Unsaid: the user says nothing, and the names do not say it either.
        ConfigError: a class that is none of them, or all of them.
    """
    names = tuple(str(text_of(one)) for one in classes)
    if given is not None:
        return Classes(names, _places(given, names, what), "as kind.unsafe says")
    safe = [place for place, name in enumerate(names) if name.strip().casefold() in SAFE_NAMES]
    if len(names) == 2 and len(safe) == 1:
        return Classes(names, (1 - safe[0],), f"the name '{names[safe[0]]}' says so")
    if len(names) == 2:
        raise Unsaid(
            f"{what} tells '{names[0]}' from '{names[1]}', and these names do not say which of the two is unsafe. "
            "Say it with one of",
            [unsafe_setting([name]) for name in reversed(names)],
        )
    others = [name for place, name in enumerate(names) if place not in safe]
    raise Unsaid(
        f"{what} tells {len(names)} classes apart: {_names(names)}. Name all that are unsafe, for instance",
        [unsafe_setting(others if safe else names[1:])],
        "The probability of unsafe is the sum of theirs.",
    )


def unsafe_setting(names: Sequence[str]) -> str:
    """`kind.unsafe=…` for a command line, in Hydra's grammar.

    >>> unsafe_setting(["nsfw"]), unsafe_setting(["not safe", "01"])
    ('kind.unsafe=nsfw', 'kind.unsafe=["not safe","01"]')
    """
    values = [value_text(name) for name in names]
    return f"kind.unsafe={values[0] if len(values) == 1 else '[' + ','.join(values) + ']'}"


def value_text(name: str) -> str:
    """A name in Hydra's grammar, that is read as this text or this whole number."""
    return name if _PLAIN.fullmatch(name) and name.lower() not in _NOT_TEXT else quoted(name, '"')


def _places(given: Any, names: Sequence[str], what: str) -> tuple[int, ...]:
    wanted = [str(text_of(one)) for one in (given if isinstance(given, list | tuple) else [given])]
    folded = [name.strip().casefold() for name in names]
    found = []
    for name in wanted:
        places = [place for place, one in enumerate(names) if one == name]
        places = places or [place for place, one in enumerate(folded) if one == name.strip().casefold()]
        if len(places) != 1:
            raise ConfigError(
                f"kind.unsafe names '{name}', and {what} tells {_names(names)} apart. Give one of them, such as "
                f"{unsafe_setting([names[-1]])}."
            )
        found += places
    if not found or len(set(found)) >= len(names):
        raise ConfigError(f"kind.unsafe names {'all' if found else 'none'} of the classes {_names(names)}; name some.")
    return tuple(sorted(set(found)))


def _names(names: Sequence[str]) -> str:
    return listed([f"'{name}'" for name in names], 30)
