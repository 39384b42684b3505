"""An audit as tables, as sentences, and as rows for a file."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from guardtrain.curves.audit.duplicates import NearDuplicates
from guardtrain.curves.audit.entrance_report import (
    clue_table,
    entrance_findings,
    entrance_rows,
    gap_table,
    label_table,
)
from guardtrain.curves.audit.geometry import PairGeometry
from guardtrain.curves.audit.measure import LABELS, Association, Audit, Question
from guardtrain.curves.audit.readout import Readout
from guardtrain.curves.audit.tables import WIDTH, interval_text, named, share_text, table, wrapped
from guardtrain.curves.statistics import number_text
from guardtrain.records import SAFE, UNSAFE

_POOLS = ("real", "pairs")
_SHOWN = 5  # couples of near duplicates a line each; the file has more
_MOST_ODDS = 1000  # more are as good as never: an empty cell gives any number, the larger the more images
_LEAST_ASSOCIATION = 0.05  # Cramér's V below which edits are as frequent in both labels


def audit_text(audit: Audit, *, width: int = WIDTH) -> str:
    """The audit as text: tables, then what they mean. Titles are the lines that are not indented.

    Args:
        audit: of `guardtrain.curves.audit.audit_pools`.
        width: sentences are wrapped at; tables are as wide as they are, at most 100.
    """
    blocks = [_sizes(audit), clue_table(audit), label_table(audit), gap_table(audit)]
    blocks = [block for block in blocks if block]
    blocks += [_readouts(audit), _associations(audit), _duplicates(audit)]
    if audit.geometry:
        blocks.append(_geometry(audit))
    said = [
        textwrap.fill(text, width, initial_indent="  · ", subsequent_indent="    ", break_on_hyphens=False)
        for text in findings(audit)
    ]
    blocks.append("\n".join(["What this means", *said]))
    return "\n\n".join(blocks) + "\n"


def findings(audit: Audit) -> list[str]:
    """Say what the figures mean for the claims one may make, a sentence or three each, the weightiest first."""
    stops, entrance = entrance_findings(audit)
    out = stops + _on_edits(audit)
    out += [text for a in _tests(audit) if (text := _on_test_edits(a))]
    out += _on_pools(audit)
    out += _on_sources(audit)
    out += _on_duplicates(audit)
    out += _on_pairs(audit)
    return out + entrance


def audit_rows(audit: Audit) -> list[dict[str, Any]]:
    """Every figure as a row: `section`, `part`, `label`, `property`, `measure`, `value`, `low`, `high`, `n`, `note`."""
    rows: list[dict[str, Any]] = []

    def add(section: str, part: str, measure: str, value: float, **more: Any) -> None:
        rows.append({"section": section, "part": part, "measure": measure, "value": value} | more)

    rows += entrance_rows(audit)

    for question in audit.questions:
        r = question.readout
        about: dict[str, Any] = {
            "label": LABELS[question.label],
            "property": question.name,
            "n": r.n_with + r.n_without,
        }
        note = f"as {question.same_as}" if question.same_as else _sample_of(r)
        note = f"cannot be tested: {r.reason}" if r.reason else note
        add("readout", "real + pairs", "auroc", r.auroc, low=r.low, high=r.high, note=note, **about)
        add("readout", "real + pairs", "permuted_mean", r.chance, high=r.chance_high, **about)
        add("readout", "real + pairs", "p_value", r.p_value, **about)
    for a in audit.associations:
        for measure in ("cramers_v", "odds", "auroc"):
            add("association", a.part, measure, getattr(a, measure), property="edited", n=sum(a.counts))
    for d in audit.duplicates:
        part = f"{d.a} – {d.b}"
        note = f"a lower bound: {_compared(d)}" if d.sampled else ""
        add("duplicates", part, "couples", d.n_couples, n=d.n_a * d.n_b, note=note)
        if d.sampled:
            add("duplicates", part, "expected_couples", d.expected_couples, n=d.n_a * d.n_b, note="of the whole")
        add("duplicates", part, "images", d.n_of_b, n=d.n_b, note=note)
        add("duplicates", part, "highest_cosine", d.nearest[2], note=f"{d.nearest[0]} – {d.nearest[1]}")
        for first, second, cosine in d.couples:
            add("duplicates", part, "couple", cosine, note=f"{first} – {second}")
    for part, g in audit.geometry.items():
        for measure, value in asdict(g).items():
            if measure in ("n_pairs", "of_pairs", "within_low", "within_high", "consistency_low", "consistency_high"):
                continue
            ends = {end: getattr(g, f"{measure}_{end}", np.nan) for end in ("low", "high")}
            add("pairs", part, measure, value, n=g.n_pairs, note=_pairs_of(g), **ends)
    empty: dict[str, Any] = {"section": "", "part": "", "label": "", "property": "", "measure": "", "value": np.nan}
    empty |= {"low": np.nan, "high": np.nan, "n": 0, "note": ""}
    return [empty | row for row in rows]


def _sizes(audit: Audit) -> str:
    rows = [["", "images", "unsafe", "edited", "pairs"]]
    for part, (n, unsafe, edited, pairs) in audit.sizes.items():
        rows.append([named(part), f"{n:,}", f"{unsafe:,}", f"{edited:,}", f"{pairs:,}" if pairs else "–"])
    return table(f"Audit of '{audit.data}' · encoder {audit.encoder}", rows)


def _readouts(audit: Audit) -> str:
    rows = [["label", "read from the embedding", "AUROC", "permuted", "images"]]
    for question in audit.questions:
        r = question.readout
        cells = [LABELS[question.label], question.name]
        if question.same_as:
            rows.append([*cells, f"the same images as '{question.same_as}'"])
        elif not r.tested:
            rows.append([*cells, f"cannot be tested: {r.reason}"])
        else:
            chance = f"{number_text(r.chance, 2)} ≤ {number_text(r.chance_high, 2)}"
            counts = f"{r.n_with:,} + {r.n_without:,}"
            counts += f" of {r.of_with + r.of_without:,}" if r.sampled else ""
            rows.append([*cells, f"{number_text(r.auroc)} {interval_text(r.low, r.high)}", chance, counts])
    s = audit.settings
    note = (
        f"Logistic regression, {s.folds} folds by group; brackets: 95 % bootstrap intervals over groups. Permuted: "
        f"mean and highest AUROC of {s.permutations} permutations. Images: those used, with and without the property."
    )
    if any(question.readout.sampled for question in audit.questions):
        note += f" Of more than {s.max_images:,} (max_images) a sample is used."
    return table("Within one label", rows, left=3) + "\n" + wrapped(note)


def _associations(audit: Audit) -> str:
    rows = [["", "of safe", "of unsafe", "Cramér's V", "odds of safe", "AUROC"]]
    for a in audit.associations:
        shares = [share_text(a.counts[2 * i + 1], a.counts[2 * i] + a.counts[2 * i + 1]) for i in (0, 1)]
        if not (a.counts[1] or a.counts[3]):
            rows.append([named(a.part), *shares, "–", "–", "–"])
            continue
        rows.append([named(a.part), *shares, number_text(a.cramers_v, 2), _times(a.odds), number_text(a.auroc, 2)])
    note = "Odds: of being safe, edited images over unedited ones. AUROC: 'edited' as the only score."
    return table("Edited images, and what 'edited' alone says of the label", rows) + "\n" + wrapped(note)


def _duplicates(audit: Audit) -> str:
    bound = number_text(audit.settings.duplicate_cosine, _digits(audit.settings.duplicate_cosine))
    rows = [["between", "compared", f"couples > {bound}", "highest"]]
    listed = []
    for d in audit.duplicates:
        sizes, least = f"{d.n_a:,} × {d.n_b:,}", "≥ " if d.sampled else ""
        rows.append([f"{d.a} – {d.b}", sizes, f"{least}{d.n_couples:,}", f"{least}{_cosine(d.nearest[2])}"])
        for first, second, cosine in d.couples[:_SHOWN]:
            listed.append(f"    {_cosine(cosine)}  {first} – {second}")
        if d.n_couples > _SHOWN and d.couples:
            kept = "" if len(d.couples) == d.n_couples else f", {len(d.couples)} of them"
            listed.append(f"    and {d.n_couples - _SHOWN:,} more ({d.a} – {d.b}) in audit.json{kept}")
    text = table("Near duplicates, by cosine", rows)
    if part := [d for d in audit.duplicates if d.sampled]:
        sizes = "; ".join(
            f"{d.a} – {d.b}: {d.n_a:,} of {d.of_a:,} with {d.n_b:,} of {d.of_b:,}"
            + (f", so about {d.expected_couples:,.0f} couples in all" if d.n_couples else "")
            for d in part
        )
        listed.append(
            wrapped(
                f"≥: in a sample; the whole has at least as many ({sizes}). max_compared sets how many are compared."
            )
        )
    return "\n".join([text, *listed])


def _geometry(audit: Audit) -> str:
    parts = list(audit.geometry)
    tables = [_geometry_of(audit, parts[i : i + 2]) for i in range(0, len(parts), 2)]
    note = (
        "Cosines. Differences are unsafe minus safe; real data's is that of its class means. Brackets on differences: "
        "95 % bootstrap intervals over pairs."
    )
    if any(g.n_pairs < g.of_pairs for g in audit.geometry.values()):
        note += " One's own half is found less often among all pairs than in a sample of them (max_images)."
    return "\n".join(["Pairs in embedding space", *tables, wrapped(note)])


def _geometry_of(audit: Audit, parts: Sequence[str]) -> str:
    every = [audit.geometry[part] for part in parts]
    rows: list[list[str]] = [["", *(named(part) for part in parts)]]
    rows.append(["pairs measured", *(_pairs_of(g) or f"{g.n_pairs:,}" for g in every)])
    rows.append(
        [
            "halves of a pair [5–95 % of pairs]",
            *(f"{_cosine(g.within)} [{_cosine(g.within_low)}, {_cosine(g.within_high)}]" for g in every),
        ]
    )
    rows.append(["halves of different pairs", *(_cosine(g.between) for g in every)])
    rows.append(["nearest unsafe half is one's own", *(share_text(g.found, 1) for g in every)])
    rows.append(
        [
            "differences of two pairs [95 %]",
            *(f"{number_text(g.consistency)} {interval_text(g.consistency_low, g.consistency_high)}" for g in every),
        ]
    )
    if any(np.isfinite(g.same_category) for g in every):
        rows.append(["  of one category", *(number_text(g.same_category) for g in every)])
    rows.append(["  of halves that are no pairs", *(number_text(g.unpaired) for g in every)])
    rows.append(["mean difference and real data's", *(number_text(g.with_real) for g in every)])
    return table("", rows)


def _on_edits(audit: Audit) -> list[str]:
    asked = {q.label: q for q in audit.questions if q.kind == "edited"}
    out = [_on_edits_within(audit, q) for q in asked.values() if q.readout.tested]
    untested = [q for q in asked.values() if not q.readout.tested]
    if len(untested) == len(asked) and all(size[2] == 0 for part, size in audit.sizes.items() if part in _POOLS):
        out.append("No training image is marked as edited: nothing to be read, if the column `edited` is right.")
    elif untested:
        which = "; ".join(f"among {LABELS[q.label]} images {q.readout.reason}" for q in untested)
        out.append(f"'edited' cannot be tested within every label: {which}.")
    return out


def _on_edits_within(audit: Audit, question: Question) -> str:
    """Say what one label's readout of `edited` means."""
    label, r = question.label, question.readout
    figure = f"AUROC {number_text(r.auroc)} {interval_text(r.low, r.high)}"
    figure += f", {sample}" if (sample := _sample_of(r)) else ""
    if not r.readable:
        return (
            f"'edited' is not read among {LABELS[label]} images ({figure}, permuted up to "
            f"{number_text(r.chance_high, 2)}): no sign that a linear head can go by the editor's trace."
        )
    text = f"'edited' is readable at {figure} among {LABELS[label]} images."
    pools = {q.label: q for q in audit.questions if q.kind == "pool"}
    if pools[label].same_as == "edited":
        text += " Edited and pair pool are the same images there, so the figure holds the pools' domain as well"
        other = pools[UNSAFE if label == SAFE else SAFE]
        if not _edited(audit, other.label) and other.readout.tested:
            text += (
                f"; the domain alone is read at {number_text(other.readout.auroc)} among {LABELS[other.label]} images, "
                "of which none is edited"
            )
            if other.readout.high >= r.low:
                text += ", so nothing shows that the edits themselves are read"
        text += "."
    a = max((a for a in audit.associations if a not in _tests(audit)), key=lambda a: np.nan_to_num(a.cramers_v))
    if np.isnan(a.cramers_v) or a.cramers_v < _LEAST_ASSOCIATION:
        return text + " Edits are as frequent in both labels, so a head gains nothing from it."
    where = {"pairs": "In the pair pool", "real": "In the real pool"}.get(a.part, "In the two pools together")
    return text + (
        f" {where} edited means {'safe' if a.odds > 1 else 'unsafe'} (Cramér's V {number_text(a.cramers_v, 2)}): a "
        "head can take the editor's trace for the label. The unpaired control carries the same trace, real data alone "
        f"does not; believe a gain of pairs where nothing is edited{_without_edits(audit)}."
    )


