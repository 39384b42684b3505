"""Robust accuracy as text: a table a test set, guards beside each other, and what to know of it."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from guardtrain.benchmarks.attacks.results import FILE, FLOAT, IMAGE, PAIR
from guardtrain.benchmarks.attacks.settings import EVERYDAY, UNCHANGED, AttackSettings

if TYPE_CHECKING:
    import pandas as pd

_WIDTH = 108


def attack_text(frame: pd.DataFrame, settings: AttackSettings) -> str:
    """All tables and notes.

    Args:
        frame: see `guardtrain.benchmarks.attacks.results.robust_accuracy`.
        settings: of the attacks.
    """
    parts = []
    for test in dict.fromkeys(frame["test"]):
        rows = frame[frame["test"] == test]
        parts += [_images(rows, settings, test), *([_pairs(rows, test)] if (rows["unit"] == PAIR).any() else [])]
    return "\n\n".join([*parts, *notes(frame, settings)])


def notes(frame: pd.DataFrame, settings: AttackSettings) -> list[str]:
    """What the numbers mean, and where they say less than they seem to."""
    percent = f"{100 * settings.confidence:g}"
    found = [
        f"Brackets: {percent} % intervals (Clopper-Pearson). Robust accuracy is that on images which the guard "
        "classified correctly before. 'as files': after rounding to eight bits, written as PNG, read as "
        "`guardtrain predict` does; 'unrounded': on the attack's own numbers, which no file holds."
    ]
    pixel = frame[frame["attack"].isin(["fgsm", "pgd", "deepfool", "gaussian"])]
    if len(pixel):
        levels = int(settings.epsilon * 255 + 1e-6)
        found.append(
            f"ε = {settings.epsilon:g} of the range from black to white; a file's pixels move by at most {levels} of "
            "255 levels (Gaussian noise, with standard deviation ε, by more)."
            + (" That is none: such a change cannot be written to a file." if not levels else "")
        )
    deep = frame[(frame["attack"] == "deepfool") & (frame["unit"] == IMAGE) & (frame["pixels"] == FILE)]
    for row in deep.to_dict("records"):
        needed = float(row["needed"])
        if math.isfinite(needed):
            found.append(
                f"{row['guard']} on {row['test']}: half of the images need no more than a change of {needed:.4f} "
                f"({255 * needed:.2f} of 255 levels) to cross the threshold (DeepFool). It stops at the threshold, so "
                "that rounding alone undoes much of it."
            )
    flat = frame[(frame["flat"] > 0) & (frame["unit"] == IMAGE) & (frame["pixels"] == FILE)]
    for row in flat.to_dict("records"):
        found.append(
            f"{row['guard']} on {row['test']}: {float(row['flat']):.0%} of the images gave {row['title']} no gradient "
            "to follow (votes of neighbours are flat, say). What survives there says nothing of robustness."
        )
    guards = frame.loc[frame["attack"].isin(["fgsm", "pgd", "deepfool"]), "guard"].unique()
    wanted = [name for name in settings.attacks if name in ("fgsm", "pgd", "deepfool")]
    for guard in dict.fromkeys(frame["guard"]):
        if wanted and guard not in guards:
            found.append(f"{guard}: its head has no gradient, so {', '.join(wanted)} are left out.")
    return [textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="  ") for text in found]


def _images(rows: pd.DataFrame, settings: AttackSettings, test: str) -> str:
    rows = rows[rows["unit"] == IMAGE]
    guards = list(dict.fromkeys(rows["guard"]))
    some_float = (rows["pixels"] == FLOAT).any()
    columns = [(guard, pixels) for guard in guards for pixels in ([FILE, FLOAT] if some_float else [FILE])]
    head = ["", *(f"{guard}: {'as files' if pixels == FILE else 'unrounded'}" for guard, pixels in columns)]
    table = [head]
    titles = dict.fromkeys(zip(rows["attack"], rows["title"], strict=True))
    for attack, title in titles:
        name = "accuracy, nothing changed" if attack == UNCHANGED.name else title
        table.append([name, *(_cell(rows, guard, attack, title, pixels) for guard, pixels in columns)])
    counts = rows[rows["attack"] != UNCHANGED.name].groupby("guard", sort=False)["n"].max()
    attacked = ", ".join(f"{int(counts.get(guard, 0)):,} images of {guard}" for guard in guards)
    return _laid_out(f"Robust accuracy on '{test}' · {attacked} attacked", table)


def _pairs(rows: pd.DataFrame, test: str) -> str:
    rows = rows[rows["unit"] == PAIR]
    guards = list(dict.fromkeys(rows["guard"]))
    table = [["", *guards]]
    for attack, title in dict.fromkeys(zip(rows["attack"], rows["title"], strict=True)):
        name = "both right, nothing changed" if attack == UNCHANGED.name else title
        table.append([name, *(_cell(rows, guard, attack, title, FILE) for guard in guards)])
    counts = rows[rows["attack"] != UNCHANGED.name].groupby("guard", sort=False)["n"].max()
    attacked = ", ".join(f"{int(counts.get(guard, 0)):,} of {guard}" for guard in guards)
    return _laid_out(f"Pairs with both sides still right, as files, on '{test}' · {attacked} attacked", table)


def _cell(rows: pd.DataFrame, guard: str, attack: str, title: str, pixels: str) -> str:
    wanted = (rows["guard"] == guard) & (rows["title"] == title) & (rows["pixels"] == pixels)
    found = rows[wanted]
    if found.empty:
        return "" if attack in (*EVERYDAY, UNCHANGED.name) else "–"
    row = found.iloc[0]
    return f"{_short(row['value'])} [{_short(row['low'])}, {_short(row['high'])}]"


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _laid_out(title: str, table: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = [
        "  " + "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in table
    ]
    return "\n".join([title, lines[0].rstrip(), "  " + "─" * (max(map(len, lines)) - 2), *lines[1:]])
