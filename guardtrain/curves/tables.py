"""Tables of a curve for papers and READMEs: numbers rounded by their uncertainty, as Markdown and as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from guardtrain.curves.point_intervals import with_test_images
from guardtrain.curves.results import METRICS
from guardtrain.curves.statistics import (
    NO_INTERVAL,
    Line,
    default_panels,
    line_points,
    lines_of,
    seeds_text,
    summarise,
    whole_slices,
)
from guardtrain.curves.summary import check_panels, head_rows, heads_text, in_table_order, row_name
from guardtrain.files import replace_file

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.bootstrap import PointReplicates
    from guardtrain.curves.efficiency import Estimate
    from guardtrain.curves.efficiency_summary import HeadEfficiency

TABLE_FORMATS = ("md", "tex")
_MOST_DIGITS = 4  # of a share; no test set tells more apart
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # the straight one needs a font encoding that the document may not load
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "ρ": r"$\rho$",
    "–": "--",
    "…": r"\ldots{}",
} | {
    shown: rf"$\frac{{{digits[0]}}}{{{digits[1]}}}$"
    for shown, digits in zip("½⅓⅔¼¾⅛⅜⅝⅞", ("12", "13", "23", "14", "34", "18", "38", "58", "78"), strict=True)
}
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&$])")


@dataclass(frozen=True)
class Cell:
    """One cell: a number and what stands beside or below it, its interval."""

    main: str
    beside: str = ""

    def __str__(self) -> str:
        return f"{self.main} {self.beside}".rstrip()


@dataclass(frozen=True)
class Table:
    """A table as text, before any markup.

    Args:
        caption: what it shows, of which data and head, over how many seeds, and what its intervals are.
        label: of the LaTeX table, such as `tab:scenes-linear-pairs-auroc`.
        over: what the columns are: one heading over those from `first_over` on.
        columns: their headings.
        rows: (name, cells) each; a name stands indented by one step for every two spaces that it starts with.
        first_over: the first column that `over` stands over.
        each: what stands before each of these columns' headings where nothing can stand over them.
    """

    caption: str
    label: str
    over: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    first_over: int = 0
    each: str = ""


def uncertainty_digits(uncertainty: float, most: int = _MOST_DIGITS) -> int:
    """How many decimals a number with this uncertainty deserves, 0 to `most`.

    The rule of the Particle Data Group ("Review of Particle Physics", Introduction, section 5.3): of the uncertainty's
    three leading digits, 100 to 354 keep two, 355 to 949 keep one, 950 to 999 round up to 1000 and keep two.

    >>> [uncertainty_digits(u) for u in (0.0123, 0.0412, 0.0987, 3.7, 0.0)]
    [3, 2, 2, 0, 4]
    """
    if not np.isfinite(uncertainty) or uncertainty <= 0:
        return most
    exact = Decimal(repr(float(uncertainty)))
    exponent = exact.adjusted()
    leading = int(exact.scaleb(2 - exponent).quantize(Decimal(1)))
    kept = 2 if leading <= 354 else 1
    if leading >= 950:
        exponent, kept = exponent + 1, 2
    return int(np.clip(kept - 1 - exponent, 0, most))


def mean_cell(mean: float, half: float) -> Cell:
    """Mean and half width to the digits that the half width deserves; a mean without one gets three decimals.

    >>> str(mean_cell(0.81234, 0.0132)), str(mean_cell(0.81234, 0.041)), str(mean_cell(0.5, float("nan")))
    ('0.812 ± 0.013', '0.81 ± 0.04', '0.500')
    """
    if np.isnan(mean):
        return Cell("–")
    if np.isnan(half):
        return Cell(_number(mean, 3))
    digits = uncertainty_digits(half)
    return Cell(_number(mean, digits), f"± {_number(half, digits)}")


def estimate_cell(estimate: Estimate, least: int = 0) -> Cell:
    """Value and interval to the digits that the interval's narrower side deserves; censored numbers as bounds.

    From 100 on numbers have no decimals; below, `least` at least. A bound has up to three digits and is rounded
    outwards, so that it never says more than was measured.

    >>> from guardtrain.curves.efficiency import Estimate
    >>> str(estimate_cell(Estimate(2.94, 2.1, float("inf"), floor=0.1, ceiling=4.0)))
    '2.9 [2.1, ≥ 4]'
    """
    if np.isnan(estimate.value):
        return Cell("–")
    middle, low, high = (float(np.clip(v, estimate.floor, estimate.ceiling)) for v in _ends(estimate))
    sides = [side for side in (middle - low, high - middle) if side > 0]
    digits = max(uncertainty_digits(min(sides, default=np.nan)), least)

    def written(value: float) -> str:
        if np.isposinf(value):
            return f"≥ {_bound(estimate.ceiling, down=True)}"
        if np.isneginf(value):
            return f"≤ {_bound(estimate.floor, down=False)}"
        return "–" if np.isnan(value) else _number(value, digits if abs(value) < 100 else 0)

    if np.isinf(estimate.value) and estimate.low == estimate.value == estimate.high:
        return Cell(written(estimate.value))
    return Cell(written(estimate.value), f"[{written(estimate.low)}, {written(estimate.high)}]")


def summary_tables(
    frame: pd.DataFrame,
    panels: Sequence[tuple[str, str]] | None = None,
    boots: Mapping[tuple[str, str], PointReplicates] | None = None,
) -> list[Table]:
    """Mean ± half the 95 % interval: a table a panel, heads and their lines as rows, budgets as columns.

    Where there is one budget and several ratios the columns are images added. A panel without values is left out.

    Args:
        frame: a results table, see `guardtrain.curves.results.ResultsTable.read`.
        panels: (test set, metric) pairs; None for `guardtrain.curves.statistics.default_panels`.
        boots: bootstraps by (test, metric): intervals of these are over seeds and test groups; of others over seeds.

    Raises:
        DataError: an empty table, or a test set or metric that is unknown.
    """
    whole = whole_slices(frame)
    chosen = check_panels(whole, panels if panels is not None else default_panels(whole))
    out = []
    for test, metric in chosen:
        rows = whole[whole["test"] == test]
        if rows[metric].notna().any():
            out.append(_summary_table(rows, test, metric, (boots or {}).get((test, metric))))
    return out


def efficiency_tables(measured: Sequence[HeadEfficiency]) -> list[Table]:
    """Area gained and data multiplier at every budget with their bootstrap intervals, a table a test set and metric.

    Args:
        measured: of `guardtrain.curves.efficiency_summary.measure_efficiency`.
    """
    together: dict[tuple[str, str], list[HeadEfficiency]] = {}
    for head in measured:
        together.setdefault((head.test, head.metric), []).append(head)
    return [_efficiency_table(heads) for heads in together.values()]


def _efficiency_table(heads: Sequence[HeadEfficiency]) -> Table:
    first = heads[0]
    every = [line for head in heads for line in head.lines]
    budgets = sorted({n for line in every for n in line.multipliers})
    beyond = [n for n in budgets if all(_beyond(line.multipliers.get(n)) for line in every)]
    budgets = [n for n in budgets if n not in beyond]
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for head in heads:
        if len(heads) > 1:
            rows.append((head.head, (Cell(""),) * (1 + len(budgets))))
        lines = [line.line for line in head.lines]
        for part in head.lines:
            cells = [estimate_cell(part.area)]
            cells += [
                estimate_cell(part.multipliers[n], least=1) if n in part.multipliers else Cell("–") for n in budgets
            ]
            rows.append(("  " * (len(heads) > 1) + row_name(part.line, lines), tuple(cells)))
    what = f"{len(heads)} heads" if len(heads) > 1 else f"{first.head} head"
    seeds = [n for head in heads for n in head.seeds]
    caption = (
        f"Data efficiency against real data alone{' with the same head' if len(heads) > 1 else ''}, "
        f"{METRICS[first.metric]} on '{first.test}', {what}"
        f"{_of_data(first.data)}: mean gain over log2 n (area), and data multiplier at each budget n, the number of "
        "real images that do as well divided by the images used ('≥': more than were tried, '≤': fewer). Brackets: "
        f"95 % intervals of {first.replicates:,} bootstrap replicates over {seeds_text(seeds)} and test "
        "groups, each by itself."
    )
    if beyond:
        caption += f" Left out, for all lines are beyond what was tried: n = {', '.join(f'{n:,}' for n in beyond)}."
    return Table(
        caption,
        _label("efficiency", first.data, what if len(heads) > 1 else first.head, first.test, first.metric),
        "data multiplier at budget n =",
        ("area gained", *(f"{n:,}" for n in budgets)),
        tuple(rows),
        first_over=1,
        each="× at n = ",
    )


def markdown(tables: Sequence[Table]) -> str:
    """The tables as GitHub Markdown, each with its caption above."""
    blocks = []
    for table in tables:
        headings = [f"{table.each}{name}" if i >= table.first_over else name for i, name in enumerate(table.columns)]
        corner = "" if table.each else table.over
        lines = [[escape_markdown(name) for name in (corner, *headings)], [":--", *["--:"] * len(table.columns)]]
        for name, cells in table.rows:  # cells are numbers of ours: nothing in them needs escaping
            indent = "&nbsp;&nbsp;" * indent_of(name)
            lines.append([indent + escape_markdown(name), *map(str, cells)])
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        blocks.append(f"{escape_markdown(table.caption)}\n\n{body}")
    return "\n\n".join(blocks) + "\n"


def latex(tables: Sequence[Table]) -> str:
    """The tables as LaTeX `table` floats with booktabs rules, intervals below their numbers.

    To be `\\input` into a document that loads `booktabs`; nothing else is needed.
    """
    blocks = ["% guardtrain; the document needs \\usepackage{booktabs}"]
    for table in tables:
        width = len(table.columns)
        out = [r"\begin{table}", r"  \centering", r"  \footnotesize", r"  \setlength{\tabcolsep}{2pt}"]
        out += [f"  \\caption{{{escape_latex(table.caption)}}}", f"  \\label{{{table.label}}}"]
        out += [f"  \\begin{{tabular}}{{@{{}}l{'r' * width}@{{}}}}", r"    \toprule"]
        if table.columns:
            over = f"\\multicolumn{{{width - table.first_over}}}{{c}}{{{escape_latex(table.over)}}}"
            out.append("    " + " & ".join([""] * (1 + table.first_over) + [over]).lstrip() + r" \\")
            out.append(f"    \\cmidrule(l){{{2 + table.first_over}-{1 + width}}}")
        out.append("    " + " & ".join(map(escape_latex, ("", *table.columns))) + r" \\")
        out.append(r"    \midrule")
        places = [_places(cells[i].main for _, cells in table.rows) for i in range(width)]
        below = [_places(cells[i].beside for _, cells in table.rows) for i in range(width)]
        for name, cells in table.rows:
            stub = r"\quad " * indent_of(name) + escape_latex(name.strip())
            out.append("    " + " & ".join([stub, *map(_lined_up, (cell.main for cell in cells), places)]) + r" \\")
            if any(cell.beside for cell in cells):
                texts = map(_lined_up, (cell.beside for cell in cells), below)
                small = [rf"{{\scriptsize {text}}}" if text else "" for text in texts]
                out.append("    " + " & ".join(["", *small]) + r" \\")
        out += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]
        blocks.append("\n".join(out))
    return "\n\n".join(blocks) + "\n"


def indent_of(name: str) -> int:
    """How many steps a row's name is indented."""
    return (len(name) - len(name.lstrip(" "))) // 2


