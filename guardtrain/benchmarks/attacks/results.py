"""Robust accuracy with intervals: of images and of whole pairs, of the attack's own pixels and of files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.benchmarks.attacks.settings import UNCHANGED
from guardtrain.benchmarks.training_images import KEEP
from guardtrain.guards.thresholds_rates import clopper_pearson, effective_number

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "data", "test", "guard", "attack", "strength", "title", "unit", "pixels", "value", "low", "high", "right", "n",
    "effective", "confidence", "needed", "flat", "steps",
)  # fmt: skip
IMAGE, PAIR = "image", "pair"
FILE, FLOAT = "file", "float"


def robust_accuracy(images: pd.DataFrame, data: str, confidence: float) -> pd.DataFrame:
    """A row for each guard, test set, attack, unit and kind of pixels; see `COLUMNS`.

    - `unit` image: of the images that the guard classified correctly, the share that it still does. Pair: of the pairs
      of which it classified both sides correctly (and both were attacked), the share where it still does.
    - `pixels` file: images rounded to eight bits, written and read. Float: what the attack itself worked on, which no
      file can hold; everyday changes have none.
    - attack `none`: accuracy on the images that were looked at, correctly classified or not.

    Intervals are Clopper and Pearson's, of as many images as those of one group (a pair, say) are worth.

    Args:
        images: rows of `guardtrain.benchmarks.attacks.running.IMAGE_COLUMNS`.
        data: the data's name.
        confidence: of the intervals.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    keys = ["guard", "test", "attack", "strength", "title"]
    for key, part in images.groupby(keys, sort=False):
        about = {"data": data} | dict(zip(keys, key, strict=True))
        for pixels, column in ((FILE, "right"), (FLOAT, "right_float")):
            if part[column].isna().any():
                continue
            right = part[column].to_numpy(dtype=bool)
            groups = np.unique(part["group"].astype(str), return_inverse=True)[1]
            rows.append(about | _share(right, groups, confidence) | {"unit": IMAGE, "pixels": pixels} | _extras(part))
            both, groups = _pairs(part, column)
            if len(both):
                rows.append(about | _share(both, groups, confidence) | {"unit": PAIR, "pixels": pixels})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def counted(images: pd.DataFrame, training_images: str) -> pd.DataFrame:
    """The rows of images that count for their guard: without those it was trained on, unless they are kept."""
    if training_images == KEEP:
        return images
    return images[~(images["trained_on"] == True)]  # noqa: E712 - null is unknown, and counts


def _share(right: np.ndarray, groups: np.ndarray, confidence: float) -> dict[str, Any]:
    count, n, worth = int(right.sum()), len(right), effective_number(groups)
    low, high = clopper_pearson(count, count, n, worth, confidence)
    share = {"value": count / n, "low": low, "high": high, "right": count, "n": n}
    return share | {"effective": worth, "confidence": confidence}


def _pairs(part: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return for each pair with both halves in `part` whether both are right, and its group as a number."""
    halves = part[part["pair_id"].notna()].groupby("pair_id", sort=False)
    whole = halves.filter(lambda rows: len(rows) == 2).groupby("pair_id", sort=False)
    both = whole[column].agg(lambda values: bool(values.astype(bool).all()))
    groups = whole["group"].first().astype(str)
    return both.to_numpy(dtype=bool), np.unique(groups, return_inverse=True)[1]


def _extras(part: pd.DataFrame) -> dict[str, Any]:
    """Return what is said of images alone: DeepFool's median change, images without a gradient, gradients taken."""
    if part["attack"].iloc[0] == UNCHANGED.name:
        return {"needed": np.nan, "flat": np.nan, "steps": np.nan}
    # what never crossed the boundary counts as far away, not as absent
    needed = part["needed"].astype(float).fillna(np.inf)
    median = float(np.median(needed)) if part["attack"].iloc[0] == "deepfool" else np.nan
    return {"needed": median, "flat": float(part["flat"].mean()), "steps": float(part["steps"].mean())}