def _edited(audit: Audit, label: int) -> int:
    """Edited training images of a label."""
    return sum(a.counts[2 * label + 1] for a in audit.associations if a.part in _POOLS)


def _tests(audit: Audit) -> list[Association]:
    return [a for a in audit.associations if a.part.startswith("test ")]


def _without_edits(audit: Audit) -> str:
    free = [a.part.removeprefix("test ") for a in _tests(audit) if not (a.counts[1] or a.counts[3])]
    if free:
        return f" (test set{'s' * (len(free) > 1)} {', '.join(repr(name) for name in free)})"
    return "; no test set here is without edits"


def _on_test_edits(a: Association) -> str:
    if not (a.counts[1] or a.counts[3]) or np.isnan(a.cramers_v) or a.cramers_v < _LEAST_ASSOCIATION:
        return ""
    name, side = a.part.removeprefix("test "), "safe" if a.odds > 1 else "unsafe"
    return (
        f"On test set '{name}' edited means {side} (Cramér's V {number_text(a.cramers_v, 2)}): a head that reads "
        f"nothing but the edit has AUROC {number_text(a.auroc, 2)} there. Gains on it are no evidence by themselves."
    )


def _on_pools(audit: Audit) -> list[str]:
    asked = [q for q in audit.questions if q.kind == "pool" and q.readout.tested]
    if not asked:
        return []
    figures = " and ".join(f"{_auroc(q.readout)} among {LABELS[q.label]} images" for q in asked)
    if any(q.readout.readable for q in asked):
        return [
            f"Real and pair pool are told apart at AUROC {figures}: the pairs are of another domain. More images of a "
            "test set's domain help even when nothing is paired, so show the unpaired control beside the pairs."
        ]
    return [f"Real and pair pool are not told apart (AUROC {figures}): no domain shift that a linear head could see."]


