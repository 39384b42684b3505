"""The report of a benchmark as Markdown: what was compared, what it shows, tables, figure, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from guardtrain.benchmarks.effectiveness import ALIGNED
from guardtrain.benchmarks.figure import FIGURE
from guardtrain.benchmarks.measures import METRICS
from guardtrain.benchmarks.slices import ALL
from guardtrain.benchmarks.tables import is_better, narrowed, value_cell
from guardtrain.curves.tables import escape_markdown, markdown

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.benchmarks.effectiveness import Entrant, How
    from guardtrain.curves.tables import Table

_TOLD = ("f1", "fpr", "auroc", "pair_both_right")  # FPR where nothing is unsafe, so that F1 is not defined

_FILES = """\
`benchmark.parquet` (the same as `benchmark.csv`) holds every figure above and more, one a row: `value`, the interval \
`low` to `high` and how it was made, `n_images`, `n_unsafe`, `n_pairs`. `kind` says what it is: a `metric` of a guard, \
a `difference` from the guard `versus`, a `shift` from real to generated images, a mean over data sets \
(`distribution`), what others `published`, or `coverage`, how many of the unsafe or of the safe images met an outcome. \
`judged_on` is `aligned` (the categories that the guard is made for, as above) or `all`; `source_kind` tells a \
`source` of the data from a `family` of them, real or generated. `n_missing_unsafe` and `n_missing_safe` images of a \
row have no verdict; with one on each, the value would lie from `lowest` to `highest`.

`scores.parquet` holds what became of each image with each guard: `outcome`, logit, probability, decision, and the \
words of a model that was asked."""


def findings(frame: pd.DataFrame, reference: str) -> list[str]:
    """Which guards are better or worse than the one they are compared with, beyond the interval, in a sentence each."""
    own = frame[(frame["kind"] == "difference") & (frame["judged_on"] == ALIGNED)]
    own = own[(own["category"] == ALL) & (own["source"] == ALL) & own["metric"].isin(_TOLD)]
    out = []
    for (guard, data), rows in own.groupby(["guard", "data"], sort=False, observed=True):
        told = []
        if (rows["metric"] == "f1").any():
            rows = rows[rows["metric"] != "fpr"]
        for _, row in rows.iterrows():
            better = is_better(row)
            word = "no different beyond the interval" if better is None else "better" if better else "worse"
            if row["low"] != row["low"]:  # NaN
                word = "too few images for an interval"
            told.append(f"{METRICS[row['metric']]} {value_cell(row, sign=True)}, {word}")
        unsafe, safe = (int(rows[name].max()) for name in ("n_missing_unsafe", "n_missing_safe"))
        missing = f" (on common images: {unsafe:,} unsafe and {safe:,} safe ones missing)" if unsafe + safe else ""
        out.append(f"{guard} against {reference} on '{data}': {'; '.join(told)}{missing}.")
    return out


def report_markdown(
    frame: pd.DataFrame,
    tables: Sequence[Table],
    entrants: Sequence[Entrant],
    reference: str,
    how: How,
    about: Mapping[str, str],
    notes: Sequence[str] = (),
    details: Sequence[Table] = (),
    figure: str | None = f"{FIGURE}.png",
) -> str:
    """The report.

    Args:
        frame: the tidy table.
        tables: of `guardtrain.benchmarks.tables.benchmark_tables`.
        entrants: of the guards, in order.
        reference: the guard that others are compared with.
        how: of the intervals.
        about: of each guard, its encoder, operating point and origin in words.
        notes: what was left out, and why.
        details: of `guardtrain.benchmarks.tables_detail.detail_tables`.
        figure: its file beside the report.
    """
    text = escape_markdown
    lines = ["# Guards compared", "", "## Guards", ""]
    for entrant in entrants:
        judged = ", ".join(entrant.categories) or "all categories"
        lines.append(f"- **{text(entrant.name)}**: {text(about[entrant.name])}; judged on {text(judged)}")
    lines += ["", "## In short", ""]
    found = findings(frame, reference)
    lines += [f"- {text(sentence)}" for sentence in found] or [f"There is nothing to compare {text(reference)} with."]
    if found:
        told = sum(sentence.count(";") + 1 for sentence in found)
        lines += [
            "",
            f"Of {told} comparisons, {(1 - how.confidence) * told:.1f} are expected to look different by chance.",
        ]
    if figure:
        lines += ["", f"![F1, AUROC, FPR and FNR of each guard with intervals; tables below hold the same]({figure})"]
    shown = [part for table in tables for part in narrowed(table)]
    lines += ["", "## Tables", "", markdown(shown).strip()]
    if notes:
        lines += ["", "## Notes", "", *[f"- {text(note)}" for note in notes]]
    if details:
        lines += ["", "## By category and source", "", markdown(details).strip()]
    lines += ["", "## How to read it", "", _method(how)]
    lines += ["", "## Files", "", _FILES]
    lines += ["", f"guardtrain {metadata.version('guardtrain')}, seed {how.seed}."]
    return "\n".join(lines) + "\n"


def _method(how: How) -> str:
    return (
        "A guard decides at its operating point; AUROC needs none. F1, precision and recall are of unsafe images; "
        "FPR is the share of safe images called unsafe, FNR that of unsafe images called safe, and what a guard leaves "
        "to people counts as not called unsafe. A guard that was made for some categories is judged on the unsafe "
        "images of those beside all safe images (Qu et al., CCS 2025); the table holds its figures on all images, too "
        "(`judged_on`). A category has its own safe images; where safe images carry no category, all of them stand "
        "beside each. "
        "A guard's figures are of the images that it has a verdict on, and do not change with what other guards lack; "
        "a difference is of the images that both have a verdict on. Where more than 1 % are missing, a row below says "
        "what the figures could be with them, from all of those wrong to all right: that holds for sure, whatever "
        "kept the verdicts back. "
        f"Intervals hold {100 * how.confidence:g} %: Clopper-Pearson's where a metric is a share of images, all "
        "of different groups, and for F1 as a function of one (Hand, Christen and Kirielle, 2021); otherwise those of "
        f"{how.replicates:,} bootstrap draws of groups, a pair being one. Differences are taken within each draw, so "
        "what both sides share cancels; one without an interval had too few images for it. "
        "Intervals are for each figure by itself, and for other images of the same kind, not for data of another kind."
    )