def escape_latex(text: str) -> str:
    """`text` so that LaTeX prints it as it stands, our own symbols as math.

    >>> escape_latex("50 % of a_b ± 0.1")
    '50 \\\\% of a\\\\_b $\\\\pm$ 0.1'
    """
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def escape_markdown(text: str) -> str:
    """`text` so that Markdown shows it as it stands, on one line, also in a table.

    >>> escape_markdown("a|b *c*")
    'a\\\\|b \\\\*c\\\\*'
    """
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _summary_table(rows: pd.DataFrame, test: str, metric: str, boot: PointReplicates | None) -> Table:
    points = in_table_order(with_test_images(summarise(rows, metric), boot), rows)
    points = points[points["n_seeds"] > 0]
    over_ratios = len(points["budget"].unique()) == 1 and len(points["ratio"].unique()) > 1
    named = head_rows(points, lines_of(points, over_ratios))
    x = "added" if over_ratios else "budget"
    cells: dict[tuple[str | None, Line | None, int], Cell] = {}
    for _, head, line in named:
        if line is not None:
            own = points[points["head"] == head]
            for point in line_points(own, line, with_baseline=False).to_dict("records"):
                cells[head, line, int(point[x])] = mean_cell(point["mean"], point["half_width"])
    columns = sorted({column for _, _, column in cells})
    sizes, what = rows.iloc[0], heads_text(rows)
    data = str(sizes["data"])
    pairs = f", {sizes['n_pairs']:,} pairs" if sizes["n_pairs"] else ""
    seeds = points["n_seeds"].to_numpy()
    what_of = "interval over seeds and test groups" if boot else "Student t interval over seeds"
    told = seeds.max() > 1 and metric not in NO_INTERVAL
    spread = f" ± half of a 95 % {what_of}, each by itself" if told else ""
    at = f" at n = {int(points['budget'].iloc[0]):,}" if over_ratios else ""
    caption = (
        f"{METRICS[metric]} on '{test}' ({sizes['n_test']:,} images{pairs}), {what}{_of_data(data)}{at}: means "
        f"over {seeds_text(seeds)}{spread}."
    )
    over = "budget n (labelled images)"
    if over_ratios:
        over = "images added" if any(line and line.arm == "add" for _, _, line in named) else "pair images"
    body = tuple((name, tuple(cells.get((head, line, c), Cell("")) for c in columns)) for name, head, line in named)
    heads = list(dict.fromkeys(rows["head"]))
    label = _label("summary", data, str(heads[0]) if len(heads) == 1 else what, test, metric)
    return Table(caption, label, over, tuple(f"{c:,}" for c in columns), body)