def _on_sources(audit: Audit) -> list[str]:
    asked = [q for q in audit.questions if q.kind == "source" and not q.same_as and q.readout.readable]
    if not asked:
        return []
    figures = ", ".join(f"{q.name} among {LABELS[q.label]} images {_auroc(q.readout)}" for q in asked)
    return [f"Sources can be read within a label (AUROC: {figures}): look at the results source by source."]


def _on_duplicates(audit: Audit) -> list[str]:
    tests = [d for d in audit.duplicates if d.b.startswith("test ")]
    bad = [d for d in tests if d.n_couples]
    if not bad:
        nearest = max(tests, key=lambda d: d.nearest[2], default=None)
        if nearest is None:
            return []
        cosine = f"the nearest have cosine {_cosine(nearest.nearest[2])}"
        if any(d.sampled for d in tests):
            return [
                f"No test image was found to have a near duplicate in a training pool ({cosine}), but not all were "
                "compared: raise max_compared to be sure."
            ]
        return [f"No test image has a near duplicate in a training pool ({cosine})."]
    return [_leak(d) for d in bad]


def _leak(d: NearDuplicates) -> str:
    name = d.b.removeprefix("test ")
    have = f"{d.n_of_b:,} images of test set '{name}' have near duplicates"
    if d.n_of_b == 1:
        have = f"1 image of test set '{name}' has a near duplicate"
    if d.sampled:
        have = f"At least {have}"
    where = f"pool '{d.a}' ({_compared(d)})" if d.sampled else f"pool '{d.a}'"
    return (
        f"{have} in {where}: look at them, and take them out or give both the same `group`. Until then results on "
        "that test set are too good, unless the encoder sees no difference between images that differ."
    )


