"""Robust accuracy counted by hand, with scipy's intervals."""

from __future__ import annotations

import re
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from guardtrain.benchmarks.attacks.report import attack_text
from guardtrain.benchmarks.attacks.results import robust_accuracy
from guardtrain.benchmarks.attacks.settings import Attack, AttackSettings
from guardtrain.errors import ConfigError


def rows(attack: Attack, right: list[bool], pairs: list[str | None], **more: object) -> list[dict[str, object]]:
    about = {"guard": "g", "test": "t", "attack": attack.name, "strength": attack.strength, "title": attack.label}
    blank = {
        "right_float": None,
        "linf": None,
        "l2": None,
        "linf_file": None,
        "needed": None,
        "steps": 0,
        "flat": False,
    }
    return [
        about | blank | {"id": str(i), "label": i % 2, "pair_id": pair, "group": pair or str(i), "logit": 0.0}
        | {"right": ok} | {key: value[i] for key, value in more.items()}  # type: ignore[index]
        for i, (ok, pair) in enumerate(zip(right, pairs, strict=True))
    ]  # fmt: skip


def test_shares_intervals_and_pairs() -> None:
    alone: list[str | None] = [None] * 10
    pgd, jpeg = Attack("pgd", 0.01), Attack("jpeg", 50.0)
    frame = pd.DataFrame(
        rows(Attack("none"), [True] * 9 + [False], alone)
        + rows(pgd, [True] * 2 + [False] * 7, alone[:9], right_float=[True] + [False] * 8)
        # pairs a and b whole, of c one half: a stays right, b does not
        + rows(jpeg, [True, True, True, False, True], ["a", "a", "b", "b", "c"])
    )
    found = robust_accuracy(frame, "d", 0.9)
    assert len(found) == 5

    def one(**wanted: object) -> pd.Series:
        mask = np.logical_and.reduce([found[key] == value for key, value in wanted.items()])
        assert mask.sum() == 1
        return found[mask].iloc[0]

    for pixels, right in (("file", 2), ("float", 1)):
        row = one(attack="pgd", pixels=pixels)
        interval = binomtest(right, 9).proportion_ci(0.9, "exact")
        assert (row["right"], row["n"], row["value"]) == (right, 9, pytest.approx(right / 9))
        assert (row["low"], row["high"]) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert one(attack="none")["value"] == pytest.approx(0.9)
    images, pairs = one(attack="jpeg", unit="image"), one(attack="jpeg", unit="pair")
    assert (images["right"], images["n"]) == (4, 5)
    assert images["effective"] == pytest.approx(25 / 9), "halves of a pair are not two images' worth"
    assert (pairs["right"], pairs["n"]) == (1, 2)


def test_the_report_says_what_is_missing_and_what_says_little() -> None:
    alone: list[str | None] = [None] * 4
    frame = pd.DataFrame(
        rows(Attack("none"), [True] * 4, alone)
        + rows(Attack("fgsm", 0.01), [True] * 4, alone, right_float=[True] * 4, flat=[True, True, True, False])
        + rows(Attack("deepfool", 0.01), [True, False] * 2, alone, right_float=[False] * 4, needed=[0.001] * 4)
        + [row | {"guard": "h"} for row in rows(Attack("none"), [True] * 4, alone)]
    )
    text = " ".join(attack_text(robust_accuracy(frame, "d", 0.95), AttackSettings(epsilon=0.002)).split())
    for part in (
        "75% of the images gave FGSM no gradient",
        "a change of no more than 0.0010 (0.26 of 255 levels) for g on t (DeepFool)",
        "cannot be written to a file",
        "h: its head has no gradient, so fgsm, pgd, deepfool are left out",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attacks": ["fsgm"]}, "attacks has 'fsgm'"),
        ({"attacks": []}, "attacks is empty"),
        ({"epsilon": 0}, "epsilon is 0"),
        ({"epsilon": 8}, "white is 1"),
        ({"jpeg": [0]}, "a whole quality from 1 to 100"),
        ({"jpeg": [75, 75.5]}, "jpeg has 75.5"),
        ({"crop": [0.0]}, "a share from 0.01"),
        ({"resize": [0.001]}, "resize has 0.001"),  # less than a pixel of most images
        ({"resize": [0.5, 0.5]}, "the same strength twice"),
        ({"norm": "l1"}, "allowed: linf, l2"),
        ({"block": 0}, "block is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_wrong_settings_are_named(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AttackSettings(**changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [1, 3, 10, 100])
def test_pgds_step_follows_from_the_number_of_steps_and_is_part_of_what_a_block_is_known_by(steps: int) -> None:
    (plain,) = AttackSettings(attacks=["pgd"], steps=steps, epsilon=0.02).plan()
    assert plain.options["step_size"] == pytest.approx(2.5 * 0.02 / steps)
    (given,) = AttackSettings(attacks=["pgd"], steps=steps, epsilon=0.02, step_size=0.002).plan()
    assert given.options["step_size"] == 0.002
    assert asdict(given) != asdict(plain)
    before = {"steps": steps, "step_size": plain.options["step_size"], "restarts": 1}
    assert plain.options != before, "without the point of FGSM it was another attack"


@pytest.mark.parametrize(("steps", "size", "said"), [(3, 0.001, True), (10, 0.0019, True), (10, 0.002, False)])
def test_steps_that_cannot_cross_the_ball_are_said_to_be_weak(steps: int, size: float, said: bool) -> None:
    settings = AttackSettings(epsilon=0.01, steps=steps, step_size=size)
    assert (settings.warning is not None) == said
    assert replace(settings, step_size=None).warning is None
    assert replace(settings, attacks=["fgsm", "deepfool"]).warning is None
    if said:
        line = re.search(r"at least (step_size)=(\S+)\.$", str(settings.warning))
        assert line is not None
        assert replace(settings, step_size=float(line[2])).warning is None
