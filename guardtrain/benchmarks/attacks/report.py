"""Robust accuracy as text: a table a test set, guards beside each other, and what to know of it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from guardtrain.benchmarks.attacks.results import FILE, FLOAT, IMAGE, PAIR
from guardtrain.benchmarks.attacks.settings import EVERYDAY, UNCHANGED, AttackSettings
from guardtrain.benchmarks.overlap import told_trained, unknown_note
from guardtrain.benchmarks.tables_text import column_parts

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.guards.guard import Guard

_WIDTH = 108


def attack_text(frame: pd.DataFrame, settings: AttackSettings, further: Sequence[str] = ()) -> str:
    """All tables and notes.

    Args:
        frame: see `guardtrain.benchmarks.attacks.results.robust_accuracy`.
        settings: of the attacks.
        further: what else its reader must know.
    """
    lines: list[str] = []
    for test in dict.fromkeys(frame["test"]):
        rows = frame[frame["test"] == test]
        lines += _images(rows, test)
        if (rows["unit"] == PAIR).any():
            lines += _pairs(rows, test)
    return "\n".join([*lines, "\n\n".join(notes(frame, settings, further))])


def trained_notes(images: pd.DataFrame, guards: Mapping[str, Guard], training_images: str) -> list[str]:
    """In a sentence each, on how many of the images that were looked at guards were trained, or that this is unknown.

    Args:
        images: rows of `guardtrain.benchmarks.attacks.running.IMAGE_COLUMNS`, all of them.
        guards: by name.
        training_images: the setting.
    """
    found = []
    looked_at = images[images["attack"] == UNCHANGED.name]
    for (guard, test), rows in looked_at.groupby(["guard", "test"], sort=False):
        if count := int((rows["trained_on"] == True).sum()):  # noqa: E712 - null is unknown
            found.append(told_trained(str(guard), count, len(rows), f"images of '{test}'", training_images))
    return [*found, *unknown_note(guards)]


def notes(frame: pd.DataFrame, settings: AttackSettings, further: Sequence[str] = ()) -> list[str]:
    """Say what the numbers mean, and where they say less than they seem to."""
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
    if settings.warning:
        found.append(settings.warning)
    deep = frame[(frame["attack"] == "deepfool") & (frame["unit"] == IMAGE) & (frame["pixels"] == FILE)]
    needed = [
        f"{row['needed']:.4f} ({255 * row['needed']:.2f} of 255 levels) for {row['guard']} on {row['test']}"
        for row in deep.to_dict("records")
        if math.isfinite(row["needed"])
    ]
    if needed:
        found.append(
            f"To cross the threshold half of the images need a change of no more than {'; '.join(needed)} (DeepFool). "
            "It stops at the threshold, so that rounding alone undoes much of it."
        )
    flat = frame[(frame["flat"] > 0) & (frame["unit"] == IMAGE) & (frame["pixels"] == FILE)]
    for row in flat.to_dict("records"):
        found.append(
            f"{row['guard']} on {row['test']}: {float(row['flat']):.0%} of the images gave {row['title']} no gradient "
            "to follow (votes of neighbours are flat, say). What survives there says nothing of robustness."
        )
    once = frame[(frame["attack"] != UNCHANGED.name) & (frame["unit"] == IMAGE) & (frame["pixels"] == FILE)]
    few = [
        f"{row['n']:,} by {row['guard']} on {row['test']}"
        for row in once.drop_duplicates(["guard", "test"]).to_dict("records")
        if row["n"] < settings.samples
    ]
    if few:
        found.append(
            f"Fewer images than samples={settings.samples:,} were classified correctly, and all of them attacked: "
            f"{'; '.join(few)}."
        )
    guards = frame.loc[frame["attack"].isin(["fgsm", "pgd", "deepfool"]), "guard"].unique()
    wanted = [name for name in settings.attacks if name in ("fgsm", "pgd", "deepfool")]
    for guard in dict.fromkeys(frame["guard"]):
        if wanted and guard not in guards:
            found.append(f"{guard}: its head has no gradient, so {', '.join(wanted)} are left out.")
    found += further
    return [
        textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        for text in found
    ]


def _images(rows: pd.DataFrame, test: str) -> list[str]:
    """Files and unrounded pixels beside each other of one guard; of several a table each, guards beside each other."""
    rows = rows[rows["unit"] == IMAGE]
    guards = list(dict.fromkeys(rows["guard"]))
    attacked = _attacked(rows, guards, "images of ")
    kinds = {FILE: "as files", FLOAT: "unrounded"} if (rows["pixels"] == FLOAT).any() else {FILE: "as files"}
    if len(guards) == 1:
        columns = [(guards[0], pixels, name) for pixels, name in kinds.items()]
        return _laid_out(f"Robust accuracy on '{test}' · {attacked} attacked", _lines(rows, columns))
    found = []
    for pixels, name in kinds.items():
        title = f"Robust accuracy on '{test}', {name}" + (f" · {attacked} attacked" if pixels == FILE else "")
        there = rows[rows["pixels"] == pixels]
        found += _laid_out(title, _lines(there, [(guard, pixels, guard) for guard in guards]))
    return found


def _attacked(rows: pd.DataFrame, guards: list[str], what: str) -> str:
    """How many were attacked, of each guard."""
    most = rows[rows["attack"] != UNCHANGED.name].groupby("guard", sort=False)["n"].max()
    counts = {guard: int(most.get(guard, 0)) for guard in guards}
    if len(guards) > 1 and len(set(counts.values())) == 1:
        counts = {"each": counts[guards[0]]}
    return ", ".join(f"{n:,} {what}{guard}" for guard, n in counts.items())


def _lines(rows: pd.DataFrame, columns: list[tuple[str, str, str]], first: str = "accuracy") -> list[list[str]]:
    """A head, and a line an attack; of each column the guard, the pixels and what it is called."""
    lines = [["", *(name for _, _, name in columns)]]
    for attack, title in dict.fromkeys(zip(rows["attack"], rows["title"], strict=True)):
        name = f"{first}, nothing changed" if attack == UNCHANGED.name else title
        lines.append([name, *(_cell(rows, guard, attack, title, pixels) for guard, pixels, _ in columns)])
    return lines


def _pairs(rows: pd.DataFrame, test: str) -> list[str]:
    rows = rows[rows["unit"] == PAIR]
    guards = list(dict.fromkeys(rows["guard"]))
    title = f"Pairs with both sides still right, as files, on '{test}' · {_attacked(rows, guards, 'of ')} attacked"
    there = rows[rows["pixels"] == FILE]
    return _laid_out(title, _lines(there, [(guard, FILE, guard) for guard in guards], first="both right"))


def _cell(rows: pd.DataFrame, guard: str, attack: str, title: str, pixels: str) -> str:
    wanted = (rows["guard"] == guard) & (rows["title"] == title) & (rows["pixels"] == pixels)
    found = rows[wanted]
    if found.empty:
        return "" if attack in (*EVERYDAY, UNCHANGED.name) else "–"
    row = found.iloc[0]
    return f"{_short(row['value'])} [{_short(row['low'])}, {_short(row['high'])}]"


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _laid_out(title: str, table: list[list[str]]) -> list[str]:
    """The lines of a table, in as many parts as the width asks for."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    found = [title]
    for part in column_parts(widths[1:], _WIDTH - widths[0] - 2):
        at = [i + 1 for i in part]
        lines = [
            "  " + "  ".join([line[0].ljust(widths[0]), *(line[i].rjust(widths[i]) for i in at)]).rstrip()
            for line in table
        ]
        full = widths[0] + sum(widths[i] + 2 for i in at)
        found += [*([""] if len(found) > 1 else []), lines[0], f"  {'─' * full}", *lines[1:]]
    return [*found, ""]