def _on_pairs(audit: Audit) -> list[str]:
    g = audit.geometry.get("pairs")
    if g is None:
        return []
    figures = f"mean cosine {number_text(g.consistency)}, of halves that are no pairs {number_text(g.unpaired)}"
    figures += f"; {_pairs_of(g)} pairs measured" if _pairs_of(g) else ""
    if g.consistency_low <= max(0.0, g.unpaired):
        text = f"Differences of pairs agree no more than differences of unrelated halves ({figures})"
        return [f"{text}: no common direction that a head could take from the pairing."]
    text = f"Differences of pairs agree more than differences of unrelated halves ({figures})"
    if np.isfinite(g.same_category) and g.same_category > 2 * g.consistency:
        text += f", most of all within a category ({number_text(g.same_category)})"
    trace = " A common editor's trace would do the same." if any(_edited(audit, label) for label in LABELS) else ""
    return [f"{text}: there is a direction that a pair-aware head can use.{trace}"]


def _auroc(r: Readout) -> str:
    """The figure, and of how many images where it is of a sample."""
    return number_text(r.auroc) + (f" ({sample})" if (sample := _sample_of(r)) else "")


def _sample_of(r: Readout) -> str:
    """How large a sample a readout is of; "" where all images were used."""
    return f"a sample of {r.n_with + r.n_without:,} of {r.of_with + r.of_without:,}" if r.sampled else ""


def _compared(d: NearDuplicates) -> str:
    """How large a sample was compared."""
    return f"compared: {d.n_b:,} of {d.of_b:,} with {d.n_a:,} of {d.of_a:,}"


def _pairs_of(g: PairGeometry) -> str:
    """How many pairs of how many were measured; "" where all were."""
    return f"{g.n_pairs:,} of {g.of_pairs:,}" if g.n_pairs < g.of_pairs else ""


def _cosine(value: float) -> str:
    """Four digits, never rounded up to 1: what is not the same is not written as the same."""
    if not np.isfinite(value):
        return "–"
    return number_text(min(value, 0.9999) if value < 1 - 1e-6 else 1.0, 4)


def _times(odds: float) -> str:
    """How many times as high or low: "× 12", "÷ 1.5"."""
    if np.isnan(odds):
        return "–"
    sign, factor = ("×", odds) if odds >= 1 else ("÷", 1 / odds)
    if factor > _MOST_ODDS:
        return f"{sign} >{_MOST_ODDS:,}"
    return f"{sign} {factor:,.1f}" if factor < 10 else f"{sign} {factor:,.0f}"


def _digits(value: float) -> int:
    return max(2, len(f"{value:g}".partition(".")[2]))
