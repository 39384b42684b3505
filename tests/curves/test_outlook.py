"""What real data alone would need beyond the budgets tried: where it is said, and that it is never a measurement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from guardtrain.curves.bootstrap import PointReplicates, seed_replicates
from guardtrain.curves.efficiency import LineReplicates, data_multiplier
from guardtrain.curves.outlook import outlook_lines, outlooks
from guardtrain.curves.statistics import Line

REAL, PAIRS = Line("replace", "none", 0.0), Line("replace", "paired", 0.5)
BUDGETS = (16, 32, 64, 128, 256, 512)


def boot(frames: Any, worth: float, heads: tuple[str, ...] = ("linear",), budgets: Any = BUDGETS) -> PointReplicates:
    """Real data alone with error `.05 + 1.5 / √n`, and pairs whose images count `worth` times."""
    frame = frames(budgets=budgets, ratios=(0.0, 0.5), controls=("paired",), tests=("pairs",), heads=heads, seeds=6)
    images = frame["budget"] * np.where(frame["control"] == "paired", worth, 1)
    frame["auroc"] = 1 - (0.05 + 1.5 * images**-0.5) + np.random.default_rng(0).normal(0, 0.002, len(frame))
    return seed_replicates(frame, "pairs", "auroc", 300)


def test_the_first_censored_budget_is_extrapolated_and_marked(frames: Any) -> None:
    made = boot(frames, worth=8)
    multipliers = data_multiplier(LineReplicates.of(made, REAL), LineReplicates.of(made, PAIRS))
    first = next(k for k, e in enumerate(multipliers) if np.isposinf(e.value))
    (one,) = outlooks(made)
    assert (one.line, one.n) == (PAIRS, BUDGETS[first])
    assert one.needed.estimate.value == pytest.approx(8 * one.n, rel=0.25)
    assert one.needed.estimate.value > 512, "nothing that was measured"
    (text,) = outlook_lines(made)
    assert text.startswith(f"To do as well as pairs ½ (replace) with {one.n} images (AUROC .")
    assert "real only would need" in text
    assert "extrapolated from 16–512 images, power law" in text


def test_nothing_is_said_where_nothing_is_censored(frames: Any) -> None:
    assert outlook_lines(boot(frames, worth=0.25)) == []


def test_what_is_refused_says_why_once_for_all_heads(frames: Any) -> None:
    few = boot(frames, worth=8, heads=("mlp", "linear"), budgets=(16, 64, 512))
    assert outlook_lines(few) == ["Real only (mlp, linear) is not extrapolated: 3 budgets, and 5 are needed."]
    told = outlook_lines(boot(frames, worth=8, heads=("mlp", "linear")))
    assert [line.partition(":")[0] for line in told] == ["mlp", "linear"]
