"""The entrance of an audit in words: what tells the label unseen, labels that are doubted, gaps between groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from guardtrain.curves.audit.attributes import FPR, MEASURES, Gap
from guardtrain.curves.audit.clues import ROW_ORDER, SAME, STOP, Clue
from guardtrain.curves.audit.files import NO_FILES
from guardtrain.curves.audit.labels import Inverted, LabelCheck
from guardtrain.curves.audit.measure import LABELS, Audit
from guardtrain.curves.audit.readers import NEIGHBOURS, SEEDS
from guardtrain.curves.audit.tables import clipped, interval_text, named, p_text, share_text, table, wrapped
from guardtrain.curves.statistics import number_text

SUSPECTS_FILE = "suspects.csv"
_AS_GOOD = 0.02  # in AUROC: of clues that tell about as much the first is named, which others follow from
_LONGEST = 30  # characters of a value
_SHOWN = 5  # images and pairs a line each; the file has all
_OF_CONTENT = ("bytes", "bytes per pixel")  # which what is seen on an image decides, too


def clue_table(audit: Audit) -> str:
    """A line for each property of each part that differs between images, and how well it tells the label."""
    rows: list[list[str]] = [["", "AUROC", "chance", "p", "told by"]]
    for part, looked in audit.looked.items():
        own = [clue for clue in audit.clues if clue.part == part]
        about = f"{looked.n:,} images" + (f" of {looked.of:,}" if looked.n < looked.of else "")
        about += f"; {looked.reason}" if looked.reason else ""
        about += f"; {looked.unreadable:,} files are no images" if looked.unreadable else ""
        rows.append([f"{named(part)}: {about}"])
        for clue in (clue for clue in own if not clue.reason):
            values = [f"{number_text(clue.auroc)} {interval_text(clue.low, clue.high)}"]
            values += [f"≤ {number_text(clue.chance_high, 2)}", p_text(clue.p_value)]
            rows.append([f"  {clue.name}", *values, _flag(clue)])
        if same := _same(own):
            rows.append([f"  the same in all: {same}"])
        if few := [clue for clue in own if clue.reason and not clue.reason.startswith(SAME)]:
            rows.append([f"  {', '.join(clue.name for clue in few)}: {few[0].reason}"])
    note = (
        "How well each alone tells the label of images left out (AUROC: .5 or less is guessing, 1 always right), with "
        "95 % bootstrap intervals. Chance: what 95 % of shuffled labels stay below. p: how often shuffled labels "
        f"make any of these lines stand out so far. STOP: p ≤ .05 and AUROC ≥ {number_text(STOP, 2)}."
    )
    return table("The label, told without looking at the image", rows, words=True) + "\n" + wrapped(note)


def label_table(audit: Audit) -> str:
    """Tell what the readers say of the labels, part by part, and the most doubted images and pairs."""
    rows = [["", "images", "readers' AUROC", "contradicted", "wrong, about", "p"]]
    listed: list[str] = []
    for check in audit.checks:
        count = f"{check.n:,}" + (f" of {check.of:,}" if check.n < check.of else "")
        if check.reason:
            rows.append([named(check.part), count, f"not asked: {check.reason}"])
            continue
        about = f"{check.expected:,.0f} ({share_text(check.expected, check.n)})"
        values = [count, number_text(check.agreement), f"{len(check.images):,}", about, p_text(check.p_value)]
        rows.append([named(check.part), *values])
        if check.wrong:
            listed += [
                f"    {doubt.id}: labelled {LABELS[doubt.label]}, read as unsafe with {number_text(doubt.unsafe, 2)}"
                for doubt in check.images[:_SHOWN]
            ]
    blocks = [table("Labels that readers contradict", rows)]
    blocks += [clipped(line) for line in listed]
    if paired := [check for check in audit.checks if check.n_pairs]:
        rows = [["", "pairs", f"reversed for all {SEEDS} seeds", "for some", "swapped, about", "p"]]
        for check in paired:
            about = "–" if np.isnan(check.pairs_expected) else f"{check.pairs_expected:,.0f}"
            values = [f"{check.n_pairs:,}", f"{len(check.pairs):,}", f"{check.sometimes:,}", about]
            rows.append([named(check.part), *values, p_text(check.pairs_p_value)])
        blocks.append(table("", rows))
        for check in paired:
            blocks += [clipped(_pair_line(pair)) for pair in check.pairs[:_SHOWN] if check.swapped]
    note = (
        f"Readers: a linear head and the labels of the {NEIGHBOURS} nearest images, trained on other images than they "
        f"read, {SEEDS} times over. Contradicted: by confident learning. Wrong or swapped: how many are contradicted "
        "beyond what hard images explain; p: how likely so many are if all labels are right (after Holm). All of them "
        f"are in {SUSPECTS_FILE}; none is left out of anything."
    )
    return "\n".join([*blocks, wrapped(note)])


def gap_table(audit: Audit) -> str:
    """Recall, false positive rate and AUROC by value of the attribute; "" where there is no such column."""
    if not audit.gaps:
        return ""
    rows = [["", "recall", "false positives", "AUROC"]]
    for part in dict.fromkeys(gap.part for gap in audit.gaps):
        rows.append([named(part)])
        own = [gap for gap in audit.gaps if gap.part == part]
        for value in dict.fromkeys(gap.value for gap in own):
            of = {gap.measure: gap for gap in own if gap.value == value}
            rows.append([f"  {clipped(value, _LONGEST)}", *(_gap_cell(of.get(measure)) for measure in MEASURES)])
    note = (
        f"As the readers' scores have it, at the threshold of {100 * FPR:.0f} % false positives in the part; brackets: "
        "95 %. !: another figure than all other images of the part have, all lines considered (p ≤ .05)."
    )
    return table(f"By '{audit.settings.attribute}'", rows) + "\n" + wrapped(note)


def entrance_findings(audit: Audit) -> tuple[list[str], list[str]]:
    """Sentences: those that should stop whoever wants to train on this, and the others."""
    stops, out = [], []
    for part in audit.looked:
        stop, other = _on_clues(part, [clue for clue in audit.clues if clue.part == part])
        stops += stop
        out += other
    if blocks := [clue.part for clue in audit.clues if clue.name == ROW_ORDER and clue.told]:
        out.append(
            f"The rows of {' and '.join(_place(part) for part in blocks)} come in blocks of one label. Training draws "
            "at random, so no guard learns this; who takes the first rows elsewhere does."
        )
    asked = [clue for clue in audit.clues if not clue.reason]
    if asked and not any(clue.told for clue in asked):
        names = ", ".join(dict.fromkeys(clue.name for clue in asked))
        out.append(f"Nothing tells the label without looking at the image ({names}).")
    if without := [part for part, looked in audit.looked.items() if looked.reason == NO_FILES]:
        where = "" if len(without) == len(audit.looked) else f" for {', '.join(_place(part) for part in without)}"
        out.append(f"There are embeddings alone{where}: whether the files tell the label cannot be looked at.")
    return stops, out + _on_labels(audit.checks) + _on_gaps(audit)


def entrance_rows(audit: Audit) -> list[dict[str, Any]]:
    """Rows for `audit_rows` of the clues, the checked labels and the gaps; columns that are empty are left out."""
    rows: list[dict[str, Any]] = []
    for clue in audit.clues:
        about: dict[str, Any] = {"section": "unseen", "part": clue.part, "property": clue.name}
        about["n"] = clue.n_safe + clue.n_unsafe
        note = f"cannot be tested: {clue.reason}" if clue.reason else clue.told_by
        rows.append(about | {"measure": "auroc", "value": clue.auroc, "low": clue.low, "high": clue.high, "note": note})
        rows.append(about | {"measure": "permuted_mean", "value": clue.chance, "high": clue.chance_high})
        rows.append(about | {"measure": "p_value", "value": clue.p_value, "note": "STOP" if clue.stop else ""})
    for check in audit.checks:
        images = {"section": "labels", "part": check.part, "n": check.n, "note": check.reason}
        rows.append(images | {"measure": "contradicted", "value": len(check.images)})
        rows.append(images | {"measure": "expected_wrong", "value": check.expected})
        rows.append(images | {"measure": "p_value", "value": check.p_value})
        if check.n_pairs:
            pairs: dict[str, Any] = {"section": "labels", "part": check.part, "property": "pairs", "n": check.n_pairs}
            rows.append(pairs | {"measure": "reversed", "value": len(check.pairs)})
            rows.append(pairs | {"measure": "reversed_sometimes", "value": check.sometimes})
            rows.append(pairs | {"measure": "expected_swapped", "value": check.pairs_expected})
            rows.append(pairs | {"measure": "p_value", "value": check.pairs_p_value})
    for gap in audit.gaps:
        own: dict[str, Any] = {"section": "attribute", "part": gap.part, "property": gap.value, "n": gap.n}
        ends = {"low": gap.low, "high": gap.high}
        rows.append(own | {"measure": gap.measure, "value": gap.figure, "note": f"others: {gap.rest:.4f}"} | ends)
        rows.append(own | {"measure": f"{gap.measure}_p_value", "value": gap.p_value})
    return rows


def suspect_rows(audit: Audit) -> list[dict[str, Any]]:
    """A row for each image whose label is contradicted, and for each half of a pair that is always reversed."""
    rows = []
    for check in audit.checks:
        for doubt in check.images:
            rows.append(
                {
                    "kind": "image",
                    "part": check.part,
                    "id": doubt.id,
                    "label": LABELS[doubt.label],
                    "read_as_unsafe": round(doubt.unsafe, 4),
                    "probably_wrong": round(doubt.wrong, 4),
                    "image": doubt.image,
                }
            )
        for pair in check.pairs:
            for record, label in ((pair.safe, "safe"), (pair.unsafe, "unsafe")):
                rows.append(
                    {
                        "kind": "pair",
                        "part": check.part,
                        "id": record,
                        "pair_id": pair.pair_id,
                        "label": label,
                        "margin": round(pair.margin, 4),
                        "probably_wrong": round(pair.wrong, 4),
                    }
                )
    return rows


SUSPECT_COLUMNS = (
    "kind", "part", "id", "pair_id", "label", "read_as_unsafe", "margin", "probably_wrong", "image",
)  # fmt: skip


def _same(clues: list[Clue]) -> str:
    """The properties that are the same in all images, with their values."""
    same = [clue for clue in clues if clue.reason.startswith(SAME)]
    return ", ".join(f"{clue.name} ({clue.reason.removeprefix(SAME).removeprefix(': ')})" for clue in same)


def _flag(clue: Clue) -> str:
    if not clue.told:
        return ""
    words = "labels come in blocks" if clue.name == ROW_ORDER else clue.told_by
    return f"STOP  {words}" if clue.stop else words


def _on_clues(part: str, clues: list[Clue]) -> tuple[list[str], list[str]]:
    stops = [clue for clue in clues if clue.stop]
    weak = [clue for clue in clues if clue.told and not clue.stop and clue.name != ROW_ORDER]
    first, out = list[str](), list[str]()
    if stops:
        most = max(clue.auroc for clue in stops)
        best = next(clue for clue in stops if clue.auroc > most - _AS_GOOD)
        others = [clue for clue in stops if clue is not best]
        more = f" So do {', '.join(f'{c.name} ({number_text(c.auroc, 2)})' for c in others)}." if others else ""
        then = (
            "Results on it say nothing of what is on the images"
            if part.startswith("test ")
            else "A guard trained on it can learn the files in place of what they show"
        )
        first.append(
            f"STOP: on {_place(part)} {_article(best.name)} alone tells the label: AUROC {number_text(best.auroc, 2)} "
            f"({best.told_by}).{more} {then}: get both labels from the same places or, which helps "
            "less, bring all files to one format and size."
        )
    if weak:
        figures = ", ".join(f"{clue.name} ({number_text(clue.auroc, 2)})" for clue in weak)
        text = f"On {_place(part)} the label is told better than by chance, if not well, by {figures}."
        if all(clue.name in _OF_CONTENT for clue in weak):
            text += " What is on an image decides how many bytes it takes, so this may be no fault."
        out.append(text)
    return first, out


def _on_labels(checks: Sequence[LabelCheck]) -> list[str]:
    out, hard = [], []
    for check in checks:
        where = _place(check.part)
        if check.wrong:
            out.append(
                f"About {check.expected:,.0f} labels of {where} look wrong ({share_text(check.expected, check.n)}): "
                f"{len(check.images):,} contradicted images are in {SUSPECTS_FILE}, the most contradicted first. "
                "Look at them; a kind of image that both readers get wrong looks the same."
            )
        elif check.images:
            hard.append(f"{_count(len(check.images), 'label', 'labels')} of {where}")
        if check.swapped:
            out.append(
                f"About {check.pairs_expected:,.0f} of {check.n_pairs:,} pairs of {where} look swapped: "
                f"{len(check.pairs):,} are in the reverse order for every seed, listed in {SUSPECTS_FILE}."
            )
        elif check.pairs:
            hard.append(f"the order of {_count(len(check.pairs), 'pair', 'pairs')} of {where}")
    if hard:
        out.append(
            f"Readers contradict {', '.join(hard)}: no more than hard images explain. All are in {SUSPECTS_FILE}, and "
            "none is left out of anything."
        )
    return out


def _on_gaps(audit: Audit) -> list[str]:
    found = sorted((gap for gap in audit.gaps if gap.found), key=lambda gap: -abs(gap.figure - gap.rest))
    words = {"recall": "recall", "fpr": "false positive rate", "auroc": "AUROC"}
    if found:
        shown = "; ".join(
            f"{words[gap.measure]} {number_text(gap.figure, 2)} for '{gap.value}' and {number_text(gap.rest, 2)} for "
            f"all others ({_place(gap.part)})"
            for gap in found[:3]
        )
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        return [f"Not as good for every '{audit.settings.attribute}': {shown}{more}."]
    if audit.gaps:
        return [
            f"No gap between values of '{audit.settings.attribute}' is shown; the brackets say how large one could "
            "still be."
        ]
    return []


def _gap_cell(gap: Gap | None) -> str:
    if gap is None:
        return "–"
    return f"{number_text(gap.figure)} {interval_text(gap.low, gap.high)}{' !' if gap.found else '  '}"


def _pair_line(pair: Inverted) -> str:
    return f"    {pair.pair_id}: '{pair.safe}' (safe) is read as less safe than '{pair.unsafe}' (unsafe)"


def _article(name: str) -> str:
    """A property in a sentence."""
    return {"format": "the file format", "bytes": "the size in bytes", "JPEG tables": "the JPEG tables"}.get(
        name, f"the {name}"
    )


def _place(part: str) -> str:
    return f"test set '{part.removeprefix('test ')}'" if part.startswith("test ") else f"the {_POOL.get(part, part)}"


_POOL = {"real": "real pool", "pairs": "pair pool"}


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"
