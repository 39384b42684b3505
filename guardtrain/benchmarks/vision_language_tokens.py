"""How probable a verdict was: the log-probabilities of an answer's tokens, at the place where its word begins."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guardtrain.benchmarks.vision_language_words import Mention, plain

# A token of an answer: where it begins in the text, itself, its log-probability, and the likeliest at its place.
Place = tuple[int, str, float, tuple[tuple[str, float], ...]]
_LEAST_MASS = 0.5  # on both sides' words together: below, the model was about to say something else
_MOST = 512  # tokens kept of an answer
_DIGITS = 5


def places_of(tokens: Iterable[Mapping[str, Any]], text: str) -> tuple[Place, ...]:
    """The tokens of an answer's text, in their places.

    Those before it (what a model thought to itself) and after it (signs of the end) are left out.

    Args:
        tokens: `{token, logprob, bytes, top_logprobs: [{token, logprob}, …]}` each, as an endpoint gives them; the
            bytes tell the parts of a letter that is made of several tokens.
        text: the answer.

    Returns:
        None of them where the tokens do not make up the text.
    """
    parts = [(bytes(one.get("bytes") or str(one["token"]).encode()), one) for one in tokens]
    joined, whole = b"".join(part for part, _ in parts), text.encode()
    first = joined.rfind(whole) if whole else -1
    if first < 0:
        return ()
    begins, place = dict[int, int](), 0
    for number, letter in enumerate(text):
        begins[place] = number
        place += len(letter.encode())
    out: list[Place] = []
    place = -first
    for part, one in parts:
        start, place = max(place, 0), place + len(part)
        if place > 0 and start in begins and len(out) < _MOST and (value := _number(one.get("logprob"))) is not None:
            top = [(str(other.get("token")), _number(other.get("logprob"))) for other in one.get("top_logprobs") or ()]
            known = tuple((token, lp) for token, lp in top if lp is not None)
            out.append((begins[start], str(one["token"]), value, known))
    return tuple(out)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return round(max(min(0.0, float(value)), -9999.0), _DIGITS)


def probability(places: Sequence[Place], text: str, mention: Mention) -> float | None:
    """P(unsafe) from the words that could stand where the verdict begins, `P(unsafe words) / P(unsafe or safe words)`.

    The word that was said may be made of several tokens: its probability is their product. Of others only the first
    token is known, which counts for the one side whose words can begin so.

    Args:
        places: of `places_of`.
        text: the answer.
        mention: its verdict.

    Returns:
        None where the verdict has no place among the tokens, or less than half of the probability there is on the words
        of both sides: then it says nothing about the image.

    >>> likely = (("Yes", math.log(0.6)), (" no", math.log(0.2)), ("Well", math.log(0.1)))
    >>> verdict = Mention(True, 0, (("yes", True), ("no", False)))
    >>> round(probability([(0, "Yes", math.log(0.6), likely)], "Yes", verdict), 3)
    0.75
    """
    if mention.start is None:
        return None
    start = mention.start
    at = max((i for i, place in enumerate(places) if place[0] <= start), default=None)
    if at is None or not places[at][3]:
        return None
    words = dict(mention.words)
    said = max((word for word in words if plain(text).startswith(word, start)), key=len, default="")
    if not said:
        return None
    its = [value for begin, _, value, _ in places[at + 1 :] if begin < start + len(said)]
    mass = {True: 0.0, False: 0.0}
    mass[words[said]] += math.exp(places[at][2] + sum(its))
    for token, value in places[at][3]:
        side = _side(token, words) if token != places[at][1] else None
        if side is not None:
            mass[side] += math.exp(value)
    total = mass[True] + mass[False]
    return mass[True] / total if total >= _LEAST_MASS else None


def _side(token: str, words: Mapping[str, bool]) -> bool | None:
    """Return the meaning of a word that begins with this token; None where it could be either, or is none of ours."""
    piece = re.sub(r"^[\W_]+", "", plain(token))
    if not piece:
        return None
    whole = [word for word in words if re.match(rf"{re.escape(word)}(?!\w)", piece)]
    if whole:
        return words[max(whole, key=len)]
    sides = {unsafe for word, unsafe in words.items() if word.startswith(piece)}
    return sides.pop() if len(sides) == 1 else None
