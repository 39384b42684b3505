"""Captions name what is seen, never the label."""

from __future__ import annotations

import re

from guardtrain.scenes.canvas import Dice
from guardtrain.scenes.captions import describe
from guardtrain.scenes.features import CATEGORIES, STAND_INS
from guardtrain.scenes.render import entropy, sample_scene

_LABEL_WORDS = frozenset((
    "safe", "unsafe", "safety", "danger", "dangerous", "harm", "harmful", "harmless", "hateful", "violent",
    "violence", "sexual", "nudity", "nude", "criminal", "crime", "abuse", "cruelty", "cruel", "disaster",
    "emergency", "prohibited", "forbidden", "allowed", "illegal", "offensive", "bad", "good", "evil",
    "labelled", "real", "edited", "counterfactual", "typical", "category",
))  # fmt: skip
# they would carry the label, the category or the pool into the encoder


def _captions(count: int) -> list[tuple[str, str]]:
    """Captions of both halves of `count` scenes."""
    pairs = []
    for i in range(count):
        generator = entropy("captions", 99, i)
        scene = sample_scene(generator, list(CATEGORIES)[i % 9], 0, 0.5)
        draws = generator.random(16).tolist()
        pairs.append((describe(scene, 0, Dice(draws)), describe(scene, 1, Dice(draws))))
    return pairs


def test_no_caption_uses_a_word_of_the_label() -> None:
    for pair in _captions(1500):
        for caption in pair:
            assert not _LABEL_WORDS & set(re.findall(r"[a-z]+", caption.lower())), caption


def test_captions_of_halves_differ_in_the_feature_alone() -> None:
    named = {stand_in.safe: stand_in.unsafe for stand_in in STAND_INS}
    for safe, unsafe in _captions(300):
        assert safe != unsafe
        assert any(a in safe and safe.replace(a, b) == unsafe for a, b in named.items())


def test_every_stand_in_is_named_apart() -> None:
    names = [name for stand_in in STAND_INS for name in (stand_in.safe, stand_in.unsafe)]
    assert len(set(names)) == len(names) == 36
    assert all(len([s for s in STAND_INS if s.category == c]) >= 2 for c in CATEGORIES)
