"""Probabilities of verdicts: from the tokens where the word stands, whatever pieces it comes in."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardtrain.benchmarks.vision_language_reading import read_answer
from guardtrain.benchmarks.vision_language_tokens import places_of, probability
from guardtrain.benchmarks.vision_language_words import Words
from tests.benchmarks.spoken import SAFE, UNSAFE, unmarked
from tests.benchmarks.tokenised import opposite, tokenised

BEFORE = "<think>Yes, unsafe</think>"


def found(tokens: list[dict], text: str) -> float | None:
    mention = read_answer(text, Words()).mention
    assert mention is not None
    return probability(places_of(tokens, text), text, mention)


@given(
    st.sampled_from([text for text in (*UNSAFE, *SAFE) if "«" in text]),
    st.integers(1, 6),
    st.sampled_from(["", BEFORE]),
    st.booleans(),
)
def test_the_odds_are_those_at_the_word_whatever_stands_before_it_and_however_it_is_cut(
    marked: str, longest: int, before: str, by_bytes: bool
) -> None:
    """All other tokens say the opposite with high odds: whoever reads one of those is wrong."""
    text, place, word = unmarked(marked)
    tokens, said = tokenised(before + text, len(before) + place, word, longest, by_bytes=by_bytes)  # type: ignore[operator]
    p = found(tokens, text)
    assert p is not None, marked
    against = 0.1
    assert max(p, 1 - p) == pytest.approx(said / (said + against), abs=1e-3), marked
    assert (p > 0.5) is (marked in UNSAFE)


def test_words_in_other_cases_and_with_blanks_are_the_same_word() -> None:
    top = {" Yes": 0.3, "YES": 0.2, "yes": 0.1, "**Yes": 0.05, "No": 0.1, " no": 0.05, "Un": 0.05, "Nothing": 0.1}
    tokens = [{"token": " Yes", "logprob": math.log(0.3), "top_logprobs": [
        {"token": token, "logprob": math.log(p)} for token, p in top.items()]}]  # fmt: skip
    assert found(tokens, "Yes") == pytest.approx(0.7 / 0.85, abs=1e-4)


def test_less_than_half_of_the_mass_on_both_words_is_no_probability() -> None:
    def of(yes: float, no: float) -> list[dict]:
        top = [{"token": "Yes", "logprob": math.log(yes)}, {"token": "No", "logprob": math.log(no)}]
        return [{"token": "Yes", "logprob": math.log(yes), "top_logprobs": top}]

    assert found(of(0.3, 0.21), "Yes") == pytest.approx(0.3 / 0.51, abs=1e-4)
    assert found(of(0.3, 0.19), "Yes") is None


def test_tokens_that_are_not_the_answer_have_no_probability() -> None:
    tokens, _ = tokenised("Yes", 0, "Yes", 9)
    assert found(tokens, "No, not that") is None
    assert found([{"token": "Yes", "logprob": None, "top_logprobs": []}], "Yes") is None
    assert found([{"token": "Yes", "logprob": -0.1}], "Yes") is None
    assert places_of([], "Yes") == ()


def test_letters_of_several_tokens_do_not_move_the_places() -> None:
    text = "Ä 🙂: Yes"
    whole = text.encode()
    parts = [whole[i : i + 1] for i in range(len(whole))]
    tokens = [{"token": part.decode(errors="replace"), "bytes": list(part), "logprob": -0.1} for part in parts]
    at = {start: token for start, token, _, _ in places_of(tokens, text)}
    assert [at[text.index(letter)] for letter in "Yes"] == ["Y", "e", "s"]


def test_every_word_has_one_that_says_the_opposite() -> None:
    for marked in (*UNSAFE, *SAFE):
        _, _, word = unmarked(marked)
        if word:
            assert opposite(word) != word.lower()
            assert re.fullmatch(r"\w+", opposite(word))
