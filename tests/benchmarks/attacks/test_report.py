"""Robust accuracy as text: guards beside each other, in lines that fit a terminal, and what to know of them."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from guardtrain.benchmarks.attacks.report import attack_text
from guardtrain.benchmarks.attacks.results import COLUMNS
from guardtrain.benchmarks.attacks.settings import AttackSettings


def _table(*guards: str) -> pd.DataFrame:
    rows = []
    for place, guard in enumerate(guards):
        for attack, title, pixels in (
            ("none", "none", ["file"]),
            ("pgd", "PGD", ["file", "float"]),
            ("jpeg", "JPEG 75", ["file"]),
        ):
            about = {"data": "d", "test": "t", "guard": guard, "attack": attack, "title": title, "n": 40}
            value = {"none": 0.9, "pgd": 0.01 * place, "jpeg": 0.5}[attack]
            span = {
                "value": value,
                "low": max(0.0, value - 0.1),
                "high": value + 0.1,
                "flat": 0.0,
                "needed": float("nan"),
            }
            for unit in ("image", "pair"):
                rows += [about | span | {"unit": unit, "pixels": one} for one in pixels]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_one_guard_has_files_and_unrounded_pixels_beside_each_other() -> None:
    text = attack_text(_table("mine"), AttackSettings(guards=["x"], samples=40, out="o", data_dir="d"))
    assert text.startswith("Robust accuracy on 't' · 40 images of mine attacked\n")
    (head,) = (line for line in text.splitlines() if "unrounded" in line and "as files" in line and "'" not in line)
    assert head.split("  ")[-1].strip() == "unrounded"
    assert re.search(r"PGD +\.000 \[\.000, \.100\]  \.000 \[\.000, \.100\]\n", text)
    assert "Fewer images than" not in text


@pytest.mark.parametrize("count", [2, 5])
def test_many_guards_fit_the_width(count: int) -> None:
    guards = [f"guard-number-{i}-of-a-team" for i in range(count)]
    text = attack_text(_table(*guards), AttackSettings(guards=["x"], samples=500, out="o", data_dir="d"))
    assert max(map(len, text.splitlines())) <= 110
    assert "as files · 40 images of each attacked" in text
    assert "Fewer images than samples=500 were classified correctly" in " ".join(text.split())
    for place, guard in enumerate(guards):
        assert text.count(guard) == 4  # in three tables and a note
        assert f" .{10 * place:03d} [" in text