def _decimals(text: str) -> int | None:
    """Digits behind the point of a number, which may have a sign before it; None for what is none."""
    found = re.fullmatch(r"\D*[\d,]+(?:\.(\d+))?", text)
    return None if found is None else len(found[1] or "")


def _places(texts: Iterable[str]) -> int:
    """Decimals of a column: those of the number that has most."""
    return max((_decimals(text) or 0 for text in texts), default=0)


def _lined_up(text: str, places: int) -> str:
    """A number as LaTeX, as wide behind its point as the column's widest, so that points stand below each other."""
    own = _decimals(text)
    if own is None or own == places:
        return _tight(text)
    missing = "0" * (places - own) if own else "." + "0" * places
    return rf"{_tight(text)}\phantom{{{missing}}}"


def _tight(text: str) -> str:
    """A cell as LaTeX, signs close to their numbers."""
    return re.sub(r"(\$\\(?:geq|leq|pm)\$) ", r"\1\\,", escape_latex(text))


def _beyond(estimate: Estimate | None) -> bool:
    return estimate is None or (np.isinf(estimate.value) and estimate.low == estimate.value == estimate.high)


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def _bound(value: float, down: bool) -> str:
    """Three significant digits at most, rounded down or up, without trailing zeros: 16, 0.25, 0.00782."""
    exact = Decimal(repr(float(value)))
    place = Decimal(1).scaleb(min(exact.adjusted() - 2, 0)) if exact else Decimal(1)
    rounded = exact.quantize(place, ROUND_FLOOR if down else ROUND_CEILING).normalize()
    return f"{rounded:,f}".replace("-", "−")


def _number(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")


def _of_data(data: str) -> str:
    return f", data '{data}'" if data else ""


def _label(*parts: str) -> str:
    return "tab:" + "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts if part)


def write_tables(tables: Mapping[str, Sequence[Table]], formats: Collection[str], folder: Path) -> list[Path]:
    """Write each group of tables as `<name>.<format>` into `folder`, in the formats of `TABLE_FORMATS` wanted."""
    files = []
    for name, group in tables.items():
        for kind, write in (("md", markdown), ("tex", latex)):
            if kind in formats and group:
                text, path = write(group), folder / f"{name}.{kind}"
                replace_file(path, partial(Path.write_text, data=text, encoding="utf-8"))
                files.append(path)
    return files
