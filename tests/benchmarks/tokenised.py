"""Answers as tokens with log-probabilities, of which those away from the word that decides mislead."""

from __future__ import annotations

import math
import re
from typing import Any

SAID, PIECE, AGAINST = 0.8, 0.95, 0.1
_OPPOSITE = {
    "yes": "no", "no": "yes", "unsafe": "safe", "safe": "unsafe", "true": "false", "false": "true", "1": "0", "0": "1",
    "none": "yes",
}  # fmt: skip


def opposite(word: str, after: str = "") -> str:
    """What says the opposite in the place of a word; of `not` it is the word after it without a not."""
    if word.lower() == "not":
        return "unsafe" if re.match(r"\W*unsafe", after.lower()) else "safe"
    return _OPPOSITE[word.lower()]


def tokenised(
    text: str, place: int, word: str, longest: int = 4, odds: float = SAID, by_bytes: bool = False
) -> tuple[list[dict[str, Any]], float]:
    """The tokens of an answer, of at most `longest` letters, and how probable its word at `place` was in all.

    At every other token the likeliest others are Yes and No, each sure to mislead.
    """
    end = place + len(word)
    pieces = re.findall(rf"\s?\w{{1,{longest}}}|\s|[^\w\s]", text[:place])
    pieces += [word[i : i + longest] for i in range(0, len(word), longest)]
    pieces += re.findall(rf"\s?\w{{1,{longest}}}|\s|[^\w\s]", text[end:])
    assert "".join(pieces) == text
    tokens, at, said = [], 0, 1.0
    for piece in pieces:
        if at == place:
            p, others = odds, {opposite(word, text[end:])[:longest]: AGAINST if odds == SAID else 0.9 - odds}
        elif place < at < end:
            p, others = PIECE, {}
        else:
            p, others = 0.05, {"Yes": 0.5, "No": 0.4}
        said *= p if place <= at < end else 1
        top = [{"token": piece, "logprob": math.log(p)}]
        top += [{"token": other, "logprob": math.log(value)} for other, value in others.items() if value > 0]
        tokens.append({"token": piece, "logprob": math.log(p), "top_logprobs": top})
        if by_bytes:
            tokens[-1]["bytes"] = list(piece.encode())
        at += len(piece)
    return tokens, said
