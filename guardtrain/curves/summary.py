"""The curve as text: a table a test set and metric, what its controls say, and the shortcut line."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from guardtrain.curves.comparisons import BEST, Comparison, comparisons
from guardtrain.curves.pairless import pairless_lines
from guardtrain.curves.point_intervals import with_test_images
from guardtrain.curves.results import CONTROL_NAMES, METRICS, NO_CONTROLS, SLICE_KINDS
from guardtrain.curves.shortcut import shortcuts
from guardtrain.curves.statistics import (
    NO_INTERVAL,
    OF_SEEDS,
    Line,
    default_panels,
    line_points,
    lines_of,
    number_text,
    seeds_text,
    select,
    summarise,
    whole_slices,
)
from guardtrain.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from guardtrain.curves.bootstrap import PointReplicates

WIDTH = 100  # where the output is no terminal: a log of continuous integration, a file
_SIZES = {"n_test": "Images", "n_unsafe": "Unsafe images", "n_pairs": "Pairs"}
_ASCII = str.maketrans(
    {"±": "+-", "−": "-", "–": "-", "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "⅛": "1/8"}
    | {"⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "…": ".", "·": "-", "─": "-", "≥": ">="}
)


def print_summary(
    frame: pd.DataFrame,
    panels: Sequence[tuple[str, str]] | None = None,
    *,
    boots: Mapping[tuple[str, str], PointReplicates] | None = None,
    in_domain: str | None = None,
    console: Console | None = None,
) -> None:
    """Print `summary_text` to the terminal, as wide as it is; 100 columns where the output is no terminal.

    Args:
        frame, panels, boots, in_domain: see `summary_text`.
        console: where to print; standard output when None.
    """
    from rich.console import Console
    from rich.text import Text

    console = console or Console(highlight=False)
    width = console.width if console.is_terminal else max(console.width, WIDTH)
    plain = not console.encoding.lower().startswith("utf")
    for line in summary_text(frame, panels, boots=boots, in_domain=in_domain, width=width, plain=plain).splitlines():
        # A title is the only line that is not indented.
        style = "bold" if line and not line.startswith(" ") else ""
        console.print(Text(line, style=style), soft_wrap=True)


def summary_text(
    frame: pd.DataFrame,
    panels: Sequence[tuple[str, str]] | None = None,
    *,
    boots: Mapping[tuple[str, str], PointReplicates] | None = None,
    in_domain: str | None = None,
    width: int = WIDTH,
    plain: bool = False,
) -> str:
    """The summary of a curve as text without colour, no line wider than `width`.

    Per panel a table: a row a line of the curve, a column a budget (or, where there is one budget and several
    ratios, a number of pair images), cells mean ± half the 95 % interval. Several heads stand below each
    other, with their lines indented where they have more than real data alone. Columns that do not fit are
    left out evenly, never the first and last, and named. Below: pairs minus each control, and, of several heads,
    minus the best real-only one, at all budgets together.

    Args:
        frame: a results table, see `guardtrain.curves.results.ResultsTable.read`.
        panels: (test set, metric) pairs; None for `guardtrain.curves.statistics.default_panels`.
        boots: bootstraps by (test, metric): intervals of these are over seeds and test groups; of others over seeds.
        in_domain: the test set that shares the training images' contexts, for the shortcut line, see
            `guardtrain.curves.shortcut.shortcuts`.
        width: in characters, at least 40.
        plain: write ASCII only.

    Raises:
        DataError: an empty table, or a test set or metric that is unknown.
    """
    whole = whole_slices(frame)
    chosen = check_panels(whole, panels if panels is not None else default_panels(whole))
    width = max(width, 40)
    boots = boots or {}
    compared = comparisons(whole, chosen, boots)
    blocks = []
    for test, metric in chosen:
        own = [c for c in compared if (c.test, c.metric) == (test, metric)]
        blocks.append(_panel(whole, test, metric, width, boots.get((test, metric)), own))
    blocks += _shortcut(whole, in_domain, boots, width)
    note = " ".join([spread_text(whole, chosen, boots), *_together(compared)])
    notes = [_wrapped(line, width) for line in (*pairless_lines(whole), note)]
    text = "\n\n".join([*blocks, *notes]) + "\n"
    return text.translate(_ASCII) if plain else text


def run_text(frame: pd.DataFrame, *, width: int = WIDTH) -> str:
    """One run as text: a row a metric, a column a test set.

    Args:
        frame: the rows of a single run of a results table; slices other than `all` are left out.
        width: in characters; test sets that do not fit go into further tables.

    Raises:
        DataError: no rows, or rows of several runs.
    """
    whole = whole_slices(frame)
    if len(runs := whole["run"].unique()) > 1:
        raise DataError(f"run_text shows one run; the rows are of {len(runs)}: {', '.join(runs[:4])}.")
    rows = whole.to_dict("records")
    defined = [m for m in METRICS if any(np.isfinite(row[m]) for row in rows)]
    stub = max(len(METRICS[m]) for m in [*defined, "auroc"])
    cell = max(8, *(len(str(row["test"])) for row in rows))
    at_once = max(1, (width - 2 - stub) // (cell + 3))
    out = []
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        table = [("test set", [str(row["test"]) for row in part])]
        table += [(METRICS[m], [number_text(row[m]) for row in part]) for m in defined]
        table += [(name, [f"{row[column]:,}" for row in part]) for column, name in _SIZES.items()]
        out += ["  " + name.ljust(stub) + "".join(text.rjust(cell + 3) for text in texts) for name, texts in table]
        out.insert(len(out) - len(table) + 1, "  " + "─" * (stub + len(part) * (cell + 3)))
    return "\n".join([*out, *(_wrapped(line, width) for line in pairless_lines(whole))])


def slices_text(frame: pd.DataFrame, metric: str = "auroc") -> str:
    """One run's `metric` as text: a row a category and a source, a column a test set; "" where there are no slices.

    A kind with one slice only is left out: it would repeat the whole.

    Args:
        frame: the rows of a single run of a results table.
        metric: one of `METRICS`.
    """
    tests = list(dict.fromkeys(frame["test"].astype(str)))
    values = {(row["slice_kind"], row["slice"], row["test"]): row[metric] for row in frame.to_dict("records")}
    kinds = {kind: list(dict.fromkeys(s for k, s, _ in values if k == kind)) for kind in SLICE_KINDS[1:]}
    shown = [(kind, name) for kind, names in kinds.items() if len(names) > 1 for name in names]
    if not shown:
        return ""
    stub = max(len(f"{METRICS[metric]} by {kind}") for kind in kinds) + 2
    stub = max(stub, *(len(name) for _, name in shown))
    cell = max(8, *(len(test) for test in tests))
    lines = []
    for i, (kind, name) in enumerate(shown):
        if i == 0 or shown[i - 1][0] != kind:
            head = f"{METRICS[metric]} by {kind}".ljust(stub) + "".join(test.rjust(cell + 3) for test in tests)
            lines += [f"  {head}", "  " + "─" * (stub + len(tests) * (cell + 3))]
        cells = [number_text(values.get((kind, name, test), float("nan"))) for test in tests]
        lines.append("  " + name.ljust(stub) + "".join(text.rjust(cell + 3) for text in cells))
    return "\n".join(lines)


def check_panels(frame: pd.DataFrame, panels: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """`panels` as a list; raises DataError where a test set or metric is unknown."""
    tests = list(dict.fromkeys(frame["test"]))
    for test, metric in panels:
        if test not in tests:
            raise DataError(f"Unknown test set '{test}'; the results have: {', '.join(tests)}.")
        if metric not in METRICS:
            raise DataError(f"Unknown metric '{metric}'; there are: {', '.join(METRICS)}.")
    if not panels:
        raise DataError("No panel to show: no test set has a defined AUROC or pair metric.")
    return [(test, metric) for test, metric in panels]


def heads_text(frame: pd.DataFrame) -> str:
    """Say what was trained, for a title: "linear head", "4 heads"."""
    heads = list(dict.fromkeys(frame["head"]))
    return f"{heads[0]} head" if len(heads) == 1 else f"{len(heads)} heads"


def head_rows(points: pd.DataFrame, lines: Sequence[Line]) -> list[tuple[str, str | None, Line | None]]:
    """Rows of a table of several heads: (name, head, line); the line is None in the row that only names a head.

    One head needs no naming, and heads with real data alone are a row each; otherwise a head's lines stand indented
    below it.

    Args:
        points: of `summarise`.
        lines: its lines in reading order.
    """
    heads = [str(head) for head in dict.fromkeys(points["head"])]
    if len(heads) == 1:
        return [(row_name(line, lines), heads[0], line) for line in lines]
    if len(lines) == 1 and lines[0].control == "none":
        return [(head, head, lines[0]) for head in heads]
    rows: list[tuple[str, str | None, Line | None]] = []
    for head in heads:
        own = lines_of(points[points["head"] == head], lines[-1].ratio is None)
        rows.append((head, head, None))
        rows += [(f"  {row_name(line, own)}", head, line) for line in own]
    return rows


def in_table_order(points: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """A `summarise` table with its heads in the order in which `frame` first names them, not by name."""
    place = {head: number for number, head in enumerate(dict.fromkeys(frame["head"]))}
    return points.sort_values("head", key=lambda heads: heads.map(place), kind="stable").reset_index(drop=True)


def spread_text(
    whole: pd.DataFrame, panels: Sequence[tuple[str, str]], boots: Collection[tuple[str, str]], mark: str = "±"
) -> str:
    """Say in sentences what ± is half of: over what the intervals of these panels are."""
    told, metrics = [], [METRICS[metric] for _, metric in panels if metric in NO_INTERVAL]
    fixed = [panel for panel in panels if panel not in boots and panel[1] not in NO_INTERVAL]
    if wide := [panel for panel in panels if panel in boots]:
        told.append(
            f"{mark} is half of a 95 % interval over seeds and test images: what other draws of both would give."
        )
    if fixed:
        where = ", ".join(f"{METRICS[metric]} on '{test}'" for test, metric in fixed) + ": " if wide else ""
        told.append(f"{where}{mark} is half of a 95 % Student t interval over {OF_SEEDS}.")
    if metrics:
        told.append("Calibration errors have no interval: each has chance added to it.")
    return " ".join(told)


def _together(compared: Sequence[Comparison]) -> list[str]:
    if not any(c.kind != "none" and not np.isnan(c.low).all() for c in compared):
        return []
    return [
        "A cell's interval stands for itself. Brackets of differences hold at once for all n and ratios of a head and "
        "what it is compared with. '≥ .02 would be': so large a true difference is shown in 4 of 5 such curves, at the "
        "n where least is needed; `guardtrain plan` says how many seeds another one takes."
    ]


def _panel(
    frame: pd.DataFrame,
    test: str,
    metric: str,
    width: int,
    boot: PointReplicates | None,
    compared: Sequence[Comparison],
) -> str:
    rows = frame[frame["test"] == test]
    sizes = rows.iloc[0]
    points = in_table_order(with_test_images(summarise(rows, metric), boot), rows)
    defined = points[points["n_seeds"] > 0]
    if defined.empty:
        return _wrapped(f"{METRICS[metric]} on '{test}': no values.", width, indent="") + (
            "\n  The test set has no complete pairs." if metric.startswith("pair_") and not sizes["n_pairs"] else ""
        )
    head = f"{METRICS[metric]} on '{test}' · {heads_text(rows)} · {sizes['n_test']:,} images"
    if sizes["n_pairs"]:
        head += f", {sizes['n_pairs']:,} pairs"
    title = _wrapped(f"{head} · {seeds_text(defined['n_seeds'].to_numpy())}", width, indent="", hang="  ")
    over_ratios = len(points["budget"].unique()) == 1 and len(points["ratio"].unique()) > 1
    table = _table(_without_controls(points), over_ratios, width)
    return "\n".join([title, table, *_controls(compared, rows, over_ratios, width)])


def _without_controls(points: pd.DataFrame) -> pd.DataFrame:
    """Points to tabulate: of several heads real data alone and pairs, or nobody would read it; of one head all."""
    kept = points[points["control"].isin(NO_CONTROLS)]
    return points if kept.empty or len(set(points["head"])) == 1 else kept


def _table(points: pd.DataFrame, over_ratios: bool, width: int) -> str:
    rows = head_rows(points, lines_of(points, over_ratios))
    x = "added" if over_ratios else "budget"
    cells: dict[tuple[str | None, Line | None, int], str] = {}
    for _, head, line in rows:
        if line is not None:
            own = points[points["head"] == head]
            for point in line_points(own, line, with_baseline=False).to_dict("records"):
                cells[head, line, int(point[x])] = _cell(point["mean"], point["half_width"])
    columns = sorted({column for _, _, column in cells})
    corner = "budget n (images)"
    if over_ratios:
        corner = "images added" if any(line and line.arm == "add" for _, _, line in rows) else "pair images"
    stub = min(max(map(len, [corner, *(name for name, _, _ in rows)])), width // 2)
    cell = max(len(text) for text in [*cells.values(), *(f"{c:,}" for c in columns)])
    shown, gap = _fitting(columns, width - 2 - stub, cell)

    def written(label: str, texts: list[str]) -> str:
        label = label if len(label) <= stub else label[: stub - 1] + "…"
        return ("  " + label.ljust(stub) + "".join(" " * gap + text.rjust(cell) for text in texts)).rstrip()

    out = [written(corner, [f"{column:,}" for column in shown])]
    out.append("  " + "─" * (stub + len(shown) * (cell + gap)))
    out += [written(name, [cells.get((head, line, c), "") for c in shown]) for name, head, line in rows]
    if left_out := [f"{c:,}" for c in columns if c not in shown]:
        out.append(_wrapped(f"Too narrow for all columns; not shown: {', '.join(left_out)}.", width))
    return "\n".join(out)


def row_name(line: Line, lines: Sequence[Line]) -> str:
    """A table row's name: a control stands indented under its pairs, where they are there, and then needs no more."""
    if line.control in CONTROL_NAMES and Line(line.arm, "paired", line.ratio) in lines:
        return f"  {CONTROL_NAMES[line.control]}"
    return line.label(both_arms=True)


