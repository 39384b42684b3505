"""What a curve's folder holds, and which of the runs in it the last curve showed."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from guardtrain.files import replace_file

if TYPE_CHECKING:
    import pandas as pd

RESULTS_FILE = "results.parquet"
SCORES_FOLDER = "scores"
VALIDATION_FOLDER = "validation"
CURVE_FILE = "curve.json"

# Raised when a change to the code changes the numbers of a run, so that old rows are not taken for new ones.
ENGINE_VERSION = 5


def keep_keys(folder: Path, keys: Collection[str], loss: str | None = None) -> None:
    """Note in `folder` which runs the last curve there showed; the table may hold others.

    Args:
        loss: what these runs were trained with, where it is known; the last curve with each loss stays noted, too.
    """
    of_loss = {} if loss is None else {**keys_of_losses(folder), loss: sorted(keys)}
    text = json.dumps({"runs": sorted(keys)} | ({"losses": of_loss} if of_loss else {}), indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / CURVE_FILE, lambda path: path.write_text(text))


def keys_of_losses(folder: Path) -> dict[str, list[str]]:
    """The runs of the last curve in `folder` with each loss, by the loss's name."""
    file = folder / CURVE_FILE
    return dict(json.loads(file.read_text()).get("losses", {})) if file.is_file() else {}


def of_last_curve(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The rows of `frame` that the last curve in `folder` showed; all of them where there is no note of it."""
    keys = kept_keys(folder)
    return frame if keys is None else frame[frame["run"].isin(keys)]


def kept_keys(folder: Path) -> set[str] | None:
    """Return what `keep_keys` noted in `folder`; None where there is no note."""
    file = folder / CURVE_FILE
    return set(json.loads(file.read_text())["runs"]) if file.is_file() else None
