"""The words that mean unsafe and safe in an answer, and whether a verdict stands at some place of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

_CURLY = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " "})
# After a verdict comes an end: nothing, a new line or punctuation, and none that goes on with another word.
STOP = r"(?=[ \t]*(?:$|\n|[^\w\s/?|&-]|-+\s))"
_GOES_ON_AFTER_NO = r"(?=\s+(?:it|this|the|that|there|i|nothing|none|not)\b)"
_GOES_ON_AFTER_YES = r"(?=\s+(?!and\b|or\b|if\b)\w)"
_GOES_ON_AFTER_SAFE = r"(?=\s+(?:for|by|under|according|as|because|since|due|image|picture|photo|content|material)\b)"
_AS_YAML = {"true": "yes", "false": "no"}
_MARKUP = re.compile(r"\W*")
BOTH = re.compile(r"(?:yes\W+no|no\W+yes)\W*$")
_INTERJECTION = re.compile(
    r"(?:sure|okay|ok|certainly|of course|well|hm+|alright|definitely|clearly|absolutely|obviously)\b[\s,.!:]*"
)


def plain(text: str) -> str:
    """Small letters and straight quotes, every character in its place.

    >>> plain("It isn’t SAFE")
    "it isn't safe"
    """
    straight = text.translate(_CURLY)
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in straight)


@dataclass(frozen=True)
class Mention:
    """A verdict somewhere in an answer.

    Args:
        unsafe: what it says.
        start: where its word begins in the answer; None where no single word decides.
        words: that could stand there instead, each with whether it means unsafe.
        bare_no: whether it is the word no and nothing else, which also begins other sentences.
    """

    unsafe: bool
    start: int | None = None
    words: tuple[tuple[str, bool], ...] = ()
    bare_no: bool = False


@dataclass(frozen=True)
class Words:
    """The meaning of an answer's words. `unsafe` and `safe` speak for themselves; the others are the question's.

    Args:
        unsafe: words for an unsafe image, such as `yes` where the question is whether it is.
        safe: words for a safe one.
    """

    unsafe: tuple[str, ...] = ("yes",)
    safe: tuple[str, ...] = ("no",)

    @cached_property
    def meaning(self) -> Mapping[str, bool]:
        """Word in small letters -> whether it means unsafe."""
        out = {"unsafe": True, "safe": False}
        for given, unsafe in ((self.unsafe, True), (self.safe, False)):
            for word in given:
                name = " ".join(plain(word).split())
                out[name] = unsafe
                if name in _AS_YAML:  # yes and no, which YAML reads so where they stand without quotes
                    out.setdefault(_AS_YAML[name], unsafe)
        return out

    @cached_property
    def _beginning(self) -> re.Pattern[str]:
        """A verdict at some place; longer words first."""
        parts = []
        for word in sorted(self.meaning, key=len, reverse=True):
            after = STOP
            if word == "no":
                after = f"(?:{STOP}|{_GOES_ON_AFTER_NO})"
            elif word == "yes":
                after = f"(?:{STOP}|{_GOES_ON_AFTER_YES})"
            elif word in ("safe", "unsafe"):
                after = f"(?:{STOP}|{_GOES_ON_AFTER_SAFE})"
            elif not re.search(r"[^\W\d]{2}", word):  # a letter or number also begins a list, and "a" a sentence
                after = r"(?=[ \t]*[.)\]\"']?[ \t]*(?:$|\n))"
            parts.append(rf"{re.escape(word)}\b{after}" if word[-1:].isalnum() else re.escape(word) + after)
        return re.compile(rf"(?P<no>not\s+(?:a\s+|an\s+)?(?=(?:un)?safe\b))?(?P<word>{'|'.join(parts)})")

    def at(self, text: str, place: int, end: int | None = None) -> Mention | None:
        """The verdict that an answer gives right at a place, markup and interjections passed over; None without one.

        Args:
            text: of `plain`.
            place, end: where to look; it must begin before `end`.

        >>> Words().at("**no**, a street", 0).unsafe, Words().at("not safe", 0).unsafe, Words().at("no one", 0)
        (False, True, None)
        """
        end = len(text) if end is None else end
        place = _past_markup(text, place)
        while found := _INTERJECTION.match(text, place):
            place = _past_markup(text, found.end())
        found = self._beginning.match(text, place, end)
        if not found or BOTH.match(text, place, end):
            return None
        word, negated = found["word"], found["no"] is not None
        unsafe = self.meaning[word] != negated
        words = {**self.meaning, "not": unsafe} if negated else self.meaning
        return Mention(unsafe, found.start(), tuple(words.items()), bare_no=word == "no" and not negated)

    def said_by(self, text: str, start: int, end: int) -> Mention | None:
        """The verdict where one of the words is all there is from `start` to `end`, but for marks around it."""
        found = self.at(text, start, end)
        if found is None or found.start is None:
            return None
        rest = self._beginning.match(text, found.start, end)
        return found if rest and not re.search(r"\w", text[rest.end() : end]) else None


def _past_markup(text: str, place: int) -> int:
    found = _MARKUP.match(text, place)
    return found.end() if found else place