def _cell(mean: float, half: float) -> str:
    return number_text(mean) + (f"±{number_text(half)}" if np.isfinite(half) else "")


def _fitting(columns: list[int], room: int, cell: int) -> tuple[list[int], int]:
    """The columns that fit into `room` characters, first and last kept, and the gap between them."""
    for gap in (3, 2, 1):
        if len(columns) * (cell + gap) <= room:
            return columns, gap
    count = max(1, room // (cell + 2))
    if count == 1:
        return columns[-1:], 2
    picks = np.unique(np.linspace(0, len(columns) - 1, count).round().astype(int))
    return [columns[i] for i in picks], 2


def _controls(compared: Sequence[Comparison], rows: pd.DataFrame, over_ratios: bool, width: int) -> list[str]:
    """Pairs minus each of their controls, and minus the best real-only head, with what the intervals allow to say.

    Of several heads the latter alone: the controls are told by the decomposition, and by the report.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    several = len({c.head for c in compared}) > 1
    wanted = {BEST} if several and any(one.kind == BEST for one in compared) else {BEST, *CONTROL_NAMES}
    for one in compared:
        if one.kind in wanted:
            found.setdefault(one.head, []).append((_compared_name(one, rows, over_ratios), one.told()))
    if not found:
        return []
    stub = max(len(name) for own in found.values() for name, _ in own)
    what = "the best real-only head" if wanted == {BEST} else "what they are compared with"
    out = [_wrapped(f"Pairs against {what}, matched by seed, at every n:", width)]
    indent = "      " if several else "    "
    for head, own in found.items():
        if several:
            out.append(_wrapped(head, width, indent="    "))
        for name, value in own:
            line = f"{indent}{name.ljust(stub)}  {value}"
            folded = _wrapped(f"{name}: {value}", width, indent=indent, hang=f"{indent}  ")
            out.append(line if len(line) <= width else folded)
    best = next((c for c in compared if c.kind == BEST), None)
    if best is not None:
        names: dict[str, list[int]] = {}
        for head, budget in zip(best.heads, best.budgets, strict=True):
            names.setdefault(head, []).append(budget)
        told = "; ".join(f"{head} at n = {', '.join(f'{n:,}' for n in budgets)}" for head, budgets in names.items())
        out.append(_wrapped(f"Best real-only head: {told}.", width, indent="    ", hang="      "))
    return out


def _compared_name(one: Comparison, rows: pd.DataFrame, over_ratios: bool) -> str:
    """Say what is compared: "pairs ½ (replace) − unpaired ½ (control)"."""
    lines = lines_of(rows)
    both_arms = len({line.arm for line in lines if line.control != "none"}) > 1
    if one.other is None:
        return f"{one.line.label()} − best real-only head"
    if not over_ratios:
        return f"{one.line.label()} − {one.other.label(both_arms)}"
    side = {"arm": one.line.arm, "control": "paired", "ratio": one.line.ratio}
    added = select(rows[rows["budget"] == one.budgets[-1]], side)["n_pair_images"].iloc[0]
    short = Line(one.other.arm, one.other.control, None)
    return f"{added:,} images: {Line(one.line.arm, 'paired', None).label()} − {short.label(both_arms)}"


def _shortcut(
    frame: pd.DataFrame,
    in_domain: str | None,
    boots: Mapping[tuple[str, str], PointReplicates],
    width: int,
) -> list[str]:
    """Real data alone, at its largest budget: AUROC where the contexts are shared, both sides right on the pairs."""
    every, several = shortcuts(frame, in_domain, boots), len(set(frame["head"])) > 1
    out = []
    for test in dict.fromkeys(found.test for found in every):
        own = [found for found in every if found.test == test]
        told = [
            _wrapped(
                (f"{found.head}: real" if several else "Real")
                + f" only at n = {found.budget:,} has AUROC {_cell(found.auroc['mean'], found.auroc['half_width'])} on "
                f"'{found.in_domain}', and gets both sides right of "
                f"{_cell(found.right['mean'], found.right['half_width'])} of the pairs of '{test}'.",
                width,
                hang="    " if several else None,
            )
            for found in own
        ]
        doubt = [_wrapped(own[0].doubt(), width)] if own[0].guessed else []
        out.append("\n".join([f"Shortcut check · {heads_text(frame)}", *told, *doubt]))
    return out


def _wrapped(text: str, width: int, indent: str = "  ", hang: str | None = None) -> str:
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=indent if hang is None else hang, break_on_hyphens=False
    )
